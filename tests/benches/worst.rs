//! Frames made to be expensive: every built-in example, extended at many places with many fillers,
//! and headers as long as a frame can be.

use pop_before_smtp::engine::maildaemons::{BUILT_IN, DaemonFile};

/// Bytes of a frame: the most that fits in one datagram, and about as many as are examined.
pub const LENGTHS: &[usize] = &[60_000, 2_040, 1_000, 790, 490];
/// How many parts each example is divided into; the filler goes between two of them.
const PARTS: usize = 6;
/// The fillers. Some are texts that must occur only once in a line.
const FILLERS: &[&[u8]] = &[
    VARIED,
    b"x",
    b"7",
    b" ",
    b"\n",
    b"\xff",
    b"\xe2\x82",
    "\u{20ac}".as_bytes(),
    b"a b",
    b", ip=[",
    b", rip=",
    b", ip=[192.0.2.7], port=[7], x=7",
    b"-ERR ",
    b"\", ",
    b"[a b=\"c\"]",
    b"user=<a>",
];

/// Stands for varying bytes of [`ALPHABET`].
const VARIED: &[u8] = b"varied";
/// Bytes that patterns look for, and others.
const ALPHABET: &[u8] = b", ip=[]:.<>\"'()rauselogin-07 \xff";

fn filled(filler: &[u8], length: usize, turn: &mut u64) -> Vec<u8> {
    if filler != VARIED {
        return filler.iter().copied().cycle().take(length).collect();
    }
    let mut next = || {
        // Knuth, The Art of Computer Programming, volume 2, section 3.3.4.
        *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ALPHABET[(*turn >> 33) as usize % ALPHABET.len()]
    };
    (0..length).map(|_| next()).collect()
}

/// Calls `visit` with the name and the bytes of each frame.
pub fn each(mut visit: impl FnMut(&str, &[u8])) {
    let mut turn = 0;
    for (name, begin, filler, end) in HEADERS {
        for length in LENGTHS {
            let middle = filled(filler, length.saturating_sub(begin.len() + end.len()), &mut turn);
            visit(&format!("{length}: {name}"), &[begin, &*middle, end].concat());
        }
    }
    for file in BUILT_IN {
        let daemon = DaemonFile::from(file).compile().expect("a sound file");
        let lines = daemon.examples.iter().flat_map(|example| &example.lines);
        for (number, line) in lines.enumerate() {
            let line = line.as_bytes();
            // Header and tag stay unchanged.
            let body = line.windows(2).position(|pair| pair == b": ").map_or(0, |at| at + 2);
            for part in 0..=PARTS {
                let at = body + (line.len() - body) * part / PARTS;
                for (filler, length) in
                    FILLERS.iter().flat_map(|f| LENGTHS.iter().map(move |l| (f, l)))
                {
                    let middle = filled(filler, length.saturating_sub(line.len()), &mut turn);
                    let name = format!(
                        "{length}: {} {number} at {at}: {}",
                        daemon.name,
                        filler.escape_ascii()
                    );
                    visit(&name, &[&line[..at], &middle, &line[at..]].concat());
                }
            }
        }
    }
}

/// The name, the beginning, the filler and the end of a frame.
type Header = (&'static str, &'static [u8], &'static [u8], &'static [u8]);

const END: &[u8] = b" mx1 dovecot: imap-login: Login: user=<ann>";
/// Frames with long headers.
const HEADERS: &[Header] = &[
    ("only blanks", b"", b" ", b""),
    ("only invalid bytes", b"", b"\xff", b""),
    ("an octet count", b"", b"7", b" <22>dovecot: x"),
    ("a priority", b"<", b"2", b">dovecot: x"),
    ("blanks before the tag", b"<22>", b" ", b"dovecot: x"),
    ("blanks after the stamp", b"<22>Nov 22 07:31:23", b" ", END),
    ("fractions of a second", b"<22>Nov 22 07:31:23.", b"7", END),
    ("fractions, RFC 3339", b"<22>1 2026-11-22T07:31:23.", b"7", b"Z mx1 dovecot - - - x"),
    ("a host", b"<22>Nov 22 07:31:23 ", b"h", b" dovecot: x"),
    ("a host of colons", b"<22>Nov 22 07:31:23 ", b":", b" dovecot: x"),
    ("a program", b"<22>Nov 22 07:31:23 mx1 ", b"p", b": x"),
    ("a PID", b"<22>Nov 22 07:31:23 mx1 dovecot[", b"7", b"]: x"),
    ("brackets", b"<22>Nov 22 07:31:23 mx1 dovecot", b"[", b"]: x"),
    ("a host, RFC 5424", b"<22>1 2026-11-22T07:31:23Z ", b"h", b" dovecot - - - x"),
    ("a program, RFC 5424", b"<22>1 2026-11-22T07:31:23Z mx1 ", b"p", b" - - - x"),
    ("a PID, RFC 5424", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot ", b"7", b" - - x"),
    ("elements", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - ", b"[a]", b" x"),
    ("elements with one", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - ", b"[a b=\"c\"]", b" x"),
    ("parameters", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - [a", b" b=\"c\"", b"] x"),
    ("parameters without end", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - [a", b" b=\"c\"", b""),
    ("escapes", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - [a b=\"", b"\\\"", b"\"] x"),
    ("no elements", b"<22>1 2026-11-22T07:31:23Z mx1 dovecot - - ", b"[", b" x"),
    ("elements, BSD", b"<22>Nov 22 07:31:23 mx1 dovecot: ", b"[a b=\"c\"]", b" x"),
    ("words, BSD", b"<22>Nov 22 07:31:23 ", b"a ", b""),
    ("repeated", b"<22>Nov 22 07:31:23 mx1 dovecot: message repeated ", b"2 times: [", b"]"),
];
