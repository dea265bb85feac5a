//! Compares the search with brute force: small expressions, and every text over a small alphabet.

use std::ops::ControlFlow;

use regex::Regex;

use super::automaton::{Anchoring, Automaton};
use super::counts::LiteralCounts;
use super::parsed;
use super::search::{Search, SearchOutcome};
use crate::engine::maildaemons::Literal;

/// Bytes of the longest text that is tried.
const LONGEST: usize = 6;
/// Pairs of expressions.
const ROUNDS: usize = 600;

/// A reproducible random number generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth == 0 {
            let atoms = ["a", "b", "é", "[ab]", "[^a]", "(?s:.)", "", "^", "$"];
            return atoms[self.below(9) as usize].to_owned();
        }
        match self.below(4) {
            0 => {
                let of = self.expression(depth - 1);
                let many = ["?", "*", "+", "*?", "{2}", "{1,2}", "{0,3}?"][self.below(7) as usize];
                format!("(?:{of}){many}")
            }
            1 => format!("(?:{}|{})", self.expression(depth - 1), self.expression(depth - 1)),
            _ => format!("{}{}", self.expression(depth - 1), self.expression(depth - 1)),
        }
    }

    /// Creates an expression with the group `g`, sometimes repeated, sometimes optional.
    fn grouped(&mut self) -> String {
        let many = ["", "", "", "?", "*", "{1,2}"][self.below(6) as usize];
        let (before, group, after) = (self.expression(1), self.expression(2), self.expression(1));
        format!("{before}(?:(?<g>{group}){})?{after}", ["", "b"][self.below(2) as usize]).replacen(
            ")?",
            &format!("){many}"),
            usize::from(!many.is_empty()),
        )
    }
}

fn texts() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    while from < all.len() {
        for letter in ["a", "b", "é"] {
            let longer = format!("{}{letter}", all[from]);
            if longer.len() <= LONGEST {
                all.push(longer);
            }
        }
        from += 1;
    }
    all.sort_by_key(String::len);
    all
}

#[test]
fn finds_a_common_text_exactly_when_there_is_one() {
    let (texts, mut random, mut found) = (texts(), Random(0x2545_f491_4f6c_dd1d), 0);
    for _ in 0..ROUNDS {
        let anchors = [("^", "$"), ("^", ""), ("", "$"), ("", "")][random.below(4) as usize];
        let ours = format!("{}(?:{}){}", anchors.0, random.grouped(), anchors.1);
        // Restricted to the alphabet of the texts.
        let theirs = random.grouped().replace("[^a]", "[bé]").replace("(?s:.)", "[abé]");
        let counted: Vec<String> = match random.below(3) {
            0 => vec!["ab".into(), "b".into()],
            1 => vec!["aa".into()],
            _ => Vec::new(),
        };
        let banned: Vec<String> = match random.below(3) {
            0 => vec!["ba".into()],
            _ => Vec::new(),
        };
        let pattern = Regex::new(&ours).unwrap();
        let shape = Regex::new(&format!("^(?:{theirs})$")).unwrap();
        let common = |text: &&String| {
            pattern.is_match(text)
                && shape.is_match(text)
                && counted.iter().all(|part| text.matches(part.as_str()).count() == 1)
                && !banned.iter().any(|part| text.contains(part.as_str()))
        };
        let span = |regex: &Regex, text: &str| {
            regex.captures(text).and_then(|groups| Some(groups.name("g")?.range()))
        };
        let shortest = texts.iter().find(common);
        let differs =
            texts.iter().filter(common).find(|text| span(&pattern, text) != span(&shape, text));

        let ours = (Automaton::new(&parsed(&ours).unwrap(), "g", Anchoring::Search).unwrap(), ours);
        let theirs =
            (Automaton::new(&parsed(&theirs).unwrap(), "g", Anchoring::Whole).unwrap(), theirs);
        let literals =
            |texts: &[String]| texts.iter().cloned().map(Literal::from).collect::<Vec<_>>();
        let counts = LiteralCounts::new(&literals(&counted), &literals(&banned)).unwrap();
        let search = |spans| {
            let (pattern, shape, counts) = (&ours.0, &theirs.0, &counts);
            let mut first = None;
            let longest = Some(LONGEST);
            let outcome = Search { pattern, shape, counts, spans, longest }.run(|bytes| {
                first = Some(String::from_utf8(bytes).unwrap());
                ControlFlow::Break(())
            });
            assert_eq!(outcome == SearchOutcome::Stopped, first.is_some());
            first
        };
        let context =
            format!("{} and {} with {counted:?} once, {banned:?} never", ours.1, theirs.1);
        let first = search(false);
        assert_eq!(first.as_ref().map(String::len), shortest.map(String::len), "{context}");
        assert!(first.iter().all(|text| common(&text)), "{context}: {first:?}");
        // The search tries all parses, the matcher one: it may find more, never less.
        assert!(differs.is_none() || search(true).is_some(), "{context}: {differs:?}");
        found += usize::from(first.is_some());
    }
    assert!(
        (ROUNDS / 8..ROUNDS * 4 / 5).contains(&found),
        "{found} of {ROUNDS} is not a balanced test"
    );
}
