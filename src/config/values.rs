//! The values of options, as types that cannot hold wrong values.
//!
//! - **Promise**: each type is parsed from the same text on the command line, in the environment and
//!   in the configuration file; the error says what is wrong with the text.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::engine::maildaemons::facility_code;
use crate::engine::message::address;
use crate::sys::log::{LogFormat, LogLevel};
use crate::sys::unix_socket::UnixSocket;

/// Longest text of a refusal, in bytes: a reply line has at most 512 bytes (RFC 5321, 4.5.3.1.5),
/// and Postfix puts `<recipient>: Recipient address rejected: ` before the text.
const MAX_TEXT: usize = 200;
/// The default text for users who may not use the sender that they tried.
const DEFAULT_TEXT: &str = "This sender is not the user who checked mail from here. Send as the \
                            account whose mail you check, check its mail first, and try again.";

/// Implements `FromStr` with the names of `clap::ValueEnum`.
macro_rules! from_value_enum {
    ($($name:ty),+) => {$(
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                <Self as clap::ValueEnum>::from_str(text, false).map_err(|_| {
                    let values = <Self as clap::ValueEnum>::value_variants().iter();
                    let values = values.filter_map(clap::ValueEnum::to_possible_value);
                    let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
                    format!("`{text}` is none of {}", names.join(", "))
                })
            }
        }
    )+};
}

from_value_enum!(SenderRule, BeyondLimit, LogLevel, LogFormat);

/// A duration: `30m`, `1800s`, `1h 30m`. At least one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is not a duration; write 30m, 1800s or 1h 30m"))?;
        if span < Duration::from_secs(1) {
            return Err(format!("`{text}` is shorter than one second"));
        }
        Ok(Self(span))
    }
}

/// The address of a socket that receives syslog frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix datagram socket.
    Unix(UnixSocket),
    /// A UDP socket at this address and port.
    Udp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", socket)) => socket.parse().map(Self::Unix),
            Some(("udp", address)) => host_and_port(address)
                .map(Self::Udp)
                .ok_or_else(|| format!("`{text}`: write udp:HOST:PORT with a numeric address")),
            _ => Err(format!("`{text}`: write unix:/PATH or udp:HOST:PORT")),
        }
    }
}

fn host_and_port(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

/// The address of a socket on which Postfix sends requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// A Unix stream socket.
    Unix(UnixSocket),
    /// A TCP socket at this address and port.
    Inet(SocketAddr),
}

impl FromStr for Serve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", socket)) => socket.parse().map(Self::Unix).map_err(|why: String| {
                format!("{why} (in main.cf a path may be relative to the queue directory)")
            }),
            Some(("inet", address)) => host_and_port(address)
                .map(Self::Inet)
                .ok_or_else(|| format!("`{text}`: write inet:HOST:PORT with a numeric address")),
            _ => Err(format!("`{text}`: write unix:/PATH or inet:HOST:PORT")),
        }
    }
}

impl fmt::Display for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
            Self::Inet(address) => write!(f, "inet:{address}"),
        }
    }
}

/// The address of the socket for metrics and health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inet(pub SocketAddr);

impl FromStr for Inet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("inet:").and_then(host_and_port);
        address
            .map(Self)
            .ok_or_else(|| format!("`{text}`: write inet:HOST:PORT with a numeric address"))
    }
}

impl fmt::Display for Inet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inet:{}", self.0)
    }
}

/// A network or a single address, canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.replace(['[', ']'], "");
        let single = bare.parse().map(|address: std::net::IpAddr| address.to_canonical().into());
        let net: IpNet = single.or_else(|_| bare.parse()).map_err(|_| {
            format!("`{text}` is not a network; write 192.0.2.0/24 or 2001:db8::/32")
        })?;
        let net = address::unmapped(net);
        if net != net.trunc() {
            return Err(format!(
                "`{text}` has bits after its first {}; write {} for the network, or {} for the one \
                 address",
                net.prefix_len(),
                net.trunc(),
                net.addr()
            ));
        }
        Ok(Self(net))
    }
}

/// Addresses that are never authorised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExcludeWhat {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// The addresses of this host.
    Own,
    /// The default gateways of this host.
    Gateway,
    /// Postfix's `mynetworks`.
    Mynetworks,
    /// A network.
    Network(Network),
    /// The networks in this file.
    File(PathBuf),
    /// Nothing.
    None,
}

