//! Output of the commands, for people and for scripts.
//!
//! - **Promise**: foreign text is printed with its control characters escaped, except in JSON, which
//!   has its own escapes. Only a terminal gets colours and shortened names.

pub mod live;
mod status;
mod table;

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::control::json;
use crate::control::protocol::{Block, Entry};
use crate::engine::maildaemons::MailDaemon;
use crate::error::Failure;
use crate::sys::terminal::{OutputStyle, Style, clean, span};
use table::{Cell, Column, Table};

pub use status::status;

/// Sample logins shown for each mail daemon; `daemons NAME` shows all.
const SAMPLES: usize = 3;
/// Samples are cut after this many characters: some test what happens to very long lines.
const SAMPLE_WIDTH: usize = 160;
/// A grant with fewer seconds left is marked: the client should check mail before sending.
const SOON: u64 = 300;

/// Prints a value as JSON on one line.
///
/// # Errors
/// The output cannot be written.
pub fn json_line(value: &impl serde::Serialize, mut output: impl Write) -> io::Result<()> {
    json::write(value, &mut output)?;
    writeln!(output)?;
    output.flush()
}

/// Parses a time of an answer, as the time since 1970.
fn moment(rfc3339: &str) -> Option<Duration> {
    humantime::parse_rfc3339(rfc3339).ok()?.duration_since(UNIX_EPOCH).ok()
}

/// Returns how long ago a time was.
fn ago(now: Option<Duration>, moment: Option<Duration>) -> Option<String> {
    Some(span(now?.saturating_sub(moment?).as_secs()))
}

/// Prints the table of `list`.
pub fn entries(entries: &[Entry], style: OutputStyle, mut output: impl Write) -> io::Result<()> {
    if entries.is_empty() {
        return writeln!(output, "nobody is authorised");
    }
    let mut table = Table::new(&COLUMNS);
    entries.iter().for_each(|entry| table.add(row(entry)));
    table.print(style, output)
}

/// The columns of `list`.
const COLUMNS: [Column; 11] = [
    Column::left("ADDRESS"),
    Column::cut("USERS"),
    Column::cut("DAEMON"),
    Column::cut("HOST").optional(0),
    Column::cut("VIA").optional(1).rare(),
    Column::right("SINCE").optional(2),
    Column::right("LEFT"),
    Column::right("LOGINS").optional(3),
    Column::right("MESSAGES").optional(5),
    Column::right("RCPTS").optional(4),
    Column::cut("NOTE").optional(6),
];

/// Returns the cells of an entry for these columns.
fn row(entry: &Entry) -> Vec<Cell> {
    let now =
        moment(&entry.expires).map(|end| end.saturating_sub(Duration::from_secs(entry.expires_in)));
    let users: Vec<String> = entry.users.iter().map(|user| clean(user)).collect();
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    let (by, tint) = match &entry.daemon {
        Some(daemon) => (clean(daemon), Style::Plain),
        None => ("manual".into(), Style::Odd),
    };
    let since = ago(now, moment(&entry.since));
    let since = since.map_or_else(|| entry.since.clone(), |span| format!("{span} ago"));
    let relayed = entry.recipients > 0;
    vec![
        entry.address.to_string().into(),
        or_dash(users.join(", ")).into(),
        Cell(by, tint),
        or_dash(entry.host.as_deref().map(clean).unwrap_or_default()).into(),
        or_dash(entry.origin.as_deref().map(clean).unwrap_or_default()).into(),
        since.into(),
        Cell(span(entry.expires_in), left_style(entry)),
        entry.logins.to_string().into(),
        // Without the policy protocol nothing is counted.
        or_dash(if relayed { entry.messages.to_string() } else { String::new() }).into(),
        or_dash(if relayed { entry.recipients.to_string() } else { String::new() }).into(),
        note(entry),
    ]
}

fn left_style(entry: &Entry) -> Style {
    if entry.expires_in < SOON { Style::Odd } else { Style::Good }
}

