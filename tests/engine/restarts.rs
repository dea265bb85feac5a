//! What survives a restart: exactly what was written, never more than a new login could grant, and
//! whatever has happened to the file.

mod model;

use std::net::IpAddr;
use std::time::Duration;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::state::{HEADER, Restoration, Restored};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, MAX_MANUAL, Rules};

use crate::support::engine_loop;
use crate::support::story::{START, excluding, ip, login_frame, rules, story};

const A: &str = "192.0.2.7";
const B: &str = "192.0.2.8";
const NOTHING: Restored = Restored {
    grants: 0,
    expired: 0,
    refused: 0,
    shortened: 0,
    damaged: 0,
    other_version: false,
    is_current: false,
};

#[test]
fn deadlines_survive_a_restart() {
    story("to the millisecond, over several restarts")
        .login(A)
        .at(10)
        .allow(B, Some(3600))
        .at(1000)
        .restart(rules(), Restored { grants: 2, ..NOTHING })
        .publishes(&[A, B])
        .restart(rules(), Restored { grants: 2, ..NOTHING })
        .at_ms(1_799_999)
        .admits(&[A, B])
        .at(1800)
        .rejects(&[A])
        .restart(rules(), Restored { grants: 1, expired: 1, ..NOTHING })
        .at_ms(3_609_999)
        .admits(&[B])
        .at(3610)
        .rejects(&[B]);
    story("blocks, and grants that end them")
        .revoke(A, Some(600), false)
        .revoke(B, Some(600), false)
        .allow(B, Some(60))
        .revoke(B, None, true)
        .restart(rules(), NOTHING)
        .at(599)
        .refused_login(A, &pop_before_smtp::engine::verdict::Reason::Blocked)
        .login(B)
        .at(600)
        .login(A);
}

#[test]
fn nothing_lasts_longer_than_a_new_grant() {
    let short = || Rules { grace: Duration::from_secs(60), ..rules() };
    story("a shorter grace period does not shorten manual grants")
        .login(A)
        .allow(B, Some(3600))
        .at(10)
        .restart(short(), Restored { grants: 2, shortened: 1, ..NOTHING })
        .at_ms(69_999)
        .admits(&[A])
        .at(70)
        .rejects(&[A])
        .at(3599)
        .admits(&[B]);
    story("a clock that was set back")
        .at(86_400)
        .login(A)
        .allow(B, Some(60))
        .at(0)
        .restart(rules(), Restored { grants: 2, shortened: 2, ..NOTHING })
        .admits(&[A, B])
        .at(60)
        .rejects(&[B])
        .at(1800)
        .rejects(&[A]);
    let far = format!("grant\t{A}\t{START}\t{}\t\t\t1\tdovecot\tmx1\t\t.\n", u64::MAX);
    let manual = format!("grant\t{B}\t0\t\t0\t{}\t0\t\t\tforged\t.\n", u64::MAX);
    story("a forged file")
        .edit_file(|file| file + &far + &manual)
        .restart(rules(), Restored { grants: 2, shortened: 2, ..NOTHING })
        .at(1800)
        .rejects(&[A])
        .at(MAX_MANUAL.as_secs())
        .rejects(&[B]);
    let careful =
        Rules { exclude: excluding(&[("own", "192.0.2.7/32")]), max_clients: 1, ..rules() };
    story("new rules apply to old grants")
        .login(A)
        .login(B)
        .at(1)
        .login("192.0.2.9")
        .restart(careful, Restored { grants: 1, refused: 1, ..NOTHING })
        .rejects(&[A, B])
        .publishes(&["192.0.2.9"])
        .restart(rules(), Restored { grants: 1, ..NOTHING });
}

