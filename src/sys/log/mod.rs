//! The daemon's log, on standard error.
//!
//! - **Promise**: logging never blocks: a thread of its own writes. If the log is not read, lines
//!   are dropped and counted, and the log reports the number once it is read again. At the end the
//!   queue is written, within `FLUSH_TIMEOUT`.
//! - **Formats**: text for people; JSON, one object a line; for the journal no time, because it adds
//!   its own: if stderr is the journal, in its own protocol with fields (`journal`), otherwise the
//!   syslog priority `<N>` before each line (sd-daemon(3)).
//! - **Limits**: `QUEUE_SIZE` bytes wait, and as many again are being written.

mod journal;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::mem;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, error};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::terminal::OutputStyle;
use crate::error::{Failure, end_after_panic};
use journal::{JournalLayer, JournalSocket};

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names are clear")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line with time and level.
    Text,
    /// One JSON object a line.
    Json,
    /// A line after its syslog priority (sd-daemon(3)).
    Journald,
}

/// Bytes of the length of a datagram.
const LENGTH: usize = size_of::<usize>();
/// Bytes: a few seconds of a busy host at level debug.
const QUEUE_SIZE: usize = 1 << 20;
/// Longest wait for the queue at the end; a reader that reads needs far less.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines that follow within this time are written together: a flood of logins wakes the writer rarely.
const BATCH: Duration = Duration::from_millis(5);
/// Pause before the next attempt where stderr is non-blocking (`O_NONBLOCK`, set by another program
/// that shares it).
const PAUSE: Duration = Duration::from_millis(20);

/// The log, until the process ends. The default is a log that was not started.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Queue>);

impl Log {
    /// Sends everything that is logged from now on to stderr; a panic too, which ends the program. To be
    /// called once.
    /// The default format is that of the journal if stderr is the journal, else text.
    ///
    /// # Errors
    /// The writing thread cannot be started.
    pub fn start(level: LogLevel, format: Option<LogFormat>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io(format!("cannot start the log: {error}"));
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().map_err(failed)?);
        let colour = stderr.is_terminal() && OutputStyle::of(&stderr).colour;
        let is_journal = is_journal(&stderr);
        let format = format.unwrap_or(match is_journal {
            true => LogFormat::Journald,
            false => LogFormat::Text,
        });
        // Anything but a socket only seems to be the journal.
        let is_socket = stderr.metadata().is_ok_and(|file| file.file_type().is_socket());
        let native = is_journal && is_socket && format == LogFormat::Journald;
        // Without its socket, as in a root of its own, the journal still reads stderr.
        let journal = native.then(|| JournalSocket::connect(journal::SOCKET).ok()).flatten();
        let is_native = journal.is_some();
        let sink = journal.map_or(Sink::Stderr(stderr), Sink::Journal);
        let queue = Arc::new(Queue::default());
        let log = Self(Arc::clone(&queue));
        let writer = thread::Builder::new().name("log".into());
        writer.spawn(move || queue.write_to(&sink)).map_err(failed)?;
        let last = log.clone();
        std::panic::set_hook(Box::new(move |panic| {
            error!("bug in pop-before-smtp: {panic}");
            last.flush();
            end_after_panic()
        }));
        if is_native {
            let layer = JournalLayer(Arc::clone(&log.0));
            tracing_subscriber::registry().with(filter(level)).with(layer).init();
            return Ok(log);
        }
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
        Ok(log)
    }

    /// Returns how many lines were dropped because the log was not read.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Waits until the queue is written, for `FLUSH_TIMEOUT` at most.
    pub fn flush(&self) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), FLUSH_TIMEOUT, busy);
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

