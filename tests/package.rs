//! The Debian package on a whole Debian: installed as the README says, with the real rsyslog, Postfix
//! and Dovecot as they come; upgraded, removed, purged.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::client::{POP3, Session};
use support::network::connect;
use support::systemd::{Systemd, readme};
use support::{PATIENCE, directory, eventually};

const CLIENT: &str = "198.51.100.7";
const STRANGER: &str = "198.51.100.8";

const PACKAGE: &str = "<!-- package: tests/package.rs runs this -->";
const POSTFIX: &str = "<!-- postfix: tests/package.rs runs this -->";

/// What a mail host has before: an account, and POP3 as old devices speak it, without TLS.
const DOVECOT: &str = "disable_plaintext_auth = no\nssl = no\n";
const ACCOUNT: &str = "useradd --create-home joe; echo joe:secret | chpasswd";

/// Builds the package of the program under test.
fn package(directory: &Path) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/package/deb");
    let mut command = Command::new(script);
    command.arg(env!("CARGO_BIN_EXE_pop-before-smtp")).arg(directory);
    let output = command.output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// What Postfix answers to mail for elsewhere from this client.
fn rcpt(client: &str) -> u16 {
    let mut stream = BufReader::new(connect(client, 25).expect("Postfix listens"));
    let mut say = |line: &str| -> u16 {
        stream.get_mut().write_all(line.as_bytes()).expect("it listens");
        let mut reply = String::new();
        stream.read_line(&mut reply).expect("it answers");
        reply[..3].parse().expect("a reply begins with its code")
    };
    assert_eq!(say(""), 220);
    assert_eq!(say("HELO client.example\r\n"), 250);
    assert_eq!(say("MAIL FROM:<joe@client.example>\r\n"), 250);
    say("RCPT TO:<someone@elsewhere.example>\r\n")
}

/// Files of the whole system whose path has our name.
fn ours(host: &Systemd) -> String {
    host.must(
        "find / -xdev -path '*pop-before-smtp*' -not -path '/src/*' -not -path '/sys/*' | sort",
    )
}

#[test]
fn a_package_for_debian() {
    let dir = directory();
    let package = package(dir.path());
    let dovecot = dir.path().join("dovecot.conf");
    fs::write(&dovecot, DOVECOT).expect("written");
    let name = package.file_name().expect("a name").to_str().expect("text").to_owned();
    let place = format!("src/target/package/{name}");
    let host =
        Systemd::start_debian(&[(&place, &package), ("etc/dovecot/conf.d/99-test.conf", &dovecot)]);
    host.join(&[CLIENT, STRANGER]);
    host.must(ACCOUNT);
    let both = || [CLIENT, STRANGER].map(rcpt);
    assert_eq!(both(), [454; 2], "as Debian has it");

    // Installed as the README says.
    host.must(&readme(PACKAGE));
    assert_eq!(host.must("systemctl is-enabled pop-before-smtp.service"), "enabled");
    assert_eq!(host.must("systemctl show -P StatusText pop-before-smtp"), "serving");
    host.must(&readme(POSTFIX));
    assert_eq!(both(), [554; 2]);

    // The client collects mail, and may send.
    assert!(Session::open(CLIENT, POP3).log_in("joe", "secret"), "{}", host.journal());
    let query = || host.run(&format!("pop-before-smtp query {CLIENT}")).status.success();
    eventually("it is authorised", PATIENCE, query);
    eventually("Postfix knows", PATIENCE, || rcpt(CLIENT) == 250);
    assert!(!Session::open(STRANGER, POP3).log_in("joe", "wrong"));
    assert_eq!(both(), [250, 554]);
    let findings = host.must("pop-before-smtp doctor");
    assert!(findings.contains("\n0 to mend, 0 remarks, "), "{findings}");

    // An upgrade forgets nothing.
    host.must(&format!("dpkg --install /{place}"));
    assert!(query(), "{}", host.journal());
    assert_eq!(both(), [250, 554]);

    // Removed: nothing of it runs, nobody relays, and Postfix goes on.
    host.must("apt-get remove --quiet --yes pop-before-smtp");
    assert_eq!(both(), [554; 2]);
    let units = "systemctl list-units --state=active,failed --no-legend 'pop-before-smtp*'";
    assert_eq!(host.must(units), "");
    let left = "ls -d /lib/systemd/system/pop-before-smtp* /run/pop-before-smtp/* || true";
    assert_eq!(host.must(left), "");

    // Purged: what the administrator has put there is left.
    let said = host.run("dpkg --purge pop-before-smtp");
    let warning = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && warning.contains("still names it"), "{warning}");
    assert_eq!(ours(&host), "/etc/rsyslog.d/40-pop-before-smtp.conf");
}
