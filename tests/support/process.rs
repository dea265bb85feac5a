//! A child process that never outlives its test.

use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, eventually, within};

/// A running program; dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|why| panic!("cannot start {name}: {why}"));
        Self { name, child }
    }

    /// Returns the child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its exit status, if it has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Sends it a signal, unless it has exited.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not yet waited for, so the number is still this process.
            let id = i32::try_from(self.id()).expect("Linux keeps process ids below 2^22");
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// Halts it (SIGSTOP) and waits until none of its threads runs.
    pub fn halt(&mut self) {
        self.signal(Signal::SIGSTOP);
        let halted = || self.threads().iter().all(|state| *state == 'T');
        eventually(&format!("{} is halted", self.name), PATIENCE, halted);
    }

    /// Returns the states of its threads, as in proc(5).
    pub fn threads(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        let state = |task: std::fs::DirEntry| {
            // A thread that has ended meanwhile has none.
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            stat.rsplit(") ").next()?.chars().next()
        };
        tasks.flatten().filter_map(state).collect()
    }

    /// Sends SIGTERM and waits until it has exited.
    ///
    /// # Panics
    /// If it does not exit in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it has exited.
    ///
    /// # Panics
    /// If it does not exit in time.
    pub fn wait(&mut self) -> ExitStatus {
        let in_time = within(PATIENCE, || self.ended().is_some());
        assert!(in_time, "{} (process {}) has not ended within {PATIENCE:?}", self.name, self.id());
        self.child.wait().expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // With a limit: it may be blocked by a disk that the test releases afterwards.
        within(PATIENCE, || !matches!(self.child.try_wait(), Ok(None)));
    }
}
