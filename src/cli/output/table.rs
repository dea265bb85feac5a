//! Tables: rows under a heading, each column as wide as its widest cell.
//!
//! - **Promise**: on a terminal a row fits on one line if possible: columns of names are cut, the
//!   widest first, but not below `NARROW`; then columns that may be missing are left out, empty ones
//!   first. Elsewhere nothing is cut. A wide character (Unicode Standard Annex 11) counts as two.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar as _;

use crate::sys::terminal::{OutputStyle, Style};

/// Fewest columns of a cut name.
const NARROW: usize = 12;
/// Spaces between two columns.
const GAP: usize = 2;

/// The text of a cell, and its tint.
pub struct Cell(pub String, pub Style);

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text, Style::Plain)
    }
}

/// A column.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    align_right: bool,
    may_be_cut: bool,
    /// The lower, the sooner it is left out; `None`: never.
    rank: Option<u8>,
    /// Whether it is left out if no row has anything in it.
    is_rare: bool,
}

impl Column {
    /// Creates a left-aligned column.
    pub const fn left(name: &'static str) -> Self {
        Self { name, align_right: false, may_be_cut: false, rank: None, is_rare: false }
    }

    /// Creates a right-aligned column, for numbers and times.
    pub const fn right(name: &'static str) -> Self {
        Self { name, align_right: true, may_be_cut: false, rank: None, is_rare: false }
    }

    /// Creates a left-aligned column that may be cut.
    pub const fn cut(name: &'static str) -> Self {
        Self { name, align_right: false, may_be_cut: true, rank: None, is_rare: false }
    }

    /// Lets it be left out where there is no room, after columns with a lower rank.
    pub const fn optional(self, rank: u8) -> Self {
        Self { rank: Some(rank), ..self }
    }

    /// Leaves it out, also where there is room, if no row has anything in it.
    pub const fn rare(self) -> Self {
        Self { is_rare: true, ..self }
    }
}

/// A table.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Creates a table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub fn add(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// Prints it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, style: OutputStyle, mut output: impl Write) -> io::Result<()> {
        let shown = self.layout(style);
        let head = self.columns.iter().map(|column| Cell(column.name.into(), Style::Head));
        let head: Vec<Cell> = head.collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            // Spaces at the end of a line are not printed.
            let mut spaces = 0;
            for &(index, width) in &shown {
                let Cell(text, tint) = &row[index];
                let text = cut(text, width);
                let spare = width - length(&text);
                let (before, after) =
                    if self.columns[index].align_right { (spare, 0) } else { (0, spare) };
                if !text.is_empty() {
                    write!(output, "{:1$}{2}", "", spaces + before, style.paint(*tint, &text))?;
                    spaces = 0;
                } else {
                    spaces += before;
                }
                spaces += after + GAP;
            }
            writeln!(output)?;
        }
        Ok(())
    }

    /// Returns the columns that are shown, each with its width.
    fn layout(&self, style: OutputStyle) -> Vec<(usize, usize)> {
        let used = |index: &usize| !(self.columns[*index].is_rare && self.is_empty(*index));
        let used = (0..self.columns.len()).filter(used);
        let mut shown: Vec<_> = used.map(|index| (index, self.full_width(index))).collect();
        let Some(room) = style.width else { return shown };
        loop {
            let excess = total(&shown).saturating_sub(room);
            let cuttable = shown.iter_mut().filter(|(index, _)| self.columns[*index].may_be_cut);
            let widest = cuttable.map(|(_, width)| width).max().filter(|width| **width > NARROW);
            match widest {
                Some(width) if excess > 0 => *width -= 1,
                None if excess > 0 => {
                    let ranked = shown.iter().enumerate().filter_map(|(place, (index, _))| {
                        let rank = self.columns[*index].rank?;
                        Some(((!self.is_empty(*index), rank), place))
                    });
                    let Some((_, place)) = ranked.min() else { return shown };
                    shown.remove(place);
                    // The others may be wider again.
                    shown.iter_mut().for_each(|(index, width)| *width = self.full_width(*index));
                }
                _ => return shown,
            }
        }
    }

    fn full_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| length(&row[index].0));
        cells.chain([self.columns[index].name.len()]).max().unwrap_or_default()
    }

    /// Returns whether a column tells nothing.
    fn is_empty(&self, index: usize) -> bool {
        self.rows.iter().all(|row| ["", "-"].contains(&row[index].0.as_str()))
    }
}

