//! Stories with an invented clock about rules: which logins authorise, and for how long.

#![allow(clippy::panic, reason = "tests")]

use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::limits::Limit;
use pop_before_smtp::engine::login_rules::{Effect, LoginRule, LoginRules, UserSet};
use pop_before_smtp::engine::maildaemons::{DaemonFile, DaemonTable, Selection};
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::policy::{self, Action};
use pop_before_smtp::engine::protocol::sender_logins::{Binding, Senders};
use pop_before_smtp::engine::recent::AbsenceReason;
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Outcome, Reason, Verdict};
use pop_before_smtp::engine::{Engine, RemovalReason, Rules};

use crate::support::engine_loop;
use crate::support::story::{START, ip, rules, story_with};

const A: &str = "192.0.2.7";
const B: &str = "198.51.100.7";
const SCANNER: &str = "scanner@example.org";
const ANN: &str = "ann@example.org";
const JOE: &str = "joe@example.com";
const HOURS: u64 = 3600;

fn set(names: &[&str]) -> UserSet {
    UserSet::new(names.iter().copied(), &["example.org".into()])
}

fn rule(number: u32, from: &[&str], users: &[&str], effect: Effect) -> LoginRule {
    LoginRule {
        label: format!("rule {number}").into(),
        from: from.iter().map(|network| network.parse().expect("a network")).collect(),
        users: (!users.is_empty()).then(|| set(users)),
        effect,
        limit: Limit::default(),
    }
}

fn grace(seconds: u64) -> Effect {
    Effect::Grace(Duration::from_secs(seconds))
}

fn with(users: Option<&[&str]>, list: Vec<LoginRule>) -> Rules {
    Rules { logins: LoginRules { users: users.map(set), rules: list }, ..rules() }
}

fn frame(user: &str, address: &str) -> String {
    format!(
        "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<{user}>, method=PLAIN, \
         rip={address}, lip=192.0.2.1, mpid=7, session=<a>"
    )
}

fn at(seconds: u64) -> Time {
    Time::from_millis(START + seconds * 1000)
}

/// An engine, for questions that stories do not ask.
struct Site(Engine);

impl Site {
    fn new(rules: Rules) -> Self {
        Self(Engine::new(rules))
    }

    fn frame(&mut self, seconds: u64, frame: &str) -> Outcome {
        self.0.process(at(seconds), Source::default(), frame.as_bytes())
    }

    fn login(&mut self, seconds: u64, user: &str, address: &str) -> Outcome {
        self.frame(seconds, &frame(user, address))
    }

    fn until(&self, address: &str) -> Option<u64> {
        let grant = self.0.admits(at(0), ip(address))?;
        Some(grant.until.since(at(0)).as_secs())
    }

    fn sends(&mut self, seconds: u64, address: &str, sender: &str) -> bool {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={address}\n\
             sender={sender}\n\n"
        );
        let Decoded::Whole { request, .. } = policy::read(request.as_bytes()) else {
            panic!("{request}")
        };
        self.0.decide(at(seconds), &request).action == Action::Ok
    }

    fn restarted(&self, seconds: u64, rules: Rules) -> (Self, Restored) {
        let text = engine_loop::state(&self.0, at(seconds));
        let mut engine = Engine::new(rules);
        let restored = engine_loop::restore(&mut engine, at(seconds), &text);
        (Self(engine), restored)
    }

    fn removals(&mut self, seconds: u64) -> Vec<RemovalReason> {
        self.0.tick(at(seconds)).iter().map(|removed| removed.reason).collect()
    }
}

fn bound(rules: Rules) -> Rules {
    Rules { senders: Senders { binding: Binding::User, ..Senders::default() }, ..rules }
}

