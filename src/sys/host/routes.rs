//! The gateways of default routes, from rtnetlink messages.
//!
//! - **Promise**: every next hop of every default route, in all tables: of several (multipath), of
//!   the other family (`via inet6`), and next-hop objects (`ip nexthop`).
//! - **Source**: rtnetlink(7); `linux/rtnetlink.h` and `linux/nexthop.h` of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{records, u16_at, u32_at};

/// Longest prefix of a default route: VPNs use two halves, 0.0.0.0/1 and 128.0.0.0/1.
const LONGEST_PREFIX: u8 = 1;

/// `struct rtmsg`; it begins with the family and the destination's prefix length.
const ROUTE_HEAD: usize = 12;
/// `struct nhmsg`.
const NEXTHOP_HEAD: usize = 8;
/// `struct rtattr`: length and type.
const ATTRIBUTE_HEAD: usize = 4;
/// `struct rtnexthop`: length, flags, weight, interface.
const HOP_HEAD: usize = 8;
/// `struct nexthop_grp`: number, weights.
const GROUP_ENTRY: usize = 8;

const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GATEWAY: u16 = 6;
/// The bits of an attribute's type (`NLA_TYPE_MASK`).
const TYPE: u16 = 0x3fff;

/// `RTM_GETROUTE`.
pub const GET_ROUTE: u16 = 26;
/// `RTM_GETNEXTHOP`.
pub const GET_NEXTHOP: u16 = 106;

/// Returns the header of a request for all routes of a family.
pub fn routes_of(family: u8) -> [u8; ROUTE_HEAD] {
    let mut head = [0; ROUTE_HEAD];
    head[0] = family;
    head
}

/// Returns the header of a request for all next-hop objects.
pub fn all_nexthops() -> [u8; NEXTHOP_HEAD] {
    [0; NEXTHOP_HEAD]
}

/// The gateways of default routes.
#[derive(Debug, Default)]
pub struct Gateways {
    addresses: BTreeSet<IpAddr>,
    /// Next-hop objects that routes refer to.
    named: BTreeSet<u32>,
    objects: BTreeMap<u32, Object>,
}

/// A next-hop object: one next hop or a group.
#[derive(Debug, Default)]
struct Object {
    address: Option<IpAddr>,
    members: Vec<u32>,
}

impl Gateways {
    /// Adds the gateways of a route (`RTM_NEWROUTE`), if it is a default route.
    pub fn add_route(&mut self, message: &[u8]) {
        let is_default = message.get(1).is_some_and(|length| *length <= LONGEST_PREFIX);
        if let Some(body) = message.get(ROUTE_HEAD..).filter(|_| is_default) {
            self.add_hop(body);
        }
    }

