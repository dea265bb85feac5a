//! Output for people: colours, widths, and foreign text made harmless.
//!
//! - **Promise**: colours and truncation are for terminals only; a pipe or a file gets plain, whole
//!   text.

use std::io::IsTerminal;

/// How text is shown on an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputStyle {
    /// Whether colours may be used.
    pub colour: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
}

impl OutputStyle {
    /// Returns the style for an output. `NO_COLOR` (<https://no-color.org>) and `TERM=dumb` disable
    /// colours.
    pub fn of(output: &(impl IsTerminal + std::os::fd::AsFd)) -> Self {
        if !output.is_terminal() {
            return Self::default();
        }
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = terminal_size::terminal_size_of(output).map(|(width, _)| width.0.into());
        Self { colour: !forbidden, width: width.filter(|width| *width > 0) }
    }

    /// Returns the text in this style.
    pub fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Head => "1",
            Style::Good => "32",
            Style::Odd => "33",
            Style::Bad => "1;31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Returns the rows of a terminal; 24 if it does not tell.
pub fn rows(terminal: &impl std::os::fd::AsFd) -> usize {
    let size = terminal_size::terminal_size_of(terminal);
    size.map(|(_, height)| height.0.into()).filter(|rows| *rows > 0).unwrap_or(24)
}

/// Style of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Ordinary text.
    Plain,
    /// A heading.
    Head,
    /// Good news.
    Good,
    /// Unusual.
    Odd,
    /// A fault.
    Bad,
}

/// Returns foreign text on one line, with control and invisible characters as escapes.
pub fn clean(text: &str) -> String {
    let clean = |c: char| match c {
        '"' | '\'' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(clean).collect()
}

/// Formats a duration with its two largest units.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (1.., _, _) => format!("{days}d {}h", hours % 24),
        (_, 1.., _) => format!("{hours}h {}m", minutes % 60),
        (_, _, 1..) => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_escaped() {
        let rows = [
            ("joe@example.org", "joe@example.org"),
            ("j\u{f6}rg o'neil \"x\"", "j\u{f6}rg o'neil \"x\""),
            ("\x1b[2Jjoe\n\r\t\0", "\\u{1b}[2Jjoe\\n\\r\\t\\0"),
            ("a\\n", "a\\\\n"),
            ("\u{202e}eoj\u{200b}\u{9b}", "\\u{202e}eoj\\u{200b}\\u{9b}"),
        ];
        for (text, shown) in rows {
            assert_eq!(clean(text), shown);
        }
    }

    #[test]
    fn spans() {
        let rows = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (1632, "27m 12s"),
            (3600, "1h 0m"),
            (86_399, "23h 59m"),
            (183_600, "2d 3h"),
        ];
        for (seconds, text) in rows {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn colours_are_optional() {
        let colourful = OutputStyle { colour: true, width: None };
        assert_eq!(colourful.paint(Style::Bad, "no"), "\x1b[1;31mno\x1b[0m");
        assert_eq!(colourful.paint(Style::Plain, "no"), "no");
        assert_eq!(OutputStyle::default().paint(Style::Bad, "no"), "no");
    }
}
