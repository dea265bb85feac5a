//! A trouble that comes in crowds: said when it begins, then at most once a minute with its number.
//!
//! Promise  nothing is lost: what was not said is in the number that is said next.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two words about the same trouble: the log stays readable however long it lasts.
const PAUSE: Duration = Duration::from_secs(60);

/// One kind of trouble.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    since: u64,
}

impl LogLimiter {
    /// It has happened so many times more; none is fine. If it is time for a word: how often it
    /// has happened since the last one.
    pub fn record(&self, times: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since = state.since.saturating_add(times);
        let now = Instant::now();
        let is_time = state.said.is_none_or(|said| now.duration_since(said) >= PAUSE);
        if state.since == 0 || !is_time {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_said_once_a_minute() {
        let limiter = LogLimiter::default();
        // Seconds that pass, how often it happens then, and what is said.
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
