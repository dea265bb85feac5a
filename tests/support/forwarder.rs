//! A private rsyslogd or syslog-ng between a mail daemon's syslog(3) and the daemon's receiver.
//!
//! - **Promise**: it reads only its own socket, and is otherwise configured as by distributions:
//!   frames leave in a form that a user would configure. It also records everything that it
//!   receives in a file for the test.
//! - **Not here**: the system's log socket, kernel messages, reliable transports.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::wire::Wire;
use super::{PATIENCE, directory, need, within};

/// Where tests/all unpacks syslog-ng: Debian installs one syslog daemon at a time.
pub const SYSLOG_NG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/syslog-ng");

/// The form in which a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<PRI>Mmm dd hh:mm:ss HOST TAG MSG`, the default of both programs.
    Traditional,
    /// The same with an RFC 3339 time stamp.
    IsoStamp,
    /// RFC 5424.
    Rfc5424,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::Traditional, Self::IsoStamp, Self::Rfc5424];
}

/// A program that forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// rsyslog 8.
    Rsyslog,
    /// syslog-ng 3 or 4.
    SyslogNg,
}

impl Program {
    /// Both programs.
    pub const ALL: [Self; 2] = [Self::Rsyslog, Self::SyslogNg];
}

/// A running forwarder.
pub struct Forwarder {
    input: PathBuf,
    socket: UnixDatagram,
    _process: Process,
    dir: TempDir,
}

impl Forwarder {
    /// Starts one that forwards everything to `wire`.
    pub fn start(program: Program, wire: &Wire, form: Form) -> Self {
        let output = match program {
            Program::Rsyslog => rsyslog_output(wire, form),
            Program::SyslogNg => syslog_ng_output(wire, form),
        };
        Self::start_with(program, &output)
    }

    /// Starts an rsyslogd that forwards what this selector of syslog.conf(5) selects; it records
    /// everything.
    pub fn selecting(selector: &str, wire: &Wire) -> Self {
        let rest = format!("if not prifilt(\"{selector}\") then stop\n");
        Self::start_with(Program::Rsyslog, &(rest + &rsyslog_output(wire, Form::Traditional)))
    }

    /// Starts one with this additional configuration; `s_src` is the source of syslog-ng.
    pub fn start_with(program: Program, more: &str) -> Self {
        let dir = directory();
        let (mut command, base) = match program {
            Program::Rsyslog => (rsyslogd(dir.path()), rsyslog_base(dir.path())),
            Program::SyslogNg => (syslog_ng(dir.path()), syslog_ng_base(dir.path())),
        };
        let configuration = base + more;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("conf"), configuration).unwrap();
        let mut process = Process::spawn(
            command.current_dir(&dir).stderr(fs::File::create(at("errors")).unwrap()),
        );
        let (input, socket) = (at("log"), UnixDatagram::unbound().unwrap());
        let ready =
            within(PATIENCE, || socket.connect(&input).is_ok() || process.ended().is_some())
                && process.ended().is_none();
        let errors = fs::read_to_string(at("errors")).unwrap_or_default();
        assert!(ready && errors.is_empty(), "{program:?} has failed: {errors}");
        Self { input, socket, _process: process, dir }
    }

    /// Returns its socket, which can replace /dev/log.
    pub fn input(&self) -> &Path {
        &self.input
    }

    /// Returns what it has received so far: program name and message, a line each.
    pub fn record(&self) -> String {
        let record = fs::read(self.dir.path().join("record")).unwrap_or_default();
        String::from_utf8_lossy(&record).into_owned()
    }

    /// Writes a raw frame to its socket, as syslog(3) does: `<PRI>Mmm dd hh:mm:ss TAG: MSG`.
    pub fn log(&self, frame: impl AsRef<[u8]>) {
        // Waits while the queue is full, as a mail daemon does.
        let sent = self.socket.send(frame.as_ref());
        sent.unwrap_or_else(|why| panic!("{} accepts no frame: {why}", self.input.display()));
    }
}

/// Returns the command that starts rsyslogd with the configuration `conf` in this directory.
pub fn rsyslogd(dir: &Path) -> Command {
    need("rsyslogd", "rsyslog");
    let mut command = Command::new("rsyslogd");
    command.args(["-n", "-f"]).arg(dir.join("conf")).arg("-i").arg(dir.join("pid"));
    command
}

fn rsyslog_output(wire: &Wire, form: Form) -> String {
    let template = match form {
        Form::Traditional => "RSYSLOG_TraditionalForwardFormat",
        Form::IsoStamp => "RSYSLOG_ForwardFormat",
        Form::Rfc5424 => "RSYSLOG_SyslogProtocol23Format",
    };
    let output = match wire {
        Wire::Udp(port) => format!(
            "action(type=\"omfwd\" protocol=\"udp\" target=\"127.0.0.1\" port=\"{}\" template=\"{template}\")",
            port.number()
        ),
        // omuxsock has no action() form.
        Wire::Unix(path) => format!(
            "$ModLoad omuxsock\n$OMUxSockSocket {}\n*.* :omuxsock:;{template}",
            path.display()
        ),
    };
    // Without permitSlashInProgramName, RFC 5424 names of Cyrus end at the slash.
    format!("global(parser.permitSlashInProgramName=\"on\")\n{output}\n")
}

fn rsyslog_base(dir: &Path) -> String {
    format!(
        "global(workDirectory=\"{dir}\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{dir}/log\" RateLimit.Interval=\"0\")\n\
         template(name=\"record\" type=\"string\" string=\"%syslogtag%%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{dir}/record\" template=\"record\")\n",
        dir = dir.display()
    )
}

/// Returns the command that starts syslog-ng with the configuration `conf` in this directory.
pub fn syslog_ng(dir: &Path) -> Command {
    let root = Path::new(SYSLOG_NG);
    let program = root.join("usr/sbin/syslog-ng");
    assert!(program.exists(), "{} is missing: tests/all unpacks it", program.display());
    let libraries = root.join("usr/lib/syslog-ng");
    let mut parts = fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
    let modules = parts.find(|path| path.is_dir()).expect("the directory of its modules");
    let mut command = Command::new(program);
    command.args(["--foreground", "--no-caps", "--cfgfile"]).arg(dir.join("conf"));
    command.arg("--persist-file").arg(dir.join("persist"));
    command.arg("--pidfile").arg(dir.join("pid"));
    command.arg("--control").arg(dir.join("control"));
    command.arg("--module-path").arg(modules).env("LD_LIBRARY_PATH", libraries);
    command
}

fn syslog_ng_output(wire: &Wire, form: Form) -> String {
    let form_option = match form {
        Form::Traditional => "",
        Form::IsoStamp => "template(\"<$PRI>$ISODATE $HOST $MSGHDR$MSG\\n\")",
        Form::Rfc5424 => "flags(syslog-protocol)",
    };
    let output = match wire {
        Wire::Udp(port) => {
            format!("network(\"127.0.0.1\" port({}) transport(udp) {form_option})", port.number())
        }
        Wire::Unix(path) => format!("unix-dgram(\"{}\" {form_option})", path.display()),
    };
    format!(
        "destination far {{ {output}; }};\n\
         log {{ source(s_src); destination(far); }};\n"
    )
}

fn syslog_ng_base(dir: &Path) -> String {
    format!(
        "@version: current\n\
         source s_src {{ unix-dgram(\"{dir}/log\"); }};\n\
         destination record {{ file(\"{dir}/record\" template(\"$MSGHDR$MSG\\n\")); }};\n\
         log {{ source(s_src); destination(record); }};\n",
        dir = dir.display()
    )
}
