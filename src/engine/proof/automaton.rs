//! A regular expression as a flat automaton: every move reads one byte; epsilon closures are
//! computed in advance.
//!
//! - **Promise**: accepts the texts of the expression and keeps all its parses: priorities between
//!   alternatives are dropped, so whatever the matcher does is one of the paths. Assertions other
//!   than the start and the end of the message are refused.
//! - **Marks**: a target records whether the watched group begins or ends at its position.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use regex_automata::PatternID;
use regex_automata::nfa::thompson::{self, NFA, State, Transition};
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::ExpressionFault;

/// Bytes of one compiled expression: the limit of the regex crate, some 400 000 states.
const MAX_NFA: usize = 10 << 20;
/// Targets of one automaton: nested optional repetitions grow with the square of their bounds.
const MAX_TARGETS: usize = 2_000_000;
/// States of one automaton: as many as fit into a key of the search.
pub(super) const MAX_STATES: usize = 1 << 21;

/// The watched group begins here.
pub(super) const BEGINS: u8 = 1;
/// The watched group ends here.
pub(super) const ENDS: u8 = 2;

/// The accepting state after which nothing may follow.
const LAST: u32 = 0;
/// The accepting state after which anything may follow: the pattern is not anchored at the end.
const OPEN: u32 = 1;
/// The state that reads leading blanks, which a pattern does not see.
const BLANKS: u32 = 2;
/// The number of states before those of the expression.
const OWN: u32 = 3;

/// How an expression is matched against a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchoring {
    /// Somewhere in it after its leading blanks, as by [`crate::engine::maildaemons::Pattern`].
    Search,
    /// From its first byte to its last.
    Whole,
}

/// A state that is entered, and the marks of its position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) state: u32,
    pub(super) marks: u8,
}

/// A move: a byte of this range leads to any of the targets with this number.
pub(super) struct Move {
    pub(super) low: u8,
    pub(super) high: u8,
    pub(super) to: u32,
}

/// A state.
pub(super) struct Node {
    /// Ordered from high bytes to low ones, so that letters are tried before control characters.
    pub(super) moves: Vec<Move>,
    pub(super) accepts: bool,
}

/// The automaton. It begins in the targets with number 0.
pub(super) struct Automaton {
    pub(super) nodes: Vec<Node>,
    pub(super) targets: Vec<Vec<Target>>,
}

impl Automaton {
    /// Builds the automaton of an expression, which watches one of its groups.
    pub(super) fn new(
        expression: &Hir,
        group: &str,
        anchoring: Anchoring,
    ) -> Result<Self, ExpressionFault> {
        let nfa = NFA::compiler()
            .configure(thompson::Config::new().nfa_size_limit(Some(MAX_NFA)))
            .build_from_hir(expression)
            .map_err(|error| match error.size_limit() {
                Some(_) => ExpressionFault::TooLarge,
                None => ExpressionFault::Syntax(error.to_string()),
            })?;
        Builder::new(&nfa, group, anchoring).build()
    }

    /// Builds the automaton of a single text, with a span as its watched group.
    pub(super) fn literal(text: &[u8], span: Option<Range<usize>>) -> Self {
        let target = |at: usize| {
            let begins = span.as_ref().is_some_and(|span| span.start == at);
            let ends = span.as_ref().is_some_and(|span| span.end == at);
            let marks = if begins { BEGINS } else { 0 } | if ends { ENDS } else { 0 };
            vec![Target { state: number(at), marks }]
        };
        let read = |(at, &byte): (usize, &u8)| Node {
            moves: vec![Move { low: byte, high: byte, to: number(at + 1) }],
            accepts: false,
        };
        let mut nodes: Vec<Node> = text.iter().enumerate().map(read).collect();
        nodes.push(Node { moves: Vec::new(), accepts: true });
        Self { nodes, targets: (0..=text.len()).map(target).collect() }
    }
}

struct Builder<'a> {
    nfa: &'a NFA,
    slots: Option<(usize, usize)>,
    anchoring: Anchoring,
    numbers: HashMap<StateID, u32>,
    /// The states of the expression in the order of their numbers, which begin at `OWN`.
    states: Vec<StateID>,
    /// The targets of the epsilon closures computed so far.
    closures: HashMap<StateID, u32>,
    targets: Vec<Vec<Target>>,
    budget: usize,
}

impl<'a> Builder<'a> {
    fn new(nfa: &'a NFA, group: &str, anchoring: Anchoring) -> Self {
        let groups = nfa.group_info();
        let slots = groups
            .to_index(PatternID::ZERO, group)
            .and_then(|index| groups.slots(PatternID::ZERO, index));
        Self {
            nfa,
            slots,
            anchoring,
            numbers: HashMap::new(),
            states: Vec::new(),
            closures: HashMap::new(),
            targets: Vec::new(),
            budget: MAX_TARGETS,
        }
    }

