//! What main.cf has where the pop-before-smtp restriction should be.
//!
//! - **Promise**: a table counts as a mistaken name of ours only if it has our path or our entry,
//!   or cannot be read.

use super::Examination;
use crate::doctor::channels::{Channel, table_of};
use crate::doctor::postfix::restrictions::Restriction;
use crate::doctor::setup::{EARLIER, RECIPIENT, RELAY, Setup};
use crate::engine::publication::GENERATION_KEY;
use crate::postfix::BUILDABLE;

/// Returns the tables of `check_client_access` other than ours that have our entry or cannot be read.
pub(super) async fn strays(setup: &Setup, channels: &[Channel]) -> Vec<String> {
    let mut strays: Vec<String> = Vec::new();
    let Some(ours) = our_table(channels) else { return strays };
    let lists = setup.all_lists().flat_map(|(_, _, list)| list);
    let tables: Vec<String> = lists
        .filter_map(|r| table_of(&r, "check_client_access").map(|(table, _)| table.to_owned()))
        .collect();
    for table in tables {
        let kind = table.split(':').next().unwrap_or_default();
        if table == ours || !BUILDABLE.contains(&kind) || strays.contains(&table) {
            continue;
        }
        let found = setup.postfix.lookup(&table, GENERATION_KEY).await;
        // A table of another purpose can be read and lacks our entry.
        if !matches!(found, Ok(None)) || path_of(&table) == path_of(ours) {
            strays.push(table);
        }
    }
    strays
}

fn our_table(channels: &[Channel]) -> Option<&str> {
    channels.iter().find_map(|channel| match channel {
        Channel::Map(table) => Some(table.as_str()),
        _ => None,
    })
}

fn path_of(table: &str) -> Option<&str> {
    table.split_once(':').map(|(_, path)| path)
}

impl Examination<'_> {
    /// Returns whether a restriction uses a mistaken table, or ours for something else.
    pub(super) fn is_mistaken(&self, restriction: &Restriction) -> bool {
        self.stray(restriction).is_some() || self.is_misused(restriction)
    }

    fn stray<'a>(&self, restriction: &'a Restriction) -> Option<&'a str> {
        let (table, _) = table_of(restriction, "check_client_access")?;
        self.strays.iter().any(|stray| stray == table).then_some(table)
    }

    /// Returns whether it uses our table without a restriction name, for which smtpd looks up the
    /// recipient, or in `check_recipient_access` and the like.
    fn is_misused(&self, restriction: &Restriction) -> bool {
        let Some(ours) = our_table(self.channels) else { return false };
        let table = restriction.argument.as_deref().unwrap_or(&restriction.name);
        table == ours && restriction.name != "check_client_access"
    }

    /// Returns what was found instead, and why `by` refuses our clients.
    pub(super) fn absence(&self, service: Option<&str>, by: &Restriction) -> (String, String) {
        let list = |name: &str| self.setup.list(service, name);
        let refused =
            format!("`{by}` refuses authorised clients: 554 or 454, Relay access denied.");
        let all: Vec<Restriction> =
            EARLIER.into_iter().chain([RELAY, RECIPIENT]).flat_map(list).collect();
        if let Some(table) = all.iter().find_map(|restriction| self.stray(restriction)) {
            let ours = our_table(self.channels).unwrap_or_default();
            let differs = if path_of(table) == path_of(ours) { "type" } else { "path" };
            return (
                format!(
                    "main.cf names {table}, but the daemon publishes {ours}: another {differs}"
                ),
                format!(
                    "smtpd uses a table that the daemon does not write. If it does not exist or Postfix \
                     lacks its type, all mail checked against it gets 451; otherwise {refused}"
                ),
            );
        }
        if let Some(restriction) = all.iter().find(|restriction| self.is_misused(restriction)) {
            return (
                format!("main.cf does not look up the client address: `{restriction}`"),
                format!("Only check_client_access does that. {refused}"),
            );
        }
        let queries = |name: &&str| list(name).iter().any(|restriction| self.is_ours(restriction));
        if queries(&RECIPIENT) {
            return (
                format!("only {RECIPIENT} queries pop-before-smtp, not {RELAY}"),
                format!(
                    "That was correct before Postfix 2.10. Since then {RELAY} is evaluated first, \
                     and its {refused} The other list is never reached."
                ),
            );
        }
        if let Some(name) = EARLIER.iter().find(|name| queries(name)) {
            return (
                format!("only {name} queries pop-before-smtp, not {RELAY}"),
                format!("An OK there ends only that list; it lets no one relay. {refused}"),
            );
        }
        (format!("{RELAY} does not query pop-before-smtp"), refused)
    }
}
