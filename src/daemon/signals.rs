//! The signals of the service manager and the terminal: TERM and INT stop the daemon, HUP reloads.
//!
//! - **Not here**: what is done then.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::error::Failure;

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// To shut down.
    Stop,
    /// To read the configuration again.
    Reload,
}

/// The signals that are caught. Each value receives all of them.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Catches signals from now on.
    ///
    /// # Errors
    /// The operating system refuses.
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

    /// Waits for the next request.
    pub async fn next(&mut self) -> Requested {
        tokio::select! {
            () = stop(&mut self.term, &mut self.int) => Requested::Stop,
            _ = self.hup.recv() => Requested::Reload,
        }
    }

    /// Waits for a request to stop.
    pub async fn stop(&mut self) {
        stop(&mut self.term, &mut self.int).await;
    }

    /// Waits for the second request to stop.
    pub async fn second_stop(mut self) {
        term_or_int(&mut self.term, &mut self.int).await;
        term_or_int(&mut self.term, &mut self.int).await;
    }
}

/// Waits for a request to stop, and logs it.
async fn stop(term: &mut Signal, int: &mut Signal) {
    term_or_int(term, int).await;
    info!("stopping; a second signal exits immediately");
}

/// Waits for either signal.
async fn term_or_int(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