    fn build(mut self) -> Result<Automaton, ExpressionFault> {
        let start = match self.anchoring {
            Anchoring::Search => self.nfa.start_unanchored(),
            Anchoring::Whole => self.nfa.start_anchored(),
        };
        self.epsilon_closure(start, true)?;
        let mut nodes = vec![
            Node { moves: Vec::new(), accepts: true },
            Node { moves: Vec::new(), accepts: true },
            Node { moves: vec![Move { low: b' ', high: b' ', to: 0 }], accepts: false },
        ];
        if self.anchoring == Anchoring::Search {
            self.targets[0].push(Target { state: BLANKS, marks: 0 });
        }
        while let Some(&state) = self.states.get(nodes.len() - OWN as usize) {
            let moves = self.moves(state)?;
            nodes.push(Node { moves, accepts: false });
            if nodes.len() > MAX_STATES {
                return Err(ExpressionFault::TooLarge);
            }
        }
        let to = number(self.targets.len());
        self.targets.push(vec![Target { state: OPEN, marks: 0 }]);
        nodes[OPEN as usize].moves.push(Move { low: 0, high: 255, to });
        Ok(Automaton { nodes, targets: self.targets })
    }

    fn moves(&mut self, state: StateID) -> Result<Vec<Move>, ExpressionFault> {
        let nfa = self.nfa;
        let each = |next| Transition { start: 0, end: 255, next };
        let transitions: Vec<Transition> = match nfa.state(state) {
            State::ByteRange { trans } => vec![*trans],
            State::Sparse(sparse) => sparse.transitions.to_vec(),
            State::Dense(dense) => (0..=255)
                .filter_map(|byte| dense.matches_byte(byte).map(|next| (byte, next)))
                .map(|(byte, next)| Transition { start: byte, end: byte, ..each(next) })
                .collect(),
            _ => Vec::new(),
        };
        let mut moves = Vec::with_capacity(transitions.len());
        for Transition { start: low, end: high, next } in transitions.into_iter().rev() {
            let to = match self.closures.get(&next) {
                Some(&to) => to,
                None => {
                    let to = self.epsilon_closure(next, false)?;
                    self.closures.insert(next, to);
                    to
                }
            };
            moves.push(Move { low, high, to });
        }
        Ok(moves)
    }

    /// Follows all epsilon transitions from a state, and stores the states reached as new targets.
    fn epsilon_closure(&mut self, from: StateID, at_start: bool) -> Result<u32, ExpressionFault> {
        let nfa = self.nfa;
        let mut targets = Vec::new();
        let mut seen = HashSet::new();
        let mut open = vec![(from, 0, false)];
        while let Some((id, marks, at_end)) = open.pop() {
            if !seen.insert((id, marks, at_end)) {
                continue;
            }
            match nfa.state(id) {
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) => {
                    if !at_end {
                        targets.push(Target { state: self.number_of(id), marks });
                    }
                }
                State::Look { look: Look::Start, next } => {
                    if at_start {
                        open.push((*next, marks, at_end));
                    }
                }
                State::Look { look: Look::End, next } => open.push((*next, marks, true)),
                State::Look { .. } => return Err(ExpressionFault::Assertion),
                State::Union { alternates } => {
                    open.extend(alternates.iter().map(|next| (*next, marks, at_end)));
                }
                State::BinaryUnion { alt1, alt2 } => {
                    open.extend([(*alt1, marks, at_end), (*alt2, marks, at_end)]);
                }
                State::Capture { next, slot, .. } => {
                    open.push((*next, marks | self.mark(slot.as_usize()), at_end));
                }
                State::Fail => {}
                State::Match { .. } => {
                    let last = at_end || self.anchoring == Anchoring::Whole;
                    targets.push(Target { state: if last { LAST } else { OPEN }, marks });
                }
            }
            if seen.len() > self.budget {
                return Err(ExpressionFault::TooLarge);
            }
        }
        self.budget -= seen.len();
        targets.sort_unstable();
        targets.dedup();
        self.targets.push(targets);
        Ok(number(self.targets.len() - 1))
    }

    fn mark(&self, slot: usize) -> u8 {
        match self.slots {
            Some((begin, _)) if begin == slot => BEGINS,
            Some((_, end)) if end == slot => ENDS,
            _ => 0,
        }
    }

    fn number_of(&mut self, id: StateID) -> u32 {
        *self.numbers.entry(id).or_insert_with(|| {
            self.states.push(id);
            number(self.states.len() - 1) + OWN
        })
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("an automaton is bounded far below 2^32")
}
