//! The receivers that are compared: a bare loop, rsyslogd and pop-before-smtp.
//!
//! - **Promise**: each is a process of its own, alone on the receiver's core, in a directory of its
//!   own, and ends with this one.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::cores::Cores;
use super::observed;
use super::support::daemon::program;
use super::support::forwarder::{self, SYSLOG_NG};
use super::support::process::Process;
use super::support::wire::Wire;
use super::support::{PATIENCE, directory, within};

/// What rsyslogd and syslog-ng keep: logins, told by the cheapest filter that finds them, the program
/// and a fixed text.
const LOGINS: [(&str, &str); 6] = [
    ("dovecot", "-login: Login:"),
    ("pop3d", "LOGIN, user="),
    ("imapd-ssl", "LOGIN, user="),
    ("cyrus/imaps", "User logged in"),
    ("ipop3d", "Login user="),
    ("popper", "POP login by user"),
];

/// Which receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// recvmmsg(2) in a loop.
    Bare,
    /// rsyslogd with the default settings of imudp or imuxsock.
    Rsyslog,
    /// syslog-ng with the default settings of its sources.
    SyslogNg,
    /// pop-before-smtp with default settings, and a state file.
    Ours,
}

impl Kind {
    /// All of them, in the order of the rounds.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Rsyslog, Self::SyslogNg, Self::Ours];

    /// Returns those that this machine has.
    pub fn present() -> impl Iterator<Item = Self> {
        let has_syslog_ng = Path::new(SYSLOG_NG).exists();
        Self::ALL.into_iter().filter(move |kind| *kind != Self::SyslogNg || has_syslog_ng)
    }

    /// Returns its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
            Self::Ours => "pop-before-smtp",
        }
    }
}

/// A running receiver.
pub struct Receiver {
    kind: Kind,
    process: Process,
    dir: TempDir,
}

impl Receiver {
    /// Starts one on the receiver's core and waits until it receives.
    pub fn start(kind: Kind, wire: &Wire, cores: Cores) -> Self {
        if kind == Kind::Ours {
            return Self::start_ours(wire, cores, &[], "").0;
        }
        // In memory: what the syslog daemons write must not wait for a disk.
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let mut command = match kind {
            Kind::Rsyslog => rsyslog(dir.path(), wire),
            Kind::SyslogNg => syslog_ng(dir.path(), wire),
            _ => bare(wire),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(dir.path().join("errors")).expect("a file"));
        let mut process = cores.on_receiver(|| Process::spawn(&mut command));
        let listens = || match wire {
            Wire::Udp(port) => observed::drops(port.number()).is_some(),
            Wire::Unix(path) => UnixDatagram::unbound().is_ok_and(|s| s.connect(path).is_ok()),
        };
        let ready = within(PATIENCE, || listens() || process.ended().is_some());
        let errors = fs::read_to_string(dir.path().join("errors")).unwrap_or_default();
        let name = kind.name();
        assert!(ready && process.ended().is_none() && errors.is_empty(), "{name}: {errors}");
        observed::wait_until_idle(process.id());
        Self { kind, process, dir }
    }

