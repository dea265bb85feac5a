//! The parts and rulings in the state file, so that a restart forgets nobody while the stream is
//! away.
//!
//! - **Format**: lines of [`crate::engine::state`]; times are those of the engine, but SEQUENCE, which
//!   is on the stream's clock:
//!
//!   ```text
//!   heard HOST EPOCH SEQUENCE KEEP ADDRESS SINCE LOGIN ... .
//!   ruling ADDRESS EPOCH LIFTED BLOCKS KEEP .
//!   ```
//!
//!   KEEP is until when an older entry of the part may say that it lasts. What follows ADDRESS is what follows it in a line `grant`. A `+` after SEQUENCE: the part has
//!   changed since it was told. `gone` ends both.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::Cluster;
use super::address::{ClusterAddress, KnownRuling, Part};
use super::entry;
use super::ruling::host_name;
use crate::engine::grants::origins::Origins;
use crate::engine::grants::stored::StoredGrant;
use crate::engine::message::address;
use crate::engine::state::{self, Restored};
use crate::engine::time::Time;
use crate::engine::{Engine, MAX_MANUAL};

/// What follows the sequence of a part that has changed since it was told.
const UNTOLD: &str = "+";

/// The addresses of a state file that have parts or rulings.
#[derive(Debug, Default)]
pub struct SharedAddresses(HashMap<IpAddr, Box<ClusterAddress>>);

impl SharedAddresses {
    /// Reads what follows `heard`; `None`: it is damaged.
    pub fn heard(&mut self, fields: &[&str], origins: &mut Origins) -> Option<()> {
        let [host, epoch, sequence, keep, ref fields @ ..] = *fields else { return None };
        let keep = state::time(keep)?;
        let (host, epoch) = (host_name(host)?, epoch.parse().ok()?);
        let grant = state::grant(fields, origins)?;
        let told = sequence.strip_suffix(UNTOLD);
        let shared = self.0.entry(grant.address).or_default();
        if shared.epoch() != epoch {
            return Some(());
        }
        shared.parts.retain(|part| part.host != host);
        shared.parts.push(Part {
            host,
            sequence: state::time(told.unwrap_or(sequence))?,
            place: None,
            told: Time::default(),
            keep,
            is_untold: told.is_some(),
            grant: grant.into(),
        });
        Some(())
    }

    /// Reads what follows `ruling`; `None`: it is damaged.
    pub fn ruling(&mut self, fields: [&str; 5]) -> Option<()> {
        let [address, epoch, lifted, blocks, keep] = fields;
        let ruling = entry::ruling(epoch, lifted, blocks)?;
        let keep = state::time(keep)?;
        let shared = self.0.entry(address::read(address).ok()?).or_default();
        shared.rule(keep, |known| *known = ruling);
        Some(())
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets an address.
    pub fn remove(&mut self, address: IpAddr) {
        self.0.remove(&address);
    }
}

impl Cluster {
    /// Writes the lines of an address. What it has no lines for is no longer in the file.
    pub(in crate::engine) fn write(&self, text: &mut String, address: IpAddr) {
        let Some(shared) = self.addresses.get(&address) else { return };
        let epoch = shared.epoch();
        if let Some(known) = &shared.ruling {
            let line = entry::write_ruling(address, &known.ruling);
            let fields = line.strip_prefix('r').unwrap_or_default();
            let _ = writeln!(text, "ruling{fields}\t{}\t.", known.keep.as_millis());
        }
        for part in &shared.parts {
            let untold = if part.is_untold { UNTOLD } else { "" };
            let (sequence, keep) = (part.sequence.as_millis(), part.keep.as_millis());
            let _ = write!(text, "heard\t{}\t{epoch}\t{sequence}{untold}\t{keep}\t", part.host);
            state::write_grant_fields(text, &part.grant.grant());
        }
    }

    /// Writes the lines of addresses with a ruling, whether they are authorised or not.
    pub(in crate::engine) fn write_ruled(&self, text: &mut String) {
        self.ruled.iter().for_each(|address| self.write(text, *address));
    }

