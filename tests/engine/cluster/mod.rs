//! Several hosts with one set: what they agree on, whatever they hear in whatever order.

mod model;
mod recovery;
mod rules;

use std::time::Duration;

use pop_before_smtp::engine::cluster::entry::EntryId;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

use crate::support::engine_loop;
use crate::support::story::{self, START, ip};

const CLIENT: &str = "192.0.2.7";

/// An engine in a cluster, whose own clock is `skew` milliseconds ahead of the stream's.
struct Host {
    engine: Engine,
    skew: u64,
}

impl Host {
    fn new(name: &str, rules: Rules, skew: u64) -> Self {
        let mut engine = Engine::new(rules);
        engine.join_cluster(name.into(), skew);
        let mut host = Self { engine, skew };
        host.connect(0);
        host.engine.end_reading(host.now(0));
        // The stream lacks nothing.
        host.told(0, &mut 0);
        // From now on sessions count: this daemon logs their ends.
        host.login(0, "<22>Nov 22 07:35:28 imapd[29]: Logout user=joe host=[192.0.2.1]");
        host
    }

    /// Restarts from the state file; the store is away.
    fn restart(&mut self, time: u64, rules: Rules) {
        let now = self.now(time);
        let file = engine_loop::state(&self.engine, now);
        let name = self.engine.cluster().expect("it is in one").host().to_owned();
        self.engine = Engine::new(rules);
        self.engine.join_cluster(name.as_str().into(), self.skew);
        let restored = engine_loop::restore(&mut self.engine, now, &file);
        assert_eq!(restored.damaged, 0, "{file}");
        self.connect(time);
        self.engine.end_reading(now);
        // What it tells again the others know already.
        self.told(time, &mut 0);
        self.login(time, "<22>Nov 22 07:35:28 imapd[29]: Logout user=joe host=[192.0.2.1]");
    }

    fn now(&self, time: u64) -> Time {
        Time::from_millis(START + time + self.skew)
    }

    fn connect(&mut self, time: u64) {
        let store_time = Time::from_millis(START + time);
        self.engine.begin_reading(self.now(time), store_time, []);
    }

    fn login(&mut self, time: u64, frame: &str) {
        self.engine.process(self.now(time), Source::default(), frame.as_bytes());
    }

    /// Returns the texts of what this host tells; they have been added to the stream.
    fn told(&mut self, time: u64, next: &mut u64) -> Vec<(EntryId, String)> {
        let now = self.now(time);
        let mut told = Vec::new();
        loop {
            let untold = self.engine.untold(now, 100);
            for message in &untold.messages {
                *next += 1;
                let id = EntryId { millis: START + time, number: *next };
                self.engine.told(message, id);
                told.push((id, message.text.clone()));
            }
            if !untold.has_more {
                return told;
            }
        }
    }

    fn hear(&mut self, time: u64, entry: &(EntryId, String)) {
        self.engine.hear(self.now(time), entry.0, &entry.1);
    }

    /// Returns until when the client is admitted, by the stream's clock.
    fn admitted_until(&mut self, time: u64) -> Option<u64> {
        let now = self.now(time);
        self.engine.tick(now);
        let grant = self.engine.admits(now, ip(CLIENT))?;
        Some(grant.until.as_millis() - START - self.skew)
    }

    fn blocked_until(&self, time: u64) -> Option<u64> {
        let until = self.engine.blocked_until(self.now(time), ip(CLIENT))?;
        Some(until.as_millis() - START - self.skew)
    }
}

fn grace_rules() -> Rules {
    Rules {
        grace: Duration::from_millis(model::GRACE),
        session_ceiling: Some(Duration::from_millis(model::CEILING)),
        ..story::rules()
    }
}