/// A file that the next start would restore otherwise must be written again, and so must one to which
/// nothing can be appended, or which is mostly obsolete.
#[test]
fn only_a_current_file_is_kept() {
    let at = |seconds: u64| Time::from_millis(START + seconds * 1000);
    let mut engine = Engine::new(rules());
    engine.allow(at(0), ip(A), Some(Duration::from_secs(60)), None).expect("allowed");
    engine.process(at(0), Source::default(), login_frame(B).as_bytes());
    let text = engine_loop::state(&engine, at(0));
    let block = |until: u64| format!("block\t192.0.2.9\t{until}\t.\n");
    let gone = "gone\t192.0.2.9\t.\n";
    let is_current = |rules: Rules, text: &str, now: Time, written: Time, cut_off: bool| {
        let mut reading = Restoration::written(written, 0);
        text.lines().for_each(|line| reading.line(line));
        if cut_off {
            reading.cut_off();
        }
        Engine::new(rules).restore(now, reading).is_current
    };
    let short = || Rules { grace: Duration::from_secs(1700), ..rules() };
    let careful = || Rules { exclude: excluding(&[("own", "192.0.2.7/32")]), ..rules() };
    let few = || Rules { max_clients: 1, ..rules() };
    let private = || Rules { remember_users: false, ..rules() };
    let with = |more: &str| text.clone() + more;
    let (later, week) = (at(100), MAX_MANUAL.as_millis() as u64);
    for (what, rules, text, now, written, cut_off, expected) in [
        ("as it was written", rules(), with(""), at(0), at(0), false, true),
        ("one grant has expired", rules(), with(""), later, at(0), false, true),
        ("a block", rules(), with(&block(START + week)), at(0), at(0), false, true),
        ("a block that is too long", rules(), with(&block(u64::MAX)), at(0), at(0), false, false),
        ("half of it is obsolete", rules(), with(&gone.repeat(2)), at(0), at(0), false, true),
        ("most of it is obsolete", rules(), with(&gone.repeat(3)), at(0), at(0), false, false),
        ("a shorter grace period", short(), with(""), at(0), at(0), false, false),
        ("an excluded address", careful(), with(""), at(0), at(0), false, false),
        ("an evicted address", few(), with(""), at(0), at(0), false, false),
        ("a user who is not remembered", private(), with(""), at(0), at(0), false, false),
        ("a clock that was set back", rules(), with(""), at(0), later, false, false),
        ("a damaged line", rules(), with("gone\n"), at(0), at(0), false, false),
        ("no line feed at the end", rules(), with(""), at(0), at(0), true, false),
        ("an empty file", rules(), String::new(), at(0), at(0), false, false),
        ("a header alone", rules(), format!("{HEADER}\n"), at(0), at(0), false, true),
        ("another version", rules(), text.replacen('1', "2", 1), at(0), at(0), false, false),
    ] {
        assert_eq!(is_current(rules, &text, now, written, cut_off), expected, "{what}");
    }
}

/// If the clock is earlier than the file's last write, no grant lasts longer than was left then.
#[test]
fn a_clock_set_back_revives_no_grant() {
    let (start, day) = (Time::from_millis(START), Duration::from_secs(86_400));
    let seconds = Duration::from_secs;
    let mut engine = Engine::new(rules());
    engine.allow(start, ip(A), Some(seconds(10)), None).expect("allowed");
    engine.allow(start, ip(B), Some(seconds(100)), None).expect("allowed");
    let text = engine_loop::state(&engine, start);
    for (written, now, expected) in [
        (start + seconds(40), start + seconds(40), [None, Some(60)]),
        (start + seconds(40), start + seconds(30), [None, Some(60)]),
        (start + seconds(40), start - day, [None, Some(60)]),
        (start + seconds(40), start + seconds(50), [None, Some(50)]),
        (start, start - day, [Some(10), Some(100)]),
        (start, start + day, [None, None]),
    ] {
        let mut reading = Restoration::written(written, 0);
        text.lines().for_each(|line| reading.line(line));
        let mut engine = Engine::new(rules());
        engine.restore(now, reading);
        let left = |address| {
            let grant = engine.admits(now, ip(address))?;
            Some(grant.until.since(now).as_secs())
        };
        assert_eq!([left(A), left(B)], expected, "written {written:?}, now {now:?}");
    }
}

