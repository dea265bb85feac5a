//! What the entries of the stream do to the set.
//!
//! - **Promise**: an entry counts as far as this host's own rules allow, and once, in whatever order
//!   and however often it is heard. Deadlines are those of the stream's clock: nobody's wall clock
//!   counts.

use std::net::IpAddr;
use std::time::Duration;

use smol_str::SmolStr;

use super::address::{KnownRuling, MAX_PARTS, Part, Place, unite};
use super::entry::{EntryId, Heartbeat, StreamEntry, ToldGrant};
use super::ruling::{AddressRuling, Epoch};
use super::{Cluster, is_same};
use crate::engine::grants::grant::Grant;
use crate::engine::grants::origins::Origins;
use crate::engine::time::Time;
use crate::engine::{Engine, MAX_MANUAL, RemovalReason};

/// A host beats at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// A step of the clock beyond which deadlines are told again.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// Until then hosts that live have told again what the stream lacks, and the more they have, the later.
const SECOND_SEARCH: Duration = Duration::from_secs(15);
const TOLD_IN_MILLISECOND: u64 = 5;

/// How far ahead of this host's clock another host may tell something.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

/// The newest entries of the stream that are looked at before it is read, to learn its time.
pub const LOOKED_BACK: usize = 200;

impl Engine {
    /// Begins to read the stream from its beginning, after connecting. `store_time` is the store's
    /// clock, `newest` the newest entries.
    pub fn begin_reading<'a>(
        &mut self,
        now: Time,
        store_time: Time,
        newest: impl IntoIterator<Item = (EntryId, &'a str)>,
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_known = cluster.clock.now(now).is_some();
        cluster.clock.correct(now, store_time);
        cluster.clock.observe(now, store_time);
        cluster.members.forget_reads();
        let before = cluster.clock.now(now);
        for (id, text) in newest {
            cluster.clock.observe(now, id.time());
            if let Some(StreamEntry::Heartbeat(heartbeat)) =
                StreamEntry::parse(text, &mut Origins::default())
            {
                cluster.clock.observe(now, heartbeat.time);
            }
        }
        // The store's clock is behind, and the last heartbeat is as old as that at most.
        if !is_known && cluster.clock.now(now) > before {
            cluster.clock.advance(HEARTBEAT);
        }
        cluster.joined.get_or_insert(now);
        cluster.clock.follow_jump();
        cluster.reading = cluster.reading.wrapping_add(1);
        cluster.read = EntryId::default();
        cluster.rereads = false;
        cluster.search = None;
        cluster.is_catching_up = true;
    }

    /// Has what was heard since the reading began written to the state file, and from now on each entry
    /// at once. To be called when the connection ends.
    pub fn end_catching_up(&mut self) {
        self.cluster.iter_mut().for_each(|cluster| cluster.is_catching_up = false);
        self.write_deferred();
    }

    /// Records that the stream was read up to where it ended when the reading began: what was not
    /// seen is told. What other hosts, if they live, have not told again after some time is told then:
    /// they may have forgotten it.
    pub fn end_reading(&mut self, now: Time) {
        let size = u64::try_from(self.grants.len()).unwrap_or(u64::MAX);
        let Some(cluster) = &mut self.cluster else { return };
        cluster.is_thorough = false;
        cluster.thorough_at =
            Some(now + SECOND_SEARCH + Duration::from_millis(size / TOLD_IN_MILLISECOND));
        cluster.search = Some(super::Cursor::default());
        cluster.has_read = true;
        let reading = cluster.reading;
        let is_missing = |known: &KnownRuling| known.place.is_none_or(|it| it.reading != reading);
        let addresses = &cluster.addresses;
        let ruling = |address: &IpAddr| addresses.get(address)?.ruling.as_deref();
        let ruled = cluster.ruled.iter().copied();
        let missing: Vec<IpAddr> = ruled.filter(|at| ruling(at).is_some_and(is_missing)).collect();
        for address in missing {
            let shared = cluster.addresses.get_mut(&address);
            if let Some(known) = shared.and_then(|shared| shared.ruling.as_mut()) {
                known.is_untold = true;
            }
            cluster.queue(address);
        }
        self.end_catching_up();
    }

