//! A host as `doctor` examines it: Postfix, rsyslogd and the daemon, all sound unless a test spoils
//! something.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::daemon::{Daemon, program};
use super::forwarder::{Form, Forwarder, Program};
use super::postfix::Postfix;
use super::wire::Wire;
use super::{PATIENCE, directory, within};

/// Who logs in.
pub const CLIENT: &str = "198.51.100.7";
/// Who does not.
pub const STRANGER: &str = "198.51.100.8";
/// His login, as syslog(3) writes it.
const LOGIN: &str = "<22>Nov 22 08:57:07 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
    rip=198.51.100.7, lip=192.0.2.1, mpid=31, TLS, session=<a>";

/// By what the daemon tells Postfix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A map.
    Map,
    /// A policy socket in the queue directory.
    Policy,
    /// A socketmap there.
    Socketmap,
    /// A policy socket that no chroot can see.
    Outside,
}

/// Everything that `doctor` examines.
pub struct Site {
    /// The daemon's home.
    pub dir: TempDir,
    /// The private Postfix; not started.
    pub postfix: Postfix,
    forwarder: Forwarder,
    options: Vec<String>,
    /// The daemon, unless a test stops it.
    pub daemon: Option<Daemon>,
}

impl Site {
    /// A sound one. `CHECK` in the restrictions stands for the line that asks us.
    pub fn start(by: By, restrictions: &str) -> Self {
        let dir = directory();
        let wire = Wire::unix(dir.path().join("log.sock"));
        let forward = |wire: &Wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional);
        Self::with(dir, &wire, forward, by, restrictions, &[])
    }

    /// One with a home, a wire and a forwarder of the test, and more options.
    pub fn with(
        dir: TempDir,
        wire: &Wire,
        forward: impl Fn(&Wire) -> Forwarder,
        by: By,
        restrictions: &str,
        more: &[&str],
    ) -> Self {
        let postfix = Postfix::configure("reject");
        let place = postfix.queue().join("pop-before-smtp");
        fs::create_dir(&place).expect("a directory");
        let group = nix::unistd::Group::from_name("postfix").ok().flatten().expect("a group");
        chown(&place, None, Some(group.gid.as_raw())).expect("root");
        fs::set_permissions(&place, Permissions::from_mode(0o750)).expect("a mode");
        let table = format!("hash:{}", dir.path().join("clients").display());
        let socket = format!("unix:{},group=postfix", place.join("asked").display());
        let outside = format!("unix:{}/asked", dir.path().display());
        let outside_socket = format!("{outside},group=postfix");
        let (option, value, check) = match by {
            By::Map => ("--map", &table, format!("check_client_access {table}")),
            By::Policy => (
                "--policy",
                &socket,
                "check_policy_service { unix:pop-before-smtp/asked, default_action=DUNNO }".into(),
            ),
            By::Outside => ("--policy", &outside_socket, format!("check_policy_service {outside}")),
            By::Socketmap => (
                "--socketmap",
                &socket,
                "check_client_access socketmap:unix:pop-before-smtp/asked:clients".into(),
            ),
        };
        let mut options: Vec<String> =
            [option, value, "--daemon", "dovecot"].map(str::to_owned).into();
        options.extend(["--listen".to_owned(), wire.to_string()]);
        options.extend(["--postfix-config".to_owned(), postfix.config().display().to_string()]);
        options.extend(more.iter().map(|&word| word.to_owned()));
        // Each session with a new smtpd, which reads main.cf anew.
        let master = postfix.config().join("master.cf");
        let services = fs::read_to_string(&master).expect("master.cf");
        fs::write(&master, services.replace(" smtpd\n", " smtpd -o max_use=1\n")).expect("written");
        postfix.set("smtpd_relay_restrictions", &restrictions.replace("CHECK", &check));
        // First: a forwarder whose target is missing pauses.
        let daemon = Some(Daemon::start(dir.path(), &options));
        Self { forwarder: forward(wire), dir, postfix, options, daemon }
    }

    /// A login over the forwarder, as it is on a host that is in use.
    pub fn log_in(&self) {
        self.forwarder.log(LOGIN);
        self.daemon().wait_until_authorised(CLIENT);
    }

    /// The running daemon.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    /// A file at the daemon's home.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The map as main.cf names it.
    pub fn table(&self) -> String {
        format!("hash:{}", self.at("clients").display())
    }

    /// Sets a parameter in main.cf.
    pub fn set(&self, name: &str, value: &str) {
        self.postfix.set(name, value);
    }

    /// Runs `doctor` with these words and the daemon's own options.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = program();
        command.arg("doctor").args(words).args(&self.options);
        command.arg("--config").arg(self.at("config.toml"));
        command.arg("--control").arg(self.at("control.sock"));
        if !words.contains(&"--log-socket") {
            command.arg("--log-socket").arg(self.forwarder.input());
        }
        command.output().expect("the program can be started")
    }

    /// What it finds.
    pub fn doctor(&self, words: &[&str]) -> Findings {
        let output = self.run(&[&["--json"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert!(code < 2, "exit status {code}: {said}");
        let list = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        Findings { code, list }
    }

    /// Nothing to mend and nothing to note.
    pub fn is_sound(&self) {
        let findings = self.doctor(&[]);
        let others: Vec<_> = findings.all().filter(|f| f["level"] != "ok").collect();
        assert!(others.is_empty() && findings.code == 0, "{others:#?}");
    }

    /// Something is wrong: the finding that says so.
    pub fn finds(&self, severity: &str, what: &str, why: &str, fix: &str) -> Value {
        self.doctor(&[]).must(severity, what, why, fix)
    }

    /// Does what a finding says, but for the reload: each smtpd reads main.cf anew.
    pub fn obey(&self, finding: &Value) {
        let mend = finding["fix"].as_str().expect("a text");
        let (command, reload) = mend.split_once(" && ").expect("two commands");
        assert!(command.starts_with("postconf ") && reload.ends_with(" reload"), "{mend}");
        let done = Command::new("sh").args(["-c", command]).stderr(Stdio::null()).status();
        assert!(done.expect("a shell").success(), "{mend}");
        self.postfix.make_old("main.cf");
    }

    /// Waits until Postfix says this to the client. An smtpd that was started to spare may have read
    /// main.cf before.
    pub fn eventually_says(&self, code: u16, when: &str) {
        let mut said = [0; 4];
        let right = within(3 * PATIENCE, || {
            said = self.relays();
            said[..2] == [code; 2]
        });
        assert!(right && said[2] != 250 && said[3] != 250, "{when}: {said:?}, not {code}");
    }

    /// What Postfix says to the client who has logged in and to a stranger, in and out of the chroot.
    pub fn relays(&self) -> [u16; 4] {
        let ask = |client: &str| {
            [self.postfix.session(client), self.postfix.chrooted_session(client)]
                .map(|mut session| session.rcpt("someone@elsewhere.example").code)
        };
        let ([a, b], [c, d]) = (ask(CLIENT), ask(STRANGER));
        [a, b, c, d]
    }
}

/// What `doctor --json` has printed.
pub struct Findings {
    /// The exit status.
    pub code: i32,
    /// The findings.
    pub list: Value,
}

impl Findings {
    /// One by one.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.list.as_array().expect("an array").iter()
    }

    /// The one of this severity whose texts hold these parts. The exit status must fit.
    pub fn must(&self, severity: &str, what: &str, why: &str, fix: &str) -> Value {
        let has = |finding: &Value, key: &str, part: &str| {
            finding[key].as_str().is_some_and(|text| text.contains(part))
        };
        let found = self.all().find(|f| {
            f["level"] == severity
                && has(f, "what", what)
                && has(f, "why", why)
                && has(f, "fix", fix)
        });
        let found = found.unwrap_or_else(|| panic!("no {severity} {what:?}: {:#}", self.list));
        assert_eq!(
            self.code,
            i32::from(self.all().any(|f| f["level"] == "problem")),
            "{:#}",
            self.list
        );
        found.clone()
    }
}
