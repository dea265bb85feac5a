//! The search for a message that two automata accept, shortest first.
//!
//! - **Promise**: when it is `Exhausted` without having shown one, there is no such message.
//! - **Spans**: the watched groups of both are compared: where only one of them begins, the
//!   beginnings differ from here on; where both do, they agree again. Ends likewise.
//! - **Limits**: product states and steps; one message is shown for each path into an accepting
//!   state, not for each text.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;

use super::automaton::Automaton;
use super::counts::LiteralCounts;

/// Product states that one search keeps: about 50 bytes each. Real patterns need thousands.
const MAX_PRODUCT_STATES: usize = 2_000_000;
/// Pairs of targets that one search visits: a second or two.
const MAX_STEPS: usize = 100_000_000;

/// A search.
pub(super) struct Search<'a> {
    pub(super) pattern: &'a Automaton,
    pub(super) shape: &'a Automaton,
    pub(super) counts: &'a LiteralCounts,
    /// Whether only messages in which the watched groups differ are shown.
    pub(super) spans: bool,
    /// Bytes of the longest message.
    pub(super) longest: Option<usize>,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchOutcome {
    /// All product states were visited: their number.
    Exhausted(usize),
    /// The caller has stopped it.
    Stopped,
    /// A limit was reached.
    TooLarge,
}

/// The states of both automata and the counters, and the byte that led there from an earlier one.
#[derive(Clone, Copy)]
struct ProductState {
    pattern: u32,
    shape: u32,
    counts: u32,
    differs: u8,
    from: Option<(u32, u8)>,
}

struct Run<'a, F> {
    search: &'a Search<'a>,
    show: F,
    states: Vec<ProductState>,
    seen: HashSet<u64, BuildHasherDefault<MixHasher>>,
    steps: usize,
}

impl Search<'_> {
    /// Shows messages until the caller stops it.
    pub(super) fn run(&self, show: impl FnMut(Vec<u8>) -> ControlFlow<()>) -> SearchOutcome {
        let (states, seen) = (Vec::new(), HashSet::default());
        let mut run = Run { search: self, show, states, seen, steps: 0 };
        match run.all() {
            ControlFlow::Break(outcome) => outcome,
            ControlFlow::Continue(()) => SearchOutcome::Exhausted(run.states.len()),
        }
    }
}

impl<F: FnMut(Vec<u8>) -> ControlFlow<()>> Run<'_, F> {
    fn all(&mut self) -> ControlFlow<SearchOutcome> {
        self.arrive(
            0,
            0,
            ProductState { pattern: 0, shape: 0, counts: 0, differs: 0, from: None },
        )?;
        let mut level = 0..self.states.len();
        let mut length = 0;
        while !level.is_empty() && self.search.longest.is_none_or(|longest| length < longest) {
            for index in level.clone() {
                self.expand(index)?;
            }
            level = level.end..self.states.len();
            length += 1;
        }
        ControlFlow::Continue(())
    }

    /// Reads one more byte in both automata.
    fn expand(&mut self, index: usize) -> ControlFlow<SearchOutcome> {
        let Search { pattern, shape, counts: counter, .. } = *self.search;
        let state = self.states[index];
        let (mut ours, mut theirs) = (
            pattern.nodes[state.pattern as usize].moves.as_slice(),
            shape.nodes[state.shape as usize].moves.as_slice(),
        );
        // Both lists go from high bytes to low ones, without overlap.
        while let ([a, ours_left @ ..], [b, theirs_left @ ..]) = (ours, theirs) {
            let (low, high) = (a.low.max(b.low), a.high.min(b.high));
            if low <= high {
                for byte in counter.samples(low, high) {
                    if let Some(counts) = counter.step(state.counts, byte) {
                        // MAX_PRODUCT_STATES is far below 2^32.
                        let from = Some((index as u32, byte));
                        self.arrive(a.to, b.to, ProductState { counts, from, ..state })?;
                    }
                }
            }
            if a.low > b.low {
                ours = ours_left;
            } else {
                theirs = theirs_left;
            }
        }
        ControlFlow::Continue(())
    }

    /// Enters every pair of states of these targets; everything else is taken from `via`.
    fn arrive(&mut self, ours: u32, theirs: u32, via: ProductState) -> ControlFlow<SearchOutcome> {
        let Search { pattern, shape, counts: counter, spans, .. } = *self.search;
        for a in &pattern.targets[ours as usize] {
            for b in &shape.targets[theirs as usize] {
                self.steps += 1;
                let differs = (via.differs & !(a.marks & b.marks)) | (a.marks ^ b.marks);
                let differs = if spans { differs } else { 0 };
                let (ours, theirs) =
                    (&pattern.nodes[a.state as usize], &shape.nodes[b.state as usize]);
                let both = ours.accepts && theirs.accepts && counter.complete(via.counts);
                if both && (!spans || differs != 0) {
                    let message = self.message(via);
                    if (self.show)(message).is_break() {
                        return ControlFlow::Break(SearchOutcome::Stopped);
                    }
                }
                let state = ProductState { pattern: a.state, shape: b.state, differs, ..via };
                let dead = ours.moves.is_empty() || theirs.moves.is_empty();
                if !dead && self.seen.insert(state.key()) {
                    self.states.push(state);
                }
            }
        }
        if self.states.len() > MAX_PRODUCT_STATES || self.steps > MAX_STEPS {
            return ControlFlow::Break(SearchOutcome::TooLarge);
        }
        ControlFlow::Continue(())
    }

    /// Returns the bytes that led to a state.
    fn message(&self, last: ProductState) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut from = last.from;
        while let Some((index, byte)) = from {
            bytes.push(byte);
            from = self.states[index as usize].from;
        }
        bytes.reverse();
        bytes
    }
}

impl ProductState {
    /// Packs the state: 21 bits for each automaton, 20 for the counters, 2 for the spans, as
    /// limited by these modules.
    fn key(&self) -> u64 {
        let states = u64::from(self.pattern) << 21 | u64::from(self.shape);
        states << 22 | u64::from(self.counts) << 2 | u64::from(self.differs)
    }
}

/// Spreads a key over all bits (the finalizer of MurmurHash3). Keys come from the administrator's
/// patterns, so nobody can provoke collisions.
#[derive(Default)]
struct MixHasher(u64);

impl Hasher for MixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        let key = (key ^ key >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let key = (key ^ key >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.0 = key ^ key >> 33;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
