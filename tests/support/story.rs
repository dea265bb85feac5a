//! Stories: tests of the engine as scripts with an invented clock.
//!
//! - **Promise**: nothing waits, and nothing is read or written; a restart keeps the text that the
//!   engine itself has written.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::events::WatchEvent;
use pop_before_smtp::engine::grants::exclude::{Exclude, NetworkList};
use pop_before_smtp::engine::maildaemons::{DaemonTable, MailDaemon, Selection};
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Outcome, Reason, Verdict};
use pop_before_smtp::engine::{Engine, Rules};

use super::engine_loop;

/// Second 0 of every story, in milliseconds since 1970.
pub const START: u64 = 1_795_000_000_000;

/// Returns the default rules: 30 minutes, all verified daemons, no exclusions.
pub fn rules() -> Rules {
    static DAEMONS: OnceLock<Vec<MailDaemon>> = OnceLock::new();
    let daemons = DAEMONS.get_or_init(|| {
        let table =
            DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons are sound");
        table.daemons().to_vec()
    });
    Rules { table: DaemonTable::of(daemons.clone()), ..Rules::default() }
}

/// Creates exclusion lists from names and networks.
pub fn excluding(lists: &[(&str, &str)]) -> Exclude {
    let list = |(name, network): &(&str, &str)| {
        NetworkList::new(*name, [network.parse().expect("a network")])
    };
    Exclude(lists.iter().map(list).collect())
}

/// Returns the frame of a login as logged by Dovecot.
pub fn login_frame(address: impl std::fmt::Display) -> String {
    format!(
        "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
         rip={address}, lip=192.0.2.1, mpid=7, session=<a>"
    )
}

/// Parses an address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A running story.
pub struct Story {
    name: &'static str,
    engine: Engine,
    file: String,
    now: Time,
}

/// Begins a story with the default rules.
pub fn story(name: &'static str) -> Story {
    story_with(name, rules())
}

/// Begins a story with these rules. The empty map of the start has been published.
pub fn story_with(name: &'static str, rules: Rules) -> Story {
    let now = Time::from_millis(START);
    let mut engine = Engine::new(rules);
    let file = engine_loop::state(&engine, now);
    engine.published(1, Time::default());
    Story { name, engine, file, now }
}

impl Story {
    /// Sets the clock to this many seconds.
    pub fn at(self, seconds: u64) -> Self {
        self.at_ms(seconds * 1000)
    }

    /// Brings the state file up to date, and sets the clock to this many milliseconds.
    pub fn at_ms(mut self, millis: u64) -> Self {
        self.save();
        self.now = Time::from_millis(START + millis);
        self
    }

    /// A client logs in, and it counts.
    pub fn login(self, address: &str) -> Self {
        let frame = login_frame(address);
        self.process(&frame, Verdict::Login)
    }

    /// A client logs in from an address that is refused for this reason.
    pub fn refused_login(mut self, address: &str, reason: &Reason) -> Self {
        let outcome = self.frame(Source::default(), &login_frame(address));
        self.check(&outcome.reason, reason, address);
        self
    }

    /// A frame arrives with the verdict `none` and this reason.
    pub fn refused(mut self, frame: &str, reason: &Reason) -> Self {
        let outcome = self.frame(Source::default(), frame);
        self.check(&(outcome.verdict, &outcome.reason), &(Verdict::None, reason), frame);
        self
    }

    /// A frame arrives on the only socket.
    pub fn process(mut self, frame: &str, verdict: Verdict) -> Self {
        let outcome = self.frame(Source::default(), frame);
        self.check(&outcome.verdict, &verdict, frame);
        self
    }

    /// A frame arrives from a sender.
    pub fn process_from(mut self, sender: &str, frame: &str, verdict: Verdict) -> Self {
        let source = Source { sender: Some(ip(sender)), ..Source::default() };
        let outcome = self.frame(source, frame);
        self.check(&outcome.verdict, &verdict, frame);
        self
    }

    fn frame(&mut self, source: Source, frame: &str) -> Outcome {
        self.engine.process(self.now, source, frame.as_bytes())
    }

    fn save(&mut self) {
        self.file += &engine_loop::journal(&mut self.engine);
    }

    /// The operator authorises an address, for some seconds or for the grace period.
    pub fn allow(mut self, address: &str, seconds: Option<u64>) -> Self {
        let span = seconds.map(Duration::from_secs);
        let allowed = self.engine.allow(self.now, ip(address), span, None);
        assert!(allowed.is_ok(), "{}: {address}: {allowed:?}", self.name);
        self
    }

    /// The operator may not authorise an address, because it is in this list.
    pub fn refuses_to_allow(mut self, address: &str, list: &str) -> Self {
        let refusal = self.engine.allow(self.now, ip(address), None, None);
        self.check(&refusal, &Err(list.to_owned()), address);
        self.rejects(&[address])
    }

    /// The operator revokes a grant, and refuses new ones for some seconds.
    pub fn revoke(mut self, address: &str, block: Option<u64>, had_one: bool) -> Self {
        let had = self.engine.revoke(self.now, ip(address), block.map(Duration::from_secs));
        self.check(&had, &had_one, address);
        self
    }

