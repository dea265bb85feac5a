//! Stories with an invented clock about how much an authorised client may relay.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::IpAddr;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::events::{EventKind, Relayed};
use pop_before_smtp::engine::limits::table::LimitTable;
use pop_before_smtp::engine::limits::{Limit, LimitAction, Limits};
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::policy;
use pop_before_smtp::engine::protocol::policy::Action;
use pop_before_smtp::engine::protocol::sender_logins::{Binding, Senders};
use pop_before_smtp::engine::relay::{Decision, RelayRecord, RelayStep};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::Reason;
use pop_before_smtp::engine::{Engine, RemovalReason, Rules};

use crate::support::engine_loop;
use crate::support::story;

const OFFICE: &str = "192.0.2.7";
const HOME: &str = "192.0.2.8";
const JOE: &str = "joe@example.org";
const ANN: &str = "ann@example.org";

fn at(seconds: u64) -> Time {
    Time::from_millis(1_795_000_000_000 + seconds * 1000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns rules with general limits and a table of exceptions.
fn limited(messages: Option<u32>, recipients: Option<u32>, table: &str) -> Rules {
    let limits = Limits {
        general: Limit { messages, recipients },
        action: LimitAction::Defer,
        table: LimitTable::read(table).expect("a table"),
    };
    Rules { limits, ..story::rules() }
}

/// Returns the same rules, with senders bound to users.
fn bound(binding: Binding, rules: Rules) -> Rules {
    Rules { senders: Senders { binding, ..Senders::default() }, ..rules }
}

struct Site {
    engine: Engine,
    /// How many messages were begun.
    messages: u32,
}

impl Site {
    fn new(rules: Rules) -> Self {
        Self { engine: Engine::new(rules), messages: 0 }
    }

    fn login(&mut self, seconds: u64, address: &str, user: &str) -> Reason {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
        );
        self.engine.process(at(seconds), Source::default(), frame.as_bytes()).reason
    }

    /// Asks as smtpd does.
    fn ask(&mut self, seconds: u64, state: &str, address: &str, more: &str) -> Decision {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nclient_address={address}\n{more}\n\n"
        );
        let Decoded::Whole { request, .. } = policy::read(request.as_bytes()) else {
            panic!("{request}")
        };
        self.engine.decide(at(seconds), &request)
    }

    fn rcpt(
        &mut self,
        seconds: u64,
        address: &str,
        sender: &str,
        message: &str,
        to: u32,
    ) -> Decision {
        let more = format!("sender={sender}\nrecipient=to{to}@example.net\ninstance={message}");
        self.ask(seconds, "RCPT", address, &more)
    }

    /// Sends a new message to so many recipients; returns how many were accepted.
    fn send(&mut self, seconds: u64, address: &str, sender: &str, recipients: u32) -> u32 {
        self.messages += 1;
        let message = format!("5f17.6b029e61.7f3ac.{}", self.messages);
        let answer = |to| self.rcpt(seconds, address, sender, &message, to).action;
        (0..recipients).map(answer).filter(|action| *action == Action::Ok).count() as u32
    }

    fn total(&self, seconds: u64, address: &str) -> (u32, u32) {
        let grant = self.engine.admits(at(seconds), ip(address)).expect("it is authorised");
        let relays = self.engine.relays_of(&grant);
        (relays.messages, relays.recipients)
    }

    fn has_counted(&self, messages: u64, recipients: u64) {
        let relayed = self.engine.stats().relayed;
        assert_eq!((relayed.messages, relayed.recipients), (messages, recipients));
    }
}

