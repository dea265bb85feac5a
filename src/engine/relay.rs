//! Whether a client may relay a message to a recipient, and the record of what was relayed.
//!
//! - **Promise**: only a recipient that is answered OK is counted, and it is counted once. Beyond a
//!   limit the answer is to try again later. A message that has been received is recorded but not
//!   judged.
//! - **Place**: every relayed message passes [`Engine::relayed`], every refusal because of a limit
//!   [`Engine::limited`].

use std::net::IpAddr;
use std::time::Duration;

use smol_str::{SmolStr, StrExt as _};

use super::Engine;
use super::grants::grant::{Grant, GrantedBy};
use super::grants::removed::RemovalReason;
use super::limits::hour::{HOUR, Hour, Relays};
use super::limits::usage::{MessageKey, Seen};
use super::limits::{Counted, LimitAction, Reached};
use super::protocol::policy::{Action, PolicyRequest, Stage};
use super::protocol::sender_logins::SenderOwner;
use super::time::Time;

/// Longest recorded text of a request, in bytes: a path of RFC 5321 section 4.5.3.1.3.
const MAX_TEXT: usize = 256;
/// Entries of [`super::limits::usage`] that are checked before one is added, so that there are never
/// many to check.
const CHECKED: usize = 2;

/// The answer to a policy request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What Postfix should do.
    pub action: Action,
    /// What is to be recorded.
    pub record: Option<Box<RelayRecord>>,
}

impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        Self { action, record: None }
    }
}

/// Something to be recorded about a message. The texts are the client's, cut to [`MAX_TEXT`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRecord {
    /// What happened.
    pub step: RelayStep,
    /// The client, canonical.
    pub address: IpAddr,
    /// The user whose sender it is, or else the one who logged in last.
    pub user: Option<SmolStr>,
    /// The envelope sender.
    pub sender: String,
    /// What is the same in all requests about this message.
    pub instance: String,
    /// The queue id; empty if there is none yet.
    pub queue_id: String,
    /// Who authorised the address, and since when; `None` if the grant has ended meanwhile.
    pub granted: Option<(GrantedBy, Time)>,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// Its first recipient was answered OK.
    Relayed,
    /// It has been received.
    Received {
        /// How many recipients Postfix has accepted.
        recipients: Option<u64>,
        /// Its size in bytes.
        size: Option<u64>,
    },
    /// A recipient was refused because of a limit.
    Limited(Reached),
}

impl Engine {
    /// Returns the answer to a policy request, and counts what may be relayed.
    pub fn decide(&mut self, now: Time, request: &PolicyRequest<'_>) -> Decision {
        let (Some(stage), Some(address)) = (request.stage(), request.client_address()) else {
            return Action::Dunno.into();
        };
        let address = address.to_canonical();
        let grant = self.admits(now, address);
        if stage == Stage::EndOfMessage {
            return self.received(now, address, grant.as_ref(), request);
        }
        let Some(grant) = grant else { return Action::Dunno.into() };
        let user = match self.rules.senders.owner(grant.users(now), request.sender()) {
            SenderOwner::User(user) => Some(user.to_lowercase_smolstr()),
            SenderOwner::Anyone => None,
            SenderOwner::Stranger if grant.is_manual(now) => None,
            SenderOwner::Stranger => return self.rules.senders.mismatch.clone().into(),
        };
        if stage == Stage::Data {
            return Action::Ok.into();
        }
        let key = self.usage.key(request);
        let seen = self.usage.seen(now, address, key);
        if seen == Seen::Recipient {
            return Action::Ok.into();
        }
        let relays = Relays { messages: u32::from(seen == Seen::Nothing), recipients: 1 };
        match self.reached(now, address, user.as_deref(), relays) {
            Some(reached) => self.limited(now, &grant, user, reached, request),
            None => self.relayed(now, &grant, user, (key, relays), request),
        }
    }

    /// Returns which limit does not allow more, if any.
    fn reached(
        &self,
        now: Time,
        address: IpAddr,
        user: Option<&str>,
        relays: Relays,
    ) -> Option<Reached> {
        let (limits, usage) = (&self.rules.limits, &self.usage);
        let of_user = user.map(|user| (true, limits.of_user(user), usage.of_user(user)));
        let of_address = limits.of_address(address, user.is_some());
        let of_address = (false, of_address, usage.of_address(address));
        let mut is_limited = false;
        for (of_user, limit, hour) in of_user.into_iter().chain([of_address]) {
            let messages = limit.messages.filter(|_| relays.messages > 0);
            for (what, max) in
                [(Counted::Messages, messages), (Counted::Recipients, limit.recipients)]
            {
                let Some(max) = max else { continue };
                is_limited = true;
                let empty = Hour::default();
                if let Some(wait) = hour.unwrap_or(&empty).wait(now, what, max) {
                    return Some(Reached::Limit { what, max, of_user, wait });
                }
            }
        }
        // What could not be counted would not be limited.
        let has_room = || usage.has_room(self.rules.max_clients, address, user);
        (is_limited && !has_room()).then_some(Reached::TooManyClients)
    }

