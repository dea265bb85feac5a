//! Random histories of the engine compared with a simple model, with crashes, restarts and a clock
//! that is set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, MAX_MANUAL, Rules};

use crate::support::engine_loop;
use crate::support::random::Random;
use crate::support::story::{START, excluding, login_frame, rules};

/// A grant in the model: the deadlines from logins and from the operator, and when the latter was
/// made.
#[derive(Clone, Debug, Default)]
struct ModelGrant {
    login: u64,
    given: u64,
    manual: u64,
}

impl ModelGrant {
    fn until(&self) -> u64 {
        self.login.max(self.manual)
    }
}

/// The same promises in a simple form. Expired grants stay, as their records stay in the file: a
/// clock that is set back revives them, for at most the grace period.
#[derive(Clone, Debug, Default)]
struct Model {
    grants: BTreeMap<IpAddr, ModelGrant>,
    blocks: BTreeMap<IpAddr, u64>,
    /// What has changed since the file was written.
    changed: BTreeSet<IpAddr>,
    changed_blocks: BTreeSet<IpAddr>,
}

const WEEK: u64 = MAX_MANUAL.as_millis() as u64;

impl Model {
    fn admitted(&self, now: u64) -> Vec<IpAddr> {
        let live = self.grants.iter().filter(|(_, grant)| now < grant.until());
        live.map(|(address, _)| *address).collect()
    }

    fn grant(&mut self, now: u64, address: IpAddr, span: u64, is_manual: bool) {
        self.changed.insert(address);
        let grant = self.grants.entry(address).or_default();
        if grant.login <= now {
            grant.login = 0;
        }
        if grant.manual <= now {
            grant.manual = 0;
        }
        if !is_manual {
            grant.login = grant.login.max(now + span);
        } else if grant.manual <= now + span {
            (grant.given, grant.manual) = (now, now + span);
        }
    }

    /// Evicts what is closest to expiry: of several at the same moment, what the engine has evicted.
    fn shrink(&mut self, now: u64, most: usize, engine: &Engine) {
        let is_held = |address| engine.admits(Time::from_millis(now), address).is_some();
        while self.admitted(now).len() > most {
            let live = self.grants.iter().filter(|(_, grant)| now < grant.until());
            let first = live.min_by_key(|(address, grant)| (grant.until(), is_held(**address)));
            let first = *first.expect("there are more than most").0;
            self.remove(first);
        }
    }

    fn remove(&mut self, address: IpAddr) {
        self.grants.remove(&address);
        self.changed.insert(address);
    }

    fn block(&mut self, address: IpAddr, until: Option<u64>) {
        self.changed_blocks.insert(address);
        match until {
            Some(until) => self.blocks.insert(address, until),
            None => self.blocks.remove(&address),
        };
    }

    /// The file gets what has changed; an expired grant has no record of its last change.
    fn save(&mut self, now: u64) {
        let changed = std::mem::take(&mut self.changed);
        self.grants.retain(|address, grant| !changed.contains(address) || now < grant.until());
        let changed = std::mem::take(&mut self.changed_blocks);
        self.blocks.retain(|address, until| !changed.contains(address) || now < *until);
    }

    fn restart(&mut self, now: u64, grace: u64, excluded: IpAddr) {
        self.blocks.retain(|_, until| now < *until);
        self.blocks.values_mut().for_each(|until| *until = (*until).min(now + WEEK));
        let blocks = &self.blocks;
        self.grants.retain(|address, grant| {
            now < grant.until() && *address != excluded && !blocks.contains_key(address)
        });
        for grant in self.grants.values_mut() {
            grant.login = grant.login.min(now + grace);
            grant.manual =
                grant.manual.min(now + WEEK.min(grant.manual.saturating_sub(grant.given)));
            grant.given = grant.given.min(now);
        }
    }

    /// The file is written again.
    fn rewrite(&mut self) {
        (self.changed, self.changed_blocks) = Default::default();
    }
}

/// The engine always has the set of the model, and a crash forgets exactly what came after the last
/// journal.
#[test]
fn the_engine_equals_the_model_after_any_history() {
    for seed in 1..=12 {
        history(seed, 1500);
    }
}

