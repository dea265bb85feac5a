//! The daemon's log, on standard error.
//!
//! Promise  whoever logs never waits: a thread of its own writes. If nobody reads, lines are
//!          dropped and counted, and when it flows again the log says how many. At the end what
//!          is queued is written, unless that takes longer than `FAREWELL`.
//! Forms    text for people; JSON, one object a line; for the journal `<N>` before each line, the
//!          syslog priority (sd-daemon(3)), without a time, for the journal has its own.
//! Limits   `ROOM` bytes wait, and as many again are being written.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::mem;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, error};
use tracing_subscriber::fmt::MakeWriter;

use super::terminal::OutputStyle;
use crate::error::Failure;

/// How much is logged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line with time and level.
    Text,
    /// One JSON object a line.
    Json,
    /// A line after its syslog priority (sd-daemon(3)).
    Journald,
}

/// Some seconds of a busy host at level debug, and nothing to a machine of today.
const ROOM: usize = 1 << 20;
/// A reader that is there takes what is queued in far less time.
const FAREWELL: Duration = Duration::from_secs(1);
/// Where standard error does not wait by itself (`O_NONBLOCK`, set by another program that shares
/// it), it is tried again after this.
const PAUSE: Duration = Duration::from_millis(20);

/// The log, from its start to the end of the process. The default is one that was not started.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Queue>);

impl Log {
    /// Sends everything that is logged from now on, and panics too, to standard error. To be
    /// called once. Without a format: that of the journal if standard error is the journal, else
    /// text.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn start(level: LogLevel, format: Option<LogFormat>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io(format!("cannot start the log: {error}"));
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().map_err(failed)?);
        let colour = stderr.is_terminal() && OutputStyle::of(&stderr).colour;
        let format = format.unwrap_or_else(|| match is_journal(&stderr) {
            true => LogFormat::Journald,
            false => LogFormat::Text,
        });
        let queue = Arc::new(Queue::default());
        let log = Self(Arc::clone(&queue));
        let writer = thread::Builder::new().name("log".into());
        writer.spawn(move || queue.write_on(&stderr)).map_err(failed)?;
        let lines = Lines { queue: Arc::clone(&log.0), prefixed: format == LogFormat::Journald };
        let base = tracing_subscriber::fmt()
            .with_max_level(filter(level))
            .with_target(false)
            .with_ansi(colour)
            .with_writer(lines);
        match format {
            LogFormat::Text => base.init(),
            LogFormat::Json => base.json().flatten_event(true).init(),
            LogFormat::Journald => base.without_time().with_level(false).init(),
        }
        std::panic::set_hook(Box::new(|panic| error!("a bug of this program: {panic}")));
        Ok(log)
    }

    /// How many lines have been dropped because nobody read them in time.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Waits until what is queued is written, for `FAREWELL` at most.
    pub fn flush(&self) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), FAREWELL, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Whether this is the stream that systemd has connected to the journal: `JOURNAL_STREAM` is its
/// device and inode (systemd.exec(5)).
fn is_journal(stderr: &File) -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stderr.metadata().is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines.
    text: Vec<u8>,
    /// Whether other lines are being written.
    writing: bool,
    /// Lines that were dropped, ever.
    lost: u64,
    /// Those of them that the log has not told of.
    untold: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is done under the lock that could leave half a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, prefix: &str, event: &[u8]) {
        let lines = event.split_inclusive(|byte| *byte == b'\n');
        let mut waiting = self.lock();
        if waiting.text.len() + event.len() > ROOM {
            let dropped = lines.count() as u64;
            waiting.lost += dropped;
            waiting.untold += dropped;
            return;
        }
        for line in lines {
            waiting.text.extend_from_slice(prefix.as_bytes());
            waiting.text.extend_from_slice(line);
        }
        self.changed.notify_all();
    }

    fn write_on(&self, stderr: &File) {
        // While nothing can be written, a word about it would only be lost too.
        let mut flows = true;
        loop {
            let idle = |waiting: &mut Waiting| waiting.text.is_empty();
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            let text = mem::take(&mut waiting.text);
            let told = if flows { mem::take(&mut waiting.untold) } else { 0 };
            waiting.writing = true;
            drop(waiting);
            if told > 0 {
                // The queue is empty now: it has room for this.
                error!(lines = told, "lines of this log are lost: they were not read in time");
            }
            let dropped = write(stderr, &text);
            flows = dropped == 0;
            let mut waiting = self.lock();
            waiting.writing = false;
            waiting.lost += dropped;
            waiting.untold += dropped + if flows { 0 } else { told };
            drop(waiting);
            self.changed.notify_all();
        }
    }
}

/// Writes it all, however long that takes, and tells how many lines could not be written.
fn write(mut stderr: &File, mut text: &[u8]) -> u64 {
    while !text.is_empty() {
        match stderr.write(text) {
            Ok(0) => break,
            Ok(written) => text = &text[written..],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                _ => break,
            },
        }
    }
    text.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Makes a writer for each event.
struct Lines {
    queue: Arc<Queue>,
    prefixed: bool,
}

impl<'q> MakeWriter<'q> for Lines {
    type Writer = LogLine<'q>;

    fn make_writer(&'q self) -> LogLine<'q> {
        LogLine { queue: &self.queue, prefix: "" }
    }

    fn make_writer_for(&'q self, meta: &Metadata<'_>) -> LogLine<'q> {
        let prefix = match *meta.level() {
            _ if !self.prefixed => "",
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        };
        LogLine { queue: &self.queue, prefix }
    }
}

/// One event. It comes in one piece.
struct LogLine<'q> {
    queue: &'q Queue,
    prefix: &'static str,
}

impl Write for LogLine<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.queue.put(self.prefix, event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_by_lines() {
        let queue = Queue::default();
        queue.put("<6>", b"one\n  hint: two\n");
        assert_eq!(queue.lock().text, b"<6>one\n<6>  hint: two\n");
        queue.put("", &[b'x'; ROOM]);
        assert_eq!(queue.lock().lost, 1);
        queue.put("", &[b'\n'; ROOM]);
        assert_eq!(queue.lock().lost, 1 + ROOM as u64);
        queue.put("", b"three\n");
        assert!(queue.lock().text.ends_with(b"three\n"));
    }

    #[test]
    fn what_cannot_be_written_is_counted_by_lines() {
        let closed = File::open("/dev/null").expect("a file that takes nothing");
        assert_eq!(write(&closed, b"one\ntwo\n"), 2);
        let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        assert_eq!(write(&full, b"one\n"), 1);
        let open = File::options().write(true).open("/dev/null").expect("a file that takes all");
        assert_eq!(write(&open, b"one\n"), 0);
    }
}
