//! The options that restrict the envelope sender, checked: a configuration that only seems to
//! restrict it is refused.

use std::path::PathBuf;

use super::options::Layer;
use super::values::{Mismatch, SenderRule, is_domain};
use crate::engine::grants::grant::MAX_USERS;
use crate::engine::protocol::policy::Action;
use crate::engine::protocol::sender_logins::Binding;
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::MapSpec;

/// The rules for envelope senders and the use of user names.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Which senders are admitted.
    pub binding: Binding,
    /// Domains of logins without one, in lower case.
    pub domains: Vec<String>,
    /// The file that lists further senders of some users.
    pub table: Option<PathBuf>,
    /// Postfix maps that list the logins that may use a sender.
    pub login_maps: Vec<MapSpec>,
    /// The characters that begin an address extension; `None` asks Postfix for them.
    pub delimiters: Option<String>,
    /// Whether users may use the null sender.
    pub allow_null: bool,
    /// The answer to any other sender.
    pub mismatch: Action,
    /// Whether user names are kept.
    pub remember_users: bool,
    /// Maximum number of users of an authorised address.
    pub max_users: Option<usize>,
}

impl Sending {
    /// Takes the options from a layer and adds what is wrong with them to `faults`. `by_policy` is
    /// whether the policy protocol is served.
    pub fn from_layer(layer: &Layer, by_policy: bool, faults: &mut Failures) -> Self {
        let mut fault = |what: String, hint: &str| faults.push(Failure::config(what).hint(hint));
        let rule = layer.sender();
        let remember_users = layer.remember_users();
        let mismatch = layer.sender_mismatch();
        let has_user_rules = layer.users.is_some() || !layer.rules.is_empty();
        let needing_a_rule = [
            ("sender-domains", layer.sender_domains.is_some() && !has_user_rules),
            ("sender-table", layer.sender_table.is_some()),
            ("sender-login-map", layer.sender_login_map.is_some()),
            ("sender-delimiter", layer.sender_delimiter.is_some()),
            ("sender-mismatch", layer.sender_mismatch.is_some()),
            ("allow-null-sender", layer.allow_null_sender.is_some()),
        ];
        for (option, _) in needing_a_rule.iter().filter(|(_, is_set)| *is_set) {
            if rule == SenderRule::Any && !layer.unread.contains("sender") {
                fault(
                    format!(
                        "{option}: has no effect with `sender = any`, which admits every sender"
                    ),
                    &format!("{}, or remove it", layer.how_to_set("sender", "user")),
                );
            }
        }
        if rule != SenderRule::Any && !by_policy && !layer.unread.contains("policy") {
            fault(
                "sender: only policy requests contain the sender, and policy is off; every sender \
                 would be admitted"
                    .into(),
                &format!(
                    "{} and name it in main.cf, or remove sender",
                    layer.how_to_set("policy", "unix:/var/spool/postfix/pop-before-smtp/policy")
                ),
            );
        }
        if rule != SenderRule::Any && !remember_users {
            fault(
                "sender: without remember-users it is not known who has logged in".into(),
                "remove remember-users = false, or sender",
            );
        }
        if let Some(most) = layer.max_users_per_address {
            if !(1..MAX_USERS).contains(&most) {
                fault(
                    format!("max-users-per-address: {most} is not between 1 and {}", MAX_USERS - 1),
                    "remove it to let any number of users share an address",
                );
            }
            if !remember_users {
                fault(
                    "max-users-per-address: without remember-users users are not counted".into(),
                    "remove remember-users = false or max-users-per-address",
                );
            }
        }
        let domains = layer.sender_domains.clone().unwrap_or_default();
        if let Some(wrong) = domains.iter().find(|domain| !is_domain(domain)) {
            fault(
                format!("sender-domains: `{}` is not a domain", wrong.escape_debug()),
                "write the part after the @, such as example.org",
            );
        }
        if let Some(path) = layer.sender_table.as_ref().filter(|path| !path.is_absolute()) {
            fault(
                format!("sender-table: `{}` is not an absolute path", path.display()),
                "write the whole path, beginning with /, of a file of lines `login address[, \
                 address...]`",
            );
        }
        Self {
            binding: match rule {
                SenderRule::Any => Binding::Any,
                SenderRule::User => Binding::User,
                SenderRule::Domain => Binding::Domain,
            },
            domains: domains.iter().map(|domain| domain.to_lowercase()).collect(),
            table: layer.sender_table.clone(),
            login_maps: layer.sender_login_map.clone().unwrap_or_default(),
            delimiters: layer.sender_delimiter.clone(),
            allow_null: layer.allow_null_sender(),
            mismatch: match mismatch {
                Mismatch::Dunno => Action::Dunno,
                Mismatch::Reject(text) => Action::Reject(text),
            },
            remember_users,
            max_users: layer.max_users_per_address,
        }
    }

