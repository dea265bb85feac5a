//! `mynetworks`: those who may relay without any login must be few, and known.

use std::net::IpAddr;

use ipnet::IpNet;

use super::channels::Channel;
use super::findings::Report;
use super::setup::Setup;
use crate::postfix::mynetworks::Mynetworks;

/// Shorter prefixes than this hold more than any one owner has.
const EVERYBODY: u8 = 8;
/// Public networks with shorter prefixes belong to carriers, not to their customers.
const WIDE_V4: u8 = 16;
/// The same for IPv6: providers get a /32 (RFC 6177 gives sites a /48 or less).
const WIDE_V6: u8 = 33;

/// Examines who may relay anyway.
pub fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    let networks = Mynetworks::read(&setup.mynetworks);
    let wide: Vec<(IpNet, Width)> = networks
        .networks()
        .iter()
        .filter(|(_, included)| *included)
        .map(|(network, _)| (*network, width(*network)))
        .filter(|(_, width)| *width != Width::Usual)
        .collect();
    let mend = format!(
        "{} -e 'mynetworks = 127.0.0.0/8 [::1]/128 YOUR.OWN.NETWORKS' && {}",
        setup.postconf(),
        setup.reload()
    );
    for (network, width) in &wide {
        match width {
            Width::Everybody => report.problem(
                format!("mynetworks contains {network}: everybody may relay"),
                "permit_mynetworks lets them in, logged in or not: an open relay. And no login \
                 counts, for addresses of mynetworks are never authorised.",
                &mend,
            ),
            _ => report.note(
                format!("mynetworks contains {network}, a wide public network"),
                "All its hosts may relay without any login.",
                &mend,
            ),
        }
    }
    if wide.is_empty() {
        report.ok("mynetworks is no wide public network");
    }
    for channel in channels {
        let Channel::Map(table) = channel else { continue };
        if setup.mynetworks.contains(table.as_str()) {
            report.problem(
                format!("mynetworks names {table}"),
                "Then its clients count as this host's own in many other places: for open relaying, \
                 rewriting and limits.",
                "take it out of mynetworks; check_client_access is its place",
            );
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Usual,
    Wide,
    Everybody,
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
        ..EVERYBODY => Width::Everybody,
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
            ("0.0.0.0/0", Width::Everybody),
            ("128.0.0.0/1", Width::Everybody),
            ("::/0", Width::Everybody),
            ("fc00::/7", Width::Usual),
            ("10.0.0.0/7", Width::Everybody),
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
