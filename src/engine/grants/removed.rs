//! Who has left the set, and why.

use super::grant::Grant;

/// An address that has left the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The right it had.
    pub grant: Grant,
    /// why.
    pub reason: RemovalReason,
}

/// Why an address has left the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// Its time was up.
    Expired,
    /// It would have ended first, and `max-clients` was reached.
    Evicted,
    /// The operator has ended it.
    Revoked,
    /// A reload has excluded it.
    Excluded,
    /// Too many users have logged in from it.
    Shared,
}

impl RemovalReason {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "no longer authorised: its time is up",
            Self::Evicted => "no longer authorised: max-clients is reached, and it would end first",
            Self::Revoked => "no longer authorised: revoked by hand",
            Self::Excluded => "no longer authorised: excluded by the new configuration",
            Self::Shared => {
                "no longer authorised: more different users than max-users-per-address have \
                 logged in from it"
            }
        }
    }
}
