//! What the hosts know of one address: a part from each that has heard its logins, under the ruling
//! of operators.
//!
//! - **Promise**: a part is written only by its own host, and of two the one with the later sequence
//!   counts. A part counts only in the epoch of the ruling; older ones are dropped.
//! - **Limits**: at most [`MAX_PARTS`] parts.

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::entry::EntryId;
use super::ruling::{AddressRuling, Epoch};
use crate::engine::grants::grant::{Grant, MAX_USERS};
use crate::engine::grants::stored::StoredGrant;
use crate::engine::time::Time;

/// Most parts of one address: more hosts than any site has, and a bound for what the stream says.
pub const MAX_PARTS: usize = 64;

/// Where a part or ruling is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its entry.
    pub entry: EntryId,
    /// How often the stream had been read from its beginning when it was seen there.
    pub reading: u32,
}

/// What one host has heard of an address.
#[derive(Clone, Debug)]
pub struct Part {
    /// The host.
    pub host: SmolStr,
    /// When the host told it, on the stream's clock; later than the last time.
    pub sequence: Time,
    /// Where it is in the stream.
    pub place: Option<Place>,
    /// The deadline from logins that was last told.
    pub told: Time,
    /// Until then an older entry of it may say that it lasts.
    pub keep: Time,
    /// Whether the host must tell it again because it has changed.
    pub is_untold: bool,
    /// The grant.
    pub grant: StoredGrant,
}

/// A ruling, and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct KnownRuling {
    /// The decisions.
    pub ruling: AddressRuling,
    /// Where all of it is in the stream.
    pub place: Option<Place>,
    /// Until then a grant of an older epoch may exist.
    pub keep: Time,
    /// Whether it must be told.
    pub is_untold: bool,
}

/// One address.
#[derive(Clone, Debug, Default)]
pub struct ClusterAddress {
    /// The decisions about it, if there are any.
    pub ruling: Option<Box<KnownRuling>>,
    /// Whether it is noted when to look whether it can be forgotten.
    pub has_check: bool,
    /// The parts of the ruling's epoch.
    pub parts: SmallVec<[Part; 1]>,
}

impl ClusterAddress {
    /// Returns the epoch in which parts count.
    pub fn epoch(&self) -> Epoch {
        self.ruling.as_ref().map(|known| known.ruling.epoch.clone()).unwrap_or_default()
    }

    /// Returns until when it is blocked, if it is.
    pub fn blocked_until(&self, now: Time) -> Option<Time> {
        self.ruling.as_ref()?.ruling.blocked_until(now)
    }

    /// Returns the part of a host.
    pub fn part(&self, host: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.host == host)
    }

    /// Returns the part of a host.
    pub fn part_mut(&mut self, host: &str) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.host == host)
    }

    /// Changes the ruling. Parts of an older epoch are dropped, and returned.
    pub fn rule(
        &mut self,
        keep: Time,
        change: impl FnOnce(&mut AddressRuling),
    ) -> SmallVec<[Part; 1]> {
        let known = self.ruling.get_or_insert_default();
        let before = known.ruling.epoch.clone();
        change(&mut known.ruling);
        known.keep = known.keep.max(keep);
        if known.ruling.epoch == before { SmallVec::new() } else { std::mem::take(&mut self.parts) }
    }

    /// Returns the grant that all parts together are: the latest deadline and all users.
    pub fn effective(&self, now: Time, max_users: Option<usize>) -> Option<Grant> {
        if self.blocked_until(now).is_some() {
            return None;
        }
        let lasting = || self.parts.iter().filter(|part| now < part.grant.until());
        let first = lasting().next()?;
        if lasting().nth(1).is_none() {
            return Some(first.grant.grant());
        }
        let mut parts: Vec<&Part> = lasting().collect();
        parts.sort_by(|one, two| (one.sequence, &one.host).cmp(&(two.sequence, &two.host)));
        let mut grants = parts.iter().map(|part| part.grant.grant());
        let first = grants.next()?;
        let mut grant = grants.fold(first, unite);
        grant.users.retain(|user| now < user.until);
        grant.settle(max_users);
        (now < grant.until).then_some(grant)
    }

    /// Forgets parts that no entry can say to last. Returns when the rest can be forgotten; `None`:
    /// nothing is left.
    pub fn prune(&mut self, now: Time) -> Option<Time> {
        self.parts.retain(|part| now < part.keep);
        self.ruling = self.ruling.take().filter(|known| now < known.keep);
        let parts = self.parts.iter().map(|part| part.keep);
        parts.chain(self.ruling.as_ref().map(|known| known.keep)).max()
    }
}

/// Returns two grants of one address as one: the latest deadlines, and all users.
pub fn unite(one: Grant, other: Grant) -> Grant {
    let mut users = one.users;
    for user in other.users {
        let same = users.iter().position(|known| known.name == user.name);
        let same = same.map(|place| users.remove(place));
        let until = same.map_or(user.until, |known| user.until.max(known.until));
        users.push(crate::engine::grants::grant::User { until, ..user });
    }
    while users.len() > MAX_USERS {
        let first = (0..users.len()).min_by_key(|place| users[*place].until);
        users.remove(first.unwrap_or_default());
    }
    let manual = match (one.manual, other.manual) {
        (Some(one), Some(other)) if one.until > other.until => Some(one),
        (one, other) => other.or(one),
    };
    Grant {
        since: one.since.min(other.since),
        until: one.until.max(other.until),
        logins: one.logins.saturating_add(other.logins),
        by_login: one.by_login.max(other.by_login),
        manual,
        users,
        ..other
    }
}