#[test]
fn damaged_lines_are_counted_and_skipped() {
    let grant = |address: &str| {
        format!("grant\t{address}\t{START}\t{}\t\t\t1\tdovecot\t\t\t.\n", START + 9)
    };
    for line in [
        "",
        "nonsense",
        "\u{fffd}\u{fffd}",
        "gone\t192.0.2.7",
        "gone\t192.0.2.700\t.",
        "block\t192.0.2.7\tsoon\t.",
        "unblock\t192.0.2.0/24\t.",
        "grant\t0.0.0.0\t0\t1795000009000\t\t\t1\tdovecot\t\t\t.",
        "grant\t0.0.0.1\t0\t1795000009000\t\t\t1\tdovecot\t\t\t.",
        "grant\t240.0.0.1\t0\t1795000009000\t\t\t1\tdovecot\t\t\t.",
        "block\t240.0.0.1\t1795000009000\t.",
        "grant\t192.0.2.9\t0\t-1\t\t\t1\tdovecot\t\t\t.",
        "grant\t192.0.2.9\t0\t99999999999999999999999\t\t\t1\tdovecot\t\t\t.",
        "grant\t192.0.2.9\t0\t1795000009000\t\t\t1\tdovecot\t\t\t.\t.",
        "grant\t192.0.2.9\t0\t1795000009000\t\t\t1\tdovecot\t\t.",
        "grant\t192.0.2.9\t0\t\t\t\t1\tdovecot\t\t\t.",
        "grant\t192.0.2.9\t0\t\t\t1795000009000\t1\t\t\t\t.",
        "grant\t192.0.2.9\t0\t1795000009000\t\t\t1\tdovecot\t\t\t1795000009000\t.",
    ] {
        story("a damaged line")
            .edit_file(|file| file + &grant(A) + line + "\n" + &grant(B))
            .restart(rules(), Restored { grants: 2, damaged: 1, ..NOTHING })
            .admits(&[A, B])
            .rejects(&["192.0.2.9"]);
    }
    story("a file of another version")
        .edit_file(|_| "pop-before-smtp state 2\n".to_owned() + &grant(A))
        .restart(rules(), Restored { other_version: true, ..NOTHING })
        .rejects(&[A]);
    for text in ["nonsense\n", "\n", "\u{feff}pop-before-smtp state 1\n"] {
        story("a damaged first line")
            .edit_file(|_| text.to_owned() + &grant(A))
            .restart(rules(), Restored { grants: 1, damaged: 1, ..NOTHING })
            .admits(&[A]);
    }
    story("no first line")
        .edit_file(|_| grant(A))
        .restart(rules(), Restored { grants: 1, ..NOTHING });
    story("another program's file")
        .edit_file(|_| "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534\n".to_owned())
        .restart(rules(), Restored { damaged: 2, ..NOTHING });
    let often = format!("grant\t{A}\t{START}\t{}\t\t\t{}\tdovecot\t\t\t.\n", START + 9, u64::MAX);
    story("the largest number of logins")
        .edit_file(|file| file + &often)
        .restart(rules(), Restored { grants: 1, ..NOTHING })
        .login(A);
    story("no file, or an empty one").edit_file(|_| String::new()).restart(rules(), NOTHING);

    // Torn anywhere, the whole lines before the tear are restored.
    let whole = format!("{HEADER}\n{}{}", grant(A), grant(B));
    for end in HEADER.len() + 1..=whole.len() {
        let lines = whole[..end].matches("\t.").count();
        let rest = whole[..end].rsplit('\n').next().unwrap_or_default();
        let damaged = usize::from(!rest.is_empty() && !rest.ends_with("\t."));
        story("torn")
            .edit_file(|_| whole[..end].to_owned())
            .restart(rules(), Restored { grants: lines, damaged, ..NOTHING });
    }
}

/// The text of a user name or of an operator's note stays one field.
#[test]
fn names_cannot_forge_records() {
    let mut engine = Engine::new(rules());
    let now = Time::from_millis(START);
    let note = "x\t.\ngrant\t192.0.2.66\t0\t1795000009000\t\t\t0\t\t\t\t.";
    engine.allow(now, ip(A), None, Some(note.to_owned())).expect("allowed");
    let text = engine_loop::state(&engine, now);
    assert_eq!(text.lines().count(), 2, "{text}");
    let restored = engine_loop::restore(&mut Engine::new(rules()), now, &text);
    assert_eq!(restored, Restored { grants: 1, is_current: true, ..NOTHING }, "{text}");
}

