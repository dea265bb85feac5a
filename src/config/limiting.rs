//! The options that limit what an authorised client may relay, checked: a configuration that only
//! seems to limit it is refused.

use std::path::PathBuf;

use super::options::Layer;
use super::values::BeyondLimit;
use crate::engine::limits::{Limit, LimitAction};
use crate::error::{Failure, Failures};

/// How much may be relayed.
#[derive(Clone, Debug)]
pub struct Limiting {
    /// What applies to everybody.
    pub general: Limit,
    /// What happens beyond a limit.
    pub action: LimitAction,
    /// The file that lists exceptions.
    pub table: Option<PathBuf>,
    /// Whether a rule on logins has a limit.
    pub limits_by_rules: bool,
}

impl Limiting {
    /// Takes the options from a layer and adds what is wrong with them to `faults`. `by_policy` is
    /// whether the policy protocol is served.
    pub fn from_layer(layer: &Layer, by_policy: bool, faults: &mut Failures) -> Self {
        let mut fault = |what: String, hint: &str| faults.push(Failure::config(what).hint(hint));
        let limiting = [
            ("messages-per-hour", layer.messages_per_hour.is_some()),
            ("recipients-per-hour", layer.recipients_per_hour.is_some()),
            ("limits", layer.limits.is_some()),
        ];
        let first = limiting.iter().find(|(_, is_set)| *is_set).map(|(name, _)| *name);
        let limits_by_rules = layer.rules.iter().any(|rule| rule.limit != Limit::default());
        let first = first.or(limits_by_rules.then_some("rule"));
        let unread = limiting.iter().any(|(name, _)| layer.unread.contains(name));
        if layer.limit_action.is_some() && first.is_none() && !unread {
            fault(
                "limit-action: has no effect without a limit".into(),
                &format!("{}, or remove it", layer.how_to_set("messages-per-hour", "100")),
            );
        }
        if let Some(name) = first.filter(|_| !by_policy && !layer.unread.contains("policy")) {
            fault(
                format!(
                    "{name}: only policy requests tell one message from another, and policy is off; \
                     nothing would be limited"
                ),
                &format!(
                    "{} and name it in main.cf, or remove {name}",
                    layer.how_to_set("policy", "unix:/var/spool/postfix/pop-before-smtp/policy")
                ),
            );
        }
        let mut number = |name: &str, number: Option<usize>| match number.map(u32::try_from) {
            Some(Ok(number @ 1..)) => Some(number),
            None => None,
            Some(_) => {
                fault(
                    format!("{name}: not between 1 and {}", u32::MAX),
                    "remove it to let anyone who is authorised relay any number",
                );
                None
            }
        };
        let general = Limit {
            messages: number("messages-per-hour", layer.messages_per_hour),
            recipients: number("recipients-per-hour", layer.recipients_per_hour),
        };
        if let Some(path) = layer.limits.as_ref().filter(|path| !path.is_absolute()) {
            let what = format!("limits: `{}` is not an absolute path", path.display());
            fault(what, "write the whole path, beginning with /");
        }
        Self {
            general,
            action: match layer.limit_action() {
                BeyondLimit::Defer => LimitAction::Defer,
                BeyondLimit::Revoke => LimitAction::Revoke,
            },
            table: layer.limits.clone(),
            limits_by_rules,
        }
    }

    /// Returns warnings that do not prevent the start. `unlimited` are the outputs that Postfix may
    /// use without telling messages apart.
    pub fn remarks(&self, unlimited: &[&str]) -> Vec<String> {
        let is_limited =
            self.general != Limit::default() || self.table.is_some() || self.limits_by_rules;
        let remark = |what: &&str| {
            format!(
                "messages-per-hour, recipients-per-hour, limits: the {what} limits nothing; if \
                 main.cf names it in smtpd_relay_restrictions, its clients relay without a limit"
            )
        };
        unlimited.iter().filter(|_| is_limited).map(remark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ineffective_limits_are_refused() {
        let rows = [
            ("", false, None),
            ("messages-per-hour = 3", true, None),
            ("messages-per-hour = 3", false, Some("messages-per-hour: only policy requests")),
            ("recipients-per-hour = 3", false, Some("recipients-per-hour: only policy requests")),
            ("limits = '/t'", false, Some("limits: only policy requests")),
            ("limits = '/t'\nlimit-action = 'revoke'", true, None),
            ("limit-action = 'revoke'", true, Some("limit-action: has no effect")),
            ("messages-per-hour = 0", true, Some("messages-per-hour: not between 1 and")),
            ("recipients-per-hour = 5000000000", true, Some("recipients-per-hour: not between")),
            ("limits = 't'", true, Some("not an absolute path")),
        ];
        for (text, by_policy, expected) in rows {
            let layer = Layer::from_toml(text).expect(text);
            let mut faults = Vec::new();
            let _ = Limiting::from_layer(&layer, by_policy, &mut faults);
            let found = faults.iter().map(Failure::what).collect::<Vec<_>>().join("; ");
            match expected {
                None => assert_eq!(found, "", "{text}"),
                Some(part) => assert!(faults.len() == 1 && found.contains(part), "{text}: {found}"),
            }
        }
    }

    #[test]
    fn remarks_only_where_something_is_limited() {
        let limiting = |text: &str| {
            Limiting::from_layer(&Layer::from_toml(text).expect(text), true, &mut Vec::new())
        };
        assert_eq!(limiting("").remarks(&["map"]).len(), 0);
        assert_eq!(limiting("messages-per-hour = 3").remarks(&["map", "socketmap"]).len(), 2);
        assert_eq!(limiting("limits = '/t'").remarks(&["map"]).len(), 1);
        assert_eq!(limiting("limits = '/t'").remarks(&[]).len(), 0);
    }
}
