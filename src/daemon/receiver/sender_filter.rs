//! Decides whose frames a socket accepts, as far as the kernel identifies a sender.
//!
//! - **Promise**: a sender that the kernel does not identify is not accepted where senders are
//!   restricted.
//! - **Not here**: host names in frames, which are the sender's own claim ([`crate::engine`]).

use std::net::IpAddr;

use ipnet::IpNet;

/// Whose frames are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderFilter {
    /// Anybody who can open the socket: its file mode decides.
    Everybody,
    /// UDP senders in these networks.
    Networks(Vec<IpNet>),
    /// Processes of these users: the credentials that the kernel attaches (unix(7),
    /// `SCM_CREDENTIALS`). A process with `CAP_SETUID` can name another one.
    Users(Vec<u32>),
}

/// The sender of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The address, of a UDP frame.
    pub address: Option<IpAddr>,
    /// The user, over a Unix socket that asks for credentials.
    pub uid: Option<u32>,
}

impl SenderFilter {
    /// Returns whether a sender is accepted.
    pub fn admit(&self, sender: Sender) -> bool {
        match self {
            Self::Everybody => true,
            Self::Networks(networks) => sender
                .address
                .is_some_and(|address| networks.iter().any(|net| net.contains(&address))),
            Self::Users(users) => sender.uid.is_some_and(|uid| users.contains(&uid)),
        }
    }

    /// Returns the option that restricts the senders.
    pub const fn option(&self) -> &'static str {
        match self {
            Self::Users(_) => "allow-uid",
            Self::Everybody | Self::Networks(_) => "allow-from",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_admitted_unnamed() {
        let sender = |address: &str, uid| Sender { address: address.parse().ok(), uid };
        let networks = SenderFilter::Networks(vec!["192.0.2.0/24".parse().expect("a network")]);
        let users = SenderFilter::Users(vec![0, 104]);
        let rows = [
            (&SenderFilter::Everybody, sender("", None), true),
            (&networks, sender("192.0.2.7", None), true),
            (&networks, sender("198.51.100.7", None), false),
            (&networks, sender("", Some(0)), false),
            (&users, sender("", Some(0)), true),
            (&users, sender("", Some(104)), true),
            (&users, sender("", Some(1000)), false),
            (&users, sender("192.0.2.7", None), false),
        ];
        for (filter, sender, expected) in rows {
            assert_eq!(filter.admit(sender), expected, "{filter:?} {sender:?}");
        }
    }
}
