//! Messages longer than genuine ones: they cost little, are not logins, and still take trust away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::grants::GrantOutcome;
use pop_before_smtp::engine::maildaemons::{DaemonTable, Refusal, Selection};
use pop_before_smtp::engine::message::syslog::{Frame, Malformed};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::Reason;
use pop_before_smtp::engine::{Engine, Rules};

fn rules() -> Rules {
    let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
    Rules { table, ..Rules::default() }
}

fn engine() -> Engine {
    Engine::new(rules())
}

fn process(engine: &mut Engine, seconds: u64, frame: &str) -> Reason {
    let now = Time::from_millis(seconds * 1000);
    engine.process(now, Source::default(), frame.as_bytes()).reason
}

/// A text that matches no pattern is refused for its length: no pattern was tried.
#[test]
fn a_message_too_long_for_a_login_is_not_matched() {
    let long = |program: &str, length: usize| {
        let head = format!("Nov 22 07:31:23 mx1 {program}: ");
        head + &"z".repeat(length)
    };
    let refused = Reason::Refused(Refusal::TooLong);
    for (program, most) in [("dovecot", 800), ("pop3d", 499), ("tpop3d", 1024)] {
        let mut engine = engine();
        assert_eq!(process(&mut engine, 0, &long(program, most)), Reason::NoPattern, "{program}");
        let mut engine = self::engine();
        for more in [1, 1000, 60_000 - most] {
            let reason = process(&mut engine, 0, &long(program, most + more));
            let is_continuation = program == "pop3d" && more > 1000;
            assert_eq!(
                reason,
                if is_continuation { Reason::Continuation } else { refused.clone() },
                "{program}"
            );
        }
    }
    // Not even one that would match.
    let teapop = |host: &str| {
        let login = "Successful login for joe [192.0.2.1] from ";
        format!("Nov 22 07:31:23 mx1 teapop[7]: {login}{host} [192.0.2.8]")
    };
    let mut engine = engine();
    assert_eq!(process(&mut engine, 0, &teapop(&"h".repeat(2000))), refused);
    assert_eq!(process(&mut engine, 0, &teapop("h")), Reason::LoggedIn(GrantOutcome::New));
}

/// The length of a message that takes trust away does not matter.
#[test]
fn trust_is_taken_away_at_any_length() {
    for length in [0, 500, 1000, 5000, 60_000] {
        let rest = "x".repeat(length);
        // Another daemon has the same program name and is tried first.
        for program in ["ipop3d", "imapd"] {
            let frame = |text: &str| format!("Nov 22 07:31:23 mx1 {program}[7]: {text}");
            let mut engine = engine();
            let away = process(&mut engine, 0, &frame(&format!("IMAP login to host={rest}")));
            assert_eq!(away, Reason::Distrust, "{program} {length}");
            let login = frame("Login user=joe host=[192.0.2.7] nmsgs=0/0");
            let login =
                login.replace(" nmsgs=0/0", if program == "imapd" { "" } else { " nmsgs=0/0" });
            // The first two may be continuations of a split line.
            let reasons = [1, 2, 3].map(|second| process(&mut engine, second, &login));
            assert_eq!(reasons[2], Reason::Distrusted, "{program} {length}");
            assert_eq!(engine.stats().logins, 0);
        }
        let frame = |text: &str| format!("Nov 22 07:31:23 mx1 vm-pop3d[7]: {text}");
        let mut engine = engine();
        let connect = frame("Connect from 192.0.2.7");
        assert_eq!(process(&mut engine, 0, &connect), Reason::Connected);
        process(&mut engine, 1, &frame(&format!("Quitting on signal: {rest}")));
        let login = process(&mut engine, 2, &frame("User 'joe' logged in"));
        assert_eq!(login, Reason::NoConnection, "{length}");
    }
}

#[test]
fn a_log_out_counts_at_any_length() {
    let dovecot = |text: &str| format!("Nov 22 07:31:23 mx1 dovecot: {text}");
    let login = dovecot(
        "imap-login: Login: user=<joe>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=7, \
         session=<a>",
    );
    let logout = "imap(joe)<7><a>: Disconnected: ";
    for length in [0, 1000, 60_000] {
        let rules = Rules { session_ceiling: Some(Duration::from_secs(86_400)), ..rules() };
        let mut engine = Engine::new(rules);
        // First, to show that its log-outs carry the ids of sessions.
        process(&mut engine, 0, &dovecot("imap(ann)<6><b>: Logged out"));
        process(&mut engine, 0, &login);
        let out = process(&mut engine, 1, &dovecot(&format!("{logout}{}", "x".repeat(length))));
        assert_eq!(out, Reason::LoggedOut, "{length}");
        let address = "192.0.2.7".parse().expect("an address");
        let later = Time::from_millis(3_600_000);
        assert!(engine.admits(later, address).is_none(), "{length}");
    }
    // A truncated message is refused if the pattern depends on its end.
    let text = format!("Session ended for user: {}", "x".repeat(2000));
    let reason = process(&mut engine(), 0, &format!("Nov 22 07:31:23 mx1 gnu-pop3d[7]: {text}"));
    assert_eq!(reason, Reason::Refused(Refusal::TooLong));
}

#[test]
fn only_the_beginning_of_a_long_frame_is_parsed() {
    let length = 60_000;
    for filler in ["x", "\u{20ac}", "[a b=\"c\"]"] {
        let bytes = format!("<22>Nov 22 07:31:24 pop3d: {}", filler.repeat(length));
        let frame = Frame::new(bytes.as_bytes());
        let message = frame.message().expect("a message");
        assert!((1024..=2048).contains(&message.text().len()), "{filler}");
        assert!(message.text().starts_with(filler));
        assert_eq!(frame.raw_body_len(&message), bytes.len(), "at least");
    }
    // If structured data does not end early enough, the beginning of the text is unknown.
    let header = "<22>1 2026-11-22T07:31:23Z mx1 dovecot - - ";
    for (elements, is_message) in [(1, true), (100, true), (200, false), (6000, false)] {
        let bytes = format!("{header}{} [x", "[a b=\"c\"]".repeat(elements));
        let frame = Frame::new(bytes.as_bytes());
        let text = frame.message().map(|message| message.text().to_owned());
        let expected = is_message.then(|| "[x".to_owned()).ok_or(Malformed::NoProgram);
        assert_eq!(text, expected, "{elements}");
    }
    let endless = format!("{header}[a b=\"{}\"] x", "c".repeat(length));
    assert_eq!(Frame::new(endless.as_bytes()).message(), Err(Malformed::NoProgram));
    let nil = format!("{header}- [x{}", "y".repeat(length));
    let nil = Frame::new(nil.as_bytes());
    assert!(nil.message().is_ok_and(|message| message.text().starts_with("[xy")));
}