    /// Starts pop-before-smtp with this state file; also returns the time until it was ready.
    pub fn start_ours(wire: &Wire, cores: Cores, more: &[&str], state: &str) -> (Self, Duration) {
        let dir = directory();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("config.toml"), "").expect("a file");
        if !state.is_empty() {
            fs::write(at("state"), state).expect("a file");
        }
        let manager = UnixDatagram::bind(at("notify.sock")).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut command = program();
        command.arg("run").args(["--listen", &wire.to_string()]).args(more);
        for (option, name) in
            [("--config", "config.toml"), ("--control", "control.sock"), ("--state", "state")]
        {
            command.arg(option).arg(at(name));
        }
        // Not `mynetworks`, for which Postfix is asked: this measures the daemon.
        for network in ["loopback", "link-local", "own", "gateway"] {
            command.args(["--exclude", network]);
        }
        command.arg("--socketmap").arg(format!("unix:{}", at("socketmap").display()));
        command.env("NOTIFY_SOCKET", at("notify.sock")).stdin(Stdio::null());
        command.stderr(fs::File::create(at("log")).expect("a file"));
        let begun = Instant::now();
        let process = cores.on_receiver(|| Process::spawn(&mut command));
        let mut text = [0; 4096];
        loop {
            let length = manager.recv(&mut text);
            let log = || fs::read_to_string(at("log")).unwrap_or_default();
            let length = length.unwrap_or_else(|_| panic!("not ready: {}", log()));
            if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "READY=1") {
                break;
            }
        }
        let took = begun.elapsed();
        observed::wait_until_idle(process.id());
        (Self { kind: Kind::Ours, process, dir }, took)
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the path of the socket that answers Postfix.
    pub fn socketmap(&self) -> PathBuf {
        self.dir.path().join("socketmap")
    }

    /// Ends it and returns how many logins it has found; `None` if it looks for none.
    pub fn stop(mut self) -> Option<u64> {
        let found = match self.kind {
            Kind::Bare => return None,
            Kind::Ours => self.status()["logins"].as_u64(),
            Kind::Rsyslog | Kind::SyslogNg => None,
        };
        let status = self.process.stop();
        assert!(status.success(), "{}: {status}", self.kind.name());
        found.or_else(|| {
            let lines = fs::read(self.dir.path().join("logins")).unwrap_or_default();
            Some(lines.iter().filter(|byte| **byte == b'\n').count() as u64)
        })
    }

    fn status(&self) -> Value {
        let mut status = program();
        status.args(["status", "--json", "--control"]).arg(self.dir.path().join("control.sock"));
        let output = status.output().expect("the program can be started");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
    }
}

fn bare(wire: &Wire) -> Command {
    let own = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(own);
    match wire {
        Wire::Udp(port) => command.args(["bare", "udp", &port.number().to_string()]),
        Wire::Unix(path) => command.args(["bare", "unix"]).arg(path),
    };
    command
}

fn rsyslog(dir: &Path, wire: &Wire) -> Command {
    let input = match wire {
        Wire::Udp(port) => format!(
            "module(load=\"imudp\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{}\")\n",
            port.number()
        ),
        // Its default would drop all but 200 messages in five seconds.
        Wire::Unix(path) => format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\" RateLimit.Interval=\"0\")\n",
            path.display()
        ),
    };
    let is_login = LOGINS
        .map(|(program, text)| format!("($programname == '{program}' and $msg contains '{text}')"));
    let configuration = format!(
        "global(workDirectory=\"{dir}\" parser.permitSlashInProgramName=\"on\")\n{input}\
         if {} then action(type=\"omfile\" file=\"{dir}/logins\")\n",
        is_login.join(" or "),
        dir = dir.display()
    );
    fs::write(dir.join("conf"), configuration).expect("a file");
    forwarder::rsyslogd(dir)
}

fn syslog_ng(dir: &Path, wire: &Wire) -> Command {
    let source = match wire {
        Wire::Udp(port) => {
            format!("network(transport(\"udp\") ip(\"127.0.0.1\") port({}))", port.number())
        }
        Wire::Unix(path) => format!("unix-dgram(\"{}\")", path.display()),
    };
    let is_login = LOGINS.map(|(program, text)| {
        format!("(program(\"{program}\" type(string)) and message(\"{text}\" type(string) flags(substring)))")
    });
    let configuration = format!(
        "@version: current\n\
         options {{ keep-hostname(yes); use-dns(no); dns-cache(no); }};\n\
         source s {{ {source}; }};\n\
         filter logins {{ {} }};\n\
         destination d {{ file(\"{}/logins\"); }};\n\
         log {{ source(s); filter(logins); destination(d); }};\n",
        is_login.join(" or ") + ";",
        dir.display()
    );
    fs::write(dir.join("conf"), configuration).expect("a file");
    forwarder::syslog_ng(dir)
}
