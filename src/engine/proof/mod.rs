//! Proves that no message which a stranger can cause is believed by a login pattern.
//!
//! Promise  `Proved` holds for every message of the shape; `Forged` shows a message that the
//!          pattern really believes; everything else is `Undecided`, never proved.
//! How      pattern and shape become automata, and all pairs of their states are searched for a
//!          message that both accept. A message found is tried on the real pattern.
//! Limits   a shape is only as true as what was written into it; bounds on sizes end a search.
//! Not here facility, severity, program names, and what several messages mean together.

use std::ops::{ControlFlow, Range};

use regex::Regex;

use super::address;

mod automaton;
#[cfg(test)]
mod brute;
mod once;
mod search;
#[cfg(test)]
mod tests;
mod verdict;

use automaton::{Automaton, Reading};
use once::Once;
use search::{Outcome, Search};

pub use verdict::{Doubt, Fault, Refusal, Verdict};

/// Messages that are tried before the search gives up: each costs one run of the pattern.
const MAX_REFUSED: usize = 200;
/// Bytes of a user name that is believed: no account has a longer one.
const MAX_USER: usize = 255;
/// Addresses that a made-up message shows where it can (RFC 5737, RFC 3849).
const SPECIMENS: &[&str] = &["198.51.100.7", "2001:db8::7"];

/// What must hold of a message besides that the pattern matches.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Texts that occur exactly once in the message, as `str::matches` counts them.
    pub once: Vec<String>,
    /// Pairs of groups that hold the same text.
    pub same: Vec<[String; 2]>,
    /// Bytes of the longest message that is believed.
    pub max_length: Option<usize>,
}

/// A login pattern, ready to be tried against shapes.
///
/// Its group `address` gives the address, its group `user` (if there is one) the user: 1 to 255
/// bytes without control characters. It is read as `Regex::new` reads it.
pub struct Pattern {
    regex: Regex,
    automaton: Automaton,
    conditions: Conditions,
    once: Once,
}

/// Who causes the messages of a shape, and so what may come of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Anybody without a password: no such message may be believed at all.
    Stranger,
    /// A client that may be believed: the address given must be the one which the daemon has
    /// written for it, the group `client` of the shape.
    Client,
}

/// All messages of one kind, as a regular expression for the whole message.
pub struct Shape {
    automaton: Automaton,
    cause: Cause,
}

impl Pattern {
    /// Prepares a pattern with its conditions.
    ///
    /// # Errors
    /// Says why the pattern cannot be examined.
    pub fn new(pattern: &str, conditions: Conditions) -> Result<Self, Fault> {
        let regex = Regex::new(pattern).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => Fault::TooLarge,
            other => Fault::Syntax(other.to_string()),
        })?;
        let known = |name: &&String| regex.capture_names().flatten().any(|group| group == *name);
        if let Some(name) = conditions.same.iter().flatten().find(|name| !known(name)) {
            return Err(Fault::NoGroup(name.clone()));
        }
        let automaton = Automaton::new(pattern, "address", Reading::Search)?;
        let once = Once::new(&conditions.once)?;
        Ok(Self { regex, automaton, conditions, once })
    }

    /// Where the address stands in a message that is believed, if an address stands there; `None`
    /// if the pattern has none.
    fn believe(&self, message: &str) -> Result<Option<Range<usize>>, Refusal> {
        let Conditions { once, same, max_length } = &self.conditions;
        let groups = self.regex.captures(message).ok_or(Refusal::Unmatched)?;
        let text = |name: &str| groups.name(name).map(|group| group.as_str());
        if max_length.is_some_and(|longest| message.len() > longest) {
            return Err(Refusal::TooLong);
        }
        if let Some(text) = once.iter().find(|text| message.matches(text.as_str()).count() != 1) {
            return Err(Refusal::Once(text.clone()));
        }
        if let Some(pair) = same.iter().find(|[one, other]| text(one) != text(other)) {
            return Err(Refusal::Same(pair.clone()));
        }
        if let Some(user) = text("user") {
            let sized = (1..=MAX_USER).contains(&user.len());
            if !sized || user.chars().any(char::is_control) {
                return Err(Refusal::User);
            }
        }
        if !self.gives_address() {
            return Ok(None);
        }
        groups.name("address").map(|group| Some(group.range())).ok_or(Refusal::NoAddress)
    }

    fn gives_address(&self) -> bool {
        self.regex.capture_names().flatten().any(|name| name == "address")
    }

    /// Where the pattern sees an address, whether or not it is one.
    fn place(&self, message: &str) -> Option<Range<usize>> {
        Some(self.regex.captures(message)?.name("address")?.range())
    }
}

