//! Postfix's `mynetworks` as networks: which clients may relay without a login.
//!
//! - **Promise**: patterns are applied in Postfix's order, and the first match decides (postconf(5)
//!   "mynetworks"). Patterns that are not understood are reported, never guessed.
//! - **Limits**: IPv6 networks contain IPv6 addresses only: convert IPv4-mapped addresses first.
//! - **Not here**: tables and host names, which cannot be compared with an address beforehand.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;

use crate::sys::files;

/// Longest file of networks in bytes: some fifty thousand of them.
const MAX_FILE: u64 = 1024 * 1024;
/// Files read for one list: a file may name others, or itself.
const MAX_FILES: usize = 32;
/// Patterns that are reported one by one.
const MAX_REPORTED: usize = 20;

/// An ordered list of networks, each included or excluded.
#[derive(Clone, Debug, Default)]
pub struct Mynetworks {
    rules: Vec<(IpNet, bool)>,
    unknown: Vec<UnknownPattern>,
    files: usize,
}

/// A pattern that was not understood.
#[derive(Clone, Debug)]
struct UnknownPattern {
    pattern: String,
    why: UnknownReason,
}

/// Why a pattern was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UnknownReason {
    Table,
    BareIpv6,
    HostName,
    Malformed,
    HostBits,
    NoPattern,
    Unreadable(String),
    TooManyFiles,
}

impl fmt::Display for UnknownPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mynetworks: {:?} ", self.pattern)?;
        match &self.why {
            UnknownReason::Table => {
                f.write_str("is a lookup table, which cannot be converted to networks")
            }
            UnknownReason::BareIpv6 => {
                f.write_str("is a table name to Postfix: IPv6 addresses need brackets")
            }
            UnknownReason::HostName => f.write_str("is a host name to Postfix, not a network"),
            UnknownReason::Malformed => f.write_str("is neither an address nor ADDRESS/LENGTH"),
            UnknownReason::HostBits => f.write_str("has host bits set, and Postfix refuses it"),
            UnknownReason::NoPattern => f.write_str("has no pattern after the !"),
            UnknownReason::Unreadable(error) => write!(f, "cannot be read: {error}"),
            UnknownReason::TooManyFiles => {
                write!(f, "was not read: {MAX_FILES} files were read before it")
            }
        }
    }
}

impl Mynetworks {
    /// Parses the value as `postconf -xh mynetworks` prints it, and the files that it names.
    pub fn read(value: &str) -> Self {
        let mut list = Self::default();
        list.add(value, true);
        list
    }

    /// Returns whether Postfix lets this address relay, as far as the list was understood.
    pub fn contains(&self, address: IpAddr) -> bool {
        let first = self.rules.iter().find(|(network, _)| network.contains(&address));
        first.is_some_and(|&(_, included)| included)
    }

    /// Returns the networks in order, and whether each is included.
    pub fn networks(&self) -> &[(IpNet, bool)] {
        &self.rules
    }

    /// Describes the patterns that were not understood, which [`Self::contains`] ignores.
    pub fn not_understood(&self) -> Vec<String> {
        let mut reported: Vec<String> =
            self.unknown.iter().take(MAX_REPORTED).map(ToString::to_string).collect();
        if let more @ 1.. = self.unknown.len().saturating_sub(MAX_REPORTED) {
            reported.push(format!("mynetworks: {more} more patterns are not understood"));
        }
        reported
    }

    fn add(&mut self, text: &str, included: bool) {
        for pattern in patterns(text) {
            let bare = pattern.trim_start_matches('!');
            let included = included ^ ((pattern.len() - bare.len()) % 2 == 1);
            let done = if bare.starts_with('/') {
                self.add_file(bare, included)
            } else {
                network(bare).map(|network| self.rules.push((network, included)))
            };
            if let Err(why) = done {
                self.unknown.push(UnknownPattern { pattern: pattern.to_owned(), why });
            }
        }
    }

    fn add_file(&mut self, path: &str, included: bool) -> Result<(), UnknownReason> {
        if self.files == MAX_FILES {
            return Err(UnknownReason::TooManyFiles);
        }
        self.files += 1;
        let bytes = files::read(Path::new(path), MAX_FILE)
            .map_err(|error| UnknownReason::Unreadable(error.to_string()))?;
        for line in logical_lines(&String::from_utf8_lossy(&bytes)) {
            self.add(&line, included);
        }
        Ok(())
    }
}

/// Splits at whitespace and commas, except within braces (an inline table contains both).
pub fn patterns(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    let split = move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(c, ' ' | '\t' | '\r' | '\n' | ',')
    };
    text.split(split).filter(|pattern| !pattern.is_empty())
}

/// Returns the logical lines of a Postfix file: without comments and empty lines, and a line that
/// begins with whitespace continues the one before it.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(last) if content.len() < line.len() => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Parses `ADDRESS`, `ADDRESS/LENGTH`, `[ADDRESS]`, `[ADDRESS]/LENGTH` or `[ADDRESS/LENGTH]`.
fn network(pattern: &str) -> Result<IpNet, UnknownReason> {
    if pattern.is_empty() {
        return Err(UnknownReason::NoPattern);
    }
    let (address, length) = match pattern.strip_prefix('[') {
        Some(rest) => match rest.split_once(']').ok_or(UnknownReason::Malformed)? {
            (inside, "") => with_length(inside),
            (inside, after) => {
                (inside, Some(after.strip_prefix('/').ok_or(UnknownReason::Malformed)?))
            }
        },
        None if pattern.contains(':') => {
            let (address, _) = with_length(pattern);
            let ipv6 = address.parse::<Ipv6Addr>().is_ok();
            return Err(if ipv6 { UnknownReason::BareIpv6 } else { UnknownReason::Table });
        }
        None => with_length(pattern),
    };
    let letters = |c: char| !c.is_ascii_hexdigit() && !".:/".contains(c);
    let reason =
        if address.contains(letters) { UnknownReason::HostName } else { UnknownReason::Malformed };
    let address: IpAddr = address.parse().map_err(|_| reason)?;
    let Some(length) = length else { return Ok(address.into()) };
    if !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UnknownReason::Malformed);
    }
    let length = length.parse().map_err(|_| UnknownReason::Malformed)?;
    let network = IpNet::new(address, length).map_err(|_| UnknownReason::Malformed)?;
    if network == network.trunc() { Ok(network) } else { Err(UnknownReason::HostBits) }
}

