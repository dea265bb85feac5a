//! JSON that may be shown on a terminal.
//!
//! - **Promise**: control characters and invisible ones are escaped, also those that JSON allows in a
//!   text: they come from strangers, and a terminal may obey them.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Writes a value without line feeds.
///
/// # Errors
/// The output cannot be written.
pub fn write(value: &impl Serialize, output: impl Write) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(output, EscapedText))
}

struct EscapedText;

impl Formatter for EscapedText {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        output: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        let is_invisible =
            |c: &char| *c == '\u{7f}' || (!c.is_ascii() && c.escape_debug().len() > 1);
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_invisible(c)) {
            output.write_all(&fragment.as_bytes()[written..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(output, "\\u{unit:04x}")?;
            }
            written = at + c.len_utf8();
        }
        output.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let rows = [
            ("joe", r#""joe""#),
            ("a\"\\\n\u{1b}[2J", r#""a\"\\\n\u001b[2J""#),
            ("\u{7f}\u{9b}31m", r#""\u007f\u009b31m""#),
            ("j\u{202e}\u{f6}rg", r#""j\u202e\u{f6}rg""#),
            ("\u{e0001}", r#""\udb40\udc01""#),
        ];
        for (text, expected) in rows {
            let mut output = Vec::new();
            write(&text, &mut output).expect("a Vec takes all");
            let expected = expected.replace("\\u{f6}", "\u{f6}");
            assert_eq!(String::from_utf8(output).expect("text"), expected);
            let back: String = serde_json::from_str(&expected).expect("JSON");
            assert_eq!(back, text);
        }
    }
}
