//! Which logins authorise, as the administrator writes it: reads the tables `[[rule]]` of the file, and
//! checks them and `users`.
//!
//! - **Not here**: what they mean ([`crate::engine::login_rules`]).

use toml::de::DeValue;

use super::options::{Layer, OptionInfo, Setting};
use super::rule_entry::RuleEntry;
use super::values::{Network, Span, UserName};
use super::written::{OptionValue, Wrong};
use crate::error::{Failure, Failures};

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

/// Sets a key of [`RULE_KEYS`] in a rule.
///
/// # Errors
/// What is wrong with the value.
pub fn set(rule: &mut RuleEntry, key: &str, value: &DeValue<'_>) -> Result<(), String> {
    match key {
        "from" => rule.from = list(value, "every address")?,
        "user" => rule.users = list(value, "every user")?,
        "grace" => rule.grace = Some(read(value)?),
        "messages-per-hour" => rule.limit.messages = Some(read::<PerHour>(value)?.0),
        "recipients-per-hour" => rule.limit.recipients = Some(read::<PerHour>(value)?.0),
        _ => rule.never = read(value)?,
    }
    Ok(())
}

fn read<T: OptionValue>(value: &DeValue<'_>) -> Result<T, String> {
    Setting::File(value).read()
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
