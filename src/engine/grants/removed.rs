//! Removed addresses and the reasons.

use super::grant::Grant;

/// An address that was removed from the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its grant.
    pub grant: Grant,
    /// Why it was removed.
    pub reason: RemovalReason,
}

/// Why an address was removed from the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// It has expired.
    Expired,
    /// It was closest to expiry, and `max-clients` was reached.
    Evicted,
    /// The operator has revoked it.
    Revoked,
    /// It has reached a limit, with `limit-action = "revoke"`.
    Limited,
    /// The new configuration excludes it.
    Excluded,
    /// The new rules refuse its logins.
    Refused,
    /// Too many users have logged in from it.
    Shared,
}

impl RemovalReason {
    /// Returns the reason as one word, for scripts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Revoked => "revoked",
            Self::Excluded => "excluded",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Shared => "shared",
        }
    }

    /// Returns the message to be logged.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "no longer authorised: expired",
            Self::Evicted => {
                "no longer authorised: max-clients is reached, and it was closest to expiry"
            }
            Self::Revoked => "no longer authorised: revoked by the operator",
            Self::Limited => {
                "no longer authorised: it has reached a limit and is blocked for the rest of the hour"
            }
            Self::Excluded => "no longer authorised: excluded by the new configuration",
            Self::Refused => "no longer authorised: the new configuration refuses its logins",
            Self::Shared => {
                "no longer authorised: more users than max-users-per-address have logged in from it"
            }
        }
    }
}
