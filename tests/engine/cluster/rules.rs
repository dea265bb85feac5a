//! The merge, in random histories of three hosts: duplicates, losses, any order, clocks that differ.

use super::model::{self, Record, Rule};
use super::{CLIENT, Host, grace_rules};
use crate::support::random::{Random, setting};
use crate::support::story::{ip, login_frame};
use pop_before_smtp::engine::cluster::entry::EntryId;
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Login,
    Session,
    LogOut,
    Revoke(Option<u64>),
    Allow,
    Nothing,
}

fn step(random: &mut Random) -> Step {
    match random.below(100) {
        0..30 => Step::Login,
        30..40 => Step::Session,
        40..50 => Step::LogOut,
        50..65 => Step::Revoke([None, Some(10_000), Some(60_000)][random.index(3)]),
        65..72 => Step::Allow,
        _ => Step::Nothing,
    }
}

fn tell(host: &mut model::Host, time: u64, step: Step) -> Vec<Record> {
    match step {
        Step::Login => host.login(time, false),
        Step::Session => host.login(time, true),
        Step::LogOut => host.log_out(time),
        Step::Revoke(block) => host.revoke(time, block),
        Step::Allow => host.allow(time, 40_000),
        Step::Nothing => Vec::new(),
    }
}

/// What is wrong in one random history of models.
fn faults(rule: Rule, seed: u64) -> Vec<&'static str> {
    let mut random = Random::new(seed);
    let mut hosts = NAMES.map(|name| model::Host::new(rule, name));
    let (mut log, mut time, mut faults) = (Vec::<Record>::new(), 0, Vec::new());
    let (mut given, mut blocks, mut allows) = (Vec::new(), Vec::new(), 0);
    // Of each login, until when it counts and the epoch that its host knew.
    let mut logins = Vec::new();
    for _ in 0..3 + random.below(22) {
        time += random.below(20) * 1000;
        let (at, step) = (random.index(3), step(&mut random));
        let host = &mut hosts[at];
        let records = tell(host, time, step);
        match step {
            Step::Login | Step::Session if !records.is_empty() => {
                let span = if matches!(step, Step::Login) { model::GRACE } else { model::CEILING };
                given.push((time, time + span));
                logins.push((time + span, host.epoch));
            }
            Step::LogOut if !records.is_empty() => {
                given.push((time, time + model::GRACE));
                logins.push((time + model::GRACE, host.epoch));
            }
            Step::Allow => {
                allows += 1;
                given.push((time, time + 40_000));
            }
            Step::Revoke(block) => blocks.push((host.epoch, time + block.unwrap_or_default())),
            _ => {}
        }
        log.extend(records);
        for host in &mut hosts {
            for _ in 0..random.index(log.len() + 1) {
                host.hear(time, &log[random.index(log.len())]);
            }
            let Some(until) = host.admitted_until(time) else { continue };
            if !given.iter().any(|(_, end)| *end >= until) {
                faults.push("longer than anything that was given");
            }
            let undone = |(epoch, end): &(model::Epoch, u64)| {
                time < *end && host.blocks.contains_key(epoch) && !host.lifted.contains(epoch)
            };
            if blocks.iter().any(undone) {
                faults.push("a block was undone");
            }
        }
    }
    for host in &mut hosts {
        let mut all: Vec<&Record> = log.iter().collect();
        for place in (1..all.len()).rev() {
            all.swap(place, random.index(place + 1));
        }
        all.into_iter().for_each(|record| host.hear(time, record));
    }
    let latest = blocks.iter().map(|(epoch, _)| *epoch).max();
    let lifted = |epoch: &model::Epoch| hosts.iter().any(|host| host.lifted.contains(epoch));
    for later in (time..time + 80_000).step_by(3000) {
        let untils = hosts.each_ref().map(|host| host.admitted_until(later));
        if untils.iter().any(|until| *until != untils[0]) {
            faults.push("the hosts do not agree");
        }
        let lasts = |(epoch, end): &(model::Epoch, u64)| later < *end && !lifted(epoch);
        if untils.iter().any(Option::is_some) && blocks.iter().any(lasts) {
            faults.push("a block was undone at last");
        }
        let explained =
            |until: u64| logins.iter().any(|(end, epoch)| *end >= until && Some(*epoch) >= latest);
        if allows == 0 && latest.is_some() && untils[0].is_some_and(|until| !explained(until)) {
            faults.push("a revoked grant was revived");
        }
    }
    faults
}