    /// Returns warnings that do not prevent the start. `unrestricted` are the outputs that Postfix
    /// may use without naming the sender.
    pub fn remarks(&self, unrestricted: &[&str]) -> Vec<String> {
        if self.binding == Binding::Any {
            return Vec::new();
        }
        let mut remarks: Vec<String> = unrestricted
            .iter()
            .map(|what| {
                format!(
                    "sender: the {what} does not restrict senders; if main.cf names it in \
                     smtpd_relay_restrictions, every sender is admitted"
                )
            })
            .collect();
        if self.domains.is_empty() {
            remarks.push(
                "sender-domains is empty: users whose login name has no domain may only use the \
                 senders that sender-table and sender-login-map list"
                    .into(),
            );
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ineffective_sender_options_are_refused() {
        let rows = [
            ("sender = 'user'", false, Some("policy is off")),
            ("sender = 'domain'", false, Some("policy is off")),
            ("sender = 'user'", true, None),
            ("sender = 'any'", false, None),
            ("sender = 'user'\nremember-users = false", true, Some("without remember-users")),
            ("sender-table = '/t'", true, Some("sender-table: has no effect")),
            ("sender-mismatch = 'reject'", true, Some("sender-mismatch: has no effect")),
            ("allow-null-sender = false", true, Some("allow-null-sender: has no effect")),
            ("sender = 'user'\nsender-table = 't'", true, Some("not an absolute path")),
            ("sender = 'user'\nsender-domains = ['@a.example']", true, Some("not a domain")),
            ("sender = 'user'\nsender-domains = ['A.example']", true, None),
            ("sender = 'user'\nsender-mismatch = 'reject no'", true, None),
            ("max-users-per-address = 0", false, Some("between 1 and 63")),
            ("max-users-per-address = 64", false, Some("between 1 and 63")),
            ("max-users-per-address = 3", false, None),
            ("max-users-per-address = 3\nremember-users = false", false, Some("not counted")),
        ];
        for (text, by_policy, expected) in rows {
            let layer = Layer::from_toml(text).expect(text);
            let mut faults = Vec::new();
            let _ = Sending::from_layer(&layer, by_policy, &mut faults);
            let found = faults.iter().map(Failure::what).collect::<Vec<_>>().join("; ");
            match expected {
                None => assert_eq!(found, "", "{text}"),
                Some(part) => assert!(faults.len() == 1 && found.contains(part), "{text}: {found}"),
            }
        }
    }

    #[test]
    fn remarks_only_where_senders_are_restricted() {
        let sending = |text: &str| {
            Sending::from_layer(&Layer::from_toml(text).expect(text), true, &mut Vec::new())
        };
        assert_eq!(sending("").remarks(&["map"]).len(), 0);
        assert_eq!(sending("sender = 'user'").remarks(&["map", "socketmap"]).len(), 3);
        let bound = "sender = 'user'\nsender-domains = ['example.org']";
        assert_eq!(sending(bound).remarks(&[]).len(), 0);
    }
}