impl ExcludeWhat {
    /// The default exclusions.
    pub const DEFAULT: [Self; 5] =
        [Self::Loopback, Self::LinkLocal, Self::Own, Self::Gateway, Self::Mynetworks];
}

impl FromStr for ExcludeWhat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "loopback" => Self::Loopback,
            "link-local" => Self::LinkLocal,
            "own" => Self::Own,
            "gateway" => Self::Gateway,
            "mynetworks" => Self::Mynetworks,
            "none" => Self::None,
            file if file.starts_with("file:") => {
                let path = Path::new(&file["file:".len()..]);
                if !path.is_absolute() {
                    return Err(format!("`{text}`: write file: and an absolute path"));
                }
                Self::File(path.to_owned())
            }
            network if network.contains('/') => Self::Network(network.parse()?),
            address => Self::Network(address.parse().map_err(|_| {
                format!(
                    "`{text}`: write loopback, link-local, own, gateway, mynetworks, none, a network or \
                     file:/PATH"
                )
            })?),
        })
    }
}

/// A host name as it appears in frames, or `-` for frames without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let shown = text.escape_debug();
            return Err(format!(
                "`{shown}` is not a host name; write it as it appears in your log"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The facilities from which a mail daemon's logins count: `qpopper=local0,mail`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facilities {
    /// The mail daemon's name.
    pub daemon: String,
    /// Codes of RFC 5424, table 1.
    pub codes: Vec<u8>,
}

impl FromStr for Facilities {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').filter(|(daemon, _)| !daemon.is_empty());
        let (daemon, names) = parts.ok_or_else(|| {
            format!(
                "`{text}`: write DAEMON=FACILITY[,FACILITY...], for example qpopper=local0,mail"
            )
        })?;
        let codes = names.split(',').map(facility_code).collect::<Result<_, _>>();
        let codes = codes.map_err(|why| format!("`{text}`: {why}"))?;
        Ok(Self { daemon: daemon.to_owned(), codes })
    }
}

/// The value of `--sender`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SenderRule {
    /// Any sender.
    Any,
    /// Only the logged-in user.
    User,
    /// Any sender in the domain of the logged-in user.
    Domain,
}

/// What happens beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BeyondLimit {
    /// The client is asked to try again later.
    Defer,
    /// Also, its grant ends, and the address is blocked.
    Revoke,
}

/// The answer to any other sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The next restriction decides, as for a client that is not authorised.
    Dunno,
    /// The sender is refused at once, with this text for the user.
    Reject(String),
}

impl FromStr for Mismatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = match text.trim().split_once(' ').unwrap_or((text.trim(), DEFAULT_TEXT)) {
            ("dunno", DEFAULT_TEXT) => return Ok(Self::Dunno),
            ("reject", text) => text.trim(),
            _ => return Err(format!("`{text}` is neither dunno nor reject [TEXT]")),
        };
        if text.len() > MAX_TEXT || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(format!(
                "the text after reject must be 1 to {MAX_TEXT} printable ASCII characters"
            ));
        }
        Ok(Self::Reject(text.to_owned()))
    }
}

