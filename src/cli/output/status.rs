//! The output of `status`: first what matters, with problems in capitals, then tables.

use std::io::{self, Write};
use std::time::Duration;

use super::table::{Cell, Column, Table};
use super::{ago, json_line, moment};
use crate::control::status::{ClusterStatus, MapStatus, RelayStatus, STOPPED, StateFault, Status};
use crate::sys::terminal::{OutputStyle, Style, clean};

/// Columns of the labels.
const LABEL: usize = 12;

/// Prints the answer to `status`.
///
/// # Errors
/// The output cannot be written.
pub fn status(
    status: &Status,
    as_json: bool,
    style: OutputStyle,
    mut output: impl Write,
) -> io::Result<()> {
    if as_json {
        return json_line(status, output);
    }
    let page = StatusPage { status, style, now: moment(&status.now) };
    let mut text = Vec::new();
    page.summary(&mut text)?;
    page.listeners(&mut text)?;
    page.daemons(&mut text)?;
    page.lookups(&mut text)?;
    output.write_all(&text)
}

struct StatusPage<'s> {
    status: &'s Status,
    style: OutputStyle,
    now: Option<Duration>,
}

impl StatusPage<'_> {
    fn line(&self, label: &str, text: &str, output: &mut Vec<u8>) -> io::Result<()> {
        writeln!(output, "{}{text}", self.style.paint(Style::Head, &format!("{label:LABEL$}")))
    }

    fn summary(&self, output: &mut Vec<u8>) -> io::Result<()> {
        let status = self.status;
        let title = self.style.paint(Style::Head, &format!("pop-before-smtp {}", status.version));
        let up = self.ago(&status.started);
        writeln!(output, "{title}, up {up}, since {}", status.started)?;
        self.line(
            "clients",
            &format!("{} of at most {}", status.clients, status.max_clients),
            output,
        )?;
        let last = match &status.last_login {
            Some(at) => format!("the last {} ago, at {at}", self.ago(at)),
            None => "none since the start".into(),
        };
        self.line("logins", &format!("{}, {last}", status.logins), output)?;
        self.map(&status.map, output)?;
        if let Some(fault) = &status.fault {
            self.line(
                "mail",
                &self.style.paint(Style::Bad, &format!("AFFECTED: {fault}")),
                output,
            )?;
        }
        if let Some(StateFault { seconds, error }) = &status.state_fault {
            let text = format!(
                "NOT SAVED for {seconds:.0} s: {error}; a crash would lose the latest logins"
            );
            self.line("state", &self.style.paint(Style::Bad, &text), output)?;
        }
        self.line("frames", &status.frames.to_string(), output)?;
        for (what, count) in status.counts.labelled().into_iter().filter(|(_, count)| *count > 0) {
            self.line("", &format!("{what}: {count}"), output)?;
        }
        self.relay(&status.relay, output)?;
        for shared in &status.shared {
            let text = format!("{}: {} users, not authorised", shared.address, shared.users);
            self.line("shared", &self.style.paint(Style::Odd, &text), output)?;
        }
        if let Some(cluster) = &status.cluster {
            self.cluster(cluster, output)?;
        }
        if status.log_lines_lost > 0 {
            let text = format!("dropped {} lines: stderr is not being read", status.log_lines_lost);
            self.line("log", &self.style.paint(Style::Bad, &text), output)?;
        }
        Ok(())
    }

    fn relay(&self, relay: &RelayStatus, output: &mut Vec<u8>) -> io::Result<()> {
        if relay.recipients > 0 {
            let text = format!("{} messages, {} recipients", relay.messages, relay.recipients);
            self.line("relayed", &text, output)?;
        }
        let messages = relay.messages_per_hour.map(|max| format!("{max} messages"));
        let recipients = relay.recipients_per_hour.map(|max| format!("{max} recipients"));
        let exceptions = relay.has_exceptions.then(|| "exceptions in a table".to_owned());
        let limits: Vec<_> = [messages, recipients, exceptions].into_iter().flatten().collect();
        if !limits.is_empty() {
            self.line("limits", &format!("per hour: {}", limits.join(", ")), output)?;
        }
        if relay.limited() > 0 {
            let text = format!(
                "recipients refused: {}, by the limit of messages {}, of recipients {}, too many \
                 clients {}",
                relay.limited(),
                relay.beyond_messages,
                relay.beyond_recipients,
                relay.too_many_clients
            );
            self.line("", &self.style.paint(Style::Odd, &text), output)?;
        }
        Ok(())
    }

    fn cluster(&self, cluster: &ClusterStatus, output: &mut Vec<u8>) -> io::Result<()> {
        let error = cluster.error.as_deref().map(clean).unwrap_or_default();
        let (state, tint) = match (cluster.away_seconds, error.is_empty()) {
            (Some(seconds), _) => {
                let text = format!(
                    "STORE AWAY for {seconds:.0} s: {error}; this host goes on by itself, and does not \
                     hear of logins elsewhere"
                );
                (text, Style::Bad)
            }
            (None, false) => (format!("TELLS NOTHING: {error}"), Style::Bad),
            (None, true) => {
                let store = cluster.store.as_deref().unwrap_or_default();
                let lag =
                    cluster.lag_ms.map(|lag| format!(", {lag} ms behind")).unwrap_or_default();
                (format!("connected to {store}{lag}"), Style::Good)
            }
        };
        let head = format!("{}, this host is {}", cluster.name, cluster.host);
        self.line("cluster", &format!("{head}: {}", self.style.paint(tint, &state)), output)?;
        if cluster.same_name {
            let text = format!("ANOTHER HOST IS CALLED {} TOO: set cluster-host", cluster.host);
            self.line("", &self.style.paint(Style::Bad, &text), output)?;
        }
        if cluster.untold > 0 {
            let text = format!("changes that the others have not been told of: {}", cluster.untold);
            self.line("", &self.style.paint(Style::Odd, &text), output)?;
        }
        if cluster.refused > 0 {
            let text = format!("entries of the stream that were refused: {}", cluster.refused);
            self.line("", &self.style.paint(Style::Odd, &text), output)?;
        }
        for host in &cluster.hosts {
            let text =
                format!("{}: last sign of life {} ago", host.name, self.ago(&host.last_seen));
            let tint = if host.silent { Style::Bad } else { Style::Plain };
            self.line("", &self.style.paint(tint, &text), output)?;
        }
        Ok(())
    }

    fn map(&self, map: &MapStatus, output: &mut Vec<u8>) -> io::Result<()> {
        let Some(table) = &map.table else { return Ok(()) };
        let (state, tint) = match (map.trying_seconds, map.pending) {
            (None, false) => ("up to date".into(), Style::Good),
            (None, true) => ("a new generation is due".into(), Style::Odd),
            (Some(seconds), _) => {
                let attempts = match map.failures {
                    0 => "attempt 1 running".into(),
                    1 => "1 attempt failed".into(),
                    more => format!("{more} attempts failed"),
                };
                let meanwhile = map.meanwhile();
                let text =
                    format!("OUT OF DATE ({meanwhile}); publishing for {seconds:.0} s, {attempts}");
                (text, Style::Bad)
            }
        };
        self.line("map", &format!("{table}: {}", self.style.paint(tint, &state)), output)?;
        if let Some(error) = &map.error {
            let next =
                map.next_attempt_seconds.map(|seconds| format!("next attempt in {seconds:.0} s"));
            let text = format!(
                "{}; {}",
                clean(&error.replace("\n  hint: ", "; ")),
                next.unwrap_or_else(|| "trying now".into())
            );
            self.line("", &self.style.paint(Style::Bad, &text), output)?;
        }
        if let Some(at) = &map.last_publication {
            let took = Duration::from_secs_f64(map.last_publication_seconds.unwrap_or_default());
            let text = format!(
                "generation {} published {} ago, at {at}, in {} ms; {} in total, failed attempts: {}",
                map.published,
                self.ago(at),
                took.as_millis(),
                map.publications,
                map.publication_failures
            );
            self.line("", &text, output)?;
        }
        if map.kept_out > 0 {
            let text =
                format!("{} with `::` left out (--map-inexact-ipv6 publishes them)", map.kept_out);
            self.line("", &self.style.paint(Style::Odd, &text), output)?;
        }
        Ok(())
    }

    fn listeners(&self, output: &mut Vec<u8>) -> io::Result<()> {
        let mut table = Table::new(&[
            Column::left("LISTENER"),
            Column::right("FRAMES"),
            Column::right("REJECTED"),
            Column::right("OVERSIZED"),
            Column::right("DROPPED BY KERNEL"),
            Column::right("ERRORS"),
        ]);
        for listener in &self.status.listeners {
            table.add(vec![
                listener.name.clone().into(),
                number(listener.frames, Style::Plain),
                number(listener.rejected, Style::Odd),
                number(listener.oversized, Style::Odd),
                number(listener.kernel_drops, Style::Bad),
                number(listener.errors, Style::Odd),
            ]);
        }
        self.table(&table, !self.status.listeners.is_empty(), output)
    }

    fn daemons(&self, output: &mut Vec<u8>) -> io::Result<()> {
        let mut table = Table::new(&[
            Column::left("MAIL DAEMON"),
            Column::right("LOGINS"),
            Column::right("LAST"),
            Column::left("FACILITY"),
            Column::right("UNMATCHED"),
        ]);
        for (name, daemon) in &self.status.daemons {
            let last = daemon.last_login.as_ref();
            let last = last.map_or_else(|| "never".into(), |at| format!("{} ago", self.ago(at)));
            table.add(vec![
                name.clone().into(),
                number(daemon.logins, Style::Plain),
                last.into(),
                daemon.facilities.join(" ").into(),
                number(daemon.unmatched, if daemon.stopped { Style::Bad } else { Style::Plain }),
            ]);
        }
        self.table(&table, !self.status.daemons.is_empty(), output)?;
        for (name, _) in self.status.daemons.iter().filter(|(_, daemon)| daemon.stopped) {
            let text =
                format!("{name}: NO LOGIN FOR A LONG TIME, although it still logs; {STOPPED}");
            writeln!(output, "{}", self.style.paint(Style::Bad, &text))?;
        }
        Ok(())
    }

    fn lookups(&self, output: &mut Vec<u8>) -> io::Result<()> {
        let mut table = Table::new(&[
            Column::left("POSTFIX SOCKET"),
            Column::right("REQUESTS"),
            Column::right("ADMITTED"),
            Column::right("REJECTED"),
            Column::right("CONNECTIONS"),
            Column::right("BROKEN"),
            Column::right("EVICTED"),
        ]);
        for lookup in &self.status.lookups {
            table.add(vec![
                lookup.to_string().into(),
                number(lookup.requests, Style::Plain),
                number(lookup.admitted, Style::Plain),
                number(lookup.rejected, Style::Plain),
                number(lookup.connections, Style::Plain),
                number(lookup.broken, Style::Odd),
                number(lookup.evicted, Style::Odd),
            ]);
        }
        self.table(&table, !self.status.lookups.is_empty(), output)
    }

    fn table(&self, table: &Table, has_rows: bool, output: &mut Vec<u8>) -> io::Result<()> {
        if !has_rows {
            return Ok(());
        }
        writeln!(output)?;
        table.print(self.style, output)
    }

    fn ago(&self, at: &str) -> String {
        ago(self.now, moment(at)).unwrap_or_else(|| at.to_owned())
    }
}

/// Returns a cell with a number, tinted unless it is zero.
fn number(number: u64, tint: Style) -> Cell {
    Cell(number.to_string(), if number == 0 { Style::Plain } else { tint })
}
