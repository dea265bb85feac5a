//! The published table: Postfix's types, the compiled file, and which generation is in it.
//!
//! Source  smtpd(8) opens tables as root, before it enters the chroot; proxymap(8), which opens
//!         `proxy:` tables, runs as mail_owner.

use std::path::Path;

use super::channels::table_of;
use super::findings::Report;
use super::permissions::{Access, Obstacle};
use super::setup::Setup;
use crate::engine::publication::GENERATION_KEY;
use crate::sys::files::with_suffix;

/// What postmap(1) puts behind the name of the source; `hash:` may be another type's file since
/// Postfix 3.11 (postfix-non-bdb(1)).
const COMPILED: [&str; 3] = [".db", ".lmdb", ".cdb"];

/// Examines a table. `published` is the generation that the running daemon has published last.
pub async fn examine(setup: &Setup, table: &str, published: Option<u64>, report: &mut Report) {
    let Some((kind, path)) = table.split_once(':') else { return };
    if !setup.types.iter().any(|known| known == kind) {
        report.problem(
            format!("this Postfix has no map type {kind}"),
            format!("It cannot open {table}: every client that comes so far gets 451."),
            format!("one of these: postconf -m; or apt-get install postfix-{kind}"),
        );
        return;
    }
    report.ok(format!("Postfix {} has the map type {kind}", setup.version));
    let path = Path::new(path);
    let usual = COMPILED.iter().filter(|extension| extension[1..] == *kind);
    let Some(compiled) = usual.chain(&COMPILED).map(|e| with_suffix(path, e)).find(|p| p.exists())
    else {
        report.problem(
            format!("{table} has no compiled file"),
            "An smtpd that finds it missing answers 451 to every recipient, of your own domains as \
             well, until that smtpd ends.",
            "start the daemon, which publishes it, and then: postfix reload",
        );
        return;
    };
    readable(setup, table, &compiled, report);
    generation(setup, table, published, report).await;
}

fn readable(setup: &Setup, table: &str, compiled: &Path, report: &mut Report) {
    let Some(owner) = &setup.owner else { return };
    let Some(obstacle) = owner.obstacle(Path::new("/"), compiled, Access::Read) else {
        report.ok(format!("{} may read {}", owner.name, compiled.display()));
        return;
    };
    let proxied = setup.all_lists().any(|(_, _, list)| {
        list.iter().any(|r| table_of(r, "check_client_access") == Some((table, true)))
    });
    if proxied {
        report.problem(
            format!("{} cannot read {}: {}", owner.name, compiled.display(), told(&obstacle)),
            format!(
                "main.cf names the table with `proxy:`. proxymap opens it as {}, and where it \
                 cannot, every client that comes so far gets 451.",
                owner.name
            ),
            format!("{}; or take `proxy:` away: smtpd opens tables as root", cure(&obstacle)),
        );
    } else {
        // Without `proxy:` this is as good.
        report.ok(format!("smtpd opens {} as root; {} could not", compiled.display(), owner.name));
    }
}

async fn generation(setup: &Setup, table: &str, published: Option<u64>, report: &mut Report) {
    match setup.postfix.lookup(table, GENERATION_KEY).await {
        Err(trouble) => report.problem(
            format!("{table} cannot be read: {trouble}"),
            "smtpd cannot either, and answers 451 to every client that comes so far.",
            "restart the daemon, which writes it anew, and then: postfix reload",
        ),
        Ok(None) => report.problem(
            format!("{table} was not written by the daemon"),
            format!("Its entry {GENERATION_KEY} is not there: the map is old, foreign, or empty."),
            "start the daemon; if it runs, compare its option map with main.cf",
        ),
        Ok(Some(said)) => {
            let number = said.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
            match (number, published) {
                (Some(found), Some(last)) if found < last => report.problem(
                    format!(
                        "{table} is generation {found}, the daemon has published generation {last}"
                    ),
                    "Something else has put an older file there: a restored backup, or a second \
                     daemon.",
                    "restart the daemon",
                ),
                // A later one has been published meanwhile.
                (Some(found), _) => {
                    report.ok(format!("{table} can be read, and is generation {found}"));
                }
                (None, _) => report.problem(
                    format!("{table} has an entry {GENERATION_KEY} without a number"),
                    "Something else than the daemon has written it.",
                    "restart the daemon",
                ),
            }
        }
    }
}

/// An obstacle in words.
pub fn told(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Closed(path, Access::Pass) => format!("{} is closed", path.display()),
        Obstacle::Closed(path, Access::Read) => format!("{} is not readable", path.display()),
        Obstacle::Closed(path, Access::Write) => format!("{} is not writable", path.display()),
        Obstacle::Unseen(path, error) => format!("{}: {error}", path.display()),
    }
}

/// The command that takes an obstacle away, for everybody.
pub fn cure(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Closed(path, Access::Pass) => format!("chmod o+x {}", path.display()),
        Obstacle::Closed(path, Access::Read) => format!("chmod o+r {}", path.display()),
        Obstacle::Closed(path, Access::Write) => format!("chmod o+w {}", path.display()),
        Obstacle::Unseen(path, _) => format!("ls -l {}", path.display()),
    }
}