#[test]
fn only_the_scanner_s_account_authorises() {
    story_with(
        "map and lookups agree",
        with(Some(&[SCANNER]), vec![rule(1, &[], &[], grace(8 * HOURS))]),
    )
    .process(&frame(ANN, A), Verdict::Excluded)
    .rejects(&[A])
    .quiet()
    .process(&frame("Scanner@Example.ORG", A), Verdict::Login)
    .process(&frame("scanner", B), Verdict::Login)
    .admits(&[A, B])
    .at(1)
    .publishes(&[A, B])
    .at(8 * HOURS - 1)
    .process(&frame(ANN, A), Verdict::Excluded)
    .admits(&[A, B])
    .at(8 * HOURS)
    .rejects(&[A, B])
    .publishes(&[])
    .inspect(|engine| {
        let stats = engine.stats();
        assert_eq!((stats.logins, stats.refused_by_rule, stats.excluded), (2, 2, 0));
    });
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut site = Site::new(with(
        None,
        vec![
            rule(1, &["192.0.2.0/24", "2001:db8::/32"], &[ANN], grace(60)),
            rule(2, &[], &["@example.org"], Effect::Never),
            rule(3, &["192.0.2.0/24"], &[], grace(7200)),
        ],
    ));
    let refused = Reason::RefusedByRule("rule 2".into());
    let outcome = site.login(0, SCANNER, A);
    assert_eq!((outcome.verdict, &outcome.reason), (Verdict::Excluded, &refused));
    assert_eq!((outcome.rule.as_deref(), outcome.user.as_deref()), (Some("rule 2"), Some(SCANNER)));
    assert!(!outcome.is_lost_login);
    assert_eq!(site.login(0, ANN, B).reason, refused, "rule 1 is for another network");
    let rows = [
        (ANN, A, "rule 1", 60),
        (ANN, "::ffff:192.0.2.9", "rule 1", 60),
        (JOE, "192.0.2.8", "rule 3", 7200),
    ];
    for (user, address, label, seconds) in rows {
        let outcome = site.login(0, user, address);
        assert_eq!((outcome.verdict, outcome.rule.as_deref()), (Verdict::Login, Some(label)));
        assert_eq!(site.until(address), Some(seconds), "{user}");
    }
    let usual = site.login(0, JOE, B);
    assert_eq!((usual.verdict, usual.rule, site.until(B)), (Verdict::Login, None, Some(1800)));
}

/// The address is authorised by the other user, who is the only one for the sender too.
#[test]
fn a_rule_decides_about_one_login_only() {
    let mut site = Site::new(bound(with(None, vec![rule(1, &[], &[JOE], Effect::Never)])));
    site.login(0, JOE, A);
    assert_eq!(site.until(A), None);
    site.login(0, ANN, A);
    site.login(100, JOE, A);
    assert_eq!(site.until(A), Some(1800), "not extended by the refused login");
    assert!(site.sends(100, A, ANN) && !site.sends(100, A, JOE));
    // Nor does it end the other's right.
    site.login(200, ANN, A);
    assert_eq!(site.until(A), Some(2000));
}

#[test]
fn the_list_of_users_comes_before_the_rules() {
    let mut site = Site::new(with(
        Some(&["@example.com"]),
        vec![rule(1, &[], &[ANN], grace(60)), rule(2, &["192.0.2.0/24"], &[], grace(90))],
    ));
    assert_eq!(site.login(0, ANN, A).reason, Reason::OtherUser, "although rule 1 names her");
    site.login(0, JOE, A);
    assert_eq!(site.until(A), Some(90));
}

#[test]
fn a_login_without_a_user_meets_no_condition_on_users() {
    let text = "name = \"own\"\ntitle = \"own\"\nversions = \"1\"\nprograms = [\"ownd\"]\n\n\
                [[login]]\npattern = '^login (?<address>[0-9.]+)$'\n\n\
                [[example]]\nverdict = \"login\"\nline = \"<22>Nov 22 07:31:23 ownd[7]: login \
                192.0.2.7\"\naddress = \"192.0.2.7\"\n";
    let file = DaemonFile { origin: Some("own.toml".into()), text: text.into() };
    let table = || {
        DaemonTable::load(std::slice::from_ref(&file), &Selection::Verified).expect("it is sound")
    };
    let line = "<22>Nov 22 07:31:23 mx1 ownd[7]: login 192.0.2.7";
    let never = rule(1, &[], &[ANN, "@example.com"], Effect::Never);
    let mut site = Site::new(Rules { table: table(), ..with(None, vec![never]) });
    assert_eq!(site.frame(0, line).verdict, Verdict::Login);
    let mut site = Site::new(Rules { table: table(), ..with(Some(&[ANN]), Vec::new()) });
    let outcome = site.frame(0, line);
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Excluded, Reason::UnknownUser));
    let all = rule(1, &[], &[], Effect::Never);
    let mut site = Site::new(Rules { table: table(), ..with(None, vec![all]) });
    assert_eq!(site.frame(0, line).verdict, Verdict::Excluded, "a rule without conditions");
}

#[test]
fn exclusions_and_blocks_come_first_and_the_operator_is_above_rules() {
    let never = || rule(1, &[], &[], Effect::Never);
    story_with("the operator may authorise", with(None, vec![never()]))
        .process(&frame(ANN, A), Verdict::Excluded)
        .allow(A, Some(600))
        .process(&frame(ANN, A), Verdict::Excluded)
        .at(599)
        .admits(&[A])
        .at(600)
        .rejects(&[A]);
    story_with("blocked", with(None, vec![rule(1, &[], &[], grace(60))]))
        .revoke(A, Some(600), false)
        .refused_login(A, &Reason::Blocked)
        .rejects(&[A]);
}

