//! Examines the running daemon's status and its counters.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::findings::Report;
use super::host::service;
use crate::control::protocol::Entry;
use crate::control::status::{ListenerKind, STOPPED, StateFault, Status};
use crate::daemon::receiver::bind;

/// Reports what is wrong with the running daemon.
pub fn examine(status: &Status, report: &mut Report) {
    report.ok(format!(
        "the daemon is running (version {}, since {})",
        status.version, status.started
    ));
    if status.version != env!("CARGO_PKG_VERSION") {
        report.note(
            format!("the running daemon is version {}", status.version),
            format!("This program is version {}.", env!("CARGO_PKG_VERSION")),
            "restart the daemon",
        );
    }
    map(status, report);
    state(status, report);
    listeners(status, report);
    logins(status, report);
    shared(status, report);
    for lookup in status.lookups.iter().filter(|lookup| lookup.broken > 0) {
        report.note(
            format!("{}: dropped {} connections", lookup, lookup.broken),
            "They sent something invalid, or nothing for too long: main.cf uses the socket for the \
             other protocol, or something other than Postfix connects.",
            "--log-level debug shows why",
        );
    }
}

fn map(status: &Status, report: &mut Report) {
    let map = &status.map;
    let Some(table) = &map.table else { return };
    match map.trying_seconds {
        None if !map.pending => {
            report.ok(format!("{table} is up to date: generation {}", map.published));
        }
        // It will be published in a moment.
        None => report.ok(format!("{table}: generation {} is being replaced", map.published)),
        Some(seconds) => report.problem(
            format!("{table} could not be published for {seconds:.0} s: {}", map.meanwhile()),
            match (map.emptied, map.stuck) {
                (true, _) => "No one can relay by this map.",
                (_, true) => "Expired clients can still relay by this map, without a time limit.",
                _ => "New clients cannot relay by this map. If it lists expired clients for a minute, it is \
                      emptied.",
            },
            if map.stuck {
                "remove it from main.cf now; the daemon's log says why it can be neither published nor \
                 emptied: the disk may be full, or the directory may belong to another user"
            } else {
                "see postmap's error in the daemon's log; the daemon keeps trying, and retries at once \
                 on SIGHUP"
            },
        ),
    }
    if map.kept_out > 0 {
        report.note(
            format!("{} authorised IPv6 addresses are not in {table}", map.kept_out),
            "They are written with `::`, and their keys would also admit other hosts of their network.",
            "let Postfix query the daemon directly (policy), or set map-inexact-ipv6 = true",
        );
    }
}

fn state(status: &Status, report: &mut Report) {
    if let Some(StateFault { seconds, error }) = &status.state_fault {
        report.problem(
            format!("the state file could not be written for {seconds:.0} s: {error}"),
            "Logins still count, but a crash would lose the latest grants and restore those revoked \
             since.",
            "free disk space, or make the directory belong to the daemon's user; the daemon keeps trying",
        );
    }
}

fn listeners(status: &Status, report: &mut Report) {
    for listener in &status.listeners {
        if listener.rejected > 0 {
            let what = format!(
                "{}: rejected {} frames from senders that {} does not allow",
                listener.name,
                listener.rejected,
                filter_option(listener.kind)
            );
            let why = "Logins in them do not count.";
            let fix = how_to_allow(listener.kind);
            if listener.frames == 0 {
                report.problem(what, format!("{why} No other frame has arrived here."), fix);
            } else {
                report.note(what, why, fix);
            }
        }
        let is_udp = listener.kind == ListenerKind::Udp;
        if let Some(bytes) =
            listener.receive_buffer.filter(|bytes| is_udp && *bytes < bind::MIN_RECEIVE_BUFFER)
        {
            report.note(
                format!("{}: the receive buffer has only {bytes} bytes", listener.name),
                "A burst of messages fills it, and the kernel drops the rest.",
                format!(
                    "sysctl -w net.core.rmem_max={}, then restart the daemon",
                    bind::RECEIVE_BUFFER
                ),
            );
        }
        if listener.kernel_drops > 0 {
            let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
            report.problem(
                format!("{}: the kernel has dropped {} frames", listener.name, listener.kernel_drops),
                format!(
                    "The receive buffer was full, and logins may be lost. The kernel allows {} bytes \
                     (net.core.rmem_max).",
                    limit.trim()
                ),
                "echo net.core.rmem_max=8388608 > /etc/sysctl.d/60-pop-before-smtp.conf && \
                 sysctl --system, then restart the daemon; or use a Unix socket, on which the sender \
                 waits",
            );
        }
        if listener.oversized > 0 {
            report.note(
                format!("{}: {} frames were oversized", listener.name, listener.oversized),
                "They were discarded.",
                "find out what sends them",
            );
        }
    }
}

