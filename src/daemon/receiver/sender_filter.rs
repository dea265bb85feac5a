//! Whose frames are heard over a socket, as far as the kernel tells who has sent a frame.
//!
//! Promise  a sender that the kernel does not name is not among those that are named here.
//! Not here what a frame says of itself: the engine decides whether to believe that.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whose frames are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderFilter {
    /// Whoever can open the socket: its file mode decides.
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
    /// Whether a sender is heard.
    pub fn admit(&self, sender: Sender) -> bool {
        match self {
            Self::Everybody => true,
            Self::Networks(networks) => sender
                .address
                .is_some_and(|address| networks.iter().any(|net| net.contains(&address))),
            Self::Users(users) => sender.uid.is_some_and(|uid| users.contains(&uid)),
        }
    }

    /// The option that does not name a sender who is not heard.
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
