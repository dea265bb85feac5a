//! The inputs of `test`: lines, frames, and entries of the journal, as frames that the engine reads.
//!
//! - **Promise**: an input is one line, or what NUL ends; only of `journalctl -o export` it is an
//!   entry of several lines. Lines of `journalctl -o json`, `short-iso` and `short-full` become the
//!   frames that a syslog daemon would have sent; everything else stays as it is.

use std::io::{self, BufRead, Read as _};

use serde_json::{Map, Value};

/// Longest field of an entry of the journal that is kept, in bytes: more than a frame may have.
const MAX_FIELD: u64 = 64 * 1024;
/// Days of the week, as `short-full` writes them.
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Months, as RFC 3164 writes them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The programs that decompress, and the bytes with which their files begin.
const COMPRESSED: [(&[u8], &str); 4] = [
    (&[0x1f, 0x8b], "zcat"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xzcat"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstdcat"),
    (b"BZh", "bzcat"),
];

/// Returns the command that decompresses an input, if it is compressed.
///
/// # Errors
/// The input cannot be read.
pub fn decompressor(input: &mut impl BufRead) -> io::Result<Option<&'static str>> {
    let begin = input.fill_buf()?;
    let found = COMPRESSED.iter().find(|(magic, _)| begin.starts_with(magic));
    Ok(found.map(|(_, program)| *program))
}

/// The inputs, one after the other.
pub struct Inputs<R> {
    input: R,
    end: u8,
    is_export: bool,
    raw: Vec<u8>,
    frame: Option<Vec<u8>>,
}

impl<R: BufRead> Inputs<R> {
    /// Creates them; each ends with the byte `end`.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn new(mut input: R, end: u8) -> io::Result<Self> {
        let is_export = end == b'\n' && input.fill_buf()?.starts_with(b"__CURSOR=");
        Ok(Self { input, end, is_export, raw: Vec::new(), frame: None })
    }

    /// Reads the next one. Returns whether there is one.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn advance(&mut self) -> io::Result<bool> {
        if self.is_export {
            return self.entry();
        }
        self.raw.clear();
        if self.input.read_until(self.end, &mut self.raw)? == 0 {
            return Ok(false);
        }
        if self.raw.last() == Some(&self.end) {
            self.raw.pop();
        }
        self.frame = if self.end == b'\n' { of_journal(&self.raw) } else { None };
        Ok(true)
    }

    /// Returns the current one as it was written.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns the current one as a frame.
    pub fn frame(&self) -> &[u8] {
        self.frame.as_deref().unwrap_or(&self.raw)
    }

    /// Reads an entry of `journalctl -o export`
    /// (<https://systemd.io/JOURNAL_EXPORT_FORMATS/>): fields `NAME=text`, or `NAME` and, as binary, a
    /// length and as many bytes; an empty line ends it.
    fn entry(&mut self) -> io::Result<bool> {
        let (mut fields, mut line) = (Map::new(), Vec::new());
        loop {
            line.clear();
            let read = self.input.read_until(b'\n', &mut line)?;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.is_empty() {
                if fields.is_empty() && read > 0 {
                    continue;
                }
                break;
            }
            let (name, text) = match line.iter().position(|byte| *byte == b'=') {
                Some(at) => (line[..at].to_vec(), line[at + 1..].to_vec()),
                None => (line.clone(), self.binary()?),
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            fields.insert(String::from_utf8_lossy(&name).into_owned(), Value::String(text));
        }
        self.frame = entry(&fields);
        // As a person would read it.
        self.raw = self.frame.clone().unwrap_or_default();
        Ok(!fields.is_empty())
    }

    fn binary(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 8];
        self.input.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut bytes = Vec::new();
        self.input.by_ref().take(length.min(MAX_FIELD)).read_to_end(&mut bytes)?;
        io::copy(&mut self.input.by_ref().take(length.saturating_sub(MAX_FIELD)), &mut io::sink())?;
        // The line feed after it.
        self.input.read_until(b'\n', &mut Vec::new())?;
        Ok(bytes)
    }
}

/// Returns the frame for a line that `journalctl` has written in one of its formats.
fn of_journal(line: &[u8]) -> Option<Vec<u8>> {
    if line.starts_with(b"{") {
        return entry(&serde_json::from_slice(line).ok()?);
    }
    let text = str::from_utf8(line).ok()?;
    short_iso(text).or_else(|| short_full(text)).map(String::into_bytes)
}

/// Puts the colon into the zone of `2026-11-22T07:31:23+0100`.
fn short_iso(text: &str) -> Option<String> {
    let (stamp, rest) = text.split_once(' ')?;
    let (time, zone) = stamp.split_at_checked(stamp.len().checked_sub(5)?)?;
    let (sign, digits) = zone.split_at_checked(1)?;
    let is_zone = matches!(sign, "+" | "-") && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() >= 19 && time.as_bytes()[10] == b'T';
    let (hours, minutes) = digits.split_at_checked(2)?;
    (is_zone && is_time).then(|| format!("{time}{sign}{hours}:{minutes} {rest}"))
}

