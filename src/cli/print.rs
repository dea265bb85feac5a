//! Answers for eyes and for scripts.

use std::io::{self, Write};

use serde_json::json;

use crate::control::Entry;
use crate::engine::daemons::Daemon;
use crate::error::Failure;
use crate::publisher::STOPPED;
use crate::status::Status;

/// Sample logins shown for each mail daemon; `daemons NAME` shows all.
const SAMPLES: usize = 3;
/// Samples are cut here: some show what happens to a line that is far too long.
const SAMPLE_WIDTH: usize = 160;

fn json_line(value: &impl serde::Serialize, mut output: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut output, value)?;
    writeln!(output)
}

/// Rows under a head, each column as wide as its widest field.
fn table(head: &[&str], rows: &[Vec<String>], mut output: impl Write) -> io::Result<()> {
    let width = |column: usize| {
        let fields = rows.iter().map(|row| row[column].chars().count());
        fields.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let fields = row.iter().zip(&widths).map(|(field, &width)| format!("{field:<width$}"));
        let line = fields.collect::<Vec<_>>().join("  ");
        writeln!(output, "{}", line.trim_end())?;
    }
    Ok(())
}

fn left(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

fn or_dash(field: Option<&String>) -> String {
    field.cloned().unwrap_or_else(|| "-".into())
}

/// `list`.
pub fn entries(entries: &[Entry], as_json: bool, mut output: impl Write) -> io::Result<()> {
    if as_json {
        return json_line(&entries, output);
    }
    if entries.is_empty() {
        return writeln!(output, "nobody is authorised");
    }
    let row = |entry: &Entry| {
        let by = entry.daemon.clone().unwrap_or_else(|| "by hand".into());
        vec![
            entry.address.to_string(),
            or_dash(Some(entry.users.join(", ")).filter(|users| !users.is_empty()).as_ref()),
            by,
            or_dash(entry.host.as_ref()),
            entry.since.clone(),
            left(entry.expires_in),
            entry.logins.to_string(),
            entry.note.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let head = ["ADDRESS", "USERS", "DAEMON", "HOST", "SINCE", "LEFT", "LOGINS", "NOTE"];
    table(&head, &rows, output)
}

/// `query` and `allow`.
pub fn entry(entry: &Entry, mut output: impl Write) -> io::Result<()> {
    let by = entry.daemon.as_deref().unwrap_or("by hand");
    let who: Vec<&str> = entry.users.iter().map(String::as_str).chain([by]).collect();
    let who = who.join(", ");
    let (address, expires) = (entry.address, &entry.expires);
    writeln!(output, "{address} is authorised ({who}) until {expires}, {}", left(entry.expires_in))
}

/// `daemons`.
pub fn daemons(daemons: &[Daemon], as_json: bool, mut output: impl Write) -> io::Result<()> {
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

/// The lines of each example that shows a login.
fn samples(daemon: &Daemon) -> impl Iterator<Item = &Vec<String>> {
    daemon.examples.iter().filter(|example| example.is_login()).map(|example| &example.lines)
}

/// `daemons NAME`.
pub fn daemon(daemon: &Daemon, as_json: bool, mut output: impl Write) -> io::Result<()> {
    if as_json {
        json_line(&daemon_json(daemon), output)
    } else {
        write!(output, "{}", daemon.text)
    }
}

fn daemon_json(daemon: &Daemon) -> serde_json::Value {
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

/// `check --json`.
pub fn faults(faults: &[Failure], output: impl Write) -> io::Result<()> {
    let fault = |f: &Failure| json!({ "fault": f.what(), "hint": f.hint_text() });
    let list: Vec<_> = faults.iter().map(fault).collect();
    json_line(&json!({ "ok": list.is_empty(), "faults": list }), output)
}

/// What one of `Status::counts` counts.
fn what_is_counted(name: &str) -> &str {
    match name {
        "malformed" => "not syslog",
        "other_programs" => "from other programs",
        "excluded" => "logins from excluded addresses",
        "blocked" => "logins from blocked addresses",
        "refused" => "logins not believed",
        "overloaded" => "logins not heard for lack of room",
        "granted" => "times an address became authorised",
        "expired" => "times its time was up",
        "evicted" => "times it made room for another (--max-clients)",
        "shared" => "times too many users shared it (--max-users-per-address)",
        other => other,
    }
}

/// `status`.
pub fn status(status: &Status, as_json: bool, mut output: impl Write) -> io::Result<()> {
    if as_json {
        return json_line(status, output);
    }
    let never = || "never".to_owned();
    writeln!(output, "pop-before-smtp {}, started {}", status.version, status.started)?;
    writeln!(output, "clients     {}", status.clients)?;
    let last = status.last_login.clone().unwrap_or_else(never);
    writeln!(output, "logins      {}, last {last}", status.logins)?;
    writeln!(output, "frames      {}", status.frames)?;
    let counts = status.counts.iter().filter(|(_, count)| **count > 0);
    for (name, count) in counts {
        writeln!(output, "            {count} {}", what_is_counted(name))?;
    }
    for listener in &status.listeners {
        let drops = [
            (listener.strangers, "from strangers"),
            (listener.oversized, "oversized"),
            (listener.kernel_drops, "dropped by the kernel"),
        ];
        let drops = drops.iter().filter(|(count, _)| *count > 0);
        let drops: String = drops.map(|(count, what)| format!(", {count} {what}")).collect();
        writeln!(output, "listener    {}: {} frames{drops}", listener.name, listener.frames)?;
    }
    for lookup in &status.lookups {
        let (admitted, connections) = (lookup.admitted, lookup.connections);
        let troubles =
            [(lookup.rejected, "senders rejected"), (lookup.broken, "connections broken")];
        let troubles = troubles.iter().filter(|(count, _)| *count > 0);
        let troubles: String = troubles.map(|(count, what)| format!(", {count} {what}")).collect();
        writeln!(
            output,
            "lookups     {}: {} requests, {admitted} admitted{troubles}; {connections} connections",
            lookup.name, lookup.requests
        )?;
    }
    for shared in &status.shared {
        writeln!(output, "shared      {}: {} users, not authorised", shared.address, shared.users)?;
    }
    for (name, daemon) in &status.daemons {
        let last = daemon.last_login.clone().unwrap_or_else(never);
        let (logins, unmatched) = (daemon.logins, daemon.unmatched);
        writeln!(
            output,
            "daemon      {name}: {logins} logins, last {last}; {unmatched} messages unmatched"
        )?;
        if daemon.stopped {
            writeln!(output, "            NO LOGIN FOR LONG although it logs: {STOPPED}")?;
        }
    }
    let map = &status.map;
    if let Some(name) = &map.table {
        let state = match (map.failures, map.pending) {
            (0, false) => "up to date".into(),
            (0, true) => "an edition is due".into(),
            (failures, _) => format!("NOT UP TO DATE, {failures} attempts have failed"),
        };
        writeln!(output, "map         {name}: edition {}, {state}", map.published)?;
    }
    if map.kept_out > 0 {
        writeln!(
            output,
            "            kept out: {} with `::` (--map-inexact-ipv6 publishes them)",
            map.kept_out
        )?;
    }
    Ok(())
}
