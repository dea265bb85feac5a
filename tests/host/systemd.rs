//! The units of deploy/systemd and deploy/journald under the real systemd, installed as the guide
//! says: valid, hardened, ready, restarted, killed; the journal as the only syslog daemon.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use crate::support::story::login_frame;
use crate::support::systemd::{Systemd, readme};
use crate::support::{PATIENCE, directory, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CLIENT: &str = "198.51.100.7";

/// Highest permitted exposure of `systemd-analyze security`, in tenths.
const EXPOSURE: u32 = 15;

pub const SERVICE: &str = "<!-- service: tests/host/systemd.rs runs this -->";
const MORE_SOCKETS: &str = "<!-- sockets: tests/host/systemd.rs runs this -->";
const UPGRADE: &str = "<!-- upgrade: tests/host/systemd.rs runs this -->";
const REMOVAL: &str = "<!-- removal: tests/host/systemd.rs runs this -->";
const JOURNAL: &str = "<!-- journal: tests/host/systemd.rs runs this -->";

/// Lists the files below a directory of the project.
pub fn files_below(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(dir)).expect("a directory");
    let below = |entry: fs::DirEntry| {
        let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { files_below(&path) } else { vec![path] }
    };
    entries.flat_map(|entry| below(entry.expect("an entry"))).collect()
}

/// Starts a host with Postfix, the program, its example configuration, and deploy/ in /src.
fn host() -> Systemd {
    let dir = directory();
    let main = dir.path().join("main.cf");
    fs::write(&main, "compatibility_level = 3.6\nmynetworks = 127.0.0.0/8\n").expect("written");
    fs::set_permissions(&main, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let here = Path::new(ROOT);
    let mut files: Vec<(String, PathBuf)> = files_below("deploy")
        .into_iter()
        .map(|path| (format!("src/{path}"), here.join(&path)))
        .collect();
    let others = [
        ("usr/local/bin/pop-before-smtp", env!("CARGO_BIN_EXE_pop-before-smtp").into()),
        ("etc/pop-before-smtp/config.toml", here.join("deploy/example.toml")),
        ("etc/postfix/main.cf", main),
    ];
    files.extend(others.map(|(path, source)| (path.to_owned(), source)));
    let files: Vec<_> = files.iter().map(|(path, source)| (&**path, &**source)).collect();
    Systemd::start(&files)
}

fn authorised(host: &Systemd) -> Vec<String> {
    let list = host.must("pop-before-smtp list --json");
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let list = list.as_array().expect("an array").iter();
    list.map(|client| client["address"].as_str().expect("an address").to_owned()).collect()
}

fn wait_until_authorised(host: &Systemd, address: &str) {
    eventually(&format!("{address} is authorised"), PATIENCE, || {
        host.run(&format!("pop-before-smtp query {address}")).status.success()
    });
}

#[test]
fn units_are_valid_and_hardened() {
    let host = host();
    host.must(&readme(SERVICE));
    let version = host.must("systemctl --version | sed -n '1s/^systemd \\([0-9]*\\).*/\\1/p'");
    let version: u32 = version.parse().expect("a number");
    host.must("cp /src/deploy/journald/*.socket /etc/systemd/system");
    let output = host.run("cd /etc/systemd/system; systemd-analyze verify --man=no ./pop-before-smtp*.*t ./pop-before-smtp.service");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let known = |line: &str| version < 253 && line.ends_with("ignoring: notify-reload");
    // systemd-analyze also reports faults of other units.
    let ours = said.lines().filter(|line| line.contains("pop-before-smtp") && !known(line));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
    let security = "cd /etc/systemd/system; systemd-analyze security --offline=yes --no-pager";
    host.must(&format!("{security} --threshold={EXPOSURE} ./pop-before-smtp.service"));
}

/// The socket for Exim, as deploy/exim/README.md says: only its group may ask.
#[test]
fn exim_may_ask() {
    let host = host();
    host.must(&readme(SERVICE));
    host.must("groupadd --system Debian-exim");
    host.must("sed -i 's/^map =/#&/' /etc/pop-before-smtp/config.toml");
    let guide = fs::read_to_string(Path::new(ROOT).join("deploy/exim/README.md")).unwrap();
    let (_, block) = guide.split_once("With systemd:\n\n```sh\n").expect("commands");
    let (block, _) = block.split_once("```\n").expect("a block ends");
    host.must(&format!("cd /src/deploy/exim\n{block}"));
    let socket = "/run/pop-before-smtp/policy";
    assert_eq!(host.must(&format!("stat -c '%A %G' {socket}")), "srw-rw---- Debian-exim");
    let ask = |group: &str| {
        let ask = "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10); \
            s.connect(\"/run/pop-before-smtp/policy\"); \
            s.sendall(b\"request=smtpd_access_policy\\n\\n\"); print(s.recv(99))";
        let user = format!("setpriv --reuid nobody --regid {group} --clear-groups");
        host.run(&format!("{user} python3 -c '{ask}'"))
    };
    let answer = ask("Debian-exim");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("action=DUNNO"), "{answer:?}");
    assert!(!ask("nogroup").status.success(), "others may not ask");
    host.must("systemctl restart pop-before-smtp");
    assert!(ask("Debian-exim").status.success(), "after a restart: {}", host.journal());
}

