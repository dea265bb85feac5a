//! The files of deploy/ for each syslog daemon, unchanged, with the real programs: a mail daemon's
//! login, with its facility and its complete program name, is in `list`. (journald:
//! tests/host/systemd.rs.)

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::forwarder::{Forwarder, Program};
use crate::support::process::Process;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, network, within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where tests/all unpacks busybox.
const BUSYBOX: &str = "target/tools/busybox/bin/busybox";

/// The socket and the port that the files name.
const SOCKET: &str = "/run/pop-before-smtp/log.sock";
const UDP: &str = "udp:127.0.0.1:5514";

/// Unread messages: more than a forwarder's queue holds by default.
const UNREAD: usize = 8000;

/// Logins as syslog(3) sends them, one for each address: facility mail, program names without and
/// with a process id, and one with a slash.
const LOGINS: &[(&str, &str)] = &[
    (
        "198.51.100.11",
        "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, \
         rip=198.51.100.11, lip=192.0.2.1, mpid=84, TLS, session=<a>",
    ),
    (
        "198.51.100.12",
        "<21>Nov 22 07:46:45 cyrus/imaps[350]: login: localhost [198.51.100.12] joe PLAIN User \
         logged in SESSIONID=<cyrus-1795333605-350-1-157>",
    ),
    (
        "198.51.100.13",
        "<22>Nov 22 09:05:57 ipop3d[31]: Login user=joe host=[198.51.100.13] nmsgs=0/0",
    ),
];

/// More of them, with other facilities: daemon, local0, local6.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "198.51.100.14",
        "<30>Nov 22 09:05:57 pop3d: LOGIN, user=joe, ip=[::ffff:198.51.100.14], port=[39434]",
    ),
    (
        "198.51.100.15",
        "<134>Nov 22 09:05:57 teapop[54]: Successful login for joe [192.0.2.1] from unknown \
         [198.51.100.15]",
    ),
    (
        "198.51.100.16",
        "<181>Nov 22 07:46:45 cyrus/imaps[350]: login: localhost [198.51.100.16] joe PLAIN User \
         logged in SESSIONID=<cyrus-1795333605-350-1-158>",
    ),
];

/// Facilities to which no mail daemon logs its logins: kern, user, auth, syslog, lpr, news, uucp,
/// cron, authpriv, ftp; severity `info`.
const NOT_FORWARDED: [u8; 10] = [6, 14, 38, 46, 54, 62, 70, 78, 86, 94];

/// The daemon, listening where the files of deploy/ send, in a network of its own.
struct Site {
    home: TempDir,
    daemon: Daemon,
}

impl Site {
    fn start() -> Self {
        network::enter();
        let home = directory();
        let unix = Wire::unix(home.path().join("log.sock")).to_string();
        let options = ["--dry-run", "--exclude", "none", "--listen", UDP, "--listen", &unix];
        Self { daemon: Daemon::start(home.path(), &options), home }
    }

    fn recipe(&self, path: &str) -> String {
        recipe(path, &self.home.path().join("log.sock"))
    }

    /// Waits until this address is authorised.
    fn wait_until_authorised(&self, address: &str, whose: &str) {
        let authorised = within(PATIENCE, || self.daemon.query(address));
        assert!(authorised, "{whose}: {address} is not authorised: {}", self.daemon.log());
    }
}

/// Reads a file of deploy/ and replaces its socket.
fn recipe(path: &str, socket: &Path) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy").join(path));
    text.expect("a file of deploy/").replace(SOCKET, &socket.display().to_string())
}

fn deliver(program: Program, path: &str) {
    let site = Site::start();
    let forwarder = Forwarder::start_with(program, &site.recipe(path));
    for priority in NOT_FORWARDED {
        forwarder.log(format!("<{priority}>Nov 22 08:57:07 dovecot: not for us"));
    }
    for (address, frame) in LOGINS.iter().chain(ELSEWHERE) {
        forwarder.log(frame);
        site.wait_until_authorised(address, path);
    }
    let status = site.daemon.command(&["status", "--json"]).stdout;
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    let listeners = status["listeners"].as_array().expect("listeners").iter();
    let frames: u64 = listeners.filter_map(|listener| listener["frames"].as_u64()).sum();
    let wanted = LOGINS.len() + ELSEWHERE.len();
    assert_eq!(frames, wanted as u64, "{path}: more is forwarded than needed");
}