#[test]
fn what_new_rules_refuse_ends_and_the_rest_stays() {
    let never = rule(1, &[], &[JOE], Effect::Never);
    let mut site = Site::new(bound(rules()));
    site.login(0, JOE, A);
    site.login(100, ANN, A);
    site.login(200, JOE, A);
    site.login(0, JOE, B);
    site.login(0, ANN, "192.0.2.8");
    site.0.allow(at(0), ip(B), Some(Duration::from_secs(600)), None).expect("allowed");
    site.login(0, JOE, "192.0.2.9");
    site.0.reload(at(300), bound(with(None, vec![never])));
    assert_eq!(site.removals(300), [RemovalReason::Refused]);
    assert_eq!(site.until("192.0.2.9"), None);
    assert_eq!(site.until("192.0.2.8"), Some(1800), "not concerned");
    assert_eq!(site.until(A), Some(1900), "what ann's login has granted");
    assert!(site.sends(300, A, ANN) && !site.sends(300, A, JOE));
    assert_eq!(site.until(B), Some(600), "what the operator has granted");
    // Rules that no longer refuse give nothing back but the part in what others have granted.
    site.0.reload(at(400), bound(rules()));
    assert_eq!((site.until(A), site.until(B)), (Some(1900), Some(600)));
    assert!(site.sends(400, A, JOE));
    // As for the grace itself, another grace is for the next login.
    site.0.reload(at(400), bound(with(None, vec![rule(1, &[], &[], grace(60))])));
    assert_eq!(site.until(A), Some(1900));
    assert_eq!(site.removals(400), []);
    site.0.reload(at(400), bound(with(Some(&["nobody"]), Vec::new())));
    assert_eq!(site.removals(400), [RemovalReason::Refused; 2]);
    assert_eq!((site.until(A), site.until(B)), (None, Some(600)));
}

#[test]
fn the_map_follows_new_rules() {
    story_with("reload", rules())
        .process(&frame(JOE, A), Verdict::Login)
        .process(&frame(ANN, B), Verdict::Login)
        .at(1)
        .publishes(&[A, B])
        .at(10)
        .reload(with(None, vec![rule(1, &["192.0.2.0/24"], &[], Effect::Never)]))
        .rejects(&[A])
        .publishes(&[B]);
}

#[test]
fn a_restart_restores_no_more_than_the_rules_allow() {
    let long = || with(None, vec![rule(1, &[], &[SCANNER], grace(8 * HOURS))]);
    let mut site = Site::new(long());
    site.login(0, SCANNER, A);
    site.login(0, JOE, B);
    let (same, restored) = site.restarted(60, long());
    assert_eq!((restored.grants, restored.shortened, restored.is_current), (2, 0, true));
    assert_eq!((same.until(A), same.until(B)), (Some(8 * HOURS), Some(1800)));
    let (short, restored) = site.restarted(60, rules());
    assert_eq!((restored.grants, restored.shortened), (2, 1));
    assert_eq!((short.until(A), short.until(B)), (Some(60 + 1800), Some(1800)));
    let (refused, restored) = site.restarted(60, with(Some(&[JOE]), Vec::new()));
    assert_eq!((restored.grants, restored.refused), (1, 1));
    assert_eq!((refused.until(A), refused.until(B)), (None, Some(1800)));

    // Whatever the file says.
    let far = at(7 * 24 * HOURS).as_millis();
    let user = |name: &str| format!("\t{far}\t{name}");
    let line = |address: &str, users: &str| {
        format!("grant\t{address}\t{far}\t{far}\t\t\t1\tdovecot\tmx1\t{users}\t.\n")
    };
    let text = format!(
        "pop-before-smtp state 1\n{}{}{}",
        line(A, &user(SCANNER)),
        line(B, &user(JOE)),
        line("192.0.2.8", "")
    );
    let mut engine = Engine::new(long());
    engine_loop::restore(&mut engine, at(0), &text);
    let bent = Site(engine);
    assert_eq!(bent.until(A), Some(8 * HOURS));
    assert_eq!((bent.until(B), bent.until("192.0.2.8")), (Some(1800), Some(1800)));
    let mut engine = Engine::new(with(Some(&["nobody"]), Vec::new()));
    assert_eq!(engine_loop::restore(&mut engine, at(0), &text).refused, 3);
    assert!(engine_loop::list(&engine, at(0)).is_empty());
}