#[test]
fn service_runs_under_systemd() {
    let host = host();
    host.must(&readme(SERVICE));
    host.must(&readme(MORE_SOCKETS));
    host.must("systemctl enable pop-before-smtp-udp.socket pop-before-smtp-socketmap.socket");
    host.must("systemctl restart pop-before-smtp");
    let show = |name: &str| host.must(&format!("systemctl show -P {name} pop-before-smtp"));
    assert!(["notify", "notify-reload"].contains(&&*show("Type")));
    assert_eq!(show("StatusText"), "serving", "{}", host.journal());

    // Frames, over both passed sockets; other users may not write to the first.
    let text = login_frame(CLIENT).split_once(": ").expect("a tag").1.to_owned();
    let logger = |how: &str, text: &str| format!("logger {how} -p mail.info -t dovecot '{text}'");
    let unix = "-u /run/pop-before-smtp/log.sock";
    host.must(&logger(unix, &text));
    wait_until_authorised(&host, CLIENT);
    host.must(&logger("-d -n 127.0.0.1 -P 5514", &text.replace(CLIENT, "198.51.100.8")));
    wait_until_authorised(&host, "198.51.100.8");
    // What the log names is a field of the journal.
    let fields = |field: &str| host.must(&format!("journalctl -u pop-before-smtp -o cat {field}"));
    let of_client = format!("PBS_ADDRESS={CLIENT} PBS_USER=joe PBS_DAEMON=dovecot PRIORITY=6");
    eventually("the journal has the login", PATIENCE, || {
        fields(&of_client).contains(&format!("authorised address={CLIENT} user=\"joe\""))
    });
    assert!(!fields("PBS_ADDRESS=198.51.100.9").contains("authorised"));
    let nobody = "setpriv --reuid nobody --regid nogroup --clear-groups";
    let forged = text.replace(CLIENT, "198.51.100.66");
    host.run(&format!("{nobody} {}", logger(unix, &forged)));

    // The map: an ordinary user can read it.
    let table = "\"$(postconf -h default_database_type):/var/lib/pop-before-smtp/clients\"";
    let mapped = || host.run(&format!("{nobody} postmap -q {CLIENT} {table}")).stdout;
    eventually("it is in the map", PATIENCE, || mapped() == b"OK\n");

    // Postfix may query the daemon, and no one else.
    let socketmap = "socketmap:unix:/var/spool/postfix/pop-before-smtp/socketmap:clients";
    let postfix = "setpriv --reuid postfix --regid postfix --clear-groups";
    assert_eq!(host.must(&format!("{postfix} postmap -q {CLIENT} {socketmap}")), "OK");
    let refused = host.run(&format!("{nobody} postmap -q {CLIENT} {socketmap}"));
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    let mut policy = UnixStream::connect(host.at("/var/spool/postfix/pop-before-smtp/policy"))
        .expect("root may connect too");
    let request = format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={CLIENT}\nsender=a@b\n\n"
    );
    policy.write_all(request.as_bytes()).unwrap();
    let mut reply = [0; 10];
    policy.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"action=OK\n");

    host.must("systemctl reload pop-before-smtp");
    let reloaded = || host.journal().contains("configuration reloaded");
    eventually("it is reloaded", PATIENCE, reloaded);

    // Killed, it is restarted and keeps all grants; the sockets stay the same.
    let socket = host.must("systemctl show -P InvocationID pop-before-smtp-policy.socket");
    host.must("systemctl kill --signal=KILL --kill-who=main pop-before-smtp");
    eventually("it is restarted", PATIENCE, || {
        show("NRestarts") == "1" && show("StatusText") == "serving"
    });
    assert_eq!(authorised(&host), [CLIENT, "198.51.100.8"]);
    assert_eq!(host.must("systemctl show -P InvocationID pop-before-smtp-policy.socket"), socket);

    // Upgraded by hand, it keeps them; removed by hand, it leaves nothing.
    let program = "/usr/local/bin/pop-before-smtp";
    host.must(&format!("install -D {program} /src/target/release/pop-before-smtp"));
    let started = show("InvocationID");
    host.must(&readme(UPGRADE));
    assert_ne!(show("InvocationID"), started);
    assert_eq!(authorised(&host), [CLIENT, "198.51.100.8"]);
    host.must(&readme(REMOVAL));
    let ours = "find / /run /usr -xdev -path '*pop-before-smtp*' -not -path '/src/*'";
    assert_eq!(host.must(ours), "");
    assert_eq!(host.must("systemctl list-units --all --no-legend 'pop-before-smtp*'"), "");
    assert!(!host.must("cat /etc/passwd /etc/group").contains("pop-before-smtp"));
}

