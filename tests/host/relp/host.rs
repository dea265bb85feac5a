//! A host with an rsyslogd of its own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::process::Process;
use crate::support::{PATIENCE, directory, within};

/// Where tests/all unpacks an rsyslog with its modules for RELP.
const RSYSLOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/rsyslog");

/// A host with an rsyslogd of its own.
pub struct Host {
    dir: TempDir,
    /// Its rsyslogd.
    pub process: Process,
}

impl Host {
    /// Starts rsyslogd with its own socket, a record of what the socket and rsyslogd itself say, and this.
    pub fn start(more: &str) -> Self {
        let dir = directory();
        let here = dir.path().display();
        // What is in the record has passed the other actions, and is in their queues.
        let conf = format!(
            "global(workDirectory=\"{here}\" processInternalMessages=\"on\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{here}/log\" RateLimit.Interval=\"0\")\n\
             {more}\n\
             template(name=\"record\" type=\"string\" string=\"%syslogtag%%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{here}/record\" template=\"record\")\n"
        );
        fs::write(dir.path().join("conf"), conf).expect("written");
        let check = rsyslogd(dir.path()).arg("-N1").output().expect("rsyslogd can be started");
        assert!(check.status.success(), "rsyslogd -N1: {check:?}");
        let process = Self::spawn(dir.path());
        let host = Self { dir, process };
        host.wait_until_open();
        host
    }

    fn spawn(dir: &Path) -> Process {
        // A killed one leaves it.
        let _ = fs::remove_file(dir.join("pid"));
        let errors = fs::File::create(dir.join("errors")).expect("a file");
        Process::spawn(rsyslogd(dir).args(["-n", "-i"]).arg(dir.join("pid")).stderr(errors))
    }

    fn wait_until_open(&self) {
        let open = || UnixDatagram::unbound().expect("a socket").connect(self.input()).is_ok();
        let errors = || fs::read_to_string(self.dir.path().join("errors"));
        assert!(within(PATIENCE, open), "rsyslogd does not listen: {:?}", errors());
    }

    /// Ends rsyslogd.
    pub fn end(&mut self, how: Signal) {
        self.process.signal(how);
        self.process.wait();
    }

    /// Starts rsyslogd again, with the files that it left.
    pub fn start_again(&mut self) {
        self.process = Self::spawn(self.dir.path());
        self.wait_until_open();
    }

    /// Replaces text of the configuration, which rsyslogd reads when it starts again.
    pub fn configure(&self, from: &str, to: &str) {
        let conf = self.dir.path().join("conf");
        let text = fs::read_to_string(&conf).expect("it is there");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(conf, text.replace(from, to)).expect("written");
    }

    /// Returns the path of its socket.
    pub fn input(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Logs a frame, as syslog(3) does.
    pub fn log(&self, frame: &str) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.send_to(frame.as_bytes(), self.input()).expect("rsyslogd listens");
    }

    /// Returns what it has recorded so far, a line each.
    pub fn record(&self) -> String {
        let record = fs::read(self.dir.path().join("record")).unwrap_or_default();
        String::from_utf8_lossy(&record).into_owned()
    }

    /// Waits until it has recorded this.
    pub fn wait_until_recorded(&self, text: &str) {
        let recorded = within(PATIENCE, || self.record().contains(text));
        assert!(recorded, "other logs wait: {text} is not recorded");
    }

    /// Waits until its rsyslogd has logged this about itself.
    pub fn wait_until_it_says(&self, text: &str) {
        let says = within(PATIENCE, || self.record().contains(text));
        assert!(says, "rsyslogd does not say {text:?}, but: {}", self.record());
    }
}

/// Returns the command that runs the unpacked rsyslogd with the configuration `conf` in this directory.
fn rsyslogd(dir: &Path) -> Command {
    let root = Path::new(RSYSLOG);
    let program = root.join("usr/sbin/rsyslogd");
    assert!(program.exists(), "{} is missing: tests/all unpacks it", program.display());
    // The directory of this architecture.
    let mut libraries = fs::read_dir(root.join("usr/lib"))
        .expect("libraries")
        .map(|entry| entry.expect("one").path());
    let libraries = libraries.find(|path| path.join("rsyslog").is_dir()).expect("its modules");
    let mut command = Command::new(program);
    command.arg("-M").arg(libraries.join("rsyslog")).env("LD_LIBRARY_PATH", &libraries);
    command.arg("-f").arg(dir.join("conf")).current_dir(dir);
    command
}