#[test]
fn rsyslog_over_a_unix_socket() {
    deliver(Program::Rsyslog, "rsyslog/pop-before-smtp.conf");
}

#[test]
fn rsyslog_over_udp() {
    deliver(Program::Rsyslog, "rsyslog/pop-before-smtp-udp.conf");
}

#[test]
fn syslog_ng_over_a_unix_socket() {
    deliver(Program::SyslogNg, "syslog-ng/pop-before-smtp.conf");
}

#[test]
fn syslog_ng_over_udp() {
    deliver(Program::SyslogNg, "syslog-ng/pop-before-smtp-udp.conf");
}

/// The daemon is down and its socket removed: whether the forwarder keeps messages until it is
/// back.
#[test]
fn messages_while_the_daemon_is_down() {
    let keeps_messages = |program, path: &str| {
        let site = Site::start();
        let forwarder = Forwarder::start_with(program, &site.recipe(path));
        forwarder.log(LOGINS[0].1);
        site.wait_until_authorised(LOGINS[0].0, path);
        let Site { home, daemon } = site;
        assert!(daemon.stop().success());
        forwarder.log(LOGINS[1].1);
        let logged = within(PATIENCE, || forwarder.record().contains(LOGINS[1].0));
        assert!(logged, "{path}: other logs wait");
        let unix = Wire::unix(home.path().join("log.sock")).to_string();
        let options = ["--dry-run", "--exclude", "none", "--listen", UDP, "--listen", &unix];
        let site = Site { daemon: Daemon::start(home.path(), &options), home };
        // The next login counts, and arrives after the messages that were kept.
        let authorised = within(PATIENCE, || {
            forwarder.log(LOGINS[2].1);
            site.daemon.query(LOGINS[2].0)
        });
        assert!(authorised, "{path}: {}", site.daemon.log());
        site.daemon.query(LOGINS[1].0)
    };
    assert!(!keeps_messages(Program::Rsyslog, "rsyslog/pop-before-smtp.conf"));
    assert!(!keeps_messages(Program::Rsyslog, "rsyslog/pop-before-smtp-udp.conf"));
    assert!(keeps_messages(Program::SyslogNg, "syslog-ng/pop-before-smtp.conf"));
    assert!(!keeps_messages(Program::SyslogNg, "syslog-ng/pop-before-smtp-udp.conf"));
}

/// The socket is not read: no other log waits, and the queued messages arrive afterwards, in order
/// and with the time at which they were logged.
#[test]
fn messages_while_the_socket_is_not_read() {
    for (program, path) in [
        (Program::Rsyslog, "rsyslog/pop-before-smtp.conf"),
        (Program::SyslogNg, "syslog-ng/pop-before-smtp.conf"),
    ] {
        let home = directory();
        let socket = home.path().join("log.sock");
        let daemon = UnixDatagram::bind(&socket).expect("a socket");
        let forwarder = Forwarder::start_with(program, &recipe(path, &socket));
        let line = |number: usize| LOGINS[0].1.replace("<a>", &format!("<{number}>"));
        (0..UNREAD).for_each(|number| forwarder.log(line(number)));
        let logged = || forwarder.record().matches("session=<").count();
        let all = within(PATIENCE, || logged() == UNREAD);
        assert!(all, "{path}: other logs wait: {} of {UNREAD} are written", logged());
        daemon.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut datagram = [0; 1024];
        for number in 0..UNREAD {
            let length = daemon.recv(&mut datagram);
            let length = length.unwrap_or_else(|why| panic!("{path}: {number} is lost: {why}"));
            let frame = String::from_utf8_lossy(&datagram[..length]);
            let session = format!("session=<{number}>");
            assert!(frame.contains(&session), "{path}: {number} is lost: {frame}");
            let date = frame.get(4..24).expect("<22>YYYY-MM-DDTHH:MM:SS");
            assert!(date.contains('T'), "{path}: an old login would count: {frame}");
        }
    }
}

