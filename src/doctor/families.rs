//! Compares the address families of the mail daemons with Postfix's: a client that logs in by IPv6
//! and sends by IPv4 has two addresses, and only the first is authorised. Also whether other hosts
//! can connect to Postfix at all.
//!
//! - **Limits**: mail daemons on this host, in this network namespace, and on the usual ports.
//! - **Source**: proc_pid_net(5), tcp and tcp6; postconf(5) `inet_protocols`, `inet_interfaces`.

use std::fs;
use std::net::IpAddr;

use super::findings::Report;
use super::setup::Setup;
use crate::postfix::mynetworks::patterns;
use crate::sys::host::own_addresses;

/// POP3 and IMAP, without and with TLS.
const PORTS: [u16; 4] = [110, 143, 995, 993];
/// The state of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";
/// The first five groups of an IPv4-mapped IPv6 address, and the sixth, as /proc/net/tcp6 writes them.
const MAPPED: &str = "0000000000000000FFFF0000";

/// A set of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    const BOTH: Self = Self { ipv4: true, ipv6: true };

    fn of(addresses: impl Iterator<Item = IpAddr>) -> Self {
        addresses.filter(|address| is_for_clients(*address)).fold(
            Self::default(),
            |set, address| Self {
                ipv4: set.ipv4 || address.is_ipv4(),
                ipv6: set.ipv6 || address.is_ipv6(),
            },
        )
    }

    fn and(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }
}

/// Reports a running Postfix to which no other host can connect.
pub fn examine_reach(setup: &Setup, report: &mut Report) {
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    // A service with an address of its own may be behind a proxy.
    let ports: Vec<u16> = setup.master.smtpd.iter().filter_map(|s| port(&s.name)).collect();
    if ports.is_empty() || listening(&read("tcp"), &read("tcp6"), &ports) != Families::default() {
        return;
    }
    let names: Vec<String> = ports.iter().map(u16::to_string).collect();
    let is_local = |word: &str| {
        word == "loopback-only"
            || word == "localhost"
            || word.trim_matches(['[', ']']).parse().is_ok_and(|a: IpAddr| a.is_loopback())
    };
    let (why, fix) = if patterns(&setup.interfaces).all(is_local) {
        let restart = [setup.postfix_command("stop"), setup.postfix_command("start")].join(" && ");
        (
            format!("inet_interfaces = {} lets only this host connect.", setup.interfaces),
            format!("{} && {restart}", setup.set("inet_interfaces", "all")),
        )
    } else {
        (
            "Postfix's log says why, if the port is taken; master_service_disable, or the \
             inet_interfaces of another instance (postmulti -l), may be the cause."
                .into(),
            "postconf -n | grep -e inet_interfaces -e master_service_disable".into(),
        )
    };
    report.problem(
        format!(
            "no other host can connect to Postfix: nothing listens on port {}",
            names.join(", ")
        ),
        format!("{why} No client can send, with a login or without."),
        fix,
    );
}

/// Returns the port of a service of master.cf that listens on all addresses, such as `smtp/inet`.
fn port(service: &str) -> Option<u16> {
    let name = service.strip_suffix("/inet")?;
    match name {
        "smtp" => Some(25),
        "submission" => Some(587),
        "submissions" | "smtps" => Some(465),
        _ => name.parse().ok(),
    }
}

/// Examines the families of this host, its mail daemons and Postfix.
pub fn examine(setup: &Setup, report: &mut Report) {
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    let Ok(own) = own_addresses() else { return };
    let host = Families::of(own.into_iter());
    let logins = listening(&read("tcp"), &read("tcp6"), &PORTS).and(host);
    let mail = protocols(&setup.protocols).and(interfaces(&setup.interfaces)).and(host);
    // With one family a client has one address.
    if host != Families::BOTH || logins == Families::default() || mail == Families::default() {
        return;
    }
    if logins == mail {
        report.ok("the mail daemons and Postfix listen on the same address families");
        return;
    }
    for (name, logs_in, sends) in
        [("IPv4", logins.ipv4, mail.ipv4), ("IPv6", logins.ipv6, mail.ipv6)]
    {
        let other = if name == "IPv4" { "IPv6" } else { "IPv4" };
        if logs_in && !sends {
            report.note(
                format!("the mail daemons listen on {name}, but Postfix does not"),
                format!(
                    "A client that logs in by {name} is authorised with that address, and refused when \
                     it sends by {other}."
                ),
                mending(setup, name),
            );
        } else if sends && !logs_in {
            report.note(
                format!("Postfix listens on {name}, but the mail daemons do not"),
                format!(
                    "A client that logs in by {other} is authorised with that address, and refused when \
                     it sends by {name}."
                ),
                format!("let the mail daemon listen on {name} too (Dovecot: listen = *, ::)"),
            );
        }
    }
}

/// Returns how Postfix listens on another family.
fn mending(setup: &Setup, family: &str) -> String {
    let set = setup.set("inet_protocols", "all");
    // A reload does not suffice (postconf(5) inet_protocols).
    let restart = [setup.postfix_command("stop"), setup.postfix_command("start")].join(" && ");
    if protocols(&setup.protocols) == Families::BOTH {
        return format!("add this host's {family} address to inet_interfaces, then {restart}");
    }
    format!("{set} && {restart}")
}

