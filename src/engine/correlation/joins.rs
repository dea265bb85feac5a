//! Joins a login without an address to the client of its process, which an earlier line with the
//! same PID names.
//!
//! - **Promise**: a login is joined to a connection only if that is the only one of its process that
//!   may be open. Otherwise it is not joined at all: of two containers with one host name, or with
//!   none, each has its own process 12.
//! - **How**: a connect line opens a process, and an end line closes it. A second connection before
//!   the end makes it ambiguous, and it stays so, whatever ends, until `MAX_LOGIN_TIME` after the
//!   last connect line. The same address twice is not yet a second connection, since TCP wrappers and
//!   the daemon both log it; but as it might be one, the process is ambiguous as soon as one of them
//!   has logged in or ended.
//! - **Assumption**: no line is lost. If the connect line of one process is lost while another one
//!   with the same key waits for its login, the first one's login is joined to the other's client.
//! - **On overflow**: fails closed. While not every connection could be remembered, no login is joined.

use std::net::IpAddr;
use std::time::Duration;

use super::aging::{Aging, Full};
use super::key::Key;
use crate::engine::time::Time;

/// Most processes remembered; no mail host has so many at a time.
const MAX_PROCESSES: usize = 65_536;
/// A login that takes longer than this after its connect line is not joined to it: mail daemons
/// wait ten minutes for it (RFC 1939 section 3).
pub const MAX_LOGIN_TIME: Duration = Duration::from_secs(600);

/// What is known of the connections of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// One, whose address is not known yet.
    Opened,
    /// One, from this client.
    Serves(IpAddr),
    /// One that was logged twice, or two from the same client.
    ServesTwice(IpAddr),
    /// One from this client, and one whose address is not known yet: the same one if it turns out
    /// to have the same address.
    Reopened(IpAddr),
    /// One that has logged in.
    LoggedIn,
    /// Several.
    Ambiguous,
}

/// Why a login is not joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjoined {
    /// No connection of the process is waiting for a login.
    NoConnection,
    /// Several connections of the process may be open.
    Several,
    /// Not every connection could be remembered.
    Full,
}

/// The connections of processes.
#[derive(Debug)]
pub struct Joins(Aging<Process>);

impl Default for Joins {
    fn default() -> Self {
        Self(Aging::new(MAX_PROCESSES, MAX_LOGIN_TIME))
    }
}

impl Joins {
    /// Records that a client has connected to a process.
    ///
    /// # Errors
    /// The memory is full; no login is joined until the oldest connections have aged.
    pub fn connect(
        &mut self,
        process: Key,
        address: Option<IpAddr>,
        now: Time,
    ) -> Result<(), Full> {
        let before = self.0.get_mut(process, now).copied();
        let after = match (before, address) {
            (None, None) => Process::Opened,
            (None | Some(Process::Opened), Some(address)) => Process::Serves(address),
            (Some(Process::Serves(client)), None) => Process::Reopened(client),
            (
                Some(
                    Process::Serves(client)
                    | Process::ServesTwice(client)
                    | Process::Reopened(client),
                ),
                Some(address),
            ) if client == address => Process::ServesTwice(address),
            _ => Process::Ambiguous,
        };
        self.0.remember(process, after, now)
    }

    /// Records that the client of a process has logged in, and returns its address, once.
    ///
    /// # Errors
    /// Why the address is not known.
    pub fn login(&mut self, process: Key, now: Time) -> Result<IpAddr, Unjoined> {
        if self.0.has_overflowed(now) {
            return Err(Unjoined::Full);
        }
        let state = self.0.get_mut(process, now).ok_or(Unjoined::NoConnection)?;
        match *state {
            Process::Serves(client) => {
                *state = Process::LoggedIn;
                Ok(client)
            }
            Process::ServesTwice(client) => {
                *state = Process::Ambiguous;
                Ok(client)
            }
            Process::Opened | Process::LoggedIn => Err(Unjoined::NoConnection),
            Process::Reopened(_) | Process::Ambiguous => Err(Unjoined::Several),
        }
    }

