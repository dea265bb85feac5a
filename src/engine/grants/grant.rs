//! One address and its grant, as it is worked with.
//!
//! - **Promise**: each user's own grant ends with the grace period of that user's login; another
//!   user's login does not extend it.
//! - **Limits**: at most [`MAX_USERS`] of one address; the one whose own grant ends first is dropped.
//! - **Not here**: the clock, and other addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::GrantRequest;
use super::origins::Origin;
use crate::engine::time::Time;

/// Most users remembered of one address: more than any household or office has, and a bound for an
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
    pub name: SmolStr,
    /// When the user's own grant ends.
    pub until: Time,
    /// Whether the rules refuse the user's logins: the user grants nothing, but shares the address.
    pub refused: bool,
}

/// A grant by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualGrant {
    /// When it was made.
    pub given: Time,
    /// When it ends.
    pub until: Time,
    /// The operator's note.
    pub note: Option<String>,
}

/// The grant of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client, canonical.
    pub address: IpAddr,
    /// The last login or operator that granted.
    pub by: GrantedBy,
    /// Since when the address has been authorised without interruption.
    pub since: Time,
    /// When the grant ends: the later deadline of logins and operator.
    pub until: Time,
    /// The number of logins since then.
    pub logins: u32,
    /// The deadline from logins.
    pub by_login: Option<Time>,
    /// The operator's grant; it is not bound to a user.
    pub manual: Option<Box<ManualGrant>>,
    /// Whether too many users share the address: it is remembered but not authorised.
    pub shared: bool,
    /// The users who have logged in, the latest last; some may have expired.
    pub users: SmallVec<[User; 1]>,
}

impl Grant {
    /// Returns whether the address may relay at a moment.
    pub fn lasts(&self, now: Time) -> bool {
        now < self.until && !self.shared
    }

    /// Returns the users whose own grants last at a moment, the latest last.
    pub fn users(&self, now: Time) -> impl DoubleEndedIterator<Item = &str> {
        let users = self.users.iter().filter(move |user| now < user.until && !user.refused);
        users.map(|user| &*user.name)
    }

    /// Returns the latest deadline of a user whose logins count.
    pub fn users_until(&self) -> Option<Time> {
        self.users.iter().filter(|user| !user.refused).map(|user| user.until).max()
    }

    /// Returns how many users have logged in whose grace lasts at a moment, refused ones included.
    pub fn user_count(&self, now: Time) -> usize {
        self.users.iter().filter(|user| now < user.until).count()
    }

    /// Returns whether the operator's grant lasts at a moment.
    pub fn is_manual(&self, now: Time) -> bool {
        self.manual.as_ref().is_some_and(|manual| now < manual.until)
    }

    /// Moves every time back by `span`.
    pub(crate) fn set_back(self, span: Duration) -> Self {
        self.map_times(|time| time - span)
    }

    /// Converts every time.
    pub(crate) fn map_times(mut self, convert: impl Fn(Time) -> Time) -> Self {
        self.since = convert(self.since);
        self.until = convert(self.until);
        self.by_login = self.by_login.map(&convert);
        if let Some(manual) = &mut self.manual {
            (manual.given, manual.until) = (convert(manual.given), convert(manual.until));
        }
        self.users.iter_mut().for_each(|user| user.until = convert(user.until));
        self
    }

    /// Ends a session: the deadline from logins becomes `until`, or that of another user if it is
    /// later, and the user's own deadline the time in `user`.
    pub fn log_out(
        &mut self,
        until: Option<Time>,
        user: Option<(String, Time)>,
        max_users: Option<usize>,
    ) {
        if let Some((name, until)) = user {
            let same = self.users.iter_mut().filter(|user| *user.name == *name);
            same.for_each(|user| user.until = until);
        }
        self.by_login = until.max(self.users_until());
        self.settle(max_users);
    }

    /// Applies a request; the later deadline wins. An address with more than `max_users` becomes
    /// shared and keeps only the operator's grant.
    pub(in crate::engine) fn apply(
        &mut self,
        request: GrantRequest,
        now: Time,
        max_users: Option<usize>,
    ) {
        let GrantRequest { by, user, span, note } = request;
        let end = now + span;
        self.by_login = self.by_login.filter(|until| now < *until);
        self.manual = self.manual.take().filter(|manual| now < manual.until);
        if by == GrantedBy::Operator {
            let new = || Box::new(ManualGrant { given: now, until: end, note: None });
            let old = self.manual.take().filter(|old| end < old.until);
            let mut manual = old.unwrap_or_else(new);
            manual.note = note.or(manual.note);
            self.manual = Some(manual);
        } else {
            self.by_login = self.by_login.max(Some(end));
            self.logins = self.logins.saturating_add(1);
        }
        self.by = by;
        self.users.retain(|user| now < user.until);
        if let Some(name) = user {
            self.log_in(&name, end, false);
        }
        self.settle(max_users);
    }

    /// Counts a user whom the rules refuse among those who share the address, until `end`.
    pub fn refuse(&mut self, name: &str, now: Time, end: Time, max_users: Option<usize>) {
        self.users.retain(|user| now < user.until);
        self.log_in(name, end, true);
        self.settle(max_users);
    }

    pub(in crate::engine) fn none(address: IpAddr, since: Time) -> Self {
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

    /// Computes when the grant ends, and whether too many users share the address. Then only the
    /// operator's grant counts.
    pub fn settle(&mut self, max_users: Option<usize>) {
        let too_many = max_users.is_some_and(|max| self.users.len() > max);
        let manual = self.manual.as_ref().map(|manual| manual.until);
        self.shared = too_many && manual.is_none();
        let login = self.by_login.filter(|_| !too_many || self.shared);
        self.until = login.max(manual).unwrap_or(self.since);
    }

    /// Returns what remains when the operator's grant has expired: the entry of a shared address, so
    /// that its users still count at the next login.
    pub fn remaining_shared(&self, now: Time, max_users: Option<usize>) -> Option<Self> {
        let mut remaining = Self { manual: None, ..self.clone() };
        remaining.users.retain(|user| now < user.until);
        remaining.settle(max_users);
        (remaining.shared && now < remaining.until).then_some(remaining)
    }

    pub(super) fn log_in(&mut self, name: &str, until: Time, refused: bool) {
        let is_same = |user: &&mut User| *user.name == *name && user.refused == refused;
        if let Some(last) = self.users.last_mut().filter(is_same) {
            last.until = last.until.max(until);
            return;
        }
        let old = self.users.iter().position(|user| *user.name == *name);
        let old = old.map(|place| self.users.remove(place));
        if self.users.len() == MAX_USERS {
            // Not the one on whose login the deadline of the address rests.
            let first = (0..MAX_USERS).min_by_key(|place| self.users[*place].until);
            self.users.remove(first.unwrap_or_default());
        }
        // A grace that granted nothing extends none that does.
        let old = old.filter(|old| old.refused == refused);
        let until = old.map_or(until, |old| until.max(old.until));
        self.users.push(User { name: name.into(), until, refused });
    }
}
