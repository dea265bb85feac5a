//! A mail host: a real POP3 and IMAP daemon of Debian, rsyslogd, and pop-before-smtp, in a private
//! network.
//!
//! - **Promise**: the mail daemon runs from the packages that tests/all unpacks, in a private root,
//!   with its usual ports, users and /dev/log; its child processes end with it.
//! - **Not here**: the host's own /dev/log, users, ports and packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::daemon::Daemon;
use super::forwarder::{Form, Forwarder, Program};
use super::process::Process;
use super::wire::Wire;
use super::{PATIENCE, directory, need, network, within};

/// Where tests/all unpacks packages.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools");
/// The script that creates the root and starts the mail daemon in it.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/maild-root.sh");

/// The password of joe, who has an account on the mail host.
pub const PASSWORD: &str = "secret";
/// The same, hashed by crypt(3).
pub const CRYPT: &str = "$6$pepper$2Z6D7B1GHphRwAkDE2YJPR/Tz3pYzJVGFj5UOun/UCaxbGzjpckaQI2gu8BE7DfAQVvJ1RMHN0aDV0DT6ow8L.";

/// All users of the mail host and their groups: joe, and those that the daemons require.
const PASSWD: &str = "\
root:x:0:0::/root:/bin/bash
mail:x:8:8::/var/mail:/bin/false
nobody:x:65534:65534::/nonexistent:/bin/false
daemon:x:990:990::/nonexistent:/bin/false
guard:x:991:990::/nonexistent:/bin/false
courier:x:992:992::/nonexistent:/bin/false
popa3d:x:993:990::/nonexistent:/bin/false
spop3d:x:995:990::/nonexistent:/bin/false
cyrus:x:994:8::/nonexistent:/bin/false
joe:CRYPT:1000:1000::/home/joe:/bin/bash
";
const GROUP: &str = "\
root:x:0:
tty:x:5:
mail:x:8:
nogroup:x:65534:
daemon:x:990:
courier:x:992:
popa3d:x:990:
joe:x:1000:
";
/// Names that the daemons look up. One client has a host name.
const SERVICES: &str = "pop3 110/tcp\nimap2 143/tcp imap\n";
const HOSTS: &str =
    "127.0.0.1 localhost\n198.51.100.1 mail.example\n198.51.100.20 dsl.isp.example\n";
/// A mail daemon, and how it is started.
pub struct Setup {
    /// The directory below target/tools.
    pub name: &'static str,
    /// Files of its root, by path without the first slash.
    pub files: Vec<(&'static str, String)>,
    /// Shell commands that start it in the background.
    pub start: String,
    /// The ports on which it listens then.
    pub ports: &'static [u16],
}

/// A running mail host.
pub struct MailHost {
    maild: Process,
    forwarder: Forwarder,
    daemon: Daemon,
    dir: TempDir,
}

impl MailHost {
    /// Starts everything, in a new network of the calling thread.
    pub fn start(setup: &Setup) -> Self {
        network::enter();
        let dir = directory();
        let wire = Wire::unix(dir.path().join("frames"));
        let listen = wire.to_string();
        let daemon =
            Daemon::start(dir.path(), &["--dry-run", "--listen", &listen, "--exclude", "none"]);
        let forwarder = Forwarder::start(Program::Rsyslog, &wire, Form::Traditional);
        let maild = start_maild(dir.path(), setup, forwarder.input());
        let mut host = Self { maild, forwarder, daemon, dir };
        host.wait_until_it_listens(setup);
        host
    }

    fn wait_until_it_listens(&mut self, setup: &Setup) {
        let listens = |port| network::connect(network::MAIL_HOST[0], port).is_ok();
        let up = within(PATIENCE, || {
            self.maild.ended().is_some() || setup.ports.iter().all(|port| listens(*port))
        });
        let well = up && self.maild.ended().is_none();
        assert!(well, "{} does not listen on {:?}: {}", setup.name, setup.ports, self.log());
    }

