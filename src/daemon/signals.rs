//! The signals of the service manager and the terminal: TERM and INT end, HUP reloads.
//!
//! Not here what is done then.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::error::Failure;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The end.
    Stop,
    /// Reading the configuration again.
    Reload,
}

/// The signals that are caught from now on. Each value hears all of them.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    /// The operating system does not let us.
    pub fn new() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::io(format!("cannot catch signals: {error}")))
        };
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
            hup: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for what is asked for next.
    pub async fn next(&mut self) -> Requested {
        tokio::select! {
            () = stop(&mut self.term, &mut self.int) => Requested::Stop,
            _ = self.hup.recv() => Requested::Reload,
        }
    }

    /// Waits for a signal that asks for the end, and for no other.
    pub async fn stop(&mut self) {
        stop(&mut self.term, &mut self.int).await;
    }

    /// Waits for the second signal that asks for the end.
    pub async fn second(mut self) {
        either(&mut self.term, &mut self.int).await;
        either(&mut self.term, &mut self.int).await;
    }
}

/// Waits for a signal that asks for the end.
async fn stop(term: &mut Signal, int: &mut Signal) {
    either(term, int).await;
    info!("stopping; a second signal ends at once");
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