/// Returns whether this is the stream that systemd connected to the journal: `JOURNAL_STREAM` holds
/// its device and inode (systemd.exec(5)).
fn is_journal(stderr: &File) -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stderr.metadata().is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// Returns the syslog priority of a level (sd-daemon(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Where the log is written to.
#[derive(Debug)]
enum Sink {
    Stderr(File),
    Journal(JournalSocket),
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines; for the journal datagrams, each after its length.
    text: Vec<u8>,
    /// Whether other lines are being written.
    writing: bool,
    /// Dropped lines since the start.
    lost: u64,
    /// Dropped lines that the log has not reported yet.
    unreported: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No holder of the lock can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, prefix: &str, event: &[u8]) {
        let lines = event.split_inclusive(|byte| *byte == b'\n');
        let mut waiting = self.lock();
        if waiting.text.len() + event.len() > QUEUE_SIZE {
            let dropped = lines.count() as u64;
            waiting.lost += dropped;
            waiting.unreported += dropped;
            return;
        }
        for line in lines {
            waiting.text.extend_from_slice(prefix.as_bytes());
            waiting.text.extend_from_slice(line);
        }
        self.changed.notify_all();
    }

    fn push_datagram(&self, datagram: &[u8]) {
        let mut waiting = self.lock();
        if waiting.text.len() + LENGTH + datagram.len() > QUEUE_SIZE {
            waiting.lost += 1;
            waiting.unreported += 1;
            return;
        }
        waiting.text.extend_from_slice(&datagram.len().to_ne_bytes());
        waiting.text.extend_from_slice(datagram);
        self.changed.notify_all();
    }

    fn write_to(&self, sink: &Sink) {
        // While writing fails, a report of dropped lines would be lost too.
        let mut writable = true;
        loop {
            let idle = |waiting: &mut Waiting| waiting.text.is_empty();
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            let text = mem::take(&mut waiting.text);
            let report = if writable { mem::take(&mut waiting.unreported) } else { 0 };
            waiting.writing = true;
            drop(waiting);
            if report > 0 {
                // The queue is empty: there is room for this line.
                error!(lines = report, "dropped log lines: they were not read in time");
            }
            let dropped = write(sink, &text);
            writable = dropped == 0;
            let mut waiting = self.lock();
            waiting.writing = false;
            waiting.lost += dropped;
            waiting.unreported += dropped + if writable { 0 } else { report };
            drop(waiting);
            self.changed.notify_all();
            thread::sleep(BATCH);
        }
    }
}

/// Writes all of it, however long that takes; returns how many lines could not be written.
fn write(sink: &Sink, text: &[u8]) -> u64 {
    match sink {
        Sink::Stderr(stderr) => write_lines(stderr, text),
        Sink::Journal(journal) => send(journal, text),
    }
}

fn send(journal: &JournalSocket, mut text: &[u8]) -> u64 {
    let mut lost = 0;
    while let Some((length, rest)) = text.split_first_chunk() {
        let (datagram, rest) = rest.split_at(usize::from_ne_bytes(*length).min(rest.len()));
        text = rest;
        lost += u64::from(journal.send(datagram).is_err());
    }
    lost
}

fn write_lines(mut stderr: &File, mut text: &[u8]) -> u64 {
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

/// Creates a writer for each event.
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
        let prefix = if self.prefixed { priority(*meta.level()) } else { "" };
        LogLine { queue: &self.queue, prefix }
    }
}

/// The writer of one event, which arrives in one call.
struct LogLine<'q> {
    queue: &'q Queue,
    prefix: &'static str,
}

impl Write for LogLine<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.queue.push(self.prefix, event);
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
    fn counts_lines_that_do_not_fit() {
        let queue = Queue::default();
        queue.push("<6>", b"one\n  hint: two\n");
        assert_eq!(queue.lock().text, b"<6>one\n<6>  hint: two\n");
        queue.push("", &[b'x'; QUEUE_SIZE]);
        assert_eq!(queue.lock().lost, 1);
        queue.push("", &[b'\n'; QUEUE_SIZE]);
        assert_eq!(queue.lock().lost, 1 + QUEUE_SIZE as u64);
        queue.push("", b"three\n");
        assert!(queue.lock().text.ends_with(b"three\n"));
    }

    #[test]
    fn counts_lines_that_cannot_be_written() {
        let closed = File::open("/dev/null").expect("open for reading only");
        assert_eq!(write_lines(&closed, b"one\ntwo\n"), 2);
        let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        assert_eq!(write_lines(&full, b"one\n"), 1);
        let open = File::options().write(true).open("/dev/null").expect("it accepts everything");
        assert_eq!(write_lines(&open, b"one\n"), 0);
    }
}
