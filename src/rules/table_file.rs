//! Reads a table that the administrator has written: senders or limits of their own.
//!
//! - **Limits**: a file of `MAX_TABLE` bytes.

use std::path::Path;

use crate::error::Failure;
use crate::sys::trusted_file;

/// Bytes: a million users with one line each.
const MAX_TABLE: u64 = 64 << 20;

/// Reads the table that an option names and parses it. `form` says what each line is.
///
/// # Errors
/// The file cannot be read, is not trusted, or is invalid.
pub fn read<T>(
    path: &Path,
    option: &str,
    form: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    let shown = path.display();
    let bytes = trusted_file::read(path, MAX_TABLE).map_err(|refusal| {
        let hint = format!("the daemon's user must be able to read it; --{option} names another");
        refusal.failure(Failure::config, option, &hint)
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::config(format!("{option} `{shown}` is not UTF-8 text")))?;
    parse(&text).map_err(|why| Failure::config(format!("{option} `{shown}`: {why}")).hint(form))
}
