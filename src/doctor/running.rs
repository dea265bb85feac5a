//! How the daemon that runs is: what its counters tell.

use super::findings::Report;
use crate::control::protocol::Entry;
use crate::control::status::{ListenerKind, STOPPED, StateFault, Status};
use crate::daemon::receiver::bind;

/// Tells what is wrong with the running daemon.
pub fn examine(status: &Status, report: &mut Report) {
    report.ok(format!("the daemon runs (version {}, since {})", status.version, status.started));
    if status.version != env!("CARGO_PKG_VERSION") {
        report.note(
            format!("the daemon that runs is version {}", status.version),
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
            format!("{}: {} connections were broken off", lookup, lookup.broken),
            "What came over them was not understood, or they were silent for long: main.cf names \
             the socket for the other protocol, or something else than Postfix asks.",
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
        // It comes with the next publication, a moment from now.
        None => report.ok(format!("{table}: the generation after {} is due", map.published)),
        Some(seconds) => report.problem(
            format!("{table} could not be published for {seconds:.0} s: {}", map.meanwhile()),
            match (map.emptied, map.stuck) {
                (true, _) => "Nobody can relay by it.",
                (_, true) => "Those whose time is up go on to relay by it, without end.",
                _ => "New clients cannot relay by it. If somebody whose time is up stands in it for a \
                      minute, it is emptied.",
            },
            if map.stuck {
                "take it out of main.cf; the daemon's log says why it can be neither published nor \
                 emptied: the disk may be full, or the directory no longer the daemon's"
            } else {
                "see the daemon's log, which has postmap's own words; it goes on to try, and at once \
                 on SIGHUP"
            },
        ),
    }
    if map.kept_out > 0 {
        report.note(
            format!("{} IPv6 addresses are kept out of {table}", map.kept_out),
            "They are written with `::`, and as a key would admit other hosts of their network.",
            "let Postfix ask directly (policy), or set map-inexact-ipv6 = true",
        );
    }
}

fn state(status: &Status, report: &mut Report) {
    if let Some(StateFault { seconds, error }) = &status.state_fault {
        report.problem(
            format!("the state could not be saved for {seconds:.0} s: {error}"),
            "Logins count all the same, but a crash would forget the latest, and bring back rights \
             that have been revoked since.",
            "make room on the disk, or give the directory back to the daemon's user; it goes on to \
             try",
        );
    }
}

fn listeners(status: &Status, report: &mut Report) {
    for listener in &status.listeners {
        if listener.rejected > 0 {
            let what = format!(
                "{}: {} frames came from senders that {} does not name",
                listener.name,
                listener.rejected,
                filter_option(listener.kind)
            );
            let why = "They are not heard.";
            let mend = name_the_senders(listener.kind);
            if listener.frames == 0 {
                report.problem(what, format!("{why} No other frame has come here."), mend);
            } else {
                report.note(what, why, mend);
            }
        }
        let is_udp = listener.kind == ListenerKind::Udp;
        if let Some(bytes) = listener.receive_buffer.filter(|bytes| is_udp && *bytes < bind::ENOUGH)
        {
            report.note(
                format!("{}: a receive buffer of {bytes} bytes", listener.name),
                "A burst of messages fills it, and the kernel drops the rest.",
                format!(
                    "sysctl -w net.core.rmem_max={}, and restart the daemon",
                    bind::RECEIVE_BUFFER
                ),
            );
        }
        if listener.kernel_drops > 0 {
            let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
            report.problem(
                format!("{}: the kernel has dropped {} frames", listener.name, listener.kernel_drops),
                format!(
                    "Its receive buffer was full, and logins may be lost. The kernel grants buffers \
                     of {} bytes (net.core.rmem_max).",
                    most.trim()
                ),
                "echo net.core.rmem_max=8388608 > /etc/sysctl.d/60-pop-before-smtp.conf && \
                 sysctl --system, and restart the daemon; or use a Unix socket, which makes the \
                 sender wait",
            );
        }
        if listener.oversized > 0 {
            report.note(
                format!(
                    "{}: {} frames were larger than any should be",
                    listener.name, listener.oversized
                ),
                "They were not heard.",
                "find out what sends them",
            );
        }
    }
}

fn logins(status: &Status, report: &mut Report) {
    for (name, daemon) in status.daemons.iter().filter(|(_, daemon)| daemon.stopped) {
        report.problem(
            format!("{name}: no login for long, although it goes on to log"),
            format!("{} of its messages fit no pattern: {STOPPED}", daemon.unmatched),
            "grep the log for a line of a login, and: pop-before-smtp test FILE",
        );
    }
    for (name, daemon) in &status.daemons {
        if let facilities @ [_, ..] = daemon.facilities.as_slice() {
            let (from, narrowed) = (facilities.join(" and "), facilities.join(","));
            report.ok(format!(
                "{name} logs its logins to {from}; to believe no other facility: \
                 facility = [\"{name}={narrowed}\"]"
            ));
        }
    }
    let counts = &status.counts;
    if counts.late > 0 {
        report.note(
            format!("{} logins were dated longer ago than the grace when they came", counts.late),
            "They do not count. A forwarder delivered its queue late, or a clock is wrong: that of \
             the sender, its time zone, or this host's when the daemon started.",
            "compare `date --rfc-3339=seconds` on this host and on the sender with the date in the \
             frames (log-level debug); after this host's clock was set, restart the daemon",
        );
    }
    if counts.ambiguous > 0 {
        report.note(
            format!("{} logins were not joined to a connect line", counts.ambiguous),
            "More than one connection of the same host, program and PID may have been open, as with \
             containers that have the same host name.",
            "give each container a host name of its own",
        );
    }
    match &status.last_login {
        Some(last) => report.ok(format!("{} logins were heard, the last {last}", status.logins)),
        None if status.frames == 0 => report.ok("no login was heard yet, nor anything else"),
        None => {
            let unmatched = status.daemons.iter().filter(|(_, daemon)| daemon.unmatched > 0);
            let unmatched: Vec<String> =
                unmatched.map(|(name, daemon)| format!("{} of {name}", daemon.unmatched)).collect();
            let whose = if unmatched.is_empty() { "none".into() } else { unmatched.join(", ") };
            report.note(
                format!("no login since {} among {} frames", status.started, status.frames),
                format!(
                    "Nobody may have logged in yet. Messages of mail daemons that fit no pattern: \
                     {whose}; of other programs: {}; logins from excluded addresses: {}; refused: {}.",
                    counts.other_programs,
                    counts.excluded,
                    counts.refused
                ),
                "log in once from another host; if that does not count, give its log line to \
                 `pop-before-smtp test`",
            );
        }
    }
}

/// Tells of addresses that several users share.
pub fn examine_clients(clients: &[Entry], report: &mut Report) {
    let shared: Vec<&Entry> = clients.iter().filter(|client| client.users.len() > 1).collect();
    if let Some(first) = shared.first() {
        report.note(
            format!("several users have logged in from {} addresses", shared.len()),
            format!(
                "From {} it was {} users: a home, an office, or a carrier's NAT, behind which \
                 strangers may relay as well.",
                first.address,
                first.users.len()
            ),
            "leave it; or set max-users-per-address, or bind the sender (sender = \"user\")",
        );
    }
}

fn shared(status: &Status, report: &mut Report) {
    for shared in &status.shared {
        report.note(
            format!("{} users share {}", shared.users, shared.address),
            "It is not authorised: max-users-per-address.",
            "leave it, or raise max-users-per-address",
        );
    }
}

/// The option that names who is heard at a socket.
pub fn filter_option(listener: ListenerKind) -> &'static str {
    match listener {
        ListenerKind::Udp => "allow-from",
        ListenerKind::Unix => "allow-uid",
    }
}

/// How those are named.
pub fn name_the_senders(listener: ListenerKind) -> &'static str {
    if listener == ListenerKind::Udp {
        "if they are yours, name the senders: allow-from = [\"127.0.0.0/8\", \"::1\", \"ADDRESS OF \
         THE SENDER\"], and restart the daemon; --log-level debug shows who they are"
    } else {
        "if they are yours, name the user of the forwarder: allow-uid = [\"root\", \"USER\"], and \
         restart the daemon; --log-level debug shows who they are"
    }
}
