//! Open sessions: a client that stays connected stays authorised, if the administrator wants this.
//!
//! - **Promise**: a login opens its session, and the log-out with the same key closes it, or the next
//!   login with that key. A session whose log-out is never seen ends at its ceiling. Ids count only
//!   in streams in which a log-out with an id has been seen. A log-out may overtake its login by a
//!   moment (Dovecot's processes log independently); that session is never open.
//! - **Limits**: at most `MAX_SESSIONS` open; while there are more, a login counts for the grace
//!   period only.
//! - **Not here**: which messages these are ([`crate::engine::maildaemons`]), and what follows for
//!   the set (`process`).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::key::Key;
use crate::engine::time::Time;

/// Most open sessions; a client has one or a few, and `max-clients` is 65,536 by default.
const MAX_SESSIONS: usize = 262_144;
/// Most log-outs remembered in case they have overtaken their login.
const MAX_EARLY: usize = 1024;
/// Most streams known to pair login and log-out; a host has a few.
const MAX_STREAMS: usize = 4096;
/// A login that comes later than this after its log-out is another session's.
const OVERTAKING: Duration = Duration::from_secs(60);

/// Sessions by their ceilings.
type Places = BTreeSet<(Time, Key)>;

#[derive(Debug)]
struct Session {
    address: IpAddr,
    user: Option<String>,
    ceiling: Time,
}

/// A closed session, and the ceilings of the remaining ones.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// The client.
    pub address: IpAddr,
    /// The user who had logged in.
    pub user: Option<String>,
    /// The latest ceiling of the other open sessions of this address.
    pub address_until: Option<Time>,
    /// The latest ceiling of the other open sessions of this user at this address.
    pub user_until: Option<Time>,
}

/// The open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: HashMap<Key, Session>,
    by_address: HashMap<IpAddr, Places>,
    by_user: HashMap<(IpAddr, Option<String>), Places>,
    order: VecDeque<(Time, Key)>,
    early: VecDeque<(Time, Key)>,
    paired: HashSet<Key>,
}

impl Sessions {
    /// Records that the log-outs of a stream carry the ids of their sessions.
    pub fn pairs(&mut self, stream: Key) {
        if self.paired.len() < MAX_STREAMS {
            self.paired.insert(stream);
        }
    }

    /// Returns whether the log-outs of a stream carry the ids of their sessions. Until one has been
    /// seen, they may not: Dovecot's do only since 2.3, and a session that is never closed would
    /// last until its ceiling.
    pub fn is_paired(&self, stream: Key) -> bool {
        self.paired.contains(&stream)
    }

    /// Opens the session of a login, which ends at `ceiling` if nothing closes it. Returns whether
    /// it is open: its log-out may have arrived already, or too many may be open.
    pub fn open(
        &mut self,
        key: Key,
        address: IpAddr,
        user: Option<String>,
        now: Time,
        ceiling: Time,
    ) -> bool {
        self.sweep(now);
        if let Some(place) = self.early.iter().position(|(_, early)| *early == key) {
            self.early.remove(place);
            return false;
        }
        self.take(key);
        if self.open.len() >= MAX_SESSIONS {
            return false;
        }
        self.by_address.entry(address).or_default().insert((ceiling, key));
        self.by_user.entry((address, user.clone())).or_default().insert((ceiling, key));
        self.open.insert(key, Session { address, user, ceiling });
        self.order.push_back((ceiling, key));
        // Closed sessions still have their places in the order.
        if self.order.len() > 2 * self.open.len() + 64 {
            let open = &self.open;
            let current = |(at, key): &(Time, Key)| open.get(key).is_some_and(|s| s.ceiling == *at);
            self.order.retain(current);
        }
        true
    }

    /// Returns whether the session with this key is open.
    pub fn is_open(&self, key: Key, now: Time) -> bool {
        self.open.get(&key).is_some_and(|session| now < session.ceiling)
    }

    /// Closes the session of a log-out.
    pub fn close(&mut self, key: Key, now: Time) -> Option<Closed> {
        self.sweep(now);
        let Some(Session { address, user, .. }) = self.take(key) else {
            if self.early.len() == MAX_EARLY {
                self.early.pop_front();
            }
            self.early.push_back((now, key));
            return None;
        };
        // From the ordered set, not by a search: thousands may share an address.
        let latest = |sessions: Option<&Places>| Some(sessions?.last()?.0);
        let holder = (address, user);
        let address_until = latest(self.by_address.get(&address));
        let user_until = latest(self.by_user.get(&holder));
        Some(Closed { address, user: holder.1, address_until, user_until })
    }

    /// Forgets the sessions of an address that is no longer authorised.
    pub fn forget(&mut self, address: IpAddr) {
        for (_, key) in self.by_address.remove(&address).into_iter().flatten() {
            self.take(key);
        }
    }

