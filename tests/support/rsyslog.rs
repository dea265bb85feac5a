//! A private rsyslogd between a mail daemon's syslog() and our receiver.
//!
//! Promise  it reads nothing but its own socket and is otherwise set up as Debian does it: frames
//!          leave with the template that a user would name in rsyslog.conf.
//! Not here the system's log socket, kernel messages, files.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::wire::Wire;
use super::{PATIENCE, directory, need, within};

/// The form in which a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<PRI>Mmm dd hh:mm:ss HOST TAG MSG`, rsyslog's default.
    Traditional,
    /// The same with an RFC 3339 time stamp.
    IsoStamp,
    /// RFC 5424.
    Rfc5424,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traditional, Self::IsoStamp, Self::Rfc5424];

    /// The built-in template of that form.
    pub const fn template(self) -> &'static str {
        match self {
            Self::Traditional => "RSYSLOG_TraditionalForwardFormat",
            Self::IsoStamp => "RSYSLOG_ForwardFormat",
            Self::Rfc5424 => "RSYSLOG_SyslogProtocol23Format",
        }
    }
}

/// A running rsyslogd.
pub struct Rsyslog {
    input: PathBuf,
    socket: UnixDatagram,
    _process: Process,
    _dir: TempDir,
}

impl Rsyslog {
    /// Starts one that forwards everything to each of `outputs`.
    pub fn start(outputs: &[(&Wire, Form)]) -> Self {
        need("rsyslogd", "rsyslog");
        let dir = directory();
        let at = |name: &str| dir.path().join(name);
        let input = at("log");
        fs::write(at("rsyslog.conf"), configuration(&dir, outputs)).unwrap();
        let errors = fs::File::create(at("errors")).unwrap();
        let mut process = Process::spawn(
            Command::new("rsyslogd")
                .arg("-n")
                .arg("-f")
                .arg(at("rsyslog.conf"))
                .arg("-i")
                .arg(at("pid"))
                .stderr(errors),
        );
        let socket = UnixDatagram::unbound().unwrap();
        let ready =
            within(PATIENCE, || socket.connect(&input).is_ok() || process.ended().is_some())
                && process.ended().is_none();
        let errors = fs::read_to_string(at("errors")).unwrap_or_default();
        assert!(ready, "rsyslogd does not listen on {}: {errors}", input.display());
        assert!(errors.is_empty(), "rsyslogd complains: {errors}");
        Self { input, socket, _process: process, _dir: dir }
    }

    /// Writes a raw frame to its socket, as syslog(3) does: `<PRI>Mmm dd hh:mm:ss TAG: MSG`.
    pub fn log(&self, frame: impl AsRef<[u8]>) {
        // A full queue makes us wait, as it makes a mail daemon wait.
        let sent = self.socket.send(frame.as_ref());
        sent.unwrap_or_else(|why| panic!("rsyslogd's {}: {why}", self.input.display()));
    }
}

fn configuration(dir: &TempDir, outputs: &[(&Wire, Form)]) -> String {
    let dir = dir.path().display();
    // Without permitSlashInProgramName, RFC 5424 names of Cyrus end at the slash.
    let mut text = format!(
        "global(workDirectory=\"{dir}\" parser.permitSlashInProgramName=\"on\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{dir}/log\" RateLimit.Interval=\"0\")\n"
    );
    if outputs.iter().any(|(wire, _)| matches!(wire, Wire::Unix(_))) {
        text.push_str("$ModLoad omuxsock\n");
    }
    for (wire, form) in outputs {
        let template = form.template();
        match wire {
            Wire::Udp(port) => writeln!(
                text,
                "action(type=\"omfwd\" protocol=\"udp\" target=\"127.0.0.1\" port=\"{}\" template=\"{template}\")",
                port.number()
            ),
            // omuxsock has no action() form.
            Wire::Unix(path) => writeln!(
                text,
                "$OMUxSockSocket {}\n*.* :omuxsock:;{template}",
                path.display()
            ),
        }
        .expect("writing to a String cannot fail");
    }
    text
}
