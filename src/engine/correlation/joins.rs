//! Whose login it is that names no address: that of the client which the process serves, as an
//! earlier line of the same PID tells.
//!
//! Promise  a login is joined to a connection only if that is the only one of its process that may
//!          be open. Else it is nobody's: of two containers with one host name, or with none, each
//!          has its own process 12.
//! Rule     a process is opened by its connect line and ended by its end. A second connection
//!          before the end makes it doubtful, and it stays so, whatever ends, until
//!          `MAX_LOGIN_TIME` after the last connect line. The same address twice is no second
//!          connection yet, for TCP wrappers and the daemon both log it; but as it might be one,
//!          the process is doubtful once one has logged in or ended.
//! Assumes  that no line is lost. Where the connect line of one process is lost while another
//!          with the same key waits for its login, the first one's login is taken for the other's.
//! Fails    closed: while not every connection could be remembered, no login is joined.

use std::net::IpAddr;
use std::time::Duration;

use super::aging::{Aging, Full};
use super::streams::Key;
use crate::engine::time::Time;

/// Processes that are remembered; no mail host has so many at a time.
const MAX_PROCESSES: usize = 65_536;
/// A login that takes longer than this after its connect line is not joined to it: mail daemons
/// wait ten minutes for it (RFC 1939 section 3).
pub const MAX_LOGIN_TIME: Duration = Duration::from_secs(600);

/// What is known of the connections of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// One, whose address has not been told yet.
    Opened,
    /// One, of this client.
    Serves(IpAddr),
    /// One that was told twice, or two of the same client.
    ServesTwice(IpAddr),
    /// One of this client, and one whose address has not been told: the same one if it turns out
    /// to have the same address.
    Reopened(IpAddr),
    /// One that has logged in.
    LoggedIn,
    /// Several.
    Doubtful,
}

/// Why a login is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjoined {
    /// No connection of the process is known that waits for a login.
    NoConnection,
    /// Several connections of the process may be open.
    Several,
    /// Not every connection could be remembered.
    Full,
}

/// The processes that serve clients.
#[derive(Debug)]
pub struct Joins(Aging<Process>);

impl Default for Joins {
    fn default() -> Self {
        Self(Aging::new(MAX_PROCESSES, MAX_LOGIN_TIME))
    }
}

impl Joins {
    /// A client has connected to a process.
    ///
    /// # Errors
    /// There is no room; until that no longer matters, no login is joined.
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
            _ => Process::Doubtful,
        };
        self.0.remember(process, after, now)
    }

    /// The client that the process serves has logged in: whose address it is. Counts once.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn login(&mut self, process: Key, now: Time) -> Result<IpAddr, Unjoined> {
        if self.0.lacks_some(now) {
            return Err(Unjoined::Full);
        }
        let state = self.0.get_mut(process, now).ok_or(Unjoined::NoConnection)?;
        match *state {
            Process::Serves(client) => {
                *state = Process::LoggedIn;
                Ok(client)
            }
            Process::ServesTwice(client) => {
                *state = Process::Doubtful;
                Ok(client)
            }
            Process::Opened | Process::LoggedIn => Err(Unjoined::NoConnection),
            Process::Reopened(_) | Process::Doubtful => Err(Unjoined::Several),
        }
    }

    /// A connection of the process is over, after a login or without one.
    pub fn end(&mut self, process: Key, now: Time) {
        match self.0.get_mut(process, now) {
            Some(Process::Opened | Process::Serves(_) | Process::LoggedIn) => {
                self.0.take(process);
            }
            Some(doubtful) => *doubtful = Process::Doubtful,
            None => {}
        }
    }

    /// A connection of the process that had logged in is over. If no login of it is known, it is
    /// another one than that which is.
    pub fn log_out(&mut self, process: Key, now: Time) {
        match self.0.get_mut(process, now) {
            Some(Process::LoggedIn) => {
                self.0.take(process);
            }
            Some(other) => *other = Process::Doubtful,
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
        let key = Key::of;
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
        assert_eq!(joins.connect(key(7), Some(client(3)), late), Ok(()), "there is room again");
        assert_eq!(joins.login(key(7), late), Err(Unjoined::Full));
        assert_eq!(joins.login(key(7), late + MAX_LOGIN_TIME), Err(Unjoined::Full));
    }

    /// A container's process 12: its client, and whether that has logged in.
    type Container = Option<(IpAddr, bool)>;

    /// Containers with one host name, each with its process 12, in any order of events: a login
    /// that is joined is its own client's. `told` is what the daemon logs of a connection.
    fn live(seed: u64, told: &[bool]) -> usize {
        // A small generator (xorshift); tests of the library have no other.
        let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        let mut joins = Joins::default();
        let process = Key::of(12);
        let mut containers: [(Container, usize); 3] = [(None, 0); 3];
        let mut joined = 0;
        let mut now = T0;
        for _ in 0..60 {
            // Long stories, in which doubts are forgotten in between while nobody is there.
            if containers.iter().all(|(open, _)| open.is_none()) && below(4) == 0 {
                now = now + MAX_LOGIN_TIME + Duration::from_millis(1);
            }
            let (open, lines) = &mut containers[usize::try_from(below(3)).expect("small")];
            match *open {
                None => {
                    let address = client(u32::try_from(below(3)).expect("small"));
                    (*open, *lines) = (Some((address, false)), 0);
                }
                Some((address, false)) if *lines < told.len() => {
                    let address = told[*lines].then_some(address);
                    assert_eq!(joins.connect(process, address, now), Ok(()));
                    *lines += 1;
                }
                Some((address, false)) if below(2) == 0 => {
                    if let Ok(found) = joins.login(process, now) {
                        assert_eq!(found, address, "seed {seed}, lines {told:?}");
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
    fn whatever_happens_in_three_containers_a_login_is_its_own_client_s() {
        // One line; an opening line first; TCP wrappers before; all three.
        let forms: [&[bool]; 4] = [&[true], &[false, true], &[true, true], &[true, false, true]];
        for told in forms {
            let joined: usize = (0..20_000).map(|seed| live(seed, told)).sum();
            assert!(joined > 1_000, "{told:?}: only {joined} are joined");
        }
    }
}