fn histories() -> u64 {
    setting("CLUSTER_HISTORIES").unwrap_or(600)
}

#[test]
fn the_rule_keeps_its_promises() {
    for seed in 0..histories() {
        assert_eq!(faults(Rule::Epochs, seed), Vec::<&str>::new(), "seed {seed}");
    }
}

#[test]
fn simpler_rules_break_them() {
    let found = |rule| -> Vec<&str> {
        let mut found: Vec<_> = (0..1000).flat_map(|seed| faults(rule, seed)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let later = found(Rule::LaterDeadline);
    assert!(later.contains(&"a revoked grant was revived"), "{later:?}");
    let last = found(Rule::LastBlock);
    assert!(last.contains(&"the hosts do not agree"), "{last:?}");
    assert!(last.contains(&"a block was undone at last"), "{last:?}");
}

fn act(host: &mut Host, time: u64, step: Step) {
    let now = host.now(time);
    let client = ip(CLIENT);
    let uw = |text: &str| format!("<22>Nov 22 07:35:28 imapd[39]: {text} user=joe host=[{CLIENT}]");
    match step {
        Step::Login => host.login(time, &login_frame(CLIENT)),
        Step::Session => host.login(time, &uw("Login")),
        Step::LogOut => host.login(time, &uw("Logout")),
        Step::Revoke(block) => {
            _ = host.engine.revoke(now, client, block.map(Duration::from_millis))
        }
        Step::Allow => {
            let span = Some(Duration::from_secs(40));
            host.engine.allow(now, client, span, None).expect("nothing is excluded");
        }
        Step::Nothing => {}
    }
}

/// Returns whether two deadlines are the same, apart from the milliseconds by which what is told in
/// the same one is told later.
fn is_near(found: Option<u64>, shown: Option<u64>) -> bool {
    match (found, shown) {
        (Some(found), Some(shown)) => found <= shown && shown - found < 30,
        (found, shown) => found == shown,
    }
}

/// The engine does what the model does, step by step: with clocks that are hours apart.
#[test]
fn the_engine_follows_the_rule() {
    for seed in 0..histories() / 10 {
        let mut random = Random::new(seed);
        let skews = [0, 3_600_000 * random.below(2), 7 * random.below(1000)];
        let mut index = 0;
        let mut hosts = NAMES.map(|name| {
            index += 1;
            (model::Host::new(Rule::Epochs, name), Host::new(name, grace_rules(), skews[index - 1]))
        });
        let mut log: Vec<(Record, (EntryId, String))> = Vec::new();
        let (mut time, mut next) = (0, 0);
        for number in 0..3 + random.below(22) {
            time += random.below(20) * 1000;
            let (at, mut step) = (random.index(3), step(&mut random));
            let (model, host) = &mut hosts[at];
            host.admitted_until(time);
            if random.below(20) == 0 {
                model.restart(time);
                host.restart(time, grace_rules());
            }
            // Otherwise the engine takes it for one that has overtaken its login.
            if matches!(step, Step::LogOut) && !model.has_session(time) {
                step = Step::Nothing;
            }
            let mut records = tell(model, time, step);
            act(host, time, step);
            let told = host.told(time, &mut next);
            if told.len() > records.len() {
                records.extend(model.tell_again());
            }
            assert_eq!(
                records.len(),
                told.len(),
                "seed {seed} step {number} {step:?}: {records:?} {told:?}"
            );
            log.extend(records.into_iter().zip(told));
            for (model, host) in &mut hosts {
                for _ in 0..random.index(log.len() + 1) {
                    let (record, entry) = &log[random.index(log.len())];
                    model.hear(time, record);
                    host.hear(time, entry);
                }
                let shown = (model.admitted_until(time), model.blocked_until(time));
                let found = (host.admitted_until(time), host.blocked_until(time));
                let name = model.name;
                assert!(
                    is_near(found.0, shown.0) && is_near(found.1, shown.1),
                    "seed {seed} step {number} {step:?} host {name}: {found:?}, expected {shown:?}"
                );
            }
        }
    }
}
