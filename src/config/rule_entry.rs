//! One `[[rule]]` of the file, as the administrator writes it.
//!
//! - **Not here**: how it is read ([`super::login_rules`]), and what it means
//!   ([`crate::engine::login_rules`]).

use super::MAX_GRACE;
use super::values::{Network, Span, UserName};
use crate::engine::limits::Limit;

/// A table `[[rule]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleEntry {
    /// Its number, counted from 1.
    pub number: usize,
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// The networks to which it applies; empty: all.
    pub from: Vec<Network>,
    /// The users to whom it applies; empty: all.
    pub users: Vec<UserName>,
    /// How long these logins authorise, if not for the usual time.
    pub grace: Option<Span>,
    /// Whether these logins never authorise.
    pub never: bool,
    /// How much may be relayed after such a login, where that differs from the general limit.
    pub limit: Limit,
}

impl RuleEntry {
    /// Returns whether no key is set.
    pub fn is_empty(&self) -> bool {
        Self { number: 0, line: 0, ..self.clone() } == Self::default()
    }

    /// Returns what is wrong with the rule as a whole, and what to do about it.
    pub fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let is_limited = self.limit != Limit::default();
        match (self.never, self.grace) {
            (true, grace) if grace.is_some() || is_limited => Some((
                "a login that never authorises has neither grace nor limit",
                "remove never, or the others",
            )),
            (false, Some(grace)) if grace.0 > MAX_GRACE => {
                Some(("grace: longer than 7 days", "write grace = \"8h\""))
            }
            _ if self.is_empty() => Some((
                "it says nothing",
                "write from or user, and grace, never or a limit, below [[rule]]; or remove it",
            )),
            _ => None,
        }
    }
}
