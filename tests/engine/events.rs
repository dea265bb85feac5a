//! Stories about what those who watch are told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Reason, Verdict};
use pop_before_smtp::engine::{Engine, Rules};

use crate::support::story::{START, excluding, ip, login_frame, rules, story, story_with};

#[test]
fn a_grant_is_told_from_its_beginning_to_its_end() {
    story("told")
        .login("192.0.2.6")
        .watch()
        .at(10)
        .login("192.0.2.7")
        .at(20)
        .login("192.0.2.7")
        .allow("192.0.2.8", Some(60))
        .revoke("192.0.2.8", None, true)
        .at(1821)
        .publishes(&[])
        .events(&[
            "Granted 192.0.2.7 joe dovecot 1810",
            "Renewed 192.0.2.7 joe dovecot 1820",
            "Granted 192.0.2.8 - - 80",
            "Ended(Revoked) 192.0.2.8 - - -",
            "Ended(Expired) 192.0.2.6 joe dovecot -",
            "Ended(Expired) 192.0.2.7 joe dovecot -",
        ]);
}

#[test]
fn who_makes_room_is_told_after_who_came() {
    story_with("evicted", Rules { max_clients: 1, ..rules() })
        .watch()
        .login("192.0.2.7")
        .at(1)
        .login("192.0.2.8")
        .events(&[
            "Granted 192.0.2.7 joe dovecot 1800",
            "Granted 192.0.2.8 joe dovecot 1801",
            "Ended(Evicted) 192.0.2.7 joe dovecot -",
        ]);
}

#[test]
fn logins_that_authorise_nobody_are_told_with_the_reason() {
    let home = || excluding(&[("home", "198.51.100.0/24")]);
    let ann = login_frame("192.0.2.7").replace("joe", "ann");
    story_with("excluded", Rules { exclude: home(), max_users: Some(1), ..rules() })
        .watch()
        .process(&login_frame("198.51.100.1"), Verdict::Excluded)
        .revoke("192.0.2.66", Some(60), false)
        .refused_login("192.0.2.66", &Reason::Blocked)
        .login("192.0.2.7")
        .process(&ann, Verdict::Excluded)
        .events(&[
            "Excluded(\"home\") 198.51.100.1 joe dovecot -",
            "Excluded(\"blocked\") 192.0.2.66 joe dovecot -",
            "Granted 192.0.2.7 joe dovecot 1800",
            "Ended(Shared) 192.0.2.7 ann dovecot -",
            "Excluded(\"shared\") 192.0.2.7 ann dovecot -",
        ])
        .reload(Rules { exclude: home(), ..rules() })
        .reload(Rules { exclude: excluding(&[("all", "192.0.2.0/24")]), ..rules() })
        .inspect(|engine| {
            let told = engine.events().since(5).unwrap().map(|event| format!("{:?}", event.kind));
            assert_eq!(told.collect::<Vec<_>>(), ["Granted", "Ended(Excluded)"]);
        });
}

#[test]
fn a_log_out_that_brings_the_end_forward_is_told() {
    let logout = "<22>Nov 22 07:31:23 mx1 dovecot: imap(joe)<7><a>: Logged out in=1 out=2";
    let ceiling = Some(Duration::from_secs(36_000));
    story_with("log-out", Rules { session_ceiling: ceiling, ..rules() })
        .process(&logout.replace("<a>", "<b>"), Verdict::Logout)
        .watch()
        .login("192.0.2.7")
        .at(10)
        .process(logout, Verdict::Logout)
        .events(&["Granted 192.0.2.7 joe dovecot 36000", "Renewed 192.0.2.7 joe dovecot 1810"]);
}

#[test]
fn nothing_is_kept_while_nobody_watches_and_a_slow_reader_learns_what_it_has_missed() {
    let mut engine = Engine::new(rules());
    let login = |engine: &mut Engine| {
        let frame = login_frame("192.0.2.7");
        engine.process(Time::from_millis(START), Source::default(), frame.as_bytes());
    };
    login(&mut engine);
    assert_eq!((engine.watch(), engine.events().end()), (0, 0));
    engine.watch();
    for _ in 0..65_536 {
        login(&mut engine);
    }
    let events = engine.events();
    assert_eq!(events.since(0).unwrap().count(), 65_536);
    assert_eq!(events.since(65_535).unwrap().next().unwrap().address, ip("192.0.2.7"));
    assert_eq!(events.since(65_536).unwrap().count(), 0);
    login(&mut engine);
    let events = engine.events();
    assert!(events.since(0).is_none(), "the first is no longer kept");
    assert_eq!((events.first(), events.end()), (1, 65_537));
    engine.unwatch();
    assert_eq!(engine.events().first(), 1, "another one watches");
    engine.unwatch();
    login(&mut engine);
    assert_eq!((engine.events().first(), engine.events().end()), (65_537, 65_537));
    assert_eq!(engine.watch(), 65_537, "numbers do not return");
}
