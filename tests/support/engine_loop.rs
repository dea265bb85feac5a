//! The daemon's calls of the engine, without threads, and with whole sets instead of slices.

use std::net::IpAddr;

use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::grants::Slice;
use pop_before_smtp::engine::grants::grant::Grant;
use pop_before_smtp::engine::publication::Generation;
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;

/// Returns the text of a new state file.
pub fn state(engine: &Engine, now: Time) -> String {
    slices(|after| engine.state(now, after)).concat()
}

/// Restores an engine from the text of a state file.
pub fn restore(engine: &mut Engine, now: Time, file: &str) -> Restored {
    engine.restore(now, file.lines().collect())
}

/// Returns what has to be appended to the state file.
pub fn journal(engine: &mut Engine) -> String {
    let mut text = String::new();
    loop {
        let journal = engine.journal();
        assert!(!journal.whole, "too many changes: the whole file must be written");
        text += &journal.text;
        if journal.number.is_some() {
            return text;
        }
    }
}

/// Returns the generation of the map that is due.
pub fn generation(engine: &mut Engine, now: Time) -> Option<Generation> {
    let number = engine.due(now)?;
    Some(Generation { number, addresses: slices(|after| engine.listed(now, after)).concat() })
}

/// Returns all grants in force.
pub fn list(engine: &Engine, now: Time) -> Vec<Grant> {
    slices(|after| engine.list(now, after, Grant::clone)).concat()
}

fn slices<T>(ask: impl Fn(Option<IpAddr>) -> Slice<T>) -> Vec<T> {
    let mut slices = Vec::new();
    let mut after = None;
    loop {
        let slice = ask(after);
        slices.push(slice.items);
        match slice.next {
            Some(next) => after = Some(next),
            None => return slices,
        }
    }
}
