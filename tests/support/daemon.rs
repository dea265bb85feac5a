//! pop-before-smtp itself, run as a service manager runs it.
//!
//! - **Promise**: it hears only of its own files: a configuration, state and control socket in a
//!   directory of the test, so that the test can stop it and start it again.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;

use super::process::Process;
use super::{PATIENCE, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pop-before-smtp");

/// Makes of standard input and output the passed sockets; `exec` keeps the process id.
const PASS_ON: &str = "exec 3<&0 4<&1 < /dev/null > /dev/null; \
                       LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";

/// Text that a thread collects and a test reads.
#[derive(Clone, Default)]
struct Heap(Arc<Mutex<String>>);

impl Heap {
    fn add(&self, text: &str) {
        self.0.lock().expect("no reader panics").push_str(text);
    }

    fn text(&self) -> String {
        self.0.lock().expect("no writer panics").clone()
    }
}

/// A running daemon.
pub struct Daemon {
    process: Process,
    control: PathBuf,
    said: Heap,
    notified: Heap,
}

impl Daemon {
    /// Starts `run` with these options and waits until it says that it is ready.
    ///
    /// In `home` it keeps what the options do not place elsewhere: `config.toml` (made empty if it
    /// is not there), `state`, `control.sock`. Its log goes to `home/log` too. Programs in `home/bin`
    /// come first in its PATH.
    ///
    /// # Panics
    /// If it does not become ready, with what it said.
    pub fn start(home: &Path, options: &[impl AsRef<str>]) -> Self {
        Self::spawn(home, options).ready()
    }

    /// The same, with two sockets passed as systemd does it (sd_listen_fds(3)).
    pub fn start_with_sockets(
        home: &Path,
        options: &[impl AsRef<str>],
        sockets: [OwnedFd; 2],
    ) -> Self {
        let mut shell = unconfigured(Command::new("bash"));
        let [first, second] = sockets;
        shell.arg("-c").arg(PASS_ON).arg(PROGRAM).stdin(first).stdout(second);
        Self::run(shell, home, options).ready()
    }

    fn ready(mut self) -> Self {
        self.wait_until_ready();
        self
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// If it does not become ready, with what it said.
    pub fn wait_until_ready(&mut self) {
        let ready = within(PATIENCE, || self.has_notified("READY=1") || self.has_ended());
        assert!(ready && !self.has_ended(), "not ready: {}", self.said());
    }

    /// Starts it without waiting: for what is refused at the start.
    pub fn spawn(home: &Path, options: &[impl AsRef<str>]) -> Self {
        Self::spawn_with(home, options, |_| {})
    }

    /// The same, with something more about the command: its environment, its user.
    pub fn spawn_with(
        home: &Path,
        options: &[impl AsRef<str>],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = program();
        command.stdin(Stdio::null());
        prepare(&mut command);
        Self::run(command, home, options)
    }

    fn run(mut command: Command, home: &Path, options: &[impl AsRef<str>]) -> Self {
        let options: Vec<&str> = options.iter().map(AsRef::as_ref).collect();
        let control = home.join("control.sock");
        let config = home.join("config.toml");
        if !config.exists() {
            fs::write(&config, "").unwrap();
        }
        command.arg("run").args(&options).arg("--control").arg(&control);
        if !options.contains(&"--config") {
            command.arg("--config").arg(&config);
        }
        if !options.iter().any(|word| ["--state", "--dry-run", "-n"].contains(word)) {
            command.arg("--state").arg(home.join("state"));
        }
        let manager = home.join("notify.sock");
        let _ = fs::remove_file(&manager);
        let (said, notified) = (Heap::default(), Heap::default());
        collect_notifications(UnixDatagram::bind(&manager).unwrap(), notified.clone());
        // Also a daemon of another user may speak to it.
        fs::set_permissions(&manager, fs::Permissions::from_mode(0o666)).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [home.join("bin")].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths).unwrap());
        command.env("NOTIFY_SOCKET", manager).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let stderr = process.child().stderr.take().expect("it is piped");
        let mut log = fs::File::create(home.join("log")).unwrap();
        let heap = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line) + "\n";
                let _ = log.write_all(line.as_bytes());
                heap.add(&line);
            }
        });
        Self { process, control, said, notified }
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// Waits until it has said this.
    pub fn wait_until_said(&self, words: &str) {
        let heard = within(PATIENCE, || self.said().contains(words));
        assert!(heard, "it has not said {words:?}, but: {}", self.said());
    }

    /// Whether it has told the service manager this, as `READY=1`.
    pub fn has_notified(&self, assignment: &str) -> bool {
        self.notified.text().lines().any(|line| line == assignment)
    }

    /// All that it has told the service manager, one assignment a line.
    pub fn notified(&self) -> String {
        self.notified.text()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until one of its threads waits for a disk and nothing else (state D, proc(5)).
    pub fn wait_until_a_disk_holds_it_up(&self) {
        let waits = || self.process.threads().contains(&'D');
        assert!(within(PATIENCE, waits), "no disk holds it up: {}", self.said());
    }

    /// Halts it until SIGCONT; it hears nothing any more.
    pub fn halt(&mut self) {
        self.process.halt();
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) -> ExitStatus {
        self.process.stop()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Runs one of the commands that talk to it, such as `status`.
    pub fn command(&self, words: &[&str]) -> Output {
        let mut command = program();
        command.args(words).arg("--control").arg(&self.control).stdin(Stdio::null());
        command.output().expect("the program can be started")
    }

    /// Is this address authorised?
    pub fn query(&self, address: &str) -> bool {
        let output = self.command(&["query", address]);
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("query {address}: {output:?}\nand the daemon: {}", self.said()),
        }
    }

    /// Waits until this address is authorised.
    pub fn wait_until_authorised(&self, address: &str) {
        let authorised = within(PATIENCE, || self.query(address));
        assert!(authorised, "{address} is not authorised: {}", self.said());
    }

    /// Who is authorised, as `list --json` says it.
    pub fn list(&self) -> serde_json::Value {
        let output = self.command(&["list", "--json"]);
        assert!(output.status.success(), "list: {output:?}\nand the daemon: {}", self.said());
        serde_json::from_slice(&output.stdout).expect("list --json prints JSON")
    }

    /// The addresses that are authorised.
    pub fn authorised(&self) -> Vec<IpAddr> {
        let list = self.list();
        let clients = list.as_array().expect("list --json prints an array").iter();
        clients
            .map(|client| {
                let address = client["address"].as_str().expect("each has an address");
                address.parse().expect("a whole address")
            })
            .collect()
    }
}

/// The program with nothing of the caller's environment that could configure it.
pub fn program() -> Command {
    unconfigured(Command::new(PROGRAM))
}

fn unconfigured(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POP_BEFORE_SMTP_") {
            command.env_remove(name);
        }
    }
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(name);
    }
    command
}

/// Reads what the daemon tells its service manager, so that it never waits for us. The thread ends
/// with the test.
fn collect_notifications(socket: UnixDatagram, heap: Heap) {
    thread::spawn(move || {
        let mut datagram = [0; 4096];
        while let Ok(length) = socket.recv(&mut datagram) {
            heap.add(&String::from_utf8_lossy(&datagram[..length]));
            heap.add("\n");
        }
    });
}
