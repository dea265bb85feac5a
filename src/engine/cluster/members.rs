//! The other hosts, by their heartbeats.
//!
//! - **Limits**: at most `MAX_MEMBERS`; one that was not heard of for `FORGET` is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use smol_str::SmolStr;

use super::entry::{EntryId, Heartbeat};
use crate::engine::time::Time;

/// Most other hosts; when there are more, the one that has been silent longest is forgotten.
const MAX_MEMBERS: usize = 64;
/// A host that was removed is not missed longer than this.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// A host beats every second; after this time it is silent.
pub const SILENT: Duration = Duration::from_secs(5);

/// Another host.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// When it last beat, in the engine's time.
    pub seen: Time,
    /// The last entry that it has read.
    pub read: EntryId,
}

/// The other hosts.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<SmolStr, Member>);

impl Members {
    /// Records a heartbeat that was sent at `seen`.
    pub fn beat(&mut self, heartbeat: &Heartbeat, seen: Time) {
        let known = self.0.get(&heartbeat.host).is_some_and(|member| seen < member.seen);
        if known {
            return;
        }
        self.0.insert(heartbeat.host.clone(), Member { seen, read: heartbeat.read });
        if self.0.len() > MAX_MEMBERS {
            let first = self.0.iter().min_by_key(|(_, member)| member.seen);
            let first = first.map(|(host, _)| host.clone());
            first.map(|host| self.0.remove(&host));
        }
    }

    /// Forgets what they have read: the stream may be another one.
    pub fn forget_reads(&mut self) {
        self.0.values_mut().for_each(|member| member.read = EntryId::default());
    }

    /// Forgets those that are gone.
    pub fn sweep(&mut self, now: Time) {
        self.0.retain(|_, member| now.since(member.seen) < FORGET);
    }

    /// Returns whether a host is silent, or not known.
    pub fn is_silent(&self, now: Time, host: &str) -> bool {
        self.0.get(host).is_none_or(|member| now.since(member.seen) > SILENT)
    }

    /// Returns the hosts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &Member)> {
        self.0.iter()
    }
}
