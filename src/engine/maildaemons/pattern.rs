//! A compiled pattern, and what it extracts from a message.
//!
//! - **Promise**: anchored at the start, matched in linear time, bounded in size; what it extracts
//!   is checked: a whole client address, a valid user name. What matches and must not count all the
//!   same is refused with a reason.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::OnceLock;

use regex::{CaptureLocations, Regex, RegexBuilder};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::literal::Literal;
use crate::engine::message::Message;
use crate::engine::message::address;
use crate::engine::message::address::NotAClient;

/// Memory of a compiled pattern in bytes; the largest built-in one needs a tenth of it.
const MAX_COMPILED: usize = 4 << 20;
/// Memory of a pattern's lazy DFA in bytes, in each thread and direction: genuine messages fill at
/// most half of it, hostile ones all.
const MAX_DFA_CACHE: usize = 512 << 10;
/// Bytes of a text that patterns see, and so of the longest login that can be accepted. RFC 3164,
/// section 4.1, allows no longer packet, and a genuine login has a third of it.
pub const MAX_SEEN: usize = 1024;
/// Beginnings of a text that are compared before an expression is tried.
const MAX_BEGINNINGS: usize = 32;
/// Longest user name accepted, in bytes: longer ones are only seen in attacks.
const MAX_USER: usize = 255;

/// Why a message that matches a login pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The daemon's logins are not accepted from the frame's facility.
    Facility,
    /// The frame's severity is not that of a genuine login.
    Severity,
    /// It is longer than a genuine login can be; no login pattern was tried.
    TooLong,
    /// A text does not occur exactly once.
    Ambiguous(String),
    /// A forbidden text occurs.
    Forbidden(String),
    /// Two groups that must be equal differ.
    Contradiction,
    /// The address field is not the address of a client.
    Address(NotAClient),
    /// The user name is empty.
    EmptyUser,
    /// The login is anonymous.
    Anonymous,
    /// The user name is longer than 255 bytes.
    LongUser,
    /// The user name contains control characters.
    ControlBytes,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Facility => {
                "the mail daemon's logins are not accepted from this facility; see `facility`"
            }
            Self::Severity => "the severity is not that of a genuine login",
            Self::TooLong => "the message is longer than a genuine login can be",
            Self::Ambiguous(literal) => {
                return write!(f, "ambiguous: `{literal}` must occur exactly once");
            }
            Self::Forbidden(literal) => {
                return write!(f, "`{literal}` must not occur in the message");
            }
            Self::Contradiction => "two fields that must be equal differ",
            Self::Address(why) => return why.fmt(f),
            Self::EmptyUser => "the user name is empty",
            Self::Anonymous => "an anonymous login does not count",
            Self::LongUser => "the user name is longer than 255 bytes",
            Self::ControlBytes => "the user name contains control characters",
        };
        f.write_str(text)
    }
}

/// The numbers of the named groups.
#[derive(Clone, Copy, Debug, Default)]
struct Groups {
    address: Option<usize>,
    user: Option<usize>,
    domain: Option<usize>,
    session: Option<usize>,
}

impl Groups {
    fn of(regex: &Regex) -> Self {
        let group = |name| regex.capture_names().position(|found| found == Some(name));
        Self {
            address: group("address"),
            user: group("user"),
            domain: group("domain"),
            session: group("session"),
        }
    }
}

/// Returns the beginnings of all texts that match an expression, if they are few.
fn beginnings(expression: &Hir) -> Option<Vec<Box<[u8]>>> {
    let found = Extractor::new().limit_total(MAX_BEGINNINGS).extract(expression);
    Some(found.literals()?.iter().map(|literal| literal.as_bytes().into()).collect())
}

/// Returns texts of which every text that matches an expression contains one, if known: the most
/// selective part that no match can lack.
fn required(expression: &Hir) -> Option<Vec<Literal>> {
    let HirKind::Concat(parts) = expression.kind() else { return None };
    let shortest = |texts: &Vec<&str>| texts.iter().map(|text| text.len()).min();
    let texts = parts.iter().filter_map(literals).max_by_key(shortest)?;
    Some(texts.into_iter().map(str::to_owned).map(Literal::from).collect())
}

