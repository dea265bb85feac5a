//! What was found: each with its reason and its cure, for eyes and for scripts.

use std::io::{self, Write};

use serde::Serialize;

/// Sentences are broken here; commands never, so that they can be copied.
const WIDTH: usize = 92;
/// Words for the levels stand before the sentences.
const INDENT: usize = 8;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work, or lets in whom it should not.
    Mend,
    /// Something that the administrator may want so.
    Remark,
    /// Examined and found good.
    Fine,
}

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why it matters; nothing if all is well.
    pub why: Option<String>,
    /// The command or line that mends it; nothing if all is well.
    pub mend: Option<String>,
}

/// All that was found, in the order of the examination.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Something to mend.
    pub fn mend(&mut self, what: impl AsRef<str>, why: impl AsRef<str>, mend: impl AsRef<str>) {
        self.add(Level::Mend, what.as_ref(), why.as_ref(), mend.as_ref());
    }

    /// Something to consider.
    pub fn remark(&mut self, what: impl AsRef<str>, why: impl AsRef<str>, mend: impl AsRef<str>) {
        self.add(Level::Remark, what.as_ref(), why.as_ref(), mend.as_ref());
    }

    /// Something that is as it should be.
    pub fn fine(&mut self, what: impl AsRef<str>) {
        self.add(Level::Fine, what.as_ref(), "", "");
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing is to be mended.
    pub fn is_sound(&self) -> bool {
        self.count(Level::Mend) == 0
    }

    /// Prints it.
    ///
    /// # Errors
    /// As the output says.
    pub fn print(&self, as_json: bool, mut output: impl Write) -> io::Result<()> {
        if as_json {
            serde_json::to_writer_pretty(&mut output, &self.findings)?;
            return writeln!(output);
        }
        for level in [Level::Mend, Level::Remark, Level::Fine] {
            for finding in self.findings.iter().filter(|finding| finding.level == level) {
                print(finding, &mut output)?;
            }
        }
        let [mend, remarks, fine] =
            [Level::Mend, Level::Remark, Level::Fine].map(|l| self.count(l));
        let remarks = if remarks == 1 { "1 remark".into() } else { format!("{remarks} remarks") };
        writeln!(output, "\n{mend} to mend, {remarks}, {fine} found good")
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Told once, however many services or lists have the same fault.
    fn add(&mut self, level: Level, what: &str, why: &str, mend: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| clean(text));
        let finding = Finding { level, what: clean(what), why: some(why), mend: some(mend) };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Parts of it come from files and programs that others write.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn print(finding: &Finding, output: &mut impl Write) -> io::Result<()> {
    let word = match finding.level {
        Level::Mend => "MEND",
        Level::Remark => "remark",
        Level::Fine => "fine",
    };
    let mut first = format!("{word:<INDENT$}");
    for line in wrap(&finding.what) {
        writeln!(output, "{first}{line}")?;
        first = " ".repeat(INDENT);
    }
    for line in finding.why.iter().flat_map(|why| wrap(why)) {
        writeln!(output, "{first}{line}")?;
    }
    for line in finding.mend.iter().flat_map(|mend| mend.lines()) {
        writeln!(output, "{first}> {line}")?;
    }
    if finding.level != Level::Fine {
        writeln!(output)?;
    }
    Ok(())
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
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
    fn what_is_to_be_mended_comes_first() {
        let mut report = Report::default();
        report.fine("a is good");
        report.remark("b is odd", "it may be meant", "leave it");
        assert!(report.is_sound());
        let command = format!("cure {}", "long ".repeat(30));
        report.mend("c is\twrong", "nobody can send ".repeat(10), &command);
        report.mend("c is\twrong", "nobody can send ".repeat(10), &command);
        assert!(!report.is_sound());
        let mut text = Vec::new();
        report.print(false, &mut text).expect("memory");
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with("MEND    c is?wrong\n        nobody can send"), "{text}");
        assert!(text.contains(&format!("\n        > {command}\n\nremark  b is odd\n")), "{text}");
        assert!(
            text.ends_with("fine    a is good\n\n1 to mend, 1 remark, 1 found good\n"),
            "{text}"
        );
        let mut json = Vec::new();
        report.print(true, &mut json).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json[1]["level"], "remark");
        assert_eq!(json[0]["why"], serde_json::Value::Null);
    }
}