    /// Forgets the sessions of addresses and users that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(IpAddr, Option<&str>) -> bool) {
        let open = self.open.iter();
        let others = open.filter(|(_, session)| !keep(session.address, session.user.as_deref()));
        let others: Vec<Key> = others.map(|(key, _)| *key).collect();
        for key in others {
            self.take(key);
        }
    }

    /// Returns the addresses that have open sessions.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        self.by_address.into_keys()
    }

    fn take(&mut self, key: Key) -> Option<Session> {
        let session = self.open.remove(&key)?;
        let place = (session.ceiling, key);
        let holder = (session.address, session.user);
        if let Some(places) = self.by_address.get_mut(&holder.0)
            && places.remove(&place)
            && places.is_empty()
        {
            self.by_address.remove(&holder.0);
        }
        if let Some(places) = self.by_user.get_mut(&holder)
            && places.remove(&place)
            && places.is_empty()
        {
            self.by_user.remove(&holder);
        }
        Some(Session { address: holder.0, user: holder.1, ceiling: session.ceiling })
    }

    fn sweep(&mut self, now: Time) {
        while self.early.front().is_some_and(|(at, _)| now.since(*at) > OVERTAKING) {
            self.early.pop_front();
        }
        while let Some((ceiling, key)) = self.order.front().copied() {
            let current = self.open.get(&key).is_some_and(|session| session.ceiling == ceiling);
            if current && now < ceiling {
                break;
            }
            self.order.pop_front();
            if current {
                self.take(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::correlation::streams::{Source, Streams};
    use crate::engine::message::syslog::Frame;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn keys(count: usize) -> Vec<Key> {
        let streams = Streams::default();
        let key = |number: usize| {
            let line = format!("imapd[{number}]: x");
            let frame = Frame::new(line.as_bytes());
            let message = frame.message().expect("a message");
            streams.process(Source::default(), &message).expect("a PID")
        };
        (0..count).map(key).collect()
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_remaining_sessions_set_the_deadline() {
        let keys = keys(3);
        let mut sessions = Sessions::default();
        let joe = || Some("joe".to_owned());
        assert!(sessions.open(keys[0], client(1), joe(), at(0), at(100)));
        assert!(sessions.open(keys[1], client(1), joe(), at(10), at(110)));
        assert!(sessions.open(keys[2], client(1), Some("ann".into()), at(20), at(120)));
        let closed = sessions.close(keys[1], at(30)).expect("it was open");
        assert_eq!((closed.address_until, closed.user_until), (Some(at(120)), Some(at(100))));
        let closed = sessions.close(keys[2], at(40)).expect("it was open");
        assert_eq!((closed.address_until, closed.user_until), (Some(at(100)), None));
        let closed = sessions.close(keys[0], at(50)).expect("it was open");
        assert_eq!((closed.address_until, closed.user_until), (None, None));
        assert_eq!(sessions.close(keys[0], at(51)), None);
    }

    #[test]
    fn a_log_out_may_overtake_its_login() {
        let keys = keys(2);
        let mut sessions = Sessions::default();
        assert_eq!(sessions.close(keys[0], at(0)), None);
        assert!(!sessions.open(keys[0], client(1), None, at(1), at(100)));
        assert!(sessions.open(keys[0], client(1), None, at(2), at(100)), "it counts once");
        assert_eq!(sessions.close(keys[1], at(3)), None);
        assert!(sessions.open(keys[1], client(1), None, at(64), at(100)), "too long ago");
    }

    #[test]
    fn sessions_end_at_their_ceiling_and_with_their_address() {
        let keys = keys(3);
        let mut sessions = Sessions::default();
        sessions.open(keys[0], client(1), None, at(0), at(100));
        assert_eq!(sessions.close(keys[0], at(100)), None, "the ceiling has ended it");
        sessions.open(keys[1], client(1), None, at(200), at(300));
        sessions.forget(client(1));
        assert_eq!(sessions.close(keys[1], at(210)), None);
        sessions.open(keys[2], client(2), None, at(220), at(320));
        assert!(sessions.close(keys[2], at(230)).is_some());
        sessions.sweep(at(1000));
        assert!(sessions.open.is_empty() && sessions.by_address.is_empty());
        assert!(sessions.by_user.is_empty());
        assert!(sessions.order.is_empty() && sessions.early.is_empty());
    }

    #[test]
    fn the_number_of_open_sessions_is_bounded() {
        let keys = keys(MAX_SESSIONS + 1);
        let mut sessions = Sessions::default();
        let mut open = |key, seconds| sessions.open(key, client(1), None, at(seconds), at(100));
        let opened = keys.iter().filter(|key| open(**key, 0)).count();
        assert_eq!(opened, MAX_SESSIONS);
        assert!(!open(keys[MAX_SESSIONS], 1), "there is no room");
        assert!(open(keys[0], 1), "an existing key needs no room");
        assert!(open(keys[MAX_SESSIONS], 100), "the others have ended");
    }

    #[test]
    fn the_memory_of_closed_sessions_is_bounded() {
        let keys = keys(MAX_EARLY + 1);
        let mut sessions = Sessions::default();
        // Places after a session that stays open are not reached by sweeping.
        assert!(sessions.open(keys[0], client(1), None, at(0), at(100)));
        for round in 0..1000 {
            assert!(sessions.open(keys[1], client(2), None, at(0), at(200 + round)));
        }
        assert_eq!(sessions.open.len(), 2);
        assert!(sessions.order.len() <= 68, "{} places for two", sessions.order.len());
        assert!(sessions.close(keys[1], at(1)).is_some());
        assert!(sessions.close(keys[0], at(1)).is_some());
        for key in &keys {
            assert_eq!(sessions.close(*key, at(1)), None);
        }
        assert_eq!(sessions.early.len(), MAX_EARLY);
        assert!(sessions.open(keys[0], client(1), None, at(2), at(100)), "the first was forgotten");
        assert!(!sessions.open(keys[1], client(1), None, at(2), at(100)), "the second was not");
    }
}