    /// Asserts that these addresses may relay.
    pub fn admits(self, addresses: &[&str]) -> Self {
        for address in addresses {
            let grant = self.engine.admits(self.now, ip(address));
            assert!(grant.is_some(), "{}, at {}: not admitted: {address}", self.name, self.clock());
        }
        self
    }

    /// Asserts that these addresses may not relay.
    pub fn rejects(self, addresses: &[&str]) -> Self {
        for address in addresses {
            let grant = self.engine.admits(self.now, ip(address));
            assert_eq!(grant, None, "{}, at {}: admitted", self.name, self.clock());
        }
        self
    }

    /// Asserts that a generation with exactly these addresses is due, and publishes it.
    pub fn publishes(self, addresses: &[&str]) -> Self {
        let (mut story, number) = self.due(addresses);
        story.engine.published(number, story.now);
        story
    }

    /// The same, but something happens while postmap is running.
    pub fn publishes_while(self, addresses: &[&str], meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let (story, number) = self.due(addresses);
        let mut story = meanwhile(story);
        story.engine.published(number, story.now);
        story
    }

    /// Asserts that a generation with exactly these addresses is due, and fails to publish it; the
    /// next attempt is due after this many seconds and not earlier.
    pub fn fails_to_publish(self, addresses: &[&str], pause: u64) -> Self {
        let (mut story, _) = self.due(addresses);
        let found = story.engine.failed(story.now);
        story.check(&found.as_secs(), &pause, "the pause");
        let next = next_call(&story.engine);
        assert!(next <= Some(story.now + found), "{}: it sleeps for too long", story.name);
        story.quiet()
    }

    fn due(mut self, addresses: &[&str]) -> (Self, u64) {
        self.engine.tick(self.now);
        let generation = engine_loop::generation(&mut self.engine, self.now);
        let generation = generation
            .unwrap_or_else(|| panic!("{}, at {}: no generation is due", self.name, self.clock()));
        let expected: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
        self.check(&generation.addresses, &expected, "the map");
        (self, generation.number)
    }

    /// Asserts that no generation is due now.
    pub fn quiet(mut self) -> Self {
        self.engine.tick(self.now);
        let generation = engine_loop::generation(&mut self.engine, self.now);
        assert_eq!(generation, None, "{}, at {}: the map is not quiet", self.name, self.clock());
        self
    }

    /// Asserts when the engine wants to be called next, in milliseconds of the story.
    pub fn wakes_at_ms(self, millis: u64) -> Self {
        let expected = Some(Time::from_millis(START + millis));
        self.check(&next_call(&self.engine), &expected, "the next moment");
        self
    }

    /// The configuration is reloaded.
    pub fn reload(mut self, rules: Rules) -> Self {
        self.engine.reload(self.now, rules);
        self
    }

    /// The daemon restarts with these rules, and restores this from the file.
    pub fn restart(mut self, rules: Rules, expected: Restored) -> Self {
        self.save();
        self.engine = Engine::new(rules);
        let restored = engine_loop::restore(&mut self.engine, self.now, &self.file);
        let counted = Restored { is_current: false, ..restored };
        self.check(&counted, &expected, "what was restored");
        if !restored.is_current {
            self.file = engine_loop::state(&self.engine, self.now);
        }
        self
    }

    /// Another program changes the state file.
    pub fn edit_file(mut self, edit: impl FnOnce(String) -> String) -> Self {
        self.save();
        self.file = edit(self.file);
        self
    }

    /// Somebody begins to watch.
    pub fn watch(mut self) -> Self {
        self.engine.watch();
        self
    }

    /// Asserts that these are the events since the watch began, each as `event address user daemon
    /// expires`, with the seconds of the story.
    pub fn events(self, expected: &[&str]) -> Self {
        let events = self.engine.events();
        let since = events.since(events.first()).into_iter().flatten();
        let shown: Vec<String> = since.map(shown).collect();
        self.check(&shown, &expected.iter().map(|text| (*text).to_owned()).collect(), "events");
        self
    }

    /// Inspects the engine itself.
    pub fn inspect(self, inspect: impl FnOnce(&Engine)) -> Self {
        inspect(&self.engine);
        self
    }

    fn check<T: PartialEq + Debug>(&self, found: &T, expected: &T, what: &str) {
        assert_eq!(found, expected, "{}, at {}: {what}", self.name, self.clock());
    }

    fn clock(&self) -> String {
        format!("{:?}", self.now.since(Time::from_millis(START)))
    }
}

fn shown(event: &WatchEvent) -> String {
    let WatchEvent { kind, address, user, daemon, expires, .. } = event;
    let expires = expires.map(|at| at.since(Time::from_millis(START)).as_secs().to_string());
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let (user, daemon) = (or_dash(user.as_deref()), or_dash(daemon.as_deref()));
    format!("{kind:?} {address} {user} {daemon} {}", or_dash(expires.as_deref()))
}

/// Returns when the engine wants to be called next.
fn next_call(engine: &Engine) -> Option<Time> {
    [engine.sweep_at(), engine.publish_at()].into_iter().flatten().min()
}
