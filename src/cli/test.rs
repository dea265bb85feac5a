//! The command `test`: what the daemon would do with each input.
//!
//! - **Promise**: the engine itself processes the inputs, in order, with the rules that `run` would
//!   use. Old logins are processed as if they had arrived on time; the reason says if they would be
//!   late now.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;

use serde::Serialize;

use crate::engine::Engine;
use crate::engine::correlation::streams::Source;
use crate::engine::message::syslog::Frame;
use crate::engine::time::Time;
use crate::engine::verdict::{Outcome, Reason, Verdict};

/// The format of inputs and results.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The byte that ends an input.
    pub end: u8,
    /// Whether results are printed as JSON.
    pub json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    verdict: &'a str,
    daemon: Option<&'a str>,
    address: Option<IpAddr>,
    user: Option<&'a str>,
    reason: String,
}

/// Processes every input and prints the result. Returns whether there was a login. `now` is the
/// current time, for the note on inputs that would be late.
///
/// # Errors
/// An input cannot be read, or a result cannot be written.
pub fn run(
    engine: &mut Engine,
    mut input: impl BufRead,
    mut output: impl Write,
    format: Format,
    now: Time,
) -> io::Result<bool> {
    let mut found = false;
    let mut frame = Vec::new();
    for n in 1.. {
        frame.clear();
        if input.read_until(format.end, &mut frame)? == 0 {
            break;
        }
        if frame.last() == Some(&format.end) {
            frame.pop();
        }
        let outcome = engine.process(Time::default(), Source::default(), &frame);
        found |= outcome.verdict == Verdict::Login;
        let reason = reason(engine, &outcome, &frame, now);
        if format.json {
            serde_json::to_writer(&mut output, &Line::of(n, &outcome, reason))?;
            writeln!(output)?;
        } else {
            print(n, &outcome, &reason, &frame, &mut output)?;
        }
    }
    output.flush()?;
    Ok(found)
}

/// Returns the reason; for (partial) logins that would be late now, with a note.
fn reason(engine: &Engine, outcome: &Outcome, frame: &[u8], now: Time) -> String {
    let reason = outcome.reason.to_string();
    if !matches!(outcome.verdict, Verdict::Login | Verdict::Partial) {
        return reason;
    }
    let stamp = Frame::new(frame).message().ok().and_then(|message| message.stamp);
    let age = stamp.map(|stamp| now.since(stamp)).filter(|age| *age > engine.rules().grace);
    match age {
        Some(age) => format!("{reason}; if it arrived now: {}", Reason::Late(age)),
        None => reason,
    }
}

impl<'a> Line<'a> {
    fn of(n: u64, outcome: &'a Outcome, reason: String) -> Self {
        Self {
            n,
            verdict: outcome.verdict.as_str(),
            daemon: outcome.daemon.as_deref(),
            address: outcome.address,
            user: outcome.user.as_deref(),
            reason,
        }
    }
}

/// Prints `12 login    192.0.2.7 joe (dovecot): reason`, and the input below.
fn print(
    n: u64,
    outcome: &Outcome,
    reason: &str,
    frame: &[u8],
    output: &mut impl Write,
) -> io::Result<()> {
    let verdict = outcome.verdict.as_str();
    match (outcome.address, &outcome.user, &outcome.daemon) {
        (None, None, None) => write!(output, "{n:>5} {verdict}")?,
        _ => write!(output, "{n:>5} {verdict:<8}")?,
    }
    if let Some(address) = outcome.address {
        write!(output, " {address}")?;
    }
    if let Some(user) = &outcome.user {
        write!(output, " {user}")?;
    }
    if let Some(daemon) = &outcome.daemon {
        write!(output, " ({daemon})")?;
    }
    writeln!(output, ": {reason}")?;
    let shown = String::from_utf8_lossy(frame);
    let shown = shown.replace(|c: char| c.is_control() && c != '\t', "?");
    writeln!(output, "      | {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Rules;
    use crate::engine::maildaemons::{DaemonTable, Selection};

    #[test]
    fn an_old_login_counts_with_a_note() {
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        let mut engine = Engine::new(Rules { table, ..Rules::default() });
        let line = |stamp: &str, rip: &str| {
            format!(
                "<22>1 {stamp} mx1 dovecot - - - imap-login: Login: user=<joe>, method=PLAIN, \
                 rip={rip}, lip=192.0.2.1, mpid=7, session=<a>\n"
            )
        };
        let old = line("2026-11-22T07:31:23Z", "192.0.2.7");
        let input = old.clone() + &line("-", "192.0.2.8") + &old.replace("Login:", "Out:");
        let mut output = Vec::new();
        let format = Format { end: b'\n', json: true };
        // 2026-11-22T08:01:24Z
        let now = Time::from_millis(1_795_334_484_000);
        let found = run(&mut engine, input.as_bytes(), &mut output, format, now);
        assert!(found.expect("it can be read"));
        let output = String::from_utf8(output).expect("text");
        let lines: Vec<_> = output.lines().collect();
        assert!(lines[0].contains(r#""verdict":"login""#), "{output}");
        let late = "; if it arrived now: refused: the message is dated 30 min ago, ";
        let noted: Vec<_> = lines.iter().map(|line| line.contains(late)).collect();
        assert_eq!(noted, [true, false, false], "{output}");
    }
}
