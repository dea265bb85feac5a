//! Two cores: one for the receiver, the other for everything else.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The two cores that are used.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    sender: usize,
    receiver: usize,
}

impl Cores {
    /// Chooses two cores and moves this thread to the sender's. Children and later threads stay
    /// there too.
    ///
    /// # Errors
    /// This process may use one core only.
    pub fn choose() -> Result<Self, String> {
        let own = sched_getaffinity(Pid::from_raw(0)).map_err(|why| format!("affinity: {why}"))?;
        let mut allowed = (0..CpuSet::count()).filter(|core| own.is_set(*core) == Ok(true));
        match (allowed.next(), allowed.next()) {
            (Some(sender), Some(receiver)) => {
                pin(sender);
                Ok(Self { sender, receiver })
            }
            _ => Err("two cores are needed: one for the sender, one for the receiver".into()),
        }
    }

    /// Starts a program on the receiver's core.
    pub fn on_receiver<T>(self, start: impl FnOnce() -> T) -> T {
        pin(self.receiver);
        let started = start();
        pin(self.sender);
        started
    }
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).expect("a core that is there");
    sched_setaffinity(Pid::from_raw(0), &set).expect("a core that may be used");
}
