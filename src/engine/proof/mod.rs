//! Proves that no pattern accepts a message which an unauthenticated client can cause.
//!
//! - **Promise**: `Proved` holds for every message of the shape; `Forged` shows a message that the
//!   pattern really accepts; everything else is `Undecided`, never proved.
//! - **How**: pattern and shape become automata, and all their product states are searched for a
//!   message that both accept. A message that is found is tried on the real pattern.
//! - **Limits**: the proof is only as good as the shape; bounds on sizes end a search.
//! - **Not here**: facility, severity, program names, and what several messages mean together.

use std::ops::{ControlFlow, Range};

use regex_syntax::hir::{Capture, Hir, HirKind, Repetition};

use super::maildaemons;

mod automaton;
#[cfg(test)]
mod brute;
pub mod claims;
mod counts;
pub mod examples;
mod search;
#[cfg(test)]
mod tests;
mod verdict;

use automaton::{Anchoring, Automaton};
use counts::LiteralCounts;
use search::{Search, SearchOutcome};

pub use verdict::{Doubt, ExpressionFault, NoForgery, ProofVerdict};

/// Messages that are tried before the search gives up: each costs one run of the pattern.
const MAX_REFUSED: usize = 200;
/// Addresses that generated messages contain where possible (RFC 5737, RFC 3849).
const ADDRESSES: &[&str] = &["198.51.100.7", "2001:db8::7"];
/// The user that they contain where possible.
const USERS: &[&str] = &["joe"];

/// A pattern prepared for proofs: the expression as an automaton, and the pattern itself, which
/// decides on every message found.
pub struct CheckedPattern {
    pattern: maildaemons::Pattern,
    automaton: Automaton,
    /// The same for realistic messages: with a name and an address, then with any name.
    realistic: [Automaton; 2],
    counts: LiteralCounts,
}

/// What makes an accepted message of a shape a forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Anything: nobody has logged in.
    Any,
    /// Another address than the group `client` of the shape; without that group, any address.
    OtherAddress,
}

/// All messages of one kind, as a regular expression for the whole message.
pub struct CheckedShape {
    automaton: Automaton,
}

impl CheckedPattern {
    /// Prepares a pattern with its conditions.
    ///
    /// # Errors
    /// Why the pattern cannot be analysed.
    pub fn new(pattern: maildaemons::Pattern) -> Result<Self, ExpressionFault> {
        let expression = parsed(pattern.as_str())?;
        let automaton = Automaton::new(&expression, "address", Anchoring::Search)?;
        let is_name = |group: &str| {
            group == "user" || pattern.same.iter().flatten().any(|same| same == group)
        };
        let addressed = filled(&expression, &|group| group == "address", ADDRESSES);
        let named = filled(&addressed, &is_name, USERS);
        let realistic = [
            Automaton::new(&named, "address", Anchoring::Search)?,
            Automaton::new(&addressed, "address", Anchoring::Search)?,
        ];
        let counts = LiteralCounts::new(&pattern.once, &pattern.never)?;
        Ok(Self { pattern, automaton, realistic, counts })
    }

    /// Returns where the address is in an accepted message; `None` if the pattern has none.
    fn extract(&self, message: &str) -> Result<Option<Range<usize>>, NoForgery> {
        let text = message.trim_start_matches(' ');
        match self.pattern.extract(text) {
            None => Err(NoForgery::Unmatched),
            Some(Err(why)) => Err(NoForgery::ByPattern(why)),
            Some(Ok(_)) => Ok(self.place(message)),
        }
    }

    /// Returns whether the pattern extracts addresses at all.
    pub fn gives_address(&self) -> bool {
        self.pattern.gives_address()
    }

    /// Returns where the group `address` matches, whether or not it is an address.
    fn place(&self, message: &str) -> Option<Range<usize>> {
        let text = message.trim_start_matches(' ');
        let blanks = message.len() - text.len();
        let place = self.pattern.place(text)?;
        Some(place.start + blanks..place.end + blanks)
    }
}

impl CheckedShape {
    /// Prepares a shape: an expression for the whole message, anchored or not. Its group `client`
    /// is the address that the daemon writes for the client.
    ///
    /// # Errors
    /// Why the shape cannot be analysed.
    pub fn new(expression: &str) -> Result<Self, ExpressionFault> {
        Ok(Self { automaton: Automaton::new(&parsed(expression)?, "client", Anchoring::Whole)? })
    }

