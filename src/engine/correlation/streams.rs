//! What one message means in the light of those before it from the same place.
//!
//! Promise  two kinds of memory, both by order of arrival and never by the times in the frames:
//!          per writer (receiver, sender, host, program, and the PID if there is one) whether its
//!          last message was a piece of a line that was cut, so that the next one is only its tail;
//!          per process (those with a PID) which client has connected (`joins`), and whether what
//!          it logs may be a stranger's text.
//! Fails    closed: while a suspicion could not be remembered, nothing that depends on it is
//!          believed. Only pieces with a PID push out older ones, since any long line of any
//!          process may look like one: a cut line's tail follows at once.
//! Not here which messages these are (`maildaemons`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use super::aging::{Aging, Full};
use super::joins::Joins;
use crate::engine::message::Message;
use crate::engine::time::Time;

/// Processes that are not believed, and streams in the middle of a cut line.
const MAX_SUSPICIONS: usize = 65_536;
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

/// A stream or a process of one, as a keyed hash: bounded however long the names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

#[cfg(test)]
impl Key {
    /// A key that is told from others by a number.
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }
}

/// The memory of all streams.
#[derive(Debug)]
pub struct Streams {
    hasher: RandomState,
    /// How many tails may still come.
    cut: Aging<u8>,
    cut_with_pid: Aging<u8>,
    distrusted: Aging<()>,
    /// The connections of processes.
    pub joins: Joins,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            cut: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            cut_with_pid: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            distrusted: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            joins: Joins::default(),
        }
    }
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

    /// Tells whether a message may be the tail of a cut line, and remembers how many tails of its
    /// own may follow, however much later. A tail as long as a piece has tails in turn. Another
    /// process under the same name does not use up what was remembered of this one.
    ///
    /// # Errors
    /// Some stream's piece could not be remembered; until that no longer matters, this cannot be
    /// told of any stream.
    pub fn is_continuation(
        &mut self,
        stream: Key,
        process: Option<Key>,
        tails: u8,
        now: Time,
    ) -> Result<bool, Full> {
        if let Some(process) = process {
            let expected = self.cut_with_pid.take(process);
            let tails = expected.map_or(tails, |expected| tails.max(expected - 1));
            if tails > 0 {
                self.cut_with_pid.remember_newest(process, tails, now);
            }
            return Ok(expected.is_some());
        }
        let expected = self.cut.take(stream);
        let tails = expected.map_or(tails, |expected| tails.max(expected - 1));
        if tails > 0 {
            self.cut.remember(stream, tails, now)?;
        }
        if self.cut.lacks_some(now) { Err(Full) } else { Ok(expected.is_some()) }
    }

    /// From here on the process may log what a stranger wrote.
    ///
    /// # Errors
    /// There is no room; until that no longer matters, no process is believed.
    pub fn distrust(&mut self, process: Key, now: Time) -> Result<(), Full> {
        self.distrusted.remember(process, (), now)
    }

    /// Whether a process is not believed; while some could not be remembered, none is.
    pub fn is_distrusted(&mut self, process: Key, now: Time) -> bool {
        self.distrusted.lacks_some(now) || self.distrusted.get_mut(process, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_millis(0);

    #[test]
    fn a_tail_as_long_as_a_piece_has_a_tail() {
        let mut streams = Streams::default();
        for process in [None, Some(Key(9))] {
            let mut continues = |tails| streams.is_continuation(Key(1), process, tails, T0);
            let verdicts = [1, 1, 0, 0].map(&mut continues);
            assert_eq!(verdicts, [Ok(false), Ok(true), Ok(true), Ok(false)]);
            let verdicts = [2, 0, 0, 0].map(&mut continues);
            assert_eq!(verdicts, [Ok(false), Ok(true), Ok(true), Ok(false)]);
            let verdicts = [2, 0, 2, 0, 0, 0].map(&mut continues);
            assert_eq!(verdicts, [false, true, true, true, true, false].map(Ok));
            assert_eq!(streams.is_continuation(Key(2), process, 0, T0), Ok(false));
        }
    }

    #[test]
    fn long_lines_of_many_processes_stop_nobody() {
        let mut streams = Streams::default();
        for number in 0..=MAX_SUSPICIONS as u64 {
            assert_eq!(streams.is_continuation(Key(1), Some(Key(number)), 1, T0), Ok(false));
        }
        assert_eq!(streams.is_continuation(Key(1), None, 0, T0), Ok(false));
        assert_eq!(streams.is_continuation(Key(1), Some(Key(0)), 0, T0), Ok(false), "forgotten");
        assert_eq!(streams.is_continuation(Key(1), Some(Key(1)), 0, T0), Ok(true));
    }

    #[test]
    fn distrust_lasts_and_fails_closed() {
        let mut streams = Streams::default();
        assert_eq!(streams.distrust(Key(1), T0), Ok(()));
        assert!(streams.is_distrusted(Key(1), T0 + MAX_SUSPICION));
        assert!(!streams.is_distrusted(Key(2), T0));
        for number in 0..MAX_SUSPICIONS as u64 {
            assert_eq!(streams.distrust(Key(number), T0), Ok(()));
        }
        assert_eq!(streams.distrust(Key(u64::MAX), T0), Err(Full));
        assert!(streams.is_distrusted(Key(u64::MAX), T0));
        let later = T0 + MAX_SUSPICION + Duration::from_millis(1);
        assert!(!streams.is_distrusted(Key(u64::MAX), later));
    }
}
