//! Clients that stay connected stay authorised, if the administrator wants this.

use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons;
use pop_before_smtp::engine::maildaemons::DaemonTable;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

use crate::support::engine_loop;

const CLIENT: &str = "192.0.2.7";

/// Creates an engine that has seen a log-out of each daemon, so that ids of sessions count.
fn engine(ceiling: Option<u64>) -> Engine {
    let mut engine = fresh_engine(ceiling);
    let earlier = [("SU5O", "A0B1"), ("32989", "22989"), ("50459", "40459"), ("[39]", "[29]")];
    for (_, _, logout) in PAIRS {
        let logout =
            earlier.iter().fold(logout.to_owned(), |line, (id, old)| line.replace(id, old));
        process(&mut engine, &[(0, &logout)]);
    }
    engine
}

fn fresh_engine(ceiling: Option<u64>) -> Engine {
    Engine::new(rules(DaemonTable::of(maildaemons::all(&[]).0), ceiling))
}

fn rules(table: DaemonTable, ceiling: Option<u64>) -> Rules {
    let session_ceiling = ceiling.map(Duration::from_secs);
    Rules { table, session_ceiling, grace: Duration::from_secs(60), ..Rules::default() }
}

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn is_admitted(engine: &Engine, seconds: u64) -> bool {
    engine.admits(at(seconds), CLIENT.parse().expect("an address")).is_some()
}

/// Processes lines, each at its second.
fn process(engine: &mut Engine, lines: &[(u64, &str)]) {
    for (second, line) in lines {
        engine.process(at(*second), Source::default(), line.as_bytes());
    }
}

/// For each kind of pairing login and log-out: the lines of a session of one hour.
const PAIRS: [(&str, &[&str], &str); 5] = [
    (
        "Dovecot, by session id",
        &[
            "<22>Nov 22 07:31:31 dovecot: imap-login: Login: user=<joe>, method=PLAIN, rip=192.0.2.7, \
           lip=127.0.0.1, mpid=44, TLS, session=<SU5Od9hgqch/AAIF>",
        ],
        "<22>Nov 22 08:31:41 dovecot: imap(joe)<44><SU5Od9hgqch/AAIF>: Disconnected: Logged out in=9 \
         out=518",
    ),
    (
        "Courier, by address and port",
        &["<22>Nov 22 07:35:28 imapd: LOGIN, user=joe, ip=[::ffff:192.0.2.7], port=[32989], \
           protocol=IMAP"],
        "<22>Nov 22 08:35:28 imapd: LOGOUT, user=joe, ip=[::ffff:192.0.2.7], port=[32989], headers=0, \
         body=0, rcvd=12, sent=34, time=3600",
    ),
    (
        "Perdition, by address and port",
        &["<21>Nov 22 07:35:28 perdition.pop3[26]: Auth: 192.0.2.7:50459->127.0.0.1:110 \
           client-secure=plaintext authorisation_id=NONE authentication_id=\"joe\" \
           server=\"127.0.0.1:2110\" protocol=POP3 server-secure=plaintext status=\"ok\""],
        "<22>Nov 22 08:35:28 perdition.pop3[26]: Closing session: 192.0.2.7:50459->127.0.0.1:110 \
         authorisation_id=NONE authentication_id=\"joe\" received=6 sent=9",
    ),
    (
        "UW imapd, by PID",
        &["<22>Nov 22 07:35:28 imapd[39]: Login user=joe host=[192.0.2.7]"],
        "<22>Nov 22 08:35:28 imapd[39]: Logout user=joe host=[192.0.2.7]",
    ),
    (
        "vm-pop3d in two lines, by PID",
        &[
            "<22>Nov 22 07:35:28 vm-pop3d[39]: Connect from 192.0.2.7",
            "<22>Nov 22 07:35:28 vm-pop3d[39]: User 'joe' logged in",
        ],
        "<22>Nov 22 08:35:28 vm-pop3d[39]: Session ended for user: joe",
    ),
];

#[test]
fn the_grace_period_begins_at_the_log_out() {
    for (name, login, logout) in PAIRS {
        let mut engine = engine(Some(86_400));
        login.iter().for_each(|line| process(&mut engine, &[(0, line)]));
        assert!(is_admitted(&engine, 3599), "{name}: while connected");
        process(&mut engine, &[(3600, logout)]);
        assert!(is_admitted(&engine, 3659), "{name}: within the grace");
        assert!(!is_admitted(&engine, 3660), "{name}: after the grace");
    }
}

/// Dovecot before 2.3 logs a session id at the login only.
#[test]
fn an_id_without_log_outs_does_not_extend_a_grant() {
    let mut engine = fresh_engine(Some(86_400));
    let nameless = "<22>Nov 22 08:31:41 dovecot: imap(joe): Disconnected: Logged out in=9 out=518";
    process(&mut engine, &[(0, PAIRS[0].1[0]), (10, nameless), (20, PAIRS[0].1[0])]);
    assert!(is_admitted(&engine, 79) && !is_admitted(&engine, 80));
}

#[test]
fn without_the_option_a_login_counts_for_the_grace_period() {
    for (name, login, _) in PAIRS {
        let mut engine = engine(None);
        login.iter().for_each(|line| process(&mut engine, &[(0, line)]));
        assert!(is_admitted(&engine, 59) && !is_admitted(&engine, 60), "{name}");
    }
}

#[test]
fn a_session_without_a_log_out_ends_at_the_ceiling() {
    let mut engine = engine(Some(600));
    process(&mut engine, &[(0, PAIRS[0].1[0])]);
    assert!(is_admitted(&engine, 599) && !is_admitted(&engine, 600));
}

