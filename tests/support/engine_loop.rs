//! The daemon's calls of the engine, without threads, and with whole sets instead of slices.

use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::grants::grant::Grant;
use pop_before_smtp::engine::grants::{Cursor, Slice};
use pop_before_smtp::engine::publication::Generation;
use pop_before_smtp::engine::state::Restored;
use pop_before_smtp::engine::time::Time;

/// Returns the text of a new state file.
pub fn state(engine: &Engine, now: Time) -> String {
    slices(|from| engine.state(now, from)).concat()
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
    Some(Generation::new(number, slices(|from| engine.listed(now, from)).concat()))
}

/// Returns all grants in force, by address.
pub fn list(engine: &Engine, now: Time) -> Vec<Grant> {
    let mut list = slices(|from| engine.list(now, from, Grant::clone)).concat();
    list.sort_unstable_by_key(|grant| grant.address);
    list
}

fn slices<T>(ask: impl Fn(Cursor) -> Slice<T>) -> Vec<T> {
    let mut slices = Vec::new();
    let mut from = Cursor::default();
    loop {
        let slice = ask(from);
        slices.push(slice.items);
        match slice.next {
            Some(next) => from = next,
            None => return slices,
        }
    }
}
