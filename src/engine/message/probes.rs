//! Test messages of `doctor`: which of them have arrived by the way that mail daemons' take.
//!
//! Promise  a probe authorises nobody and is no part of any counter but that of frames.
//! Limits   the last few are remembered, and only short ones, for any local user can write them.

use std::collections::VecDeque;

/// The program name of a probe. No mail daemon has it.
pub const PROGRAM: &str = "pop-before-smtp-doctor";
/// What the text of a probe begins with.
pub const WORD: &str = "probe ";

/// As many as there are facilities for mail daemons, twice.
const MAX_PROBES: usize = 32;
/// Longest text in bytes: the word, a number and a facility.
const MAX_TEXT: usize = 64;

/// The probes that were heard last.
#[derive(Debug, Default)]
pub struct Probes(VecDeque<String>);

impl Probes {
    /// Remembers one, if it is a probe.
    pub fn record(&mut self, text: &str) {
        if !text.starts_with(WORD) || text.len() > MAX_TEXT {
            return;
        }
        if self.0.len() == MAX_PROBES {
            self.0.pop_front();
        }
        self.0.push_back(text.to_owned());
    }

    /// How often this one was heard.
    pub fn count(&self, text: &str) -> usize {
        self.0.iter().filter(|probe| *probe == text).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::correlation::streams::Source;
    use crate::engine::time::Time;
    use crate::engine::verdict::{Reason, Verdict};
    use crate::engine::{Engine, Rules};

    #[test]
    fn a_probe_is_heard_in_every_form_and_does_nothing() {
        let mut engine = Engine::new(Rules::default());
        let (now, source) = (Time::default(), Source { receiver: 0, sender: None });
        for (number, frame) in [
            format!("<22>Nov 22 07:31:23 {PROGRAM}[7]: probe 0"),
            format!("<134>Nov 22 07:31:23 mx1 {PROGRAM}[7]: probe 1\n"),
            format!("<22>1 2026-11-22T07:31:23+00:00 mx1 {PROGRAM} 7 - - probe 2"),
        ]
        .iter()
        .enumerate()
        {
            let outcome = engine.process(now, source, frame.as_bytes());
            assert_eq!(
                (outcome.verdict, outcome.reason),
                (Verdict::None, Reason::Probe),
                "{frame}"
            );
            assert_eq!(engine.probes().count(&format!("probe {number}")), 1, "{frame}");
        }
        assert!(engine.clients_at(now) == 0 && engine.stats().other_programs == 0);
    }

    #[test]
    fn the_last_short_ones_are_remembered() {
        let mut probes = Probes::default();
        let long = format!("{WORD}{}", "x".repeat(MAX_TEXT));
        for no_probe in ["", "hello", long.as_str()] {
            probes.record(no_probe);
            assert_eq!(probes.count(no_probe), 0, "{no_probe}");
        }
        let probe = |number: usize| format!("{WORD}{number}");
        (0..=MAX_PROBES).for_each(|number| probes.record(&probe(number)));
        assert_eq!(probes.count(&probe(0)), 0, "it made room");
        assert!((1..=MAX_PROBES).all(|number| probes.count(&probe(number)) == 1));
        probes.record(&probe(7));
        assert_eq!(probes.count(&probe(7)), 2, "it was handed over twice");
    }
}
