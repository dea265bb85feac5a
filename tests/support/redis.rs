//! A private redis-server, reached by a Unix socket, and by TCP if its options say so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::{PATIENCE, directory, within};

/// Where tests/all unpacks it.
const REDIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/redis");

/// A store.
pub struct Redis {
    dir: TempDir,
    options: Vec<String>,
    shift: i32,
    /// The server, if it runs.
    pub process: Option<Process>,
}

impl Redis {
    /// Starts an empty one with more options, such as `--port 7000`.
    pub fn start(options: &[&str]) -> Self {
        Self::start_with_clock(options, 0)
    }

    /// The same with a wall clock that is so many seconds ahead.
    pub fn start_with_clock(options: &[&str], shift: i32) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { dir: directory(), options, shift, process: None };
        redis.restart();
        redis
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Returns the URL of its socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Starts it again, empty.
    pub fn restart(&mut self) {
        let mut command = tool("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--unixsocketperm", "777"]);
        if !self.options.iter().any(|option| option == "--port") {
            command.args(["--port", "0"]);
        }
        command.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.dir.path());
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null());
        if self.shift != 0 {
            let library = self.dir.path().join("clock.so");
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
            let mut cc = Command::new("cc");
            let built = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
            assert!(built.expect("the linker of Rust is there").success());
            command.env("LD_PRELOAD", library).env("CLOCK_SHIFT", self.shift.to_string());
        }
        self.process = Some(Process::spawn(&mut command));
        let answers = || ["PONG", "NOAUTH"].iter().any(|it| self.cli(&["PING"]).contains(it));
        assert!(within(PATIENCE, answers), "redis-server does not answer");
    }

    /// Kills it: what it had is lost.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends a command and returns what redis-cli prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = tool("redis-cli");
        command.arg("-s").arg(self.socket()).args(arguments).stdin(Stdio::null());
        let output = command.output().expect("redis-cli can be started");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Sends a command that must succeed.
    pub fn set(&self, arguments: &[&str]) {
        let answer = self.cli(arguments);
        assert_eq!(answer, "OK", "{arguments:?}");
    }
}

fn tool(name: &str) -> Command {
    let program = Path::new(REDIS).join("usr/bin").join(name);
    assert!(program.exists(), "{} is missing: tests/all unpacks it", program.display());
    let mut command = Command::new(program);
    let libraries = std::fs::read_dir(Path::new(REDIS).join("usr/lib")).expect("its libraries");
    let libraries: Vec<_> = libraries.flatten().map(|entry| entry.path()).collect();
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("plain paths"));
    command
}
