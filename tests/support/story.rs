//! Stories: the engine, an invented clock, and a script that reads like a day in its life.
//!
//! Promise  nothing waits and nothing is read or written; what a restart keeps is the text that
//!          the engine itself has written down.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::grants::exclude::{Exclude, NetworkList};
use pop_before_smtp::engine::maildaemons::{DaemonTable, MailDaemon, Selection};
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Outcome, Reason, Verdict};
use pop_before_smtp::engine::{Engine, Rules};

use super::around;

/// Second 0 of every story, in milliseconds since 1970.
pub const DAWN: u64 = 1_795_000_000_000;

/// The default rules: 30 minutes, all verified daemons, nobody excluded.
pub fn rules() -> Rules {
    static DAEMONS: OnceLock<Vec<MailDaemon>> = OnceLock::new();
    let daemons = DAEMONS.get_or_init(|| {
        let table =
            DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons are sound");
        table.daemons().to_vec()
    });
    Rules { table: DaemonTable::of(daemons.clone()), ..Rules::default() }
}

/// Lists of networks that are never authorised, by name.
pub fn excluding(lists: &[(&str, &str)]) -> Exclude {
    let list = |(name, network): &(&str, &str)| {
        NetworkList::new(*name, [network.parse().expect("a network")])
    };
    Exclude(lists.iter().map(list).collect())
}

