//! What hosts tell again, how often, and what they refuse.

use std::time::Duration;

use pop_before_smtp::engine::cluster::entry::EntryId;

use super::{Host, START};
use crate::support::story::{excluding, ip, login_frame, rules};

const A: &str = "192.0.2.7";
const B: &str = "192.0.2.8";

fn texts(told: &[(EntryId, String)]) -> Vec<&str> {
    told.iter().map(|(_, text)| &**text).collect()
}

/// A client that logs in every second is told of once in a while, and with a later deadline.
#[test]
fn renewals_are_told_once_in_a_window() {
    let mut host = Host::new("a", rules(), 0);
    let (mut next, mut told) = (0, 0);
    for second in 0..300 {
        host.login(second * 1000, &login_frame(A));
        told += host.told(second * 1000, &mut next).len();
    }
    assert_eq!(told, 5, "at the beginning and each minute");
    host.login(300_000, &login_frame(B));
    host.engine.allow(host.now(300_000), ip(A), None, None).expect("it is not excluded");
    assert_eq!(host.told(300_000, &mut next).len(), 2, "others are told at once");
}

/// A stream that has lost everything is told what this host has granted, what operators have decided,
/// and what silent hosts have told; nothing that it has.
#[test]
fn what_the_stream_lacks_is_told_again() {
    let (mut a, mut b) = (Host::new("a", rules(), 0), Host::new("b", rules(), 5000));
    let mut next = 0;
    a.login(0, &login_frame(A));
    b.login(0, &login_frame(B));
    let mut stream = a.told(0, &mut next);
    stream.extend(b.told(0, &mut next));
    b.engine.revoke(b.now(0), ip("192.0.2.9"), Some(Duration::from_secs(3600)));
    stream.extend(b.told(0, &mut next));
    stream.iter().for_each(|entry| a.hear(0, entry));
    let beat = |host: &mut Host, time| host.engine.heartbeat(host.now(time)).expect("a clock");
    let alive = (EntryId { millis: START, number: 99 }, beat(&mut b, 0));
    a.hear(0, &alive);

    // All of it is there.
    a.connect(1000);
    stream.iter().for_each(|entry| a.hear(1000, entry));
    a.engine.end_reading(a.now(1000));
    assert_eq!(texts(&a.told(1000, &mut next)), Vec::<&str>::new());

    // Nothing is there, and the other host lives: it tells its own.
    a.connect(1000);
    a.hear(1000, &alive);
    a.engine.end_reading(a.now(1000));
    let told = a.told(1000, &mut next);
    let is_about =
        |text: &str, told: &[(EntryId, String)]| told.iter().any(|(_, entry)| entry.contains(text));
    assert!(told.len() == 2 && is_about(A, &told) && is_about("192.0.2.9", &told), "{told:?}");

    // The other host is silent.
    a.connect(60_000);
    a.engine.end_reading(a.now(60_000));
    let told = a.told(60_000, &mut next);
    assert!(told.len() == 3 && is_about(B, &told), "{told:?}");
    let mut fresh = Host::new("fresh", rules(), 7_200_000);
    told.iter().for_each(|entry| fresh.hear(60_000, entry));
    for (client, left) in [(A, 1740), (B, 1740)] {
        let now = fresh.now(60_000);
        let grant = fresh.engine.admits(now, ip(client)).expect(client);
        assert_eq!(grant.until.since(now).as_secs(), left, "{client}");
    }
    assert!(fresh.engine.blocked_until(fresh.now(60_000), ip("192.0.2.9")).is_some());
}

