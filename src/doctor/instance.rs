//! Checks the running Postfix: whether it runs, and whether its processes have read the configuration
//! and the map as they are now.
//!
//! - **Source**: master(8) reads master.cf at its start and at `postfix reload`; an smtpd reads
//!   main.cf and opens its tables once, at its own start, and lives for up to `max_use` sessions.
//! - **Limits**: root only, and in Postfix's own container only.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::channels::{Channel, table_of};
use super::families;
use super::findings::Report;
use super::map::compiled_file;
use super::postfix::processes::{Instance, Processes, Smtpd};
use super::setup::Setup;

/// How inexact the start of a process is.
const PRECISION: Duration = Duration::from_millis(100);
/// An smtpd has opened its tables long before.
const STARTED: Duration = Duration::from_secs(1);

/// Examines the processes of Postfix.
pub fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    match Instance::find(&setup.queue) {
        Instance::Running(processes) => {
            report.ok(format!("Postfix is running (process {})", processes.master));
            families::examine_reach(setup, report);
            check_files(setup, &processes, report);
            for channel in channels {
                if let Channel::Map(table) = channel {
                    check_tables(setup, &processes, table, report);
                }
            }
        }
        Instance::Hidden => {}
        Instance::Stopped => report.problem(
            "Postfix is not running",
            "It accepts no mail.",
            setup.postfix_command("start"),
        ),
    }
}

/// Compares main.cf and master.cf with the processes that have read them.
fn check_files(setup: &Setup, processes: &Processes, report: &mut Report) {
    let changed = |name: &str| {
        let time =
            fs::metadata(setup.directory.join(name)).and_then(|meta| meta.modified()).ok()?;
        is_later(time, processes.loaded).then_some(time)
    };
    let mut sound = true;
    if changed("master.cf").is_some() {
        sound = false;
        report.problem(
            "master.cf was changed after Postfix had read it",
            "Postfix reads it at its start and when it is reloaded, so the change has no effect yet.",
            setup.reload(),
        );
    }
    if let Some(time) = changed("main.cf") {
        sound = false;
        let what = "main.cf was changed after Postfix had read it";
        let is_old = |smtpd: &&Smtpd| is_later(time, smtpd.started);
        let old: Vec<&Smtpd> = processes.smtpd.iter().filter(is_old).collect();
        if old.is_empty() {
            let why = "Processes that start later read it, the others have not: some settings have no \
                       effect yet.";
            report.note(what, why, setup.reload());
        } else {
            let why = format!(
                "{} still use what it was before, for up to a hundred sessions each.",
                named(&old)
            );
            report.problem(what, why, setup.reload());
        }
    }
    if sound {
        report.ok("Postfix has read main.cf and master.cf as they are now");
    }
}

/// Checks that every smtpd whose restrictions name our table has it open.
fn check_tables(setup: &Setup, processes: &Processes, table: &str, report: &mut Report) {
    let Some((kind, path)) = table.split_once(':') else { return };
    // Reported with the table.
    if compiled_file(kind, Path::new(path)).is_none() {
        return;
    }
    let uses = |service: &str| {
        setup.all_lists().any(|(entry, _, list)| {
            entry.name == service
                && list.iter().any(|r| table_of(r, "check_client_access") == Some((table, false)))
        })
    };
    // It keeps the file open, under the name that it had; a replaced one is marked as deleted.
    let beginning = format!("{path}.");
    let lacks = |smtpd: &&Smtpd| {
        let files = smtpd.open_files().unwrap_or_default();
        let is_open = |file: &Path| file.to_str().is_some_and(|name| name.starts_with(&beginning));
        !files.is_empty() && !files.iter().any(|file| is_open(file))
    };
    let now = SystemTime::now();
    // One that is older than the last reload ends with its session, one that is new may not be ready.
    let is_settled = |smtpd: &&Smtpd| {
        let age = now.duration_since(smtpd.started).unwrap_or_default();
        !is_later(processes.loaded, smtpd.started) && age > STARTED
    };
    let services = processes.smtpd.iter().filter(|smtpd| uses(&smtpd.service));
    let without: Vec<&Smtpd> = services.filter(is_settled).filter(lacks).collect();
    if !without.is_empty() {
        report.problem(
            format!("{} have not opened {table}", named(&without)),
            "They started before it was published, or before main.cf named it. In the first case they \
             answer 451 to every recipient, in the second they refuse authorised clients, until they \
             end.",
            setup.reload(),
        );
    }
}

fn is_later(time: SystemTime, other: SystemTime) -> bool {
    time.duration_since(other).is_ok_and(|by| by > PRECISION)
}

fn named(processes: &[&Smtpd]) -> String {
    let ids: Vec<String> = processes.iter().map(|smtpd| smtpd.id.to_string()).collect();
    format!("{} smtpd processes ({})", ids.len(), ids.join(", "))
}
