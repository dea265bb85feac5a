//! The set of client addresses that may relay, each until a moment.
//!
//! Promise  `at(address, now)` answers exactly while `now < until`; sweeping is housekeeping.
//! Limits   at most `most` addresses; the one that would end first makes room.
//! Shape    two indexes, by address and by deadline; only `insert` and `remove` touch both.
//! Not here clock, disk, sockets, log.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::daemons::Name;
use super::time::Time;

/// Who authorised an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A login at a mail daemon.
    Login {
        /// The daemon's name.
        daemon: Name,
        /// Who logged in, if the daemon says so.
        user: Option<String>,
        /// The host that logged it.
        host: Option<String>,
    },
    /// The operator.
    Hand,
}

/// One address and the right it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client, canonical.
    pub address: IpAddr,
    /// Who has set the deadline: a restart must not measure an operator's by a login's.
    pub by: By,
    /// The first login of this unbroken time.
    pub since: Time,
    /// The right ends at this moment.
    pub until: Time,
    /// How many logins there were since then.
    pub logins: u64,
    /// What the operator wrote about it.
    pub note: Option<String>,
}

/// Whether a login brought a new address or renewed a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The address was not in the set.
    New,
    /// The address was in the set; its deadline has moved.
    Renewed,
}

/// The expiring set.
#[derive(Debug, Default)]
pub struct Grants {
    by_address: HashMap<IpAddr, Grant>,
    by_deadline: BTreeSet<(Time, IpAddr)>,
}

impl Grants {
    /// Authorises an address, or renews its right; the later deadline wins. Expired entries must
    /// have been swept before.
    pub fn grant(
        &mut self,
        address: IpAddr,
        by: By,
        now: Time,
        span: Duration,
        note: Option<String>,
    ) -> Granted {
        let logins = u64::from(matches!(by, By::Login { .. }));
        let Some(old) = self.remove(address) else {
            self.insert(Grant { address, by, since: now, until: now + span, logins, note });
            return Granted::New;
        };
        let until = now + span;
        let (by, until) = if until < old.until { (old.by, old.until) } else { (by, until) };
        self.insert(Grant {
            by,
            until,
            logins: old.logins + logins,
            note: note.or(old.note),
            ..old
        });
        Granted::Renewed
    }

    /// Puts a grant in as it is, in place of any other for its address.
    pub fn put(&mut self, grant: Grant) {
        self.remove(grant.address);
        self.insert(grant);
    }

    /// The right of an address at a moment.
    pub fn at(&self, address: IpAddr, now: Time) -> Option<&Grant> {
        self.by_address.get(&address).filter(|grant| now < grant.until)
    }

    /// The entry of an address, ended or not.
    pub fn get(&self, address: IpAddr) -> Option<&Grant> {
        self.by_address.get(&address)
    }

    /// Takes an address out.
    pub fn remove(&mut self, address: IpAddr) -> Option<Grant> {
        let grant = self.by_address.remove(&address)?;
        self.by_deadline.remove(&(grant.until, address));
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
        Some(grant)
    }

    fn insert(&mut self, grant: Grant) {
        self.by_deadline.insert((grant.until, grant.address));
        self.by_address.insert(grant.address, grant);
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
    }

    /// Takes out one address whose right has ended, the earliest first.
    pub fn pop_expired(&mut self, now: Time) -> Option<Grant> {
        let (until, address) = *self.by_deadline.first()?;
        if now < until { None } else { self.remove(address) }
    }

    /// Takes out the address that would end first, if there are more than `most`.
    pub fn pop_excess(&mut self, most: usize) -> Option<Grant> {
        if self.len() <= most {
            return None;
        }
        let (_, address) = *self.by_deadline.first()?;
        self.remove(address)
    }

    /// The next deadline.
    pub fn first_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(until, _)| *until)
    }

    /// How many addresses are held.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// All grants, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.by_address.values()
    }
}
