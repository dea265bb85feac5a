//! Addresses that are never authorised.
//!
//! - **Promise**: within a list, the first rule that contains an address decides, as in Postfix's
//!   own match lists (postconf(5), mynetworks); any list that contains an address excludes it.
//! - **Not here**: where the lists come from: the host, Postfix, the administrator.

use std::net::IpAddr;

use ipnet::IpNet;

/// A list of networks with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkList {
    /// The name shown to users: `loopback`, `mynetworks`, ...
    pub name: String,
    networks: Networks,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Networks {
    /// Sorted and disjoint: there may be many, and each login looks for its address in them.
    Set(Vec<IpNet>),
    /// In order; `false` exempts a network from what follows.
    Ordered(Vec<(IpNet, bool)>),
}

impl NetworkList {
    /// Creates a list of networks without exceptions.
    pub fn new(name: impl Into<String>, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let networks: Vec<_> = networks.into_iter().collect();
        let mut networks = IpNet::aggregate(&networks);
        networks.sort_unstable_by_key(IpNet::network);
        Self { name: name.into(), networks: Networks::Set(networks) }
    }

    /// Creates a list of networks in order; `false` exempts a network from what follows.
    pub fn ordered(name: impl Into<String>, networks: Vec<(IpNet, bool)>) -> Self {
        Self { name: name.into(), networks: Networks::Ordered(networks) }
    }

    /// Returns whether the list contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match &self.networks {
            Networks::Set(networks) => {
                let after = networks.partition_point(|net| net.network() <= address);
                networks[..after].last().is_some_and(|net| net.contains(&address))
            }
            Networks::Ordered(networks) => {
                let first = networks.iter().find(|(net, _)| net.contains(&address));
                first.is_some_and(|(_, inside)| *inside)
            }
        }
    }
}

/// All exclusion lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclude(pub Vec<NetworkList>);

impl Exclude {
    /// Returns the name of the first list that contains an address.
    pub fn reason(&self, address: IpAddr) -> Option<&str> {
        self.0.iter().find(|list| list.contains(address)).map(|list| list.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rule_of_a_list_decides() {
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let exclude = Exclude(vec![
            NetworkList::ordered(
                "mynetworks",
                vec![(net("192.0.2.7/32"), false), (net("192.0.2.0/24"), true)],
            ),
            NetworkList::new("bridge", [net("2001:db8::/32")]),
        ]);
        let reason = |text: &str| exclude.reason(text.parse().expect("an address"));
        assert_eq!(reason("192.0.2.8"), Some("mynetworks"));
        assert_eq!(reason("192.0.2.7"), None);
        assert_eq!(reason("2001:db8::7"), Some("bridge"));
        assert_eq!(reason("198.51.100.1"), None);
    }
    /// A set answers as a list that is searched from its beginning.
    #[test]
    fn sets_of_many_networks() {
        let text = "10.0.0.0/8 10.1.0.0/16 192.0.2.0/25 192.0.2.128/25 0.0.0.0/32 \
            255.255.255.255/32 198.51.100.7/32 2001:db8::/32 2001:db8:1::/48 ::/128 ff00::/8";
        let networks: Vec<IpNet> =
            text.split_whitespace().map(|net| net.parse().expect("a network")).collect();
        let set = NetworkList::new("file", networks.clone());
        let bounds = networks.iter().flat_map(|net| [net.network(), net.broadcast()]);
        let near = bounds.flat_map(|address| match address {
            IpAddr::V4(v4) => {
                [-1, 0, 1].map(|step| IpAddr::V4(v4.to_bits().wrapping_add_signed(step).into()))
            }
            IpAddr::V6(v6) => {
                [-1, 0, 1].map(|step| IpAddr::V6(v6.to_bits().wrapping_add_signed(step).into()))
            }
        });
        let mut inside = 0;
        for address in near {
            let expected = networks.iter().any(|net| net.contains(&address));
            assert_eq!(set.contains(address), expected, "{address}");
            inside += usize::from(expected);
        }
        assert!(inside > 20, "{inside}");
        let none = NetworkList::new("none", []);
        assert!(!none.contains("0.0.0.0".parse().expect("an address")));
    }
}
