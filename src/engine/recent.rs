//! What has happened to addresses lately, to explain why one is not authorised.
//!
//! - **Limits**: the last `MAX_ENDED` grants that ended and the last `MAX_REFUSED` addresses
//!   whose logins were refused, since the start.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::time::Time;
use super::verdict::Reason;
use super::{Engine, RemovalReason};

/// Grants that ended: enough for the last hours of a host with some clients.
const MAX_ENDED: usize = 1024;
/// Addresses with refused logins: they are searched at each refusal.
const MAX_REFUSED: usize = 256;

/// Why an address is not authorised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceReason {
    /// It is in this exclusion list.
    Excluded(String),
    /// The operator has blocked it until then.
    Blocked(Time),
    /// More users have logged in from it than may share one: how many.
    Shared(usize),
    /// This rule refuses all logins from it.
    Rule(String),
    /// Its last login was refused: when and why.
    Refused(Time, Reason),
    /// Its grant has ended: when and why.
    Ended(Time, RemovalReason),
    /// Nothing is known about it.
    Unknown,
}

/// The last events of addresses, the latest last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ended: VecDeque<(IpAddr, Time, RemovalReason)>,
    refused: VecDeque<(IpAddr, Time, Reason)>,
}

impl Recent {
    /// Records the end of a grant.
    pub(super) fn ended(&mut self, address: IpAddr, now: Time, reason: RemovalReason) {
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((address, now, reason));
    }

    /// Records a refused login.
    pub(super) fn refused(&mut self, address: IpAddr, now: Time, reason: Reason) {
        if let Some(old) = self.refused.iter().rposition(|(known, ..)| *known == address) {
            self.refused.remove(old);
        } else if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((address, now, reason));
    }

    /// Returns the last event of an address.
    fn last(&self, address: IpAddr) -> AbsenceReason {
        let ended = self.ended.iter().rfind(|(known, ..)| *known == address);
        let refused = self.refused.iter().rfind(|(known, ..)| *known == address);
        match (ended, refused) {
            (Some((_, at, _)), Some((_, later, reason))) if at <= later => {
                AbsenceReason::Refused(*later, reason.clone())
            }
            (Some((_, at, reason)), _) => AbsenceReason::Ended(*at, *reason),
            (None, Some((_, at, reason))) => AbsenceReason::Refused(*at, reason.clone()),
            (None, None) => AbsenceReason::Unknown,
        }
    }
}

impl Engine {
    /// Returns why an address is not authorised. For one that is not.
    pub fn why_not(&self, now: Time, address: IpAddr) -> AbsenceReason {
        let address = address.to_canonical();
        if let Some(list) = self.rules.exclude.reason(address) {
            return AbsenceReason::Excluded(list.to_owned());
        }
        if let Some(until) = self.blocked_until(now, address) {
            return AbsenceReason::Blocked(until);
        }
        match self.grants.get(address) {
            Some(grant) if grant.shared && now < grant.until => {
                return AbsenceReason::Shared(grant.user_count(now));
            }
            // Not swept yet.
            Some(grant) if !grant.shared => {
                return AbsenceReason::Ended(grant.until, RemovalReason::Expired);
            }
            _ => {}
        }
        match self.rules.logins.refuses_all_from(address) {
            Some(label) => AbsenceReason::Rule(label.to_owned()),
            None => self.recent.last(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_counts_and_old_ones_are_forgotten() {
        let address = |number: usize| IpAddr::from([192, 0, 2, number as u8]);
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        let mut recent = Recent::default();
        recent.ended(address(1), at(1), RemovalReason::Expired);
        assert_eq!(recent.last(address(1)), AbsenceReason::Ended(at(1), RemovalReason::Expired));
        recent.refused(address(1), at(2), Reason::OtherUser);
        assert_eq!(recent.last(address(1)), AbsenceReason::Refused(at(2), Reason::OtherUser));
        recent.ended(address(1), at(3), RemovalReason::Revoked);
        assert_eq!(recent.last(address(1)), AbsenceReason::Ended(at(3), RemovalReason::Revoked));
        for _ in 0..2 * MAX_ENDED {
            recent.ended(address(2), at(4), RemovalReason::Expired);
            recent.refused(address(2), at(4), Reason::OtherUser);
        }
        assert_eq!(recent.last(address(1)), AbsenceReason::Refused(at(2), Reason::OtherUser));
        assert_eq!((recent.ended.len(), recent.refused.len()), (MAX_ENDED, 2));
        (0..=255).for_each(|n| recent.refused(address(n), at(5), Reason::Blocked));
        recent.refused(IpAddr::from([198, 51, 100, 7]), at(5), Reason::Blocked);
        assert_eq!(recent.refused.len(), MAX_REFUSED);
        assert_eq!(recent.last(address(0)), AbsenceReason::Unknown);
    }
}
