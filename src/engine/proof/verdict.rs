//! What is said of a pattern and a shape, and in which words.

use std::fmt;

use crate::engine::maildaemons;

/// Why an expression cannot be examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionFault {
    /// Not a regular expression.
    Syntax(String),
    /// An assertion other than the start and the end of the message.
    Assertion,
    /// Too large when its repetitions are written out.
    TooLarge,
    /// A text that is to occur once or never is empty or too long.
    Counted(String),
}

/// Why a message that both automata accept is no forgery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoForgery {
    /// The real pattern does not match.
    Unmatched,
    /// It matches, and does not believe the message.
    ByPattern(maildaemons::Refusal),
    /// The pattern matches without its address.
    NoAddress,
    /// It is the client's own after all.
    OwnAddress,
}

/// What was found out about a pattern and a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofVerdict {
    /// No message of the shape is wrongly believed.
    Proved {
        /// How many product states there were to see.
        states: usize,
    },
    /// This message of the shape is wrongly believed.
    Forged {
        /// The whole message, one of the shortest.
        message: String,
        /// The address that it gives; `None` when the pattern has none.
        address: Option<String>,
    },
    /// Neither was found.
    Undecided(Doubt),
}

/// Why nothing is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Pattern and shape together are too large to be searched.
    TooLarge,
    /// Messages fit both, but those that were tried are refused for another reason.
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
            Self::Syntax(why) => write!(f, "this is not a regular expression: {why}"),
            Self::Assertion => f.write_str(
                "only the assertions ^ and $ can be examined, no \\b, no (?m); write the \
                 neighbouring characters instead",
            ),
            Self::TooLarge => f.write_str(
                "the expression is too large when its repetitions are written out; use smaller \
                 bounds, or [0-9] instead of \\d and [A-Za-z0-9_] instead of \\w",
            ),
            Self::Counted(text) => {
                write!(f, "a text of `once` or `never` must have 1 to 64 bytes: {text:?}")
            }
        }
    }
}

impl fmt::Display for NoForgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmatched => f.write_str("the pattern does not match it as a whole"),
            Self::ByPattern(why) => write!(f, "{why}"),
            Self::NoAddress => f.write_str("the group address takes no part in it"),
            Self::OwnAddress => f.write_str("the address in it is the client's own"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str(
                "pattern and shape together are too large to be searched; use smaller bounds",
            ),
            Self::Refused { message, refusal } => write!(
                f,
                "the pattern matches the message {message:?}; it is refused, because {refusal}, \
                 but others like it may not be; make the pattern narrower",
            ),
        }
    }
}
