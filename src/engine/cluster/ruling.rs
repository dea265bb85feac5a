//! What operators and limits have decided about one address: the epochs, and the blocks.
//!
//! - **Promise**: everything is a maximum or a union, so hosts that have heard the same agree, in
//!   whatever order and however often they have heard it. A revocation is undone by no login that
//!   did not know of it, and a block only by an `allow` that did.
//! - **Limits**: at most `MAX_KEPT` blocks and as many lifted ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

use crate::engine::time::Time;

/// Most blocks of one address, and most of them that are lifted.
const MAX_KEPT: usize = 16;
/// Highest number of an epoch that another host may tell of an address that is not known to have so many
/// already: more revocations than there ever are.
const MAX_NUMBER: u32 = 1 << 30;
/// How much higher it may be otherwise.
const MAX_STEP: u32 = 1000;
/// Longest name of a host, in bytes (that of a label in the DNS: RFC 1035, 2.3.4).
const MAX_NAME: usize = 63;

/// Returns the name of a host of the cluster, if the text can be one.
pub fn host_name(text: &str) -> Option<SmolStr> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed);
    is_name.then(|| text.into())
}

/// The number of a revocation: a grant counts only under the latest one that its author knew. The
/// default is that of an address that was never revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// One more than that of the epoch before.
    pub number: u32,
    /// The host that began it.
    pub host: SmolStr,
}

impl Epoch {
    /// Returns whether another host may have counted so far, where the known number is this one.
    pub fn is_credible(&self, known: u32) -> bool {
        self.number < MAX_NUMBER || self.number <= known.saturating_add(MAX_STEP)
    }

    fn next(&self, host: &SmolStr) -> Self {
        Self { number: self.number.saturating_add(1), host: host.clone() }
    }
}

/// Empty for the default.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.number == 0 { Ok(()) } else { write!(f, "{}:{}", self.number, self.host) }
    }
}

impl FromStr for Epoch {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (number, host) = text.split_once(':').ok_or(())?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or(())?;
        Ok(Self { number, host: host_name(host).ok_or(())? })
    }
}

/// The decisions about one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRuling {
    /// The latest epoch.
    pub epoch: Epoch,
    /// The blocks, by the epoch that each began, and until when they last.
    pub blocks: BTreeMap<Epoch, Time>,
    /// The epochs whose blocks an `allow` has lifted.
    pub lifted: BTreeSet<Epoch>,
}

impl AddressRuling {
    /// Returns until when the address is blocked, if it is.
    pub fn blocked_until(&self, now: Time) -> Option<Time> {
        let lasting = self.blocks.iter().filter(|(epoch, _)| !self.lifted.contains(epoch));
        lasting.map(|(_, until)| *until).max().filter(|until| now < *until)
    }

    /// Begins an epoch, and a block until then.
    pub fn revoke(&mut self, host: &SmolStr, block: Option<Time>) {
        self.epoch = self.epoch.next(host);
        if let Some(until) = block {
            self.blocks.insert(self.epoch.clone(), until);
        }
        self.bound();
    }

    /// Lifts all known blocks, and begins an epoch.
    pub fn lift(&mut self, host: &SmolStr) {
        self.lifted.extend(self.blocks.keys().cloned());
        self.epoch = self.epoch.next(host);
        self.bound();
    }

    /// Adds what another host knows.
    pub fn unite(&mut self, other: &Self) {
        self.epoch = self.epoch.clone().max(other.epoch.clone());
        for (epoch, until) in &other.blocks {
            let known = self.blocks.entry(epoch.clone()).or_insert(*until);
            *known = (*known).max(*until);
        }
        self.lifted.extend(other.lifted.iter().cloned());
        self.bound();
    }

    /// Returns whether it has all that another has.
    pub fn includes(&self, other: &Self) -> bool {
        let has =
            |(epoch, until): (&Epoch, &Time)| self.blocks.get(epoch).is_some_and(|u| u >= until);
        self.epoch >= other.epoch
            && other.blocks.iter().all(has)
            && other.lifted.is_subset(&self.lifted)
    }

    /// The block that ends first, and the oldest lifted one, are forgotten.
    fn bound(&mut self) {
        while self.blocks.len() > MAX_KEPT {
            let first = self.blocks.iter().min_by_key(|(epoch, until)| (**until, *epoch));
            let Some(first) = first.map(|(epoch, _)| epoch.clone()) else { return };
            self.blocks.remove(&first);
        }
        while self.lifted.len() > MAX_KEPT {
            let first = self.lifted.pop_first();
            first.map(|first| self.blocks.remove(&first));
        }
    }
}
