//! Tables in files, in the form of Postfix's: a key, and words about it.
//!
//! - **Promise**: `#` begins a comment line, and a line that begins with white space continues the
//!   one before. Words are separated by white space or commas. A key may have several lines.

/// One line of a table.
#[derive(Debug)]
pub struct TableRow<'a> {
    /// The number of the line.
    pub number: usize,
    /// The key, also if it is on a line before.
    pub key: &'a str,
    /// The other words of the line.
    pub words: Vec<&'a str>,
}

/// Splits the text of a table.
///
/// # Errors
/// The number of the first line that continues nothing.
pub fn rows(text: &str) -> Result<Vec<TableRow<'_>>, String> {
    let (mut rows, mut last) = (Vec::new(), None);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        if !line.starts_with([' ', '\t']) {
            last = words.next();
        }
        let Some(key) = last else {
            return Err(format!("line {number}: there is no line before it to continue"));
        };
        rows.push(TableRow { number, key, words: words.collect() });
    }
    Ok(rows)
}
