//! What all clients and users have relayed in the last hour, and under their present grants.
//!
//! - **Promise**: smtpd's requests about one recipient count once, also if it is asked in several
//!   restriction lists, or repeats a request over a new connection. (It names a recipient to all of
//!   them before the next one.)
//! - **Limits**: only those who relay have an entry, until their hour is empty and their grant has
//!   ended; at most as many addresses as `max-clients`, and as many users. Of an address, the last
//!   `MAX_OPEN` messages that are being received are told apart.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::hour::{HOUR, Hour, Relays};
use crate::engine::protocol::policy::PolicyRequest;
use crate::engine::time::Time;

/// Messages of one address that are received at the same time: more than the connections that
/// Postfix accepts from one client (postconf(5), smtpd_client_connection_count_limit is 50).
const MAX_OPEN: usize = 64;
/// A message is forgotten after this time without a recipient: smtpd has ended the session
/// (postconf(5), smtpd_timeout is 300 s).
const OPEN: Duration = Duration::from_secs(600);

/// A message and a recipient of it, as keyed hashes.
#[derive(Clone, Copy, Debug)]
pub struct MessageKey {
    /// `None`: smtpd did not tell which message it is.
    instance: Option<u64>,
    recipient: u64,
}

/// What was counted before of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not even its message.
    Nothing,
    /// Its message, but not this recipient.
    Message,
    /// This recipient: it is a repetition.
    Recipient,
}

#[derive(Clone, Debug)]
struct OpenMessage {
    instance: u64,
    /// The last one.
    recipient: u64,
    /// When it was counted.
    at: Time,
}

#[derive(Clone, Debug, Default)]
struct AddressUsage {
    hour: Hour,
    open: SmallVec<[OpenMessage; 1]>,
    /// When the grant began under which `total` was relayed.
    since: Time,
    total: Relays,
}

#[derive(Clone, Debug)]
enum UsageKey {
    Address(IpAddr),
    User(SmolStr),
}

/// The counters of all clients and users.
#[derive(Debug, Default)]
pub struct Usage {
    addresses: HashMap<IpAddr, AddressUsage>,
    /// By login name, as it is counted ([`crate::engine::user_name`]).
    users: HashMap<SmolStr, Hour>,
    /// When to check whether an entry is still needed; each has one.
    checks: VecDeque<(Time, UsageKey)>,
    hasher: RandomState,
}

impl Usage {
    /// Returns which message and recipient a request is about.
    pub fn key(&self, request: &PolicyRequest<'_>) -> MessageKey {
        let instance = Some(request.instance()).filter(|instance| !instance.is_empty());
        MessageKey {
            instance: instance.map(|instance| self.hasher.hash_one(instance)),
            recipient: self.hasher.hash_one(request.recipient()),
        }
    }

    /// Returns what was counted before.
    pub fn seen(&self, now: Time, address: IpAddr, key: MessageKey) -> Seen {
        let open = self.addresses.get(&address).map(|usage| &usage.open);
        let is_it = |it: &&OpenMessage| Some(it.instance) == key.instance && now < it.at + OPEN;
        match open.and_then(|open| open.iter().find(is_it)) {
            None => Seen::Nothing,
            Some(open) if open.recipient == key.recipient => Seen::Recipient,
            Some(_) => Seen::Message,
        }
    }

    /// Returns the hour of an address, if anything was counted in it.
    pub fn of_address(&self, address: IpAddr) -> Option<&Hour> {
        self.addresses.get(&address).map(|usage| &usage.hour)
    }

    /// Returns the hour of a user, by the name under which it is counted.
    pub fn of_user(&self, user: &str) -> Option<&Hour> {
        self.users.get(user)
    }

    /// Returns what an address has relayed under the grant that began at `since`.
    pub fn total(&self, address: IpAddr, since: Time) -> Relays {
        let usage = self.addresses.get(&address).filter(|usage| usage.since == since);
        usage.map(|usage| usage.total).unwrap_or_default()
    }

    /// Returns whether an address and a user have entries, or there is room for them.
    pub fn has_room(&self, max: usize, address: IpAddr, user: Option<&str>) -> bool {
        let has_address = self.addresses.len() < max || self.addresses.contains_key(&address);
        let has_user = |user| self.users.len() < max || self.users.contains_key(user);
        has_address && user.is_none_or(has_user)
    }

    /// Counts a recipient, and its message unless that was counted before. `since` is when the grant
    /// of the address began; the user's name is the one under which it is counted.
    pub fn count(
        &mut self,
        now: Time,
        (address, since): (IpAddr, Time),
        user: Option<&str>,
        key: MessageKey,
        relays: Relays,
    ) {
        let check_at = now + HOUR;
        let usage = self.addresses.entry(address).or_insert_with(|| {
            self.checks.push_back((check_at, UsageKey::Address(address)));
            AddressUsage::default()
        });
        if usage.since != since {
            (usage.since, usage.total) = (since, Relays::default());
        }
        usage.total.add(relays);
        usage.hour.add(now, relays);
        usage.remember(now, key);
        if let Some(user) = user {
            let hour = match self.users.get_mut(user) {
                Some(hour) => hour,
                None => {
                    self.checks.push_back((check_at, UsageKey::User(user.into())));
                    self.users.entry(user.into()).or_default()
                }
            };
            hour.add(now, relays);
        }
    }

    /// Forgets a message that has been received; returns whether it was counted.
    pub fn finish(&mut self, now: Time, address: IpAddr, key: MessageKey) -> bool {
        let is_known = self.seen(now, address, key) != Seen::Nothing;
        if let Some(usage) = self.addresses.get_mut(&address) {
            usage.open.retain(|it| Some(it.instance) != key.instance);
        }
        is_known
    }

    /// Removes entries whose hour is empty, unless `is_needed` says that the grant of the address
    /// which began at a time lasts. Checks at most `most` of them.
    pub fn sweep(&mut self, now: Time, most: usize, is_needed: impl Fn(IpAddr, Time) -> bool) {
        for _ in 0..most {
            let Some((_, key)) = self.checks.pop_front_if(|(at, _)| *at <= now) else { return };
            let is_empty = match &key {
                UsageKey::Address(address) => self.addresses.get(address).is_none_or(|usage| {
                    usage.hour.end() <= now && !is_needed(*address, usage.since)
                }),
                UsageKey::User(user) => self.users.get(user).is_none_or(|hour| hour.end() <= now),
            };
            match key {
                key if !is_empty => self.checks.push_back((now + HOUR, key)),
                UsageKey::Address(address) => _ = self.addresses.remove(&address),
                UsageKey::User(user) => _ = self.users.remove(&user),
            }
        }
    }

    /// Returns how many addresses and users have an entry.
    pub fn entries(&self) -> usize {
        self.checks.len()
    }
}

impl AddressUsage {
    /// Remembers the last recipient of a message. If there are too many messages, the one whose last
    /// recipient was longest ago is forgotten: its next recipient counts as another message.
    fn remember(&mut self, now: Time, key: MessageKey) {
        let Some(instance) = key.instance else { return };
        self.open.retain(|it| it.instance != instance && now < it.at + OPEN);
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(OpenMessage { instance, recipient: key.recipient, at: now });
    }
}
