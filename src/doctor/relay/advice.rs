//! What to change so that a service queries pop-before-smtp in time.
//!
//! - **Promise**: changes are made in a copy of the configuration, which is evaluated again. Only
//!   changes after which it has no problem are printed. While our table does not exist, the commands
//!   fail before they change anything.

use std::path::Path;

use super::{Examination, Problem};
use crate::doctor::channels::Channel;
use crate::doctor::map::compiled_file;
use crate::doctor::postfix::corrections::{deciding, repaired, spared, usual, written};
use crate::doctor::postfix::restrictions::Restriction;
use crate::doctor::setup::{Change, EARLIER, LATER, Setup};

/// More than the lists that can have a problem.
const MAX_CHANGES: usize = 8;

/// Changes, and the configuration after them.
pub(super) struct Advice {
    changes: Vec<Change>,
    /// The configuration as it will be.
    pub(super) setup: Setup,
}

impl Examination<'_> {
    /// Returns the commands after which a service has no problem; without a service, main.cf.
    pub(super) fn fix(&self, service: Option<&str>) -> String {
        match self.advice(service) {
            Some(advice) => {
                let commands = self.setup.commands(&advice.changes);
                match self.unpublished(&advice) {
                    Some(table) => format!("{} && {commands}", self.setup.lookup_own(table)),
                    None => commands,
                }
            }
            None => format!("edit {}", self.by_hand()),
        }
    }

    /// Returns our table, if the changes name it and it does not exist yet: smtpd would answer 451 to
    /// everyone.
    fn unpublished(&self, advice: &Advice) -> Option<&str> {
        let Some(Channel::Map(table)) = self.channel() else { return None };
        let (kind, path) = table.split_once(':')?;
        let names = advice.changes.iter().any(|change| change.value.contains(table.as_str()));
        (names && compiled_file(kind, Path::new(path)).is_none()).then_some(table)
    }

    /// Says what an administrator has to do who knows better than we do.
    pub(super) fn by_hand(&self) -> String {
        let restriction = self.restriction();
        format!("main.cf and master.cf: `{restriction}` before what refuses every client")
    }

    /// Returns changes after which a service has no problem.
    pub(super) fn advice(&self, service: Option<&str>) -> Option<Advice> {
        let mut advice = Advice { changes: Vec::new(), setup: self.setup.clone() };
        for _ in 0..MAX_CHANGES {
            let now = self.on(&advice.setup);
            let Some(problem) = now.problem(service) else { return Some(advice) };
            let (change, setup) = now.change(service, &problem)?;
            // A list that is changed again is written once.
            advice.changes.retain(|before| before.list != change.list);
            advice.changes.push(change);
            advice.setup = setup;
        }
        None
    }

    /// Returns the first change of a list after which the list has no problem, and its result.
    fn change(&self, service: Option<&str>, problem: &Problem) -> Option<(Change, Setup)> {
        let list = self.setup.list(service, problem.list);
        let drop =
            |restriction: &Restriction| self.is_ours(restriction) || self.is_mistaken(restriction);
        let mut values = vec![written(&repaired(&list))];
        if EARLIER.contains(&problem.list) {
            let ours = self.restriction();
            values.push(spared(&list, drop, Restriction::refuses, &ours));
        } else if LATER.contains(&problem.list) {
            values.push(spared(&list, drop, Restriction::refuses, &self.restriction()));
        } else {
            let ours = self.deciding_restriction(&list);
            values.extend([deciding(&list, drop, &ours), usual(&list, &ours)]);
        }
        values.into_iter().find_map(|value| {
            let service = service.map(str::to_owned);
            let change = Change { service: service.clone(), list: problem.list, value };
            let setup = self.setup.with(&change);
            let again = self.on(&setup).problem(service.as_deref());
            again.is_none_or(|again| again.list != problem.list).then_some((change, setup))
        })
    }

    /// Returns our restriction as main.cf names it.
    pub(super) fn restriction(&self) -> String {
        self.channel().map_or_else(String::new, |channel| channel.restriction(&self.setup.queue))
    }

    /// Returns it for a list that decides on relaying.
    fn deciding_restriction(&self, list: &[Restriction]) -> String {
        let ours = self.restriction();
        // Mail for our own domains need not wait for a reply, unless the list refuses it too.
        let early = |r: &Restriction| r.name == "permit_auth_destination";
        let first = list.iter().find(|restriction| restriction.refuses());
        let all = first.is_some_and(|refusal| matches!(&*refusal.name, "reject" | "defer"));
        let is_asked = self.channel().is_some_and(|channel| channel.serve().is_some());
        if is_asked && !all && !list.iter().any(early) {
            format!("permit_auth_destination, {ours}")
        } else {
            ours
        }
    }

    /// Returns the channel that main.cf names already, or else the first: another one may lack the
    /// restriction of senders.
    fn channel(&self) -> Option<&Channel> {
        let named = self.channels.iter().find(|channel| self.is_named(channel));
        named.or_else(|| self.channels.first())
    }
}
