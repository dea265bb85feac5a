//! Tables: rows under a heading, each column as wide as its widest cell.
//!
//! - **Promise**: on a terminal a row fits on one line if possible: columns of names are cut, the
//!   widest first, but not below `NARROW`. Elsewhere nothing is cut.

use std::io::{self, Write};

use crate::sys::terminal::{OutputStyle, Style};

/// Fewest characters of a cut name.
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
}

impl Column {
    /// Creates a left-aligned column.
    pub const fn left(name: &'static str) -> Self {
        Self { name, align_right: false, may_be_cut: false }
    }

    /// Creates a right-aligned column, for numbers and times.
    pub const fn right(name: &'static str) -> Self {
        Self { name, align_right: true, may_be_cut: false }
    }

    /// Creates a left-aligned column that may be cut.
    pub const fn cut(name: &'static str) -> Self {
        Self { name, align_right: false, may_be_cut: true }
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
        let widths = self.widths(style);
        let head = self.columns.iter().map(|column| Cell(column.name.into(), Style::Head));
        let head: Vec<Cell> = head.collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            // Spaces at the end of a line are not printed.
            let mut spaces = 0;
            for ((Cell(text, tint), &width), column) in row.iter().zip(&widths).zip(&self.columns) {
                let text = cut(text, width);
                let spare = width - length(&text);
                let (before, after) = if column.align_right { (spare, 0) } else { (0, spare) };
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

    fn widths(&self, style: OutputStyle) -> Vec<usize> {
        let widest = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().map(|row| length(&row[index].0));
            cells.chain([column.name.len()]).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let Some(room) = style.width else { return widths };
        loop {
            let excess =
                (widths.iter().sum::<usize>() + GAP * (widths.len() - 1)).saturating_sub(room);
            let cuttable = self.columns.iter().zip(&mut widths).filter(|(c, _)| c.may_be_cut);
            let widest = cuttable.map(|(_, width)| width).max().filter(|width| **width > NARROW);
            match widest {
                Some(width) if excess > 0 => *width -= 1,
                _ => return widths,
            }
        }
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
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
    fn colours_do_not_change_widths() {
        let shown = printed(OutputStyle { colour: true, width: None });
        let plain = shown.replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_ne!(plain, shown);
        assert_eq!(plain, printed(OutputStyle::default()));
    }
}
