//! Real mail daemons of Debian, with honest clients and attackers: their log lines, forwarded by
//! rsyslogd, authorise the true address of each login and nothing else.
//!
//! - **Layers**: servers are in `dovecot`, `courier` and `servers`, proxies in `proxies`; here is
//!   what they share.
//! - **Needs**: root; mount, process and network namespaces; rsyslog; the mail daemons in
//!   target/tools, which tests/all unpacks.

#[path = "../support/mod.rs"]
mod support;

mod courier;
mod dovecot;
mod proxies;
mod servers;

use support::attack;
use support::client::{IMAP, POP3, Session};
use support::maild::{MailHost, PASSWORD};

/// Sessions at a time: Dovecot and Courier delay clients that fail.
const SESSIONS: usize = 280;

/// Logs joe in from half of the clients, runs the attacks with `at_a_time` sessions, and logs joe
/// in from the others: exactly these clients count.
fn logins_count_and_nothing_else(
    daemon: &str,
    host: &MailHost,
    clients: &[(&str, u16)],
    at_a_time: usize,
) {
    let (before, after) = clients.split_at(clients.len() / 2);
    let log_in = |(client, port): &(&str, u16)| {
        assert!(
            Session::open(client, *port).log_in("joe", PASSWORD),
            "{client} {port}\n{}",
            host.log()
        );
    };
    before.iter().for_each(log_in);
    let mut ports: Vec<_> = clients.iter().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    attack::try_all(&ports, at_a_time);
    // Attackers stay connected meanwhile without a login: their addresses are in the log, too.
    let attackers: Vec<_> = attack::attackers().take(3).collect();
    let idle: Vec<_> = attackers.iter().map(|it| Session::open(it, ports[0])).collect();
    after.iter().for_each(log_in);
    drop(idle);
    let logins: Vec<_> = clients.iter().map(|(client, _)| (*client, "joe")).collect();
    host.counts_exactly(daemon, &logins);
}

/// Clients of joe, with their ports. 198.51.100.20 has a host name.
const POP3_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", POP3),
    ("198.51.100.8", POP3),
    ("198.51.100.9", POP3),
];

const IPV4_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", IMAP),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];

const CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("2001:db8::7", IMAP),
    ("198.51.100.20", IMAP),
    ("2001:db8::8", POP3),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];
