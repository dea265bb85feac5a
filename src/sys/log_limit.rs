//! Limits repeated log messages: one at the first occurrence, then at most one a minute with a
//! count.
//!
//! - **Promise**: no occurrence is lost: those not logged are in the next count.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two messages of one kind: the log stays readable however long a fault lasts.
const PAUSE: Duration = Duration::from_secs(60);

/// The limiter of one kind of message.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    pending: u64,
}

impl LogLimiter {
    /// Records further occurrences, which may be none. Returns the count since the last message if
    /// one is due.
    pub fn record(&self, times: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.pending = state.pending.saturating_add(times);
        let now = Instant::now();
        let due = state.logged.is_none_or(|logged| now.duration_since(logged) >= PAUSE);
        if state.pending == 0 || !due {
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_messages_are_due_once_a_minute() {
        let limiter = LogLimiter::default();
        // Seconds that pass, occurrences after them, and the count that is due.
        let rows = [
            (0, 0, None),
            (0, 3, Some(3)),
            (0, 1, None),
            (59, 5, None),
            (1, 0, Some(6)),
            (60, 0, None),
            (3600, 0, None),
            (0, 1, Some(1)),
        ];
        for (row, (seconds, times, expected)) in rows.into_iter().enumerate() {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(limiter.record(times), expected, "row {row}");
        }
    }
}