/// Returns the texts that an expression matches, if it is a literal or an alternation of literals.
fn literals(expression: &Hir) -> Option<Vec<&str>> {
    match expression.kind() {
        HirKind::Literal(literal) => Some(vec![str::from_utf8(&literal.0).ok()?]),
        HirKind::Capture(group) => literals(&group.sub),
        HirKind::Alternation(parts) if parts.len() <= MAX_BEGINNINGS => {
            parts.iter().map(literals).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        _ => None,
    }
}

/// A compiled expression, and what tells cheaply that it cannot match.
#[derive(Clone, Debug)]
struct Compiled {
    regex: Regex,
    groups: Groups,
    /// How every text begins that matches, if known.
    beginnings: Option<Vec<Box<[u8]>>>,
    /// Texts of which every text that matches contains one, if known.
    required: Option<Vec<Literal>>,
    /// How many bytes decide whether the expression matches, whatever follows; `None`: all.
    decided_by: Option<usize>,
}

impl Compiled {
    fn new(text: &str) -> Result<Self, String> {
        let hir = regex_syntax::parse(text).map_err(|error| error.to_string())?;
        if !hir.properties().look_set_prefix().contains(Look::Start) {
            return Err("the pattern is not anchored at the start: begin it with ^".into());
        }
        let looks_no_further = hir.properties().look_set().remove(Look::Start).is_empty();
        let decided_by = hir.properties().maximum_len().filter(|_| looks_no_further);
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_DFA_CACHE)
            .build()
            .map_err(|error| error.to_string())?;
        let groups = Groups::of(&regex);
        let (beginnings, required) = (beginnings(&hir), required(&hir));
        Ok(Self { regex, groups, beginnings, required, decided_by })
    }

    /// Returns whether a text begins like those that match, and contains what they all contain.
    fn can_match(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        self.beginnings.as_ref().is_none_or(|all| all.iter().any(|it| bytes.starts_with(it)))
            && self.required.as_ref().is_none_or(|all| all.iter().any(|it| it.is_in(text)))
    }
}

/// A regular expression with side conditions.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Compiled>,
    /// Its line in the file, counted from 1.
    pub file_line: usize,
    /// The daemon's programs that it is for; empty: all.
    pub programs: Vec<String>,
    /// Texts that must occur in the message exactly once.
    pub once: Vec<Literal>,
    /// Texts that must not occur in the message.
    pub never: Vec<Literal>,
    /// Two groups that must contain the same text.
    pub same: Option<[String; 2]>,
    /// Bytes of the longest message that is accepted.
    pub max_length: Option<usize>,
}

/// The part of a message that patterns see.
#[derive(Clone, Copy, Debug)]
pub(super) struct VisibleText<'m> {
    /// The text, or the beginning of a long one.
    text: &'m str,
    /// Bytes of the whole body.
    pub length: usize,
    /// Whether it is only the beginning.
    pub is_truncated: bool,
}

impl<'m> VisibleText<'m> {
    /// Returns the visible part of a message; `length` is that of the body in bytes as received.
    pub fn of(message: &Message<'m>, length: usize) -> Self {
        // Replaced bytes are longer than the original ones; the longer count is the safer one.
        let length = length.max(message.body.len());
        let text = message.text();
        let is_truncated = length > MAX_SEEN;
        let end = (0..=text.len().min(MAX_SEEN)).rev().find(|at| text.is_char_boundary(*at));
        Self { text: &text[..end.unwrap_or_default()], length, is_truncated }
    }
}

/// What a pattern has extracted from a message.
#[derive(Debug)]
pub struct Extracted<'m> {
    pub address: Option<IpAddr>,
    pub user: Option<String>,
    pub session: Option<&'m str>,
}