/// A user as mail daemons log them, or `@` and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl FromStr for UserName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let domain = text.strip_prefix('@');
        let is_other = |c: char| c.is_whitespace() || c.is_control() || c == ',';
        if text.is_empty() || text.ends_with('@') || text.chars().any(is_other) {
            return Err(format!("`{shown}` is not a user; write joe@example.org or @example.org"));
        }
        if let Some(domain) = text.strip_prefix("*@").or(domain.filter(|d| !is_domain(d))) {
            return Err(format!("`{shown}`: write @{} for all its users", domain.escape_debug()));
        }
        if text.contains('*') {
            return Err(format!("`{shown}` is not a user: `*` stands for nothing else"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Returns whether a text can be a domain.
pub fn is_domain(text: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    !text.is_empty() && text.chars().all(letter) && !text.starts_with('.') && !text.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["joe", "joe@example.org", "@example.org", "EXAMPLE\\joe", "jörg@exämple.org"]
        {
            assert_eq!(good.parse(), Ok(UserName(good.into())));
        }
        for (wrong, part) in [
            ("", "is not a user"),
            ("joe ann", "is not a user"),
            ("joe\n", "joe\\n"),
            ("@", "is not a user"),
            ("joe@", "is not a user"),
            ("*", "is not a user"),
            ("a,b", "is not a user"),
            ("@a b", "is not a user"),
            ("@example.org,@example.com", "is not a user"),
            ("*@example.org", "write @example.org for all"),
        ] {
            let why = wrong.parse::<UserName>().expect_err(wrong);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn durations() {
        let seconds = |text: &str| text.parse::<Span>().map(|span| span.0.as_secs());
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        assert_eq!(seconds("1800s"), Ok(1800));
        for wrong in ["", "30", "0s", "10ms", "-1m", "m30", "1 fortnight"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listeners() {
        let shown = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        for good in ["unix:/run/x.sock", "udp:127.0.0.1:514", "udp:[::1]:514"] {
            assert_eq!(shown(good), Ok(good.to_owned()));
        }
        assert_eq!(shown("unix:/run/x.sock,mode=0600"), Ok("unix:/run/x.sock".to_owned()));
        assert_eq!(shown("udp:localhost:514"), Ok("udp:127.0.0.1:514".to_owned()));
        for wrong in ["unix:x.sock", "udp:514", "udp:host.example:514", "tcp:127.0.0.1:514", ""] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lookup_sockets() {
        let shown = |text: &str| text.parse::<Serve>().map(|serve| serve.to_string());
        for good in ["unix:/run/x.sock", "inet:127.0.0.1:10040", "inet:[::1]:10040"] {
            assert_eq!(shown(good), Ok(good.to_owned()));
        }
        assert_eq!(shown("inet:localhost:1"), Ok("inet:127.0.0.1:1".to_owned()));
        for wrong in ["unix:x.sock", "inet:10040", "inet:host.example:1", "udp:127.0.0.1:1", ""] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mapped_networks_are_ipv4_networks() {
        let rows = [
            ("::ffff:198.51.100.0/120", "198.51.100.0/24"),
            ("[::ffff:198.51.100.5]/128", "198.51.100.5/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
        ];
        for (text, expected) in rows {
            let Network(net) = text.parse().expect("a network");
            assert_eq!(net.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn facilities() {
        let parse = |text: &str| text.parse::<Facilities>().map(|read| (read.daemon, read.codes));
        assert_eq!(parse("qpopper=local0,mail"), Ok(("qpopper".to_owned(), vec![16, 2])));
        for wrong in ["qpopper", "qpopper=", "=mail", "qpopper=mial", "qpopper=mail,", "a=mail b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_names() {
        assert_eq!("MX1".parse(), Ok(HostName("MX1".to_owned())));
        for wrong in ["", "mx1 mx2", "mx\n"] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn exclusions() {
        let read = |text: &str| text.parse::<ExcludeWhat>();
        let network = |text: &str| ExcludeWhat::Network(Network(text.parse().expect("a network")));
        assert_eq!(read("own"), Ok(ExcludeWhat::Own));
        assert_eq!(read("192.0.2.7"), Ok(network("192.0.2.7/32")));
        let wrong = read("192.0.2.7/24").expect_err("a fault");
        assert!(wrong.contains("192.0.2.0/24 for the network, or 192.0.2.7 for"), "{wrong}");
        assert_eq!(read("[2001:db8::]/32"), Ok(network("2001:db8::/32")));
        assert_eq!(read("file:/etc/shared"), Ok(ExcludeWhat::File("/etc/shared".into())));
        for wrong in ["owns", "192.0.2", "file:", "file:shared", "File:/etc/shared"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_to_other_senders() {
        let parse = |text: &str| text.parse::<Mismatch>();
        assert_eq!(parse("dunno"), Ok(Mismatch::Dunno));
        assert_eq!(parse("reject"), Ok(Mismatch::Reject(DEFAULT_TEXT.into())));
        assert_eq!(parse("reject  No. Never."), Ok(Mismatch::Reject("No. Never.".into())));
        let long = format!("reject {}", "x".repeat(MAX_TEXT + 1));
        for wrong in ["", "no", "dunno x", "rejected", "reject a\nb", "reject jä", &long] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