#[test]
fn a_late_message_is_measured_by_the_shorter_grace() {
    let list = vec![rule(1, &[], &[ANN], grace(60)), rule(2, &[], &[JOE], grace(8 * HOURS))];
    let mut site = Site::new(with(None, list));
    let dated = |user: &str| {
        let rest = frame(user, A).split_once("mx1").expect("a host").1.to_owned();
        let rest = rest.replace(" dovecot: ", " dovecot - - - ");
        format!("<22>1 2026-11-18T00:00:00Z mx1{rest}")
    };
    // 2026-11-18T00:00:00Z
    let date = Time::from_millis(1_794_960_000_000);
    let mut outcome = |user: &str, age: u64| {
        let now = date + Duration::from_secs(age);
        site.0.process(now, Source::default(), dated(user).as_bytes()).reason
    };
    let late = |age| Reason::Late(Duration::from_secs(age));
    assert_eq!(outcome(ANN, 61), late(61));
    assert_eq!(outcome(JOE, 1801), late(1801));
    assert!(matches!(outcome(ANN, 1860), Reason::Late(_)));
    assert!(matches!(outcome(JOE, 1799), Reason::LoggedIn(_)));
}

#[test]
fn each_session_has_the_grace_of_its_own_rule() {
    let login =
        |user: &str, id: &str| frame(user, A).replace("session=<a>", &format!("session=<{id}>"));
    let logout = |user: &str, id: &str| {
        format!(
            "<22>Nov 22 08:31:41 mx1 dovecot: imap({user})<44><{id}>: Disconnected: Logged out in=9 out=5"
        )
    };
    let connected = |list: Vec<LoginRule>| Rules {
        session_ceiling: Some(Duration::from_secs(24 * HOURS)),
        ..with(None, list)
    };
    let long = || rule(1, &[], &[SCANNER], grace(8 * HOURS));
    let mut site = Site::new(connected(vec![long()]));
    site.frame(0, &logout(ANN, "x"));
    site.frame(0, &login(SCANNER, "one"));
    site.frame(0, &login(ANN, "two"));
    assert_eq!(site.until(A), Some(24 * HOURS));
    site.frame(100, &logout(SCANNER, "one"));
    assert_eq!(site.until(A), Some(24 * HOURS), "ann is still connected");
    site.frame(200, &logout(ANN, "two"));
    assert_eq!(
        site.until(A),
        Some(100 + 8 * HOURS),
        "her log-out does not shorten another's grace"
    );

    // Refused while connected: the log-out grants nothing.
    site.frame(300, &login(SCANNER, "three"));
    site.frame(300, &login(ANN, "four"));
    let never = rule(1, &[], &[SCANNER], Effect::Never);
    site.0.reload(at(400), connected(vec![never.clone()]));
    site.frame(500, &logout(ANN, "four"));
    assert_eq!(site.until(A), Some(500 + 1800));
    site.frame(1000, &logout(SCANNER, "three"));
    assert_eq!(site.until(A), Some(500 + 1800));

    // Without sessions each has at most the grace of its rule.
    let mut site = Site::new(connected(vec![long()]));
    site.frame(0, &logout(ANN, "x"));
    site.frame(0, &login(SCANNER, "one"));
    site.frame(0, &login(ANN, "two").replace(A, B));
    site.0.reload(at(100), with(None, vec![long()]));
    assert_eq!((site.until(A), site.until(B)), (Some(100 + 8 * HOURS), Some(100 + 1800)));
}

#[test]
fn refused_users_share_the_address_too() {
    let limited = |list: Vec<LoginRule>| Rules { max_users: Some(2), ..bound(with(None, list)) };
    let never = rule(1, &[], &["@example.com"], Effect::Never);
    let mut site = Site::new(limited(vec![never.clone()]));
    site.login(0, ANN, A);
    site.login(10, JOE, A);
    assert!(site.sends(10, A, ANN) && !site.sends(10, A, JOE));
    site.login(20, "jim@example.com", A);
    assert_eq!(site.removals(20), [RemovalReason::Shared]);
    assert_eq!(site.until(A), None);
    assert_eq!(site.0.why_not(at(20), ip(A)), AbsenceReason::Shared(3));
    let (mut restarted, _) = site.restarted(30, limited(vec![never]));
    assert_eq!(restarted.login(30, ANN, A).reason, Reason::Shared);
    // When their grace is over, the address has one user again.
    assert_eq!(restarted.login(1820, ANN, A).verdict, Verdict::Login);
    assert!(restarted.sends(1820, A, ANN));
}

