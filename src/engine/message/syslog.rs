//! Parses the bytes of a datagram into a message: facility, severity, host, program, PID, text.
//!
//! - **Promise**: any bytes give a [`Message`] or a reason why not, never a panic. One frame is
//!   one message; line feeds inside it never split it. The text is exactly what follows the tag, so
//!   an anchored pattern sees the sender's text from its first byte.
//! - **How**: `syslog_loose` parses priority, time stamp and RFC 5424 headers. What it cannot know
//!   (a BSD frame without a host name) or takes too far (a message that only looks like structured
//!   data) is decided here, from the position where the header fields begin.
//! - **Not here**: whether the time stamp can be trusted: it comes from the sender (`process`).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use chrono::Utc;
use syslog_loose::{Protocol, Variant};

use super::head::{Header, MAX_PRIORITY, moment};
use super::{Message, is_number, split_at_blank};

/// Bytes of a frame within which its header must end: the longest names and some structured data.
const MAX_HEADER: usize = 1024;

/// Bytes of a frame that are parsed: after any header, as much of the message as patterns see.
const MAX_READ: usize = MAX_HEADER + 1024;

/// Longest program name accepted; RFC 5424 section 6 allows an APP-NAME of 48 bytes.
const MAX_PROGRAM: usize = 255;

/// Longest host name accepted; RFC 5424 section 6 allows a HOSTNAME of 255 bytes.
const MAX_HOST: usize = 255;

/// Why a frame is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Only white space.
    Empty,
    /// `<` and something that is not a priority (0 to 191).
    Priority,
    /// No program name was found.
    NoProgram,
}

/// The beginning of a frame as valid UTF-8, without a leading byte order mark, and without what
/// some senders append to a message: an optional CR, LF and NUL, in this order.
#[derive(Debug)]
pub struct Frame<'a> {
    text: Cow<'a, str>,
    raw_len: usize,
}

impl<'a> Frame<'a> {
    /// Creates a frame from the bytes of one datagram. Bytes that are not UTF-8 become U+FFFD.
    pub fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        // A carriage return counts: it may be the last byte of a fragment.
        let raw_len = bytes.len();
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let read = &bytes[..bytes.len().min(MAX_READ)];
        // Nearly all are valid, and checking is faster than replacing.
        let text =
            str::from_utf8(read).map_or_else(|_| String::from_utf8_lossy(read), Cow::Borrowed);
        Self { text, raw_len }
    }

    /// Parses the frame as a syslog message.
    ///
    /// # Errors
    /// Why the frame is not a message.
    pub fn message(&self) -> Result<Message<'_>, Malformed> {
        parse(&self.text)
    }

    /// Returns the length of a message's body in bytes as received, before any replacement; that of
    /// the whole frame if its end was not parsed.
    pub fn raw_body_len(&self, message: &Message<'_>) -> usize {
        if self.raw_len > MAX_READ {
            return self.raw_len;
        }
        // A header with replaced bytes names no known program, so its length does not matter.
        let header = self.text.len() - message.body.len();
        self.raw_len.saturating_sub(header)
    }
}

pub(super) fn parse(frame: &str) -> Result<Message<'_>, Malformed> {
    match Header::parse(frame) {
        Some((header, fields)) => bsd(header, fields),
        None => parse_any(frame),
    }
}

/// Parses a frame of any form.
pub(super) fn parse_any(frame: &str) -> Result<Message<'_>, Malformed> {
    if frame.trim().is_empty() {
        return Err(Malformed::Empty);
    }
    let frame = without_octet_count(frame);
    let header = frame.len().min(MAX_HEADER);
    let header = (0..=header).rev().find(|end| frame.is_char_boundary(*end)).unwrap_or_default();
    let stamped = syslog_loose::parse_message_with_year_exact_tz(
        &frame[..header],
        // Only the place of the time stamp matters, not its value: in a leap year and in UTC
        // every date and hour exists, 29 February and the hour that summer time skips included.
        |_| 2024,
        Some(Utc),
        Variant::Either,
    );
    let Ok(parsed) = stamped else { return without_time_stamp(frame) };
    let is_rfc3164 = parsed.protocol == Protocol::RFC3164;
    let has_zone = !is_rfc3164 || begins_with_iso_stamp(frame);
    let head = Header {
        facility: parsed.facility.map(|code| code as u8),
        severity: parsed.severity.map(|code| code as u8),
        stamp: parsed.timestamp.filter(|_| has_zone).map(moment),
    };
    if !is_rfc3164 {
        return rfc5424(frame, head, &parsed);
    }
    let fields = [parsed.hostname, parsed.appname, Some(parsed.msg)];
    let start = fields.into_iter().flatten().map(|field| offset(frame, field)).min();
    let (header, fields) = frame.split_at(start.unwrap_or(frame.len()));
    if header.ends_with(" : ") {
        return Err(Malformed::NoProgram); // an empty tag, which the parser has skipped
    }
    bsd(head, fields)
}

