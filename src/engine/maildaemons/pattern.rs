//! One compiled pattern and what it takes out of a message.
//!
//! Promise  anchored at the start, matched in linear time, bounded in size; what it yields has
//!          been checked: a whole client address, a user name that is one.
//! Refuses  what fits the pattern and must not be believed all the same, with the reason.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use regex::{Captures, Regex, RegexBuilder};
use regex_syntax::hir::Look;

use crate::engine::message::Message;
use crate::engine::message::address;
use crate::engine::message::address::NotAClient;

/// A compiled pattern may take this much memory; the largest built-in one takes a tenth of it.
const MAX_COMPILED: usize = 4 << 20;
/// So much memory a pattern's automaton may take for what it has met, in each thread and direction:
/// the corpus of genuine messages fills half of it at most, hostile ones all.
const MAX_LEARNT: usize = 512 << 10;
/// Bytes of a text that patterns see, and so of the longest login that can be believed. RFC 3164,
/// section 4.1, allows a packet no more, and a genuine login has a third of it.
pub const MAX_SEEN: usize = 1024;
/// Longest user name believed, in bytes: longer ones are only seen in attacks.
const MAX_USER: usize = 255;

/// Why a message that fits a login pattern is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The frame's facility is not one to which the daemon's logins were narrowed.
    Facility,
    /// The frame's severity is not that of a genuine login.
    Severity,
    /// Longer than a genuine login can be: no pattern of a login has seen it.
    TooLong,
    /// A text that must stand in it once stands in it more often.
    Ambiguous(String),
    /// A text that must not stand in it does.
    Forbidden(String),
    /// Two places that must say the same do not.
    Contradiction,
    /// The address field does not hold the address of a client.
    Address(NotAClient),
    /// No user name.
    EmptyUser,
    /// An anonymous login proves nothing.
    Anonymous,
    /// A user name longer than 255 bytes.
    LongUser,
    /// Control bytes in the user name.
    ControlBytes,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Facility => "`facility` does not name this facility for the mail daemon",
            Self::Severity => "the severity is not that of a genuine login line",
            Self::TooLong => "the message is longer than a genuine login line can be",
            Self::Ambiguous(literal) => {
                return write!(f, "ambiguous: `{literal}` must stand in it exactly once");
            }
            Self::Forbidden(literal) => {
                return write!(f, "`{literal}` must not stand in it");
            }
            Self::Contradiction => "two fields that must say the same differ",
            Self::Address(why) => return why.fmt(f),
            Self::EmptyUser => "the user name is empty",
            Self::Anonymous => "an anonymous login proves nothing",
            Self::LongUser => "the user name is longer than 255 bytes",
            Self::ControlBytes => "control bytes in the user name",
        };
        f.write_str(text)
    }
}

/// A pattern with its side conditions.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// Where it stands in its file, counted from 1.
    pub file_line: usize,
    /// The daemon's programs that it is for; empty: all.
    pub programs: Vec<String>,
    /// Texts that occur in the message exactly once, as `str::matches` counts them.
    pub once: Vec<String>,
    /// Texts that do not occur in the message.
    pub never: Vec<String>,
    /// Two groups that hold the same text.
    pub same: Option<[String; 2]>,
    /// Bytes of the longest message that is believed.
    pub max_length: Option<usize>,
    /// So many bytes decide whether the expression fits, whatever follows; `None`: only all do.
    decided_by: Option<usize>,
}

/// A message as patterns see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct VisibleText<'m> {
    /// Its text, or the beginning of a long one.
    text: &'m str,
    /// Bytes of the whole body.
    pub length: usize,
    /// Whether it is only the beginning.
    pub is_cut: bool,
}

impl<'m> VisibleText<'m> {
    /// `length` is that of the body in bytes as they arrived.
    pub fn of(message: &Message<'m>, length: usize) -> Self {
        // Replaced bytes are longer than those that arrived; the longer count is the safer one.
        let length = length.max(message.body.len());
        let text = message.text();
        let is_cut = length > MAX_SEEN;
        let end = (0..=text.len().min(MAX_SEEN)).rev().find(|at| text.is_char_boundary(*at));
        Self { text: &text[..end.unwrap_or_default()], length, is_cut }
    }
}

