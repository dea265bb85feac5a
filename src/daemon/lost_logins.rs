//! Reports logins that authorise nobody: refused, in a format that no pattern knows, or from where
//! nobody is ever authorised.
//!
//! - **Promise**: the first one of each mail daemon and kind of reason is logged at once; the others
//!   are counted, and summed up once an hour. Each exclusion list and each rule is a kind of its own.
//!   What a frame contains is escaped by the caller.
//! - **Limits**: as many entries as there are mail daemons and kinds of reasons.

use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::engine::maildaemons::Name;
use crate::engine::verdict::{Outcome, Reason};

/// Between two reports on the same mail daemon and kind of reason.
const PAUSE: Duration = Duration::from_secs(3600);
/// Most kinds: rules that were changed while the daemon runs are others. Further ones are not
/// reported, but still counted by the engine.
const MAX_KINDS: usize = 1024;

/// The logins that authorised nobody.
#[derive(Debug, Default)]
pub struct LostLogins(Mutex<Vec<Counted>>);

/// The logins of one kind.
#[derive(Debug)]
struct Counted {
    daemon: Name,
    kind: Discriminant<Reason>,
    /// The list or rule, if it is an exclusion.
    exclusion: Option<String>,
    reported: Instant,
    pending: u64,
    reason: String,
}

/// What is due to be reported.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    daemon: Name,
    times: u64,
    reason: String,
    is_exclusion: bool,
}

impl LostLogins {
    /// Counts the outcome of a frame, if it is such a login. Returns whether it is the first of its
    /// kind, to be logged at once.
    pub fn is_first(&self, outcome: &Outcome) -> bool {
        let (Outcome { daemon: Some(daemon), reason, .. }, exclusion) =
            (outcome, outcome.reason.exclusion())
        else {
            return false;
        };
        if !outcome.is_lost_login && exclusion.is_none() {
            return false;
        }
        let kind = discriminant(reason);
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = counted.len() >= MAX_KINDS;
        // There are few, so that this is faster than a hash.
        let same = counted.iter_mut().find(|entry| {
            entry.kind == kind && entry.daemon == *daemon && entry.exclusion.as_deref() == exclusion
        });
        match same {
            Some(entry) => entry.pending = entry.pending.saturating_add(1),
            None if is_full => {}
            None => {
                counted.push(Counted {
                    daemon: daemon.clone(),
                    kind,
                    exclusion: exclusion.map(str::to_owned),
                    reported: Instant::now(),
                    pending: 0,
                    reason: reason.to_string(),
                });
                return true;
            }
        }
        false
    }

    /// Returns what is due.
    fn due(&self) -> Vec<Sum> {
        let now = Instant::now();
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due =
            |entry: &&mut Counted| entry.pending > 0 && now.duration_since(entry.reported) >= PAUSE;
        let report = |entry: &mut Counted| {
            entry.reported = now;
            Sum {
                daemon: entry.daemon.clone(),
                times: std::mem::take(&mut entry.pending),
                reason: entry.reason.clone(),
                is_exclusion: entry.exclusion.is_some(),
            }
        };
        let mut sums: Vec<_> = counted.iter_mut().filter(is_due).map(report).collect();
        sums.sort();
        sums
    }

    /// Logs the sums until the task is dropped.
    pub async fn sum_up(&self) {
        loop {
            tokio::time::sleep(PAUSE / 60).await;
            for Sum { daemon, times, reason, is_exclusion } in self.due() {
                if is_exclusion {
                    info!(
                        daemon = &*daemon,
                        times, reason, "more logins that may not authorise since the last report"
                    );
                } else {
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
}

/// Says what it usually means that a login may not authorise, and what to do.
pub fn meaning(reason: &Reason) -> &'static str {
    match (reason, reason.exclusion()) {
        (Reason::Excluded(_), Some("gateway")) => {
            "a bridge, NAT or a load balancer hides the clients' addresses behind this host's \
             gateway: pass the real addresses to the mail daemon, with host networking or the PROXY \
             protocol"
        }
        (Reason::Excluded(_), Some("loopback" | "own")) => {
            "webmail or another program on this host logs in for its users, and needs no right to \
             relay; if clients reach the mail daemon through a proxy here, have it pass on their \
             addresses"
        }
        (Reason::Excluded(_), Some("link-local")) => {
            "other hosts may have this address too: give the client an address that is not \
             link-local"
        }
        (Reason::Excluded(_), Some("mynetworks")) => {
            "it belongs to Postfix's mynetworks and may relay without a login, if \
             smtpd_relay_restrictions has permit_mynetworks"
        }
        (Reason::Excluded(_), _) => "the option `exclude` names it: nothing to do if that is meant",
        (Reason::UnknownUser, _) => {
            "the logins of this mail daemon cannot authorise as long as `users` is set"
        }
        _ => "your configuration says so: nothing to do if that is meant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::verdict::Verdict;

    fn outcome(daemon: &Name, reason: &Reason) -> Outcome {
        Outcome {
            verdict: Verdict::None,
            reason: reason.clone(),
            daemon: Some(daemon.clone()),
            address: None,
            user: None,
            rule: None,
            is_lost_login: reason.exclusion().is_none(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_exclusion_is_a_kind() {
        let (lost, dovecot) = (LostLogins::default(), "dovecot".into());
        let excluded = |list: &str| Reason::Excluded(list.to_owned());
        let ruled = |label: &str| Reason::RefusedByRule(label.into());
        let reasons = [
            excluded("gateway"),
            excluded("own"),
            ruled("rule 1"),
            ruled("rule 2"),
            Reason::OtherUser,
        ];
        for reason in &reasons {
            assert!(lost.is_first(&outcome(&dovecot, reason)), "{reason}");
            assert!(!lost.is_first(&outcome(&dovecot, reason)), "{reason}");
        }
        for no_loss in [Reason::Blocked, Reason::Probe, Reason::NoPattern] {
            let outcome = Outcome { is_lost_login: false, ..outcome(&dovecot, &no_loss) };
            assert!(!lost.is_first(&outcome), "{no_loss}");
        }
        tokio::time::advance(PAUSE).await;
        let due = lost.due();
        assert!(due.iter().all(|sum| sum.is_exclusion && sum.times == 1), "{due:?}");
        assert_eq!(due.len(), reasons.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_reported_and_the_others_are_summed_up_once_an_hour() {
        let (lost, dovecot, courier) = (LostLogins::default(), "dovecot".into(), "courier".into());
        let unknown = Reason::UnknownLogin;
        let late = |seconds| Reason::Late(Duration::from_secs(seconds));
        let is_first = |daemon: &Name, reason: &Reason| lost.is_first(&outcome(daemon, reason));
        assert!(is_first(&dovecot, &unknown));
        assert!(is_first(&dovecot, &late(1)), "of another kind");
        assert!(is_first(&courier, &unknown), "of another mail daemon");
        for age in 2..10 {
            assert!(!is_first(&dovecot, &late(age)));
        }
        assert!(!is_first(&courier, &unknown));
        assert_eq!(lost.due(), []);
        tokio::time::advance(PAUSE).await;
        let due: Vec<_> = lost.due().into_iter().map(|sum| (sum.daemon, sum.times)).collect();
        assert_eq!(due, [(courier, 1), (dovecot.clone(), 8)]);
        assert!(!is_first(&dovecot, &unknown), "long after the first");
        tokio::time::advance(PAUSE - Duration::from_secs(1)).await;
        assert_eq!(lost.due().len(), 1, "the first report of its kind was longer ago");
        assert!(!is_first(&dovecot, &unknown));
        assert_eq!(lost.due().len(), 0);
    }
}