/// Reads the value of `inet_protocols`.
fn protocols(value: &str) -> Families {
    let has = |name: &str| patterns(value).any(|word| word == name || word == "all");
    Families { ipv4: has("ipv4"), ipv6: has("ipv6") }
}

/// Reads the value of `inet_interfaces`. Names may stand for any address.
fn interfaces(value: &str) -> Families {
    let address = |word: &str| word.trim_matches(['[', ']']).parse::<IpAddr>();
    let words: Result<Vec<IpAddr>, _> = patterns(value).map(address).collect();
    words.map_or(Families::BOTH, |addresses| Families::of(addresses.into_iter()))
}

/// Returns the families on which other hosts can connect to one of these ports; the texts are /proc/net/tcp and /proc/net/tcp6.
fn listening(tcp: &str, tcp6: &str, ports: &[u16]) -> Families {
    let sockets = |text: &str| -> Vec<(String, u16)> {
        text.lines().filter_map(|line| socket(line, ports)).collect()
    };
    let (v4, v6) = (sockets(tcp), sockets(tcp6));
    let has_own = |port: u16| v4.iter().any(|(_, other)| *other == port);
    let is_loopback = |address: &str| address.ends_with("7F");
    let mut found = Families { ipv4: v4.iter().any(|(a, _)| !is_loopback(a)), ipv6: false };
    for (address, port) in &v6 {
        match address.strip_prefix(MAPPED) {
            Some(mapped) => found.ipv4 |= !is_loopback(mapped),
            None if address.chars().all(|digit| digit == '0') => {
                found.ipv6 = true;
                // Without IPV6_V6ONLY it takes IPv4 as well, and no other socket could.
                found.ipv4 |= !has_own(*port);
            }
            None => found.ipv6 |= address != "00000000000000000000000001000000",
        }
    }
    found
}

/// Reads the address and port of a socket that listens on one of these ports.
fn socket(line: &str, ports: &[u16]) -> Option<(String, u16)> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let listens = fields.nth(1) == Some(LISTEN) && ports.contains(&port);
    listens.then(|| (address.to_ascii_uppercase(), port))
}

fn is_for_clients(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";

    fn table(sockets: &[&str]) -> String {
        let line = |socket: &&str| format!("   0: {socket} 00000000:0000 0A 00000000:00000000\n");
        HEAD.to_owned() + &sockets.iter().map(line).collect::<String>()
    }

    #[test]
    fn listeners() {
        const ANY: &str = "00000000000000000000000000000000:008F";
        for (v4, v6, expected) in [
            (&[][..], &[][..], (false, false)),
            (&["00000000:008F"], &[], (true, false)),
            (&["0100007F:008F"], &[], (false, false)),
            (&["076433C6:006E"], &[], (true, false)),
            // SMTP is not a mail daemon's.
            (&["00000000:0019"], &["00000000000000000000000000000000:0019"], (false, false)),
            (&[], &[ANY], (true, true)),
            (&["0100007F:008F"], &[ANY], (false, true)),
            (&["00000000:008F"], &[ANY], (true, true)),
            (&[], &["00000000000000000000000001000000:03E1"], (false, false)),
            (&[], &["B80D0120000000000000000001000000:03E3"], (false, true)),
            (&[], &["0000000000000000FFFF0000076433C6:03E3"], (true, false)),
        ] {
            let (ipv4, ipv6) = expected;
            let found = listening(&table(v4), &table(v6), &PORTS);
            assert_eq!(found, Families { ipv4, ipv6 }, "{v4:?} {v6:?}");
        }
        let connected = table(&["00000000:008F"]).replace(" 0A ", " 01 ");
        assert_eq!(listening(&connected, "", &PORTS), Families::default());
        let smtp = |socket| listening(&table(&[socket]), "", &[25]) != Families::default();
        assert!(smtp("00000000:0019") && !smtp("0100007F:0019") && !smtp("00000000:006E"));
    }

    #[test]
    fn ports_of_services() {
        for (service, expected) in [
            ("smtp/inet", Some(25)),
            ("submissions/inet", Some(465)),
            ("2525/inet", Some(2525)),
            ("127.0.0.1:2525/inet", None),
            ("smtpd/pass", None),
        ] {
            assert_eq!(port(service), expected, "{service}");
        }
    }

    #[test]
    fn postfix_parameters() {
        for (value, ipv4, ipv6) in [
            ("all", true, true),
            ("ipv4", true, false),
            ("ipv6", false, true),
            ("ipv6, ipv4", true, true),
        ] {
            assert_eq!(protocols(value), Families { ipv4, ipv6 }, "{value}");
        }
        for (value, ipv4, ipv6) in [
            ("all", true, true),
            ("$myhostname, localhost", true, true),
            ("127.0.0.1, 192.0.2.1", true, false),
            ("[2001:db8::1], 192.0.2.1", true, true),
            ("127.0.0.1", false, false),
        ] {
            assert_eq!(interfaces(value), Families { ipv4, ipv6 }, "{value}");
        }
    }
}
