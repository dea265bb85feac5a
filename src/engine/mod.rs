//! The sentence itself: it hears that somebody has logged in, remembers the address until a
//! moment, and knows what Postfix should be told.
//!
//! Promise  a value with synchronous methods. It knows no clock, socket, disk, log or thread; the
//!          moment is an argument. It never panics on input. Calls that come early or twice
//!          change nothing. When in doubt an address is not listed.
//! Layers   `syslog` a frame's message; `daemons` what a message says; `streams` what it means
//!          after those before it; `exclude` and `grants` who may relay until when; `map` what
//!          Postfix should read; `state` what survives a restart.

pub mod address;
pub mod daemons;
pub mod examples;
pub mod exclude;
pub mod grants;
pub mod heard;
pub mod map;
pub mod state;

pub mod stats;
pub mod streams;
pub mod proof;
pub mod syslog;
pub mod time;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use daemons::{Event, Reading, Table};
use exclude::Exclude;
use grants::{By, Grant, Granted, Grants};
use heard::{Heard, Reason, Verdict};
use map::{Edition, Level};
use stats::Stats;
use streams::{Key, Source, Streams};
use syslog::{Frame, Message};
use time::Time;

/// Longest time for which the operator may authorise or block an address by hand.
pub const MAX_BY_HAND: Duration = Duration::from_secs(7 * 24 * 3600);
/// What rsyslog's `$RepeatedMsgReduction` puts before the message that was repeated.
const REPEATED: &str = "message repeated ";

/// What the administrator has decided; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Rules {
    /// The mail daemons that are believed.
    pub table: Table,
    /// How long a login authorises.
    pub grace: Duration,
    /// Most addresses held.
    pub max_clients: usize,
    /// Addresses that are never authorised.
    pub exclude: Exclude,
    /// Least time between two publications of the map.
    pub publish_interval: Duration,
    /// Whether the map gets IPv6 addresses whose key would admit other hosts too.
    pub publish_inexact: bool,
}

impl Default for Rules {
    /// The documented defaults, with no daemon and nobody excluded.
    fn default() -> Self {
        Self {
            table: Table::default(),
            grace: Duration::from_secs(30 * 60),
            max_clients: 65_536,
            exclude: Exclude::default(),
            publish_interval: Duration::from_secs(1),
            publish_inexact: false,
        }
    }
}

/// An address that has left the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The right it had.
    pub grant: Grant,
    /// Why it has left.
    pub why: WhyGone,
}

/// Why an address has left the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyGone {
    /// Its time was up.
    Expired,
    /// It would have ended first, and `max-clients` was reached.
    Evicted,
    /// The operator has ended it.
    Revoked,
    /// A reload has excluded it.
    Excluded,
}

impl WhyGone {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "no longer authorised: its time is up",
            Self::Evicted => "no longer authorised: max-clients is reached, and it would end first",
            Self::Revoked => "no longer authorised: revoked by hand",
            Self::Excluded => "no longer authorised: excluded by the new configuration",
        }
    }
}

/// The engine. See the head of this file.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    streams: Streams,
    grants: Grants,
    blocked: HashMap<IpAddr, Time>,
    level: Level,
    gone: Vec<Gone>,
    dirty: HashSet<IpAddr>,
    dirty_blocks: HashSet<IpAddr>,
    stats: Stats,
}

