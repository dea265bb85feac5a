//! The lines of `watch`: one JSON object for each event, and two that tell about the stream itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::json;
use super::protocol::rfc3339;
use crate::engine::events::{EventKind, Relayed, WatchEvent};

/// An event, as `watch` prints it.
#[derive(Debug, Serialize)]
struct EventLine<'e> {
    event: &'static str,
    time: String,
    address: IpAddr,
    user: Option<&'e str>,
    daemon: Option<&'e str>,
    expires: Option<String>,
    reason: Option<&'e str>,
    #[serde(flatten)]
    relayed: Option<RelayedFields<'e>>,
}

/// What only the event `relayed` has.
#[derive(Debug, Serialize)]
struct RelayedFields<'e> {
    sender: &'e str,
    recipients: u64,
    queue_id: Option<&'e str>,
}

/// A line about the stream itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StreamMark {
    /// All authorised addresses have been told; what follows happens after that.
    Ready,
    /// The last line: the reader was too slow.
    CutOff {
        /// How many events it has missed until now.
        missed: u64,
    },
}

/// Appends an event and a newline.
///
/// # Errors
/// None that a `Vec` could cause.
pub fn write_event(event: &WatchEvent, output: &mut Vec<u8>) -> serde_json::Result<()> {
    let (name, reason) = match &event.kind {
        EventKind::Granted => ("granted", None),
        EventKind::Renewed => ("renewed", None),
        EventKind::Ended(reason) => ("ended", Some(reason.word())),
        EventKind::Excluded(why) => ("excluded", Some(why.as_str())),
        EventKind::Limited(limit) => ("limited", Some(limit.as_str())),
        EventKind::Relayed(_) => ("relayed", None),
    };
    let relayed = match &event.kind {
        EventKind::Relayed(relayed) => {
            let Relayed { sender, recipients, queue_id } = &**relayed;
            let queue_id = queue_id.as_deref();
            Some(RelayedFields { sender, recipients: *recipients, queue_id })
        }
        _ => None,
    };
    write_line(
        &EventLine {
            event: name,
            time: rfc3339(event.time),
            address: event.address,
            user: event.user.as_deref(),
            daemon: event.daemon.as_deref(),
            expires: event.expires.map(rfc3339),
            reason,
            relayed,
        },
        output,
    )
}

/// Appends a line about the stream itself.
///
/// # Errors
/// None that a `Vec` could cause.
pub fn write_mark(mark: StreamMark, output: &mut Vec<u8>) -> serde_json::Result<()> {
    write_line(&mark, output)
}

fn write_line(line: &impl Serialize, output: &mut Vec<u8>) -> serde_json::Result<()> {
    json::write(line, &mut *output)?;
    output.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grants::removed::RemovalReason;
    use crate::engine::time::Time;

    #[test]
    fn lines_have_the_documented_keys() {
        let event = |kind, user: Option<&str>, expires| WatchEvent {
            kind,
            time: Time::from_millis(1_795_000_000_900),
            address: "192.0.2.7".parse().expect("an address"),
            user: user.map(Into::into),
            daemon: user.map(|_| "dovecot".into()),
            expires,
        };
        let expires = Some(Time::from_millis(1_795_001_800_000));
        let relayed = Relayed { sender: "joe@example.org".into(), recipients: 2, queue_id: None };
        let common = r#""time":"2026-11-18T11:06:40Z","address":"192.0.2.7""#;
        let rows = [
            (
                event(EventKind::Granted, Some("jo\"e\n"), expires),
                r#"{"event":"granted",COMMON,"user":"jo\"e\n","daemon":"dovecot","expires":"2026-11-18T11:36:40Z","reason":null}"#,
            ),
            (
                event(EventKind::Renewed, None, expires),
                r#"{"event":"renewed",COMMON,"user":null,"daemon":null,"expires":"2026-11-18T11:36:40Z","reason":null}"#,
            ),
            (
                event(EventKind::Ended(RemovalReason::Revoked), Some("joe"), None),
                r#"{"event":"ended",COMMON,"user":"joe","daemon":"dovecot","expires":null,"reason":"revoked"}"#,
            ),
            (
                event(EventKind::Excluded("gateway".into()), Some("joe"), None),
                r#"{"event":"excluded",COMMON,"user":"joe","daemon":"dovecot","expires":null,"reason":"gateway"}"#,
            ),
            (
                event(EventKind::Limited("messages-per-hour".into()), None, expires),
                r#"{"event":"limited",COMMON,"user":null,"daemon":null,"expires":"2026-11-18T11:36:40Z","reason":"messages-per-hour"}"#,
            ),
            (
                event(EventKind::Relayed(Box::new(relayed)), None, expires),
                r#"{"event":"relayed",COMMON,"user":null,"daemon":null,"expires":"2026-11-18T11:36:40Z","reason":null,"sender":"joe@example.org","recipients":2,"queue_id":null}"#,
            ),
        ];
        for (event, expected) in rows {
            let mut line = Vec::new();
            write_event(&event, &mut line).expect("a Vec takes all");
            let expected = expected.replace("COMMON", common) + "\n";
            assert_eq!(String::from_utf8(line).expect("text"), expected);
        }
    }

    #[test]
    fn marks_are_told_from_events() {
        let mut line = Vec::new();
        write_mark(StreamMark::Ready, &mut line).expect("a Vec takes all");
        assert_eq!(line, b"{\"event\":\"ready\"}\n");
        let cut_off = r#"{"event":"cut_off","missed":7}"#;
        let parsed = serde_json::from_str::<StreamMark>(cut_off).expect("a mark");
        assert_eq!(parsed, StreamMark::CutOff { missed: 7 });
        assert!(serde_json::from_str::<StreamMark>(r#"{"event":"granted","missed":7}"#).is_err());
    }
}
