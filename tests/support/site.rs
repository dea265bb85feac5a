//! A host for `doctor`: Postfix, rsyslogd and the daemon, without faults unless a test adds one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::daemon::{Daemon, program};
use super::forwarder::{Form, Forwarder, Program};
use super::postfix::Postfix;
use super::wire::Wire;
use super::{PATIENCE, directory, within};

/// The address that logs in.
pub const CLIENT: &str = "198.51.100.7";
/// An address that does not log in.
pub const OTHER: &str = "198.51.100.8";
/// A login from `CLIENT`, as syslog(3) sends it.
const LOGIN: &str = "<22>Nov 22 08:57:07 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
    rip=198.51.100.7, lip=192.0.2.1, mpid=31, TLS, session=<a>";

/// The channel by which the daemon answers Postfix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A map.
    Map,
    /// A policy socket in the queue directory.
    Policy,
    /// A socketmap socket in the queue directory.
    Socketmap,
    /// A policy socket outside of every chroot.
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
    /// Starts a host without faults. `CHECK` in the restrictions stands for ours.
    pub fn start(by: By, restrictions: &str) -> Self {
        let dir = directory();
        let wire = Wire::unix(dir.path().join("log.sock"));
        let forward = |wire: &Wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional);
        Self::with(dir, &wire, forward, by, restrictions, &[])
    }

    /// Starts a host with this home, wire and forwarder, and more options.
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
        let socket = format!("unix:{},group=postfix", place.join("lookup").display());
        let outside = format!("unix:{}/lookup", dir.path().display());
        let outside_socket = format!("{outside},group=postfix");
        let (option, value, check) = match by {
            By::Map => ("--map", &table, format!("check_client_access {table}")),
            By::Policy => (
                "--policy",
                &socket,
                "check_policy_service { unix:pop-before-smtp/lookup, default_action=DUNNO }".into(),
            ),
            By::Outside => ("--policy", &outside_socket, format!("check_policy_service {outside}")),
            By::Socketmap => (
                "--socketmap",
                &socket,
                "check_client_access socketmap:unix:pop-before-smtp/lookup:clients".into(),
            ),
        };
        let mut options: Vec<String> =
            [option, value, "--daemon", "dovecot"].map(str::to_owned).into();
        options.extend(["--listen".to_owned(), wire.to_string()]);
        options.extend(["--postfix-config".to_owned(), postfix.config().display().to_string()]);
        options.extend(more.iter().map(|&option| option.to_owned()));
        // A new smtpd for each session, which reads main.cf again.
        let master = postfix.config().join("master.cf");
        let services = fs::read_to_string(&master).expect("master.cf");
        fs::write(&master, services.replace(" smtpd\n", " smtpd -o max_use=1\n")).expect("written");
        postfix.set("smtpd_relay_restrictions", &restrictions.replace("CHECK", &check));
        // Before the forwarder, which pauses if its target is missing.
        let daemon = Some(Daemon::start(dir.path(), &options));
        Self { forwarder: forward(wire), dir, postfix, options, daemon }
    }

    /// Logs in through the forwarder.
    pub fn log_in(&self) {
        self.send_login();
        self.daemon().wait_until_authorised(CLIENT);
    }

    /// The client's login reaches the log.
    pub fn send_login(&self) {
        self.forwarder.log(LOGIN);
    }

    /// Returns the running daemon.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    /// Returns the path of a file in the daemon's home.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the map as main.cf names it.
    pub fn table(&self) -> String {
        format!("hash:{}", self.at("clients").display())
    }

    /// Sets a parameter in main.cf.
    pub fn set(&self, name: &str, value: &str) {
        self.postfix.set(name, value);
    }

    /// Runs `doctor` with these arguments and the daemon's options.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.arg("doctor").args(arguments).args(&self.options);
        command.arg("--config").arg(self.at("config.toml"));
        command.arg("--control").arg(self.at("control.sock"));
        if !arguments.contains(&"--log-socket") {
            command.arg("--log-socket").arg(self.forwarder.input());
        }
        command.output().expect("the program can be started")
    }

    /// Runs `doctor --json` and returns the findings.
    pub fn doctor(&self, arguments: &[&str]) -> Findings {
        Findings::of(&self.run(&[&["--json"], arguments].concat()))
    }

    /// Asserts that there are no problems and no notes.
    pub fn is_sound(&self) {
        let findings = self.doctor(&[]);
        let others: Vec<_> = findings.all().filter(|f| f["level"] != "ok").collect();
        assert!(others.is_empty() && findings.code == 0, "{others:#?}");
    }

    /// Runs `doctor` and returns the finding with these parts.
    pub fn finds(&self, severity: &str, what: &str, why: &str, fix: &str) -> Value {
        self.doctor(&[]).must(severity, what, why, fix)
    }

    /// Carries out the commands of a finding, as they are printed.
    pub fn carry_out(&self, finding: &Value) {
        let fix = finding["fix"].as_str().expect("a text");
        for command in fix.rsplit("otherwise: ").next().expect("commands").split(" && ") {
            let done = Command::new("sh").args(["-c", command]).output().expect("a shell");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{command}: {said}");
            // Otherwise all that Postfix starts within the next second waits for it.
            for name in ["main.cf", "master.cf"] {
                self.postfix.make_old(name);
            }
        }
    }

    /// Waits until Postfix replies with this code to the client. A spare smtpd may have read main.cf
    /// earlier.
    pub fn wait_for_reply(&self, code: u16, when: &str) {
        let mut replies = [0; 4];
        let as_expected = within(3 * PATIENCE, || {
            replies = self.relays();
            replies[..2] == [code; 2] && !replies.contains(&0)
        });
        assert!(
            as_expected && replies[2] != 250 && replies[3] != 250,
            "{when}: {replies:?}, not {code}"
        );
    }

    /// Returns the replies to the client that has logged in and to another, each from the plain and the
    /// chrooted smtpd; 0 if none comes. An smtpd may wait for long for a service that Postfix restarts at
    /// that moment.
    pub fn relays(&self) -> [u16; 4] {
        let ask = |client: &str| {
            [self.postfix.session(client), self.postfix.chrooted_session(client)]
                .map(|mut session| session.rcpt_within(PATIENCE / 2, "someone@elsewhere.example"))
                .map(|reply| reply.map_or(0, |reply| reply.code))
        };
        let ([a, b], [c, d]) = (ask(CLIENT), ask(OTHER));
        [a, b, c, d]
    }
}