    /// Returns the stderr of the mail daemon, and what it has logged: `TAG MESSAGE`, a line each.
    pub fn log(&self) -> String {
        let errors = fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default();
        errors + &self.forwarder.record()
    }

    /// Returns the logins that count: address, user, mail daemon.
    ///
    /// `last` is the client of the last session, a login: what was logged before it has been
    /// processed.
    pub fn counted(&self, last: &str) -> BTreeSet<[String; 3]> {
        let authorised = within(PATIENCE, || self.daemon.query(last));
        assert!(authorised, "{last} is not authorised\n{}\n{}", self.daemon.log(), self.log());
        let list = self.daemon.list();
        let grants = list.as_array().expect("list --json prints an array").iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        grants.map(|grant| ["address", "user", "daemon"].map(|key| text(&grant[key]))).collect()
    }

    /// Asserts that exactly these logins count; the last one is of the last session.
    pub fn counts_exactly(&self, daemon: &str, logins: &[(&str, &str)]) {
        let (last, _) = logins.last().expect("the last session was a login");
        let counted = self.counted(last);
        let expected: BTreeSet<_> = logins
            .iter()
            .map(|(address, user)| [address, user, daemon].map(str::to_owned))
            .collect();
        let missed: Vec<_> = expected.difference(&counted).collect();
        let forged: Vec<_> = counted.difference(&expected).collect();
        assert!(
            missed.is_empty() && forged.is_empty(),
            "missed: {missed:?}\nforged: {forged:?}\n{}\n{}",
            self.daemon.log(),
            self.log()
        );
    }

    /// Waits until this many logins have been refused for what precedes them, and asserts that no other
    /// address counts than this one.
    pub fn refuses(&self, logins: usize, counted: &str) {
        let refused = || {
            let status = self.daemon.command(&["status", "--json"]).stdout;
            let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
            status["counts"]["refused"].as_u64().expect("a number")
        };
        let all = within(PATIENCE, || refused() >= logins as u64);
        assert!(all, "{} of {logins}\n{}\n{}", refused(), self.daemon.log(), self.log());
        let addresses: Vec<_> = self.daemon.authorised().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, [counted], "{}\n{}", self.daemon.log(), self.log());
    }

    /// Asserts that a text is in the mail daemon's log, so that the test shows something.
    pub fn has_logged(&self, text: &str) {
        let logged = within(PATIENCE, || self.log().contains(text));
        assert!(logged, "{text:?} is not in the log:\n{}", self.log());
    }
}

/// Starts a mail daemon, with its files in `dir`. Its /dev/log is the socket `log`, or `socket` in
/// the directory `log`; its stderr is written to the file `errors`.
pub fn start_maild(dir: &Path, setup: &Setup, log: &Path) -> Process {
    need("unshare", "util-linux");
    let tools = Path::new(TOOLS).join(setup.name);
    assert!(tools.exists(), "{} is missing: tests/all unpacks it", tools.display());
    let at = |name: &str| dir.join(name);
    for name in ["root", "files"] {
        fs::create_dir(at(name)).unwrap();
    }
    let start = ("start", setup.start.to_owned());
    let files = [
        ("etc/passwd", PASSWD.replace("CRYPT", CRYPT)),
        ("etc/group", GROUP.to_owned()),
        ("etc/services", SERVICES.to_owned()),
        ("etc/hosts", HOSTS.to_owned()),
        ("etc/pam.d/common-auth", "auth required pam_unix.so\n".to_owned()),
        ("etc/pam.d/common-account", "account required pam_unix.so\n".to_owned()),
    ];
    for (path, text) in files.iter().chain(&setup.files).chain([&start]) {
        let path = at("files").join(path);
        fs::create_dir_all(path.parent().expect("it is in a directory")).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "bash", ROOT]);
    command.arg(tools).arg(at("files")).arg(at("root")).arg(log);
    // It ends when the pipe is closed, however the test ends.
    command.stdin(Stdio::piped()).stderr(fs::File::create(at("errors")).unwrap());
    command.stdout(fs::File::create(at("output")).unwrap());
    Process::spawn(&mut command)
}
