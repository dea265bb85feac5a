//! Stories with an invented clock about the users who have logged in from an address.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::IpAddr;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons::{DaemonTable, Selection};
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::policy;
use pop_before_smtp::engine::protocol::policy::Action;
use pop_before_smtp::engine::protocol::sender_logins::{Binding, Senders};
use pop_before_smtp::engine::publication::Generation;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::Verdict;
use pop_before_smtp::engine::{Engine, RemovalReason, Rules};

use crate::support::engine_loop;

const NAT: &str = "192.0.2.7";
const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";

fn at(seconds: u64) -> Time {
    Time::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn rules() -> Rules {
    Rules {
        table: DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons"),
        senders: Senders { binding: Binding::User, ..Senders::default() },
        ..Rules::default()
    }
}

struct Story(Engine);

impl Story {
    fn new(rules: Rules) -> Self {
        let mut engine = Engine::new(rules);
        let first = engine_loop::generation(&mut engine, at(0)).expect("the first generation");
        engine.published(first.number, at(0));
        Self(engine)
    }

    fn login(&mut self, seconds: u64, user: &str) -> Verdict {
        let frame = login(user);
        self.0.process(at(seconds), Source::default(), frame.as_bytes()).verdict
    }

    fn allow(&mut self, seconds: u64, span: u64) {
        let span = Some(Duration::from_secs(span));
        self.0.allow(at(seconds), nat(), span, None).expect("allowed");
    }

    fn generation(&mut self, now: Time) -> Option<Generation> {
        engine_loop::generation(&mut self.0, now)
    }

    fn is_admitted(&self, seconds: u64) -> bool {
        self.0.admits(at(seconds), nat()).is_some()
    }

    fn users(&self, seconds: u64) -> Vec<String> {
        let list = engine_loop::list(&self.0, at(seconds));
        list.iter().flat_map(|grant| grant.users(at(seconds))).map(str::to_owned).collect()
    }

    fn sends(&mut self, seconds: u64, sender: &str) -> bool {
        self.decide(seconds, NAT, "RCPT", sender) == Action::Ok
    }

    fn decide(&mut self, seconds: u64, client: &str, state: &str, sender: &str) -> Action {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nclient_address={client}\n\
             sender={sender}\n\n"
        );
        let Decoded::Whole { request, .. } = policy::read(request.as_bytes()) else {
            panic!("{request}")
        };
        self.0.decide(at(seconds), &request).action
    }

    fn removal_reasons(&mut self, seconds: u64) -> Vec<RemovalReason> {
        self.0.tick(at(seconds)).iter().map(|removed| removed.reason).collect()
    }

    /// Returns an engine with these rules that was restored from this one's state.
    fn restarted(&self, seconds: u64, rules: Rules) -> Self {
        let text = engine_loop::state(&self.0, at(seconds));
        let mut engine = Engine::new(rules);
        let restored = engine_loop::restore(&mut engine, at(seconds), &text);
        assert_eq!(restored.damaged, 0, "{text}");
        Self(engine)
    }
}

fn login(user: &str) -> String {
    format!(
        "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
         rip={NAT}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
    )
}

fn nat() -> IpAddr {
    NAT.parse().expect("an address")
}

#[test]
fn each_user_s_own_grant_ends_by_itself() {
    let mut story = Story::new(rules());
    assert!(!story.sends(0, ANN));
    story.login(0, ANN);
    story.login(1000, BOB);
    assert!(story.sends(1799, ANN) && story.sends(1799, BOB));
    assert_eq!(story.users(1799), [ANN, BOB]);
    assert!(!story.sends(1800, ANN), "ann's own grace period is over, despite bob's login");
    assert!(story.sends(1800, BOB));
    assert!(!story.sends(1800, "eve@example.org"));
    story.login(1900, ANN);
    assert_eq!(story.users(1900), [BOB, ANN], "the latest last");
    assert!(story.is_admitted(2800) && !story.sends(2800, BOB));
    assert!(!story.is_admitted(3700) && !story.sends(3700, ANN));
}