/// If the daemon is not restarted after a crash, its map is emptied.
#[test]
fn crash_without_restart_empties_the_map() {
    let host = host();
    host.must(&readme(SERVICE));
    host.must("sed -i 's/^Restart=.*/Restart=no/' /etc/systemd/system/pop-before-smtp.service");
    host.must("systemctl daemon-reload");
    let socket = UnixDatagram::unbound().unwrap();
    let path = host.at("/run/pop-before-smtp/log.sock");
    socket.send_to(login_frame(CLIENT).as_bytes(), &path).unwrap();
    let source = || fs::read_to_string(host.at("/var/lib/pop-before-smtp/clients")).unwrap();
    eventually("it is in the map", PATIENCE, || source().contains(CLIENT));
    host.must("systemctl kill --signal=KILL --kill-who=main pop-before-smtp");
    let show = |name: &str| host.must(&format!("systemctl show -P {name} pop-before-smtp"));
    eventually("the unit has failed", PATIENCE, || show("ActiveState") == "failed");
    assert!(!source().contains(CLIENT), "{}", host.journal());
}

/// systemd holds the socket: senders wait while the daemon restarts, and no frame is lost.
#[test]
fn restarts_lose_no_login() {
    const LOGINS: usize = 400;
    let host = host();
    host.must(&readme(SERVICE));
    let path = host.at("/run/pop-before-smtp/log.sock");
    let address = |number: usize| format!("203.0.{}.{}", 113 + number / 200, 1 + number % 200);
    let sender = thread::spawn(move || {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(&path).unwrap();
        for number in 0..LOGINS {
            socket.send(login_frame(address(number)).as_bytes()).expect("the socket always exists");
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    for _ in 0..3 {
        host.must("systemctl restart pop-before-smtp");
    }
    sender.join().expect("all is sent");
    wait_until_authorised(&host, &address(LOGINS - 1));
    assert_eq!(authorised(&host).len(), LOGINS);
    // Each clean shutdown has emptied the map.
    let journal = host.journal();
    assert!(!journal.contains("could not be published"), "{journal}");
}

/// Logins count while the journal reads nothing; what it could not be told is counted.
#[test]
fn a_journal_that_stands_still_stops_nobody() {
    const LOGINS: u32 = 8000;
    let host = host();
    host.must(&readme(SERVICE));
    let journald = "$(systemctl show -P MainPID systemd-journald)";
    host.must(&format!("kill -STOP {journald}"));
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    for n in 0..LOGINS {
        let frame = login_frame(format!("10.7.{}.{}", n / 250, n % 250 + 1));
        let path = host.at("/run/pop-before-smtp/log.sock");
        socket.send_to(frame.as_bytes(), path).expect("the daemon does not wait for the journal");
    }
    let status = || -> serde_json::Value {
        serde_json::from_str(&host.must("pop-before-smtp status --json")).expect("JSON")
    };
    eventually("all count", PATIENCE, || status()["clients"] == LOGINS);
    let lost = status()["log_lines_lost"].as_u64().expect("a number");
    assert!(lost > 0, "the log fitted into its queue");
    host.must(&format!("kill -CONT {journald}"));
    eventually("the loss is told", PATIENCE, || {
        let lines =
            host.must("journalctl -u pop-before-smtp -o cat -g 'dropped log lines' || true");
        lines.contains("dropped log lines")
    });
}

/// Without another syslog daemon, journald forwards logins.
#[test]
fn journald_forwards_logins() {
    let host = host();
    host.must(&readme(SERVICE));
    host.must(&readme(JOURNAL));
    let text = login_frame(CLIENT).split_once(": ").expect("a tag").1.to_owned();
    host.must(&format!("logger -p mail.info -t dovecot '{text}'"));
    wait_until_authorised(&host, CLIENT);
    let imaps =
        "login: localhost [198.51.100.9] joe PLAIN User logged in SESSIONID=<cyrus-1-1-1-1>";
    host.must(&format!("logger -i -p mail.notice -t cyrus/imaps '{imaps}'"));
    wait_until_authorised(&host, "198.51.100.9");
}