/// The output of `doctor --json`.
pub struct Findings {
    /// The exit status.
    pub code: i32,
    /// The findings.
    pub list: Value,
}

impl Findings {
    /// Reads the output of `doctor --json`.
    pub fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert!(code < 2, "exit status {code}: {stderr}");
        let list = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        Self { code, list }
    }

    /// Iterates over the findings.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.list.as_array().expect("an array").iter()
    }

    /// Returns whether there is such a finding.
    pub fn has(&self, severity: &str, what: &str, why: &str, fix: &str) -> bool {
        self.find(severity, what, why, fix).is_some()
    }

    /// Returns whether something is correct: a finding with this part.
    pub fn has_ok(&self, part: &str) -> bool {
        let is_it = |f: &&Value| f["what"].as_str().is_some_and(|what| what.contains(part));
        self.all().filter(|f| f["level"] == "ok").any(|f| is_it(&f))
    }

    fn find(&self, severity: &str, what: &str, why: &str, fix: &str) -> Option<&Value> {
        let has = |finding: &Value, key: &str, part: &str| {
            finding[key].as_str().is_some_and(|text| text.contains(part))
        };
        self.all().find(|f| {
            f["level"] == severity
                && has(f, "what", what)
                && has(f, "why", why)
                && has(f, "fix", fix)
        })
    }

    /// Returns the finding of this severity whose texts contain these parts. Asserts the exit status.
    pub fn must(&self, severity: &str, what: &str, why: &str, fix: &str) -> Value {
        let found = self.find(severity, what, why, fix);
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
