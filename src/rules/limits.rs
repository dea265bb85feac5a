//! Loads how much may be relayed: the options, and the table of exceptions.

use std::path::Path;

use super::table_file;
use crate::config::limiting::Limiting;
use crate::engine::limits::Limits;
use crate::engine::limits::table::LimitTable;
use crate::engine::protocol::sender_logins::Binding;
use crate::error::Failure;

/// Loads the limits.
///
/// # Errors
/// As [`read_file`].
pub fn limits(limiting: &Limiting) -> Result<Limits, Failure> {
    let table = limiting.table.as_deref().map(read_file).transpose()?.unwrap_or_default();
    Ok(Limits { general: limiting.general, action: limiting.action, table })
}

/// Returns a warning that does not prevent the start, if there is one.
pub fn remark(limits: &Limits, binding: Binding) -> Option<String> {
    let is_unknown = binding == Binding::Any && limits.table.has_users();
    is_unknown.then(|| {
        "limits: the lines that name users limit nobody, because with `sender = any` it is not known \
         whose message it is; set sender = \"user\", or name addresses"
            .to_owned()
    })
}

/// Reads a table of limits.
///
/// # Errors
/// The file cannot be read, is not trusted, or is invalid.
pub fn read_file(path: &Path) -> Result<LimitTable, Failure> {
    let form = "each line is an address, a network or a login name, and messages-per-hour=N or \
                recipients-per-hour=N or both";
    table_file::read(path, "limits", form, LimitTable::read)
}
