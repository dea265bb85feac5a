//! This host's own addresses and default gateways, as the kernel reports them.
//!
//! - **Promise**: no network traffic.
//! - **Why**: behind a bridge (Docker, Kubernetes) every client appears to log in from the
//!   gateway's address. Authorising it would open the relay to the Internet.

mod netlink;
mod routes;

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::libc::{AF_INET, AF_INET6};

use routes::{GET_NEXTHOP, GET_ROUTE, Gateways, all_nexthops, routes_of};

/// Returns the addresses of all interfaces of this host, canonical.
///
/// # Errors
/// The kernel does not report them.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    let addresses = interfaces.filter_map(|interface| address(interface.address?));
    Ok(addresses.map(|address| address.to_canonical()).collect())
}

/// Returns the next hops of all default routes of this host, sorted. All tables count: policy routing
/// may use any of them.
///
/// # Errors
/// The kernel does not report them.
pub fn gateways() -> io::Result<Vec<IpAddr>> {
    let mut gateways = Gateways::default();
    for family in [AF_INET, AF_INET6] {
        let head = routes_of(u8::try_from(family).unwrap_or_default());
        netlink::dump(GET_ROUTE, &head, |message| gateways.add_route(message))?;
    }
    // Older kernels know no next-hop objects; one that refers to them does.
    if gateways.name_objects() {
        netlink::dump(GET_NEXTHOP, &all_nexthops(), |message| gateways.add_nexthop(message))?;
    }
    Ok(gateways.addresses().into_iter().collect())
}

/// Returns the name of this host, if it is text.
pub fn name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_loopback() {
        let own = own_addresses().expect("addresses");
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
        gateways().expect("routing tables");
    }
}
