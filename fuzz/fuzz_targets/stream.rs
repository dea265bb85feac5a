//! Arbitrary entries of the stream that hosts share, a line each: whatever they say, no grant and no
//! block lasts longer than a week, what a host tells is an entry again, and two hosts that hear the
//! same few entries in different orders agree.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pop_before_smtp::engine::cluster::entry::{StreamEntry, EntryId};
use pop_before_smtp::engine::grants::Cursor;
use pop_before_smtp::engine::grants::origins::Origins;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, MAX_MANUAL, Rules};

const NOW: Time = Time::from_millis(1_795_000_000_000);
/// Fewer than any limit on parts, blocks and hosts.
const FEW: usize = 12;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<&str> = text.lines().collect();
    let mut forwards = hear(lines.iter().copied());
    let backwards = hear(lines.iter().rev().copied());
    let grants = admitted(&forwards);
    assert!(grants.iter().all(|(_, until)| *until <= NOW + MAX_MANUAL));
    assert!(forwards.blocks(NOW).all(|(_, until)| until <= NOW + MAX_MANUAL));
    // A heartbeat may set the clock, by which the deadlines of later entries are other ones.
    let has_heartbeat = lines.iter().any(|line| line.starts_with('h'));
    if lines.len() <= FEW && !has_heartbeat {
        assert_eq!(grants, admitted(&backwards));
        let blocks: Vec<_> = forwards.blocks(NOW).collect();
        assert_eq!(blocks, backwards.blocks(NOW).collect::<Vec<_>>());
    }
    forwards.end_reading(NOW);
    let address = IpAddr::from([192, 0, 2, 7]);
    forwards.revoke(NOW, address, Some(Duration::from_secs(60)));
    let _ = forwards.allow(NOW, address, None, Some("a\tnote".into()));
    loop {
        let untold = forwards.untold(NOW, 100);
        for message in &untold.messages {
            assert!(StreamEntry::parse(&message.text, &mut Origins::default()).is_some());
        }
        if !untold.has_more {
            break;
        }
    }
    assert!(forwards.admits(NOW, address).is_some(), "this host's operator has the last word here");
});

fn hear<'l>(lines: impl Iterator<Item = &'l str>) -> Engine {
    let mut engine = Engine::new(Rules::default());
    engine.join_cluster("own".into(), 1);
    engine.begin_reading(NOW, NOW, []);
    for (number, line) in (0..).zip(lines) {
        engine.hear(NOW, EntryId { millis: NOW.as_millis(), number }, line);
    }
    engine
}

fn admitted(engine: &Engine) -> Vec<(IpAddr, Time)> {
    let (mut list, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = next {
        let slice = engine.list(NOW, from, |grant| (grant.address, grant.until));
        list.extend(slice.items);
        next = slice.next;
    }
    list.sort_unstable();
    list
}