#[test]
fn only_some_protocol_states_count() {
    let mut story = Story::new(rules());
    story.login(0, ANN);
    for (state, expected) in [
        ("RCPT", Action::Ok),
        ("DATA", Action::Ok),
        ("END-OF-MESSAGE", Action::Dunno),
        ("CONNECT", Action::Dunno),
        ("HELO", Action::Dunno),
        ("MAIL", Action::Dunno),
        ("VRFY", Action::Dunno),
        ("ETRN", Action::Dunno),
        ("", Action::Dunno),
    ] {
        assert_eq!(story.decide(1, NAT, state, ANN), expected, "{state}");
    }
    assert_eq!(story.decide(1, "::ffff:192.0.2.7", "RCPT", ANN), Action::Ok);
    assert_eq!(story.decide(1, "192.0.2.8", "RCPT", ANN), Action::Dunno);
}

#[test]
fn a_mismatch_may_be_rejected_but_not_an_unauthenticated_client() {
    let mut rules = rules();
    rules.senders.mismatch = Action::Reject("no".into());
    let mut story = Story::new(rules);
    story.login(0, ANN);
    assert_eq!(story.decide(1, NAT, "RCPT", BOB), Action::Reject("no".into()));
    assert_eq!(story.decide(1, NAT, "MAIL", BOB), Action::Dunno);
    assert_eq!(story.decide(1, "192.0.2.8", "RCPT", BOB), Action::Dunno);
    assert_eq!(story.decide(1800, NAT, "RCPT", BOB), Action::Dunno);
}

#[test]
fn a_manual_grant_allows_any_sender_until_its_deadline() {
    let mut story = Story::new(rules());
    story.allow(0, 60);
    assert!(story.sends(59, "printer@example.org"));
    story.login(30, ANN);
    assert!(story.sends(59, "printer@example.org"));
    assert!(!story.sends(60, "printer@example.org") && story.sends(60, ANN));
    assert!(story.restarted(40, rules()).sends(59, "printer@example.org"));
}

#[test]
fn the_users_of_one_address_are_bounded() {
    let mut story = Story::new(rules());
    for user in 0..65 {
        story.login(user, &format!("user{user}@example.org"));
    }
    assert_eq!(story.users(65).len(), 64);
    assert!(!story.sends(65, "user0@example.org"), "the oldest was dropped");
    assert!(story.sends(65, "user1@example.org") && story.sends(65, "user64@example.org"));
}

#[test]
fn an_address_shared_by_too_many_is_removed_once() {
    let rules = || Rules { max_users: Some(2), ..rules() };
    let mut story = Story::new(rules());
    let users = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"];
    assert_eq!(story.login(0, users[0]), Verdict::Login);
    assert_eq!(story.login(10, users[1]), Verdict::Login);
    assert_eq!(story.login(20, users[0]), Verdict::Login, "the same user again");
    let generation = story.generation(at(20)).expect("one that lists it");
    assert_eq!(generation.addresses, [nat()]);
    story.0.published(generation.number, at(20));

    assert_eq!(story.login(30, users[2]), Verdict::Excluded);
    assert!(!story.is_admitted(30) && !story.sends(30, users[0]));
    assert!(engine_loop::list(&story.0, at(30)).is_empty());
    assert_eq!(story.removal_reasons(31), [RemovalReason::Shared]);
    let generation = story.generation(at(31)).expect("one without it");
    assert!(generation.addresses.is_empty());
    story.0.published(generation.number, at(31));

    assert_eq!(story.login(40, users[0]), Verdict::Excluded, "still too many");
    assert_eq!(story.removal_reasons(41), [], "reported once");
    assert_eq!(story.generation(at(41)), None, "nothing new to publish");
    assert_eq!(story.0.stats().shared, 1);
    assert_eq!(story.0.shared(at(41)), [(nat(), 3)]);

    let mut restarted = story.restarted(50, rules());
    assert!(!restarted.is_admitted(50));
    assert_eq!(restarted.login(51, users[3]), Verdict::Excluded);
    let mut off = story.restarted(50, Rules { max_users: None, ..rules() });
    assert!(off.is_admitted(50), "the limit was taken away");
    off.0.published(1, at(50));
    off.0.reload(at(51), rules());
    assert!(off.generation(at(52)).expect("one without it").addresses.is_empty());
    off.0.published(2, at(52));
    off.0.reload(at(53), Rules { max_users: None, ..rules() });
    assert_eq!(off.generation(at(54)).expect("one that lists it").addresses, [nat()]);

    assert_eq!(story.login(1835, users[0]), Verdict::Login, "alone again");
    assert!(story.sends(1835, users[0]) && !story.sends(1835, users[2]));
    assert_eq!(story.removal_reasons(1836), []);
    assert!(story.generation(at(1836)).is_some());
}

