//! The sockets that systemd passes (sd_listen_fds(3)), distinguished by their names.
//!
//! - **Promise**: each is handed out once.

use listenfd::ListenFd;

use crate::config::lookups::SocketRole;

/// The sockets that systemd has passed.
pub struct Passed {
    sockets: ListenFd,
    roles: Vec<SocketRole>,
    taken: Vec<bool>,
}

impl Passed {
    /// Takes them over. Call it once, at the start.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = ListenFd::from_env();
        let mut names = names.split(':');
        let roles =
            (0..sockets.len()).map(|_| SocketRole::from_name(names.next().unwrap_or_default()));
        Self { roles: roles.collect(), taken: vec![false; sockets.len()], sockets }
    }

    /// Returns the role of each.
    pub fn roles(&self) -> &[SocketRole] {
        &self.roles
    }

    /// Returns the number of the next socket of this role that was not returned before.
    pub fn next_of(&mut self, role: SocketRole) -> Option<usize> {
        let is_next = |&index: &usize| self.roles[index] == role && !self.taken[index];
        let index = (0..self.roles.len()).find(is_next)?;
        self.taken[index] = true;
        Some(index)
    }

    /// Returns the sockets, by their numbers.
    pub fn sockets(&mut self) -> &mut ListenFd {
        &mut self.sockets
    }
}