    fn add_hop(&mut self, body: &[u8]) {
        for (kind, value) in attributes(body) {
            match kind {
                RTA_GATEWAY => self.addresses.extend(address(value)),
                RTA_VIA => self.addresses.extend(value.get(2..).and_then(address)),
                RTA_NH_ID => self.named.extend(u32_at(value, 0)),
                RTA_MULTIPATH => {
                    for hop in records(value, HOP_HEAD, |hop| u16_at(hop, 0).map(u32::from)) {
                        self.add_hop(&hop[HOP_HEAD..]);
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns whether a route refers to next-hop objects.
    pub fn name_objects(&self) -> bool {
        !self.named.is_empty()
    }

    /// Adds a next-hop object (`RTM_NEWNEXTHOP`).
    pub fn add_nexthop(&mut self, message: &[u8]) {
        let (mut id, mut object) = (None, Object::default());
        for (kind, value) in attributes(message.get(NEXTHOP_HEAD..).unwrap_or_default()) {
            match kind {
                NHA_ID => id = u32_at(value, 0),
                NHA_GATEWAY => object.address = address(value),
                NHA_GROUP => {
                    let entries = value.chunks_exact(GROUP_ENTRY);
                    object.members.extend(entries.filter_map(|entry| u32_at(entry, 0)));
                }
                _ => {}
            }
        }
        self.objects.extend(id.map(|id| (id, object)));
    }

    /// Returns all gateways. Groups do not nest.
    pub fn addresses(mut self) -> BTreeSet<IpAddr> {
        let named = self.named.iter().filter_map(|id| self.objects.get(id));
        for object in named {
            let members = object.members.iter().filter_map(|id| self.objects.get(id));
            let all = members.chain([object]);
            self.addresses.extend(all.filter_map(|object| object.address));
        }
        self.addresses
    }
}

/// Returns the types and values of attributes.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let attributes = records(bytes, ATTRIBUTE_HEAD, |bytes| u16_at(bytes, 0).map(u32::from));
    attributes.filter_map(|attribute| {
        Some((u16_at(attribute, 2)? & TYPE, attribute.get(ATTRIBUTE_HEAD..)?))
    })
}

/// Reads an address; its length determines the family.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    v4.or_else(v6).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_HEAD + value.len()).expect("a short value");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route(prefix: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut head = routes_of(2);
        head[1] = prefix;
        [&head[..], &attributes.concat()].concat()
    }

    fn hop(attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.concat();
        let length = u16::try_from(HOP_HEAD + attributes.len()).expect("a short hop");
        [&length.to_ne_bytes()[..], &[0; 6], &attributes].concat()
    }

    fn nexthop(id: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let id = attribute(NHA_ID, &id.to_ne_bytes());
        [&all_nexthops()[..], &id, &attributes.concat()].concat()
    }

    fn gateway(last: u8) -> Vec<u8> {
        attribute(RTA_GATEWAY, &[192, 0, 2, last])
    }

    fn found(gateways: Gateways) -> Vec<String> {
        gateways.addresses().iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn every_next_hop_of_every_default_route() {
        let v6 = "2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets();
        let mut gateways = Gateways::default();
        let interface = || attribute(4, &7_u32.to_ne_bytes());
        for message in [
            route(0, &[interface(), gateway(1)]),
            route(
                0,
                &[attribute(RTA_MULTIPATH, &[hop(&[gateway(2)]), hop(&[gateway(3)])].concat())],
            ),
            route(0, &[attribute(RTA_VIA, &[&10_u16.to_ne_bytes()[..], &v6].concat())]),
            route(1, &[gateway(4)]),
            // Not these.
            route(2, &[gateway(5)]),
            route(24, &[gateway(6)]),
            route(0, &[interface()]),
            route(0, &[attribute(RTA_GATEWAY, &[1, 2, 3])]),
            vec![2, 0],
            Vec::new(),
        ] {
            gateways.add_route(&message);
        }
        assert!(!gateways.name_objects());
        let expected = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1"];
        assert_eq!(found(gateways), expected);
    }

    #[test]
    fn next_hops_that_are_objects() {
        let mut gateways = Gateways::default();
        gateways.add_route(&route(0, &[attribute(RTA_NH_ID, &3_u32.to_ne_bytes())]));
        gateways.add_route(&route(0, &[attribute(RTA_NH_ID, &4_u32.to_ne_bytes())]));
        gateways.add_route(&route(0, &[attribute(RTA_NH_ID, &9_u32.to_ne_bytes())]));
        gateways.add_route(&route(24, &[attribute(RTA_NH_ID, &5_u32.to_ne_bytes())]));
        assert!(gateways.name_objects());
        let via = |last: u8| attribute(NHA_GATEWAY, &[192, 0, 2, last]);
        let member = |id: u32| [id.to_ne_bytes(), [0; 4]].concat();
        for message in [
            nexthop(1, &[via(1)]),
            nexthop(2, &[via(2)]),
            nexthop(3, &[attribute(NHA_GROUP, &[member(1), member(2), member(8)].concat())]),
            nexthop(4, &[via(4)]),
            nexthop(5, &[via(5)]),
        ] {
            gateways.add_nexthop(&message);
        }
        assert_eq!(found(gateways), ["192.0.2.1", "192.0.2.2", "192.0.2.4"]);
    }
}
