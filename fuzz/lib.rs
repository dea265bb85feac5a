//! What the fuzz targets share: an engine that believes every built-in mail daemon, and a mail
//! host whose daemons log what clients with and without a password make them log.

pub mod host;

use pop_before_smtp::engine::maildaemons;
use pop_before_smtp::engine::maildaemons::DaemonTable;
use pop_before_smtp::engine::{Engine, Rules};

/// An engine that believes every mail daemon it knows and excludes nobody.
pub fn engine() -> Engine {
    thread_local! {
        static DAEMONS: Vec<maildaemons::MailDaemon> = maildaemons::all(&[]).0;
    }
    let table = DAEMONS.with(|daemons| DaemonTable::of(daemons.clone()));
    Engine::new(Rules { table, ..Rules::default() })
}