/// Lookups, `list` and the map have a login at once; the file has it with the next journal.
#[test]
fn a_login_counts_at_once_and_the_file_follows() {
    let at = |seconds: u64| Time::from_millis(START + 1000 * seconds);
    let mut engine = Engine::new(rules());
    let file = engine_loop::state(&engine, at(0));
    engine.published(1, at(0));
    engine.process(at(1), Source::default(), login_frame(ip(A)).as_bytes());
    assert!(engine.admits(at(1), ip(A)).is_some());
    assert_eq!(engine_loop::list(&engine, at(1)).len(), 1);
    assert_eq!(engine_loop::generation(&mut engine, at(2)).expect("due").addresses, [ip(A)]);
    let found = |file: &str| {
        let mut found = Engine::new(rules());
        engine_loop::restore(&mut found, at(2), file);
        found.admits(at(2), ip(A)).is_some()
    };
    assert!(!found(&file), "a crash forgets it");
    let login = file + &engine_loop::journal(&mut engine);
    assert!(found(&login) && !engine.has_changes());

    // The number tells which journal contains a revocation.
    let before = engine.last_change();
    engine.revoke(at(3), ip(A), None);
    assert!(engine.last_change() > before && engine.has_changes());
    let journal = engine.journal();
    assert_eq!(journal.number, Some(engine.last_change()));
    assert!(!found(&(login + &journal.text)));
    let revoked = engine.last_change();
    engine.revoke(at(3), ip(A), None);
    assert_eq!(
        (engine.last_change(), engine.has_changes()),
        (revoked, false),
        "nothing to wait for"
    );
}

/// A call never formats the records of very many changes: each journal has a slice of them.
#[test]
fn many_changes_are_journalled_slice_by_slice() {
    let mut engine = Engine::new(rules());
    let now = Time::from_millis(START);
    for number in 0..700 {
        let address = std::net::Ipv4Addr::from_bits(0xC000_0000 + number);
        engine.process(now, Source::default(), login_frame(address).as_bytes());
    }
    let lines = |text: &str| text.lines().count();
    let journals = [engine.journal(), engine.journal(), engine.journal()];
    assert_eq!(journals.each_ref().map(|journal| lines(&journal.text)), [256, 256, 188]);
    assert_eq!(journals.each_ref().map(|journal| journal.number), [None, None, Some(700)]);
    let file = engine_loop::state(&Engine::new(rules()), now) + &journals.map(|j| j.text).concat();
    let restored = engine_loop::restore(&mut Engine::new(rules()), now, &file);
    assert_eq!(restored, Restored { grants: 700, is_current: true, ..NOTHING });
}

/// While nothing can be written, the remembered changes are bounded by `max_clients`.
#[test]
fn more_changes_than_clients_need_a_whole_file() {
    let mut engine = Engine::new(Rules { max_clients: 10, ..rules() });
    let now = Time::from_millis(START);
    for number in 0..5000 {
        let address = std::net::Ipv4Addr::from_bits(0xC000_0000 + number);
        engine.process(now, Source::default(), login_frame(address).as_bytes());
    }
    assert!(engine.has_changes());
    let journals: Vec<_> = (0..8).map(|_| engine.journal()).collect();
    assert!(journals[0].whole, "an older file would revive removed addresses");
    assert_eq!(journals[7].number, Some(engine.last_change()));
    let lines: usize = journals.iter().map(|journal| journal.text.lines().count()).sum();
    assert!(lines <= 1024, "{lines}");
    assert!(!engine.has_changes() && !engine.journal().whole);
    assert_eq!(engine_loop::state(&engine, now).lines().count(), 11);
}

#[test]
fn ten_thousand_may_expire_together() {
    const MANY: u32 = 10_000;
    let mut engine = Engine::new(rules());
    let at = |seconds: u64| Time::from_millis(START + 1000 * seconds);
    for number in 0..MANY {
        let address = std::net::Ipv4Addr::from_bits(0xC000_0000 + number);
        engine.allow(at(0), address.into(), None, None).expect("allowed");
    }
    let generation = engine_loop::generation(&mut engine, at(1799)).expect("a generation");
    assert_eq!(generation.addresses.len() as u32, MANY);
    assert!(generation.addresses.is_sorted());
    engine.published(generation.number, at(1799));

    let removed = engine.tick(at(1800)).len();
    assert!(removed < MANY as usize / 2, "one call does not remove all of them");
    assert_eq!(engine.clients_at(at(1800)), 0, "yet all have expired");
    assert!(engine.sweep_at() <= Some(at(1800)), "the next call is due at once");
    let rest: usize = (0..MANY).map(|_| engine.tick(at(1800)).len()).take_while(|n| *n > 0).sum();
    assert_eq!(removed + rest, MANY as usize);
    assert_eq!(
        engine_loop::generation(&mut engine, at(1801)).expect("a generation").addresses,
        [] as [IpAddr; 0]
    );
}
