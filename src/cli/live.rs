//! `list --watch` and `status --watch`: repainted in place until Ctrl-C.
//!
//! - **Promise**: only on a terminal, with plain ANSI sequences (ECMA-48); the cursor is visible again
//!   at the end. It follows the size of the terminal. While the daemon cannot be reached, it says so
//!   and goes on.

use std::io::{self, IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::args::{Cli, ControlArgs};
use super::output::live::LiveList;
use super::{CommandResult, output, runtime};
use crate::control::client;
use crate::control::protocol::{Answer, Entry, Request};
use crate::error::{Failure, Failures};
use crate::sys::blocking::blocking;
use crate::sys::terminal::{OutputStyle, Style, rows};

/// Time between two paintings; the time left is shown in seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Hides the cursor, does not wrap long lines, clears the screen.
const BEGIN: &str = "\x1b[?25l\x1b[?7l\x1b[2J";
/// Takes that back.
const END: &str = "\x1b[?7h\x1b[?25h\n";

/// Puts the terminal back however the command ends.
struct Screen;

impl Screen {
    fn begin() -> io::Result<Self> {
        let screen = Self;
        stdout().lock().write_all(BEGIN.as_bytes())?;
        Ok(screen)
    }

    /// Paints over what is shown.
    fn paint(&self, text: &[u8], rows: usize) -> io::Result<()> {
        let mut output = b"\x1b[H".to_vec();
        // A newline after the last row would scroll.
        for (row, line) in text.split(|byte| *byte == b'\n').take(rows).enumerate() {
            output.extend_from_slice(if row > 0 { b"\r\n" } else { b"" });
            output.extend_from_slice(line);
            output.extend_from_slice(b"\x1b[K");
        }
        output.extend_from_slice(b"\x1b[J");
        let mut stdout = stdout().lock();
        stdout.write_all(&output)?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = stdout().lock().write_all(END.as_bytes());
    }
}

/// Shows the authorised addresses until Ctrl-C.
pub(super) fn list(control: &ControlArgs) -> CommandResult {
    let (control, read_only) = control.sockets();
    let (mut live, begun) = (LiveList::default(), Instant::now());
    repaint(
        move || client::list(&control, read_only.as_deref()),
        |entries: Vec<Entry>, rows, style, text| {
            live.update(begun.elapsed(), entries);
            live.print(rows, style, text)
        },
    )
}

/// Shows the daemon's status until Ctrl-C.
pub(super) fn status(control: &ControlArgs) -> CommandResult {
    let (control, read_only) = control.sockets();
    repaint(
        move || match client::ask(&control, read_only.as_deref(), &Request::Status)? {
            Answer::Status(status) => Ok(status),
            other => Err(client::unexpected_answer(&other)),
        },
        |status, _, style, text| output::status(&status, false, style, text),
    )
}

/// Asks the daemon and paints its answer, again and again.
fn repaint<A: Send + 'static>(
    ask: impl Fn() -> Result<A, Failure> + Clone + Send + 'static,
    mut print: impl FnMut(A, usize, OutputStyle, &mut Vec<u8>) -> io::Result<()>,
) -> CommandResult {
    if !stdout().is_terminal() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
        let what = "--watch needs a terminal; without it the output is printed once, and \
                    `pop-before-smtp watch` prints what changes as JSON lines";
        Cli::command().error(ErrorKind::ArgumentConflict, what).exit();
    }
    // Before anything is painted, so that a fault is a message like any other.
    let first = ask()?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let signal = |kind| signal(kind).map_err(unusable);
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (mut hangup, mut resized) =
            (signal(SignalKind::hangup())?, signal(SignalKind::window_change())?);
        let screen = Screen::begin().map_err(unusable)?;
        let paint_again_and_again = async {
            let (mut answer, mut text) = (Ok(first), Vec::new());
            loop {
                let (rows, style) = (rows(&stdout()), OutputStyle::of(&stdout()));
                let mut fault = String::new();
                match answer {
                    Ok(answer) => {
                        text.clear();
                        print(answer, rows, style, &mut text).map_err(unusable)?;
                    }
                    Err(failure) => {
                        let what = format!("{}; trying again", Failure::what(&failure));
                        fault = style.paint(Style::Bad, &what) + "\n";
                    }
                }
                screen.paint(&[fault.as_bytes(), &text].concat(), rows).map_err(unusable)?;
                tokio::select! {
                    _ = resized.recv() => {}
                    () = sleep(INTERVAL) => {}
                }
                answer = blocking(ask.clone()).await;
            }
        };
        tokio::select! {
            outcome = paint_again_and_again => outcome,
            _ = interrupt.recv() => Ok(true),
            _ = terminate.recv() => Ok(true),
            _ = hangup.recv() => Ok(true),
        }
    });
    // A thread may still wait for the daemon.
    runtime.shutdown_background();
    outcome
}

fn unusable(error: io::Error) -> Failures {
    Failure::io(format!("cannot use the terminal: {error}")).into()
}
