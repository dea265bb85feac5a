//! The head of a BSD frame in its usual form, parsed without a general parser.
//!
//! - **Promise**: what is parsed here means the same to the general parser, which gets everything else;
//!   a test compares the two.
//! - **Limits**: `<PRI>`, a time stamp of RFC 3164 (section 4.1.2) or of RFC 3339 as rsyslog and
//!   syslog-ng write it, one blank, a first field that begins with an ASCII letter, and a second that
//!   does not begin with a dash.

use chrono::{DateTime, FixedOffset};

use super::split_at_blank;
use crate::engine::time::Time;

/// Highest priority: facility 23, severity 7 (RFC 5424 section 6.2.1).
pub(super) const MAX_PRIORITY: u8 = 191;

/// The months of a BSD time stamp, with their days in a leap year.
const MONTHS: [(&[u8], u8); 12] = [
    (b"Jan", 31),
    (b"Feb", 29),
    (b"Mar", 31),
    (b"Apr", 30),
    (b"May", 31),
    (b"Jun", 30),
    (b"Jul", 31),
    (b"Aug", 31),
    (b"Sep", 30),
    (b"Oct", 31),
    (b"Nov", 30),
    (b"Dec", 31),
];

/// What precedes the host name: the priority as two codes, and the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) facility: Option<u8>,
    pub(super) severity: Option<u8>,
    pub(super) stamp: Option<Time>,
}

impl Header {
    /// Parses a head of the usual form; returns it and what follows it.
    pub(super) fn parse(frame: &str) -> Option<(Self, &str)> {
        let (priority, rest) = frame.strip_prefix('<')?.split_once('>')?;
        let code = priority_code(priority)?;
        let (stamp, fields) = match bsd_stamp(rest.as_bytes()) {
            Some(length) => (None, &rest[length..]),
            None => {
                let (word, fields) = split_at_blank(rest)?;
                (Some(iso_stamp(word)?), fields)
            }
        };
        // After a second word `-` the general parser goes on to the third.
        let has_dash = split_at_blank(fields).is_some_and(|(_, rest)| rest.starts_with('-'));
        let is_usual = fields.as_bytes().first()?.is_ascii_alphabetic() && !has_dash;
        let header = Self { facility: Some(code >> 3), severity: Some(code & 7), stamp };
        is_usual.then_some((header, fields))
    }
}

/// Converts a time stamp. Before 1970 becomes 1970: both are long ago.
pub(super) fn moment(stamp: DateTime<FixedOffset>) -> Time {
    Time::from_millis(u64::try_from(stamp.timestamp_millis()).unwrap_or_default())
}

fn priority_code(digits: &str) -> Option<u8> {
    let is_plain = matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
    let code: u8 = digits.parse().ok()?;
    (is_plain && code <= MAX_PRIORITY).then_some(code)
}

/// Returns the length of `Mmm dd hh:mm:ss `. Its value does not matter: it has no year and no zone.
fn bsd_stamp(text: &[u8]) -> Option<usize> {
    let [month @ .., b' ', d1, d2, b' ', h1, h2, b':', m1, m2, b':', s1, s2, b' '] =
        text.get(..16)?
    else {
        return None;
    };
    let (_, days) = MONTHS.iter().find(|(name, _)| *name == month)?;
    let day = number(if *d1 == b' ' { b'0' } else { *d1 }, *d2)?;
    let is_valid = (1..=*days).contains(&day)
        && *d1 != b'0'
        && number(*h1, *h2)? < 24
        && number(*m1, *m2)? < 60
        && number(*s1, *s2)? < 60;
    is_valid.then_some(16)
}

fn number(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

fn iso_stamp(word: &str) -> Option<Time> {
    let is_usual = word.len() <= 35 && word.as_bytes().get(10) == Some(&b'T');
    DateTime::parse_from_rfc3339(word).ok().filter(|_| is_usual).map(moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::syslog::{parse, parse_any};

    /// Frames of these parts, usual and odd, in any combination.
    const PARTS: [&[&str]; 6] = [
        &[
            "<22>", "<22>", "<22>", "<0>", "<191>", "<192>", "<022>", "<256>", "<>", "< 22>",
            "<22", "",
        ],
        &[
            "Nov 22 07:31:24",
            "Nov  2 07:31:24",
            "Feb 29 00:00:00",
            "Feb 30 07:31:24",
            "Nov 02 07:31:24",
            "Nov 22 24:31:24",
            "Nov 22 07:60:24",
            "Nov 22 07:31:60",
            "nov 22 07:31:24",
            "Nov 22 7:31:24",
            "Nov 22 07:31:24.123",
            "Nov 22 2026 07:31:24",
            "Nov 22 07:31:24 2026",
            "Nov 22 07:31",
            "2026-11-22T07:31:24Z",
            "2026-11-22T07:31:24+01:00",
            "2026-11-22T07:31:24.123456+01:00",
            "2026-11-22T07:31:60Z",
            "2026-11-22 07:31:24Z",
            "2026-11-22T07:31:24",
            "2026-02-30T07:31:24Z",
            "2026-11-22T07:31:24.123456789123-00:00",
            "1969-11-22T07:31:24Z",
            "1 2026-11-22T07:31:24Z",
            "1 -",
            "",
        ],
        &[" ", " ", " ", "  ", "", "\t", ": ", "\u{a0}", " : ", "\n"],
        &[
            "mx1",
            "mx1",
            "UTC",
            "Z",
            "PM",
            "CET",
            "2026",
            "10.0.0.1",
            "2001:db8::1",
            "-",
            "evil:",
            "dovecot:",
            "dovecot[1]:",
            "a[b",
            "[a",
            "[a b=\"w w w\"]",
            "%ASA-1:",
            "x=1",
            "Nov",
            "m\u{fc}",
            "mx1:",
            "a]",
            "",
            "\u{feff}dovecot:",
            "nginx:",
            "<13>",
            "last",
        ],
        &[" ", " ", " ", "  ", "", "\t", ": ", "\u{a0}", "\n"],
        &[
            "dovecot: x",
            "dovecot[7]: x y",
            "dovecot x",
            "dovecot 7 - - x",
            "dovecot 7 - [a b=\"c\"] x",
            ": x",
            "[dovecot] x",
            "- dovecot: x",
            "- - dovecot: x",
            "-: x",
            "mx1 dovecot: x",
            "mx1 dovecot[7]: x",
            "1 - - - - x",
            "",
            "x",
            "[a b=\"c\"]",
        ],
    ];

    #[test]
    fn the_general_parser_says_the_same() {
        let mut random = 1_u64;
        let mut next = |most: usize| {
            // Knuth's MMIX; the high bits are the good ones.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % most
        };
        let mut usual = 0;
        for _ in 0..300_000 {
            let frame: String = PARTS.iter().map(|part| part[next(part.len())]).collect();
            assert_eq!(parse(&frame), parse_any(&frame), "{frame:?}");
            usual += usize::from(Header::parse(&frame).is_some());
        }
        assert!(usual > 5_000, "{usual}");
    }
}
