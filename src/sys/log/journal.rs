//! The journal's own protocol: one datagram for each event, with its fields as fields of the journal
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! - **Promise**: an event with `address` has the field `PBS_ADDRESS`, and likewise for others. The
//!   message is the same line as in the other formats. Nothing is sent here: [`super`] has the queue
//!   and the thread that sends.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Queue, priority};
use crate::sys::terminal::clean;

/// Where the journal receives (systemd-journald.service(8)).
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The prefix of the names of fields.
const PREFIX: &str = "PBS_";

/// A socket connected to the journal.
#[derive(Debug)]
pub(super) struct JournalSocket {
    path: PathBuf,
    socket: UnixDatagram,
}

impl JournalSocket {
    /// Connects to the journal, if it receives at this path.
    pub(super) fn connect(path: impl Into<PathBuf>) -> io::Result<Self> {
        let (path, socket) = (path.into(), UnixDatagram::unbound()?);
        socket.connect(&path)?;
        Ok(Self { path, socket })
    }

    /// Sends a datagram, however long that takes.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.send(datagram),
            // A journal that was started again may have another socket.
            Err(_) => {
                self.socket.connect(&self.path)?;
                self.socket.send(datagram).map(drop)
            }
        }
    }
}

/// Puts each event into the queue, as a datagram.
pub(super) struct JournalLayer(pub(super) Arc<Queue>);

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = JournalFields::default();
        event.record(&mut fields);
        self.0.push_datagram(&fields.datagram(priority(*event.metadata().level())));
    }
}

/// The fields of one event.
#[derive(Default)]
struct JournalFields {
    message: String,
    /// What follows the message, as in a line of text.
    rest: String,
    fields: Vec<u8>,
}

impl JournalFields {
    fn add(&mut self, field: &Field, shown: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.rest, " {}={shown}", field.name());
        let name = field.name().chars().map(|c| match c {
            'a'..='z' | '0'..='9' => c.to_ascii_uppercase(),
            _ => '_',
        });
        append(&mut self.fields, &(PREFIX.chars().chain(name).collect::<String>()), value);
    }

    fn datagram(&self, priority: &str) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(128 + self.message.len() + 2 * self.rest.len());
        append(&mut datagram, "PRIORITY", priority.trim_matches(['<', '>']));
        append(&mut datagram, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        append(&mut datagram, "MESSAGE", &format!("{}{}", self.message, self.rest));
        datagram.extend_from_slice(&self.fields);
        datagram
    }
}

impl Visit for JournalFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let value = format!("{value:?}");
            self.add(field, &value, &value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &format!("{value:?}"), &clean(value));
    }
}

/// Appends a field; a value with a line feed has its length before it.
fn append(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::{Sink, write};
    use super::*;

    #[test]
    fn events_have_fields() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("a socket");
        let queue = Arc::new(Queue::default());
        let subscriber = tracing_subscriber::registry().with(JournalLayer(Arc::clone(&queue)));
        tracing::subscriber::with_default(subscriber, || {
            let address = std::net::Ipv4Addr::new(192, 0, 2, 7);
            info!(%address, user = "joe\n\u{1b}[2J", queue_id = None::<&str>, size = 7, "relayed");
            warn!("cannot write\n  hint: look");
        });
        let sink = Sink::Journal(JournalSocket::connect(&path).expect("it is there"));
        assert_eq!(write(&sink, &queue.lock().text), 0);
        let receive = || {
            let mut buffer = [0; 4096];
            let length = journal.recv(&mut buffer).expect("a datagram");
            String::from_utf8(buffer[..length].to_vec()).expect("text")
        };
        assert_eq!(
            receive(),
            "PRIORITY=6\nSYSLOG_IDENTIFIER=pop-before-smtp\n\
             MESSAGE=relayed address=192.0.2.7 user=\"joe\\n\\u{1b}[2J\" size=7\n\
             PBS_ADDRESS=192.0.2.7\nPBS_USER=joe\\n\\u{1b}[2J\nPBS_SIZE=7\n"
        );
        assert_eq!(
            receive(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=pop-before-smtp\n\
             MESSAGE\n\x19\0\0\0\0\0\0\0cannot write\n  hint: look\n"
        );
        drop(journal);
        assert_eq!(write(&sink, &queue.lock().text), 2, "what cannot be sent is counted");
    }
}
