//! What this host tells the others: what has changed at once, then what the stream lacks.
//!
//! - **Promise**: what has changed last never waits for what is told again. What could not be added
//!   to the stream is told once more.
//! - **Limits**: at most `MAX_FRESH` changed addresses are remembered while the stream is away;
//!   with more, the whole set is searched.

use std::net::IpAddr;

use smol_str::SmolStr;

use super::Cluster;
use super::address::{ClusterAddress, Part, Place};
use super::entry::{EntryId, Heartbeat, ToldGrant, write_ruling};
use super::ruling::{AddressRuling, Epoch};
use crate::engine::Engine;
use crate::engine::grants::stored::StoredGrant;
use crate::engine::grants::{Cursor, Slice};
use crate::engine::time::Time;

/// Most changed addresses that are remembered.
const MAX_FRESH: usize = 65_536;
/// Most entries to be deleted that are remembered; the others are trimmed with time.
const MAX_OBSOLETE: usize = 1 << 20;
/// Slots of the set that are searched at once for what the stream lacks.
const SEARCHED: u32 = 128;

/// An entry to be added to the stream.
#[derive(Clone, Debug)]
pub struct OutgoingEntry {
    /// Its text.
    pub text: String,
    address: IpAddr,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The part of this host, as it was told then.
    Part(SmolStr, Time),
    /// The ruling in this epoch.
    Ruling(Epoch),
}

/// What is to be done with the stream.
#[derive(Debug, Default)]
pub struct Untold {
    /// Entries to be added.
    pub messages: Vec<OutgoingEntry>,
    /// Entries to be deleted.
    pub obsolete: Vec<EntryId>,
    /// Whether there may be more.
    pub has_more: bool,
    /// Whether these were told before: others are not to be kept busy by them.
    pub is_again: bool,
}

/// Whether the other hosts know what was decided about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// It is in the stream.
    pub is_told: bool,
    /// The hosts that have not read it.
    pub hosts: Vec<SmolStr>,
}

impl Cluster {
    /// Has what has changed of an address told.
    pub(super) fn queue(&mut self, address: IpAddr) {
        if self.fresh.len() >= MAX_FRESH {
            self.fresh.clear();
            self.search = Some(Cursor::default());
        }
        self.fresh.push_back(address);
    }

    /// Returns how often the stream was read from its beginning.
    pub fn reading(&self) -> u32 {
        self.reading
    }

    /// Returns the last entry that was read.
    pub fn read(&self) -> EntryId {
        self.read
    }

    /// Returns whether there is something to tell.
    fn has_untold(&self) -> bool {
        !self.fresh.is_empty() || self.search.is_some() || !self.obsolete.is_empty()
    }

    /// Returns how many changes are not told yet.
    pub fn untold(&self) -> usize {
        self.fresh.len()
    }

    /// Returns whether others wait for a heartbeat.
    pub fn wants_heartbeat(&self) -> bool {
        self.beats
    }

    /// Returns whether the stream must be read again.
    pub fn wants_reading(&self) -> bool {
        self.rereads || self.clock.has_jumped()
    }

    /// Adds the entries that tell what of an address has changed, and in a search what is not in the
    /// stream.
    fn messages(
        &mut self,
        now: Time,
        address: IpAddr,
        is_search: bool,
        to: &mut Vec<OutgoingEntry>,
    ) {
        let Self { host: own, clock, addresses, reading, members, is_thorough, .. } = self;
        let (Some(stream_now), Some(shared)) = (clock.now(now), addresses.get_mut(&address)) else {
            return;
        };
        let is_there = |place: Option<Place>| place.is_some_and(|place| place.reading == *reading);
        let is_missing = |place: Option<Place>| is_search && !is_there(place);
        let epoch = shared.epoch();
        let ClusterAddress { ruling, parts, has_check: _ } = &mut **shared;
        if let Some(known) = ruling
            && (known.is_untold || is_missing(known.place))
        {
            known.is_untold = false;
            let AddressRuling { epoch, blocks, lifted } = known.ruling.clone();
            let blocks = blocks.into_iter().map(|(by, until)| (by, clock.to_stream(until)));
            let ruling = AddressRuling { epoch: epoch.clone(), blocks: blocks.collect(), lifted };
            to.push(OutgoingEntry {
                text: write_ruling(address, &ruling),
                address,
                what: What::Ruling(epoch),
            });
        }
        for part in parts.iter_mut().filter(|part| now < part.grant.until() || part.is_untold) {
            let is_own = part.host == *own;
            let is_wanted = if is_own {
                part.is_untold || is_missing(part.place)
            } else {
                is_missing(part.place) && (*is_thorough || members.is_silent(now, &part.host))
            };
            if !is_wanted {
                continue;
            }
            if is_own && part.is_untold {
                let earliest = part.sequence + std::time::Duration::from_millis(1);
                part.sequence = stream_now.max(earliest);
                part.is_untold = false;
                part.told = part.grant.grant().by_login.unwrap_or_default();
            }
            let Part { host, sequence, grant, .. } = part;
            let grant = grant.grant().map_times(|time| clock.to_stream(time));
            let told =
                ToldGrant { host: host.clone(), epoch: epoch.clone(), sequence: *sequence, grant };
            let what = What::Part(host.clone(), *sequence);
            to.push(OutgoingEntry { text: told.write(), address, what });
        }
    }