/// Returns the text of a refusal.
fn refusal(action: Action) -> String {
    match action {
        Action::Defer(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fourth_message_waits_for_an_hour() {
    let mut site = Site::new(limited(Some(3), None, ""));
    site.login(0, OFFICE, JOE);
    for seconds in [0, 600, 1200] {
        assert_eq!(site.send(seconds, OFFICE, JOE, 2), 2);
    }
    site.login(1300, OFFICE, JOE);
    let refused = refusal(site.rcpt(1500, OFFICE, JOE, "x", 0).action);
    assert_eq!(
        refused,
        "Limit of 3 messages per hour for this address reached; try again in 35 minutes"
    );
    assert_eq!(site.send(1501, HOME, JOE, 1), 0, "it is not authorised at all");
    site.login(3000, OFFICE, JOE);
    assert_eq!(site.send(3599, OFFICE, JOE, 1), 0);
    assert_eq!(site.send(3600, OFFICE, JOE, 1), 1, "the first was an hour ago");
    assert_eq!(site.send(3601, OFFICE, JOE, 1), 0);
    site.has_counted(4, 7);
    let limited = site.engine.stats().limited;
    assert_eq!((limited.messages, limited.recipients), (3, 0));
}

#[test]
fn each_recipient_counts() {
    let mut site = Site::new(limited(None, Some(150), ""));
    site.login(0, OFFICE, JOE);
    assert_eq!(site.send(0, OFFICE, JOE, 100), 100);
    assert_eq!(site.total(0, OFFICE), (1, 100));
    assert_eq!(site.send(1, OFFICE, JOE, 100), 50, "the rest is refused");
    assert_eq!(site.total(1, OFFICE), (2, 150), "what is refused does not count");
    let refused = refusal(site.rcpt(60, OFFICE, JOE, "x", 0).action);
    assert!(refused.starts_with("Limit of 150 recipients per hour for this address"), "{refused}");
    assert_eq!(site.total(60, OFFICE), (2, 150), "a message without an accepted recipient is none");
}

/// A message that is begun may be completed.
#[test]
fn the_limit_of_messages_does_not_end_a_message() {
    let mut site = Site::new(limited(Some(1), None, ""));
    site.login(0, OFFICE, JOE);
    assert_eq!(site.send(0, OFFICE, JOE, 20), 20);
    assert_eq!(site.send(1, OFFICE, JOE, 1), 0);
}

/// The same check in two lists, a repetition over a new connection, and messages received at once.
#[test]
fn what_smtpd_asks_twice_counts_once() {
    let mut site = Site::new(limited(Some(2), Some(4), ""));
    site.login(0, OFFICE, JOE);
    let mut last = Vec::new();
    for (message, to) in [("a", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 1), ("b", 0), ("b", 1)] {
        let decision = site.rcpt(0, OFFICE, JOE, message, to);
        assert_eq!(decision.action, Action::Ok, "{message} {to}");
        last.extend(decision.record);
    }
    assert_eq!(site.total(0, OFFICE), (2, 4));
    let steps: Vec<_> = last.iter().map(|record| (record.step, &*record.instance)).collect();
    assert_eq!(steps, [(RelayStep::Begun, "a"), (RelayStep::Begun, "b")]);
    // Also the last one within the limit.
    assert_eq!(site.rcpt(1, OFFICE, JOE, "b", 1).action, Action::Ok);
    assert_ne!(site.rcpt(1, OFFICE, JOE, "b", 2).action, Action::Ok);
    // Without an instance each request is a message.
    let mut site = Site::new(limited(Some(2), None, ""));
    site.login(0, OFFICE, JOE);
    let mut ask = || site.rcpt(0, OFFICE, JOE, "", 0).action == Action::Ok;
    assert!(ask() && ask() && !ask());
}

#[test]
fn only_recipients_count() {
    let mut site = Site::new(limited(Some(1), Some(1), ""));
    site.login(0, OFFICE, JOE);
    for state in ["CONNECT", "HELO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"] {
        let decision = site.ask(0, state, OFFICE, "instance=a\nsender=joe@example.org");
        let expected = if state == "DATA" { Action::Ok } else { Action::Dunno };
        assert_eq!(decision, expected.into(), "{state}");
    }
    site.has_counted(0, 0);
    assert_eq!(site.send(0, OFFICE, JOE, 1), 1);
    assert_eq!(
        site.ask(0, "DATA", OFFICE, "instance=a").action,
        Action::Ok,
        "beyond the limit too"
    );
}

/// What is refused for its sender does not count, and two users behind one address have limits of
/// their own, each from all addresses together.
#[test]
fn users_have_limits_of_their_own() {
    let mut site = Site::new(bound(Binding::User, limited(Some(3), None, "")));
    for (address, user) in [(OFFICE, JOE), (OFFICE, ANN), (HOME, JOE)] {
        site.login(0, address, user);
    }
    assert_eq!(site.send(0, OFFICE, "eve@example.org", 5), 0);
    for _ in 0..3 {
        assert_eq!(site.send(0, OFFICE, JOE, 1), 1);
    }
    let refused = refusal(site.rcpt(0, OFFICE, "Joe@Example.ORG", "x", 0).action);
    assert!(refused.starts_with("Limit of 3 messages per hour for this user reached"), "{refused}");
    assert_eq!(site.send(0, HOME, JOE, 1), 0, "the same user");
    for _ in 0..3 {
        assert_eq!(site.send(0, OFFICE, ANN, 1), 1);
    }
    assert_eq!(site.send(0, OFFICE, ANN, 1), 0);
    assert_eq!(site.total(0, OFFICE), (6, 6));
    assert_eq!(site.total(0, HOME), (0, 0));

    // A manual grant is of no user: the limit of the address counts.
    site.engine.allow(at(0), ip("192.0.2.9"), None, None).expect("nobody is excluded");
    let sent: Vec<_> =
        (0..4).map(|_| site.send(0, "192.0.2.9", "printer@example.org", 1)).collect();
    assert_eq!(sent, [1, 1, 1, 0]);
}

#[test]
fn a_table_has_exceptions() {
    let table = "192.0.2.0/24 messages-per-hour=4\n\
                 192.0.2.8 messages-per-hour=none\n\
                 ann@example.org messages-per-hour=1 recipients-per-hour=5\n";
    let rules = || limited(Some(2), None, table);
    let sent = |site: &mut Site, address: &str, sender: &str| {
        site.login(0, address, sender);
        (0..6).map(|_| site.send(0, address, sender, 1)).sum::<u32>()
    };
    let mut site = Site::new(rules());
    assert_eq!(sent(&mut site, OFFICE, JOE), 4, "of the network");
    assert_eq!(sent(&mut site, HOME, JOE), 6, "of the address");
    assert_eq!(sent(&mut site, "198.51.100.7", JOE), 2, "the general one");

    let mut site = Site::new(bound(Binding::User, rules()));
    assert_eq!(sent(&mut site, OFFICE, ANN), 1, "of the user");
    assert_eq!(sent(&mut site, OFFICE, JOE), 2, "the general one, for a user");
    assert_eq!(sent(&mut site, OFFICE, "bob@example.org"), 1, "what is left of the network's");
    assert_eq!(sent(&mut site, HOME, "eve@example.org"), 2);
    assert_eq!(sent(&mut site, "198.51.100.7", "carl@example.org"), 2);
}

#[test]
fn a_new_grant_does_not_begin_a_new_hour() {
    let mut site = Site::new(limited(Some(3), None, ""));
    site.login(0, OFFICE, JOE);
    assert_eq!((0..3).map(|_| site.send(1, OFFICE, JOE, 1)).sum::<u32>(), 3);
    site.login(100, OFFICE, JOE);
    assert_eq!(site.send(100, OFFICE, JOE, 1), 0, "renewed");
    assert_eq!(site.total(100, OFFICE), (3, 3));
    site.engine.revoke(at(200), ip(OFFICE), None);
    site.login(200, OFFICE, JOE);
    assert_eq!(site.send(200, OFFICE, JOE, 1), 0, "revoked and given again");
    assert_eq!(site.total(200, OFFICE), (0, 0), "what was relayed under this grant");
    site.engine.tick(at(2200));
    site.login(2200, OFFICE, JOE);
    assert_eq!(site.send(2200, OFFICE, JOE, 1), 0, "expired and given again");
    site.login(3601, OFFICE, JOE);
    assert_eq!(site.send(3601, OFFICE, JOE, 2), 2);
    assert_eq!(site.total(3601, OFFICE), (1, 2));
}

#[test]
fn beyond_a_limit_a_grant_may_end() {
    let mut rules = limited(Some(2), None, "");
    rules.limits.action = LimitAction::Revoke;
    let mut site = Site::new(rules);
    site.login(0, OFFICE, JOE);
    site.login(0, HOME, JOE);
    assert_eq!(site.send(0, OFFICE, JOE, 1) + site.send(900, OFFICE, JOE, 1), 2);
    engine_loop::journal(&mut site.engine);
    refusal(site.rcpt(1000, OFFICE, JOE, "x", 0).action);
    assert!(site.engine.admits(at(1000), ip(OFFICE)).is_none());
    assert!(site.engine.admits(at(1000), ip(HOME)).is_some());
    assert_eq!(site.rcpt(1000, OFFICE, JOE, "x", 0), Action::Dunno.into());
    let removed: Vec<_> = site.engine.tick(at(1000)).into_iter().map(|it| it.reason).collect();
    assert_eq!(removed, [RemovalReason::Limited]);
    // On disk, so that a restart changes nothing.
    let journal = engine_loop::journal(&mut site.engine);
    assert!(journal.contains("gone\t192.0.2.7\t.") && journal.contains("block\t192.0.2.7\t"));
    assert_eq!(site.login(4499, OFFICE, JOE), Reason::Blocked);
    site.login(4500, OFFICE, JOE);
    assert_eq!(site.send(4500, OFFICE, JOE, 1), 1, "nothing is left in the hour");
}

#[test]
fn a_reload_applies_new_limits_at_once() {
    let mut site = Site::new(limited(None, None, ""));
    site.login(0, OFFICE, JOE);
    assert_eq!((0..5).map(|_| site.send(0, OFFICE, JOE, 1)).sum::<u32>(), 5);
    site.engine.reload(at(1), limited(Some(5), None, ""));
    assert_eq!(site.send(1, OFFICE, JOE, 1), 0, "what was counted before counts");
    site.engine.reload(at(2), limited(Some(5), None, "192.0.2.7 messages-per-hour=6\n"));
    assert_eq!(site.send(2, OFFICE, JOE, 1) + site.send(2, OFFICE, JOE, 1), 1);
    site.engine.reload(at(3), limited(None, None, ""));
    assert_eq!(site.send(3, OFFICE, JOE, 1), 1);
}

/// A restart begins a new hour, and tells nothing that it does not know.
#[test]
fn counters_begin_again_after_a_restart() {
    let mut site = Site::new(limited(Some(1), None, ""));
    site.login(0, OFFICE, JOE);
    assert_eq!(site.send(0, OFFICE, JOE, 1), 1);
    let text = engine_loop::state(&site.engine, at(1));
    let mut site = Site::new(limited(Some(1), None, ""));
    engine_loop::restore(&mut site.engine, at(1), &text);
    assert_eq!(site.total(1, OFFICE), (0, 0));
    assert_eq!(site.send(1, OFFICE, JOE, 1) + site.send(1, OFFICE, JOE, 1), 1);
}

#[test]
fn messages_are_recorded() {
    let mut site = Site::new(bound(Binding::Domain, limited(Some(1), None, "")));
    site.login(0, OFFICE, JOE);
    let long = "x".repeat(1000);
    let more =
        format!("recipient=a@example.net\nsender=i{long}@example.org\ninstance=a\nqueue_id=");
    let record = site.ask(1, "RCPT", OFFICE, &more).record.expect("the first recipient");
    assert_eq!(record.step, RelayStep::Begun);
    assert_eq!((record.address, record.user.as_deref()), (ip(OFFICE), Some(JOE)));
    assert_eq!((record.sender.len(), &*record.queue_id, &*record.instance), (256, "", "a"));
    assert_eq!(record.granted.map(|(_, since)| since), Some(at(0)));
    let second = "recipient=b@example.net\nsender=joe@example.org\ninstance=a\nqueue_id=4F2";
    assert_eq!(site.ask(1, "RCPT", OFFICE, second).record, None);

    // The end of the message, once, and also when the grant has ended.
    let end = "sender=joe@example.org\ninstance=a\nqueue_id=4F2\nrecipient_count=3\nsize=1234";
    let mut ends = |seconds| site.ask(seconds, "END-OF-MESSAGE", OFFICE, end);
    let Decision { action, record } = ends(300);
    let RelayRecord { step, queue_id, user, .. } = *record.expect("it is known");
    assert_eq!(step, RelayStep::Received { recipients: Some(3), size: Some(1234) });
    assert_eq!((action, &*queue_id, user.as_deref()), (Action::Dunno, "4F2", Some(JOE)));
    assert_eq!(ends(300), Action::Dunno.into());
    let limited = site.rcpt(300, OFFICE, JOE, "b", 0).record.expect("a refusal is recorded");
    assert!(matches!(limited.step, RelayStep::Limited(_)));

    let mut site = Site::new(story::rules());
    site.login(0, OFFICE, JOE);
    site.rcpt(1799, OFFICE, JOE, "a", 0);
    let record = site.ask(1801, "END-OF-MESSAGE", OFFICE, "instance=a").record;
    assert_eq!(record.expect("it was accepted in time").granted, None);
    assert_eq!(site.ask(1801, "END-OF-MESSAGE", OFFICE, "instance=b").record, None, "for others");
}

#[test]
fn watchers_are_told() {
    let mut rules = bound(Binding::User, limited(Some(1), None, ""));
    rules.limits.action = LimitAction::Revoke;
    let mut site = Site::new(rules);
    site.login(0, OFFICE, JOE);
    site.login(0, OFFICE, ANN);
    let first = site.engine.watch();
    assert_eq!(site.send(1, OFFICE, JOE, 2), 2);
    let end =
        format!("sender={JOE}\ninstance=5f17.6b029e61.7f3ac.1\nqueue_id=4F2\nrecipient_count=2");
    site.ask(2, "END-OF-MESSAGE", OFFICE, &end);
    assert_eq!(site.send(3, OFFICE, JOE, 1), 0);
    let told = site.engine.events().since(first).expect("few events");
    let told: Vec<_> = told.map(|event| (event.kind.clone(), event.user.as_deref())).collect();
    let relayed = |recipients, id: Option<&str>| {
        EventKind::Relayed(Box::new(Relayed {
            sender: JOE.into(),
            recipients,
            queue_id: id.map(str::to_owned),
        }))
    };
    let expected = [
        (relayed(1, None), Some(JOE)),
        (relayed(2, Some("4F2")), Some(JOE)),
        (EventKind::Limited("messages-per-hour".into()), Some(JOE)),
        (EventKind::Ended(RemovalReason::Limited), Some(ANN)),
    ];
    assert_eq!(told, expected);
}

/// Counters are kept for as many as max-clients. What cannot be counted is refused if it is limited.
#[test]
fn counters_are_bounded() {
    let clients = |n: u32| format!("198.51.{}.{}", n / 250, n % 250 + 1);
    for (messages, expected) in [(Some(9), 50), (None, 100)] {
        let mut site = Site::new(Rules { max_clients: 50, ..limited(messages, None, "") });
        let mut sent = 0;
        for n in 0..100 {
            site.login(n.into(), &clients(n), JOE);
            sent += site.send(n.into(), &clients(n), JOE, 1);
        }
        assert_eq!(sent, expected);
        let refused = site.engine.stats().limited.too_many_clients;
        assert_eq!(u64::from(sent) + refused, 100);
        assert_eq!(site.engine.usage_len(), 50);
        // Their grants and their hours end.
        site.engine.tick(at(3800));
        assert_eq!(site.engine.usage_len(), 0);
        site.login(3800, OFFICE, JOE);
        assert_eq!(site.send(3800, OFFICE, JOE, 1), 1);
    }
}

/// The totals of a grant that lasts are kept although its hour is empty.
#[test]
fn totals_last_as_long_as_the_grant() {
    let mut site = Site::new(limited(Some(9), None, ""));
    let day = Some(Duration::from_secs(86_400));
    site.engine.allow(at(0), ip(OFFICE), day, None).expect("nobody is excluded");
    assert_eq!(site.send(1, OFFICE, JOE, 3), 3);
    for hours in 1..24 {
        site.engine.tick(at(hours * 3600 + 60));
    }
    assert_eq!(site.total(86_399, OFFICE), (1, 3));
    site.engine.tick(at(86_400));
    site.engine.tick(at(90_100));
    assert_eq!(site.engine.usage_len(), 0);
}
