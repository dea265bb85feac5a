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
    /// Networks in order; `false` exempts a network from what follows.
    pub rules: Vec<(IpNet, bool)>,
}

impl NetworkList {
    /// Creates a list of networks without exceptions.
    pub fn new(name: impl Into<String>, networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { name: name.into(), rules: networks.into_iter().map(|net| (net, true)).collect() }
    }

    /// Returns whether the list contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.rules.iter().find(|(net, _)| net.contains(&address)).is_some_and(|(_, inside)| *inside)
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
            NetworkList {
                name: "mynetworks".into(),
                rules: vec![(net("192.0.2.7/32"), false), (net("192.0.2.0/24"), true)],
            },
            NetworkList::new("bridge", [net("2001:db8::/32")]),
        ]);
        let reason = |text: &str| exclude.reason(text.parse().expect("an address"));
        assert_eq!(reason("192.0.2.8"), Some("mynetworks"));
        assert_eq!(reason("192.0.2.7"), None);
        assert_eq!(reason("2001:db8::7"), Some("bridge"));
        assert_eq!(reason("198.51.100.1"), None);
    }
}
