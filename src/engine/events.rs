//! Events: what happens to grants, kept for those who watch.
//!
//! - **Promise**: events are kept in the order in which they happen, and only while somebody watches.
//!   Each has a number. A reader names the number that it expects, so it sees no event twice, and if
//!   it is too slow it learns that it has missed some.
//! - **Limits**: the last `MAX_EVENTS` are kept. Older ones are lost to readers that have not read
//!   them; nothing ever waits for a reader.
//! - **Not here**: the readers, and the form in which they get events.

use std::collections::VecDeque;
use std::net::IpAddr;

use smol_str::SmolStr;

use super::Engine;
use super::grants::grant::{Grant, GrantedBy};
use super::grants::removed::RemovalReason;
use super::maildaemons::Name;
use super::time::Time;
use super::verdict::{Outcome, Reason};

/// Most events that are kept: some seconds of a flood of logins, or the end of all grants at once
/// with the default of `max-clients`.
const MAX_EVENTS: usize = 65_536;

/// Bytes of an event; longer texts are stored apart.
const SIZE: usize = 120;
const _: () = assert!(std::mem::size_of::<WatchEvent>() <= SIZE);

/// Something that happened to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub time: Time,
    /// The client, canonical.
    pub address: IpAddr,
    /// The user who logged in last, if known and remembered.
    pub user: Option<SmolStr>,
    /// The mail daemon; `None` if the operator authorised the address.
    pub daemon: Option<Name>,
    /// When the grant of the address ends, if it has one.
    pub expires: Option<Time>,
}

/// What happened to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is authorised from now on.
    Granted,
    /// Its grant has another deadline, usually a later one; a log-out may bring it forward.
    Renewed,
    /// It is no longer authorised.
    Ended(RemovalReason),
    /// A login from it authorises nobody: in one word why, or the name of the exclusion list.
    Excluded(SmolStr),
    /// Mail of it was deferred because of a limit: which one.
    Limited(SmolStr),
    /// It has relayed a message.
    Relayed(Box<Relayed>),
}

/// A message that was relayed for an authorised address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The envelope sender; empty for the null sender.
    pub sender: String,
    /// Its recipients so far.
    pub recipients: u64,
    /// Postfix's queue id, where it has one already.
    pub queue_id: Option<String>,
}

impl WatchEvent {
    /// Creates the event of a grant.
    pub fn of(grant: &Grant, now: Time, kind: EventKind) -> Self {
        let has_ended = matches!(kind, EventKind::Ended(_));
        let user = grant.users.iter().rfind(|user| has_ended || now < user.until);
        let daemon = match &grant.by {
            GrantedBy::Login(origin) => Some(origin.daemon.clone()),
            GrantedBy::Operator => None,
        };
        Self {
            kind,
            time: now,
            address: grant.address,
            user: user.map(|user| user.name.clone()),
            daemon,
            expires: Some(grant.until).filter(|_| !has_ended),
        }
    }
}

/// The last events, while somebody watches.
#[derive(Debug, Default)]
pub struct EventLog {
    watchers: usize,
    /// The number of the first event that is kept.
    first: u64,
    events: VecDeque<WatchEvent>,
}

impl EventLog {
    /// Returns the number of the oldest event that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number that the next event will have.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Returns how many watch.
    pub fn watchers(&self) -> usize {
        self.watchers
    }

    /// Returns the events from a number on, in order; `None`: some of them are no longer kept.
    pub fn since(&self, number: u64) -> Option<impl Iterator<Item = &WatchEvent>> {
        let start = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some(self.events.range(start.min(self.events.len())..))
    }

    fn record(&mut self, event: WatchEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(event);
    }
}

impl Engine {
    /// Keeps events from now on, until [`Self::unwatch`]. Returns the number of the next one.
    pub fn watch(&mut self) -> u64 {
        self.events.watchers += 1;
        self.events.end()
    }

    /// Ends one watch; with the last one, all events are forgotten.
    pub fn unwatch(&mut self) {
        let events = &mut self.events;
        events.watchers = events.watchers.saturating_sub(1);
        if events.watchers == 0 {
            events.first = events.end();
            events.events = VecDeque::new();
        }
    }

    /// Returns the events that are kept.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Records an event of a grant.
    pub(super) fn tell(&mut self, now: Time, grant: &Grant, kind: EventKind) {
        if self.events.watchers > 0 {
            self.events.record(WatchEvent::of(grant, now, kind));
        }
    }

    /// Records an event of mail that a client has sent under a grant, for this user if known.
    pub(super) fn tell_mail(
        &mut self,
        now: Time,
        grant: &Grant,
        user: Option<&str>,
        kind: impl FnOnce() -> EventKind,
    ) {
        if self.events.watchers > 0 {
            let event = WatchEvent::of(grant, now, kind());
            let user = user.map(SmolStr::from).or(event.user);
            self.events.record(WatchEvent { user, ..event });
        }
    }

    /// Records an event of the grant of an address, if that is in force.
    pub(super) fn tell_grant(&mut self, now: Time, address: IpAddr, kind: EventKind) {
        if self.events.watchers > 0
            && let Some(grant) = self.grants.at(address, now)
        {
            self.events.record(WatchEvent::of(&grant, now, kind));
        }
    }

    /// Records a login that authorises nobody because of its address.
    pub(super) fn tell_excluded(&mut self, now: Time, outcome: &Outcome) {
        let Some(address) = outcome.address.filter(|_| self.events.watchers > 0) else { return };
        let why = match &outcome.reason {
            Reason::Excluded(list) => list.into(),
            Reason::Blocked => "blocked".into(),
            Reason::Shared => "shared".into(),
            other => other.to_string().into(),
        };
        self.events.record(WatchEvent {
            kind: EventKind::Excluded(why),
            time: now,
            address: address.to_canonical(),
            user: outcome.user.as_deref().map(SmolStr::from),
            daemon: outcome.daemon.clone(),
            expires: None,
        });
    }
}