#[test]
fn why_an_address_is_not_authorised() {
    let mut site = Site::new(with(
        None,
        vec![rule(1, &["203.0.113.0/24"], &[], Effect::Never), rule(2, &[], &[JOE], Effect::Never)],
    ));
    let why = |site: &Site, seconds, address: &str| site.0.why_not(at(seconds), ip(address));
    assert_eq!(why(&site, 0, A), AbsenceReason::Unknown);
    assert_eq!(why(&site, 0, "203.0.113.9"), AbsenceReason::Rule("rule 1".into()));
    site.login(0, JOE, "::ffff:192.0.2.7");
    let refused = Reason::RefusedByRule("rule 2".into());
    assert_eq!(why(&site, 9, A), AbsenceReason::Refused(at(0), refused));
    site.login(0, ANN, A);
    assert_eq!(why(&site, 1800, A), AbsenceReason::Ended(at(1800), RemovalReason::Expired));
    site.removals(1801);
    assert_eq!(why(&site, 9999, A), AbsenceReason::Ended(at(1801), RemovalReason::Expired));
    site.0.revoke(at(9999), ip(A), Some(Duration::from_secs(60)));
    assert_eq!(why(&site, 9999, A), AbsenceReason::Blocked(at(10_059)));
}

#[test]
fn a_rule_may_have_a_limit_of_its_own() {
    let limited = |number, users: &[&str], messages| LoginRule {
        limit: Limit { messages: Some(messages), recipients: None },
        ..rule(number, &[], users, Effect::Usual)
    };
    let list = || vec![limited(1, &[SCANNER], 1), limited(2, &[JOE], 3)];
    // The same message is counted once, so each has an instance.
    let mut message = 0;
    let mut sends = |site: &mut Site, address: &str, sender: &str| {
        message += 1;
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={address}\n\
             sender={sender}\nrecipient=x@example.net\ninstance={message}\n\n"
        );
        let Decoded::Whole { request, .. } = policy::read(request.as_bytes()) else {
            panic!("{request}")
        };
        site.0.decide(at(60), &request).action == Action::Ok
    };
    // Where the sender tells the user, each has their own.
    let mut site = Site::new(bound(with(None, list())));
    for user in [SCANNER, JOE, ANN] {
        site.login(0, user, A);
    }
    let sent: Vec<_> = (0..5).map(|_| sends(&mut site, A, JOE)).collect();
    assert_eq!(sent, [true, true, true, false, false]);
    let sent: Vec<_> = (0..2).map(|_| sends(&mut site, A, SCANNER)).collect();
    assert_eq!(sent, [true, false]);
    assert!((0..9).all(|_| sends(&mut site, A, ANN)), "no rule limits her");
    // Otherwise the address has the lowest of its users.
    let mut site = Site::new(with(None, list()));
    site.login(0, JOE, A);
    site.login(0, ANN, A);
    site.login(0, ANN, B);
    let sent: Vec<_> = (0..4).map(|_| sends(&mut site, A, "x@example.net")).collect();
    assert_eq!(sent, [true, true, true, false]);
    assert!((0..9).all(|_| sends(&mut site, B, "x@example.net")));
    site.login(30, SCANNER, B);
    assert!(!sends(&mut site, B, "x@example.net"), "what was sent before counts too");
}

/// A rule that shortens the grace of one user shortens what that user's login has granted, although a
/// login without a name would be granted more.
#[test]
fn a_restart_cuts_a_grant_to_the_grace_of_its_user() {
    let minute = || with(None, vec![rule(1, &[], &[JOE], grace(60))]);
    let mut site = Site::new(rules());
    site.login(0, JOE, A);
    site.login(0, ANN, B);
    let (restarted, _) = site.restarted(0, minute());
    assert_eq!((restarted.until(A), restarted.until(B)), (Some(60), Some(1800)));
    // Two users: each has its own grace, and the address the longer one.
    site.login(0, ANN, A);
    let (restarted, _) = site.restarted(0, minute());
    assert_eq!(restarted.until(A), Some(1800));
}

/// However many users are forgotten, the deadline rests on one who is known, and ends with that one.
#[test]
fn a_forgotten_user_keeps_no_address_authorised() {
    let long = || with(None, vec![rule(1, &[], &[JOE], grace(8 * HOURS))]);
    let mut site = Site::new(long());
    site.login(0, JOE, A);
    for number in 0..100 {
        site.login(1, &format!("user{number}@example.com"), A);
    }
    assert_eq!(site.until(A), Some(8 * HOURS));
    site.0.reload(at(2), with(None, vec![rule(1, &[], &[JOE], Effect::Never)]));
    assert_eq!(site.until(A), Some(1801));
}