    /// Takes an entry of the stream.
    pub fn hear(&mut self, now: Time, id: EntryId, text: &str) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.clock.observe(now, id.time());
        cluster.read = id;
        match StreamEntry::parse(text, &mut self.origins) {
            Some(StreamEntry::Grant(told)) => self.hear_grant(now, id, *told),
            Some(StreamEntry::Ruling(address, ruling)) => {
                self.hear_ruling(now, id, address, ruling)
            }
            Some(StreamEntry::Heartbeat(heartbeat)) => cluster.hear_heartbeat(now, &heartbeat),
            None => cluster.stats.refused += 1,
        }
    }

    fn hear_grant(&mut self, now: Time, id: EntryId, told: ToldGrant) {
        let Some(cluster) = &mut self.cluster else { return };
        let place = Place { entry: id, reading: cluster.reading };
        let address = told.grant.address;
        let is_own = told.host == cluster.host;
        let known = cluster.epoch_number(address);
        let latest = cluster.clock.to_stream(now) + MAX_AHEAD;
        if told.sequence > latest || !told.epoch.is_credible(known) {
            cluster.stats.refused += 1;
            return;
        }
        if cluster.knows(&told, place) {
            return;
        }
        cluster.stats.heard += u64::from(!is_own);
        let clock = cluster.clock;
        let ToldGrant { host, epoch, sequence, mut grant } = told;
        let longest = |until: Time| until.since(sequence);
        let span = grant.by_login.map(longest);
        let manual_span = grant.manual.as_ref().map(|manual| longest(manual.until));
        grant = grant.map_times(|time| clock.to_engine(time));
        let latest = grant.until;
        // Never longer from now on than from when it was told.
        grant.by_login = grant.by_login.zip(span).map(|(until, span)| until.min(now + span));
        if let (Some(manual), Some(span)) = (&mut grant.manual, manual_span) {
            manual.until = manual.until.min(now + span);
        }
        if let Some(span) = span {
            grant.users.iter_mut().for_each(|user| user.until = user.until.min(now + span));
        }
        grant.settle(None);
        let ceiling = self.session_ceiling();
        let grant = self.accepted(now, grant, ceiling);
        let Some(cluster) = &mut self.cluster else { return };
        let heard = HeardPart { host, epoch, sequence, place, latest, grant };
        cluster.put_heard(now, address, heard);
        // While a file grows, each entry is written several times; and the stream has them.
        if cluster.is_catching_up {
            self.defer();
        } else {
            self.changed(address);
        }
        self.follow_ruling(now, address);
        self.combine(now, address, RemovalReason::Expired);
    }

    fn hear_ruling(&mut self, now: Time, id: EntryId, address: IpAddr, ruling: AddressRuling) {
        let Some(cluster) = &mut self.cluster else { return };
        let place = Place { entry: id, reading: cluster.reading };
        let AddressRuling { epoch, blocks, lifted } = ruling;
        if !epoch.is_credible(cluster.epoch_number(address)) {
            cluster.stats.refused += 1;
            return;
        }
        let to_engine = |until| cluster.clock.to_engine(until).min(now + MAX_MANUAL);
        let blocks = blocks.into_iter().map(|(epoch, until)| (epoch, to_engine(until))).collect();
        let heard = AddressRuling { epoch, blocks, lifted };
        let shared = cluster.addresses.get(&address);
        let known = shared.and_then(|shared| shared.ruling.as_ref());
        let is_news = known.is_none_or(|known| !known.ruling.includes(&heard));
        if is_news {
            if !cluster.has_room(address) {
                cluster.stats.refused += 1;
                return;
            }
            cluster.stats.heard += 1;
            cluster.beats = true;
            cluster.rule(now, address, |ruling| ruling.unite(&heard));
        }
        let known = cluster.addresses.get_mut(&address).and_then(|it| it.ruling.as_mut());
        if let Some(known) = known.filter(|known| heard.includes(&known.ruling)) {
            known.place = Some(place);
        }
        if is_news {
            self.changed(address);
            self.follow_ruling(now, address);
            self.combine(now, address, RemovalReason::Revoked);
        }
    }
}

/// What a host has told of an address.
struct HeardPart {
    host: SmolStr,
    epoch: Epoch,
    sequence: Time,
    place: Place,
    /// The deadline that it has told.
    latest: Time,
    /// What of it counts here.
    grant: Option<Grant>,
}