    /// Returns whether the daemon can write this message such that the span is a forged address.
    fn can_be(&self, message: &str, span: Option<Range<usize>>, forgery: Forgery) -> bool {
        let literal = Automaton::literal(message.as_bytes(), span);
        let (shape, spans) = (&self.automaton, forgery == Forgery::OtherAddress);
        Search { pattern: &literal, shape, counts: &LiteralCounts::nothing(), spans, longest: None }
            .run(|_| ControlFlow::Break(()))
            == SearchOutcome::Stopped
    }
}

/// Searches for a message of the shape that the pattern wrongly accepts.
///
/// A pattern without the group `address` extracts no address, and so none that is wrong.
pub fn prove(checked: &CheckedPattern, shape: &CheckedShape, forgery: Forgery) -> ProofVerdict {
    let spans = forgery == Forgery::OtherAddress;
    if spans && !checked.gives_address() {
        return ProofVerdict::Proved { states: 0 };
    }
    let verdict = search(checked, &checked.automaton, shape, forgery);
    if matches!(verdict, ProofVerdict::Proved { .. }) {
        return verdict;
    }
    let mut real =
        checked.realistic.iter().map(|automaton| search(checked, automaton, shape, forgery));
    real.find(|real| matches!(real, ProofVerdict::Forged { .. })).unwrap_or(verdict)
}

/// Searches the messages that this automaton of the pattern accepts.
fn search(
    checked: &CheckedPattern,
    pattern: &Automaton,
    shape: &CheckedShape,
    forgery: Forgery,
) -> ProofVerdict {
    let (mut forged, mut refused, mut tried) = (None, None, 0);
    let search = Search {
        pattern,
        shape: &shape.automaton,
        counts: &checked.counts,
        spans: forgery == Forgery::OtherAddress,
        longest: checked.pattern.max_length,
    };
    let outcome = search.run(|bytes| {
        let message = String::from_utf8_lossy(&bytes).into_owned();
        match forged_address(checked, shape, forgery, &message) {
            Ok(address) => {
                forged = Some(ProofVerdict::Forged { message, address });
                return ControlFlow::Break(());
            }
            Err(refusal) => {
                refused.get_or_insert(Doubt::Refused { message, refusal });
            }
        }
        tried += 1;
        if tried < MAX_REFUSED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match (forged, refused, outcome) {
        (Some(forged), ..) => forged,
        (None, Some(doubt), _) => ProofVerdict::Undecided(doubt),
        (None, None, SearchOutcome::Exhausted(states)) => ProofVerdict::Proved { states },
        (None, None, _) => ProofVerdict::Undecided(Doubt::TooLarge),
    }
}

/// Returns the address, if any, that is wrongly accepted in a message that both automata accept.
fn forged_address(
    checked: &CheckedPattern,
    shape: &CheckedShape,
    forgery: Forgery,
    message: &str,
) -> Result<Option<String>, NoForgery> {
    let span = checked.extract(message)?;
    if forgery == Forgery::OtherAddress && span.is_none() {
        return Err(NoForgery::NoAddress);
    }
    if !shape.can_be(message, span.clone(), forgery) {
        return Err(NoForgery::OwnAddress);
    }
    Ok(span.map(|span| message[span].to_owned()))
}

fn parsed(expression: &str) -> Result<Hir, ExpressionFault> {
    regex_syntax::parse(expression).map_err(|error| ExpressionFault::Syntax(error.to_string()))
}

/// Returns the expression with some groups replaced by these texts.
fn filled(expression: &Hir, is_meant: &dyn Fn(&str) -> bool, texts: &[&str]) -> Hir {
    let again = |inner: &Hir| filled(inner, is_meant, texts);
    match expression.kind() {
        HirKind::Capture(group) => {
            let literals = texts.iter().map(|text| Hir::literal(text.as_bytes()));
            let sub = Box::new(match &group.name {
                Some(name) if is_meant(name) => Hir::alternation(literals.collect()),
                _ => again(&group.sub),
            });
            Hir::capture(Capture { sub, ..group.clone() })
        }
        HirKind::Repetition(repeated) => {
            let sub = Box::new(again(&repeated.sub));
            Hir::repetition(Repetition { sub, ..repeated.clone() })
        }
        HirKind::Concat(list) => Hir::concat(list.iter().map(again).collect()),
        HirKind::Alternation(list) => Hir::alternation(list.iter().map(again).collect()),
        _ => expression.clone(),
    }
}
