//! The values of `--map` and `--map-value`, parsed into types that cannot be wrong.
//!
//! - **Refuses**: paths that main.cf cannot name, and values that do not let a client relay: with
//!   each of these Postfix would refuse the client or answer 451 (access(5)).
//! - **Not here**: which map types this Postfix has.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest value in bytes; it is repeated for each client and read by people only.
const MAX_VALUE: usize = 200;

/// The type of an access map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapType {
    /// Postfix's `default_database_type`.
    Auto,
    /// The name before the colon in main.cf.
    Named(String),
}

/// Which map to publish: `TYPE:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// The map type.
    pub kind: MapType,
    /// The source; the compiled file is beside it.
    pub path: PathBuf,
}

impl fmt::Display for MapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            MapType::Auto => "auto",
            MapType::Named(name) => name,
        };
        write!(f, "{kind}:{}", self.path.display())
    }
}

impl FromStr for MapSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not a map: {why}");
        let example = "write TYPE:PATH, such as auto:/var/lib/pop-before-smtp/clients";
        let (kind, path) = text.split_once(':').ok_or_else(|| wrong(example))?;
        if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(wrong(example));
        }
        if !path.starts_with('/') {
            return Err(wrong("the path must begin with /"));
        }
        if path.ends_with('/') || PathBuf::from(path).file_name().is_none() {
            return Err(wrong("the path must end in a file name"));
        }
        if path.contains(|c: char| c.is_whitespace() || c.is_control() || ",${}".contains(c)) {
            return Err(wrong("main.cf cannot name a path with blanks, commas, $ or braces"));
        }
        let kind = if kind == "auto" { MapType::Auto } else { MapType::Named(kind.to_owned()) };
        Ok(Self { kind, path: path.into() })
    }
}

/// The value of each map entry, which lets the client relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapValue(String);

impl MapValue {
    /// Returns the value as written to the map.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MapValue {
    fn default() -> Self {
        Self("OK".to_owned())
    }
}

/// Why a text cannot be the value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// Nothing at all.
    Empty,
    /// Longer than 200 bytes.
    Long,
    /// A line break or another control character.
    Control,
    /// Digits and more text: Postfix would take the digits for the name of a restriction.
    DigitsAndMore,
    /// Not a permission, and perhaps not even the name of a restriction.
    NoAcceptance,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Long => "it is longer than 200 bytes",
            Self::Control => "it contains a line break, a tab or another control character",
            Self::DigitsAndMore => "digits followed by text make Postfix answer 451",
            Self::NoAcceptance => "it does not let a client relay, and may make Postfix answer 451",
        })?;
        f.write_str("; write OK, permit, RELAY, OK followed by a text, or digits only")
    }
}

impl std::error::Error for BadValue {}

impl FromStr for MapValue {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.is_empty() {
            return Err(BadValue::Empty);
        }
        if text.len() > MAX_VALUE {
            return Err(BadValue::Long);
        }
        if text.contains(char::is_control) {
            return Err(BadValue::Control);
        }
        let (action, more) = text.split_once(' ').map_or((text, false), |(first, _)| (first, true));
        let is = |name: &str| action.eq_ignore_ascii_case(name);
        let digits = action.bytes().all(|b| b.is_ascii_digit());
        match more {
            true if is("OK") => Ok(Self(text.to_owned())),
            false if is("OK") || is("permit") || is("RELAY") || digits => Ok(Self(text.to_owned())),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => Err(BadValue::DigitsAndMore),
            _ => Err(BadValue::NoAcceptance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        let named = |name: &str| MapType::Named(name.to_owned());
        let rows = [
            ("auto:/var/lib/x/clients", Ok((MapType::Auto, "/var/lib/x/clients"))),
            ("hash:/clients", Ok((named("hash"), "/clients"))),
            ("lmdb:/a:b", Ok((named("lmdb"), "/a:b"))),
            ("/var/lib/x/clients", Err("write TYPE:PATH")),
            (":/var/lib/x/clients", Err("write TYPE:PATH")),
            ("", Err("write TYPE:PATH")),
            ("Hash:/x", Err("write TYPE:PATH")),
            ("ha sh:/x", Err("write TYPE:PATH")),
            ("hash:clients", Err("begin with /")),
            ("hash:", Err("begin with /")),
            ("hash:~/clients", Err("begin with /")),
            ("hash:/", Err("file name")),
            ("hash:/var/lib/", Err("file name")),
            ("hash:/var/..", Err("file name")),
            ("hash:/var/a b", Err("cannot name")),
            ("hash:/var/a,b", Err("cannot name")),
            ("hash:/var/a\nb", Err("cannot name")),
            ("hash:$data_directory/x", Err("begin with /")),
            ("hash:/${x}", Err("cannot name")),
        ];
        for (text, expected) in rows {
            match (text.parse::<MapSpec>(), expected) {
                (Ok(spec), Ok((kind, path))) => {
                    assert_eq!(spec, MapSpec { kind, path: path.into() }, "{text}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn values() {
        for good in [
            "OK",
            "ok",
            "Ok",
            "permit",
            "PERMIT",
            "RELAY",
            "relay",
            "0",
            "450",
            "1027025017",
            "12345678901234567890",
            "OK user=kevin until=1027025017",
            "ok # comment",
        ] {
            assert_eq!(good.parse::<MapValue>().map(|v| v.0), Ok(good.to_owned()));
        }
        let long = format!("OK {}", "x".repeat(MAX_VALUE));
        for (bad, why) in [
            ("", BadValue::Empty),
            (long.as_str(), BadValue::Long),
            ("OK\n0.0.0.0 OK", BadValue::Control),
            ("OK\r", BadValue::Control),
            ("OK\ttext", BadValue::Control),
            ("1027025017 kevin", BadValue::DigitsAndMore),
            ("1027025017.5", BadValue::DigitsAndMore),
            ("450 busy", BadValue::DigitsAndMore),
            (" ", BadValue::NoAcceptance),
            (" OK", BadValue::NoAcceptance),
            ("DUNNO", BadValue::NoAcceptance),
            ("REJECT", BadValue::NoAcceptance),
            ("REJECT go away", BadValue::NoAcceptance),
            ("yes", BadValue::NoAcceptance),
            ("-1", BadValue::NoAcceptance),
            ("permit_auth_destination", BadValue::NoAcceptance),
            ("permit reject", BadValue::NoAcceptance),
            ("RELAY text", BadValue::NoAcceptance),
            ("OKAY", BadValue::NoAcceptance),
            ("user@example.test", BadValue::NoAcceptance),
            ("hash:/x", BadValue::NoAcceptance),
        ] {
            assert_eq!(bad.parse::<MapValue>(), Err(why), "{bad:?}");
        }
    }
}
