//! Builds the engine's rules on logins from `users` and the tables `[[rule]]`, and describes them.

use std::time::Duration;

use crate::config::layer::Layer;
use crate::config::rule_entry::RuleEntry;
use crate::config::values::UserName;
use crate::engine::limits::Limit;
use crate::engine::login_rules::{Effect, LoginRule, LoginRules, UserSet};

/// Returns the engine's rules.
pub fn login_rules(layer: &Layer) -> LoginRules {
    let domains = layer.sender_domains.clone().unwrap_or_default();
    let domains: Vec<String> = domains.iter().map(|domain| domain.to_lowercase()).collect();
    let set = |names: &[UserName]| UserSet::new(names.iter().map(|name| &*name.0), &domains);
    let rule = |entry: &RuleEntry| LoginRule {
        label: label(layer, entry).into(),
        from: entry.from.iter().map(|network| network.0).collect(),
        users: (!entry.users.is_empty()).then(|| set(&entry.users)),
        effect: match entry.grace {
            _ if entry.never => Effect::Never,
            Some(grace) => Effect::Grace(grace.0),
            None => Effect::Usual,
        },
        limit: entry.limit,
    };
    LoginRules {
        users: layer.users.as_deref().map(set),
        rules: layer.rules.iter().map(rule).collect(),
    }
}

/// Returns how a rule is named: `rule 2 (config.toml line 14)`.
fn label(layer: &Layer, entry: &RuleEntry) -> String {
    let name = layer.file.as_ref().and_then(|file| file.file_name());
    let name = name.map_or("the file".into(), |name| name.to_string_lossy());
    format!("rule {} ({name} line {})", entry.number, entry.line)
}

/// Returns warnings about rules that never decide.
pub fn remarks(rules: &LoginRules) -> Vec<String> {
    let mut remarks = Vec::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        if let Some(earlier) = rules.rules[..index].iter().find(|earlier| earlier.covers(rule)) {
            remarks.push(format!(
                "{} never decides: {} matches all its logins first",
                rule.label, earlier.label
            ));
        } else if let (Some(all), Some(own)) = (&rules.users, &rule.users)
            && !all.meets(own)
        {
            remarks.push(format!(
                "{} never decides: `users` names none of its users, so that their logins do not \
                 authorise",
                rule.label
            ));
        }
    }
    remarks
}

/// Describes in plain words which logins authorise, line by line; nothing if all do.
pub fn describe(layer: &Layer) -> Vec<String> {
    let span = |span: Duration| humantime::format_duration(span).to_string();
    let users = layer.users.as_deref().unwrap_or_default();
    let mut lines = Vec::new();
    if layer.users.is_some() {
        lines.push(format!("users: only logins of {} authorise", of_users(users)));
    }
    for entry in &layer.rules {
        let mut logins = "a login".to_owned();
        if !entry.users.is_empty() {
            logins += &format!(" of {}", of_users(&entry.users));
        }
        if !entry.from.is_empty() {
            let networks: Vec<String> = entry.from.iter().map(|net| net.0.to_string()).collect();
            logins += &format!(" from {}", networks.join(" or "));
        }
        let effect = match entry.grace {
            _ if entry.never => "never authorises".into(),
            grace => {
                let span = span(grace.unwrap_or(layer.grace()).0);
                format!("authorises for {span}{}", at_most(entry.limit))
            }
        };
        lines.push(format!("{}: {logins} {effect}", label(layer, entry)));
    }
    if !lines.is_empty() {
        lines.push(format!("otherwise: a login authorises for {}", span(layer.grace().0)));
    }
    lines
}

fn at_most(limit: Limit) -> String {
    let messages = limit.messages.map(|most| format!("{most} messages"));
    let recipients = limit.recipients.map(|most| format!("{most} recipients"));
    let limits: Vec<String> = messages.into_iter().chain(recipients).collect();
    match limits.is_empty() {
        true => String::new(),
        false => format!(", and at most {} an hour", limits.join(" and ")),
    }
}

fn of_users(users: &[UserName]) -> String {
    let name = |user: &UserName| match user.0.strip_prefix('@') {
        Some(domain) => format!("anybody at {domain}"),
        None => user.0.clone(),
    };
    users.iter().map(name).collect::<Vec<_>>().join(" or ")
}
