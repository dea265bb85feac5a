//! `test`: what the daemon would make of each input, without doing it.
//!
//! Promise  the engine itself hears the inputs, in order, with the rules that `run` would have.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;

use serde::Serialize;

use crate::engine::Engine;
use crate::engine::heard::{Heard, Verdict};
use crate::engine::streams::Source;
use crate::engine::time::Time;

/// How inputs are separated and answers printed.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The byte that ends an input.
    pub end: u8,
    /// Whether answers are JSON.
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

/// Hears every input and prints what it is. Whether a login was among them.
///
/// # Errors
/// An input cannot be read, or an answer not written.
pub fn run(
    engine: &mut Engine,
    mut input: impl BufRead,
    mut output: impl Write,
    format: Format,
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
        let heard = engine.hear(Time::default(), Source::default(), &frame);
        found |= heard.verdict == Verdict::Login;
        if format.json {
            serde_json::to_writer(&mut output, &Line::of(n, &heard))?;
            writeln!(output)?;
        } else {
            tell(n, &heard, &frame, &mut output)?;
        }
    }
    output.flush()?;
    Ok(found)
}

impl<'a> Line<'a> {
    fn of(n: u64, heard: &'a Heard) -> Self {
        Self {
            n,
            verdict: heard.verdict.as_str(),
            daemon: heard.daemon.as_deref(),
            address: heard.address,
            user: heard.user.as_deref(),
            reason: heard.reason.to_string(),
        }
    }
}

/// `12 login    192.0.2.7 joe (dovecot): why`, and the input below it.
fn tell(n: u64, heard: &Heard, frame: &[u8], output: &mut impl Write) -> io::Result<()> {
    let verdict = heard.verdict.as_str();
    match (heard.address, &heard.user, &heard.daemon) {
        (None, None, None) => write!(output, "{n:>5} {verdict}")?,
        _ => write!(output, "{n:>5} {verdict:<8}")?,
    }
    if let Some(address) = heard.address {
        write!(output, " {address}")?;
    }
    if let Some(user) = &heard.user {
        write!(output, " {user}")?;
    }
    if let Some(daemon) = &heard.daemon {
        write!(output, " ({daemon})")?;
    }
    writeln!(output, ": {}", heard.reason)?;
    let shown = String::from_utf8_lossy(frame);
    let shown = shown.replace(|c: char| c.is_control() && c != '\t', "?");
    writeln!(output, "      | {shown}")
}
