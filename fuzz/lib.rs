//! What the fuzz targets share: an engine with all built-in mail daemons, and a mail host whose
//! daemons log what authenticated and unauthenticated clients make them log.

pub mod host;

use pop_before_smtp::engine::maildaemons;
use pop_before_smtp::engine::maildaemons::DaemonTable;
use pop_before_smtp::engine::{Engine, Rules};

/// Creates an engine with all built-in mail daemons and without exclusions.
pub fn engine() -> Engine {
    thread_local! {
        static DAEMONS: Vec<maildaemons::MailDaemon> = maildaemons::all(&[]).0;
    }
    let table = DAEMONS.with(|daemons| DaemonTable::of(daemons.clone()));
    Engine::new(Rules { table, ..Rules::default() })
}
