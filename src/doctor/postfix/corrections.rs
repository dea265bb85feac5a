//! Corrected restriction lists: what smtpd cannot evaluate is removed, and our restriction is in its
//! place.
//!
//! - **Promise**: everything else keeps its order, and the reply to clients that may not relay stays
//!   what it was: 454 of `defer_unauth_destination`, 554 of `reject_unauth_destination`.
//! - **Not here**: whether the corrected list is right: the caller evaluates it.

use super::known::{RestrictionFault, fault};
use super::restrictions::Restriction;

/// What a list without any refusal gets. As Postfix's default, it lets the client try again later.
const REFUSAL: &str = "defer_unauth_destination";

/// The beginning of a list that has nothing else to keep.
const BEGINNING: &str = "permit_mynetworks, permit_sasl_authenticated";

/// Returns the list without what smtpd cannot evaluate. A misspelled name is replaced.
pub fn repaired(list: &[Restriction]) -> Vec<Restriction> {
    let repair = |restriction: &Restriction| match fault(restriction) {
        None => Some(restriction.clone()),
        Some(RestrictionFault::UnknownName(Some(name))) => {
            Some(Restriction { name, ..restriction.clone() }).filter(|r| fault(r).is_none())
        }
        Some(_) => None,
    };
    list.iter().filter_map(repair).collect()
}

/// Returns a list as main.cf writes it.
pub fn written(list: &[Restriction]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns a list that decides on relaying, with `ours` before the first restriction that refuses
/// every client, and without those that permit every client. `drop` are those that `ours` replaces.
pub fn deciding(list: &[Restriction], drop: impl Fn(&Restriction) -> bool, ours: &str) -> String {
    let mut kept: Vec<Restriction> = Vec::new();
    for mut restriction in repaired(list) {
        // That it only warns is what makes it an open relay.
        if is_by_destination(&restriction) {
            restriction.warns = false;
        }
        let again = is_by_destination(&restriction) && kept.iter().any(is_by_destination);
        if !again && restriction.name != "permit" && !drop(&restriction) {
            kept.push(restriction);
        }
    }
    let place = kept.iter().position(Restriction::refuses);
    let (before, after) = kept.split_at(place.unwrap_or(kept.len()));
    let before = if kept.is_empty() { BEGINNING.to_owned() } else { written(before) };
    let after = if place.is_none() { REFUSAL.to_owned() } else { written(after) };
    joined([&before, ours, &after])
}

/// Returns the usual list that decides on relaying, with the refusal that the given list has.
pub fn usual(list: &[Restriction], ours: &str) -> String {
    let refusal = list.iter().find(|restriction| is_by_destination(restriction));
    joined([BEGINNING, ours, refusal.map_or(REFUSAL, |refusal| &refusal.name)])
}

/// Returns a list that only may refuse, with `ours` before the first restriction for which `refuses`.
pub fn spared(
    list: &[Restriction],
    drop: impl Fn(&Restriction) -> bool,
    refuses: impl Fn(&Restriction) -> bool,
    ours: &str,
) -> String {
    let kept: Vec<Restriction> = repaired(list).into_iter().filter(|r| !drop(r)).collect();
    let place = kept.iter().position(refuses).unwrap_or(kept.len());
    let (before, after) = kept.split_at(place);
    joined([&written(before), ours, &written(after)])
}

/// Returns whether it refuses, or with `warn_if_reject` would refuse, recipients in other domains.
fn is_by_destination(restriction: &Restriction) -> bool {
    matches!(&*restriction.name, "reject_unauth_destination" | "defer_unauth_destination")
}

fn joined(parts: [&str; 3]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::restrictions::{Evaluation, evaluate, read};
    use super::*;

    const OURS: &str = "check_client_access hash:/var/lib/pop-before-smtp/clients";

    fn is_ours(restriction: &Restriction) -> bool {
        restriction.to_string() == OURS
    }

    fn ours(value: &str) -> String {
        value.replace("OURS", OURS)
    }

    #[test]
    fn lists_that_decide() {
        for (value, expected) in [
            (
                "permit_mynetworks, reject_unauth_destination",
                "permit_mynetworks, OURS, reject_unauth_destination",
            ),
            (
                "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
                "permit_mynetworks, permit_sasl_authenticated, OURS, defer_unauth_destination",
            ),
            ("reject_unauth_destination, OURS", "OURS, reject_unauth_destination"),
            ("permit_mynetworks", "permit_mynetworks, OURS, defer_unauth_destination"),
            ("", "permit_mynetworks, permit_sasl_authenticated, OURS, defer_unauth_destination"),
            (
                "permit",
                "permit_mynetworks, permit_sasl_authenticated, OURS, defer_unauth_destination",
            ),
            ("permit_mynetworks, permit", "permit_mynetworks, OURS, defer_unauth_destination"),
            ("permit, OURS, reject_unauth_destination", "OURS, reject_unauth_destination"),
            (
                "reject_unauth_destination, permit, defer_unauth_destination, check_policy_service unix:x",
                "OURS, reject_unauth_destination, check_policy_service unix:x",
            ),
            ("warn_if_reject reject_unauth_destination", "OURS, reject_unauth_destination"),
            (
                "permit_mynetwork, check_client_access /var/lib/pop-before-smtp/clients, nonsense, reject",
                "permit_mynetworks, OURS, reject",
            ),
        ] {
            let list = deciding(&read(&ours(value)), is_ours, OURS);
            assert_eq!(list, ours(expected), "{value}");
            let list = read(&list);
            let Evaluation::Asked { after, .. } = evaluate(&list, is_ours) else {
                panic!("{value}: {list:?}");
            };
            assert!(after.iter().any(Restriction::refuses), "{value}");
        }
    }

    #[test]
    fn lists_that_only_refuse() {
        let refuses = Restriction::refuses;
        for (value, expected) in [
            ("permit_mynetworks, reject, permit", "permit_mynetworks, OURS, reject, permit"),
            ("reject_unlisted_sendr, reject", "reject_unlisted_sender, OURS, reject"),
            ("reject, OURS", "OURS, reject"),
            ("", "OURS"),
        ] {
            let list = spared(&read(&ours(value)), is_ours, refuses, OURS);
            assert_eq!(list, ours(expected), "{value}");
        }
    }

    #[test]
    fn usual_lists() {
        for (value, refusal) in [
            ("", "defer_unauth_destination"),
            ("nonsense, reject_unauth_destination", "reject_unauth_destination"),
            ("reject", "defer_unauth_destination"),
        ] {
            let expected = format!("{BEGINNING}, {OURS}, {refusal}");
            assert_eq!(usual(&read(value), OURS), expected, "{value}");
        }
    }
}
