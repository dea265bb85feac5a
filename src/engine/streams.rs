//! What one message means in the light of those before it from the same place.
//!
//! Promise  two kinds of memory, both by order of arrival and never by the times in the frames:
//!          per stream (receiver, sender, host, program) whether the last message was a piece of
//!          a line that was cut, so that the next one is only its tail; per process (the same and
//!          the PID) which client has connected, and whether what it logs may be a stranger's text.
//! Fails    closed: a full table forgets connections, never suspicions; while suspicions fill
//!          their table, nothing that depends on them is believed.
//! Not here which messages these are (`daemons`).

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use super::syslog::Message;
use super::time::Time;

/// Connections waiting for their login; a client that waits does not matter to others.
const MAX_CONNECTIONS: usize = 16_384;
/// Processes that are not believed, and streams in the middle of a cut line.
const MAX_SUSPICIONS: usize = 65_536;
/// A login that takes longer than this after its connect line is not joined to it.
const MAX_LOGIN_TIME: Duration = Duration::from_secs(600);
/// No mail session lasts longer; after that the PID may belong to anybody.
const MAX_SUSPICION: Duration = Duration::from_secs(24 * 3600);

/// Where a frame came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// Number of the receiving socket.
    pub receiver: u16,
    /// The sender's address; nothing for a Unix socket.
    pub sender: Option<IpAddr>,
}

/// A table has no room, so something could not be remembered: nothing is believed that depends
/// on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A stream or a process of one, as a keyed hash: bounded however long the names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

/// The memory of all streams.
#[derive(Debug, Default)]
pub struct Streams {
    hasher: RandomState,
    cut: Aging<()>,
    connections: Aging<IpAddr>,
    distrusted: Aging<()>,
}

impl Streams {
    /// The key of a message's stream.
    pub fn stream(&self, source: Source, message: &Message<'_>) -> Key {
        Key(self.hasher.hash_one((source, message.host, message.program)))
    }

    /// The key of the process that logged a message, if it gives its PID.
    pub fn process(&self, source: Source, message: &Message<'_>) -> Option<Key> {
        let pid = message.pid?;
        Some(Key(self.hasher.hash_one((source, message.host, message.program, pid))))
    }

    /// The key of a mail session, by the id that its login and its log-out carry.
    pub fn session(&self, source: Source, message: &Message<'_>, id: Option<&str>) -> Option<Key> {
        let id = id.filter(|id| !id.is_empty())?;
        Some(Key(self.hasher.hash_one((source, message.host, message.program, "session", id))))
    }

    /// Tells whether a message is the tail of a cut line, and remembers whether its own tail
    /// follows. A tail as long as a piece has a tail in turn. Another process under the same name
    /// does not use up what was remembered of this one.
    ///
    /// # Errors
    /// There is no room; until there is, this cannot be told of any stream.
    pub fn is_tail(&mut self, writer: Key, is_piece: bool, now: Time) -> Result<bool, Full> {
        if self.cut.len() >= MAX_SUSPICIONS {
            // Only then: the tail of a line may come a long time after its head.
            self.cut.sweep(now, MAX_SUSPICION);
        }
        let tail = self.cut.remove(writer).is_some();
        if self.cut.len() >= MAX_SUSPICIONS {
            // Some writer's piece may not have been remembered.
            return Err(Full);
        }
        if is_piece {
            self.cut.insert(writer, (), now);
        }
        Ok(tail)
    }

    /// A client has connected to a process, which therefore starts anew. The newest wins.
    pub fn connect(&mut self, process: Key, address: Option<IpAddr>, now: Time) {
        self.distrusted.remove(process);
        self.connections.remove(process);
        if let Some(address) = address {
            self.connections.sweep(now, MAX_LOGIN_TIME);
            if self.connections.len() >= MAX_CONNECTIONS {
                self.connections.remove_oldest();
            }
            self.connections.insert(process, address, now);
        }
    }

    /// The client that the process serves has logged in: whose address it is. Counts once.
    pub fn login(&mut self, process: Key, now: Time) -> Option<IpAddr> {
        self.connections.sweep(now, MAX_LOGIN_TIME);
        self.connections.remove(process)
    }

    /// The process serves nobody any more.
    pub fn end(&mut self, process: Key) {
        self.connections.remove(process);
    }

    /// From here on the process may log what a stranger wrote.
    ///
    /// # Errors
    /// There is no room; until there is, no process is believed.
    pub fn distrust(&mut self, process: Key, now: Time) -> Result<(), Full> {
        self.connections.remove(process);
        self.distrusted.sweep(now, MAX_SUSPICION);
        self.distrusted.remove(process);
        if self.distrusted.len() >= MAX_SUSPICIONS {
            return Err(Full);
        }
        self.distrusted.insert(process, (), now);
        Ok(())
    }

