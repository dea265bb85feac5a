//! Reports logins that authorise nobody: refused, or in a format that no pattern knows.
//!
//! - **Promise**: the first one of each mail daemon and kind of reason is logged at once; the others
//!   are counted, and summed up once an hour. What a frame contains is escaped by the caller.
//! - **Limits**: as many entries as there are mail daemons and kinds of reasons.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::engine::maildaemons::Name;
use crate::engine::verdict::Reason;

/// Between two reports on the same mail daemon and kind of reason.
const PAUSE: Duration = Duration::from_secs(3600);

/// The logins that authorised nobody.
#[derive(Debug, Default)]
pub struct LostLogins(Mutex<HashMap<(Name, Discriminant<Reason>), Counted>>);

#[derive(Debug)]
struct Counted {
    reported: Instant,
    pending: u64,
    reason: String,
}

impl LostLogins {
    /// Counts one. Returns whether it is the first of its kind, to be logged at once.
    pub fn is_first(&self, daemon: &Name, reason: &Reason) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (daemon.clone(), discriminant(reason));
        match counted.get_mut(&key) {
            Some(entry) => {
                entry.pending = entry.pending.saturating_add(1);
                false
            }
            None => {
                let (reported, reason) = (Instant::now(), reason.to_string());
                counted.insert(key, Counted { reported, pending: 0, reason });
                true
            }
        }
    }

    /// Returns what is due: the mail daemon, how many logins since its last report, and their
    /// reason.
    fn due(&self) -> Vec<(Name, u64, String)> {
        let now = Instant::now();
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due =
            |entry: &Counted| entry.pending > 0 && now.duration_since(entry.reported) >= PAUSE;
        let due = counted.iter_mut().filter(|(_, entry)| is_due(entry));
        let report = |((daemon, _), entry): (&(Name, _), &mut Counted)| {
            entry.reported = now;
            (daemon.clone(), std::mem::take(&mut entry.pending), entry.reason.clone())
        };
        let mut reports: Vec<_> = due.map(report).collect();
        reports.sort();
        reports
    }

    /// Logs the sums until the task is dropped.
    pub async fn sum_up(&self) {
        loop {
            tokio::time::sleep(PAUSE / 60).await;
            for (daemon, times, reason) in self.due() {
                warn!(
                    daemon = &*daemon,
                    times,
                    reason,
                    "more logins have authorised nobody since the last report; \
                     `pop-before-smtp test` shows why for each line of your log"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_reported_and_the_others_are_summed_up_once_an_hour() {
        let (lost, dovecot, courier) = (LostLogins::default(), "dovecot".into(), "courier".into());
        let unknown = Reason::UnknownLogin;
        let late = |seconds| Reason::Late(Duration::from_secs(seconds));
        assert!(lost.is_first(&dovecot, &unknown));
        assert!(lost.is_first(&dovecot, &late(1)), "of another kind");
        assert!(lost.is_first(&courier, &unknown), "of another mail daemon");
        for age in 2..10 {
            assert!(!lost.is_first(&dovecot, &late(age)));
        }
        assert!(!lost.is_first(&courier, &unknown));
        assert_eq!(lost.due(), []);
        tokio::time::advance(PAUSE).await;
        let due: Vec<_> = lost.due().into_iter().map(|(name, n, _)| (name, n)).collect();
        assert_eq!(due, [(courier, 1), (dovecot.clone(), 8)]);
        assert!(!lost.is_first(&dovecot, &unknown), "long after the first");
        tokio::time::advance(PAUSE - Duration::from_secs(1)).await;
        assert_eq!(lost.due().len(), 1, "the first report of its kind was longer ago");
        assert!(!lost.is_first(&dovecot, &unknown));
        assert_eq!(lost.due().len(), 0);
    }
}