/// Returns whether `2026-11-22T...` follows the priority, not `Nov 22 ...`, to which the parser adds
/// a year and a zone.
fn begins_with_iso_stamp(frame: &str) -> bool {
    let after = match frame.starts_with('<') {
        true => frame.split_once('>').map_or("", |(_, after)| after),
        false => frame,
    };
    after.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

/// Returns where `part`, a slice of `whole`, begins in it.
fn offset(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

/// Removes the length that `logger --octet-count` puts before a frame (RFC 6587 section 3.4.1).
fn without_octet_count(frame: &str) -> &str {
    match frame.split_once(' ') {
        Some((count, rest)) if is_number(count) && rest.starts_with('<') => rest,
        _ => frame,
    }
}

fn rfc5424<'a>(
    frame: &'a str,
    head: Header,
    parsed: &syslog_loose::Message<&'a str>,
) -> Result<Message<'a>, Malformed> {
    let program = parsed.appname.filter(|name| is_program(name)).ok_or(Malformed::NoProgram)?;
    if parsed.hostname.is_some_and(|host| host.len() > MAX_HOST) {
        return Err(Malformed::NoProgram);
    }
    // The parser turns a numeric PROCID into a number; here it is taken as written.
    let procid = frame[offset(frame, program) + program.len()..].trim_start().split(' ').next();
    let (header, body) = frame.split_at(offset(frame, parsed.msg));
    if frame.len() > MAX_HEADER && header.ends_with(']') && body.starts_with('[') {
        return Err(Malformed::NoProgram); // more structured data, and the text is after it
    }
    Ok(Message {
        facility: head.facility,
        severity: head.severity,
        stamp: head.stamp,
        host: parsed.hostname,
        program,
        pid: procid.filter(|pid| *pid != "-" && !pid.is_empty()),
        body: body.strip_prefix('\u{feff}').unwrap_or(body),
    })
}

/// Parses a BSD frame from its first field after the time stamp: `[HOST ]TAG[PID]: text`.
///
/// The tag is the first or second word, ending in a colon; it may be the third where a daemon
/// repeats the host name (nginx through a local syslog server).
fn bsd(head: Header, fields: &str) -> Result<Message<'_>, Malformed> {
    let fields = without_fraction(fields.trim_start());
    let (first, rest) = word(fields);
    if let Some(tag) = Tag::parse(first) {
        return Ok(tag.message(head, None, rest));
    }
    if !is_host(first) {
        return Err(Malformed::NoProgram);
    }
    let (second, rest) = word(rest);
    if let Some(tag) = Tag::parse(second) {
        return Ok(tag.message(head, Some(first), rest));
    }
    let (third, rest) = word(rest);
    match Tag::parse(third) {
        Some(tag) if second == first => Ok(tag.message(head, Some(first), rest)),
        _ => Err(Malformed::NoProgram),
    }
}

/// Removes the fraction that some senders add to the seconds of a BSD time stamp.
fn without_fraction(fields: &str) -> &str {
    match fields.strip_prefix('.').and_then(|rest| rest.split_once(' ')) {
        Some((fraction, rest)) if is_number(fraction) => rest,
        _ => fields,
    }
}

/// Parses a frame without a time stamp: `[<PRI>]TAG[PID]: text`. A host name is not recognised there.
fn without_time_stamp(frame: &str) -> Result<Message<'_>, Malformed> {
    let mut head = Header::default();
    let mut rest = frame;
    if let Some((number, after)) = frame.strip_prefix('<').and_then(|f| f.split_once('>')) {
        let code = number.parse::<u8>().ok().filter(|code| *code <= MAX_PRIORITY);
        let code = code.filter(|_| is_number(number)).ok_or(Malformed::Priority)?;
        head = Header { facility: Some(code >> 3), severity: Some(code & 7), stamp: None };
        rest = after;
    }
    let (first, rest) = word(rest.trim_start_matches(' '));
    let tag = Tag::parse(first).ok_or(Malformed::NoProgram)?;
    Ok(tag.message(head, None, rest))
}

/// Splits off the first word and the blank after it.
fn word(text: &str) -> (&str, &str) {
    split_at_blank(text).unwrap_or((text, ""))
}

/// RFC 3164's TAG with its PID.
struct Tag<'a> {
    program: &'a str,
    pid: Option<&'a str>,
}