    /// Counts a recipient that is answered OK.
    fn relayed(
        &mut self,
        now: Time,
        grant: &Grant,
        user: Option<SmolStr>,
        (key, relays): (MessageKey, Relays),
        request: &PolicyRequest<'_>,
    ) -> Decision {
        let Self { usage, grants, .. } = self;
        usage.sweep(now, CHECKED, |address, since| grants.has(now, address, since));
        if usage.has_room(self.rules.max_clients, grant.address, user.as_deref()) {
            usage.count(now, (grant.address, grant.since), user.as_deref(), key, relays);
        }
        self.stats.relayed.messages += u64::from(relays.messages);
        self.stats.relayed.recipients += u64::from(relays.recipients);
        let is_first = relays.messages > 0;
        let record = is_first
            .then(|| record(now, RelayStep::Relayed, grant.address, Some(grant), user, request));
        Decision { action: Action::Ok, record }
    }

    /// Refuses a recipient because of a limit.
    fn limited(
        &mut self,
        now: Time,
        grant: &Grant,
        user: Option<SmolStr>,
        reached: Reached,
        request: &PolicyRequest<'_>,
    ) -> Decision {
        let counter = match reached {
            Reached::Limit { what: Counted::Messages, .. } => &mut self.stats.limited.messages,
            Reached::Limit { what: Counted::Recipients, .. } => &mut self.stats.limited.recipients,
            Reached::TooManyClients => &mut self.stats.limited.too_many_clients,
        };
        *counter += 1;
        if let Reached::Limit { wait, .. } = reached
            && self.rules.limits.action == LimitAction::Revoke
        {
            let block = self.rest_of_hour(now, grant.address, user.as_deref()).max(wait);
            self.end(now, grant.address, Some(block), RemovalReason::Limited);
        }
        let step = RelayStep::Limited(reached);
        let record = record(now, step, grant.address, Some(grant), user, request);
        Decision { action: Action::Defer(reached.to_string()), record: Some(record) }
    }

    /// Returns how long it takes until nothing that was counted is left in the hour.
    fn rest_of_hour(&self, now: Time, address: IpAddr, user: Option<&str>) -> Duration {
        let of_user = user.and_then(|user| self.usage.of_user(user));
        let hours = self.usage.of_address(address).into_iter().chain(of_user);
        hours.map(|hour| hour.end().since(now)).max().unwrap_or(HOUR)
    }

    /// Records a message that has been received, if one of its recipients was counted.
    fn received(
        &mut self,
        now: Time,
        address: IpAddr,
        grant: Option<&Grant>,
        request: &PolicyRequest<'_>,
    ) -> Decision {
        let key = self.usage.key(request);
        let step =
            RelayStep::Received { recipients: request.recipient_count(), size: request.size() };
        let record = self.usage.finish(now, address, key).then(|| {
            let users = grant.map(|grant| grant.users(now));
            let owner = users.map(|users| self.rules.senders.owner(users, request.sender()));
            let user = match owner {
                Some(SenderOwner::User(user)) => Some(user.to_lowercase_smolstr()),
                _ => None,
            };
            record(now, step, address, grant, user, request)
        });
        Decision { action: Action::Dunno, record }
    }

    /// Returns how many addresses and users are counted.
    pub fn usage_len(&self) -> usize {
        self.usage.len()
    }

    /// Returns what was relayed under a grant.
    pub fn relays_of(&self, grant: &Grant) -> Relays {
        self.usage.total(grant.address, grant.since)
    }
}

fn record(
    now: Time,
    step: RelayStep,
    address: IpAddr,
    grant: Option<&Grant>,
    user: Option<SmolStr>,
    request: &PolicyRequest<'_>,
) -> Box<RelayRecord> {
    let last = || grant?.users(now).next_back().map(SmolStr::from);
    Box::new(RelayRecord {
        step,
        address,
        user: user.or_else(last),
        sender: cut(request.raw_sender()),
        instance: cut(request.instance()),
        queue_id: cut(request.queue_id()),
        granted: grant.map(|grant| (grant.by.clone(), grant.since)),
    })
}

fn cut(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned()
}