    /// Writes the lines of an authorised address without a ruling.
    pub(in crate::engine) fn write_usual(&self, text: &mut String, address: IpAddr) {
        if !self.ruled.contains(&address) {
            self.write(text, address);
        }
    }
}

impl Engine {
    /// Restores parts and rulings; without a cluster, what all parts together are.
    pub(in crate::engine) fn restore_shared(
        &mut self,
        now: Time,
        back: Duration,
        addresses: SharedAddresses,
        restored: &mut Restored,
    ) {
        if self.cluster.is_some() {
            self.adopt(now, &addresses);
        }
        for (address, mut shared) in addresses.0 {
            self.set_back(now, back, &mut shared);
            let parts = std::mem::take(&mut shared.parts).into_iter();
            shared.parts =
                parts.filter_map(|part| self.restored_part(now, part, restored)).collect();
            if shared.parts.is_empty() && shared.ruling.is_none() {
                continue;
            }
            if let Some(until) = shared.blocked_until(now) {
                self.blocked.insert(address, until);
            }
            if let Some(grant) = shared.effective(now, self.rules.max_users) {
                self.grants.put(grant);
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.restore(now, address, shared);
            }
        }
    }

    /// Makes what was restored without a cluster this host's own.
    fn adopt(&mut self, now: Time, others: &SharedAddresses) {
        let is_local = |address: &IpAddr| !others.0.contains_key(address);
        let granted: Vec<IpAddr> = self.grants.iter().map(StoredGrant::address).collect();
        for address in granted.into_iter().filter(is_local) {
            if let Some(grant) = self.grants.get(address) {
                self.put_own(now, grant);
            }
        }
        let blocks: Vec<(IpAddr, Time)> = self.blocks(now).collect();
        for (address, until) in blocks.into_iter().filter(|(address, _)| is_local(address)) {
            self.revoke_shared(now, address, Some(until.since(now)));
        }
    }

    /// Moves times back if the clock was set back, and limits them.
    fn set_back(&self, now: Time, back: Duration, shared: &mut ClusterAddress) {
        for part in &mut shared.parts {
            part.grant = part.grant.grant().set_back(back).into();
            part.keep = (part.keep - back).min(now + MAX_MANUAL);
        }
        if let Some(KnownRuling { ruling, keep, .. }) = shared.ruling.as_deref_mut() {
            let longest = now + MAX_MANUAL;
            *keep = (*keep - back).min(longest);
            ruling.blocks.values_mut().for_each(|until| *until = (*until - back).min(longest));
        }
        shared.ruling = shared.ruling.take().filter(|known| now < known.keep);
    }

    fn restored_part(&self, now: Time, part: Part, restored: &mut Restored) -> Option<Part> {
        let is_own = self.cluster.as_ref().is_some_and(|cluster| cluster.host == part.host);
        // The sessions of this host are not restored; another host will tell when they end.
        let ceiling = if is_own { Duration::ZERO } else { self.session_ceiling() };
        let before = part.grant.until();
        match self.restored(now, part.grant.grant(), ceiling, restored) {
            Some(grant) => {
                // The others believe that it lasts longer.
                let is_untold = part.is_untold || is_own && grant.until < before;
                Some(Part { is_untold, grant: grant.into(), ..part })
            }
            // It has ended, and an older entry may say that it lasts.
            None => (before <= now && now < part.keep).then_some(part),
        }
    }
}

impl Cluster {
    fn restore(&mut self, now: Time, address: IpAddr, shared: Box<ClusterAddress>) {
        for part in shared.parts.iter().filter(|part| part.sequence > Time::default()) {
            self.clock.observe(now, part.sequence);
        }
        if shared.parts.iter().any(|part| part.is_untold) {
            self.queue(address);
        }
        let keeps = shared.parts.iter().map(|part| part.keep);
        let keep = keeps.chain(shared.ruling.as_ref().map(|known| known.keep)).max();
        if shared.ruling.is_some() {
            self.ruled.insert(address);
        }
        self.addresses.insert(address, shared);
        keep.into_iter().for_each(|keep| self.check_at(keep, address));
    }
}