fn with_length(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn first_match_decides() {
        let rows = [
            ("", "192.0.2.7", false),
            ("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", "127.0.0.2", true),
            ("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", "::1", true),
            ("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", "192.0.2.7", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("[192.0.2.7]", "192.0.2.7", true),
            ("192.0.2.0/24,\n\t198.51.100.0/24 ,", "198.51.100.9", true),
            ("[2001:db8::]/32", "2001:db8:1::1", true),
            ("[2001:DB8::/32]", "2001:db8:1::1", true),
            ("[2001:db8::1]", "2001:db8::1", true),
            ("[2001:db8::1]", "2001:db8::2", false),
            ("0.0.0.0/0", "192.0.2.7", true),
            ("0.0.0.0/0", "::1", false),
            ("!192.0.2.7 192.0.2.0/24", "192.0.2.7", false),
            ("!192.0.2.7 192.0.2.0/24", "192.0.2.8", true),
            ("192.0.2.0/24 !192.0.2.7", "192.0.2.7", true),
            ("!!192.0.2.7", "192.0.2.7", true),
        ];
        for (value, address, expected) in rows {
            let list = Mynetworks::read(value);
            assert_eq!(list.contains(ip(address)), expected, "{address} in {value:?}");
            assert_eq!(list.not_understood(), Vec::<String>::new(), "{value}");
        }
    }

    #[test]
    fn unknown_patterns_are_reported() {
        let rows = [
            ("hash:/etc/postfix/network_table", "lookup table"),
            ("!cidr:/etc/postfix/nets", "lookup table"),
            ("inline:{ { 192.0.2.0 = x }, 10.0.0.1=y }", "lookup table"),
            ("inline:{ 192.0.2.0/24 ", "lookup table"),
            ("::1", "need brackets"),
            ("2001:db8::/32", "need brackets"),
            ("localhost", "host name"),
            (".example.org", "host name"),
            ("#", "host name"),
            ("127", "neither"),
            ("127/8", "neither"),
            ("10.1", "neither"),
            ("192.0.2.0/33", "neither"),
            ("192.0.2.0/", "neither"),
            ("192.0.2.0/+8", "neither"),
            ("192.0.2.0/255.255.255.0", "neither"),
            ("192.000.002.000/24", "neither"),
            ("[2001:db8::", "neither"),
            ("[2001:db8::]x", "neither"),
            ("[2001:db8::]/129", "neither"),
            ("192.0.2.7/24", "host bits set"),
            ("!", "no pattern"),
            ("/nowhere/networks", "No such file"),
            ("/dev", "not a regular file"),
        ];
        for (pattern, expected) in rows {
            let value = format!("198.51.100.1 {pattern}");
            let list = Mynetworks::read(&value);
            let reported = list.not_understood();
            assert_eq!(list.networks().len(), 1, "{pattern}");
            assert!(list.contains(ip("198.51.100.1")), "{pattern}");
            assert_eq!(reported.len(), 1, "{pattern}: {reported:?}");
            assert!(reported[0].contains(expected), "{pattern}: {reported:?}");
        }
        let reported = Mynetworks::read(&"localhost ".repeat(1000)).not_understood();
        assert_eq!(reported.len(), MAX_REPORTED + 1);
        assert!(reported[MAX_REPORTED].contains("980 more"), "{reported:?}");
    }

    #[test]
    fn reads_files_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("networks");
        let more = dir.path().join("more");
        let text = "# ours\n\n192.0.2.0/25, !192.0.2.200\n# between\n  192.0.2.128/25\n";
        fs::write(&file, format!("{text}!{}\n", more.display())).expect("a file");
        fs::write(&more, "203.0.113.5\n!203.0.113.0/24\n").expect("a file");

        let list = Mynetworks::read(&format!("{} 203.0.113.0/24", file.display()));
        for (address, expected) in [
            ("192.0.2.7", true),
            ("192.0.2.200", false),
            ("192.0.2.201", true),
            ("203.0.113.5", false),
            ("203.0.113.6", true),
        ] {
            assert_eq!(list.contains(ip(address)), expected, "{address}");
        }
        let not = Mynetworks::read(&format!("!{} 192.0.2.0/24", file.display()));
        assert!(!not.contains(ip("192.0.2.7")) && not.contains(ip("192.0.2.200")));
    }

    #[test]
    fn file_that_names_itself_is_limited() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("networks");
        let path = file.display();
        fs::write(&file, format!("{path} {path} 192.0.2.7\n")).expect("a file");
        let list = Mynetworks::read(&path.to_string());
        assert!(list.contains(ip("192.0.2.7")));
        assert!(list.not_understood()[0].contains("32 files"));
    }
}