/// What a pattern took out of a message.
#[derive(Debug)]
pub struct Extracted<'m> {
    pub address: Option<IpAddr>,
    pub user: Option<String>,
    pub session: Option<&'m str>,
}

impl Pattern {
    /// Compiles a regular expression; only one that is anchored at the start is accepted.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let hir = regex_syntax::parse(text).map_err(|error| error.to_string())?;
        if !hir.properties().look_set_prefix().contains(Look::Start) {
            return Err("the pattern is not anchored at the start: begin it with ^".into());
        }
        let looks_no_further = hir.properties().look_set().remove(Look::Start).is_empty();
        let decided_by = hir.properties().maximum_len().filter(|_| looks_no_further);
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_LEARNT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            regex,
            file_line: 0,
            programs: Vec::new(),
            once: Vec::new(),
            never: Vec::new(),
            same: None,
            max_length: None,
            decided_by,
        })
    }

    /// The regular expression as it was written.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether the expression has a named group.
    pub fn has_group(&self, name: &str) -> bool {
        self.regex.capture_names().flatten().any(|group| group == name)
    }

    /// Whether the expression fits, or might fit if more were seen; side conditions aside. For what
    /// takes trust away.
    pub(super) fn may_fit(&self, seen: VisibleText<'_>) -> bool {
        let is_decided =
            !seen.is_cut || self.decided_by.is_some_and(|most| most <= seen.text.len());
        !is_decided || self.regex.is_match(seen.text)
    }

    /// The session's id in a message that fits, without looking at any side condition.
    pub(super) fn session<'m>(&self, message: &Message<'m>) -> Option<&'m str> {
        let captures = self.regex.captures(message.text()).filter(|_| self.is_for(message.program));
        Some(captures?.name("session")?.as_str())
    }

    /// Matches and checks a message.
    pub(super) fn take<'m>(&self, seen: VisibleText<'m>) -> Option<Result<Extracted<'m>, Refusal>> {
        let captures = self.regex.captures(seen.text)?;
        if seen.is_cut && captures.get_match().end() == seen.text.len() {
            // It might not fit if more were seen.
            return None;
        }
        Some(self.check(seen.text, seen.length, &captures))
    }

    /// Matches and checks a whole text, whoever logged it at whatever priority. `None` if the
    /// expression does not fit.
    pub fn extract<'m>(&self, text: &'m str) -> Option<Result<Extracted<'m>, Refusal>> {
        let captures = self.regex.captures(text)?;
        Some(self.check(text, text.len(), &captures))
    }

    /// Where in a text the expression sees an address, whether or not it is one.
    pub fn place(&self, text: &str) -> Option<Range<usize>> {
        Some(self.regex.captures(text)?.name("address")?.range())
    }

    /// Whether it is for messages of this program of its daemon.
    pub fn is_for(&self, program: &str) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|name| name == program)
    }

    fn check<'m>(
        &self,
        text: &'m str,
        length: usize,
        captures: &Captures<'m>,
    ) -> Result<Extracted<'m>, Refusal> {
        if self.max_length.is_some_and(|most| length > most) {
            return Err(Refusal::TooLong);
        }
        let many = |literal: &&String| text.matches(literal.as_str()).count() != 1;
        if let Some(literal) = self.once.iter().find(many) {
            return Err(Refusal::Ambiguous(literal.clone()));
        }
        if let Some(literal) = self.never.iter().find(|literal| text.contains(literal.as_str())) {
            return Err(Refusal::Forbidden(literal.clone()));
        }
        let group = |name: &str| captures.name(name).map(|found| found.as_str());
        if let Some([one, other]) = &self.same
            && group(one) != group(other)
        {
            return Err(Refusal::Contradiction);
        }
        let address = group("address").map(address::read).transpose().map_err(Refusal::Address)?;
        let user = group("user").map(|user| checked_user(user, group("domain"))).transpose()?;
        Ok(Extracted { address, user, session: group("session") })
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