    fn told(&mut self, message: &OutgoingEntry, entry: EntryId) {
        self.stats.told += 1;
        let place = Place { entry, reading: self.reading };
        let Some(shared) = self.addresses.get_mut(&message.address) else {
            return self.obsolete.push(entry);
        };
        match &message.what {
            What::Ruling(epoch) => {
                let known = shared.ruling.as_mut().filter(|known| known.ruling.epoch == *epoch);
                known.into_iter().for_each(|known| known.place = Some(place));
            }
            What::Part(host, sequence) => {
                let is_own = *host == self.host;
                let part = shared.part_mut(host).filter(|part| part.sequence == *sequence);
                let replaced = match part {
                    Some(part) => part.see(place),
                    None => Some(entry),
                };
                self.obsolete.extend(replaced.filter(|_| is_own));
            }
        }
    }
}

impl Part {
    /// Records that an entry has it. Returns the entry that the stream no longer needs, if any.
    pub(super) fn see(&mut self, place: Place) -> Option<EntryId> {
        // Of an earlier reading: the stream may be another one, with other ids.
        let known = self.place.filter(|known| known.reading == place.reading);
        match known {
            Some(known) if known.entry > place.entry => Some(place.entry),
            known => {
                self.place = Some(place);
                known.map(|known| known.entry).filter(|known| *known != place.entry)
            }
        }
    }
}

impl Engine {
    /// Returns whether the other hosts must be told of something at once.
    pub fn has_to_tell(&self) -> bool {
        let has = |it: &Cluster| it.has_read && !it.fresh.is_empty() || it.beats;
        self.cluster.as_deref().is_some_and(has)
    }

    /// Returns the next entries to be added to the stream, about as many as `most`, and those to be
    /// deleted. Report [`Self::told`] for each that was added, or [`Self::not_told`].
    pub fn untold(&mut self, now: Time, most: usize) -> Untold {
        let mut untold = Untold::default();
        let Some(cluster) = &mut self.cluster else { return untold };
        if !cluster.has_read {
            return untold;
        }
        while untold.messages.len() < most
            && let Some(address) = cluster.fresh.pop_front()
        {
            cluster.messages(now, address, false, &mut untold.messages);
        }
        // Not in one batch: what has just been told would be missing.
        if untold.messages.is_empty()
            && let Some(from) = cluster.search
        {
            let all = |list: &mut Vec<IpAddr>, grant: &StoredGrant| list.push(grant.address());
            let Slice { items, next } = self.grants.slice(from, SEARCHED, Vec::new(), all);
            for address in items {
                cluster.messages(now, address, true, &mut untold.messages);
            }
            cluster.search = next;
            untold.is_again = !untold.messages.is_empty();
        }
        cluster.obsolete.truncate(MAX_OBSOLETE);
        let first = cluster.obsolete.len().saturating_sub(most);
        untold.obsolete = cluster.obsolete.split_off(first);
        untold.has_more = cluster.has_untold();
        untold
    }

    /// Records that an entry was added.
    pub fn told(&mut self, message: &OutgoingEntry, entry: EntryId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.told(message, entry);
        }
    }

    /// Records that it is not known whether entries were added.
    pub fn not_told(&mut self, messages: &[OutgoingEntry]) {
        let Some(cluster) = &mut self.cluster else { return };
        for message in messages.iter().rev() {
            let Some(shared) = cluster.addresses.get_mut(&message.address) else { continue };
            match &message.what {
                What::Ruling(_) => {
                    shared.ruling.iter_mut().for_each(|known| known.is_untold = true);
                }
                What::Part(host, sequence) => {
                    let part = shared.part_mut(host).filter(|part| part.sequence == *sequence);
                    part.into_iter().for_each(|part| part.is_untold = true);
                }
            }
            cluster.fresh.push_front(message.address);
        }
    }

    /// Returns the text of a heartbeat; `None`: the stream's time is not known yet.
    pub fn heartbeat(&mut self, now: Time) -> Option<String> {
        let cluster = self.cluster.as_mut()?;
        cluster.beats = false;
        if cluster.search.is_none() && cluster.thorough_at.is_some_and(|at| at <= now) {
            (cluster.thorough_at, cluster.is_thorough) = (None, true);
            cluster.search = Some(Cursor::default());
        }
        let time = cluster.clock.now(now)?;
        let Cluster { host, instance, read, .. } = &**cluster;
        let heartbeat = Heartbeat { host: host.clone(), instance: *instance, time, read: *read };
        Some(heartbeat.to_string())
    }

    /// Returns which hosts have not read what was decided about an address.
    pub fn unconfirmed(&self, address: IpAddr) -> Confirmation {
        let address = address.to_canonical();
        let Some(cluster) = &self.cluster else {
            return Confirmation { is_told: true, hosts: Vec::new() };
        };
        let shared = cluster.addresses.get(&address);
        let ruling = shared.and_then(|shared| shared.ruling.as_ref());
        let part = shared.and_then(|shared| shared.part(&cluster.host));
        let ruling = ruling.map(|known| known.place.filter(|_| !known.is_untold));
        let part = part.map(|part| part.place.filter(|_| !part.is_untold));
        let places: Vec<Option<Place>> = ruling.into_iter().chain(part).collect();
        let is_told = places.iter().all(Option::is_some);
        let entry = places.iter().flatten().map(|place| place.entry).max().unwrap_or_default();
        let waiting = cluster.members.iter().filter(|(_, member)| !is_told || member.read < entry);
        Confirmation { is_told, hosts: waiting.map(|(host, _)| host.clone()).collect() }
    }
}