#[test]
fn the_sessions_of_an_address_are_counted() {
    let second = PAIRS[0].1[0].replace("SU5O", "XYZ9");
    let second_out = PAIRS[0].2.replace("SU5O", "XYZ9");
    let mut engine = engine(Some(86_400));
    process(&mut engine, &[(0, PAIRS[0].1[0]), (10, &second), (100, PAIRS[0].2)]);
    assert!(is_admitted(&engine, 1000), "the second one is open");
    process(&mut engine, &[(2000, &second_out)]);
    assert!(is_admitted(&engine, 2059) && !is_admitted(&engine, 2060));
}

/// Another process with the PID of one whose log-out was lost, or of one in another container.
#[test]
fn a_session_with_the_same_key_ends_the_previous_one() {
    let (_, login, logout) = PAIRS[3];
    let other = login[0].replace(CLIENT, "192.0.2.8");
    let mut engine = engine(Some(86_400));
    process(&mut engine, &[(0, login[0]), (100, &other)]);
    assert!(is_admitted(&engine, 159) && !is_admitted(&engine, 160), "the grace period remains");
    process(&mut engine, &[(100, login[0]), (200, login[0])]);
    assert!(is_admitted(&engine, 5000), "the same client stays authorised");
    process(&mut engine, &[(6000, logout)]);
    assert!(is_admitted(&engine, 6059) && !is_admitted(&engine, 6060));
}

/// A log-out only takes trust away: it counts even where a login would be refused.
#[test]
fn a_log_out_counts_where_a_login_would_be_refused() {
    let courier = PAIRS[1];
    let fragment = format!("<22>Nov 22 08:35:28 imapd: LOGIN FAILED, user={}", "x".repeat(486));
    let late = courier.2.replace("Nov 22 08:35:28", "1969-12-31T00:00:00Z mx1");
    let late_login = courier.1[0].replace("Nov 22 07:35:28", "2999-12-31T00:00:00Z mx1");
    let odd = courier.2.replace("user=joe", "user=j\u{7}e");
    let rows: [(&str, &str, &[&str]); 3] = [
        ("after a fragment", courier.1[0], &[&fragment, courier.2]),
        ("late", &late_login, &[&late]),
        ("with a refused name", courier.1[0], &[&odd]),
    ];
    for (name, login, lines) in rows {
        let mut engine = engine(Some(86_400));
        // First, to show that log-outs of this stream carry ids.
        process(&mut engine, &[(0, &late.replace("32989", "1")), (10, login)]);
        assert!(is_admitted(&engine, 3600), "{name}");
        lines.iter().for_each(|line| process(&mut engine, &[(3600, line)]));
        assert!(!is_admitted(&engine, 3660), "{name}");
    }
}

#[test]
fn a_log_out_ends_only_its_own_session() {
    let foreign = [
        PAIRS[0].2.replace("SU5O", "XYZ9"),
        PAIRS[1].2.replace("32989", "32988"),
        PAIRS[3].2.replace("[39]", "[40]"),
    ];
    for (pair, foreign) in [0, 1, 3].into_iter().zip(foreign) {
        let mut engine = engine(Some(86_400));
        process(&mut engine, &[(0, PAIRS[pair].1[0]), (10, &foreign)]);
        assert!(is_admitted(&engine, 3600), "{foreign}");
    }
}

/// An address that becomes shared keeps its entry, in which later log-outs count.
#[test]
fn a_log_out_counts_while_the_address_is_shared() {
    let mut engine = engine(Some(3600));
    let limited =
        Rules { max_users: Some(2), ..rules(DaemonTable::of(maildaemons::all(&[]).0), Some(3600)) };
    engine.reload(at(0), limited);
    for user in ["ann", "bob", "cleo"] {
        let login = PAIRS[0].1[0].replace("joe", user).replace("SU5O", user);
        process(&mut engine, &[(1, &login)]);
    }
    assert!(!is_admitted(&engine, 2), "three users share it");
    for user in ["ann", "bob", "cleo"] {
        let logout = PAIRS[0].2.replace("joe", user).replace("SU5O", user);
        process(&mut engine, &[(10, &logout)]);
    }
    engine.reload(at(11), rules(DaemonTable::of(maildaemons::all(&[]).0), Some(3600)));
    assert!(is_admitted(&engine, 69) && !is_admitted(&engine, 70), "the grace after the log-outs");
}

#[test]
fn revoking_and_restarting_end_sessions() {
    let mut engine = engine(Some(86_400));
    process(&mut engine, &[(0, PAIRS[0].1[0])]);
    let state = engine_loop::state(&engine, at(100));
    engine.revoke(at(200), CLIENT.parse().expect("an address"), None);
    process(&mut engine, &[(210, PAIRS[0].2)]);
    assert!(!is_admitted(&engine, 211), "its log-out does not authorise again");

    let mut restarted = self::engine(Some(86_400));
    engine_loop::restore(&mut restarted, at(100), &state);
    assert!(
        is_admitted(&restarted, 159) && !is_admitted(&restarted, 160),
        "sessions are forgotten"
    );
}

#[test]
fn switching_it_off_leaves_the_grace_period() {
    let mut engine = engine(Some(86_400));
    process(&mut engine, &[(0, PAIRS[0].1[0])]);
    engine.reload(at(1000), rules(DaemonTable::of(maildaemons::all(&[]).0), None));
    assert!(is_admitted(&engine, 1059) && !is_admitted(&engine, 1060));
}
