//! What this host says of itself: its own addresses and its default gateways.
//!
//! Promise  nothing is asked of the network; the kernel's own tables are read.
//! Why      a login from a gateway's address is what every client looks like behind a bridge
//!          (Docker, Kubernetes): to authorise it would open the relay to the Internet.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

/// `RTF_GATEWAY` of `linux/route.h`: the route leads through a gateway.
const RTF_GATEWAY: u32 = 0x2;

/// The addresses of all interfaces of this host, canonical.
///
/// # Errors
/// The kernel does not tell.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    let addresses = interfaces.filter_map(|interface| address(interface.address?));
    Ok(addresses.map(|address| address.to_canonical()).collect())
}

/// The default gateways of this host.
///
/// # Errors
/// The kernel's IPv4 routing table cannot be read. A host without IPv6 has no table for it.
pub fn gateways() -> io::Result<Vec<IpAddr>> {
    let mut gateways = ipv4_gateways(&fs::read_to_string("/proc/net/route")?);
    match fs::read_to_string("/proc/net/ipv6_route") {
        Ok(table) => gateways.extend(ipv6_gateways(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(gateways)
}

/// Columns: interface, destination, gateway, flags, ... (proc(5), /proc/net/route); addresses are
/// hexadecimal numbers in the host's byte order.
fn ipv4_gateways(table: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| u32::from_str_radix(columns.get(index)?, 16).ok();
        let is_default = number(1)? == 0 && number(3)? & RTF_GATEWAY != 0;
        is_default.then_some(IpAddr::V4(Ipv4Addr::from(number(2)?.to_ne_bytes())))
    };
    table.lines().skip(1).filter_map(gateway).collect()
}

/// Columns: destination, its prefix length, source, its prefix length, next hop, metric, counters,
/// flags, interface; all hexadecimal (`net/ipv6/route.c` of the kernel).
fn ipv6_gateways(table: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let address = |index: usize| u128::from_str_radix(columns.get(index)?, 16).ok();
        let flags = u32::from_str_radix(columns.get(8)?, 16).ok()?;
        let is_default = address(0)? == 0 && columns[1] == "00" && flags & RTF_GATEWAY != 0;
        is_default.then_some(IpAddr::V6(Ipv6Addr::from(address(4)?)))
    };
    table.lines().filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_gateways_are_found() {
        let row = u32::from_ne_bytes([172, 17, 0, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t00000000\t{row:08X}\t0003\t0\t0\t0\t00000000\n\
             eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n"
        );
        assert_eq!(ipv4_gateways(&table), [IpAddr::from([172, 17, 0, 1])]);
        let zero = "00000000000000000000000000000000";
        let table = format!(
            "{zero} 00 {zero} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        assert_eq!(ipv6_gateways(&table), ["2001:db8::1".parse::<IpAddr>().expect("address")]);
    }

    #[test]
    fn this_host_has_loopback() {
        let own = own_addresses().expect("addresses");
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
        gateways().expect("a routing table");
    }
}
