//! Client addresses: parsed from a log line, checked, and made canonical.
//!
//! - **Promise**: each host has one spelling: `::ffff:192.0.2.7` is `192.0.2.7`, and the printed form
//!   is that of RFC 5952, so that set, map and lookup agree. Whatever is not one whole unicast
//!   address is refused: prefixes, zone ids, leading zeros, short forms, and addresses that no client
//!   can have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// Why a text is not the address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAClient {
    /// Not one whole IPv4 or IPv6 address.
    Malformed,
    /// `0.0.0.0` or `::`: some daemons print it when they do not know the address.
    Unspecified,
    /// Multicast or broadcast: never the source of a connection.
    NotUnicast,
    /// In 0.0.0.0/8, which a host uses only until it has learnt its address (RFC 1122, 3.2.1.3), or
    /// in 240.0.0.0/4, which is reserved (RFC 1112, 4). IPv6 has no such range: an address without a
    /// special meaning is a unicast address (RFC 4291, 2.4).
    Reserved,
    /// The obsolete `::192.0.2.7`, which programs spell differently.
    Ipv4Compatible,
}

impl fmt::Display for NotAClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the address field does not contain exactly one IP address",
            Self::Unspecified => "the address is unspecified (the daemon did not know it)",
            Self::NotUnicast => "the address is a multicast or broadcast address",
            Self::Reserved => "the address is in a reserved range (0.0.0.0/8 or 240.0.0.0/4)",
            Self::Ipv4Compatible => "the address is in the obsolete IPv4-compatible form",
        })
    }
}

/// Parses a client address and makes it canonical.
///
/// # Errors
/// Why the text is not the address of a client.
pub fn read(text: &str) -> Result<IpAddr, NotAClient> {
    let address: IpAddr = text.parse().map_err(|_| NotAClient::Malformed)?;
    check(address.to_canonical())
}

/// Checks that a canonical address can be that of a client.
///
/// # Errors
/// Returns why it cannot.
pub fn check(address: IpAddr) -> Result<IpAddr, NotAClient> {
    if address.is_unspecified() {
        return Err(NotAClient::Unspecified);
    }
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_multicast() || broadcast {
        return Err(NotAClient::NotUnicast);
    }
    match address {
        IpAddr::V4(v4) if matches!(v4.octets()[0], 0 | 240..) => Err(NotAClient::Reserved),
        IpAddr::V6(v6) if !v6.is_loopback() && v6.segments()[..6] == [0; 6] => {
            Err(NotAClient::Ipv4Compatible)
        }
        _ => Ok(address),
    }
}

/// Returns whether this address, as a key of an indexed access map, would also admit other hosts.
///
/// smtpd also looks up an IPv6 client with its last groups removed (access(5), "HOST
/// NAME/ADDRESS PATTERNS"): it looks up the key `2001:db8::1` for the client `2001:db8::1:5`. A key
/// without `::` has all eight groups, so no client has more; a key that ends in `::` is never
/// the result of removing groups.
pub fn admits_others(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let text = v6.to_string();
    let Some((left, right)) = text.split_once("::") else { return false };
    let groups = |part: &str| if part.is_empty() { 0 } else { part.split(':').count() };
    // One more group must leave at least two zero groups, or `::` would not be written.
    !right.is_empty() && groups(left) + groups(right) <= 5
}

/// Returns a network of IPv4-mapped addresses as the IPv4 network: all addresses that are compared
/// with it are canonical.
pub fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let length = v6.prefix_len().checked_sub(96);
    let v4 = v6.addr().to_ipv4_mapped().zip(length);
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_or_refused() {
        let rows: &[(&str, Result<&str, NotAClient>)] = &[
            ("192.0.2.7", Ok("192.0.2.7")),
            ("::ffff:192.0.2.7", Ok("192.0.2.7")),
            ("2001:DB8:0:0::AB", Ok("2001:db8::ab")),
            ("::1", Ok("::1")),
            ("192.0.2", Err(NotAClient::Malformed)),
            ("192.000.002.010", Err(NotAClient::Malformed)),
            ("192.0.2.7/32", Err(NotAClient::Malformed)),
            ("fe80::1%eth0", Err(NotAClient::Malformed)),
            ("[2001:db8::1]", Err(NotAClient::Malformed)),
            ("", Err(NotAClient::Malformed)),
            ("0.0.0.0", Err(NotAClient::Unspecified)),
            ("::", Err(NotAClient::Unspecified)),
            ("::ffff:0.0.0.0", Err(NotAClient::Unspecified)),
            ("224.0.0.1", Err(NotAClient::NotUnicast)),
            ("ff02::1", Err(NotAClient::NotUnicast)),
            ("255.255.255.255", Err(NotAClient::NotUnicast)),
            ("0.0.0.1", Err(NotAClient::Reserved)),
            ("0.255.255.255", Err(NotAClient::Reserved)),
            ("240.0.0.0", Err(NotAClient::Reserved)),
            ("255.255.255.254", Err(NotAClient::Reserved)),
            ("::ffff:0.1.2.3", Err(NotAClient::Reserved)),
            ("::ffff:240.0.0.1", Err(NotAClient::Reserved)),
            ("::ffff:255.255.255.255", Err(NotAClient::NotUnicast)),
            ("1.0.0.0", Ok("1.0.0.0")),
            ("223.255.255.255", Ok("223.255.255.255")),
            ("::192.0.2.7", Err(NotAClient::Ipv4Compatible)),
            ("::240.0.0.1", Err(NotAClient::Ipv4Compatible)),
            ("::2", Err(NotAClient::Ipv4Compatible)),
            ("200::7", Ok("200::7")),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text).map(|a| a.to_string()), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn keys_that_admit_others() {
        for key in ["2001:db8::1", "2001:db8:1:2::3", "::1", "2001::1:2:3:4"] {
            assert!(admits_others(key.parse().expect("an address")), "{key}");
        }
        for key in
            ["192.0.2.7", "2001:db8:1:2:3:4:5:6", "2001:db8:c:d::", "1:2:3::4:5:6", "1:2:3:4::5:6"]
        {
            assert!(!admits_others(key.parse().expect("an address")), "{key}");
        }
    }
}