fn logins(status: &Status, report: &mut Report) {
    for (name, daemon) in status.daemons.iter().filter(|(_, daemon)| daemon.stopped) {
        report.problem(
            format!("{name}: no login for a long time, although it still logs"),
            format!("{} of its messages match no pattern: {STOPPED}", daemon.unmatched),
            "find the log line of a login, and run: pop-before-smtp test FILE",
        );
    }
    for (name, daemon) in &status.daemons {
        if let facilities @ [_, ..] = daemon.facilities.as_slice() {
            let (from, narrowed) = (facilities.join(" and "), facilities.join(","));
            report.ok(format!(
                "{name} logs logins to {from}; to accept no other facility: \
                 facility = [\"{name}={narrowed}\"]"
            ));
        }
    }
    let counts = &status.counts;
    if counts.late > 0 {
        report.note(
            format!("{} logins were older than the grace period when they arrived", counts.late),
            "They do not count. A forwarder delivered its queue late, or a clock is wrong: the \
             sender's or its time zone, or this host's when the daemon started.",
            "compare `date --rfc-3339=seconds` on this host and on the sender with the date in the \
             frames (--log-level debug); after setting this host's clock, restart the daemon",
        );
    }
    if counts.ambiguous > 0 {
        report.note(
            format!("{} logins could not be matched to a connect line", counts.ambiguous),
            "More than one connection of the same host, program and PID may have been open, as with \
             containers that share a host name.",
            "give each container its own host name",
        );
    }
    match &status.last_login {
        Some(last) if status.logins == 1 => report.ok(format!("1 login was seen, at {last}")),
        Some(last) => report.ok(format!("{} logins were seen, the last {last}", status.logins)),
        None if status.frames == 0 => report.ok("no login was seen yet, nor any other frame"),
        None => {
            let unmatched = status.daemons.iter().filter(|(_, daemon)| daemon.unmatched > 0);
            let unmatched: Vec<String> =
                unmatched.map(|(name, daemon)| format!("{} of {name}", daemon.unmatched)).collect();
            let whose = if unmatched.is_empty() { "none".into() } else { unmatched.join(", ") };
            let seen = counts.labelled().into_iter().filter(|(_, number)| *number > 0);
            let seen: Vec<String> =
                seen.map(|(label, number)| format!("{label}: {number}")).collect();
            let seen =
                if seen.is_empty() { String::new() } else { format!("; {}", seen.join("; ")) };
            let perhaps = if counts.refused_logins() == 0 {
                "Perhaps no one has logged in yet."
            } else {
                "Logins have arrived, and the configuration or the operator refuses them."
            };
            report.note(
                format!(
                    "no login has counted since {} in {} frames",
                    status.started, status.frames
                ),
                format!("{perhaps} Messages of mail daemons that match no pattern: {whose}{seen}."),
                "log in once from another host; if that does not count, feed its log line to \
                 `pop-before-smtp test`",
            );
        }
    }
}

/// Reports a configuration that the daemon has not read yet.
pub fn examine_configuration(status: &Status, file: Option<&Path>, report: &mut Report) {
    let changed = file.and_then(|file| fs::metadata(file).ok()?.modified().ok());
    let read = humantime::parse_rfc3339(&status.configured).ok();
    let Some((file, (changed, read))) = file.zip(changed.zip(read)) else { return };
    // The status has whole seconds.
    if changed.duration_since(read).is_ok_and(|by| by > Duration::from_secs(1)) {
        report.note(
            format!("{} was changed after the daemon had read it", file.display()),
            "The daemon uses what it was before, and this report judges what it is now.",
            format!("pop-before-smtp check && {}", service::reload()),
        );
    }
}

/// Reports client addresses from which several users have logged in.
pub fn examine_clients(clients: &[Entry], report: &mut Report) {
    let shared: Vec<&Entry> = clients.iter().filter(|client| client.users.len() > 1).collect();
    if let Some(first) = shared.first() {
        report.note(
            format!("several users have logged in from the same address ({} addresses)", shared.len()),
            format!(
                "From {} there were {} users: a home, an office, or a carrier's NAT. Everyone behind \
                 it can relay.",
                first.address,
                first.users.len()
            ),
            "leave it; or set max-users-per-address, or restrict senders (sender = \"user\")",
        );
    }
}

fn shared(status: &Status, report: &mut Report) {
    for shared in &status.shared {
        report.note(
            format!("{} users share {}", shared.users, shared.address),
            "It is not authorised, because of max-users-per-address.",
            "leave it, or raise max-users-per-address",
        );
    }
}

/// Returns the option that restricts the senders at a listener.
pub fn filter_option(listener: ListenerKind) -> &'static str {
    match listener {
        ListenerKind::Udp => "allow-from",
        ListenerKind::Unix => "allow-uid",
    }
}

/// Returns how to allow further senders at a listener.
pub fn how_to_allow(listener: ListenerKind) -> &'static str {
    if listener == ListenerKind::Udp {
        "if they are yours: allow-from = [\"127.0.0.0/8\", \"::1\", \"ADDRESS OF THE SENDER\"], then \
         restart the daemon; --log-level debug shows the senders"
    } else {
        "if they are yours: allow-uid = [\"root\", \"USER OF THE FORWARDER\"], then restart the daemon; \
         --log-level debug shows the senders"
    }
}
