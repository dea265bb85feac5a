//! The summary of `test`: verdicts, mail daemons, and reasons with samples.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::engine::verdict::{Outcome, Reason, Verdict};
use crate::sys::terminal::clean;

/// Samples of each reason.
const SAMPLES: usize = 3;
/// Reasons that are kept: the names of programs are part of some.
const MAX_REASONS: usize = 1000;
/// Reasons that are printed.
const SHOWN: usize = 15;
/// Characters of a sample that are printed.
const SAMPLE_WIDTH: usize = 160;
/// All verdicts, in the order in which they are printed.
const VERDICTS: [Verdict; 5] =
    [Verdict::Login, Verdict::Logout, Verdict::Partial, Verdict::Excluded, Verdict::None];

/// What all inputs have in common.
#[derive(Default)]
pub struct Summary {
    inputs: u64,
    verdicts: BTreeMap<&'static str, u64>,
    daemons: BTreeMap<String, BTreeMap<&'static str, u64>>,
    reasons: BTreeMap<(String, String), Group>,
}

#[derive(Default)]
struct Group {
    count: u64,
    is_lost_login: bool,
    samples: Vec<(u64, String)>,
}

impl Summary {
    /// Returns how many inputs there were.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Adds the outcome of input `n`.
    pub fn add(&mut self, n: u64, outcome: &Outcome, input: &[u8]) {
        let verdict = outcome.verdict.as_str();
        self.inputs = n;
        *self.verdicts.entry(verdict).or_default() += 1;
        let daemon = outcome.daemon.as_deref().unwrap_or_default();
        if !daemon.is_empty() {
            let counts = self.daemons.entry(daemon.to_owned()).or_default();
            *counts.entry(verdict).or_default() += 1;
        }
        let reason = match &outcome.reason {
            // The age is different each time.
            Reason::Late(_) => "refused: the message is older than the grace period".to_owned(),
            reason => reason.to_string(),
        };
        let key = (reason, daemon.to_owned());
        if self.reasons.len() >= MAX_REASONS && !self.reasons.contains_key(&key) {
            return;
        }
        let group = self.reasons.entry(key).or_default();
        group.count += 1;
        group.is_lost_login |= outcome.is_lost_login;
        if group.samples.len() < SAMPLES {
            let shown: String = String::from_utf8_lossy(input).chars().take(SAMPLE_WIDTH).collect();
            group.samples.push((n, clean(&shown)));
        }
    }

    /// Prints it: what may be wrong first, then what is most frequent.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, mut output: impl Write) -> io::Result<()> {
        writeln!(output, "{} inputs: {}", self.inputs, counts(&self.verdicts))?;
        for (daemon, verdicts) in &self.daemons {
            writeln!(output, "  {daemon}: {}", counts(verdicts))?;
        }
        let mut groups: Vec<_> = self.reasons.iter().collect();
        groups.sort_by_key(|(_, group)| (!group.is_lost_login, u64::MAX - group.count));
        for ((reason, daemon), group) in groups.iter().take(SHOWN) {
            let daemon =
                if daemon.is_empty() { String::new() } else { format!("{}: ", clean(daemon)) };
            let mark = if group.is_lost_login { "LOST LOGINS: " } else { "" };
            writeln!(output, "{:>6} x {mark}{daemon}{}", group.count, clean(reason))?;
            for (n, sample) in &group.samples {
                writeln!(output, "         {n}: {sample}")?;
            }
        }
        if groups.len() > SHOWN {
            writeln!(output, "         and {} other reasons", groups.len() - SHOWN)?;
        }
        Ok(())
    }
}

fn counts(verdicts: &BTreeMap<&'static str, u64>) -> String {
    let counted = VERDICTS.iter().filter_map(|verdict| {
        let name = verdict.as_str();
        verdicts.get(name).map(|count| format!("{count} {name}"))
    });
    let counted: Vec<String> = counted.collect();
    if counted.is_empty() { "nothing".into() } else { counted.join(", ") }
}
