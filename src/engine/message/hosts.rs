//! The hosts whose messages are accepted, by the names in the headers of frames.
//!
//! - **Promise**: names are compared as a whole, ignoring case.
//! - **Not here**: who has sent the frame: its header contains what the sender wants.

/// The name for frames without a host name.
const NONE: &str = "-";

/// Which hosts are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Any, named or not.
    #[default]
    All,
    /// Exactly these; `-` accepts frames that name no host.
    Named(Vec<String>),
}

impl Hosts {
    /// Returns whether messages of this host are accepted.
    pub fn allows(&self, host: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => {
                let host = host.unwrap_or(NONE);
                names.iter().any(|name| name.eq_ignore_ascii_case(host))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_a_whole() {
        let named = |names: &[&str]| Hosts::Named(names.iter().map(|&n| n.to_owned()).collect());
        let rows = [
            (Hosts::All, None, true),
            (Hosts::All, Some("mx2"), true),
            (named(&["mx1"]), Some("MX1"), true),
            (named(&["MX1.Example.org"]), Some("mx1.example.ORG"), true),
            (named(&["mx1"]), Some("mx1.example.org"), false),
            (named(&["mx1.example.org"]), Some("mx1"), false),
            (named(&["mx1", "mx3"]), Some("mx2"), false),
            (named(&["mx1"]), None, false),
            (named(&["mx1", "-"]), None, true),
            (named(&[]), Some(""), false),
        ];
        for (hosts, host, expected) in rows {
            assert_eq!(hosts.allows(host), expected, "{hosts:?} {host:?}");
        }
    }
}