impl<'a> Tag<'a> {
    /// Parses `name:`, `name[pid]:`, or the `[name]` of old Courier versions, with or without colon.
    fn parse(word: &'a str) -> Option<Self> {
        let word = word.strip_prefix('\u{feff}').unwrap_or(word);
        if is_ipv6(word) {
            return None; // a host: `2001:db8::` ends in a colon too
        }
        let (name, colon) = word.strip_suffix(':').map_or((word, false), |name| (name, true));
        let bracketed = name.strip_suffix(']').and_then(|name| name.split_once('['));
        let (program, pid) = match bracketed {
            Some(("", name)) => (name, None),
            Some((name, pid)) if colon => (name, Some(pid)),
            None if colon => (name, None),
            _ => return None,
        };
        is_program(program).then_some(Self { program, pid })
    }

    fn message(self, head: Header, host: Option<&'a str>, body: &'a str) -> Message<'a> {
        Message {
            facility: head.facility,
            severity: head.severity,
            stamp: head.stamp,
            host: host.filter(|name| *name != "-"),
            program: self.program,
            pid: self.pid,
            body,
        }
    }
}

/// Returns whether a word is an IPv6 address, which has more than one colon.
fn is_ipv6(word: &str) -> bool {
    word.bytes().filter(|byte| *byte == b':').count() > 1 && word.parse::<Ipv6Addr>().is_ok()
}

/// Returns whether the first word can be a host name. A malformed tag cannot: what follows it may be
/// foreign text, in which no tag may be searched.
fn is_host(word: &str) -> bool {
    let tag = word.ends_with(':') && !is_ipv6(word);
    let pid = word.find('[').is_some_and(|at| at > 0);
    word.len() <= MAX_HOST && !tag && !pid
}