/// Returns whether a grant is more than what was heard of it.
fn adds(now: Time, heard: Option<&Grant>, both: &Grant) -> bool {
    heard.is_none_or(|heard| !is_same(heard, both, now) || heard.until < both.until)
}

impl Cluster {
    fn epoch_number(&self, address: IpAddr) -> u32 {
        self.addresses.get(&address).map_or(0, |shared| shared.epoch().number)
    }

    /// Returns whether nothing is new in what a host tells. Then only its place is noted. If this host
    /// has told a deadline that is too early by now, because the clock has jumped or it was not told of
    /// each renewal, it is told again.
    fn knows(&mut self, told: &ToldGrant, place: Place) -> bool {
        let is_own = told.host == self.host;
        let address = told.grant.address;
        let until = self.clock.to_engine(told.grant.until) + CLOCK_STEP;
        let Some(shared) = self.addresses.get_mut(&address) else { return false };
        let epoch = shared.epoch();
        let part = shared.part_mut(&told.host);
        let mut is_late = false;
        let known = match part {
            _ if told.epoch < epoch => Some(place.entry),
            _ if told.epoch > epoch => return false,
            Some(part) if told.sequence == part.sequence => {
                is_late = is_own && !part.is_untold && until < part.grant.until();
                part.is_untold |= is_late;
                part.see(place)
            }
            Some(part) if told.sequence < part.sequence => {
                let is_current = part.place.is_some_and(|it| it.entry == place.entry);
                Some(place.entry).filter(|_| !is_current)
            }
            _ => return false,
        };
        self.obsolete.extend(known.filter(|_| is_own));
        if is_late {
            self.queue(address);
        }
        true
    }

    /// Puts what a host has told in the place of its part.
    fn put_heard(&mut self, now: Time, address: IpAddr, heard: HeardPart) {
        let HeardPart { host, epoch, sequence, place, latest, grant } = heard;
        let is_own = host == self.host;
        if !self.has_room(address) {
            self.stats.refused += 1;
            return;
        }
        if self.addresses.get(&address).map(|shared| shared.epoch()).unwrap_or_default() < epoch {
            self.rule(now, address, |ruling| ruling.epoch = epoch);
        }
        let shared = self.addresses.entry(address).or_default();
        let old = shared.part(&host);
        let keep = old.map_or(latest, |old| old.keep.max(latest));
        // This host has forgotten what it once told, and what it has to tell is not all.
        let own = old.filter(|old| is_own && old.is_untold).map(|old| old.grant.grant());
        let has_old = old.is_some();
        let (grant, has_more) = match own.filter(|own| now < own.until) {
            Some(own) => {
                let both = match grant.clone() {
                    Some(heard) => unite(own, heard),
                    None => own,
                };
                let has_more = adds(now, grant.as_ref(), &both);
                (Some(both), has_more)
            }
            None => (grant, false),
        };
        let ended = || Grant { by_login: Some(now), ..Grant::none(address, now) };
        let Some(grant) = grant.or_else(|| has_old.then(ended)) else {
            // What only the rules refuse may count again under other ones.
            self.obsolete.extend((is_own && latest <= now).then_some(place.entry));
            if shared.parts.is_empty() && shared.ruling.is_none() {
                self.forget(address);
            }
            return;
        };
        let part = Part {
            host,
            sequence,
            place: Some(place),
            told: grant.by_login.unwrap_or_default(),
            keep,
            is_untold: has_more,
            grant: grant.into(),
        };
        match shared.parts.iter().position(|old| old.host == part.host) {
            Some(old) => shared.parts[old] = part,
            None if shared.parts.len() < MAX_PARTS => shared.parts.push(part),
            None => self.stats.refused += 1,
        }
        if has_more {
            self.queue(address);
        }
    }

    fn hear_heartbeat(&mut self, now: Time, heartbeat: &Heartbeat) {
        if !self.clock.observe(now, heartbeat.time) {
            self.stats.refused += 1;
            return;
        }
        let seen = self.clock.to_engine(heartbeat.time).min(now);
        if heartbeat.host != self.host {
            self.members.beat(heartbeat, seen);
        } else if heartbeat.instance == self.instance {
            self.lag = Some(now.since(seen));
        } else if self.joined.is_some_and(|joined| joined < seen) {
            self.twin = Some(seen);
        }
    }
}
