//! Whether a client may relay a message to a recipient, and the record of what was relayed.
//!
//! - **Promise**: only a recipient that is answered OK is counted, and it is counted once. Beyond a
//!   limit the answer is to try again later. A message that has been received is recorded but not
//!   judged.
//! - **Place**: every relayed message passes `Engine::relayed`, every refusal because of a limit
//!   `Engine::limited`.

use std::net::IpAddr;
use std::time::Duration;

use smol_str::SmolStr;

use super::Engine;
use super::events::{EventKind, Relayed};
use super::grants::grant::{Grant, GrantedBy};
use super::grants::removed::RemovalReason;
use super::limits::hour::{HOUR, Hour, Relays};
use super::limits::usage::{MessageKey, Seen};
use super::limits::{Limit, LimitAction, Quantity, Reached};
use super::protocol::policy::{Action, PolicyRequest, SmtpStage};
use super::protocol::sender_logins::SenderOwner;
use super::time::Time;
use super::user_name;

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

/// Something to be recorded about a message. The texts are the client's, cut to `MAX_TEXT` bytes.
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
    Begun,
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

/// A request of a client that is authorised.
struct RelayRequest<'a> {
    now: Time,
    grant: &'a Grant,
    /// The user whose sender it is, if the sender tells.
    user: Option<&'a str>,
    /// The same, as it is counted ([`user_name`]).
    counted_user: Option<SmolStr>,
    policy: &'a PolicyRequest<'a>,
}

impl RelayRequest<'_> {
    fn record(&self, step: RelayStep) -> Option<Box<RelayRecord>> {
        Some(record(self.now, step, self.grant.address, Some(self.grant), self.user, self.policy))
    }
}

impl Engine {
    /// Returns the answer to a policy request, and counts what may be relayed.
    pub fn decide(&mut self, now: Time, policy: &PolicyRequest<'_>) -> Decision {
        let (Some(stage), Some(address)) = (policy.stage(), policy.client_address()) else {
            return Action::Dunno.into();
        };
        let address = address.to_canonical();
        let grant = self.admits(now, address);
        if stage == SmtpStage::EndOfMessage {
            return self.received(now, address, grant.as_ref(), policy);
        }
        let Some(grant) = &grant else { return Action::Dunno.into() };
        let user = match self.rules.senders.owner(grant.users(now), policy.sender()) {
            SenderOwner::User(user) => Some(user),
            SenderOwner::Anyone => None,
            SenderOwner::Stranger if grant.is_manual(now) => None,
            SenderOwner::Stranger => return self.rules.senders.mismatch.clone().into(),
        };
        if stage == SmtpStage::Data {
            return Action::Ok.into();
        }
        let key = self.usage.key(policy);
        let seen = self.usage.seen(now, address, key);
        if seen == Seen::Recipient {
            return Action::Ok.into();
        }
        let relays = Relays { messages: u32::from(seen == Seen::Nothing), recipients: 1 };
        let assumed = &self.rules.senders.domains;
        let counted_user = user.map(|user| user_name::counted(user, assumed));
        let request = RelayRequest { now, grant, user, counted_user, policy };
        match self.reached(&request, relays) {
            Some(reached) => self.limited(&request, reached),
            None => self.relayed(&request, key, relays),
        }
    }

    /// Returns which limit does not allow more, if any.
    fn reached(&self, request: &RelayRequest<'_>, relays: Relays) -> Option<Reached> {
        let (limits, usage) = (&self.rules.limits, &self.usage);
        let (address, user) = (request.grant.address, request.counted_user.as_deref());
        let logins = &self.rules.logins;
        let of_user = user.map(|user| {
            let general = logins.limit(address, Some(user), limits.general);
            (true, limits.of_user(user, &self.rules.senders.domains, general), usage.of_user(user))
        });
        // If the user is known, whose limit counts, only the table limits the address.
        let general = match user {
            Some(_) => Limit::default(),
            None => logins.limit_of_address(request.now, request.grant, limits.general),
        };
        let of_address = limits.of_address(address, general);
        let of_address = (false, of_address, usage.of_address(address));
        let mut is_limited = false;
        for (of_user, limit, hour) in of_user.into_iter().chain([of_address]) {
            let messages = limit.messages.filter(|_| relays.messages > 0);
            let counted =
                [(Quantity::Messages, messages), (Quantity::Recipients, limit.recipients)];
            for (what, max) in counted {
                let Some(max) = max else { continue };
                is_limited = true;
                if let Some(wait) = hour.unwrap_or(&Hour::default()).wait(request.now, what, max) {
                    return Some(Reached::Limit { what, max, of_user, wait });
                }
            }
        }
        // What could not be counted would not be limited.
        let has_room = || usage.has_room(self.rules.max_clients, address, user);
        (is_limited && !has_room()).then_some(Reached::TooManyClients)
    }

