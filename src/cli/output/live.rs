//! `list --watch`: the table of `list` that follows the set, with a bar for the time left.
//!
//! - **Promise**: new addresses are marked with `+`, and ended ones stay with a `-`, both for
//!   `MARKED`. Those that ended come first, then the latest logins.
//! - **Not here**: the terminal, and the clock.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::table::{Cell, Column, Table};
use super::{COLUMNS, left_style, row};
use crate::control::protocol::Entry;
use crate::sys::terminal::{OutputStyle, Style};

/// How long new and ended addresses are marked.
const MARKED: Duration = Duration::from_secs(10);
/// Columns of the bar for the time left.
const BAR: u64 = 10;

/// What an address is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Ended(Duration),
    New(Duration),
    None,
}

/// The set as it was told last, with what has changed lately.
#[derive(Debug, Default)]
pub struct LiveList {
    entries: BTreeMap<IpAddr, (Entry, Mark)>,
    has_begun: bool,
    /// The longest time left so far, in seconds: a full bar.
    full: u64,
}

impl LiveList {
    /// Takes over the set at a moment, measured from any fixed one.
    pub fn update(&mut self, now: Duration, entries: Vec<Entry>) {
        let mut before = std::mem::take(&mut self.entries);
        for entry in entries {
            self.full = self.full.max(entry.expires_in);
            let mark = match before.remove(&entry.address) {
                Some((_, mark @ (Mark::None | Mark::New(_)))) => mark,
                _ if self.has_begun => Mark::New(now),
                _ => Mark::None,
            };
            self.entries.insert(entry.address, (entry, mark));
        }
        for (address, (entry, mark)) in before {
            let mark = if matches!(mark, Mark::Ended(_)) { mark } else { Mark::Ended(now) };
            self.entries.insert(address, (entry, mark));
        }
        self.entries.retain(|_, (_, mark)| match mark {
            Mark::Ended(since) => now < *since + MARKED,
            Mark::New(since) => {
                if now >= *since + MARKED {
                    *mark = Mark::None;
                }
                true
            }
            Mark::None => true,
        });
        self.has_begun = true;
    }

    /// Prints the number of authorised addresses and the table, in at most `rows` lines.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, rows: usize, style: OutputStyle, mut output: impl Write) -> io::Result<()> {
        let has_ended = |mark: &Mark| matches!(mark, Mark::Ended(_));
        let mut shown: Vec<&(Entry, Mark)> = self.entries.values().collect();
        let authorised = shown.iter().filter(|(_, mark)| !has_ended(mark)).count();
        let key = |(entry, mark): &&(Entry, Mark)| {
            (!has_ended(mark), std::cmp::Reverse(entry.expires_in), entry.address)
        };
        shown.sort_by_key(key);
        // The heading, that of the table, and the number of what is left out.
        let room = rows.saturating_sub(2);
        let room = if shown.len() > room { room.saturating_sub(1) } else { room };
        let left_out = shown.len().saturating_sub(room);
        shown.truncate(room);
        let heading = format!("{authorised} authorised; + new, - ended; Ctrl-C ends");
        writeln!(output, "{}", style.paint(Style::Head, &heading))?;
        // As wide without any mark.
        let mut columns = vec![Column::left(" ")];
        columns.extend(COLUMNS);
        columns.insert(TIME_LEFT + 1, Column::left("").optional(5));
        let mut table = Table::new(&columns);
        for (entry, mark) in shown {
            let mut cells = vec![mark.cell()];
            cells.extend(row(entry));
            let mut bar = self.bar(entry.expires_in, left_style(entry));
            if has_ended(mark) {
                cells[TIME_LEFT] = Cell("ended".into(), Style::Bad);
                bar = self.bar(0, Style::Bad);
            }
            cells.insert(TIME_LEFT + 1, bar);
            table.add(cells);
        }
        table.print(style, &mut output)?;
        if left_out > 0 {
            writeln!(output, "and {left_out} more")?;
        }
        Ok(())
    }

    fn bar(&self, seconds: u64, style: Style) -> Cell {
        let length = (seconds * BAR).div_ceil(self.full.max(1)).min(BAR);
        let (length, rest) = (length as usize, (BAR - length) as usize);
        Cell("█".repeat(length) + &"░".repeat(rest), style)
    }
}

/// The place of the time left among the columns, after the mark.
const TIME_LEFT: usize = 7;

impl Mark {
    fn cell(self) -> Cell {
        match self {
            Self::Ended(_) => Cell("-".into(), Style::Bad),
            Self::New(_) => Cell("+".into(), Style::Good),
            Self::None => Cell(String::new(), Style::Plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, expires_in: u64) -> Entry {
        Entry {
            address: address.parse().expect("an address"),
            user: None,
            users: vec!["joe".into()],
            daemon: Some("dovecot".into()),
            host: None,
            origin: None,
            since: "2026-11-18T15:06:40Z".into(),
            expires: "2026-11-18T15:36:40Z".into(),
            expires_in,
            logins: 1,
            messages: 0,
            recipients: 0,
            note: None,
            in_map: None,
        }
    }

    fn shown(list: &LiveList, rows: usize) -> Vec<String> {
        let mut output = Vec::new();
        let style = OutputStyle { colour: false, width: Some(80) };
        list.print(rows, style, &mut output).expect("a Vec takes all");
        let text = String::from_utf8(output).expect("text");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    /// Returns mark, address, and bar of each row.
    fn rows(list: &LiveList) -> Vec<String> {
        let lines = shown(list, 24);
        let short = |line: &String| {
            let bar: String = line.chars().filter(|c| "█░".contains(*c)).collect();
            format!("{} {bar}", &line[..12])
        };
        lines[2..].iter().map(short).collect()
    }

    #[test]
    fn changes_are_marked_for_a_while() {
        let at = Duration::from_secs;
        let mut list = LiveList::default();
        list.update(at(0), vec![entry("192.0.2.1", 1800), entry("192.0.2.2", 900)]);
        assert_eq!(rows(&list), ["   192.0.2.1 ██████████", "   192.0.2.2 █████░░░░░"]);
        list.update(at(1), vec![entry("192.0.2.1", 1799), entry("192.0.2.3", 1800)]);
        let marked =
            ["-  192.0.2.2 ░░░░░░░░░░", "+  192.0.2.3 ██████████", "   192.0.2.1 ██████████"];
        assert_eq!(rows(&list), marked);
        assert!(shown(&list, 24)[2].contains("15m 0s ago"), "since when is not forgotten");
        list.update(at(10), vec![entry("192.0.2.1", 1), entry("192.0.2.3", 1791)]);
        assert_eq!(rows(&list)[..2], marked[..2]);
        assert_eq!(rows(&list)[2], "   192.0.2.1 █░░░░░░░░░");
        list.update(at(11), vec![entry("192.0.2.2", 1800), entry("192.0.2.3", 1790)]);
        assert_eq!(
            rows(&list),
            ["-  192.0.2.1 ░░░░░░░░░░", "+  192.0.2.2 ██████████", "   192.0.2.3 ██████████"],
            "one that returns is new"
        );
    }

    #[test]
    fn more_rows_than_the_terminal_has_are_counted() {
        let mut list = LiveList::default();
        let many = (1..=30).map(|last| entry(&format!("192.0.2.{last}"), 1800)).collect();
        list.update(Duration::ZERO, many);
        let lines = shown(&list, 10);
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "30 authorised; + new, - ended; Ctrl-C ends");
        assert_eq!(lines[9], "and 23 more");
        assert_eq!(shown(&list, 32).len(), 32);
        assert!(!shown(&list, 1).is_empty());
    }
}
