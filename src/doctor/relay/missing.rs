//! What main.cf has where our line should be.
//!
//! Promise  a table counts as meant for us only if its path, or an entry of ours in it, says so, or
//!          if it does not exist.

use super::Examination;
use crate::doctor::channels::{Channel, table_of};
use crate::doctor::postfix::master::MasterEntry;
use crate::doctor::postfix::restrictions::Restriction;
use crate::doctor::setup::{EARLIER, RECIPIENT, RELAY, Setup};
use crate::engine::publication::GENERATION_KEY;
use crate::postfix::BUILDABLE;

/// Tables of `check_client_access` that are not ours and have our entry, or do not exist.
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
        // Another administrator's table can be read and does not have our entry.
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
    /// Whether a restriction asks a table that is taken for ours, or asks ours for something else.
    pub(super) fn stands_for_us(&self, restriction: &Restriction) -> bool {
        self.stray(restriction).is_some() || self.is_misused(restriction)
    }

    fn stray<'a>(&self, restriction: &'a Restriction) -> Option<&'a str> {
        let (table, _) = table_of(restriction, "check_client_access")?;
        self.strays.iter().any(|stray| stray == table).then_some(table)
    }

    /// Our table alone, which smtpd asks for the recipient, or in `check_recipient_access` and the
    /// like.
    fn is_misused(&self, restriction: &Restriction) -> bool {
        let Some(ours) = our_table(self.channels) else { return false };
        let asked = restriction.argument.as_deref().unwrap_or(&restriction.name);
        asked == ours && restriction.name != "check_client_access"
    }

    /// What was found instead of us, and why our clients are refused `by` what.
    pub(super) fn absence(
        &self,
        service: Option<&MasterEntry>,
        by: &Restriction,
    ) -> (String, String) {
        let list = |name: &str| self.setup.list(service, name);
        let refused = format!("`{by}` refuses our clients: 554 or 454, Relay access denied.");
        let all: Vec<Restriction> =
            EARLIER.into_iter().chain([RELAY, RECIPIENT]).flat_map(list).collect();
        if let Some(table) = all.iter().find_map(|restriction| self.stray(restriction)) {
            let ours = our_table(self.channels).unwrap_or_default();
            let differs = if path_of(table) == path_of(ours) { "type" } else { "path" };
            return (
                format!("main.cf names {table}, the daemon publishes {ours}: another {differs}"),
                format!(
                    "smtpd looks into a table that the daemon does not write. If it does not exist \
                     or Postfix lacks the type, all mail that comes so far gets 451; else {refused}"
                ),
            );
        }
        if let Some(restriction) = all.iter().find(|restriction| self.is_misused(restriction)) {
            return (
                format!("main.cf does not ask for the client's address: `{restriction}`"),
                format!("Only check_client_access does. {refused}"),
            );
        }
        let asks = |name: &&str| list(name).iter().any(|restriction| self.is_ours(restriction));
        if asks(&RECIPIENT) {
            return (
                format!("only {RECIPIENT} asks us, not {RELAY}"),
                format!(
                    "That was right before Postfix 2.10. Since then {RELAY} is evaluated first, \
                     and its {refused} The other list is never reached."
                ),
            );
        }
        if let Some(name) = EARLIER.iter().find(|name| asks(name)) {
            return (
                format!("only {name} asks us, not {RELAY}"),
                format!("An OK ends that list and no other: it lets nobody relay. {refused}"),
            );
        }
        (format!("{RELAY} does not ask pop-before-smtp"), refused)
    }
}
