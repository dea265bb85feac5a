//! The rule by which hosts merge what they tell each other, as a model of one address; and two rules
//! that look simpler, for which the same checks fail.

use std::collections::{BTreeMap, BTreeSet};

/// The grace of a login, in milliseconds.
pub const GRACE: u64 = 30_000;
/// How long an open session counts.
pub const CEILING: u64 = 60_000;

/// The number of a revocation, and the host that made it.
pub type Epoch = (u32, &'static str);

/// How hosts merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The rule of the engine.
    Epochs,
    /// The later deadline wins, and a revocation is heard once.
    LaterDeadline,
    /// Of two blocks the one that was heard last counts.
    LastBlock,
}

/// What a host tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Part { host: &'static str, part: Part },
    Ruling { epoch: Epoch, blocks: BTreeMap<Epoch, u64>, lifted: BTreeSet<Epoch> },
}

/// What one host has granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    epoch: Epoch,
    sequence: u64,
    /// Until when logins count.
    login: u64,
    /// Until when the operator's grant lasts.
    manual: u64,
}

impl Part {
    fn until(self) -> u64 {
        self.login.max(self.manual)
    }

    fn max(self, other: Self) -> Self {
        let (login, manual) = (self.login.max(other.login), self.manual.max(other.manual));
        Self { login, manual, ..self }
    }
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    rule: Rule,
    pub name: &'static str,
    pub epoch: Epoch,
    pub blocks: BTreeMap<Epoch, u64>,
    pub lifted: BTreeSet<Epoch>,
    parts: BTreeMap<&'static str, Part>,
    session: Option<u64>,
    sequence: u64,
}

impl Host {
    pub fn new(rule: Rule, name: &'static str) -> Self {
        Self {
            rule,
            name,
            epoch: (0, ""),
            blocks: BTreeMap::new(),
            lifted: BTreeSet::new(),
            parts: BTreeMap::new(),
            session: None,
            sequence: 0,
        }
    }

    pub fn blocked_until(&self, now: u64) -> Option<u64> {
        let lasting = self.blocks.iter().filter(|(epoch, _)| !self.lifted.contains(epoch));
        lasting.map(|(_, until)| *until).max().filter(|until| now < *until)
    }

    pub fn admitted_until(&self, now: u64) -> Option<u64> {
        if self.blocked_until(now).is_some() {
            return None;
        }
        let parts = self.parts.values().filter(|part| part.epoch == self.epoch);
        parts.map(|part| part.until()).max().filter(|until| now < *until)
    }

    /// A session does not outlive the grant.
    fn settle(&mut self, now: u64) {
        if self.admitted_until(now).is_none() {
            self.session = None;
        }
    }

    /// Sessions are not restored.
    pub fn restart(&mut self, now: u64) {
        self.session = None;
        if let Some(own) = self.parts.get_mut(self.name) {
            own.login = own.login.min(now + GRACE);
        }
    }

    pub fn has_session(&mut self, now: u64) -> bool {
        self.settle(now);
        self.session.is_some_and(|until| now < until)
    }

    fn own(&self) -> Option<Part> {
        self.parts.get(self.name).copied().filter(|part| part.epoch == self.epoch)
    }

    fn put_own(&mut self, part: Part) -> Option<Record> {
        let is_same = |own: Part| (own.login, own.manual) == (part.login, part.manual);
        if self.own().is_some_and(is_same) { None } else { Some(self.tell(part)) }
    }

    /// Tells the own part as it is: what users and notes it has is no part of the model.
    pub fn tell_again(&mut self) -> Option<Record> {
        let own = self.own()?;
        Some(self.tell(own))
    }

    fn tell(&mut self, part: Part) -> Record {
        self.sequence += 1;
        let part = Part { epoch: self.epoch, sequence: self.sequence, ..part };
        self.parts.insert(self.name, part);
        Record::Part { host: self.name, part }
    }

    fn ruling(&self) -> Record {
        let (blocks, lifted) = (self.blocks.clone(), self.lifted.clone());
        Record::Ruling { epoch: self.epoch, blocks, lifted }
    }

    pub fn login(&mut self, now: u64, has_session: bool) -> Vec<Record> {
        self.settle(now);
        if self.blocked_until(now).is_some() {
            return Vec::new();
        }
        let span = if has_session { CEILING } else { GRACE };
        if has_session {
            self.session = Some(now + CEILING);
        }
        let own = self.own().filter(|own| now < own.until()).unwrap_or_default();
        let login = own.login.max(now + span);
        self.put_own(Part { login, ..own }).into_iter().collect()
    }

    pub fn log_out(&mut self, now: u64) -> Vec<Record> {
        self.settle(now);
        let is_open = self.session.take().is_some_and(|until| now < until);
        match self.own() {
            Some(own) if is_open && now < own.until() => {
                self.put_own(Part { login: now + GRACE, ..own }).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn revoke(&mut self, now: u64, block: Option<u64>) -> Vec<Record> {
        self.epoch = (self.epoch.0 + 1, self.name);
        if self.rule == Rule::LastBlock {
            self.blocks.clear();
        }
        if let Some(block) = block {
            self.blocks.insert(self.epoch, now + block);
        }
        self.parts.clear();
        self.settle(now);
        vec![self.ruling()]
    }

    pub fn allow(&mut self, now: u64, span: u64) -> Vec<Record> {
        let mut records = Vec::new();
        if self.blocked_until(now).is_some() {
            self.lifted.extend(self.blocks.keys());
            self.epoch = (self.epoch.0 + 1, self.name);
            self.parts.clear();
            records.push(self.ruling());
        }
        let base = self.own().filter(|own| now < own.until()).unwrap_or_default();
        let manual = base.manual.max(now + span);
        records.extend(self.put_own(Part { manual, ..base }));
        records
    }

    pub fn hear(&mut self, now: u64, record: &Record) {
        match record {
            Record::Part { host, part: new } => {
                let (epoch, sequence) = (&new.epoch, &new.sequence);
                let known = self.parts.get(host).copied();
                if self.rule == Rule::LaterDeadline {
                    let part = Part { epoch: self.epoch, ..*new }.max(known.unwrap_or_default());
                    self.parts.insert(*host, part);
                } else if *epoch >= self.epoch {
                    if *epoch > self.epoch {
                        self.parts.clear();
                    }
                    let known = known.filter(|known| known.epoch == *epoch);
                    if known.is_none_or(|known| *sequence > known.sequence) {
                        self.parts.insert(*host, *new);
                    }
                    self.epoch = *epoch;
                }
            }
            Record::Ruling { epoch, blocks, lifted } => {
                if self.rule == Rule::LastBlock {
                    self.blocks.clear();
                }
                if *epoch > self.epoch {
                    (self.epoch, self.parts) = (*epoch, BTreeMap::new());
                }
                for (epoch, until) in blocks {
                    let known = self.blocks.entry(*epoch).or_insert(*until);
                    *known = (*known).max(*until);
                }
                self.lifted.extend(lifted);
            }
        }
        self.settle(now);
    }
}