#[test]
fn revoking_a_shared_address_forgets_it() {
    let mut story = Story::new(Rules { max_users: Some(1), ..rules() });
    story.login(0, ANN);
    story.login(1, BOB);
    assert!(!story.0.revoke(at(2), nat(), None), "it was not authorised");
    assert_eq!(story.login(3, BOB), Verdict::Login);
    assert_eq!(story.removal_reasons(4), [RemovalReason::Shared]);
}

#[test]
fn a_manual_grant_outlives_a_shared_address() {
    let mut story = Story::new(Rules { max_users: Some(1), ..rules() });
    story.login(0, ANN);
    story.login(1, BOB);
    story.allow(2, 100);
    assert!(story.is_admitted(2));
    story.login(3, ANN);
    assert!(story.is_admitted(101) && !story.is_admitted(102), "not a second longer");
}

#[test]
fn a_shared_address_is_remembered_after_a_manual_grant() {
    let mut story = Story::new(Rules { max_users: Some(1), ..rules() });
    story.allow(0, 600);
    story.login(10, ANN);
    story.login(20, BOB);
    assert!(story.is_admitted(599) && !story.is_admitted(600));
    story.0.tick(at(600));
    assert_eq!(story.login(700, ANN), Verdict::Excluded, "both users still count");
    assert!(!story.is_admitted(701));
    assert_eq!(story.login(700 + 1800, ANN), Verdict::Login, "the other has expired");
}

#[test]
fn users_survive_a_restart_with_their_own_deadlines() {
    let mut story = Story::new(rules());
    story.login(0, ANN);
    story.login(1000, BOB);
    let mut restarted = story.restarted(1100, rules());
    assert_eq!(restarted.users(1100), [ANN, BOB]);
    assert!(!restarted.sends(1800, ANN) && restarted.sends(1800, BOB));
    let short = Rules { grace: Duration::from_secs(60), ..rules() };
    let mut short = story.restarted(1100, short);
    assert!(short.sends(1159, BOB) && !short.sends(1160, BOB), "never longer than a login now");

    // A record torn anywhere is damaged.
    let record = engine_loop::journal(&mut story.0);
    let record = record.trim_end();
    for end in 1..record.len() {
        let mut engine = Engine::new(Rules::default());
        let text = format!("pop-before-smtp state 1\n{}", &record[..end]);
        let restored = engine_loop::restore(&mut engine, at(1100), &text);
        assert_eq!((restored.grants, restored.damaged), (0, 1), "{text}");
    }
}

#[test]
fn users_are_forgotten_if_the_rules_say_so() {
    let mut story = Story::new(rules());
    story.login(0, ANN);
    let private = || Rules { remember_users: false, senders: Senders::default(), ..rules() };
    let restarted = story.restarted(1, private());
    assert!(restarted.is_admitted(1) && restarted.users(1).is_empty());
    story.0.reload(at(1), private());
    story.login(2, BOB);
    assert!(story.is_admitted(2) && story.users(2).is_empty());
    let written = engine_loop::state(&story.0, at(2)) + &engine_loop::journal(&mut story.0);
    assert!(!written.contains("example.org"), "{written}");
}
