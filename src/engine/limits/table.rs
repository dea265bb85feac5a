//! The exceptions from the general limits: addresses, networks and users with limits of their own.
//!
//! - **Promise**: of several networks the smallest one counts. What a line does not set is as for
//!   everybody. Case is ignored in user names.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use smol_str::SmolStr;

use super::Limit;
use crate::engine::message::address::unmapped;
use crate::engine::protocol::table;
use crate::engine::protocol::table::TableRow;
use crate::engine::user_name::fold;

/// A limit of its own, or as for everybody where it is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitException {
    messages: Option<Option<u32>>,
    recipients: Option<Option<u32>>,
}

impl LimitException {
    /// Returns the limit, where it is not set that of `general`.
    pub fn over(self, general: Limit) -> Limit {
        Limit {
            messages: self.messages.unwrap_or(general.messages),
            recipients: self.recipients.unwrap_or(general.recipients),
        }
    }

    /// Adds one word of a line.
    fn set(&mut self, word: &str) -> Result<(), String> {
        let shown = word.escape_debug();
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!("`{shown}` has no `=`; {HINT}"));
        };
        let value = match value {
            "none" => None,
            digits => match digits.parse() {
                Ok(number) => Some(number),
                Err(_) => return Err(format!("`{shown}`: write a whole number or `none`")),
            },
        };
        let place = match name {
            "messages-per-hour" => &mut self.messages,
            "recipients-per-hour" => &mut self.recipients,
            _ => return Err(format!("`{shown}` is not known; {HINT}")),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is set twice")),
        }
    }
}

/// What the words of a line are.
const HINT: &str = "write messages-per-hour=N or recipients-per-hour=N";

/// All exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitTable {
    networks: HashMap<IpNet, LimitException>,
    /// The lengths of their prefixes.
    lengths: BTreeSet<u8>,
    users: HashMap<SmolStr, LimitException>,
}

impl LimitTable {
    /// Parses lines of `WHO messages-per-hour=N recipients-per-hour=N` ([`table`]). WHO is an
    /// address, a network or a login name; N may be `none`.
    ///
    /// # Errors
    /// The number of the first wrong line, and what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for TableRow { number, key, words } in table::rows(text)? {
            let wrong = |why: String| format!("line {number}: {why}");
            if words.is_empty() {
                return Err(wrong(format!("there is no limit after `{}`", key.escape_debug())));
            }
            let exception = match network(key).map_err(wrong)? {
                Some(network) => {
                    table.lengths.insert(network.prefix_len());
                    table.networks.entry(network).or_default()
                }
                None if key.starts_with('@') || key.contains('*') => {
                    let shown = key.escape_debug();
                    return Err(wrong(format!("`{shown}` is not one user; name each of them")));
                }
                None => table.users.entry(fold(key)).or_default(),
            };
            for word in words {
                exception.set(word).map_err(wrong)?;
            }
        }
        Ok(table)
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.users.is_empty()
    }

    /// Returns whether it names users.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Returns the exception of an address.
    pub fn of_address(&self, address: IpAddr) -> Option<LimitException> {
        let networks = self.lengths.iter().rev().filter_map(|length| {
            let network = IpNet::new(address, *length).ok()?;
            self.networks.get(&network.trunc())
        });
        networks.copied().next()
    }

    /// Returns the exception of a user, as [`crate::engine::user_name::counted`] returns the name, in any of its forms.
    /// `assumed` are the domains of names without one, in lower case.
    pub fn of_user(&self, user: &str, assumed: &[String]) -> Option<LimitException> {
        if !self.has_users() {
            return None;
        }
        let with_domain = |domain: &String| self.users.get(&*format!("{user}@{domain}"));
        let mut assumed = assumed.iter().filter(|_| !user.contains('@'));
        self.users.get(user).or_else(|| assumed.find_map(with_domain)).copied()
    }
}

/// Returns the network that a word names; a login name is none.
fn network(word: &str) -> Result<Option<IpNet>, String> {
    let shown = word.escape_debug();
    let address = word.split('/').next().unwrap_or_default();
    let looks_like_one = address.parse::<IpAddr>().is_ok()
        || word.chars().all(|c| c.is_ascii_digit() || ".:/".contains(c));
    let network = match word.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => match word.parse::<IpNet>() {
            Ok(network) => unmapped(network),
            Err(_) if looks_like_one => {
                return Err(format!("`{shown}` is neither an address nor a network"));
            }
            Err(_) => return Ok(None),
        },
    };
    if network.trunc() != network {
        let right = network.trunc();
        return Err(format!("`{shown}` has bits after its prefix; the network is {right}"));
    }
    Ok(Some(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_counts() {
        let table = LimitTable::read(
            "# the office\n\
             192.0.2.0/24   messages-per-hour=100\n\
             192.0.2.7      messages-per-hour=none, recipients-per-hour=500\n\
             2001:db8::/32  recipients-per-hour=0\n\
             Scanner@Example.org\n\tmessages-per-hour=1000\n\trecipients-per-hour=2000\n",
        );
        let table = table.expect_err("the login name has no limit on its line");
        assert_eq!(table, "line 5: there is no limit after `Scanner@Example.org`");
        let table = LimitTable::read(
            "192.0.2.0/24 messages-per-hour=100\n\
             192.0.2.7 messages-per-hour=none, recipients-per-hour=500\n\
             2001:db8::/32 recipients-per-hour=0\n\
             Scanner@Example.org messages-per-hour=1000\n\trecipients-per-hour=2000\n",
        );
        let table = table.expect("a table");
        let general = Limit { messages: Some(3), recipients: None };
        let of = |address: &str| {
            let exception = table.of_address(address.parse().expect("an address"));
            exception.map(|exception| exception.over(general))
        };
        let limit = |messages, recipients| Some(Limit { messages, recipients });
        assert_eq!(of("192.0.2.8"), limit(Some(100), None));
        assert_eq!(of("192.0.2.7"), limit(None, Some(500)));
        assert_eq!(of("2001:db8::7"), limit(Some(3), Some(0)));
        assert_eq!(of("198.51.100.7"), None);
        let user =
            table.of_user("scanner@example.org", &[]).map(|exception| exception.over(general));
        assert_eq!(user, limit(Some(1000), Some(2000)));
        assert_eq!(table.of_user("scanner", &[]), None);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, fault) in [
            ("\tmessages-per-hour=1\n", "line 1: there is no line before it to continue"),
            ("joe 100\n", "line 1: `100` has no `=`"),
            ("joe messages=1\n", "line 1: `messages=1` is not known"),
            ("joe messages-per-hour=-1\n", "line 1: `messages-per-hour=-1`: write a whole number"),
            (
                "joe messages-per-hour=1\n\nJoe messages-per-hour=2\n",
                "line 3: `messages-per-hour` is set twice",
            ),
            ("192.0.2.0/33 messages-per-hour=1\n", "line 1: `192.0.2.0/33` is neither"),
            ("192.0.2 messages-per-hour=1\n", "line 1: `192.0.2` is neither"),
            ("192.0.2.7/24 messages-per-hour=1\n", "line 1: `192.0.2.7/24` has bits"),
        ] {
            let why = LimitTable::read(text).expect_err(text);
            assert!(why.starts_with(fault), "{why}");
        }
        assert!(LimitTable::read("# nothing\n\n").expect("a table").is_empty());
    }
}
