//! The commands that ask the running daemon: `list`, `query`, `allow`, `revoke`, `status`.
//!
//! - **Promise**: they work while the configuration file is broken, as long as the control socket is
//!   where the file says, or at its default path. What the daemon knows and the map does not show is
//!   said.

use std::io::{BufWriter, Write as _, stdout};
use std::net::IpAddr;
use std::path::PathBuf;

use super::args::{AllowArgs, ControlArgs, ListArgs, QueryArgs, RevokeArgs, StatusArgs};
use super::{CommandResult, output, print, warn, written};
use crate::config::layer::Layer;
use crate::control::client;
use crate::control::protocol::{Answer, Entry, Request, Unconfirmed, WhyNot};
use crate::engine::message::address;
use crate::error::{Failure, Failures};
use crate::sys::terminal::{OutputStyle, clean};

impl ControlArgs {
    /// Returns the control socket and, unless the command line names that, the read-only one.
    pub(super) fn sockets(&self) -> (PathBuf, Option<PathBuf>) {
        if let Some(control) = &self.control {
            return (control.clone(), None);
        }
        let layer = Layer::below_command_line(self.config.as_deref());
        let control = layer.control().path;
        if let Some(fault) = layer.faults.first() {
            let more = layer.faults.len() - 1;
            let more = if more > 0 { format!(" (and {more} more faults)") } else { String::new() };
            warn(&format!("{}{more}; `pop-before-smtp check` shows all", fault.what()));
        }
        if layer.unread.contains("control") {
            let shown = control.display();
            warn(&format!("trying the default control socket, `{shown}`; --control names another"));
        }
        (control, layer.control_read.map(|socket| socket.path))
    }

    fn ask(&self, request: &Request) -> Result<Answer, Failures> {
        let (control, read_only) = self.sockets();
        Ok(client::ask(&control, read_only.as_deref(), request)?)
    }
}

fn unexpected(answer: &Answer) -> CommandResult {
    Err(client::unexpected_answer(answer).into())
}

/// Lists the authorised addresses, and for people the blocked ones too.
pub(super) fn list(args: &ListArgs) -> CommandResult {
    let (control, read_only) = args.control.sockets();
    let style = OutputStyle::of(&stdout());
    let blocks = || client::ask(&control, read_only.as_deref(), &Request::Blocked);
    if args.blocked {
        return match blocks()? {
            Answer::Blocks(blocks) if args.json => {
                written(output::json_line(&blocks, stdout().lock()))
            }
            Answer::Blocks(blocks) if blocks.is_empty() => print("nobody is blocked"),
            Answer::Blocks(blocks) => written(output::blocks(&blocks, style, stdout().lock())),
            other => unexpected(&other),
        };
    }
    let entries = client::list(&control, read_only.as_deref())?;
    let mut out = BufWriter::new(stdout().lock());
    if args.json {
        return written(output::json_line(&entries, out));
    }
    written(output::entries(&entries, style, &mut out))?;
    // A daemon of an earlier version does not tell them.
    if let Ok(Answer::Blocks(blocks)) = blocks()
        && !blocks.is_empty()
    {
        written(writeln!(out).and_then(|()| output::blocks(&blocks, style, &mut out)))?;
    }
    written(out.flush())?;
    drop(out);
    let missing: Vec<_> = entries.iter().filter(|entry| entry.in_map == Some(false)).collect();
    if let Some(first) = missing.first() {
        warn(&format!("not in the map: {} of these addresses. {}", missing.len(), absence(first)));
    }
    Ok(true)
}

/// Says why the map has no entry for an authorised address.
fn absence(entry: &Entry) -> String {
    let address = entry.address;
    if address::admits_others(address) {
        format!(
            "The key of {address} would also admit other hosts of its network, so Postfix does not \
             see it in the map; map-inexact-ipv6 = true publishes it anyway, and policy or socketmap \
             answers are exact"
        )
    } else {
        "The map is not published, so Postfix does not admit it; see `status` for why".into()
    }
}

fn tell_absence(entry: &Entry) {
    if entry.in_map == Some(false) {
        warn(&format!("{} is not in the map. {}", entry.address, absence(entry)));
    }
}

/// Tells whether an address is authorised.
pub(super) fn query(args: &QueryArgs) -> CommandResult {
    let address = args.address.to_canonical();
    match args.control.ask(&Request::Query { address: args.address })? {
        Answer::Query(entry) => {
            tell_absence(&entry);
            written(output::entry(&entry, stdout().lock()))
        }
        Answer::No(why) => {
            print(&format!("{address} is not authorised: {}", explanation(address, &why)))?;
            Ok(false)
        }
        other => unexpected(&other),
    }
}

