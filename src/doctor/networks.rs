//! Checks `mynetworks`: few and known clients may relay without a login.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::channels::Channel;
use super::findings::Report;
use super::setup::Setup;
use crate::postfix::mynetworks::{Mynetworks, patterns};

const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Networks with a shorter prefix are larger than any one owner's.
const EVERYONE: u8 = 8;
/// Public networks with a shorter prefix belong to providers, not to their customers.
const WIDE_V4: u8 = 16;
/// The same for IPv6: providers get a /32 (RFC 6177 gives sites a /48 or less).
const WIDE_V6: u8 = 33;

/// Reports networks that are too wide, and our table in mynetworks.
pub fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    let networks = Mynetworks::read(&setup.mynetworks);
    let wide: Vec<(IpNet, Width)> = networks
        .networks()
        .iter()
        .filter(|(_, included)| *included)
        .map(|(network, _)| (*network, width(*network)))
        .filter(|(_, width)| *width != Width::Usual)
        .collect();
    let fix = without(setup, |pattern| {
        Mynetworks::read(pattern)
            .networks()
            .iter()
            .any(|(n, in_it)| *in_it && width(*n) != Width::Usual)
    });
    for (network, width) in &wide {
        match width {
            Width::Everyone => report.problem(
                format!("mynetworks contains {network}: anyone can relay"),
                "permit_mynetworks accepts them without a login: an open relay. No login counts \
                 either, because addresses in mynetworks are never authorised.",
                &fix,
            ),
            _ => report.note(
                format!("mynetworks contains {network}, a wide public network"),
                "All its hosts can relay without a login.",
                &fix,
            ),
        }
    }
    if wide.is_empty() {
        report.ok("mynetworks contains no wide public network");
    }
    for channel in channels {
        let Channel::Map(table) = channel else { continue };
        if setup.mynetworks.contains(table.as_str()) {
            report.problem(
                format!("mynetworks names {table}"),
                "Its clients then count as local in many other places too: relaying, rewriting and \
                 rate limits.",
                format!(
                    "{}; if no restriction names it yet, use it with check_client_access",
                    without(setup, |pattern| pattern.ends_with(table.as_str()))
                ),
            );
        }
    }
}

/// Returns the commands that remove patterns from `mynetworks`. This host itself stays.
fn without(setup: &Setup, is_wrong: impl Fn(&str) -> bool) -> String {
    let kept: Vec<&str> = patterns(&setup.mynetworks).filter(|p| !is_wrong(p)).collect();
    let in_file = patterns(&setup.mynetworks).find(|p| p.starts_with('/') && is_wrong(p));
    if let Some(file) = in_file {
        return format!("remove it from {file}, then {}", setup.reload());
    }
    let local = Mynetworks::read(&kept.join(" "));
    let mut value: Vec<&str> = Vec::new();
    for (address, pattern) in
        [(IpAddr::from([127, 0, 0, 1]), "127.0.0.0/8"), (LOCAL_V6, "[::1]/128")]
    {
        if !local.contains(address) {
            value.push(pattern);
        }
    }
    value.extend(kept);
    format!("{} && {}", setup.set("mynetworks", &value.join(" ")), setup.reload())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Usual,
    Wide,
    Everyone,
}

fn width(network: IpNet) -> Width {
    let wide = match network {
        IpNet::V4(_) => WIDE_V4,
        IpNet::V6(_) => WIDE_V6,
    };
    if is_private(network.network()) && is_private(network.broadcast()) {
        return Width::Usual;
    }
    match network.prefix_len() {
        ..EVERYONE => Width::Everyone,
        length if length < wide => Width::Wide,
        _ => Width::Usual,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        for (network, expected) in [
            ("0.0.0.0/0", Width::Everyone),
            ("128.0.0.0/1", Width::Everyone),
            ("::/0", Width::Everyone),
            ("fc00::/7", Width::Usual),
            ("10.0.0.0/7", Width::Everyone),
            ("10.0.0.0/8", Width::Usual),
            ("172.16.0.0/12", Width::Usual),
            ("192.168.0.0/16", Width::Usual),
            ("127.0.0.0/8", Width::Usual),
            ("::ffff:127.0.0.0/104", Width::Usual),
            ("198.0.0.0/8", Width::Wide),
            ("198.51.0.0/15", Width::Wide),
            ("198.51.100.0/24", Width::Usual),
            ("fd00::/8", Width::Usual),
            ("fe80::/10", Width::Usual),
            ("2001:db8::/32", Width::Wide),
            ("2001:db8:1::/48", Width::Usual),
            ("::1/128", Width::Usual),
        ] {
            assert_eq!(width(network.parse().expect("a network")), expected, "{network}");
        }
    }
}