/// A host that has lost its state, and whose entries are lost too, is helped by the others: what it does
/// not tell again they tell after some time.
#[test]
fn what_a_living_host_has_forgotten_is_told_by_others() {
    let (mut a, mut b) = (Host::new("a", rules(), 0), Host::new("b", rules(), 0));
    let mut next = 0;
    b.login(0, &login_frame(A));
    b.told(0, &mut next).iter().for_each(|entry| a.hear(0, entry));
    let mut forgetful = Host::new("b", rules(), 0);
    a.connect(1000);
    let beat = |host: &mut Host, time| host.engine.heartbeat(host.now(time)).expect("a clock");
    a.hear(1000, &(EntryId { millis: START, number: 50 }, beat(&mut forgetful, 1000)));
    a.engine.end_reading(a.now(1000));
    assert_eq!(texts(&a.told(1000, &mut next)), Vec::<&str>::new());
    a.hear(17_000, &(EntryId { millis: START, number: 51 }, beat(&mut forgetful, 17_000)));
    beat(&mut a, 17_000);
    let told = a.told(17_000, &mut next);
    assert!(told.len() == 1 && told[0].1.contains(A), "{told:?}");
    forgetful.hear(17_000, &told[0]);
    assert!(forgetful.engine.admits(forgetful.now(17_000), ip(A)).is_some());
}

/// What is heard while the stream is being read is written to the state file when it has been read, or
/// when the connection ends; afterwards each entry at once.
#[test]
fn what_is_heard_is_written_to_the_state_file() {
    let mut a = Host::new("a", rules(), 0);
    let mut next = 0;
    a.login(0, &login_frame(A));
    let told = a.told(0, &mut next);
    for is_read in [true, false] {
        let mut b = Host::new("b", rules(), 0);
        b.connect(0);
        b.hear(0, &told[0]);
        assert!(!b.engine.has_changes());
        if is_read {
            b.engine.end_reading(b.now(0));
        } else {
            b.engine.end_catching_up();
        }
        let before = b.engine.last_change();
        assert!(b.engine.journal().whole, "{is_read}");
        a.login(1000, &login_frame(B));
        b.hear(1000, &a.told(1000, &mut next)[0]);
        assert!(b.engine.last_change() > before);
        assert!(b.engine.journal().text.contains(B), "{is_read}");
        a.engine.revoke(a.now(1000), ip(B), None);
    }
}

/// A log-out that was not told survives a restart: the longer grant that the stream has does not come
/// back.
#[test]
fn log_out_that_was_not_told() {
    let mut a = Host::new("a", super::grace_rules(), 0);
    let mut next = 0;
    let line = |text| format!("<22>Nov 22 07:35:28 imapd[39]: {text} user=joe host=[{A}]");
    a.login(0, &line("Login"));
    let stream = a.told(0, &mut next);
    a.login(1000, &line("Logout"));
    // The grace of the log-out is over, and the session would last.
    a.restart(40_000, super::grace_rules());
    stream.iter().for_each(|entry| a.hear(40_000, entry));
    assert!(a.engine.admits(a.now(40_000), ip(A)).is_none());
}

/// What was in flight when the connection was lost is told again, and the entry that was added twice is
/// deleted.
#[test]
fn lost_answers() {
    let mut host = Host::new("a", rules(), 0);
    host.login(0, &login_frame(A));
    let now = host.now(0);
    let lost = host.engine.untold(now, 10);
    assert_eq!(lost.messages.len(), 1);
    host.engine.not_told(&lost.messages);
    let again = host.engine.untold(now, 10);
    assert_eq!(again.messages.len(), 1);
    let id = |number| EntryId { millis: START, number };
    host.engine.told(&again.messages[0], id(2));
    // It had been added all the same.
    host.engine.hear(now, id(1), &lost.messages[0].text);
    host.engine.hear(now, id(2), &again.messages[0].text);
    assert_eq!(host.engine.untold(now, 10).obsolete, [id(1)]);
}

/// A renewal replaces the entry before, and a grant that has expired leaves none.
#[test]
fn the_stream_has_one_entry_of_a_client() {
    let mut host = Host::new("a", rules(), 0);
    let (mut next, mut live) = (0, std::collections::BTreeSet::new());
    for minute in 0..10 {
        let time = minute * 61_000;
        host.login(time, &login_frame(A));
        let untold = host.engine.untold(host.now(time), 10);
        live.retain(|id| !untold.obsolete.contains(id));
        for message in &untold.messages {
            next += 1;
            let id = EntryId { millis: START + time, number: next };
            host.engine.told(message, id);
            live.insert(id);
        }
        let untold = host.engine.untold(host.now(time), 10);
        live.retain(|id| !untold.obsolete.contains(id));
        assert_eq!(live.len(), 1, "minute {minute}");
    }
    let end = host.now(4_000_000);
    host.engine.tick(end);
    let obsolete = host.engine.untold(end, 10).obsolete;
    assert_eq!(obsolete, live.into_iter().collect::<Vec<_>>());
}