fn is_program(name: &str) -> bool {
    (1..=MAX_PROGRAM).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'[' && byte != b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &str) -> (Option<String>, String, Option<String>, String) {
        let frame = Frame::new(frame.as_bytes());
        let message = frame.message().expect("a message");
        (
            message.host.map(str::to_owned),
            message.program.to_owned(),
            message.pid.map(str::to_owned),
            message.text().to_owned(),
        )
    }

    /// A frame, and the expected host, program, PID and text.
    type Row = (&'static str, Option<String>, &'static str, Option<String>, &'static str);

    #[test]
    fn frames_of_real_senders() {
        let some = |name: &str| Some(name.to_owned());
        let rows: &[Row] = &[
            (
                "<22>Nov 22 07:31:24 dovecot: pop3-login: Login",
                None,
                "dovecot",
                None,
                "pop3-login: Login",
            ),
            (
                "<22>Nov 22 07:57:59 mx1 dovecot: pop3-login: Login",
                some("mx1"),
                "dovecot",
                None,
                "pop3-login: Login",
            ),
            (
                "<22>Nov  2 07:57:59 mx1 cyrus/pop3[350]: login: x",
                some("mx1"),
                "cyrus/pop3",
                some("350"),
                "login: x",
            ),
            (
                "<22>2026-11-22T07:57:59.863182+00:00 mx1 dovecot: x",
                some("mx1"),
                "dovecot",
                None,
                "x",
            ),
            (
                "<22>1 2026-11-22T07:57:59.863182+00:00 mx1 dovecot - - -  x\n",
                some("mx1"),
                "dovecot",
                None,
                "x",
            ),
            (
                "<22>1 2026-11-22T07:31:23+00:00 mx1 cyrus 0350 - [meta sequenceId=\"1\"] login: x",
                some("mx1"),
                "cyrus",
                some("0350"),
                "login: x",
            ),
            (
                "<22>1 2026-11-22T07:31:23+00:00 mx1 pop3d - - - \u{feff}LOGIN",
                some("mx1"),
                "pop3d",
                None,
                "LOGIN",
            ),
            ("Nov 22 07:57:59 mx1 dovecot: x\n", some("mx1"), "dovecot", None, "x"),
            ("\u{feff}<22>Nov 22 07:31:24 dovecot: x", None, "dovecot", None, "x"),
            ("<22>Nov 22 07:31:24 mx1 \u{feff}dovecot: x", some("mx1"), "dovecot", None, "x"),
            ("<22>Nov 22 07:31:24 dovecot: x\0", None, "dovecot", None, "x"),
            (
                "<22>Nov 22 07:31:24 mx1 mx1 nginx: 2026/11/22 x",
                some("mx1"),
                "nginx",
                None,
                "2026/11/22 x",
            ),
            ("<22>Nov 22 07:31:24.123 mx1 dovecot: x", some("mx1"), "dovecot", None, "x"),
            ("<22>Feb 29 07:31:24 mx1 dovecot: x", some("mx1"), "dovecot", None, "x"),
            ("<22>Mar 29 02:30:23 mx1 dovecot: x", some("mx1"), "dovecot", None, "x"),
            ("<22>dovecot[7]: x", None, "dovecot", some("7"), "x"),
            ("dovecot: x", None, "dovecot", None, "x"),
            ("<22>Nov 22 07:31:24 ::1 dovecot: x", some("::1"), "dovecot", None, "x"),
            ("<22>Nov 22 07:31:24 2001:db8:: dovecot: x", some("2001:db8::"), "dovecot", None, "x"),
            ("<22>Nov 22 07:31:24 - dovecot: x", None, "dovecot", None, "x"),
            ("Nov 22 07:31:24 [imapd] LOGIN, user=joe", None, "imapd", None, "LOGIN, user=joe"),
            (
                "<22>Nov 22 07:31:24 mx1 [imapd]: LOGIN, user=joe",
                some("mx1"),
                "imapd",
                None,
                "LOGIN, user=joe",
            ),
            (
                "203 <13>1 2026-11-22T07:31:23Z mx1 dovecot 9 - - x",
                some("mx1"),
                "dovecot",
                some("9"),
                "x",
            ),
            // The text is the sender's from its first byte: structured data is not removed from it,
            // and no second tag is searched in it.
            (
                "<22>Nov 22 07:31:24 pop3d: [a b=\"c\"] LOGIN, user=joe",
                None,
                "pop3d",
                None,
                "[a b=\"c\"] LOGIN, user=joe",
            ),
            (
                "<22>Nov 22 07:31:24 pop3d: dovecot: imap-login: Login",
                None,
                "pop3d",
                None,
                "dovecot: imap-login: Login",
            ),
            (
                "<22>Nov 22 07:31:24 mx1 pop3d: dovecot: imap-login: Login",
                some("mx1"),
                "pop3d",
                None,
                "dovecot: imap-login: Login",
            ),
            (
                "<22>Nov 22 07:31:24 pop3d: a\n<22>Nov 22 07:31:24 pop3d: b\n\n",
                None,
                "pop3d",
                None,
                "a\n<22>Nov 22 07:31:24 pop3d: b\n",
            ),
        ];
        for (frame, host, program, pid, text) in rows {
            let expected = (host.clone(), (*program).to_owned(), pid.clone(), (*text).to_owned());
            assert_eq!(read(frame), expected, "{frame:?}");
        }
    }

    #[test]
    fn priority_is_facility_and_severity() {
        for frame in
            ["<133>Nov 22 07:31:24 a: x", "<133>a: x", "<133>1 2026-11-22T07:31:23Z h a - - - x"]
        {
            let frame = Frame::new(frame.as_bytes());
            let message = frame.message().expect("a message");
            assert_eq!((message.facility, message.severity), (Some(16), Some(5)));
        }
    }

    #[test]
    fn malformed_frames() {
        let rows: &[(&str, Malformed)] = &[
            ("", Malformed::Empty),
            (" \n", Malformed::Empty),
            ("<192>dovecot: x", Malformed::Priority),
            ("<+1>dovecot: x", Malformed::Priority),
            ("<>dovecot: x", Malformed::Priority),
            ("<22>Nov 22 07:31:24 mx1 otherhost dovecot: x", Malformed::NoProgram),
            ("<22>Nov 22 07:31:24 mx1 no tag here", Malformed::NoProgram),
            ("<22>1 2026-11-22T07:31:23Z mx1 - - - - x", Malformed::NoProgram),
            ("no colon at all", Malformed::NoProgram),
        ];
        for (frame, why) in rows {
            assert_eq!(Frame::new(frame.as_bytes()).message(), Err(*why), "{frame:?}");
        }
    }

    #[test]
    fn no_tag_is_searched_after_a_malformed_one() {
        let long = format!("{}:", "x".repeat(MAX_PROGRAM + 1));
        for tag in ["pr\u{f6}g:", ":", "a]:", "a[1]b:", "a\tb:", "a[1]", "a[1]:b", &long] {
            let frame = format!("<22>Nov 22 07:31:24 {tag} dovecot: imap-login: Login");
            let read = Frame::new(frame.as_bytes()).message().map(|message| message.program.len());
            assert_eq!(read, Err(Malformed::NoProgram), "{frame:?}");
        }
    }

    #[test]
    fn a_host_name_has_a_limit() {
        for (length, is_message) in [(MAX_HOST, true), (MAX_HOST + 1, false)] {
            let host = "h".repeat(length);
            for frame in [
                format!("<22>Nov 22 07:31:24 {host} dovecot: x"),
                format!("<22>1 2026-11-22T07:31:23Z {host} dovecot - - - x"),
            ] {
                let frame = Frame::new(frame.as_bytes());
                assert_eq!(frame.message().is_ok(), is_message, "{length}");
            }
        }
    }

    #[test]
    fn body_length_counts_bytes_as_received() {
        let mut bytes = b"<22>Nov 22 07:31:24 pop3d:  ".to_vec();
        bytes.extend([0xff; 100]);
        let frame = Frame::new(&bytes);
        let message = frame.message().expect("a message");
        assert_eq!(frame.raw_body_len(&message), 101);
        assert_eq!(message.text().chars().count(), 100);
    }
}
