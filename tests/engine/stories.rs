//! The engine's promises as stories with an invented clock (`support/story.rs`).

use std::time::Duration;

use pop_before_smtp::engine::grants::exclude::Exclude;
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::verdict::{Reason, Verdict};
use pop_before_smtp::engine::{MAX_MANUAL, Rules};

use crate::support::story::{excluding, login_frame, rules, story, story_with};

const A: &str = "192.0.2.7";
const B: &str = "192.0.2.8";
const C: &str = "198.51.100.9";

fn with_grace(seconds: u64) -> Rules {
    Rules { grace: Duration::from_secs(seconds), ..rules() }
}

fn with_exclude(exclude: Exclude) -> Rules {
    Rules { exclude, ..rules() }
}

#[test]
fn a_login_counts_until_its_deadline() {
    story("the deadline")
        .rejects(&[A])
        .login(A)
        .publishes(&[A])
        .wakes_at_ms(1_800_000)
        .at_ms(1_799_999)
        .admits(&[A])
        .rejects(&[B])
        .quiet()
        .at_ms(1_800_000)
        .rejects(&[A])
        .publishes(&[]);
    story("a renewal").login(A).publishes(&[A]).at(60).login(A).quiet().wakes_at_ms(1_860_000);
    story("a renewal moves the deadline")
        .login(A)
        .publishes(&[A])
        .at(60)
        .login(A)
        .at_ms(1_859_999)
        .quiet()
        .admits(&[A])
        .at(1860)
        .rejects(&[A])
        .publishes(&[]);
    story("a login at the deadline").login(A).publishes(&[A]).at(1800).login(A).inspect(|engine| {
        assert_eq!((engine.stats().granted, engine.stats().expired), (2, 1), "two grants")
    });
}