/// This host's own rules apply to what it hears: exclusions, graces, the number of clients.
#[test]
fn own_rules_apply_to_what_is_heard() {
    let mut a = Host::new("a", rules(), 0);
    let mut next = 0;
    a.login(0, &login_frame(A));
    a.login(0, &login_frame(B));
    let stream = a.told(0, &mut next);
    let mut strict = Host::new("strict", rules(), 0);
    let grace = Duration::from_secs(60);
    let own = pop_before_smtp::engine::Rules {
        grace,
        exclude: excluding(&[("exclude", "192.0.2.8/32")]),
        ..rules()
    };
    strict.engine.reload(strict.now(0), own);
    stream.iter().for_each(|entry| strict.hear(0, entry));
    let now = strict.now(0);
    assert_eq!(strict.engine.admits(now, ip(A)).map(|grant| grant.until.since(now)), Some(grace));
    assert_eq!(strict.engine.admits(now, ip(B)), None);
    // The exclusion ends, and the stream is read again.
    strict.engine.reload(now, rules());
    assert!(strict.engine.cluster().is_some_and(|cluster| cluster.wants_reading()));
    strict.connect(0);
    stream.iter().for_each(|entry| strict.hear(0, entry));
    assert!(strict.engine.admits(now, ip(B)).is_some());

    let mut small =
        Host::new("small", pop_before_smtp::engine::Rules { max_clients: 1, ..rules() }, 0);
    stream.iter().for_each(|entry| small.hear(0, entry));
    assert_eq!(small.engine.clients_at(small.now(0)), 1);
}

/// Whatever the stream says: it is counted, and changes nothing for others.
#[test]
fn hostile_entries() {
    let mut host = Host::new("a", rules(), 0);
    let far = START + 365 * 24 * 3_600_000;
    let hostile = [
        String::new(),
        "g\t192.0.2.7".to_owned(),
        format!("h\tevil\t1\t{far}\t1-1"),
        format!("r\t192.0.2.7\t1073741823:evil\t\t1073741823:evil:{},", u64::MAX),
        format!("g\t192.0.2.7\tevil\t1073741823:evil\t{START}\t0\t{}\t\t\t1\tx\t\t", u64::MAX),
        "x".repeat(1 << 20),
        "g\t192.0.2.9\tevil\t\t4611686018427387904\t0\t1800000\t\t\t1\tx\t\t".to_owned(),
        "r\t192.0.2.9\t1073741824:evil\t\t".to_owned(),
    ];
    for (number, text) in hostile.iter().enumerate() {
        host.hear(0, &(EntryId { millis: START, number: number as u64 }, text.clone()));
    }
    host.hear(0, &(EntryId { millis: u64::MAX, number: 0 }, format!("h\tb\t1\t{START}\t1-1")));
    let stats = host.engine.cluster().expect("it is in one").stats();
    assert_eq!(stats.refused, 6, "{stats:?}");
    let week = Duration::from_secs(7 * 24 * 3600);
    let now = host.now(0);
    assert!(host.engine.blocked_until(now, ip(A)).is_some_and(|until| until <= now + week));
    // Operators still have the last word, and others are not affected.
    host.engine.allow(now, ip(A), None, None).expect("it is not excluded");
    host.login(0, &login_frame(B));
    assert!(host.engine.admits(now, ip(B)).is_some());
    let cluster = host.engine.cluster().expect("it is in one");
    assert_eq!(cluster.members().iter().count(), 1, "the id of an entry sets no clock alone");
}
