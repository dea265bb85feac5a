//! The result of a proof, and its texts.

use std::fmt;

use crate::engine::maildaemons;

/// Why an expression cannot be analysed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionFault {
    /// Not a regular expression.
    Syntax(String),
    /// An assertion other than the start and the end of the message.
    Assertion,
    /// Too large when its repetitions are expanded.
    TooLarge,
    /// A text that must occur once or never is empty or too long.
    Quantity(String),
}

/// Why a message that both automata accept is not a forgery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoForgery {
    /// The real pattern does not match.
    Unmatched,
    /// It matches, but the message is refused.
    ByPattern(maildaemons::Refusal),
    /// The pattern matches without its address.
    NoAddress,
    /// The address is the client's own.
    OwnAddress,
}

/// What was proved of a pattern and a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofVerdict {
    /// No message of the shape is wrongly accepted.
    Proved {
        /// The number of product states visited.
        states: usize,
    },
    /// This message of the shape is wrongly accepted.
    Forged {
        /// The whole message, one of the shortest.
        message: String,
        /// The address that would be authorised; `None` if the pattern has none.
        address: Option<String>,
    },
    /// Neither was shown.
    Undecided(Doubt),
}

/// Why neither was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Pattern and shape together are too large to be searched.
    TooLarge,
    /// Both match some messages, but those tried are refused for another reason.
    Refused {
        /// The first of them.
        message: String,
        /// Why it is refused.
        refusal: NoForgery,
    },
}

impl fmt::Display for ExpressionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "not a valid regular expression: {why}"),
            Self::Assertion => f.write_str(
                "only the assertions ^ and $ can be analysed, not \\b or (?m); match the \
                 neighbouring characters instead",
            ),
            Self::TooLarge => f.write_str(
                "the expression is too large when its repetitions are expanded; use smaller \
                 bounds, or [0-9] instead of \\d and [A-Za-z0-9_] instead of \\w",
            ),
            Self::Quantity(text) => {
                write!(f, "a text in `once` or `never` must have 1 to 64 bytes: {text:?}")
            }
        }
    }
}

impl fmt::Display for NoForgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmatched => f.write_str("the pattern does not match the whole message"),
            Self::ByPattern(why) => write!(f, "{why}"),
            Self::NoAddress => f.write_str("the group `address` is not part of the match"),
            Self::OwnAddress => f.write_str("the address in it is the client's own"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str(
                "pattern and shape together are too large to search; use smaller bounds",
            ),
            Self::Refused { message, refusal } => write!(
                f,
                "the pattern matches the message {message:?}; this one is refused ({refusal}), but \
                 similar ones may not be; make the pattern narrower",
            ),
        }
    }
}
