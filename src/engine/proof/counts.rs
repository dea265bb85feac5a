//! Counts fixed texts while a message is built byte by byte: not yet, once, too often.
//!
//! - **Promise**: accepts exactly the messages in which each text of one list occurs once, as
//!   counted by [`str::matches`], and no text of another list occurs.

use std::iter::repeat;

use super::ExpressionFault;
use crate::engine::maildaemons::Literal;

/// Bytes of one counted text: real ones are far shorter, and the tables stay small.
const MAX_LITERAL: usize = 64;
/// States of all counters together: as many as fit into a key of the search.
const MAX_STATES: u32 = 1 << 20;

/// Ranges of bytes in order of readability, for generated messages.
const PREFERRED: &[(u8, u8)] = &[(b'a', b'z'), (b'1', b'9'), (b'A', b'Z'), (b'!', b'~'), (0, 255)];

/// The counters of all texts that must occur exactly once or never.
pub(super) struct LiteralCounts {
    counters: Vec<Counter>,
    /// All bytes of the texts, each once.
    counted: Vec<u8>,
}

struct Counter {
    /// For each number of matched bytes of the text: how many are matched after the next byte.
    after: Vec<[u8; 256]>,
    /// How often the text must occur: 0 or 1.
    wanted: u32,
}

impl LiteralCounts {
    pub(super) fn new(once: &[Literal], never: &[Literal]) -> Result<Self, ExpressionFault> {
        let texts = || {
            let never = never.iter().zip(repeat(0));
            once.iter().zip(repeat(1)).chain(never).map(|(it, wanted)| (it.as_str(), wanted))
        };
        let mut states = 1_u32;
        for (text, _) in texts() {
            if text.is_empty() || text.len() > MAX_LITERAL {
                return Err(ExpressionFault::Quantity(text.to_owned()));
            }
            states = states.saturating_mul(2 * text.len() as u32);
        }
        if states > MAX_STATES {
            return Err(ExpressionFault::TooLarge);
        }
        let counters =
            texts().map(|(text, wanted)| Counter::new(text.as_bytes(), wanted)).collect();
        let mut counted: Vec<u8> = texts().flat_map(|(text, _)| text.bytes()).collect();
        counted.sort_unstable();
        counted.dedup();
        Ok(Self { counters, counted })
    }

    /// Creates counters without texts.
    pub(super) const fn nothing() -> Self {
        Self { counters: Vec::new(), counted: Vec::new() }
    }

    /// Returns the state after one more byte (the first state is 0); `None` if a text occurs too
    /// often.
    pub(super) fn step(&self, state: u32, byte: u8) -> Option<u32> {
        let (mut rest, mut unit, mut sum) = (state, 1, 0);
        for counter in &self.counters {
            let length = counter.after.len() as u32;
            let mine = rest % (2 * length);
            rest /= 2 * length;
            let (times, seen) = (mine / length, mine % length);
            let seen = u32::from(counter.after[seen as usize][usize::from(byte)]);
            if seen == length && times == counter.wanted {
                return None;
            }
            // After a whole text `seen` is the length, which carries into `times`.
            sum += (times * length + seen) * unit;
            unit *= 2 * length;
        }
        Some(sum)
    }

    /// Returns whether each text has occurred as often as it must.
    pub(super) fn complete(&self, state: u32) -> bool {
        let mut rest = state;
        self.counters.iter().all(|counter| {
            let length = counter.after.len() as u32;
            let mine = rest % (2 * length);
            rest /= 2 * length;
            mine / length == counter.wanted
        })
    }

    /// Returns bytes that represent a whole range: those that are counted, and one of the others.
    pub(super) fn samples(&self, low: u8, high: u8) -> impl Iterator<Item = u8> + '_ {
        let plain = |byte: &u8| !self.counted.contains(byte);
        let one =
            PREFERRED.iter().find_map(|&(from, to)| (low.max(from)..=high.min(to)).find(plain));
        let counted = self.counted.iter().copied().filter(move |byte| (low..=high).contains(byte));
        one.into_iter().chain(counted)
    }
}

impl Counter {
    fn new(text: &[u8], wanted: u32) -> Self {
        let longest = |seen: usize, byte: u8| {
            let read = [&text[..seen], &[byte]].concat();
            (0..=read.len()).rev().find(|&length| read.ends_with(&text[..length])).unwrap_or(0)
        };
        let row = |seen: usize| {
            let mut row = [0; 256];
            for &byte in text {
                // At most MAX_LITERAL.
                row[usize::from(byte)] = longest(seen, byte) as u8;
            }
            row
        };
        Self { after: (0..text.len()).map(row).collect(), wanted }
    }
}
