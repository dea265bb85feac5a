//! Checks the published table: its type, its compiled file, and its generation.
//!
//! - **Source**: smtpd(8) opens tables as root, before it enters the chroot; proxymap(8), which
//!   opens `proxy:` tables, runs as mail_owner.

use std::path::{Path, PathBuf};

use super::channels::table_of;
use super::findings::Report;
use super::permissions::{Obstacle, Permission};
use super::setup::Setup;
use crate::engine::publication::GENERATION_KEY;
use crate::sys::files::with_suffix;

/// File extensions that postmap(1) appends. Since Postfix 3.11 a `hash:` table may have that of another
/// type (postfix-non-bdb(1)).
const COMPILED: [&str; 3] = [".db", ".lmdb", ".cdb"];

/// Examines a table. `published` is the last generation that the running daemon published.
pub async fn examine(setup: &Setup, table: &str, published: Option<u64>, report: &mut Report) {
    let Some((kind, path)) = table.split_once(':') else { return };
    if !setup.types.iter().any(|known| known == kind) {
        report.problem(
            format!("Postfix does not support the map type {kind}"),
            format!("It cannot open {table}, and every client checked against it gets 451."),
            format!("apt-get install postfix-{kind}; or use a type that `postconf -m` lists"),
        );
        return;
    }
    report.ok(format!("Postfix {} supports the map type {kind}", setup.version));
    let Some(compiled) = compiled_file(kind, Path::new(path)) else {
        report.problem(
            format!("{table} has no compiled file"),
            "An smtpd that finds it missing answers 451 to every recipient, also in your own domains, \
             until that smtpd process ends.",
            "start the daemon, which publishes the map; then: postfix reload",
        );
        return;
    };
    check_readable(setup, table, &compiled, report);
    check_generation(setup, table, published, report).await;
}

/// Returns the compiled file of a table, if it exists.
pub fn compiled_file(kind: &str, path: &Path) -> Option<PathBuf> {
    let usual = COMPILED.iter().filter(|extension| extension[1..] == *kind);
    usual.chain(&COMPILED).map(|extension| with_suffix(path, extension)).find(|file| file.exists())
}

fn check_readable(setup: &Setup, table: &str, compiled: &Path, report: &mut Report) {
    let Some(owner) = &setup.owner else { return };
    let Some(obstacle) = owner.obstacle(Path::new("/"), compiled, Permission::Read) else {
        report.ok(format!("{} can read {}", owner.name, compiled.display()));
        return;
    };
    let proxied = setup.all_lists().any(|(_, _, list)| {
        list.iter().any(|r| table_of(r, "check_client_access") == Some((table, true)))
    });
    if proxied {
        report.problem(
            format!("{} cannot read {}: {}", owner.name, compiled.display(), describe(&obstacle)),
            format!(
                "main.cf names the table with `proxy:`. proxymap opens it as {}, and every client \
                 checked against it gets 451.",
                owner.name
            ),
            format!("{}; or remove `proxy:`: smtpd opens tables as root", fix_for(&obstacle)),
        );
    } else {
        // Without `proxy:` that is sufficient.
        report.ok(format!(
            "smtpd opens {} as root ({} cannot read it, and need not)",
            compiled.display(),
            owner.name
        ));
    }
}

async fn check_generation(setup: &Setup, table: &str, published: Option<u64>, report: &mut Report) {
    match setup.postfix.lookup(table, GENERATION_KEY).await {
        Err(error) => report.problem(
            format!("{table} cannot be read: {error}"),
            "smtpd cannot read it either, and every client checked against it gets 451.",
            "restart the daemon, which publishes it again; then: postfix reload",
        ),
        Ok(None) => report.problem(
            format!("{table} was not written by the daemon"),
            format!(
                "The entry {GENERATION_KEY} is missing: the map is empty, or of another program."
            ),
            "start the daemon; if it is running, compare its option `map` with main.cf",
        ),
        Ok(Some(value)) => {
            let number = value.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
            match (number, published) {
                (Some(found), Some(last)) if found < last => report.problem(
                    format!(
                        "{table} is generation {found}, but the daemon has published generation {last}"
                    ),
                    "An older file has replaced it: a restored backup, or a second daemon.",
                    "restart the daemon",
                ),
                // A later generation may have been published meanwhile.
                (Some(found), _) => {
                    report.ok(format!("{table} can be read and is generation {found}"));
                }
                (None, _) => report.problem(
                    format!("the entry {GENERATION_KEY} of {table} has no generation number"),
                    "Another program has written this map.",
                    "restart the daemon",
                ),
            }
        }
    }
}

/// Describes an obstacle.
pub fn describe(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Closed(path, Permission::Pass) => {
            format!("no search permission on {}", path.display())
        }
        Obstacle::Closed(path, Permission::Read) => {
            format!("no read permission on {}", path.display())
        }
        Obstacle::Closed(path, Permission::Write) => {
            format!("no write permission on {}", path.display())
        }
        Obstacle::Unseen(path, error) => format!("{}: {error}", path.display()),
    }
}

/// Returns the command that removes an obstacle, for all users.
pub fn fix_for(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Closed(path, Permission::Pass) => format!("chmod o+x {}", path.display()),
        Obstacle::Closed(path, Permission::Read) => format!("chmod o+r {}", path.display()),
        Obstacle::Closed(path, Permission::Write) => format!("chmod o+w {}", path.display()),
        Obstacle::Unseen(path, _) => format!("ls -l {}", path.display()),
    }
}
