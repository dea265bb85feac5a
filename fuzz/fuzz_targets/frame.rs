//! An arbitrary frame: an address that it authorises is in the frame.
#![no_main]

use std::cell::RefCell;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Reason, Verdict};
use pop_before_smtp_fuzz::engine;

/// Longest text of an address.
const LONGEST: usize = 45;

fuzz_target!(|frame: &[u8]| {
    thread_local! {
        static ENGINE: RefCell<Engine> = RefCell::new(engine());
    }
    ENGINE.with_borrow_mut(|engine| {
        let now = Time::from_millis(1);
        let outcome = engine.process(now, Source::default(), frame);
        if outcome.verdict == Verdict::Login {
            let address = outcome.address.expect("a login has an address");
            assert!(engine.admits(now, address).is_some());
            let joined = matches!(outcome.reason, Reason::Joined(_));
            assert!(joined || addresses_in(frame).any(|a| a == address), "{outcome:?}");
            engine.revoke(now, address, None);
        }
        engine.tick(now);
        engine.journal();
    });
});

/// Returns every whole address between bytes that no address contains, or between colons.
fn addresses_in(frame: &[u8]) -> impl Iterator<Item = IpAddr> {
    let words = frame.split(|byte| !byte.is_ascii_hexdigit() && !b".:".contains(byte));
    words
        .flat_map(|word| {
            let word = std::str::from_utf8(word).unwrap_or_default();
            let starts = std::iter::once(0).chain(word.match_indices(':').map(|(at, _)| at + 1));
            starts.flat_map(move |start| {
                let rest = &word[start..];
                let colons = rest.match_indices(':').map(|(at, _)| at);
                let ends = colons.chain([rest.len()]).take_while(|end| *end <= LONGEST);
                ends.filter_map(move |end| rest[..end].parse::<IpAddr>().ok())
            })
        })
        .map(|address| address.to_canonical())
}
