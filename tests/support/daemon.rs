//! pop-before-smtp itself, run as a service manager runs it.
//!
//! - **Promise**: it uses only its own files: a configuration, state and control socket in a
//!   directory of the test, so that the test can stop it and start it again.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;

use super::process::Process;
use super::{PATIENCE, install, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pop-before-smtp");

/// Passes standard input and output as sockets; `exec` keeps the process id.
const PASS_ON: &str = "exec 3<&0 4<&1 < /dev/null > /dev/null; \
                       LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";

/// Text that a thread collects and a test reads.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<String>>);

impl Collected {
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
    log: Collected,
    notified: Collected,
}

impl Daemon {
    /// Starts `run` with these options and waits until it is ready.
    ///
    /// Unless the options name other paths, it uses `config.toml` (created empty if missing),
    /// `state` and `control.sock` in `home`. Its log is also written to `home/log`. `home/bin` is
    /// first in its PATH.
    ///
    /// # Panics
    /// If it does not become ready, with its log.
    pub fn start(home: &Path, options: &[impl AsRef<str>]) -> Self {
        Self::spawn(home, options).ready()
    }

    /// The same, with two sockets passed as by systemd (sd_listen_fds(3)).
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

    /// Waits until it has reported that it is ready.
    ///
    /// # Panics
    /// If it does not become ready, with its log.
    pub fn wait_until_ready(&mut self) {
        let ready = within(PATIENCE, || self.has_notified("READY=1") || self.has_ended());
        assert!(ready && !self.has_ended(), "not ready: {}", self.log());
    }

    /// Starts it without waiting, for configurations that are refused at the start.
    pub fn spawn(home: &Path, options: &[impl AsRef<str>]) -> Self {
        Self::spawn_with(home, options, |_| {})
    }

    /// The same, after `prepare` has changed the command, such as its environment.
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

    /// The same as [`Self::spawn`], as this user and group.
    pub fn spawn_as(user: (u32, u32), home: &Path, options: &[impl AsRef<str>]) -> Self {
        let mut command = program_as(user, home);
        command.stdin(Stdio::null());
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
        if !options.iter().any(|option| ["--state", "--dry-run", "-n"].contains(option)) {
            command.arg("--state").arg(home.join("state"));
        }
        let manager = home.join("notify.sock");
        let _ = fs::remove_file(&manager);
        let (log, notified) = (Collected::default(), Collected::default());
        collect_notifications(UnixDatagram::bind(&manager).unwrap(), notified.clone());
        // A daemon of another user may also send to it.
        fs::set_permissions(&manager, fs::Permissions::from_mode(0o666)).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [home.join("bin")].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths).unwrap());
        command.env("NOTIFY_SOCKET", manager).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let stderr = process.child().stderr.take().expect("it is piped");
        let mut file = fs::File::create(home.join("log")).unwrap();
        let collected = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line) + "\n";
                let _ = file.write_all(line.as_bytes());
                collected.add(&line);
            }
        });
        Self { process, control, log, notified }
    }

    /// Returns its stderr so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until it has logged a text.
    pub fn wait_until_logged(&self, text: &str) {
        let logged = within(PATIENCE, || self.log().contains(text));
        assert!(logged, "it has not logged {text:?}, but: {}", self.log());
    }

    /// Returns whether it has sent this to the service manager, such as `READY=1`.
    pub fn has_notified(&self, assignment: &str) -> bool {
        self.notified.text().lines().any(|line| line == assignment)
    }

    /// Returns everything that it has sent to the service manager, one assignment a line.
    pub fn notified(&self) -> String {
        self.notified.text()
    }

    /// Returns whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until one of its threads is blocked by a disk (state D, proc(5)).
    pub fn wait_until_blocked_by_disk(&self) {
        let waits = || self.process.threads().contains(&'D');
        assert!(within(PATIENCE, waits), "no disk blocks it: {}", self.log());
    }

    /// Halts it until SIGCONT; it receives nothing meanwhile.
    pub fn halt(&mut self) {
        self.process.halt();
    }

    /// Sends SIGTERM and waits until it has exited.
    pub fn stop(mut self) -> ExitStatus {
        self.process.stop()
    }

    /// Waits until it exits by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Runs one of the commands that query or change it, such as `status`.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.args(arguments).arg("--control").arg(&self.control).stdin(Stdio::null());
        command.output().expect("the program can be started")
    }

    /// Returns what affects mail, by the exit status and the message of `status --check`.
    pub fn affects_mail(&self) -> Option<String> {
        let output = self.command(&["status", "--check"]);
        match (output.status.code(), output.stdout.is_empty()) {
            (Some(0), true) if output.stderr.is_empty() => None,
            (Some(1), true) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            _ => panic!("status --check: {output:?}\nand the daemon: {}", self.log()),
        }
    }

    /// Returns whether an address is authorised.
    pub fn query(&self, address: &str) -> bool {
        let output = self.command(&["query", address]);
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("query {address}: {output:?}\nand the daemon: {}", self.log()),
        }
    }

    /// Waits until this address is authorised.
    pub fn wait_until_authorised(&self, address: &str) {
        let authorised = within(PATIENCE, || self.query(address));
        assert!(authorised, "{address} is not authorised: {}", self.log());
    }

    /// Returns the output of `list --json`.
    pub fn list(&self) -> serde_json::Value {
        let output = self.command(&["list", "--json"]);
        assert!(output.status.success(), "list: {output:?}\nand the daemon: {}", self.log());
        serde_json::from_slice(&output.stdout).expect("list --json prints JSON")
    }

    /// Returns the authorised addresses.
    pub fn authorised(&self) -> Vec<IpAddr> {
        let list = self.list();
        let clients = list.as_array().expect("list --json prints an array").iter();
        clients
            .map(|client| {
                let address = client["address"].as_str().expect("each has an address");
                address.parse().expect("an address")
            })
            .collect()
    }
}

/// Returns a command that runs the program without the environment variables that configure it.
pub fn program() -> Command {
    unconfigured(Command::new(PROGRAM))
}

/// The same for another user and group: with a copy in `home`, because this user may be unable to
/// enter the directory of the build, such as a clone in root's home.
pub fn program_as((user, group): (u32, u32), home: &Path) -> Command {
    let copy = home.join("pop-before-smtp");
    if !copy.exists() {
        install(PROGRAM, &copy);
    }
    let mut command = unconfigured(Command::new(copy));
    command.uid(user).gid(group);
    command
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

/// Reads what the daemon sends to its service manager, so that it never blocks. The thread ends
/// with the test.
fn collect_notifications(socket: UnixDatagram, collected: Collected) {
    thread::spawn(move || {
        let mut datagram = [0; 4096];
        while let Ok(length) = socket.recv(&mut datagram) {
            collected.add(&String::from_utf8_lossy(&datagram[..length]));
            collected.add("\n");
        }
    });
}