fn total(shown: &[(usize, usize)]) -> usize {
    let widths: usize = shown.iter().map(|(_, width)| width).sum();
    widths + GAP * shown.len().saturating_sub(1)
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or_default()
}

fn length(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let left = room.checked_sub(columns_of(*c));
        room = left.unwrap_or_default();
        left.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(style: OutputStyle) -> String {
        let mut table = Table::new(&[
            Column::left("ADDRESS"),
            Column::cut("USERS"),
            Column::right("LOGINS"),
            Column::cut("NOTE"),
        ]);
        let long = "joe.the.plumber@mail.example.org";
        for (address, user, logins, note) in
            [("192.0.2.7", long, "7", ""), ("2001:db8::7", "ann", "1234567", "a guest")]
        {
            let cell = |text: &str| Cell::from(text.to_owned());
            table.add(vec![
                cell(address),
                cell(user),
                Cell(logins.into(), Style::Good),
                cell(note),
            ]);
        }
        let mut output = Vec::new();
        table.print(style, &mut output).expect("a Vec takes all");
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn columns_fit_their_widest_cell() {
        assert_eq!(
            printed(OutputStyle::default()),
            "ADDRESS      USERS                              LOGINS  NOTE\n\
             192.0.2.7    joe.the.plumber@mail.example.org        7\n\
             2001:db8::7  ann                               1234567  a guest\n"
        );
    }

    #[test]
    fn names_are_cut_on_a_terminal() {
        let shown = printed(OutputStyle { colour: false, width: Some(60) });
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        assert!(
            shown.contains("joe.the.plumber@mail.example…") && shown.contains("a guest"),
            "{shown}"
        );
        let narrow = printed(OutputStyle { colour: false, width: Some(10) });
        assert!(narrow.contains("joe.the.plu…  ") && narrow.contains("2001:db8::7"), "{narrow}");
    }

    #[test]
    fn columns_are_left_out_before_a_row_is_too_long() {
        let mut table = Table::new(&[
            Column::left("ADDRESS"),
            Column::left("HOST").optional(1),
            Column::right("SINCE").optional(2),
            Column::left("EMPTY").optional(3),
            Column::left("RARE").rare(),
        ]);
        let row = ["192.0.2.7", "mx1", "5m 0s ago", "-", ""];
        table.add(row.map(|text| Cell::from(text.to_owned())).into());
        for (width, expected) in [
            (40, "ADDRESS    HOST      SINCE  EMPTY"),
            (30, "ADDRESS    HOST      SINCE"),
            (24, "ADDRESS        SINCE"),
            (16, "ADDRESS"),
            (1, "ADDRESS"),
        ] {
            let mut output = Vec::new();
            let style = OutputStyle { colour: false, width: Some(width) };
            table.print(style, &mut output).expect("a Vec takes all");
            let text = String::from_utf8(output).expect("text");
            assert_eq!(text.lines().next(), Some(expected), "{width}");
        }
    }

    #[test]
    fn wide_characters_count_as_two() {
        assert_eq!((length("日本語"), length("jörg")), (6, 4));
        assert_eq!((cut("日本語です", 6), cut("日本語です", 5)), ("日本…".into(), "日本…".into()));
        assert_eq!((cut("日本語", 6), cut("a日本語", 4)), ("日本語".into(), "a日…".into()));
    }

    #[test]
    fn colours_do_not_change_widths() {
        let shown = printed(OutputStyle { colour: true, width: None });
        let plain = shown.replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_ne!(plain, shown);
        assert_eq!(plain, printed(OutputStyle::default()));
    }
}