fn note(entry: &Entry) -> Cell {
    let note = entry.note.as_deref().map(clean);
    match (entry.in_map, note) {
        (Some(false), None) => Cell("not in the map".into(), Style::Odd),
        (Some(false), Some(note)) => Cell(format!("not in the map; {note}"), Style::Odd),
        (_, note) => note.unwrap_or_default().into(),
    }
}

/// Prints the addresses that are blocked.
///
/// # Errors
/// The output cannot be written.
pub fn blocks(blocks: &[Block], style: OutputStyle, output: impl Write) -> io::Result<()> {
    let mut table =
        Table::new(&[Column::left("BLOCKED"), Column::right("LEFT"), Column::left("UNTIL")]);
    for block in blocks {
        let left = span(block.ends_in);
        table.add(vec![block.address.to_string().into(), left.into(), block.until.clone().into()]);
    }
    table.print(style, output)
}

/// Prints the answer to `query` and `allow`.
pub fn entry(entry: &Entry, mut output: impl Write) -> io::Result<()> {
    let by = entry.daemon.as_deref().unwrap_or("manual");
    let who: Vec<String> = entry.users.iter().map(String::as_str).chain([by]).map(clean).collect();
    let via = entry.origin.as_deref().map(|host| format!(", via {}", clean(host)));
    let who = who.join(", ") + &via.unwrap_or_default();
    let (address, expires) = (entry.address, &entry.expires);
    writeln!(output, "{address} is authorised ({who}) until {expires}, {}", span(entry.expires_in))
}

/// Prints the answer to `daemons`.
pub fn daemons(daemons: &[MailDaemon], as_json: bool, mut output: impl Write) -> io::Result<()> {
    if as_json {
        return json_line(&daemons.iter().map(daemon_json).collect::<Vec<_>>(), output);
    }
    for daemon in daemons {
        let verified = if daemon.verified { "" } else { " (unverified: off unless named)" };
        writeln!(output, "{}: {} {}{verified}", daemon.name, daemon.title, daemon.versions)?;
        writeln!(output, "    programs: {}", daemon.programs.join(" "))?;
        if let Some(note) = &daemon.note {
            writeln!(output, "    {}", note.trim().replace('\n', "\n    "))?;
        }
        for line in samples(daemon).take(SAMPLES).flatten() {
            let cut: String = line.chars().filter(|c| !c.is_control()).take(SAMPLE_WIDTH).collect();
            writeln!(output, "    | {cut}")?;
        }
    }
    Ok(())
}

/// Returns the lines of each example that shows a login.
fn samples(daemon: &MailDaemon) -> impl Iterator<Item = &Vec<String>> {
    daemon.examples.iter().filter(|example| example.is_login()).map(|example| &example.lines)
}

/// Prints the answer to `daemons NAME`.
pub fn daemon(daemon: &MailDaemon, as_json: bool, mut output: impl Write) -> io::Result<()> {
    if as_json {
        json_line(&daemon_json(daemon), output)
    } else {
        write!(output, "{}", daemon.text)
    }
}

fn daemon_json(daemon: &MailDaemon) -> serde_json::Value {
    json!({
        "name": &*daemon.name,
        "title": daemon.title,
        "versions": daemon.versions,
        "verified": daemon.verified,
        "programs": daemon.programs,
        "note": daemon.note,
        "file": daemon.origin,
        "samples": samples(daemon).collect::<Vec<_>>(),
    })
}

/// Prints the answer to `check --json`. `logins` says which logins authorise, if not all do.
pub fn faults(
    faults: &[Failure],
    warnings: &[String],
    logins: &[String],
    output: impl Write,
) -> io::Result<()> {
    let fault = |f: &Failure| json!({ "fault": f.what(), "hint": f.hint_text() });
    let list: Vec<_> = faults.iter().map(fault).collect();
    let mut found = json!({ "ok": list.is_empty(), "faults": list, "warnings": warnings });
    if !logins.is_empty() {
        found["logins"] = json!(logins);
    }
    json_line(&found, output)
}