    /// Whether a process is not believed; while the table is full, none is.
    pub fn is_distrusted(&mut self, process: Key, now: Time) -> bool {
        self.distrusted.sweep(now, MAX_SUSPICION);
        self.distrusted.len() >= MAX_SUSPICIONS || self.distrusted.contains(process)
    }
}

/// A map whose entries are forgotten in the order in which they came.
#[derive(Debug)]
struct Aging<T> {
    /// Each with the number of its place: several may have come at one moment.
    entries: HashMap<Key, (T, u64)>,
    order: VecDeque<(Key, u64, Time)>,
    last: u64,
}

impl<T> Default for Aging<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), last: 0 }
    }
}

impl<T> Aging<T> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    fn insert(&mut self, key: Key, value: T, now: Time) {
        self.last += 1;
        self.entries.insert(key, (value, self.last));
        self.order.push_back((key, self.last, now));
        // Entries that were taken out leave their place in the order behind.
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order
                .retain(|(key, place, _)| entries.get(key).is_some_and(|(_, own)| own == place));
        }
    }

    fn remove(&mut self, key: Key) -> Option<T> {
        self.entries.remove(&key).map(|(value, _)| value)
    }

    fn sweep(&mut self, now: Time, age: Duration) {
        while self.order.front().is_some_and(|(.., at)| now.since(*at) > age) {
            self.pop_front();
        }
    }

    fn remove_oldest(&mut self) {
        while !self.order.is_empty() && !self.pop_front() {}
    }

    /// Takes the oldest place off; whether an entry went with it.
    fn pop_front(&mut self) -> bool {
        let Some((key, place, _)) = self.order.pop_front() else { return false };
        let current = self.entries.get(&key).is_some_and(|(_, own)| *own == place);
        if current {
            self.entries.remove(&key);
        }
        current
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
    fn a_tail_as_long_as_a_piece_has_a_tail() {
        let mut streams = Streams::default();
        let mut hear = |is_piece| streams.is_tail(Key(1), is_piece, T0);
        let verdicts = [true, true, false, false].map(&mut hear);
        assert_eq!(verdicts, [Ok(false), Ok(true), Ok(true), Ok(false)]);
        assert_eq!(streams.is_tail(Key(2), false, T0), Ok(false));
    }

    #[test]
    fn the_newest_connection_wins_and_counts_once() {
        let mut streams = Streams::default();
        streams.connect(Key(1), Some(client(1)), T0);
        streams.connect(Key(1), Some(client(2)), T0);
        assert_eq!(streams.login(Key(1), T0), Some(client(2)));
        assert_eq!(streams.login(Key(1), T0), None);
        streams.connect(Key(1), Some(client(1)), T0);
        streams.connect(Key(1), None, T0);
        assert_eq!(streams.login(Key(1), T0), None);
        streams.connect(Key(1), Some(client(1)), T0);
        streams.end(Key(1));
        assert_eq!(streams.login(Key(1), T0), None);
    }

    #[test]
    fn connections_age_and_are_bounded() {
        let mut streams = Streams::default();
        streams.connect(Key(0), Some(client(1)), T0);
        let late = T0 + MAX_LOGIN_TIME + Duration::from_millis(1);
        assert_eq!(streams.login(Key(0), late), None);
        for number in 0..=MAX_CONNECTIONS as u64 {
            streams.connect(Key(number), Some(client(1)), late);
        }
        assert_eq!(streams.connections.len(), MAX_CONNECTIONS);
        assert_eq!(streams.login(Key(0), late), None, "the oldest made room");
        assert_eq!(streams.login(Key(1), late), Some(client(1)));
    }

    #[test]
    fn what_comes_and_goes_in_one_moment_leaves_nothing_behind() {
        let mut streams = Streams::default();
        for number in 0..1000 {
            streams.connect(Key(7), Some(client(1)), T0);
            assert_eq!(streams.is_tail(Key(7), true, T0), Ok(number > 0));
        }
        assert!(streams.connections.order.len() <= 67, "{}", streams.connections.order.len());
        assert!(streams.cut.order.len() <= 67, "{}", streams.cut.order.len());
    }

    #[test]
    fn distrust_ends_with_a_new_connection_and_fails_closed() {
        let mut streams = Streams::default();
        assert_eq!(streams.distrust(Key(1), T0), Ok(()));
        assert!(streams.is_distrusted(Key(1), T0));
        assert!(!streams.is_distrusted(Key(2), T0));
        streams.connect(Key(1), None, T0);
        assert!(!streams.is_distrusted(Key(1), T0));
        for number in 0..MAX_SUSPICIONS as u64 {
            assert_eq!(streams.distrust(Key(number), T0), Ok(()));
        }
        assert_eq!(streams.distrust(Key(u64::MAX), T0), Err(Full));
        assert!(streams.is_distrusted(Key(u64::MAX), T0));
        let later = T0 + MAX_SUSPICION + Duration::from_millis(1);
        assert!(!streams.is_distrusted(Key(u64::MAX), later));
    }
}
