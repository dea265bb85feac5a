//! How much an authorised client may relay: the limits, and what was relayed in the last hour.
//!
//! - **Promise**: a limit is that of an hour that slides. A new login or another grant does not
//!   begin it anew.
//! - **Who**: where the sender tells the user ([`super::protocol::sender_logins`]), the general
//!   limits are those of each user, from all addresses together; otherwise of each address. A line
//!   of the table that names an address or its network counts in addition.
//! - **Layers**: [`table`] has the exceptions, [`hour`] counts for one client or user, [`usage`] for
//!   all. [`super::relay`] decides.

pub mod hour;
pub mod table;
pub mod usage;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use table::LimitTable;

/// How much may be relayed within an hour; `None` is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Messages.
    pub messages: Option<u32>,
    /// Recipients, of all messages together.
    pub recipients: Option<u32>,
}

impl Limit {
    /// Returns this limit, where it is not set that of `general`.
    pub fn over(self, general: Self) -> Self {
        Self {
            messages: self.messages.or(general.messages),
            recipients: self.recipients.or(general.recipients),
        }
    }

    /// Returns the lower of two limits.
    pub fn min(self, other: Self) -> Self {
        let lower = |one: Option<u32>, two: Option<u32>| one.into_iter().chain(two).min();
        Self {
            messages: lower(self.messages, other.messages),
            recipients: lower(self.recipients, other.recipients),
        }
    }
}

/// What happens beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitAction {
    /// The client is asked to try again later.
    #[default]
    Defer,
    /// Also, its grant ends, and the address is blocked for the rest of the hour.
    Revoke,
}

/// All limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What applies to those whom the table does not name.
    pub general: Limit,
    /// What happens beyond a limit.
    pub action: LimitAction,
    /// The exceptions.
    pub table: LimitTable,
}

impl Limits {
    /// Returns the limit of a user, which is `general` if the table does not name the user.
    pub fn of_user(&self, user: &str, assumed: &[String], general: Limit) -> Limit {
        self.table.of_user(user, assumed).map_or(general, |exception| exception.over(general))
    }

    /// Returns the limit of an address, which is `general` if the table does not name the address.
    pub fn of_address(&self, address: IpAddr, general: Limit) -> Limit {
        self.table.of_address(address).map_or(general, |exception| exception.over(general))
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Messages.
    Messages,
    /// Recipients.
    Recipients,
}

impl Quantity {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The limit of messages or recipients.
    Limit {
        /// What is limited.
        what: Quantity,
        /// To how many within an hour.
        max: u32,
        /// Whether to the user's; otherwise to that of the address.
        of_user: bool,
        /// How long until there is room for one more.
        wait: Duration,
    },
    /// More clients or users relay than are counted.
    TooManyClients,
}

impl Reached {
    /// Returns the limit as one word, for scripts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Limit { what: Quantity::Messages, .. } => "messages-per-hour",
            Self::Limit { what: Quantity::Recipients, .. } => "recipients-per-hour",
            Self::TooManyClients => "too-many-clients",
        }
    }
}

/// For the reply to the client.
impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { what, max, of_user, wait } => {
                let whose = if *of_user { "user" } else { "address" };
                let minutes = wait.as_millis().div_ceil(60_000).max(1);
                let plural = if minutes == 1 { "" } else { "s" };
                write!(
                    f,
                    "Limit of {max} {} per hour for this {whose} reached; try again in {minutes} \
                     minute{plural}",
                    what.as_str()
                )
            }
            Self::TooManyClients => f.write_str("Too many clients to count; try again later"),
        }
    }
}
