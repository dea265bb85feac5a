//! Two installations on one host, and a first start by hand: what the service says, and what mends it.
//!
//! - **Promise**: one fault with exit status 78 and no loop of restarts; it names what to delete, and
//!   `check` and `doctor` say the same. The command that is named is carried out as it is printed.

use std::path::Path;
use std::process::Output;

use super::doctor::doctor;
use super::package::{CLIENT, PACKAGE, POSTFIX, host, host_with, rcpt};
use super::systemd::{SERVICE, files_below};
use crate::support::client::{POP3, Session};
use crate::support::systemd::{Systemd, readme};
use crate::support::{PATIENCE, eventually, within};

/// Where the messages of the daemon are.
const JOURNAL: &str = "journalctl --no-pager --output=cat --unit=pop-before-smtp";
/// The administrator keeps their configuration when the package brings its own.
const KEEP_CONFIGURATION: &str = "echo force-confold > /etc/dpkg/dpkg.cfg.d/answers";

fn show(host: &Systemd, name: &str) -> String {
    host.must(&format!("systemctl show -P {name} pop-before-smtp.service"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Starts a mail host with what the guide's manual installation has put there.
fn host_installed_manually() -> Systemd {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        files_below("deploy").iter().map(|path| (format!("src/{path}"), root.join(path))).collect();
    let program = env!("CARGO_BIN_EXE_pop-before-smtp").into();
    files.push(("usr/local/bin/pop-before-smtp".to_owned(), program));
    let config = root.join("deploy/example.toml");
    files.push(("etc/pop-before-smtp/config.toml".to_owned(), config));
    let files: Vec<_> = files.iter().map(|(path, source)| (&**path, &**source)).collect();
    let host = host_with(&files);
    host.must(KEEP_CONFIGURATION);
    host
}

/// Returns the commands of the only problem with these words that `doctor` reports.
fn fix(host: &Systemd, words: &str) -> String {
    let (findings, _) = doctor(host);
    let texts = |key: &str| -> Vec<&str> {
        let of_it = findings.iter().filter(|finding| {
            finding["level"] == "problem"
                && finding["what"].as_str().is_some_and(|what| what.contains(words))
        });
        of_it.filter_map(|finding| finding[key].as_str()).collect()
    };
    let fixes = texts("fix");
    assert_eq!(fixes.len(), 1, "{words}: {findings:#?}");
    fixes[0].to_owned()
}

/// Asserts that `doctor` is content, and that a login counts.
fn is_sound(host: &Systemd) {
    let (findings, is_content) = doctor(host);
    assert!(is_content, "{findings:#?}");
    assert!(Session::open(CLIENT, POP3).log_in("joe", "secret"), "{}", host.journal());
    eventually("Postfix accepts the client", PATIENCE, || rcpt(CLIENT) == 250);
}

#[test]
fn a_package_over_a_manual_installation() {
    let host = host_installed_manually();
    host.must(&readme(SERVICE));
    host.must(&readme(PACKAGE));
    host.must(&readme(POSTFIX));
    let unit = "/etc/systemd/system/pop-before-smtp.service";
    assert_eq!(show(&host, "FragmentPath"), unit);
    let words = format!("`{unit}`, installed by hand, hides the package's");
    let journal = host.must(JOURNAL);
    let last = journal.rfind("listening").expect("it has started");
    let restarted = journal[..last].rfind("Starting").map_or("", |at| &journal[at..]);
    assert_eq!(restarted.matches(&words).count(), 1, "{journal}");
    let check = host.run("pop-before-smtp check");
    assert!(check.status.success() && said(&check).contains(&words), "{check:?}");
    let fix = fix(&host, &words);
    assert!(said(&check).contains(&fix), "{check:?}\n{fix}");

    host.must(&fix);
    assert_eq!(show(&host, "FragmentPath"), "/lib/systemd/system/pop-before-smtp.service");
    assert_eq!(host.must("hash -r; command -v pop-before-smtp"), "/usr/bin/pop-before-smtp");
    assert_eq!(host.must("systemctl is-enabled pop-before-smtp.service"), "enabled");
    is_sound(&host);
}

#[test]
fn listen_beside_the_socket_unit() {
    let host = host_installed_manually();
    host.must("rm /usr/local/bin/pop-before-smtp");
    host.must(&readme(PACKAGE));
    let ended = || show(&host, "ExecMainStatus") == "78" && show(&host, "ActiveState") == "failed";
    assert!(within(PATIENCE, ended), "{}", host.journal());
    // While a socket exists, a message in it starts the service.
    let stopped = || host.must("systemctl show -P SubState pop-before-smtp.socket") == "dead";
    assert!(within(PATIENCE, stopped), "{}", host.journal());
    host.must("logger -p mail.info -t test message; systemctl restart rsyslog");
    assert!(ended(), "{}", host.journal());
    assert_eq!(show(&host, "NRestarts"), "0");
    let words = "delete it from `listen` in `/etc/pop-before-smtp/config.toml`";
    let journal = host.must(JOURNAL);
    assert_eq!(journal.matches(words).count(), 1, "{journal}");

    let check = host.run("pop-before-smtp check");
    assert_eq!(check.status.code(), Some(78), "{check:?}");
    assert_eq!(said(&check).matches(words).count(), 1, "{check:?}");
    let fix = fix(&host, words);
    for said in [&journal, &said(&check)] {
        assert!(said.contains(&format!("hint: {fix}")), "{said}\n{fix}");
    }
    host.must(&fix);
    host.must(&readme(POSTFIX));
    is_sound(&host);
}

/// The service cannot use what a daemon of root has left.
#[test]
fn a_first_start_as_root() {
    let host = host();
    host.must(&readme(PACKAGE));
    host.must(&readme(POSTFIX));
    host.must("systemctl stop pop-before-smtp.socket pop-before-smtp.service");
    host.must("rm -f /var/lib/pop-before-smtp/*");
    let by_hand = host.must(&format!(
        "pop-before-smtp run --listen udp:127.0.0.1:5599 2> /root/log & \
         until pop-before-smtp allow {CLIENT} > /dev/null 2>&1; do kill -0 $!; sleep 0.1; done; \
         kill $!; wait $!; cat /root/log"
    ));
    let warning = "runs as root, although there is the user pop-before-smtp";
    assert_eq!(by_hand.matches(warning).count(), 1, "{by_hand}");
    for left in ["state", "clients"] {
        assert!(by_hand.contains(&format!("/var/lib/pop-before-smtp/{left}")), "{by_hand}");
    }

    let started = host.run("systemctl start pop-before-smtp");
    assert!(!started.status.success(), "{}", host.journal());
    let journal = host.must(JOURNAL);
    let command = "chown pop-before-smtp /var/lib/pop-before-smtp/state";
    assert!(journal.contains(&format!("`{command}`")), "{journal}");
    host.must(command);
    // The rest is named by `doctor`.
    host.must(&fix(&host, "files of the daemon belong to root"));
    is_sound(&host);
}
