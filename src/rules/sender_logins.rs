//! Loads who may send as which address: the sender table, Postfix's maps, and the address
//! delimiters.
//!
//! - **Promise**: loaded as a whole at start and at each reload, so that no request waits for a
//!   file or a map.
//! - **Limits**: the `postmap -s` output of a map, at most 1 MiB.
//! - **Not here**: what the lists mean ([`crate::engine::protocol`]).

use std::path::Path;
use std::time::Duration;

use super::table_file;
use crate::config::Config;
use crate::config::sending::Sending;
use crate::engine::protocol::login_maps::LoginMaps;
use crate::engine::protocol::sender_logins::{Binding, SenderTable, Senders};
use crate::error::Failure;
use crate::postfix::Postfix;
use crate::postfix::map_spec::MapSpec;
use crate::sys::child;

/// Printing a local map takes a fraction of this.
const LIMIT: Duration = Duration::from_secs(20);

/// Loads who may send as which address.
///
/// # Errors
/// A table cannot be read, or Postfix cannot be queried.
pub async fn senders(config: &Config) -> Result<Senders, Failure> {
    let Sending { binding, table, login_maps, delimiters, .. } = &config.sending;
    let postfix = || Postfix::locate(config.matching.postfix_config.clone());
    let delimiters = match delimiters {
        Some(delimiters) => delimiters.clone(),
        None if *binding == Binding::Any => String::new(),
        None => {
            let asked = async { postfix()?.parameter("recipient_delimiter").await };
            asked.await.map_err(|failure: Failure| {
                Failure::config(format!(
                    "cannot read Postfix's recipient_delimiter: {}",
                    failure.what()
                ))
                .hint("set sender-delimiter, such as + or an empty value")
            })?
        }
    };
    let table = table.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let mut owners = LoginMaps::default();
    for map in login_maps {
        owners.add(&dump(&postfix()?, map).await?);
    }
    Ok(Senders {
        binding: *binding,
        domains: config.sending.domains.clone(),
        table,
        login_maps: owners,
        delimiters,
        allow_null: config.sending.allow_null,
        mismatch: config.sending.mismatch.clone(),
    })
}

/// Reads a sender table.
///
/// # Errors
/// The file cannot be read, is not trusted, or is invalid.
pub fn read_file(path: &Path) -> Result<SenderTable, Failure> {
    let form = "each line is `login address[, address...]`";
    table_file::read(path, "sender-table", form, SenderTable::read)
}

/// Returns all entries of a map (postmap(1), `-s`).
async fn dump(postfix: &Postfix, map: &MapSpec) -> Result<String, Failure> {
    let mut postmap = postfix.postmap_command();
    let table = postfix.map_type(&map.kind).await?;
    let table = format!("{table}:{}", map.path.display());
    child::run(postmap.args(["-s", &table]), LIMIT).await.map_err(|error| {
        Failure::config(format!("cannot read the sender-login-map `{map}`: {error}")).hint(
            "the map type must support `postmap -s`, as hash, lmdb and cdb do; for ldap, sql or \
             regexp use a sender-table instead",
        )
    })
}