/// Turns `Sun 2026-11-22 07:31:23 CET` into `Nov 22 07:31:23`: only with UTC the moment is known.
fn short_full(text: &str) -> Option<String> {
    let mut words = text.splitn(5, ' ');
    let (day, date, time, zone, rest) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let mut parts = date.split('-');
    let (year, month, of_month) = (parts.next()?, parts.next()?, parts.next()?);
    if !WEEKDAYS.contains(&day) || year.len() != 4 || time.as_bytes().get(2) != Some(&b':') {
        return None;
    }
    if zone == "UTC" {
        return Some(format!("{date}T{time}Z {rest}"));
    }
    let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    let of_month: u8 = of_month.parse().ok()?;
    let time = time.split('.').next()?;
    Some(format!("{month} {of_month:2} {time} {rest}"))
}

/// Returns the frame that a syslog daemon would send for an entry of the journal.
fn entry(fields: &Map<String, Value>) -> Option<Vec<u8>> {
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
    let message = match fields.get("MESSAGE")? {
        Value::String(text) => text.clone().into_bytes(),
        // The journal writes text with control characters as numbers.
        Value::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            bytes.collect::<Option<_>>()?
        }
        _ => return None,
    };
    let program = field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM"))?;
    let pid = field("SYSLOG_PID").or_else(|| field("_PID"));
    let pid = pid.map_or_else(String::new, |pid| format!("[{pid}]"));
    let host = field("_HOSTNAME").unwrap_or("localhost");
    let facility = number("SYSLOG_FACILITY").filter(|code| *code < 24).unwrap_or(1);
    let severity = number("PRIORITY").filter(|code| *code < 8).unwrap_or(6);
    let moment = number("__REALTIME_TIMESTAMP").map(std::time::Duration::from_micros);
    let moment = std::time::UNIX_EPOCH.checked_add(moment.unwrap_or_default())?;
    let stamp = humantime::format_rfc3339_seconds(moment);
    let priority = facility * 8 + severity;
    let mut frame = format!("<{priority}>{stamp} {host} {program}{pid}: ").into_bytes();
    frame.extend_from_slice(&message);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &[u8]) -> Vec<String> {
        let mut inputs = Inputs::new(text, b'\n').expect("it can be read");
        let mut frames = Vec::new();
        while inputs.advance().expect("it can be read") {
            frames.push(String::from_utf8_lossy(inputs.frame()).into_owned());
        }
        frames
    }

    #[test]
    fn journal_formats_become_frames() {
        let text = "imap-login: Login: user=<joe>";
        let rows = [
            ("2026-11-22T07:31:23+0100", "2026-11-22T07:31:23+01:00"),
            ("2026-11-22T07:31:23.123456-0730", "2026-11-22T07:31:23.123456-07:30"),
            ("2026-11-22T07:31:23+01:00", "2026-11-22T07:31:23+01:00"),
            ("Sun 2026-11-22 07:31:23 UTC", "2026-11-22T07:31:23Z"),
            ("Sun 2026-11-02 07:31:23 CET", "Nov  2 07:31:23"),
            ("Sun 2026-11-22 07:31:23.123456 CET", "Nov 22 07:31:23"),
            ("Nov 22 07:31:23", "Nov 22 07:31:23"),
            ("{", "{"),
        ];
        for (stamp, expected) in rows {
            let line = format!("{stamp} mx1 dovecot[7]: {text}\n");
            assert_eq!(frames(line.as_bytes()), [format!("{expected} mx1 dovecot[7]: {text}")]);
        }
    }

    #[test]
    fn entries_of_the_journal_become_frames() {
        let json = br#"{"MESSAGE":"a","SYSLOG_IDENTIFIER":"dovecot","SYSLOG_PID":"7","_PID":"8","_HOSTNAME":"mx1","PRIORITY":"5","SYSLOG_FACILITY":"2","__REALTIME_TIMESTAMP":"1795332683000000"}
{"MESSAGE":[98,9],"_COMM":"x"}
{"MESSAGE":null}
"#;
        let expected = [
            "<21>2026-11-22T07:31:23Z mx1 dovecot[7]: a",
            "<14>1970-01-01T00:00:00Z localhost x: b\t",
            "{\"MESSAGE\":null}",
        ];
        assert_eq!(frames(json), expected);
        let mut export =
            b"__CURSOR=s=1\n_HOSTNAME=mx1\nSYSLOG_IDENTIFIER=dovecot\nMESSAGE\n".to_vec();
        export.extend_from_slice(&3u64.to_le_bytes());
        export.extend_from_slice(b"a\n=\n\n__CURSOR=s=2\n_COMM=y\nMESSAGE=c\n");
        let expected = [
            "<14>1970-01-01T00:00:00Z mx1 dovecot: a\n=",
            "<14>1970-01-01T00:00:00Z localhost y: c",
        ];
        assert_eq!(frames(&export), expected);
    }

    #[test]
    fn compressed_inputs_are_recognised() {
        let rows: [(&[u8], Option<&str>); 6] = [
            (&[0x1f, 0x8b, 8], Some("zcat")),
            (b"\xfd7zXZ\0\0", Some("xzcat")),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0], Some("zstdcat")),
            (b"BZh9", Some("bzcat")),
            (b"Nov 22", None),
            (b"", None),
        ];
        for (mut bytes, expected) in rows {
            assert_eq!(decompressor(&mut bytes).expect("it can be read"), expected);
        }
    }
}