/// The frame of a login as Dovecot logs it.
pub fn login_frame(address: impl std::fmt::Display) -> String {
    format!(
        "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
         rip={address}, lip=192.0.2.1, mpid=7, session=<a>"
    )
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A story on its way.
pub struct Story {
    name: &'static str,
    engine: Engine,
    file: String,
    now: Time,
}

/// A story with the default rules.
pub fn story(name: &'static str) -> Story {
    story_with(name, rules())
}

/// A story with other rules. The empty map of the start has been published.
pub fn story_with(name: &'static str, rules: Rules) -> Story {
    let now = Time::from_millis(DAWN);
    let mut engine = Engine::new(rules);
    let file = around::state(&engine, now);
    engine.published(1, Time::default());
    Story { name, engine, file, now }
}

impl Story {
    /// The clock shows this many seconds.
    pub fn at(self, seconds: u64) -> Self {
        self.at_ms(seconds * 1000)
    }

    /// The clock shows this many milliseconds. The state file has followed until then.
    pub fn at_ms(mut self, millis: u64) -> Self {
        self.write_down();
        self.now = Time::from_millis(DAWN + millis);
        self
    }

    /// Somebody logs in from an address, and it counts.
    pub fn login(self, address: &str) -> Self {
        let frame = login_frame(address);
        self.process(&frame, Verdict::Login)
    }

    /// Somebody logs in from an address that is refused for this reason.
    pub fn refused_login(mut self, address: &str, reason: &Reason) -> Self {
        let outcome = self.frame(Source::default(), &login_frame(address));
        self.check(&outcome.reason, reason, address);
        self
    }

    /// A frame arrives that is nothing, for this reason.
    pub fn refused(mut self, frame: &str, reason: &Reason) -> Self {
        let outcome = self.frame(Source::default(), frame);
        self.check(&(outcome.verdict, &outcome.reason), &(Verdict::None, reason), frame);
        self
    }

    /// A frame arrives by the only socket.
    pub fn process(mut self, frame: &str, verdict: Verdict) -> Self {
        let outcome = self.frame(Source::default(), frame);
        self.check(&outcome.verdict, &verdict, frame);
        self
    }

    /// A frame arrives from a sender.
    pub fn hear_from(mut self, sender: &str, frame: &str, verdict: Verdict) -> Self {
        let source = Source { sender: Some(ip(sender)), ..Source::default() };
        let outcome = self.frame(source, frame);
        self.check(&outcome.verdict, &verdict, frame);
        self
    }

    fn frame(&mut self, source: Source, frame: &str) -> Outcome {
        self.engine.process(self.now, source, frame.as_bytes())
    }

    fn write_down(&mut self) {
        self.file += &around::journal(&mut self.engine);
    }

    /// The operator authorises an address, for some seconds or for the grace period.
    pub fn allow(mut self, address: &str, seconds: Option<u64>) -> Self {
        let span = seconds.map(Duration::from_secs);
        let allowed = self.engine.allow(self.now, ip(address), span, None);
        assert!(allowed.is_ok(), "{}: {address}: {allowed:?}", self.name);
        self
    }

    /// The operator may not authorise an address, because it is on this list.
    pub fn refuses_to_allow(mut self, address: &str, list: &str) -> Self {
        let refusal = self.engine.allow(self.now, ip(address), None, None);
        self.check(&refusal, &Err(list.to_owned()), address);
        self.rejects(&[address])
    }

    /// The operator ends a right, and refuses new ones for some seconds.
    pub fn revoke(mut self, address: &str, block: Option<u64>, had_one: bool) -> Self {
        let had = self.engine.revoke(self.now, ip(address), block.map(Duration::from_secs));
        self.check(&had, &had_one, address);
        self
    }

    /// These may relay.
    pub fn admits(self, addresses: &[&str]) -> Self {
        for address in addresses {
            let grant = self.engine.admits(self.now, ip(address));
            assert!(grant.is_some(), "{}, at {}: not admitted: {address}", self.name, self.clock());
        }
        self
    }

    /// These may not.
    pub fn rejects(self, addresses: &[&str]) -> Self {
        for address in addresses {
            let grant = self.engine.admits(self.now, ip(address));
            assert_eq!(grant, None, "{}, at {}: admitted", self.name, self.clock());
        }
        self
    }

    /// A generation is due now and has exactly these addresses; it is published.
    pub fn publishes(self, addresses: &[&str]) -> Self {
        let (mut story, number) = self.due(addresses);
        story.engine.published(number, story.now);
        story
    }

    /// The same, but something happens while postmap is at work.
    pub fn publishes_while(self, addresses: &[&str], meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let (story, number) = self.due(addresses);
        let mut story = meanwhile(story);
        story.engine.published(number, story.now);
        story
    }

    /// A generation with exactly these addresses is due, and postmap fails; after this many
    /// seconds, and not earlier, the next attempt is due.
    pub fn fails_to_publish(self, addresses: &[&str], pause: u64) -> Self {
        let (mut story, _) = self.due(addresses);
        let found = story.engine.failed(story.now);
        story.check(&found.as_secs(), &pause, "the pause");
        let next = moments(&story.engine);
        assert!(next <= Some(story.now + found), "{}: it sleeps for too long", story.name);
        story.quiet()
    }

    fn due(mut self, addresses: &[&str]) -> (Self, u64) {
        self.engine.tick(self.now);
        let generation = around::generation(&mut self.engine, self.now);
        let generation = generation
            .unwrap_or_else(|| panic!("{}, at {}: no generation is due", self.name, self.clock()));
        let expected: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
        self.check(&generation.addresses, &expected, "the map");
        (self, generation.number)
    }

    /// No generation is due now.
    pub fn quiet(mut self) -> Self {
        self.engine.tick(self.now);
        let generation = around::generation(&mut self.engine, self.now);
        assert_eq!(generation, None, "{}, at {}: the map is not quiet", self.name, self.clock());
        self
    }

    /// The next moment for which the engine wants to be woken, in milliseconds of the story.
    pub fn wakes_at_ms(self, millis: u64) -> Self {
        let expected = Some(Time::from_millis(DAWN + millis));
        self.check(&moments(&self.engine), &expected, "the next moment");
        self
    }

    /// The configuration is read again.
    pub fn reload(mut self, rules: Rules) -> Self {
        self.engine.reload(self.now, rules);
        self
    }

    /// The daemon ends and starts again, with these rules; this is what the file gives it.
    pub fn restart(mut self, rules: Rules, expected: Restored) -> Self {
        self.write_down();
        self.engine = Engine::new(rules);
        let restored = around::restore(&mut self.engine, self.now, &self.file);
        self.check(&restored, &expected, "what the state file gave");
        self.file = around::state(&self.engine, self.now);
        self
    }

    /// Somebody else writes into the state file.
    pub fn scribble(mut self, scribble: impl FnOnce(String) -> String) -> Self {
        self.write_down();
        self.file = scribble(self.file);
        self
    }

    /// Looks at the engine itself.
    pub fn look(self, look: impl FnOnce(&Engine)) -> Self {
        look(&self.engine);
        self
    }

    fn check<T: PartialEq + Debug>(&self, found: &T, expected: &T, what: &str) {
        assert_eq!(found, expected, "{}, at {}: {what}", self.name, self.clock());
    }

    fn clock(&self) -> String {
        format!("{:?}", self.now.since(Time::from_millis(DAWN)))
    }
}

/// When the daemon has something to do next.
fn moments(engine: &Engine) -> Option<Time> {
    [engine.sweep_at(), engine.publish_at()].into_iter().flatten().min()
}
