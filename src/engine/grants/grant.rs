//! One address and the right it has.
//!
//! Promise  each user's own right ends with his own login's grace: another's login does not prolong
//!          it.
//! Limits   at most `MAX_USERS` of one address; the one who logged in longest ago makes room.
//! Not here clock, and the other addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::origins::Origin;
use crate::engine::time::Time;

/// Users that are held of one address: more than any household or office has, and a bound for an
/// address that thousands share.
pub const MAX_USERS: usize = 64;

/// Who authorised an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedBy {
    /// A login at a mail daemon.
    Login(Arc<Origin>),
    /// The operator.
    Operator,
}

/// A user who has logged in from an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name, as the mail daemon logged it.
    pub name: Box<str>,
    /// His own right ends at this moment.
    pub until: Time,
}

/// A right that the operator has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualGrant {
    /// When it was given.
    pub given: Time,
    /// It ends at this moment.
    pub until: Time,
    /// What the operator wrote about it.
    pub note: Option<String>,
}

/// One address and the right it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client, canonical.
    pub address: IpAddr,
    /// Who has set the deadline: a restart must not measure an operator's by a login's.
    pub by: GrantedBy,
    /// The first login of this unbroken time.
    pub since: Time,
    /// The right ends at this moment: the later one of those that were given.
    pub until: Time,
    /// How many logins there were since then.
    pub logins: u64,
    /// What the logins have given ends at this moment.
    pub by_login: Option<Time>,
    /// What the operator has given; it is bound to no user.
    pub manual: Option<Box<ManualGrant>>,
    /// More users have logged in than one address may have: it is remembered, not authorised.
    pub shared: bool,
    /// Who has logged in, the latest last; some may have ended.
    pub users: SmallVec<[User; 1]>,
}

impl Grant {
    /// Whether the address may relay at a moment.
    pub fn lasts(&self, now: Time) -> bool {
        now < self.until && !self.shared
    }

    /// The users whose right lasts at a moment, the latest last.
    pub fn users(&self, now: Time) -> impl DoubleEndedIterator<Item = &str> {
        self.users.iter().filter(move |user| now < user.until).map(|user| &*user.name)
    }

    /// How many users' rights last at a moment.
    pub fn user_count(&self, now: Time) -> usize {
        self.users.iter().filter(|user| now < user.until).count()
    }

    /// Whether the operator's own right lasts at a moment.
    pub fn is_manual(&self, now: Time) -> bool {
        self.manual.as_ref().is_some_and(|hand| now < hand.until)
    }

    /// The same, with every moment so much earlier.
    pub(crate) fn set_back(mut self, span: Duration) -> Self {
        self.since = self.since - span;
        self.until = self.until - span;
        self.by_login = self.by_login.map(|until| until - span);
        if let Some(hand) = &mut self.manual {
            (hand.given, hand.until) = (hand.given - span, hand.until - span);
        }
        self.users.iter_mut().for_each(|user| user.until = user.until - span);
        self
    }

    pub(super) fn none(address: IpAddr, since: Time) -> Self {
        Self {
            address,
            by: GrantedBy::Operator,
            since,
            until: since,
            logins: 0,
            by_login: None,
            manual: None,
            shared: false,
            users: SmallVec::new(),
        }
    }

    /// Finds out when the right ends, and whether too many users share the address. What the
    /// operator has given stays then, what logins have given does not.
    pub fn settle(&mut self, most_users: Option<usize>) {
        let too_many = most_users.is_some_and(|most| self.users.len() > most);
        let hand = self.manual.as_ref().map(|hand| hand.until);
        self.shared = too_many && hand.is_none();
        let login = self.by_login.filter(|_| !too_many || self.shared);
        self.until = login.max(hand).unwrap_or(self.since);
    }

    /// The operator's right has ended: if too many users share the address, it is remembered for
    /// them, so that the next login does not find it empty.
    pub fn remaining_shared(&self, now: Time, most_users: Option<usize>) -> Option<Self> {
        let mut left = Self { manual: None, ..self.clone() };
        left.users.retain(|user| now < user.until);
        left.settle(most_users);
        (left.shared && now < left.until).then_some(left)
    }

    pub(super) fn log_in(&mut self, name: &str, until: Time) {
        let old = self.users.iter().position(|user| *user.name == *name);
        let old = old.map(|place| self.users.remove(place));
        if self.users.len() == MAX_USERS {
            self.users.remove(0);
        }
        let until = old.map_or(until, |old| until.max(old.until));
        self.users.push(User { name: name.into(), until });
    }
}
