//! Test messages of `doctor`, to find out which facilities reach the daemon.
//!
//! - **Promise**: a probe authorises nobody and changes no counter except that of frames.
//! - **Limits**: only the last few are remembered, and only short ones, since any local user can
//!   write them.

use std::collections::VecDeque;

/// The program name of a probe. No mail daemon has it.
pub const PROGRAM: &str = "pop-before-smtp-doctor";
/// The beginning of the text of a probe.
pub const WORD: &str = "probe ";

/// Twice as many as there are facilities for mail daemons.
const MAX_PROBES: usize = 32;
/// Longest text in bytes: the prefix, a number and a facility.
const MAX_TEXT: usize = 64;

/// The last probes that were received.
#[derive(Debug, Default)]
pub struct Probes(VecDeque<String>);

impl Probes {
    /// Remembers a text, if it is a probe.
    pub fn record(&mut self, text: &str) {
        if !text.starts_with(WORD) || text.len() > MAX_TEXT {
            return;
        }
        if self.0.len() == MAX_PROBES {
            self.0.pop_front();
        }
        self.0.push_back(text.to_owned());
    }

    /// Returns how often a probe was received.
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
    fn a_probe_is_recognised_in_every_format_and_has_no_effect() {
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
    fn the_last_probes_are_remembered_if_they_are_short() {
        let mut probes = Probes::default();
        let long = format!("{WORD}{}", "x".repeat(MAX_TEXT));
        for no_probe in ["", "hello", long.as_str()] {
            probes.record(no_probe);
            assert_eq!(probes.count(no_probe), 0, "{no_probe}");
        }
        let probe = |number: usize| format!("{WORD}{number}");
        (0..=MAX_PROBES).for_each(|number| probes.record(&probe(number)));
        assert_eq!(probes.count(&probe(0)), 0, "the oldest is forgotten");
        assert!((1..=MAX_PROBES).all(|number| probes.count(&probe(number)) == 1));
        probes.record(&probe(7));
        assert_eq!(probes.count(&probe(7)), 2, "received twice");
    }
}
