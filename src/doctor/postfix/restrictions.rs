//! smtpd's restriction lists, as main.cf writes them, and what they decide.
//!
//! - **Promise**: a list is evaluated for a client that only pop-before-smtp can authorise, and a
//!   recipient in another domain. Restrictions that may or may not decide (other tables, DNS lists)
//!   are skipped.
//! - **Source**: postconf(5) `smtpd_relay_restrictions`; RESTRICTION_CLASS_README.
//! - **Not here**: where values come from, and how to fix them.

use std::collections::HashMap;
use std::fmt;

use crate::postfix::mynetworks::patterns;

/// Classes may contain classes, at worst themselves.
const MAX_DEPTH: usize = 8;

/// One restriction of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// Its name in lower case, or a table without a restriction name.
    pub name: String,
    /// The argument, if the restriction has one.
    pub argument: Option<String>,
    /// `warn_if_reject` precedes it, so it refuses no one.
    pub warns: bool,
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.warns {
            f.write_str("warn_if_reject ")?;
        }
        f.write_str(&self.name)?;
        self.argument.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

/// What a list decides for the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Evaluation<'a> {
    /// It queries pop-before-smtp, and nothing has decided before.
    Asked {
        /// The restrictions before.
        before: &'a [Restriction],
        /// The restrictions after.
        after: &'a [Restriction],
    },
    /// It refuses the client without querying pop-before-smtp first.
    Refused {
        /// The restriction that refuses the client.
        by: &'a Restriction,
        /// Whether a later restriction queries pop-before-smtp.
        asked_later: bool,
    },
    /// It permits every client without querying pop-before-smtp first.
    Open {
        /// The restriction that permits them.
        by: &'a Restriction,
    },
    /// The next list decides.
    Undecided,
}

impl Restriction {
    /// Returns whether the next word of a list belongs to the restriction of this name.
    pub fn takes_argument(name: &str) -> bool {
        (name.starts_with("check_") && name.ends_with("_access"))
            || name.starts_with("reject_rhsbl_")
            || matches!(
                name,
                "check_policy_service"
                    | "reject_rbl_client"
                    | "permit_dnswl_client"
                    | "permit_rhswl_client"
                    | "sleep"
            )
    }

    /// Returns whether it refuses recipients in other domains from every client.
    pub fn refuses(&self) -> bool {
        let refuses = matches!(
            &*self.name,
            "reject"
                | "defer"
                | "defer_if_permit"
                | "reject_unauth_destination"
                | "defer_unauth_destination"
                | "check_relay_domains"
        );
        refuses && !self.warns
    }

    /// Returns whether it may refuse a client for its address or host name: many lists contain dynamic
    /// addresses.
    pub fn judges_clients(&self) -> bool {
        self.may_refuse().is_some()
    }

    /// Returns which clients it may refuse that have logged in.
    pub fn may_refuse(&self) -> Option<&'static str> {
        let name = &*self.name;
        let is_helo = name.starts_with("reject_") && name.contains("helo");
        let old_helo =
            ["reject_invalid_hostname", "reject_non_fqdn_hostname", "reject_unknown_hostname"];
        let lists = ["reject_rbl_client", "reject_rhsbl_client", "reject_rhsbl_reverse_client"];
        let unnamed = name.starts_with("reject_unknown_") && name.contains("client");
        match name {
            _ if self.warns => None,
            _ if lists.contains(&name) || unnamed => Some("clients with dynamic addresses"),
            _ if is_helo || old_helo.contains(&name) => {
                Some("devices that say HELO with a short or unknown name")
            }
            "reject_sender_login_mismatch" | "reject_unauthenticated_sender_login_mismatch" => {
                Some(
                    "every sender that smtpd_sender_login_maps lists, because the client has not used \
                      SMTP AUTH,",
                )
            }
            "reject_plaintext_session" => Some("devices that cannot do TLS"),
            _ => None,
        }
    }
}

/// Parses the value of a parameter.
pub fn read(value: &str) -> Vec<Restriction> {
    let mut list = Vec::new();
    let mut warns = false;
    let mut tokens = patterns(value);
    while let Some(token) = tokens.next() {
        let lower = token.to_ascii_lowercase();
        if lower == "warn_if_reject" {
            warns = true;
            continue;
        }
        let takes = Restriction::takes_argument(&lower);
        // A table's path is case-sensitive.
        let name = if token.contains(':') { token.to_owned() } else { lower };
        let argument = if takes { tokens.next().map(str::to_owned) } else { None };
        list.push(Restriction { name, argument, warns });
        warns = false;
    }
    list
}

/// Replaces restriction classes by their restrictions.
pub fn resolve(
    list: &[Restriction],
    classes: &HashMap<String, Vec<Restriction>>,
) -> Vec<Restriction> {
    fn add(
        list: &[Restriction],
        classes: &HashMap<String, Vec<Restriction>>,
        depth: usize,
        whole: &mut Vec<Restriction>,
    ) {
        for restriction in list {
            match classes.get(&restriction.name).filter(|_| depth < MAX_DEPTH) {
                Some(inner) => add(inner, classes, depth + 1, whole),
                None => whole.push(restriction.clone()),
            }
        }
    }
    let mut whole = Vec::new();
    add(list, classes, 0, &mut whole);
    whole
}