/// The target's network is down: no other log waits.
#[test]
fn messages_while_the_network_is_down() {
    for (program, path) in [
        (Program::Rsyslog, "rsyslog/pop-before-smtp-udp.conf"),
        (Program::SyslogNg, "syslog-ng/pop-before-smtp-udp.conf"),
    ] {
        network::enter();
        network::ip("route add 203.0.113.1 dev lo");
        let recipe = recipe(path, Path::new(SOCKET)).replace("127.0.0.1", "203.0.113.1");
        let forwarder = Forwarder::start_with(program, &recipe);
        network::ip("route delete 203.0.113.1 dev lo");
        (0..UNREAD).for_each(|_| forwarder.log(LOGINS[0].1));
        let logged = || forwarder.record().matches("session=<").count();
        let all = within(PATIENCE, || logged() == UNREAD);
        assert!(all, "{path}: other logs wait: {} of {UNREAD} are written", logged());
    }
}

/// The daemon is stopped: no other log waits, and it gets all messages afterwards.
#[test]
fn messages_while_the_daemon_is_stopped() {
    for (program, path) in [
        (Program::Rsyslog, "rsyslog/pop-before-smtp.conf"),
        (Program::SyslogNg, "syslog-ng/pop-before-smtp.conf"),
    ] {
        let mut site = Site::start();
        let forwarder = Forwarder::start_with(program, &site.recipe(path));
        forwarder.log(LOGINS[0].1);
        site.wait_until_authorised(LOGINS[0].0, path);
        site.daemon.halt();
        let addresses: Vec<String> = (1..=200).map(|last| format!("203.0.113.{last}")).collect();
        for address in &addresses {
            forwarder.log(LOGINS[0].1.replace(LOGINS[0].0, address));
        }
        let last = addresses.last().expect("there are some");
        let logged = within(PATIENCE, || forwarder.record().contains(last));
        assert!(logged, "{path}: other logs wait");
        site.daemon.signal(Signal::SIGCONT);
        site.wait_until_authorised(last, path);
        assert_eq!(site.daemon.authorised().len(), 1 + addresses.len(), "{path}");
    }
}

/// Lines of Dovecot's own log file, once rsyslogd follows it.
#[test]
fn rsyslog_from_a_file() {
    let home = directory();
    let (socket, file) = (home.path().join("log.sock"), home.path().join("dovecot.log"));
    let daemon = UnixDatagram::bind(&socket).expect("a socket");
    daemon.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let login = |address: &str| {
        format!(
            "Nov 27 15:20:45 imap-login: Info: Logged in: user=<joe>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>\n"
        )
    };
    fs::write(&file, login("198.51.100.1")).expect("written");
    let rule = recipe("rsyslog/pop-before-smtp.conf", &socket);
    let input = recipe("rsyslog/dovecot-file.conf", &socket);
    let input = input.replace("/var/log/dovecot.log", &file.display().to_string());
    let other = home.path().join("other");
    let other_log = format!("action(type=\"omfile\" file=\"{}\")\n", other.display());
    let forwarder = Forwarder::start_with(Program::Rsyslog, &(rule + &input + &other_log));
    // rsyslogd follows the file once it forwards a line that was written later.
    let mut addresses = (2..=250).map(|last| format!("198.51.100.{last}"));
    let followed = within(PATIENCE, || {
        let mut log = OpenOptions::new().append(true).open(&file).expect("it is there");
        let line = login(&addresses.next().expect("it is slow"));
        log.write_all(line.as_bytes()).expect("written");
        sleep(Duration::from_millis(200));
        forwarder.record().contains("rip=")
    });
    assert!(followed, "the file is not followed");
    let mut datagram = [0; 1024];
    let length = daemon.recv(&mut datagram).expect("it is forwarded");
    let frame = String::from_utf8_lossy(&datagram[..length]);
    let (head, text) = frame.split_once(" dovecot: ").expect("a program name");
    assert!(head.starts_with("<133>2") && head.contains('T'), "{frame}");
    assert!(text.starts_with("Nov 27 15:20:45 imap-login: Info: Logged in: "), "{frame}");
    assert!(!text.contains("198.51.100.1,"), "a login of the past: {frame}");
    assert!(!other.exists(), "it is also written to other files");
}