impl Pattern {
    /// Compiles a regular expression, which must be anchored at the start.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let compiled = Compiled::new(text)?;
        Ok(Self { compiled: compiled.into(), ..Self::built_in(text) })
    }

    /// Creates a pattern of a built-in description. It is compiled when a message needs it: a host
    /// has one or two of the mail daemons, and the expressions of all take 4 MiB and 14 ms.
    pub(super) fn built_in(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
            file_line: 0,
            programs: Vec::new(),
            once: Vec::new(),
            never: Vec::new(),
            same: None,
            max_length: None,
        }
    }

    fn compiled(&self) -> &Compiled {
        let compile =
            || Compiled::new(&self.text).expect("the tests compile all built-in patterns");
        self.compiled.get_or_init(compile)
    }

    /// Returns the regular expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the expression has a named group.
    pub fn has_group(&self, name: &str) -> bool {
        self.compiled().regex.capture_names().flatten().any(|group| group == name)
    }

    /// Returns whether it extracts an address.
    pub fn gives_address(&self) -> bool {
        self.compiled().groups.address.is_some()
    }

    /// Returns whether the expression matches, or might match if more were visible, without side
    /// conditions. For what takes trust away.
    pub(super) fn may_match(&self, seen: VisibleText<'_>) -> bool {
        let compiled = self.compiled();
        let is_decided =
            !seen.is_truncated || compiled.decided_by.is_some_and(|bytes| bytes <= seen.text.len());
        !is_decided || (compiled.can_match(seen.text) && compiled.regex.is_match(seen.text))
    }

    /// Returns the session's id in a message that matches, without side conditions.
    pub(super) fn session<'m>(&self, message: &Message<'m>) -> Option<&'m str> {
        let Compiled { regex, groups, .. } = self.compiled();
        let captures = regex.captures(message.text()).filter(|_| self.is_for(message.program));
        Some(captures?.get(groups.session?)?.as_str())
    }

    /// Matches and checks a message. `None` if the expression does not match.
    pub(super) fn extract_visible<'m>(
        &self,
        seen: VisibleText<'m>,
    ) -> Option<Result<Extracted<'m>, Refusal>> {
        let (end, groups) = self.find(seen.text)?;
        if seen.is_truncated && end == seen.text.len() {
            // It might not match if more were visible.
            return None;
        }
        Some(self.check(seen.text, seen.length, &groups))
    }

    /// Matches and checks a whole text, without regard to program and priority. `None` if the
    /// expression does not match.
    pub fn extract<'m>(&self, text: &'m str) -> Option<Result<Extracted<'m>, Refusal>> {
        let (_, groups) = self.find(text)?;
        Some(self.check(text, text.len(), &groups))
    }

    /// Returns the end of the match and the places of the groups.
    fn find(&self, text: &str) -> Option<(usize, CaptureLocations)> {
        let compiled = self.compiled();
        if !compiled.can_match(text) {
            return None;
        }
        let mut groups = compiled.regex.capture_locations();
        let end = compiled.regex.captures_read(&mut groups, text)?.end();
        Some((end, groups))
    }

    /// Returns where in a text the group `address` matches, whether or not it is an address.
    pub fn place(&self, text: &str) -> Option<Range<usize>> {
        Some(self.compiled().regex.captures(text)?.name("address")?.range())
    }

    /// Returns whether it is for messages of this program of its daemon.
    pub fn is_for(&self, program: &str) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|name| name == program)
    }

    fn check<'m>(
        &self,
        text: &'m str,
        length: usize,
        groups: &CaptureLocations,
    ) -> Result<Extracted<'m>, Refusal> {
        if self.max_length.is_some_and(|max| length > max) {
            return Err(Refusal::TooLong);
        }
        if let Some(literal) = self.once.iter().find(|literal| !literal.is_once_in(text)) {
            return Err(Refusal::Ambiguous(literal.as_str().to_owned()));
        }
        if let Some(literal) = self.never.iter().find(|literal| literal.is_in(text)) {
            return Err(Refusal::Forbidden(literal.as_str().to_owned()));
        }
        let Compiled { regex, groups: numbers, .. } = self.compiled();
        let group =
            |number: Option<usize>| groups.get(number?).map(|(start, end)| &text[start..end]);
        if let Some(same) = &self.same {
            let number = |name: &String| regex.capture_names().position(|n| n == Some(name));
            let [one, other] = same.each_ref().map(|name| group(number(name)));
            if one != other {
                return Err(Refusal::Contradiction);
            }
        }
        let address = group(numbers.address).map(address::read).transpose();
        let address = address.map_err(Refusal::Address)?;
        let domain = group(numbers.domain);
        let user = group(numbers.user).map(|user| checked_user(user, domain)).transpose()?;
        Ok(Extracted { address, user, session: group(numbers.session) })
    }
}

fn checked_user(user: &str, domain: Option<&str>) -> Result<String, Refusal> {
    let whole = match domain {
        Some(domain) if !domain.is_empty() => format!("{user}@{domain}"),
        _ => user.to_owned(),
    };
    if user.is_empty() {
        Err(Refusal::EmptyUser)
    } else if whole.split('@').next().is_some_and(|name| name.eq_ignore_ascii_case("anonymous")) {
        Err(Refusal::Anonymous)
    } else if whole.len() > MAX_USER {
        Err(Refusal::LongUser)
    } else if whole.chars().any(char::is_control) {
        Err(Refusal::ControlBytes)
    } else {
        Ok(whole)
    }
}