    /// Records the end of a connection of a process, with or without a login.
    pub fn end(&mut self, process: Key, now: Time) {
        match self.0.get_mut(process, now) {
            Some(Process::Opened | Process::Serves(_) | Process::LoggedIn) => {
                self.0.take(process);
            }
            Some(other) => *other = Process::Ambiguous,
            None => {}
        }
    }

    /// Records the end of a connection that had logged in. If no login of the process is known, the
    /// known connection is a different one.
    pub fn log_out(&mut self, process: Key, now: Time) {
        match self.0.get_mut(process, now) {
            Some(Process::LoggedIn) => {
                self.0.take(process);
            }
            Some(other) => *other = Process::Ambiguous,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_millis(0);

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn connections_age_and_fail_closed() {
        let mut joins = Joins::default();
        let key = Key;
        assert_eq!(joins.connect(key(0), Some(client(1)), T0), Ok(()));
        let last = T0 + MAX_LOGIN_TIME;
        let late = last + Duration::from_millis(1);
        assert_eq!(joins.login(key(0), late), Err(Unjoined::NoConnection));
        assert_eq!(joins.login(key(0), last), Ok(client(1)));
        for number in 0..MAX_PROCESSES as u64 {
            assert_eq!(joins.connect(key(number), Some(client(1)), late), Ok(()));
        }
        assert_eq!(joins.connect(key(u64::MAX), Some(client(2)), late), Err(Full));
        joins.end(key(7), late);
        assert_eq!(joins.connect(key(7), Some(client(3)), late), Ok(()), "an end makes room");
        assert_eq!(joins.login(key(7), late), Err(Unjoined::Full));
        assert_eq!(joins.login(key(7), late + MAX_LOGIN_TIME), Err(Unjoined::Full));
    }

    /// Process 12 of a container: its client, and whether that has logged in.
    type Container = Option<(IpAddr, bool)>;

    /// Simulates three containers with one host name, each with its process 12, in random order of
    /// events, and checks that each joined login gets its own client. `lines` are the connect lines
    /// of a connection: whether each names the address. Returns how many logins were joined.
    fn simulate(seed: u64, lines: &[bool]) -> usize {
        // A small random number generator (xorshift).
        let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        let mut joins = Joins::default();
        let process = Key(12);
        let mut containers: [(Container, usize); 3] = [(None, 0); 3];
        let mut joined = 0;
        let mut now = T0;
        for _ in 0..60 {
            // Sometimes a pause while no connection is open, in which ambiguity is forgotten.
            if containers.iter().all(|(open, _)| open.is_none()) && below(4) == 0 {
                now = now + MAX_LOGIN_TIME + Duration::from_millis(1);
            }
            let (open, logged) = &mut containers[usize::try_from(below(3)).expect("small")];
            match *open {
                None => {
                    let address = client(u32::try_from(below(3)).expect("small"));
                    (*open, *logged) = (Some((address, false)), 0);
                }
                Some((address, false)) if *logged < lines.len() => {
                    let address = lines[*logged].then_some(address);
                    assert_eq!(joins.connect(process, address, now), Ok(()));
                    *logged += 1;
                }
                Some((address, false)) if below(2) == 0 => {
                    if let Ok(found) = joins.login(process, now) {
                        assert_eq!(found, address, "seed {seed}, lines {lines:?}");
                        joined += 1;
                    }
                    *open = Some((address, true));
                }
                Some((_, logged_in)) => {
                    match logged_in && below(2) == 0 {
                        true => joins.log_out(process, now),
                        false => joins.end(process, now),
                    }
                    *open = None;
                }
            }
        }
        joined
    }

    #[test]
    fn a_joined_login_has_the_address_of_its_own_client() {
        // One line; after a line without an address; after one of TCP wrappers; after both.
        let forms: [&[bool]; 4] = [&[true], &[false, true], &[true, true], &[true, false, true]];
        for lines in forms {
            let joined: usize = (0..20_000).map(|seed| simulate(seed, lines)).sum();
            assert!(joined > 1_000, "{lines:?}: only {joined} are joined");
        }
    }
}