impl Engine {
    /// An engine that holds nobody. An edition of the map is due at once.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            streams: Streams::default(),
            grants: Grants::default(),
            blocked: HashMap::new(),
            level: Level::unknown(),
            gone: Vec::new(),
            dirty: HashSet::new(),
            dirty_blocks: HashSet::new(),
            stats: Stats::default(),
        }
    }

    /// Hears one frame: the bytes of one datagram, which are one message.
    pub fn hear(&mut self, now: Time, source: Source, frame: &[u8]) -> Heard {
        self.stats.frames += 1;
        let frame = Frame::new(frame);
        match frame.message() {
            Ok(message) => {
                let length = frame.raw_body_len(&message);
                self.hear_message(now, source, &message, length)
            }
            Err(why) => {
                self.stats.malformed += 1;
                Heard::nothing(Reason::Malformed(why))
            }
        }
    }

    fn hear_message(
        &mut self,
        now: Time,
        source: Source,
        message: &Message<'_>,
        length: usize,
    ) -> Heard {
        let stream = self.streams.stream(source, message);
        if let Some(cut) = self.rules.table.cut_length(message.program) {
            match self.streams.is_tail(stream, length >= cut) {
                Ok(false) => {}
                Ok(true) => return Heard::nothing(Reason::Tail),
                Err(streams::Full) => return self.overloaded(),
            }
        }
        if message.text().starts_with(REPEATED) {
            return Heard::nothing(Reason::Repeated);
        }
        let process = self.streams.process(source, message);
        let (daemon, event) = match self.rules.table.read(message, length) {
            Reading::UnknownProgram => {
                self.stats.other_programs += 1;
                return Heard::nothing(Reason::UnknownProgram(message.program.to_owned()));
            }
            Reading::NoPattern(daemon) => {
                self.stats.daemons.entry(daemon.name.clone()).or_default().unmatched += 1;
                return Heard { daemon: Some(daemon.name.clone()), ..nothing(Reason::NoPattern) };
            }
            Reading::Refused(daemon, why) => {
                self.stats.refused += 1;
                let daemon = Some(daemon.name.clone());
                return Heard { daemon, ..nothing(Reason::Refused(why)) };
            }
            Reading::Event(daemon, event) => (daemon, event),
        };
        let name = daemon.name.clone();
        // A daemon that can lose its credit loses it for the whole stream if it logs no PID.
        let suspect = daemon.distrusts().then_some(process.unwrap_or(stream));
        let joins = daemon.joins();
        let heard = match event {
            Event::Connect { address } => {
                if let Some(process) = process.or(suspect) {
                    self.streams.connect(process, address.filter(|_| joins), now);
                }
                let (verdict, reason) = match address {
                    Some(_) if joins => (Verdict::Partial, Reason::Connected),
                    _ => (Verdict::None, Reason::ConnectedOnly),
                };
                Heard { verdict, address, ..nothing(reason) }
            }
            Event::End => {
                if let Some(process) = process {
                    self.streams.end(process);
                }
                nothing(Reason::Ended)
            }
            Event::Distrust => match suspect.map(|key| self.streams.distrust(key, now)) {
                Some(Err(streams::Full)) => self.overloaded(),
                _ => nothing(Reason::Distrust),
            },
            Event::Logout { address, user, session: _ } => {
                if let Some(process) = process {
                    self.streams.end(process);
                }
                Heard { verdict: Verdict::Logout, address, user, ..nothing(Reason::LoggedOut) }
            }
            Event::Login { address, user, session: _ } => {
                let by =
                    By::Login { daemon: name.clone(), user, host: message.host.map(str::to_owned) };
                self.hear_login(now, Login { process, suspect, address, by })
            }
        };
        Heard { daemon: Some(name), ..heard }
    }

    fn hear_login(&mut self, now: Time, login: Login) -> Heard {
        let By::Login { user, .. } = &login.by else { return nothing(Reason::NoPattern) };
        let user = user.clone();
        if let Some(suspect) = login.suspect
            && self.streams.is_distrusted(suspect, now)
        {
            self.stats.refused += 1;
            return Heard { user, ..nothing(Reason::Distrusted) };
        }
        let joined = login.address.is_none();
        let found = match (login.address, login.process) {
            (Some(address), _) => Ok(address),
            (None, None) => Err(Reason::NoPid),
            (None, Some(process)) => self.streams.login(process, now).ok_or(Reason::NoConnection),
        };
        let address = match found {
            Ok(address) => address,
            Err(reason) => return Heard { verdict: Verdict::Partial, user, ..nothing(reason) },
        };
        let heard = |verdict, reason| Heard {
            verdict,
            reason,
            daemon: None,
            address: Some(address),
            user: user.clone(),
        };
        if let Some(list) = self.rules.exclude.reason(address) {
            self.stats.excluded += 1;
            return heard(Verdict::Excluded, Reason::Excluded(list.to_owned()));
        }
        if self.blocked.get(&address).is_some_and(|until| now < *until) {
            self.stats.blocked += 1;
            return heard(Verdict::Excluded, Reason::Blocked);
        }
        self.count_login(now, &login.by);
        let granted = self.grant(now, address, login.by, self.rules.grace, None);
        let reason = if joined { Reason::Joined(granted) } else { Reason::LoggedIn(granted) };
        heard(Verdict::Login, reason)
    }

    fn count_login(&mut self, now: Time, by: &By) {
        self.stats.logins += 1;
        self.stats.last_login = Some(now);
        if let By::Login { daemon, .. } = by {
            let daemon = self.stats.daemons.entry(daemon.clone()).or_default();
            daemon.logins += 1;
            daemon.last_login = Some(now);
        }
    }

    fn overloaded(&mut self) -> Heard {
        self.stats.overloaded += 1;
        nothing(Reason::Overloaded)
    }

    fn grant(
        &mut self,
        now: Time,
        address: IpAddr,
        by: By,
        span: Duration,
        note: Option<String>,
    ) -> Granted {
        self.sweep(now);
        let granted = self.grants.grant(address, by, now, span, note);
        self.dirty.insert(address);
        if granted == Granted::New {
            self.stats.granted += 1;
            self.membership_changed(address);
            self.shrink();
        }
        granted
    }

    /// Makes the set obey `max_clients`.
    fn shrink(&mut self) {
        while let Some(grant) = self.grants.pop_excess(self.rules.max_clients) {
            self.stats.evicted += 1;
            self.left(grant, WhyGone::Evicted);
        }
    }

    fn left(&mut self, grant: Grant, why: WhyGone) {
        self.membership_changed(grant.address);
        // That its time is up is in the record of the grant itself.
        if why != WhyGone::Expired {
            self.dirty.insert(grant.address);
        }
        self.gone.push(Gone { grant, why });
    }

    fn membership_changed(&mut self, address: IpAddr) {
        if self.is_published(address) {
            self.level.change();
        }
    }

    /// Whether the map lists an address while it is authorised.
    pub fn is_published(&self, address: IpAddr) -> bool {
        self.rules.publish_inexact || !address::admits_others(address)
    }

    fn sweep(&mut self, now: Time) {
        while let Some(grant) = self.grants.pop_expired(now) {
            self.stats.expired += 1;
            self.left(grant, WhyGone::Expired);
        }
    }

    /// The truth, at the lookup: the right of an address at this moment.
    pub fn admits(&self, now: Time, address: IpAddr) -> Option<&Grant> {
        self.grants.at(address.to_canonical(), now)
    }

    /// Authorises an address by hand, for `span` or else for the grace period.
    ///
    /// # Errors
    /// The list on which the address stands as one that is never authorised.
    pub fn allow(
        &mut self,
        now: Time,
        address: IpAddr,
        span: Option<Duration>,
        note: Option<String>,
    ) -> Result<Granted, String> {
        let address = address.to_canonical();
        if let Some(list) = self.rules.exclude.reason(address) {
            return Err(list.to_owned());
        }
        if self.blocked.remove(&address).is_some() {
            self.dirty_blocks.insert(address);
        }
        let span = span.unwrap_or(self.rules.grace).min(MAX_BY_HAND);
        Ok(self.grant(now, address, By::Hand, span, note))
    }

    /// Ends the right of an address now, and refuses new ones for a while if asked to. Whether
    /// it had one.
    pub fn revoke(&mut self, now: Time, address: IpAddr, block: Option<Duration>) -> bool {
        let address = address.to_canonical();
        self.sweep(now);
        self.blocked.retain(|_, until| now < *until);
        if let Some(span) = block {
            self.blocked.insert(address, now + span.min(MAX_BY_HAND));
            self.dirty_blocks.insert(address);
        }
        let Some(grant) = self.grants.remove(address) else { return false };
        self.left(grant, WhyGone::Revoked);
        true
    }

    /// Housekeeping: takes out what has ended and tells what has left the set since the last call.
    pub fn tick(&mut self, now: Time) -> Vec<Gone> {
        self.sweep(now);
        self.blocked.retain(|_, until| now < *until);
        std::mem::take(&mut self.gone)
    }

    /// The next moment at which `tick` or `edition` has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        if !self.gone.is_empty() {
            return Some(Time::default());
        }
        let due = self.level.due().map(|(_, at)| at);
        [self.grants.first_deadline(), due].into_iter().flatten().min()
    }

    /// The whole map, if another edition than the published one is due.
    pub fn edition(&mut self, now: Time) -> Option<Edition> {
        self.sweep(now);
        let (number, at) = self.level.due()?;
        if now < at {
            return None;
        }
        let listed = |grant: &&Grant| self.is_published(grant.address);
        let mut addresses: Vec<_> =
            self.grants.iter().filter(listed).map(|grant| grant.address).collect();
        addresses.sort_unstable();
        Some(Edition { number, addresses })
    }

    /// The last edition: a map without any entry.
    pub fn farewell(&mut self) -> Edition {
        self.level.change();
        Edition { number: self.level.wanted(), addresses: Vec::new() }
    }

    /// Edition `number` is what Postfix reads from now on.
    pub fn published(&mut self, number: u64, now: Time) {
        self.level.published(number, now, self.rules.publish_interval);
    }

    /// An edition could not be published. How long the pause before the next attempt is.
    pub fn failed(&mut self, now: Time) -> Duration {
        self.level.failed(now)
    }

    /// The state of publication.
    pub fn level(&self) -> &Level {
        &self.level
    }

    /// Replaces the rules and keeps the set, but for addresses that are excluded now.
    pub fn reload(&mut self, rules: Rules) {
        let inexact_changed = self.rules.publish_inexact != rules.publish_inexact;
        self.rules = rules;
        self.drop_excluded();
        self.shrink();
        if inexact_changed {
            self.level.change();
        }
    }

    /// Replaces the lists of those that are never authorised.
    pub fn exclude(&mut self, exclude: Exclude) {
        self.rules.exclude = exclude;
        self.drop_excluded();
    }

    fn drop_excluded(&mut self) {
        let excluded = |grant: &&Grant| self.rules.exclude.reason(grant.address).is_some();
        let addresses: Vec<_> = self.grants.iter().filter(excluded).map(|g| g.address).collect();
        for address in addresses {
            if let Some(grant) = self.grants.remove(address) {
                self.left(grant, WhyGone::Excluded);
            }
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// All rights that are in force at this moment, by address.
    pub fn list(&self, now: Time) -> Vec<Grant> {
        let mut list: Vec<_> = self.grants.iter().filter(|g| now < g.until).cloned().collect();
        list.sort_unstable_by_key(|grant| grant.address);
        list
    }

    /// How many addresses are authorised at this moment.
    pub fn clients_at(&mut self, now: Time) -> usize {
        self.sweep(now);
        self.grants.len()
    }

    /// How many addresses are held and kept out of the map because their key would admit others.
    pub fn unpublished(&self) -> usize {
        self.grants.iter().filter(|grant| !self.is_published(grant.address)).count()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// A login on its way to a verdict.
struct Login {
    process: Option<Key>,
    suspect: Option<Key>,
    address: Option<IpAddr>,
    by: By,
}

fn nothing(reason: Reason) -> Heard {
    Heard::nothing(reason)
}