#[test]
fn renewals_do_not_publish_and_many_logins_are_published_together() {
    let mut renewed = story("twenty renewals").login(A).publishes(&[A]);
    for second in 1..=20 {
        renewed = renewed.at(second).login(A).quiet();
    }
    renewed.inspect(|engine| assert_eq!(engine.stats().logins, 21));

    let clients: Vec<String> = (1..=100).map(|last| format!("203.0.113.{last}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    // It takes 200 ms, so the pause is the longest one.
    let mut story = story("many logins")
        .at(9)
        .login(clients[0])
        .publishes_while(&clients[..1], |story| story.at_ms(9_200));
    for (index, client) in (1..).zip(&clients[1..]) {
        story = story.at_ms(9_200 + index * 10).login(client).quiet();
    }
    story
        .wakes_at_ms(10_200)
        .at_ms(10_199)
        .quiet()
        .at_ms(10_200)
        .publishes(&clients)
        .at(1700)
        .quiet();
}

#[test]
fn a_login_soon_after_another_waits_five_times_what_the_publication_took() {
    story("two logins")
        .at(9)
        .login(A)
        .publishes_while(&[A], |story| story.at_ms(9_030).login(B))
        .quiet()
        .wakes_at_ms(9_180)
        .at_ms(9_180)
        .publishes(&[A, B]);
}

#[test]
fn the_address_closest_to_expiry_is_evicted() {
    let small = || Rules { max_clients: 2, ..rules() };
    story_with("eviction by deadline, not by age", small())
        .login(A)
        .at(1)
        .login(B)
        .at(2)
        .login(A)
        .publishes(&[A, B])
        .at(3)
        .login(C)
        .publishes(&[A, C])
        .rejects(&[B])
        .inspect(|engine| assert_eq!(engine.stats().evicted, 1));
    story_with("the new address may be the one to be evicted", small())
        .login(A)
        .login(B)
        .publishes(&[A, B])
        .at(1)
        .allow(C, Some(60))
        .rejects(&[C])
        .admits(&[A, B]);
    story_with("of those that expire together, the first that came", small())
        .login(C)
        .login(B)
        .login(A)
        .rejects(&[C])
        .login(C)
        .rejects(&[B])
        .publishes(&[A, C]);
    story_with("an expired address is not an eviction", small())
        .login(A)
        .at(10)
        .login(B)
        .at(1800)
        .login(C)
        .publishes(&[B, C])
        .inspect(|engine| assert_eq!(engine.stats().evicted, 0));
}

#[test]
fn excluded_addresses_are_never_authorised() {
    let lists = [
        ("loopback", "127.0.0.0/8"),
        ("link-local", "fe80::/10"),
        ("own", "192.0.2.1/32"),
        ("gateway", "172.17.0.1/32"),
        ("mynetworks", "10.0.0.0/8"),
        ("exclude", "2001:db8:5::/48"),
    ];
    let mut story = story_with("exclusion", with_exclude(excluding(&lists)));
    for (client, list) in [
        ("127.0.0.1", "loopback"),
        ("::ffff:127.9.9.9", "loopback"),
        ("fe80::7", "link-local"),
        ("192.0.2.1", "own"),
        ("::ffff:172.17.0.1", "gateway"),
        ("10.255.255.255", "mynetworks"),
        ("2001:db8:5::7", "exclude"),
    ] {
        story = story.refused_login(client, &Reason::Excluded(list.into())).rejects(&[client]);
    }
    story.quiet().login("172.17.0.2").login("11.0.0.0").publishes(&["11.0.0.0", "172.17.0.2"]);
}

#[test]
fn each_host_has_one_spelling() {
    story("IPv4-mapped addresses")
        .login("::ffff:192.0.2.7")
        .publishes(&[A])
        .admits(&[A, "::ffff:192.0.2.7"])
        .login(A)
        .quiet()
        .revoke("::ffff:192.0.2.7", None, true)
        .rejects(&[A]);
    story("IPv6 keys that would admit others stay out of the map")
        .login("2001:db8::1")
        .quiet()
        .admits(&["2001:db8::1"])
        .login("2001:db8:1:2:3:4:5:6")
        .publishes(&["2001:db8:1:2:3:4:5:6"])
        .reload(Rules { publish_inexact: true, ..rules() })
        .at(1)
        .publishes(&["2001:db8::1", "2001:db8:1:2:3:4:5:6"])
        .reload(rules())
        .at(2)
        .publishes(&["2001:db8:1:2:3:4:5:6"])
        .admits(&["2001:db8::1"]);
}

#[test]
fn the_operator_can_revoke_block_and_allow() {
    story("a block, until its deadline")
        .login(A)
        .publishes(&[A])
        .at(10)
        .revoke(A, Some(60), true)
        .publishes(&[])
        .refused_login(A, &Reason::Blocked)
        .at_ms(69_999)
        .refused_login("::ffff:192.0.2.7", &Reason::Blocked)
        .revoke(B, None, false)
        .at(70)
        .login(A)
        .publishes(&[A]);
    story("a revocation without a block").login(A).revoke(A, None, true).login(A);
    story("a manual grant")
        .allow(A, Some(60))
        .publishes(&[A])
        .at_ms(59_999)
        .admits(&[A])
        .at(60)
        .publishes(&[])
        .allow(A, None)
        .at_ms(1_859_999)
        .admits(&[A])
        .at(1860)
        .rejects(&[A]);
    story("a manual grant ends a block").revoke(A, Some(600), false).allow(A, Some(9)).login(A);
    let week = MAX_MANUAL.as_secs();
    story("manual grants and blocks last a week at most")
        .allow(A, Some(u64::MAX))
        .revoke(B, Some(u64::MAX), false)
        .at(week - 1)
        .admits(&[A])
        .refused_login(B, &Reason::Blocked)
        .at(week)
        .rejects(&[A])
        .login(B);
    let refused = with_exclude(excluding(&[("own", "192.0.2.7/32")]));
    story_with("excluded addresses stay excluded", refused)
        .refuses_to_allow("::ffff:192.0.2.7", "own");
}

#[test]
fn the_later_deadline_wins() {
    story("a login shortens nothing")
        .allow(A, Some(7200))
        .at(10)
        .login(A)
        .at_ms(7_199_999)
        .admits(&[A])
        .at(7200)
        .rejects(&[A]);
    story("nor does a shorter manual grant")
        .login(A)
        .at(10)
        .allow(A, Some(60))
        .at_ms(1_799_999)
        .admits(&[A])
        .at(1800)
        .rejects(&[A]);
    story("nor does a login after the grace period was shortened")
        .login(A)
        .reload(with_grace(60))
        .at(10)
        .login(A)
        .at(1799)
        .admits(&[A]);
    story("a restart limits each grant by its source")
        .allow(A, Some(7200))
        .at(10)
        .login(A)
        .login(B)
        .restart(rules(), Restored { grants: 2, ..Restored::default() })
        .at_ms(7_199_999)
        .admits(&[A])
        .rejects(&[B])
        .at(7200)
        .rejects(&[A]);
}

#[test]
fn a_failed_publication_is_retried() {
    story("pauses grow, and nothing is lost")
        .login(A)
        .fails_to_publish(&[A], 1)
        .wakes_at_ms(1_000)
        .at_ms(500)
        .login(B)
        .quiet()
        .at(1)
        .fails_to_publish(&[A, B], 2)
        .at(3)
        .fails_to_publish(&[A, B], 4)
        .at(4)
        .revoke(A, None, true)
        .at_ms(6_999)
        .quiet()
        .at(7)
        .publishes(&[B])
        .at(8)
        .login(A)
        .fails_to_publish(&[A, B], 1);
    story("changes during a slow publication are in the next")
        .login(A)
        .publishes_while(&[A], |story| story.at(5).login(B))
        .at_ms(5_999)
        .quiet()
        .at(6)
        .publishes_while(&[A, B], |story| story.at(7).revoke(A, None, true))
        .at(8)
        .publishes(&[B])
        .at(9)
        .quiet();
    story("grants expire while postmap is failing")
        .login(A)
        .publishes(&[A])
        .at(1799)
        .login(B)
        .fails_to_publish(&[A, B], 1)
        .at(1800)
        .publishes(&[B]);
}

#[test]
fn a_reload_keeps_the_set() {
    story("except addresses that are now excluded")
        .login(A)
        .login(B)
        .publishes(&[A, B])
        .reload(with_grace(60))
        .at(1)
        .quiet()
        .login(C)
        .publishes(&[A, B, C])
        .at(61)
        .publishes(&[A, B])
        .reload(with_exclude(excluding(&[("mynetworks", "192.0.2.8/31")])))
        .rejects(&[B])
        .at(62)
        .publishes(&[A])
        .refused_login(B, &Reason::Excluded("mynetworks".into()))
        .reload(rules())
        .rejects(&[B])
        .at(1799)
        .admits(&[A])
        .restart(rules(), Restored { grants: 1, expired: 1, ..Restored::default() });
    story("and shrinks to a smaller limit")
        .login(A)
        .at(1)
        .login(B)
        .reload(Rules { max_clients: 1, ..rules() })
        .publishes(&[B]);
}

/// The time of arrival counts, not the one in the frame.
#[test]
fn the_time_in_a_frame_does_not_set_the_deadline() {
    let early = login_frame(A).replace("Nov 22", "Jan  1");
    let late = format!("<22>1 2999-01-01T00:00:00Z mx1 dovecot - - - {}", text(&login_frame(B)));
    story("forged times")
        .process(&early, Verdict::Login)
        .process(&late, Verdict::Login)
        .publishes(&[A, B])
        .wakes_at_ms(1_800_000);
}

fn text(frame: &str) -> &str {
    frame.split_once("dovecot: ").expect("a frame of Dovecot").1
}
