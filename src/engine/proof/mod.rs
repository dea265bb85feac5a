//! Proves that no message which a stranger can cause is believed by a pattern.
//!
//! Promise  `Proved` holds for every message of the shape; `Forged` shows a message that the
//!          pattern really believes; everything else is `Undecided`, never proved.
//! How      pattern and shape become automata, and all pairs of their states are searched for a
//!          message that both accept. A message found is tried on the real pattern.
//! Limits   a shape is only as true as what was written into it; bounds on sizes end a search.
//! Not here facility, severity, program names, and what several messages mean together.

use std::ops::{ControlFlow, Range};

use super::daemons;

mod automaton;
#[cfg(test)]
mod brute;
mod counts;
mod search;
#[cfg(test)]
mod tests;
mod verdict;

use automaton::{Automaton, Reading};
use counts::Counts;
use search::{Outcome, Search};

pub use verdict::{Doubt, Fault, Refusal, Verdict};

/// Messages that are tried before the search gives up: each costs one run of the pattern.
const MAX_REFUSED: usize = 200;
/// Addresses that a made-up message shows where it can (RFC 5737, RFC 3849).
const SPECIMENS: &[&str] = &["198.51.100.7", "2001:db8::7"];

/// A pattern, ready to be tried against shapes: the expression as an automaton, and the pattern
/// itself, which has the last word on every message found.
pub struct Believer {
    pattern: daemons::Pattern,
    automaton: Automaton,
    counts: Counts,
}

/// Which belief in a message of a shape is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Any: nobody has logged in.
    Any,
    /// Another address than the group `client` of the shape; without that group, any address.
    OtherAddress,
}

/// All messages of one kind, as a regular expression for the whole message.
pub struct Shape {
    automaton: Automaton,
}

impl Believer {
    /// Prepares a pattern with its conditions.
    ///
    /// # Errors
    /// Says why the pattern cannot be examined.
    pub fn new(pattern: daemons::Pattern) -> Result<Self, Fault> {
        let automaton = Automaton::new(pattern.as_str(), "address", Reading::Search)?;
        let counts = Counts::new(&pattern.once, &pattern.never)?;
        Ok(Self { pattern, automaton, counts })
    }

    /// Where the address stands in a message that is believed; `None` if it gives none.
    fn believe(&self, message: &str) -> Result<Option<Range<usize>>, Refusal> {
        let text = message.trim_start_matches(' ');
        match self.pattern.believe(text, message.len()) {
            None => Err(Refusal::Unmatched),
            Some(Err(why)) => Err(Refusal::Disbelieved(why)),
            Some(Ok(_)) => Ok(self.place(message)),
        }
    }

    /// Whether it gives addresses at all.
    pub fn gives_address(&self) -> bool {
        self.pattern.has_group("address")
    }

    /// Where the pattern sees an address, whether or not it is one.
    fn place(&self, message: &str) -> Option<Range<usize>> {
        let text = message.trim_start_matches(' ');
        let blanks = message.len() - text.len();
        let place = self.pattern.place(text)?;
        Some(place.start + blanks..place.end + blanks)
    }
}

impl Shape {
    /// Prepares a shape: an expression for the whole message, anchored or not. Its group `client`
    /// is the address which the daemon writes for the client.
    ///
    /// # Errors
    /// Says why the shape cannot be examined.
    pub fn new(expression: &str) -> Result<Self, Fault> {
        Ok(Self { automaton: Automaton::new(expression, "client", Reading::Whole)? })
    }

    /// Whether the daemon can write this message so that this span is wrongly an address.
    fn can_be(&self, message: &str, span: Option<Range<usize>>, wrong: Wrong) -> bool {
        let word = Automaton::word(message.as_bytes(), span);
        let (shape, spans) = (&self.automaton, wrong == Wrong::OtherAddress);
        Search { pattern: &word, shape, counts: &Counts::nothing(), spans, longest: None }
            .run(|_| ControlFlow::Break(()))
            == Outcome::Stopped
    }
}

/// Searches a message of the shape that is wrongly believed.
///
/// A pattern without the group `address` gives no address, and so no wrong one.
pub fn prove(believer: &Believer, shape: &Shape, wrong: Wrong) -> Verdict {
    let spans = wrong == Wrong::OtherAddress;
    if spans && !believer.gives_address() {
        return Verdict::Proved { states: 0 };
    }
    let (mut forged, mut refused, mut tried) = (None, None, 0);
    let search = Search {
        pattern: &believer.automaton,
        shape: &shape.automaton,
        counts: &believer.counts,
        spans,
        longest: believer.pattern.max_length,
    };
    let outcome = search.run(|bytes| {
        let message = String::from_utf8_lossy(&bytes);
        match forge(believer, shape, wrong, &message) {
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
fn forge(
    believer: &Believer,
    shape: &Shape,
    wrong: Wrong,
    message: &str,
) -> Result<Verdict, Refusal> {
    let attempt = |message: String| {
        let span = believer.believe(&message)?;
        if wrong == Wrong::OtherAddress && span.is_none() {
            return Err(Refusal::NoAddress);
        }
        if !shape.can_be(&message, span.clone(), wrong) {
            return Err(Refusal::OwnAddress);
        }
        let address = span.map(|span| message[span].to_owned());
        Ok(Verdict::Forged { message, address })
    };
    if let Some(place) = believer.place(message) {
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