fn history(seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let clients: Vec<IpAddr> = (1..=10).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let nobody = IpAddr::from([203, 0, 113, 1]);
    let (mut grace, mut most, mut excluded) = (1_800_000, 6, nobody);
    let rules = |grace, most, excluded: IpAddr| Rules {
        grace: Duration::from_millis(grace),
        max_clients: most,
        exclude: excluding(&[("excluded", &format!("{excluded}/32"))]),
        ..rules()
    };
    let mut now = START;
    let mut engine = Engine::new(rules(grace, most, excluded));
    let mut file = engine_loop::state(&engine, Time::from_millis(now));
    let mut model = Model::default();
    // The model as of the file.
    let mut saved = model.clone();
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        now += [0, 1, 999, 60_000, 400_000][random.below(5) as usize];
        let at = Time::from_millis(now);
        let client = clients[random.below(clients.len() as u64) as usize];
        match random.below(20) {
            0..=9 => {
                engine.process(at, Source::default(), login_frame(client).as_bytes());
                if client != excluded && model.blocks.get(&client).is_none_or(|&end| end <= now) {
                    model.grant(now, client, grace, false);
                    model.shrink(now, most, &engine);
                }
            }
            10 | 11 => {
                let span = 1000 * (1 + random.below(20_000));
                let allowed = engine.allow(at, client, Some(Duration::from_millis(span)), None);
                assert_eq!(allowed.is_err(), client == excluded, "{context}");
                if allowed.is_ok() {
                    model.block(client, None);
                    model.grant(now, client, span, true);
                    model.shrink(now, most, &engine);
                }
            }
            12 | 13 => {
                let block = (random.below(2) == 0).then(|| 1000 * (1 + random.below(2_000)));
                let had = engine.revoke(at, client, block.map(Duration::from_millis));
                let grant = model.grants.get(&client).is_some_and(|grant| now < grant.until());
                assert_eq!(had, grant, "{context}");
                if had {
                    model.remove(client);
                }
                if let Some(span) = block {
                    model.block(client, Some(now + span));
                }
            }
            14 => {
                grace = 60_000 * (1 + random.below(60));
                most = 1 + random.below(10) as usize;
                excluded = if random.below(2) == 0 { client } else { nobody };
                engine.tick(at);
                engine.reload(at, rules(grace, most, excluded));
                if model.grants.get(&excluded).is_some_and(|grant| now < grant.until()) {
                    model.remove(excluded);
                }
                model.shrink(now, most, &engine);
            }
            15 => {
                engine_loop::journal(&mut engine);
                file = engine_loop::state(&engine, at);
                model.grants.retain(|_, grant| now < grant.until());
                model.blocks.retain(|_, until| now < *until);
                model.save(now);
                saved = model.clone();
            }
            16 => {
                if random.below(2) == 0 {
                    // A crash before the file has the last changes.
                    model = saved.clone();
                } else {
                    engine.tick(at);
                    file += &engine_loop::journal(&mut engine);
                    model.save(now);
                }
                // The clock may have been set, in either direction.
                now = match random.below(4) {
                    0 => now.saturating_sub(random.below(4_000_000)),
                    1 => now + random.below(4_000_000),
                    _ => now,
                };
                engine = Engine::new(rules(grace, most, excluded));
                engine_loop::restore(&mut engine, Time::from_millis(now), &file);
                file = engine_loop::state(&engine, Time::from_millis(now));
                engine_loop::journal(&mut engine);
                model.restart(now, grace, excluded);
                model.shrink(now, most, &engine);
                model.rewrite();
                saved = model.clone();
            }
            17 | 18 => {
                engine.tick(at);
                file += &engine_loop::journal(&mut engine);
                model.save(now);
                saved = model.clone();
            }
            _ => drop(engine.tick(at)),
        }
        let at = Time::from_millis(now);
        let admitted: Vec<IpAddr> =
            clients.iter().copied().filter(|c| engine.admits(at, *c).is_some()).collect();
        assert_eq!(admitted, model.admitted(now), "{context}\n{file}\n{model:?}");
        for address in admitted {
            let until = engine.admits(at, address).expect("just admitted").until.as_millis();
            assert_eq!(until, model.grants[&address].until(), "{context}: {address}\n{file}");
        }
        if let Some(generation) = engine_loop::generation(&mut engine, at) {
            assert_eq!(generation.addresses, model.admitted(now), "{context}");
            engine.published(generation.number, at);
        }
    }
}
