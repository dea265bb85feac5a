//! Which logins authorise, as the administrator writes it: `users`, and the tables `[[rule]]` of the
//! file.
//!
//! - **Not here**: what they mean ([`crate::engine::login_rules`]).

use std::str::FromStr;

use toml::de::DeValue;

use super::MAX_GRACE;
use super::options::{Layer, OptionInfo};
use super::sending::is_domain;
use super::values::{Network, Span};
use super::written::{OptionValue, Wrong};
use crate::engine::limits::Limit;
use crate::error::{Failure, Failures};

/// A user as mail daemons log them, or `@` and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl FromStr for UserName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let domain = text.strip_prefix('@');
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("`{shown}` is not a user; write joe@example.org or @example.org"));
        }
        if let Some(domain) = text.strip_prefix("*@").or(domain.filter(|d| !is_domain(d))) {
            return Err(format!("`{shown}`: write @{} for all its users", domain.escape_debug()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMore<T>(Vec<T>);

impl<T: OptionValue> OptionValue for OneOrMore<T> {
    const KIND: &'static str = "a text in quotes, or a list of texts in brackets";

    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
        match value {
            DeValue::Array(_) => Vec::from_file(value).map(Self),
            one => T::from_file(one).map(|one| Self(vec![one])),
        }
    }

    fn from_variable(text: &str) -> Result<Self, String> {
        Vec::from_variable(text).map(Self)
    }

    fn notation(texts: &[String]) -> Option<String> {
        if texts.len() == 1 { T::notation(texts) } else { Vec::<T>::notation(texts) }
    }
}

/// A limit of something within an hour, at least 1.
#[derive(Clone, Copy, Debug)]
struct PerHour(u32);

impl PerHour {
    fn new(number: usize) -> Result<Self, String> {
        let number = u32::try_from(number).ok().filter(|number| *number > 0);
        number.map(Self).ok_or_else(|| format!("not between 1 and {}", u32::MAX))
    }
}

impl OptionValue for PerHour {
    const KIND: &'static str = usize::KIND;

    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
        usize::from_file(value).and_then(|number| Self::new(number).map_err(Wrong::Value))
    }

    fn from_variable(text: &str) -> Result<Self, String> {
        usize::from_variable(text).and_then(Self::new)
    }

    fn notation(texts: &[String]) -> Option<String> {
        Some(Self::from_variable(texts.first()?).ok()?.0.to_string())
    }
}

/// The keys of a rule.
pub const RULE_KEYS: [OptionInfo; 6] = [
    key::<OneOrMore<Network>>("from", "192.0.2.0/24"),
    key::<OneOrMore<UserName>>("user", "joe@example.org"),
    key::<Span>("grace", "8h"),
    key::<bool>("never", "true"),
    key::<PerHour>("messages-per-hour", "20"),
    key::<PerHour>("recipients-per-hour", "100"),
];

const fn key<T: OptionValue>(name: &'static str, example: &'static str) -> OptionInfo {
    OptionInfo { name, example, notation: T::notation, default: None, needs_restart: false }
}

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
    /// Sets a key of [`RULE_KEYS`].
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn set(&mut self, key: &str, value: &DeValue<'_>) -> Result<(), String> {
        match key {
            "from" => self.from = list(value, "every address")?,
            "user" => self.users = list(value, "every user")?,
            "grace" => self.grace = Some(read(value)?),
            "messages-per-hour" => self.limit.messages = Some(read::<PerHour>(value)?.0),
            "recipients-per-hour" => self.limit.recipients = Some(read::<PerHour>(value)?.0),
            _ => self.never = read(value)?,
        }
        Ok(())
    }

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

fn read<T: OptionValue>(value: &DeValue<'_>) -> Result<T, String> {
    super::options::Setting::File(value).read()
}

fn list<T: OptionValue>(value: &DeValue<'_>, everything: &str) -> Result<Vec<T>, String> {
    let OneOrMore(items) = read(value)?;
    if items.is_empty() {
        return Err(format!("the list is empty; without this key the rule is for {everything}"));
    }
    Ok(items)
}

/// Adds what is wrong with the list of users, and with rules on users whose names are not kept.
pub fn check(layer: &Layer, faults: &mut Failures) {
    if layer.users.as_ref().is_some_and(Vec::is_empty) {
        faults.push(
            Failure::config("users: the list is empty, so that no login would authorise")
                .hint("remove it to let every user's login authorise"),
        );
    }
    let key = match layer.rules.iter().find(|rule| !rule.users.is_empty()) {
        _ if layer.users.is_some() => "users".to_owned(),
        Some(rule) => format!("rule {}: user", rule.number),
        None => return,
    };
    if !layer.remember_users() {
        faults.push(
            Failure::config(format!(
                "{key}: without remember-users it is not known whose login has authorised an \
                 address when these settings change"
            ))
            .hint("remove remember-users = false, or the conditions on users"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["joe", "joe@example.org", "@example.org", "EXAMPLE\\joe", "jörg@exämple.org"]
        {
            assert_eq!(good.parse(), Ok(UserName(good.into())));
        }
        for (wrong, part) in [
            ("", "is not a user"),
            ("joe ann", "is not a user"),
            ("joe\n", "joe\\n"),
            ("@", "`@`: write @"),
            ("@a b", "is not a user"),
            ("@example.org,@example.com", "for all its users"),
            ("*@example.org", "write @example.org for all"),
        ] {
            let why = wrong.parse::<UserName>().expect_err(wrong);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn conditions_on_users_need_their_names() {
        let rows = [
            ("users = []", Some("users: the list is empty")),
            ("users = ['joe']\nremember-users = false", Some("users: without remember-users")),
            ("remember-users = false\n[[rule]]\nuser = 'joe'", Some("rule 1: user: without")),
            ("remember-users = false\n[[rule]]\nnever = true\nfrom = '192.0.2.7'", None),
            ("users = ['joe', '@example.org']\n[[rule]]\nuser = ['ann']\ngrace = '8h'", None),
        ];
        for (text, expected) in rows {
            let layer = Layer::from_toml(text).expect(text);
            let mut faults = Vec::new();
            check(&layer, &mut faults);
            let found = faults.iter().map(Failure::what).collect::<Vec<_>>().join("; ");
            match expected {
                None => assert_eq!(found, "", "{text}"),
                Some(part) => assert!(faults.len() == 1 && found.contains(part), "{text}: {found}"),
            }
        }
    }
}
