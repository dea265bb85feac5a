//! What the daemon does around the engine, without its threads: everything in one go.

use std::net::IpAddr;

use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::grants::Slice;
use pop_before_smtp::engine::grants::grant::Grant;
use pop_before_smtp::engine::publication::Generation;
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;

/// The text of a new state file.
pub fn state(engine: &Engine, now: Time) -> String {
    slices(|behind| engine.state(now, behind)).concat()
}

/// What an engine takes over from a state file.
pub fn restore(engine: &mut Engine, now: Time, file: &str) -> Restored {
    engine.restore(now, file.lines().collect())
}

/// What has to be appended to the state file.
pub fn journal(engine: &mut Engine) -> String {
    let mut text = String::new();
    loop {
        let journal = engine.journal();
        assert!(!journal.whole, "so many have changed that the whole file is to be written");
        text += &journal.text;
        if journal.number.is_some() {
            return text;
        }
    }
}

/// The generation of the map that is due.
pub fn generation(engine: &mut Engine, now: Time) -> Option<Generation> {
    let number = engine.due(now)?;
    Some(Generation { number, addresses: slices(|behind| engine.listed(now, behind)).concat() })
}

/// All rights that are in force.
pub fn list(engine: &Engine, now: Time) -> Vec<Grant> {
    slices(|behind| engine.list(now, behind, Grant::clone)).concat()
}

fn slices<T>(ask: impl Fn(Option<IpAddr>) -> Slice<T>) -> Vec<T> {
    let mut slices = Vec::new();
    let mut behind = None;
    loop {
        let slice = ask(behind);
        slices.push(slice.items);
        match slice.next {
            Some(next) => behind = Some(next),
            None => return slices,
        }
    }
}