/// Evaluates a list for the client.
pub fn evaluate(list: &[Restriction], is_ours: impl Fn(&Restriction) -> bool) -> Evaluation<'_> {
    for (index, restriction) in list.iter().enumerate() {
        if is_ours(restriction) && !restriction.warns {
            return Evaluation::Asked { before: &list[..index], after: &list[index + 1..] };
        }
        if restriction.refuses() {
            let asked_later = list[index..].iter().any(&is_ours);
            return Evaluation::Refused { by: restriction, asked_later };
        }
        if restriction.name == "permit" {
            return Evaluation::Open { by: restriction };
        }
    }
    Evaluation::Undecided
}

/// Returns the endpoint of a `check_policy_service` argument and one of its settings (postconf(5)
/// `check_policy_service`): `unix:PATH`, or `{ unix:PATH, timeout=3s, ... }`.
pub fn policy_call<'a>(argument: &'a str, setting: &str) -> (&'a str, Option<String>) {
    let inside = argument.trim().trim_start_matches('{').trim_end_matches('}');
    let endpoint = patterns(inside).next().unwrap_or_default();
    let mut settings = inside.split(',').filter_map(|part| {
        let part = part.trim().trim_start_matches('{').trim_end_matches('}');
        let (name, value) = part.split_once('=')?;
        (name.trim() == setting).then(|| value.trim().to_owned())
    });
    (endpoint, settings.next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "check_client_access hash:/var/lib/pop-before-smtp/clients";

    fn is_ours(restriction: &Restriction) -> bool {
        restriction.to_string() == OURS
    }

    #[test]
    fn parses_lists() {
        let rows: &[(&str, &[&str])] = &[
            ("", &[]),
            (" permit_mynetworks,\n\tREJECT ", &["permit_mynetworks", "reject"]),
            ("check_client_access hash:/A, reject", &["check_client_access hash:/A", "reject"]),
            (
                "warn_if_reject reject_rbl_client x.org permit",
                &["warn_if_reject reject_rbl_client x.org", "permit"],
            ),
            (
                "check_policy_service { unix:a/b, timeout=3s, default_action=DUNNO }, reject",
                &["check_policy_service { unix:a/b, timeout=3s, default_action=DUNNO }", "reject"],
            ),
            (
                "sleep 1 hash:/Bare reject_rhsbl_sender y.org",
                &["sleep 1", "hash:/Bare", "reject_rhsbl_sender y.org"],
            ),
            ("check_client_access", &["check_client_access"]),
        ];
        for (value, expected) in rows {
            let read: Vec<String> = read(value).iter().map(ToString::to_string).collect();
            assert_eq!(&read, expected, "{value}");
        }
    }

    #[test]
    fn evaluates_lists() {
        let asked = |value: &str| match evaluate(&read(value), is_ours) {
            Evaluation::Asked { before, after } => {
                format!("asked {} {}", before.len(), after.len())
            }
            Evaluation::Refused { by, asked_later } => format!("{by} {asked_later}"),
            Evaluation::Open { .. } => "open".to_owned(),
            Evaluation::Undecided => "undecided".to_owned(),
        };
        for (value, expected) in [
            ("permit_mynetworks, OURS, reject_unauth_destination", "asked 1 1"),
            ("permit_auth_destination, OURS, reject", "asked 1 1"),
            ("check_client_access cidr:/x, reject_rbl_client y, OURS", "asked 2 0"),
            ("warn_if_reject reject, OURS", "asked 1 0"),
            ("permit_mynetworks, defer_unauth_destination", "defer_unauth_destination false"),
            ("reject_unauth_destination, OURS", "reject_unauth_destination true"),
            ("reject, permit", "reject false"),
            ("permit, OURS", "open"),
            ("permit_mynetworks", "undecided"),
            ("", "undecided"),
            ("warn_if_reject OURS, reject", "reject false"),
        ] {
            assert_eq!(asked(&value.replace("OURS", OURS)), expected, "{value}");
        }
    }

    #[test]
    fn resolves_classes() {
        let classes: HashMap<_, _> = [("one", "two, reject"), ("two", OURS), ("self", "self")]
            .map(|(n, v)| (n.to_owned(), read(v)))
            .into();
        let list = resolve(&read("permit_mynetworks one"), &classes);
        assert!(matches!(evaluate(&list, is_ours), Evaluation::Asked { .. }), "{list:?}");
        assert_eq!(resolve(&read("self"), &classes).len(), 1);
    }

    #[test]
    fn policy_calls() {
        for (argument, endpoint, action) in [
            ("unix:a/b", "unix:a/b", None),
            ("inet:127.0.0.1:1", "inet:127.0.0.1:1", None),
            ("{ unix:a/b, timeout=3s, default_action=DUNNO }", "unix:a/b", Some("DUNNO")),
            ("{unix:a/b, default_action = DUNNO later}", "unix:a/b", Some("DUNNO later")),
            ("{ unix:a/b, { default_action = 451 4.3.5 x } }", "unix:a/b", Some("451 4.3.5 x")),
        ] {
            let (found, setting) = policy_call(argument, "default_action");
            assert_eq!((found, setting.as_deref()), (endpoint, action), "{argument}");
        }
    }
}
