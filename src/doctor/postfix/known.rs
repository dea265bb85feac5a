//! The restrictions that smtpd knows, and what makes it refuse to evaluate one: it answers 451 to
//! every recipient that gets that far.
//!
//! - **Source**: postconf(5) `smtpd_client_restrictions` and the lists after it, from Postfix 2.3 to
//!   3.11; smtpd(8) also knows the older names of some.

use std::fmt;

use super::restrictions::Restriction;

/// Without those that take a table, `check_..._access`.
const NAMES: &[&str] = &[
    "check_policy_service",
    "check_relay_domains",
    "defer",
    "defer_if_permit",
    "defer_if_reject",
    "defer_unauth_destination",
    "permit",
    "permit_auth_destination",
    "permit_dnswl_client",
    "permit_inet_interfaces",
    "permit_mx_backup",
    "permit_mynetworks",
    "permit_naked_ip_address",
    "permit_rhswl_client",
    "permit_sasl_authenticated",
    "permit_tls_all_clientcerts",
    "permit_tls_clientcerts",
    "reject",
    "reject_authenticated_sender_login_mismatch",
    "reject_invalid_helo_hostname",
    "reject_invalid_hostname",
    "reject_known_sender_login_mismatch",
    "reject_maps_rbl",
    "reject_multi_recipient_bounce",
    "reject_non_fqdn_helo_hostname",
    "reject_non_fqdn_hostname",
    "reject_non_fqdn_recipient",
    "reject_non_fqdn_sender",
    "reject_plaintext_session",
    "reject_rbl",
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_rhsbl_helo",
    "reject_rhsbl_recipient",
    "reject_rhsbl_reverse_client",
    "reject_rhsbl_sender",
    "reject_sender_login_mismatch",
    "reject_unauth_destination",
    "reject_unauth_pipelining",
    "reject_unauthenticated_sender_login_mismatch",
    "reject_unknown_address",
    "reject_unknown_client",
    "reject_unknown_client_hostname",
    "reject_unknown_helo_hostname",
    "reject_unknown_hostname",
    "reject_unknown_recipient_domain",
    "reject_unknown_reverse_client_hostname",
    "reject_unknown_sender_domain",
    "reject_unlisted_recipient",
    "reject_unlisted_sender",
    "reject_unverified_recipient",
    "reject_unverified_sender",
    "sleep",
];

/// What a table can be asked for: `check_WHAT_access`.
const KEYS: &[&str] =
    &["ccert", "client", "etrn", "helo", "recipient", "reverse_client_hostname", "sasl", "sender"];

/// And by the host names, mail exchangers and name servers of these.
const WITH_HOSTS: &[&str] = &["client", "helo", "recipient", "reverse_client_hostname", "sender"];

/// Letters in which a misspelled name may differ from the known one.
const MAX_DISTANCE: usize = 2;

/// Why smtpd cannot evaluate a restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestrictionFault {
    /// It knows no restriction of this name; with the most similar one.
    UnknownName(Option<String>),
    /// The name of a table is missing.
    NoArgument,
    /// The table has no `TYPE:`.
    NoType,
}

impl fmt::Display for RestrictionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName(None) => f.write_str("Postfix has no such restriction"),
            Self::UnknownName(Some(known)) => {
                write!(f, "Postfix has no such restriction (it has {known})")
            }
            Self::NoArgument => f.write_str("its argument is missing"),
            Self::NoType => f.write_str("the table has no type before its path"),
        }
    }
}

/// Returns why smtpd cannot evaluate a restriction, if so.
pub fn fault(restriction: &Restriction) -> Option<RestrictionFault> {
    let name = restriction.name.as_str();
    // A table without a restriction name.
    if name.contains(':') {
        return None;
    }
    if !is_known(name) {
        return Some(RestrictionFault::UnknownName(nearest(name)));
    }
    if !Restriction::takes_argument(name) {
        return None;
    }
    match restriction.argument.as_deref() {
        None => Some(RestrictionFault::NoArgument),
        Some(table) if takes_table(name) && !table.contains(':') => Some(RestrictionFault::NoType),
        Some(_) => None,
    }
}

fn takes_table(name: &str) -> bool {
    let Some(key) = name.strip_prefix("check_").and_then(|name| name.strip_suffix("_access"))
    else {
        return false;
    };
    let hosts = ["_a", "_mx", "_ns"].iter().find_map(|host| key.strip_suffix(host));
    KEYS.contains(&key) || hosts.is_some_and(|key| WITH_HOSTS.contains(&key))
}

fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || takes_table(name)
}

/// Returns the known name that is most similar, if only one is.
fn nearest(name: &str) -> Option<String> {
    let tables = KEYS.iter().map(|key| format!("check_{key}_access"));
    let known = NAMES.iter().map(|known| (*known).to_owned()).chain(tables);
    let mut near: Vec<(usize, String)> = known
        .map(|known| (distance(name, &known), known))
        .filter(|(distance, _)| *distance <= MAX_DISTANCE)
        .collect();
    near.sort();
    match near.as_slice() {
        [(_, one)] => Some(one.clone()),
        [(first, one), (second, _), ..] if first < second => Some(one.clone()),
        _ => None,
    }
}

/// Returns the number of letters to add, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, wanted) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::super::restrictions::read;
    use super::*;

    #[test]
    fn faults() {
        let unknown =
            |near: Option<&str>| Some(RestrictionFault::UnknownName(near.map(str::to_owned)));
        for (text, expected) in [
            ("permit_mynetworks", None),
            ("PERMIT_MyNetworks", None),
            ("permit_mynetwork", unknown(Some("permit_mynetworks"))),
            ("permit_sasl_authentcated", unknown(Some("permit_sasl_authenticated"))),
            ("reject_unauth_destinations", unknown(Some("reject_unauth_destination"))),
            ("check_clients_access hash:/x", unknown(Some("check_client_access"))),
            ("pop_before_smtp", unknown(None)),
            ("/var/lib/x/clients", unknown(None)),
            ("hash:/var/lib/x/clients", None),
            ("check_client_access hash:/x", None),
            ("check_client_access proxy:hash:/x", None),
            ("check_client_access /x", Some(RestrictionFault::NoType)),
            ("check_sender_mx_access /x", Some(RestrictionFault::NoType)),
            ("check_sasl_mx_access hash:/x", unknown(None)),
            ("check_client_access", Some(RestrictionFault::NoArgument)),
            ("check_policy_service", Some(RestrictionFault::NoArgument)),
            ("check_policy_service { unix:a, timeout=3s }", None),
            ("reject_rbl_client x.example.org", None),
            ("sleep 1", None),
        ] {
            assert_eq!(fault(&read(text)[0]), expected, "{text}");
        }
    }

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("a", "", 1), ("permit", "permitt", 1), ("abc", "cab", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
