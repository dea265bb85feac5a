//! What systemd is told: ready, reloading, stopping, alive (sd_notify(3)); and the sockets that it
//! passes (sd_listen_fds(3)).
//!
//! Promise  without systemd nothing happens; a notification that cannot be sent is no error.

use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::debug;

use crate::config::lookups::Role;

/// The sockets that systemd has passed.
pub struct Passed {
    sockets: ListenFd,
    roles: Vec<Role>,
    taken: Vec<bool>,
}

impl Passed {
    /// Takes them over. To be called once, at the start.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = ListenFd::from_env();
        let mut names = names.split(':');
        let roles = (0..sockets.len()).map(|_| Role::of(names.next().unwrap_or_default()));
        Self { roles: roles.collect(), taken: vec![false; sockets.len()], sockets }
    }

    /// What each is for.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The number of the next one that is for this and was not asked for before.
    pub fn next_of(&mut self, role: Role) -> Option<usize> {
        let is_next = |&index: &usize| self.roles[index] == role && !self.taken[index];
        let index = (0..self.roles.len()).find(is_next)?;
        self.taken[index] = true;
        Some(index)
    }

    /// The sockets, by their numbers.
    pub fn sockets(&mut self) -> &mut ListenFd {
        &mut self.sockets
    }
}

/// The daemon serves.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon reads its configuration again; `ready` must follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock to tell systemd"),
    }
}

/// The daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The daemon is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that the daemon is alive, if it does: half its limit.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd cannot be told");
    }
}
