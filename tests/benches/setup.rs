//! An engine as on a mail host: the mail daemons that count by default, and clients with their
//! users.

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons::{DaemonTable, Selection};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

use super::engine_loop;
use super::frames::{Frame, Header, state_file};

/// The time of all calls.
pub const NOW: Time = Time::from_millis(SINCE);
/// The same, when [`HEADER`] was written.
const SINCE: u64 = 1_795_332_683_000;
/// Less than the grace period, in milliseconds.
const LEFT: u64 = 1_700_000;
/// The header of a frame that was sent over a network at [`NOW`].
pub const HEADER: Header<'_> = Header { stamp: "Nov 22 07:31:23", host: Some("mx1") };

/// Returns an engine without clients.
pub fn empty() -> Engine {
    let table = DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons");
    Engine::new(Rules { table, max_clients: 2_000_000, ..Rules::default() })
}

/// Returns the state file of so many clients.
pub fn state(clients: u32) -> String {
    state_file(clients, SINCE, SINCE + LEFT)
}

/// Returns an engine in which so many clients are authorised.
pub fn engine(clients: u32) -> Engine {
    let mut engine = empty();
    let restored = engine_loop::restore(&mut engine, NOW, &state(clients));
    assert_eq!(restored.grants, clients as usize);
    engine
}

/// Processes a frame that was sent by this host.
pub fn process(engine: &mut Engine, frame: &Frame) {
    let outcome = engine.process(NOW, Source::default(), std::hint::black_box(&frame.bytes));
    assert_eq!(outcome.granted().is_some(), frame.is_login, "{outcome:?}");
}