impl Shape {
    /// Prepares a shape: an expression for the whole message, anchored or not. Its group `client`
    /// is the address which the daemon writes for the client; without it every match is wrong.
    ///
    /// # Errors
    /// Says why the shape cannot be examined.
    pub fn new(expression: &str, cause: Cause) -> Result<Self, Fault> {
        Ok(Self { automaton: Automaton::new(expression, "client", Reading::Whole)?, cause })
    }

    fn spans(&self) -> bool {
        self.cause == Cause::Client
    }

    /// Whether the daemon can write this message so that this span is wrongly an address.
    fn can_be(&self, message: &str, span: Option<Range<usize>>) -> bool {
        let word = Automaton::word(message.as_bytes(), span);
        let once = Once::nothing();
        let (shape, spans) = (&self.automaton, self.spans());
        Search { pattern: &word, shape, once: &once, spans, longest: None }
            .run(|_| ControlFlow::Break(()))
            == Outcome::Stopped
    }
}

/// Searches a message of the shape that the pattern wrongly believes.
///
/// A pattern without the group `address` gives no address, so a `Client` shape is proved at once.
pub fn prove(pattern: &Pattern, shape: &Shape) -> Verdict {
    if shape.spans() && !pattern.gives_address() {
        return Verdict::Proved { states: 0 };
    }
    let (mut forged, mut refused, mut tried) = (None, None, 0);
    let search = Search {
        pattern: &pattern.automaton,
        shape: &shape.automaton,
        once: &pattern.once,
        spans: shape.spans(),
        longest: pattern.conditions.max_length,
    };
    let outcome = search.run(|bytes| {
        let message = String::from_utf8_lossy(&bytes);
        match forge(pattern, shape, &message) {
            Ok(forgery) => {
                forged = Some(forgery);
                return ControlFlow::Break(());
            }
            Err(refusal) => {
                refused.get_or_insert(Doubt::Refused { message: message.into_owned(), refusal });
            }
        }
        tried += 1;
        if tried < MAX_REFUSED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match (forged, refused, outcome) {
        (Some(forgery), ..) => forgery,
        (None, Some(doubt), _) => Verdict::Undecided(doubt),
        (None, None, Outcome::Exhausted(states)) => Verdict::Proved { states },
        (None, None, _) => Verdict::Undecided(Doubt::TooLarge),
    }
}

/// Makes a forgery of a message that both automata accept, with a real address if it can have one.
fn forge(pattern: &Pattern, shape: &Shape, message: &str) -> Result<Verdict, Refusal> {
    let attempt = |message: String| {
        let span = pattern.believe(&message)?;
        if !shape.can_be(&message, span.clone()) {
            return Err(Refusal::OwnAddress);
        }
        let address = span.map(|span| message[span].to_owned());
        address.as_deref().map(address::read).transpose().map_err(Refusal::Address)?;
        Ok(Verdict::Forged { message, address })
    };
    if let Some(place) = pattern.place(message) {
        for specimen in SPECIMENS {
            let mut longer = message.to_owned();
            longer.replace_range(place.clone(), specimen);
            let others = [Some(longer), fitted(message, place.clone(), specimen)];
            if let Some(forgery) = others.into_iter().flatten().find_map(|m| attempt(m).ok()) {
                return Ok(forgery);
            }
        }
    }
    attempt(message.to_owned())
}

/// Puts a longer text into a place and takes as much from the longest run of one byte: for
/// messages whose length is fixed.
fn fitted(message: &str, place: Range<usize>, text: &str) -> Option<String> {
    let surplus = text.len().checked_sub(place.len())?;
    let (mut at, mut run) = (0, 0..0);
    for same in message.as_bytes().chunk_by(|a, b| a == b) {
        if same.len() > run.len() {
            run = at..at + same.len();
        }
        at += same.len();
    }
    let cut = run.start..run.start + surplus;
    let whole = message.get(cut.clone()).is_some() && cut.end <= run.end;
    let mut message = message.to_owned();
    if whole && cut.start >= place.end {
        message.replace_range(cut, "");
        message.replace_range(place, text);
        Some(message)
    } else if whole && cut.end <= place.start {
        message.replace_range(place, text);
        message.replace_range(cut, "");
        Some(message)
    } else {
        None
    }
}
