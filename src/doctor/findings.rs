//! The report: findings with their reason and their fix, for people and for scripts.
//!
//! - **Promise**: what could not be examined comes first, then problems. Without root, nothing is
//!   reported that only a lack of permission has shown.

use std::io::{self, Write};

use serde::Serialize;

use crate::sys::terminal::{OutputStyle, Style};

/// Columns at which sentences are wrapped where there is no terminal, and at most. Fixes are not
/// wrapped, so that commands can be copied.
const WIDTH: usize = 100;
/// Columns of the narrowest terminal for which sentences are wrapped.
const NARROW: usize = 40;
/// What the system says if a file or a process belongs to others.
const DENIALS: [&str; 2] = ["Permission denied", "Operation not permitted"];
/// Columns for the severity, before the sentences.
const INDENT: usize = 8;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or lets unauthorised clients relay.
    Problem,
    /// Something unusual, which may be intended.
    Note,
    /// Examined and correct.
    Ok,
}

/// The result of one examination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    #[serde(rename = "level")]
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// Why it matters; absent if all is well.
    pub why: Option<String>,
    /// The command or line that fixes it; absent if all is well.
    pub fix: Option<String>,
    /// Whether it limits what can be examined.
    #[serde(skip)]
    is_limit: bool,
}

/// All findings, in the order of the examination.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    /// Whether a lack of permission is no finding.
    is_restricted: bool,
}

impl Report {
    /// Adds a note that something cannot be examined here. It is printed first.
    pub fn limit(&mut self, what: impl AsRef<str>, why: impl AsRef<str>, fix: impl AsRef<str>) {
        self.note(what, why, fix);
        if let Some(finding) = self.findings.last_mut() {
            finding.is_limit = true;
        }
    }

    /// From here on, reports nothing that only a lack of permission has shown.
    pub fn ignore_denials(&mut self) {
        self.is_restricted = true;
    }

    /// Adds a problem to fix.
    pub fn problem(&mut self, what: impl AsRef<str>, why: impl AsRef<str>, fix: impl AsRef<str>) {
        self.add(Severity::Problem, what.as_ref(), why.as_ref(), fix.as_ref());
    }

    /// Adds a note to consider.
    pub fn note(&mut self, what: impl AsRef<str>, why: impl AsRef<str>, fix: impl AsRef<str>) {
        self.add(Severity::Note, what.as_ref(), why.as_ref(), fix.as_ref());
    }

    /// Adds something that is correct.
    pub fn ok(&mut self, what: impl AsRef<str>) {
        self.add(Severity::Ok, what.as_ref(), "", "");
    }

    /// Returns the findings.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns whether there is no problem.
    pub fn is_sound(&self) -> bool {
        self.count(Severity::Problem) == 0
    }

    /// Prints the report.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub fn print(
        &self,
        as_json: bool,
        style: OutputStyle,
        mut output: impl Write,
    ) -> io::Result<()> {
        if as_json {
            serde_json::to_writer_pretty(&mut output, &self.findings)?;
            return writeln!(output);
        }
        for finding in self.findings.iter().filter(|finding| finding.is_limit) {
            print(finding, style, &mut output)?;
        }
        for severity in [Severity::Problem, Severity::Note, Severity::Ok] {
            let others = self.findings.iter().filter(|finding| !finding.is_limit);
            for finding in others.filter(|finding| finding.severity == severity) {
                print(finding, style, &mut output)?;
            }
        }
        let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let [problems, notes, ok] =
            [Severity::Problem, Severity::Note, Severity::Ok].map(|s| self.count(s));
        writeln!(output, "\n{}, {}, {ok} ok", plural(problems, "problem"), plural(notes, "note"))
    }

    fn count(&self, wanted: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == wanted).count()
    }

    /// Adds a finding, once however many services or lists have it.
    fn add(&mut self, severity: Severity, what: &str, why: &str, fix: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| clean(text));
        let denied = |text: &str| DENIALS.iter().any(|denial| text.contains(denial));
        if self.is_restricted && severity != Severity::Ok && (denied(what) || denied(why)) {
            return;
        }
        let (what, why, fix) = (clean(what), some(why), some(fix));
        let finding = Finding { severity, what, why, fix, is_limit: false };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Replaces control characters: parts of the text come from files and programs of others.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn print(finding: &Finding, style: OutputStyle, output: &mut impl Write) -> io::Result<()> {
    let (label, colour) = match finding.severity {
        Severity::Problem => ("problem", Style::Bad),
        Severity::Note => ("note", Style::Odd),
        Severity::Ok => ("ok", Style::Good),
    };
    let width = style.width.unwrap_or(WIDTH).clamp(NARROW, WIDTH) - INDENT;
    let mut first = style.paint(colour, label) + &" ".repeat(INDENT - label.len());
    for line in wrap(&finding.what, width) {
        writeln!(output, "{first}{line}")?;
        first = " ".repeat(INDENT);
    }
    for line in finding.why.iter().flat_map(|why| wrap(why, width)) {
        writeln!(output, "{first}{line}")?;
    }
    for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
        writeln!(output, "{first}> {line}")?;
    }
    if finding.severity != Severity::Ok {
        writeln!(output)?;
    }
    Ok(())
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first() {
        let mut report = Report::default();
        report.ok("a is good");
        report.note("b is odd", "it may be meant", "leave it");
        assert!(report.is_sound());
        let command = format!("cure {}", "long ".repeat(30));
        report.problem("c is\twrong", "nobody can send ".repeat(10), &command);
        report.problem("c is\twrong", "nobody can send ".repeat(10), &command);
        assert!(!report.is_sound());
        let mut text = Vec::new();
        report.print(false, OutputStyle::default(), &mut text).expect("memory");
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with("problem c is?wrong\n        nobody can send"), "{text}");
        assert!(text.contains(&format!("\n        > {command}\n\nnote    b is odd\n")), "{text}");
        assert!(text.ends_with("ok      a is good\n\n1 problem, 1 note, 1 ok\n"), "{text}");
        let mut json = Vec::new();
        report.print(true, OutputStyle::default(), &mut json).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json[1]["level"], "note");
        assert_eq!(json[0]["why"], serde_json::Value::Null);
    }

    #[test]
    fn what_cannot_be_examined_comes_first() {
        let mut report = Report::default();
        report.problem("a is wrong", "", "cure a");
        report.limit("not run as root", "Some files cannot be read.", "sudo");
        report.ignore_denials();
        report.problem("cannot read b: Permission denied (os error 13)", "", "chmod");
        report.note("c is odd", "It answers: Permission denied", "chmod");
        let style = OutputStyle { colour: true, width: Some(40) };
        let mut text = Vec::new();
        report.print(false, style, &mut text).expect("memory");
        let expected = "\x1b[33mnote\x1b[0m    not run as root\n        Some files cannot be read.\n        \
                        > sudo\n\n\x1b[1;31mproblem\x1b[0m a is wrong\n        > cure a\n\n\n\
                        1 problem, 1 note, 0 ok\n";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
        report.note("d ".repeat(30), "", "");
        let mut text = Vec::new();
        report.print(false, style, &mut text).expect("memory");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("\n        d d d d d d d d d d d d d d\n\n"), "{text}");
    }
}
