//! The command `test`: what the daemon would do with each input.
//!
//! - **Promise**: the engine itself processes the inputs, in order, with the rules that `run` would
//!   use. Old logins are processed as if they had arrived on time; the reason says if they would be
//!   late now.
//! - **Parts**: [`input`] reads the inputs, [`summary`] sums up what became of them.

pub mod input;
mod summary;

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::json;
use crate::engine::Engine;
use crate::engine::correlation::streams::Source;
use crate::engine::message::syslog::Frame;
use crate::engine::time::Time;
use crate::engine::verdict::{Outcome, Reason, Verdict};
use input::Inputs;
use summary::Summary;

/// Inputs between two looks at the clock.
const PROGRESS_INPUTS: u64 = 4096;
/// Between two reports of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);

/// The format of inputs and results.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// The byte that ends an input.
    pub end: u8,
    /// Whether results are printed as JSON.
    pub json: bool,
    /// Print only the summary, to the output.
    pub only_summary: bool,
    /// Print only results with these verdicts; empty: all.
    pub only: Vec<String>,
}

impl Format {
    fn shows(&self, verdict: Verdict) -> bool {
        let is_named = || self.only.iter().any(|only| only == verdict.as_str());
        !self.only_summary && (self.only.is_empty() || is_named())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    verdict: &'a str,
    daemon: Option<&'a str>,
    address: Option<IpAddr>,
    user: Option<&'a str>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
}

/// What was found.
pub struct Found {
    /// Whether there was a login.
    pub login: bool,
    summary: Summary,
}

/// Processes every input and prints the results. `now` is the current time, for the note on inputs
/// that would be late.
///
/// # Errors
/// An input cannot be read, or a result cannot be written.
pub fn run(
    engine: &mut Engine,
    input: impl BufRead,
    mut output: impl Write,
    format: &Format,
    now: Time,
) -> io::Result<Found> {
    let mut found = Found { login: false, summary: Summary::default() };
    let mut inputs = Inputs::new(input, format.end)?;
    let mut progress = Progress::new(format);
    for n in 1.. {
        if !inputs.advance()? {
            break;
        }
        let frame = inputs.frame();
        let outcome = engine.process(Time::default(), Source::default(), frame);
        found.login |= outcome.verdict == Verdict::Login;
        found.summary.add(n, &outcome, inputs.raw());
        if format.shows(outcome.verdict) {
            let reason = reason(engine, &outcome, frame, now);
            if format.json {
                json::write(&Line::of(n, &outcome, reason), &mut output)?;
                writeln!(output)?;
            } else {
                print(n, &outcome, &reason, inputs.raw(), &mut output)?;
            }
        }
        progress.report(n);
    }
    progress.clear();
    if format.only_summary {
        found.summary.print(&mut output)?;
    }
    output.flush()?;
    Ok(found)
}

impl Found {
    /// Prints the summary to stderr, if it says more than the results do.
    pub fn sum_up(&self, format: &Format) {
        let says_more = self.summary.inputs() > 1 || !format.only.is_empty();
        if says_more && !format.only_summary && !format.json {
            // Nobody reads it if stderr is closed.
            let _ = self.summary.print(io::stderr().lock());
        }
    }
}

/// How many inputs were processed, on a terminal to which no results are written.
struct Progress {
    reported: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    fn new(format: &Format) -> Self {
        let is_silent =
            format.only_summary || !format.only.is_empty() || !io::stdout().is_terminal();
        let is_wanted = is_silent && io::stderr().is_terminal();
        Self { reported: is_wanted.then(Instant::now), is_shown: false }
    }

    fn report(&mut self, n: u64) {
        let Some(reported) = &mut self.reported else { return };
        if n.is_multiple_of(PROGRESS_INPUTS) && reported.elapsed() >= PROGRESS_PAUSE {
            *reported = Instant::now();
            self.is_shown = true;
            let _ = write!(io::stderr(), "\r{n} inputs");
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Returns the reason, with the rule that has decided; for (partial) logins that would be late now,
/// with a note.
fn reason(engine: &Engine, outcome: &Outcome, frame: &[u8], now: Time) -> String {
    let reason = outcome.reason.to_string();
    if !matches!(outcome.verdict, Verdict::Login | Verdict::Partial) {
        return reason;
    }
    let usual = engine.rules().grace;
    let grace = outcome.address.map_or(Ok(usual), |address| {
        engine.rules().logins.ruling(address, outcome.user.as_deref()).grace(usual)
    });
    let grace = grace.unwrap_or(usual);
    let reason = match &outcome.rule {
        Some(rule) => format!("{reason}; {rule}: {}", humantime::format_duration(grace)),
        None => reason,
    };
    let stamp = Frame::new(frame).message().ok().and_then(|message| message.stamp);
    let age = stamp.map(|stamp| now.since(stamp)).filter(|age| *age > usual.min(grace));
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
            rule: outcome.rule.as_deref(),
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
        let format = Format { end: b'\n', json: true, ..Format::default() };
        // 2026-11-22T08:01:24Z
        let now = Time::from_millis(1_795_334_484_000);
        let found = run(&mut engine, input.as_bytes(), &mut output, &format, now);
        assert!(found.expect("it can be read").login);
        let output = String::from_utf8(output).expect("text");
        let lines: Vec<_> = output.lines().collect();
        assert!(lines[0].contains(r#""verdict":"login""#), "{output}");
        let late = "; if it arrived now: refused: the message is dated 30 min ago, ";
        let noted: Vec<_> = lines.iter().map(|line| line.contains(late)).collect();
        assert_eq!(noted, [true, false, false], "{output}");
    }

    #[test]
    fn a_summary_has_verdicts_daemons_and_samples_of_each_reason() {
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        let mut engine = Engine::new(Rules { table, ..Rules::default() });
        let login = "Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
                     rip=192.0.2.7, lip=192.0.2.1, mpid=7, session=<a>";
        let other = "Nov 22 07:31:23 mx1 postfix/smtpd[7]: connect from a\x1b[1m";
        let unknown = login.replace("method", "how");
        let input = [login, other, other, other, other, &unknown].join("\n");
        let mut output = Vec::new();
        let format = Format { end: b'\n', only_summary: true, ..Format::default() };
        run(&mut engine, input.as_bytes(), &mut output, &format, Time::default())
            .expect("it can be read");
        let output = String::from_utf8(output).expect("text");
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines[0], "6 inputs: 1 login, 5 none");
        assert_eq!(lines[1], "  dovecot: 1 login, 1 none");
        assert!(lines[2].starts_with("     1 x LOST LOGINS: dovecot: it looks like a login"));
        assert_eq!(lines[3], format!("         6: {}", &unknown[..unknown.len().min(160)]));
        assert!(lines[4].starts_with("     4 x no selected mail daemon"), "{output}");
        assert!(lines[5..8].iter().all(|line| line.ends_with("a\\u{1b}[1m")), "{output}");
        assert!(lines[8].starts_with("     1 x dovecot: a login pattern"), "{output}");
        // Only some verdicts.
        let only = Format { end: b'\n', only: vec!["login".into()], ..Format::default() };
        let mut output = Vec::new();
        run(&mut engine, input.as_bytes(), &mut output, &only, Time::default()).expect("read");
        let output = String::from_utf8(output).expect("text");
        assert_eq!(output.lines().count(), 2, "{output}");
    }
}