/// busybox syslogd can only read /dev/log, so it gets its own /dev. Debian's cuts at 1024 bytes.
#[test]
fn busybox_syslogd() {
    let site = Site::start();
    let options = site.home.path().join("syslog");
    fs::write(&options, site.recipe("busybox/syslog")).expect("written");
    let script = "mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3; . \"$1\"; \
                  \"$2\" syslogd -n $SYSLOGD_OPTS -O /dev/messages & \
                  until [ -S /dev/log ]; do sleep 0.02; done; \
                  logger -p mail.info -t dovecot \"$3\"; \
                  logger -p mail.notice -i -t cyrus/imaps \"$4\"; \
                  \"$5\" doctor --config /dev/null --control \"$6\" > \"$7\" || true; \
                  read -r _ || true; kill $!";
    let text = |frame: &str| frame.split_once(": ").expect("a tag").1.to_owned();
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-euc", script, "busybox"]).arg(&options);
    command.arg(Path::new(ROOT).join(BUSYBOX));
    command.args(LOGINS[..2].iter().map(|(_, frame)| text(frame))).stdin(Stdio::piped());
    let said = site.home.path().join("doctor");
    command.arg(env!("CARGO_BIN_EXE_pop-before-smtp"));
    command.arg(site.home.path().join("control.sock")).arg(&said);
    let mut busybox = Process::spawn(&mut command);
    for (address, _) in &LOGINS[..2] {
        site.wait_until_authorised(address, "busybox");
    }
    drop(busybox.child().stdin.take());
    busybox.wait();
    let said = fs::read_to_string(said).expect("what doctor says");
    assert!(said.contains("messages of 900 bytes arrive whole"), "{said}");
}

/// logger in all its formats, and the formats of Docker's log driver `syslog`.
#[test]
fn other_senders() {
    let site = Site::start();
    let socket = site.home.path().join("log.sock").display().to_string();
    let udp = ["-n", "127.0.0.1", "-P", "5514", "-d"];
    let unix = ["-u", &*socket];
    let login = |address: &str| {
        format!(
            "imap-login: Login: user=<joe>, method=PLAIN, rip={address}, lip=192.0.2.1, mpid=7, \
             session=<a>"
        )
    };
    let forms: [&[&str]; 6] = [
        &[],
        &["--rfc3164"],
        &["--rfc5424"],
        &["--rfc5424=notime"],
        &["--rfc5424=notq,nohost"],
        &["-i"],
    ];
    let mut addresses = (100..250).map(|last| format!("203.0.113.{last}"));
    for form in forms {
        for transport in [&udp[..], &unix[..]] {
            let address = addresses.next().expect("there are enough");
            let mut command = Command::new("logger");
            command.args(["-p", "mail.info", "-t", "dovecot"]).args(transport).args(form);
            let status = command.arg(login(&address)).status().expect("logger can be started");
            assert!(status.success());
            site.wait_until_authorised(&address, &format!("{command:?}"));
        }
    }
    // github.com/RackSec/srslog, which Docker uses: formatter.go and, for the application name,
    // Docker's daemon/logger/syslog; `--log-opt tag=dovecot --log-opt syslog-facility=mail`.
    // The dates are far in the future.
    let frames = [
        ("", "<22>Nov 22 07:31:24 dovecot[4711]: LOGIN\n"),
        ("rfc3164", "<22>Nov 22 07:31:24 mx1 dovecot[4711]: LOGIN\n"),
        ("rfc5424", "<22>1 2999-11-22T07:31:24Z mx1 dovecot 4711 dovecot - LOGIN\n"),
        (
            "rfc5424micro",
            "<22>1 2999-11-22T07:31:24.123456+01:00 mx1 dovecot 4711 dovecot - LOGIN\n",
        ),
    ];
    for (format, frame) in frames {
        let address = addresses.next().expect("there are enough");
        Wire::unix(&socket).send(frame.replace("LOGIN", &login(&address)).as_bytes());
        site.wait_until_authorised(&address, &format!("Docker's syslog-format={format}"));
    }
}
