//! What a message means after earlier ones from the same place.
//!
//! - **Promise**: two kinds of memory, both by order of arrival and never by the times in the frames.
//!   For each stream (receiver, sender, host, program, and the PID if there is one): whether its last
//!   message was a fragment of a split line, so that the next one is only its continuation; or, where
//!   messages of other processes come between, whether there was a fragment a moment ago. For each
//!   process (those with a PID): which client has connected ([`super::joins`]), and whether it may
//!   log foreign text.
//! - **On overflow**: fails closed. While a fragment or a distrust could not be remembered, what
//!   depends on it is refused. Only fragments with a PID push out older ones, since any long line of
//!   any process may look like one, and the continuation of a split line follows at once.
//! - **Not here**: which messages these are ([`crate::engine::maildaemons`]).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use super::aging::{Aging, Full};
use super::joins::Joins;
use super::key::Key;
use crate::engine::message::Message;
use crate::engine::time::Time;

/// Most distrusted processes, and most streams in the middle of a split line.
const MAX_SUSPICIONS: usize = 65_536;
/// No mail session lasts longer; after that the PID may belong to another process.
const MAX_SUSPICION: Duration = Duration::from_secs(24 * 3600);

/// Where a frame was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// Number of the receiving socket.
    pub receiver: u16,
    /// The sender's address; `None` for a Unix socket.
    pub sender: Option<IpAddr>,
}

/// The memory of all streams.
#[derive(Debug)]
pub struct Streams {
    hasher: RandomState,
    /// How many continuations may still follow, for each stream without a PID.
    split: Aging<u8>,
    /// The same for each process.
    split_with_pid: Aging<u8>,
    /// Until when any message may continue a fragment, for each stream.
    unsettled: Aging<Time>,
    distrusted: Aging<()>,
    /// The connections of processes.
    pub joins: Joins,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            split: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            split_with_pid: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            unsettled: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            distrusted: Aging::new(MAX_SUSPICIONS, MAX_SUSPICION),
            joins: Joins::default(),
        }
    }
}

impl Streams {
    /// Returns the key of a message's stream.
    pub fn stream(&self, source: Source, message: &Message<'_>) -> Key {
        Key(self.hasher.hash_one((source, message.host, message.program)))
    }

    /// Returns the key of the process that logged a message, if it has a PID.
    pub fn process(&self, source: Source, message: &Message<'_>) -> Option<Key> {
        let pid = message.pid?;
        Some(Key(self.hasher.hash_one((source, message.host, message.program, pid))))
    }

    /// Returns the key of a mail session, by the id that its login and its log-out carry.
    pub fn session(&self, source: Source, message: &Message<'_>, id: Option<&str>) -> Option<Key> {
        let id = id.filter(|id| !id.is_empty())?;
        Some(Key(self.hasher.hash_one((source, message.host, message.program, "session", id))))
    }

    /// Returns whether any message may be the continuation of a split line, or it is not known.
    pub fn may_continue(&self) -> bool {
        self.split.may_matter() || self.split_with_pid.may_matter() || self.unsettled.may_matter()
    }

    /// Returns whether a message may be the continuation of a split line, and remembers that
    /// `following` messages may continue it in turn, however much later they arrive. A continuation
    /// as long as a fragment has continuations itself. Messages of another process with the same
    /// name do not count.
    ///
    /// # Errors
    /// A fragment could not be remembered; until it would have aged, the answer is unknown for all
    /// streams without a PID.
    pub fn is_continuation(
        &mut self,
        stream: Key,
        process: Option<Key>,
        following: u8,
        now: Time,
    ) -> Result<bool, Full> {
        if let Some(process) = process {
            let expected = self.split_with_pid.take(process);
            let following = expected.map_or(following, |expected| following.max(expected - 1));
            if following > 0 {
                self.split_with_pid.remember_newest(process, following, now);
            }
            return Ok(expected.is_some());
        }
        let expected = self.split.take(stream);
        let following = expected.map_or(following, |expected| following.max(expected - 1));
        if following > 0 {
            self.split.remember(stream, following, now)?;
        }
        if self.split.has_overflowed(now) { Err(Full) } else { Ok(expected.is_some()) }
    }

    /// Returns whether a message came so soon after a fragment of its stream that it may continue it,
    /// and remembers that what comes within `time` may continue this one.
    ///
    /// # Errors
    /// As in [`Self::is_continuation`].
    pub fn is_unsettled(&mut self, stream: Key, time: Duration, now: Time) -> Result<bool, Full> {
        let until = self.unsettled.take(stream).filter(|until| now < *until);
        let next = until.max((!time.is_zero()).then(|| now + time));
        if let Some(next) = next {
            self.unsettled.remember(stream, next, now)?;
        }
        if self.unsettled.has_overflowed(now) { Err(Full) } else { Ok(until.is_some()) }
    }

    /// Records that a process may log foreign text from here on.
    ///
    /// # Errors
    /// The memory is full; [`Self::is_distrusted`] then returns true for every process until it
    /// would have aged.
    pub fn distrust(&mut self, process: Key, now: Time) -> Result<(), Full> {
        self.distrusted.remember(process, (), now)
    }

    /// Returns whether a process may log foreign text.
    pub fn is_distrusted(&mut self, process: Key, now: Time) -> bool {
        self.distrusted.has_overflowed(now) || self.distrusted.get_mut(process, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_millis(0);

    #[test]
    fn a_continuation_as_long_as_a_fragment_is_continued() {
        let mut streams = Streams::default();
        for process in [None, Some(Key(9))] {
            let mut continues = |following| streams.is_continuation(Key(1), process, following, T0);
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
    fn fragments_of_many_processes_do_not_block_others() {
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