    /// Counts a recipient that is answered OK.
    fn relayed(&mut self, request: &RelayRequest<'_>, key: MessageKey, relays: Relays) -> Decision {
        let RelayRequest { now, grant, counted_user, .. } = request;
        let (now, user) = (*now, counted_user.as_deref());
        let Self { usage, grants, .. } = self;
        usage.sweep(now, CHECKED, |address, since| grants.has(now, address, since));
        if usage.has_room(self.rules.max_clients, grant.address, user) {
            usage.count(now, (grant.address, grant.since), user, key, relays);
        }
        self.stats.relayed.messages += u64::from(relays.messages);
        self.stats.relayed.recipients += u64::from(relays.recipients);
        if relays.messages == 0 {
            return Action::Ok.into();
        }
        self.tell_mail(now, grant, request.user, || relayed(1, request.policy));
        Decision { action: Action::Ok, record: request.record(RelayStep::Begun) }
    }

    /// Refuses a recipient because of a limit.
    fn limited(&mut self, request: &RelayRequest<'_>, reached: Reached) -> Decision {
        let counts = &mut self.stats.limited;
        let count = match reached {
            Reached::Limit { what: Quantity::Messages, .. } => &mut counts.messages,
            Reached::Limit { what: Quantity::Recipients, .. } => &mut counts.recipients,
            Reached::TooManyClients => &mut counts.too_many_clients,
        };
        *count += 1;
        let limit = || EventKind::Limited(reached.word().into());
        self.tell_mail(request.now, request.grant, request.user, limit);
        if let Reached::Limit { wait, .. } = reached
            && self.rules.limits.action == LimitAction::Revoke
        {
            let block = self.rest_of_hour(request).max(wait);
            self.end(request.now, request.grant.address, Some(block), RemovalReason::Limited);
        }
        let record = request.record(RelayStep::Limited(reached));
        Decision { action: Action::Defer(reached.to_string()), record }
    }

    /// Returns how long it takes until nothing that was counted is left in the hour.
    fn rest_of_hour(&self, request: &RelayRequest<'_>) -> Duration {
        let of_user = request.counted_user.as_ref().and_then(|user| self.usage.of_user(user));
        let hours = self.usage.of_address(request.grant.address).into_iter().chain(of_user);
        hours.map(|hour| hour.end().since(request.now)).max().unwrap_or(HOUR)
    }

    /// Records a message that has been received, if one of its recipients was counted.
    fn received(
        &mut self,
        now: Time,
        address: IpAddr,
        grant: Option<&Grant>,
        policy: &PolicyRequest<'_>,
    ) -> Decision {
        let (recipients, size) = (policy.recipient_count(), policy.size());
        let key = self.usage.key(policy);
        if !self.usage.finish(now, address, key) {
            return Action::Dunno.into();
        }
        let owner = grant.map(|it| self.rules.senders.owner(it.users(now), policy.sender()));
        let user = match owner {
            Some(SenderOwner::User(user)) => Some(user),
            _ => None,
        };
        if let Some(grant) = grant {
            self.tell_mail(now, grant, user, || relayed(recipients.unwrap_or_default(), policy));
        }
        let step = RelayStep::Received { recipients, size };
        let record = record(now, step, address, grant, user, policy);
        Decision { action: Action::Dunno, record: Some(record) }
    }

    /// Returns how many addresses and users are counted.
    pub fn usage_len(&self) -> usize {
        self.usage.entries()
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
    user: Option<&str>,
    policy: &PolicyRequest<'_>,
) -> Box<RelayRecord> {
    let last = || grant?.users(now).next_back();
    Box::new(RelayRecord {
        step,
        address,
        user: user.or_else(last).map(SmolStr::from),
        sender: cut(policy.raw_sender()),
        instance: cut(policy.instance()),
        queue_id: cut(policy.queue_id()),
        granted: grant.map(|grant| (grant.by.clone(), grant.since)),
    })
}

/// Returns the event of a message with so many recipients.
fn relayed(recipients: u64, policy: &PolicyRequest<'_>) -> EventKind {
    let queue_id = Some(cut(policy.queue_id())).filter(|id| !id.is_empty());
    EventKind::Relayed(Box::new(Relayed { sender: cut(policy.raw_sender()), recipients, queue_id }))
}

fn cut(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned()
}