/// Says why an address is not authorised. What the daemon tells of logins is escaped.
fn explanation(address: IpAddr, why: &WhyNot) -> String {
    match why {
        WhyNot::Excluded(list) => exclusion(address, list),
        WhyNot::Blocked(until) => format!("blocked until {until} (`allow` ends the block)"),
        WhyNot::Shared(users) => {
            format!("{users} users have logged in from it, more than max-users-per-address allows")
        }
        WhyNot::Rule(label) => format!("no login from it authorises, by {}", clean(label)),
        WhyNot::Refused { at, reason } => {
            format!("its last login, at {at}, was refused: {}", clean(reason))
        }
        WhyNot::Ended { at, reason } => {
            let reason = reason.strip_prefix("no longer authorised: ").unwrap_or(reason);
            format!("it was until {at}: {reason}")
        }
        WhyNot::Unknown => {
            "no login from it is known; `pop-before-smtp test` shows what becomes of \
                            a line of your log"
                .into()
        }
    }
}

/// Says why an address is never authorised.
fn exclusion(address: IpAddr, list: &str) -> String {
    let why = match list {
        "loopback" | "own" => "it is this host itself, where webmail and other programs log in too",
        "gateway" => "it is this host's gateway, which may stand for many clients",
        "link-local" => "it is a link-local address, which other hosts may have too",
        "mynetworks" => "it belongs to Postfix's mynetworks, and may relay without a login",
        file if file.starts_with("file:") => "a file that you have written names it",
        _ => return format!("never, because `{address}` belongs to the option `exclude`"),
    };
    format!("never, because {why} (the option `exclude`: {list})")
}

/// Authorises an address.
pub(super) fn allow(args: AllowArgs) -> CommandResult {
    let seconds = args.span.map(|span| span.0.as_secs());
    match args.control.ask(&Request::Allow { address: args.address, seconds, note: args.note })? {
        Answer::Allowed { entry, published, unconfirmed } => {
            if entry.in_map == Some(false) {
                tell_absence(&entry);
            } else if !published {
                warn(
                    "the map does not contain the address yet; see `status` for why it is not \
                     published",
                );
            }
            tell_unconfirmed(&unconfirmed);
            written(output::entry(&entry, stdout().lock()))
        }
        other => unexpected(&other),
    }
}

/// Warns of other hosts that do not know of a change.
fn tell_unconfirmed(unconfirmed: &Unconfirmed) {
    let hosts = unconfirmed.hosts.join(", ");
    match (unconfirmed.untold, hosts.is_empty()) {
        (true, true) => warn(
            "it is in force here, but other hosts of the cluster cannot be told yet; see `status`",
        ),
        (_, false) => warn(&format!(
            "it is in force here, but these hosts have not confirmed it: {hosts}; they follow as soon \
             as they hear of it, see `status`"
        )),
        (false, true) => {}
    }
}

/// Ends an authorisation.
pub(super) fn revoke(args: &RevokeArgs) -> CommandResult {
    let block = args.block.map(|span| span.0.as_secs());
    match args.control.ask(&Request::Revoke { address: args.address, block })? {
        Answer::Revoked { was_authorised, saved, published, stuck, unconfirmed } => {
            if stuck {
                warn(
                    "the map can neither be published nor emptied, and may still contain the \
                     address; the daemon's log says why",
                );
            } else if !published {
                warn(
                    "the map is not published yet, and may contain the address for another minute; \
                     see `status` for why",
                );
            }
            if !saved {
                warn(
                    "the change is not saved to disk yet, so a crash would undo it; see `status` for \
                     why",
                );
            }
            tell_unconfirmed(&unconfirmed);
            let address = args.address.to_canonical();
            let state =
                if was_authorised { "is no longer authorised" } else { "was not authorised" };
            match args.block {
                Some(span) => {
                    let span = humantime::format_duration(span.0);
                    print(&format!("{address} {state}; new logins do not count for {span}"))
                }
                None => print(&format!(
                    "{address} {state}; the next login from it authorises it again (--block 1h \
                     refuses that for an hour)"
                )),
            }
        }
        other => unexpected(&other),
    }
}

/// Shows the daemon's status, or only whether mail is affected.
pub(super) fn status(args: &StatusArgs) -> CommandResult {
    let status = match args.control.ask(&Request::Status)? {
        Answer::Status(status) => status,
        other => return unexpected(&other),
    };
    if !args.check || args.json {
        let style = OutputStyle::of(&stdout());
        written(output::status(&status, args.json, style, BufWriter::new(stdout().lock())))?;
    }
    match status.fault {
        Some(fault) if args.check => Err(Failure::refused(fault).into()),
        _ => Ok(true),
    }
}
