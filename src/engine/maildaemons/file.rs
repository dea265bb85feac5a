//! The description of a mail daemon: parses the TOML and reports everything that is wrong with it.
//!
//! - **Promise**: unknown keys are refused; all faults are reported at once, with file and line.
//! - **Format**: deploy/guide/your-own-daemon.md; `daemons NAME` prints a built-in file to start from.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::codes::{FACILITIES, SEVERITIES, code};
use super::daemon::{Cause, Cut, Example, ExpectedVerdict, Following, MailDaemon, Shape};
use super::likeness::LoginWords;
use super::literal::Literal;
use super::pattern::{MAX_SEEN, Pattern};

/// A description file.
#[derive(Clone, Debug)]
pub struct DaemonFile {
    /// Its path; `None` for a built-in one.
    pub origin: Option<String>,
    /// Its text.
    pub text: String,
}

impl From<&(&str, &str)> for DaemonFile {
    fn from((_, text): &(&str, &str)) -> Self {
        Self { origin: None, text: (*text).to_owned() }
    }
}

/// A fault in a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionFault {
    /// The file, or the built-in daemon's name.
    pub origin: String,
    /// The line, counted from 1, if the fault has one.
    pub line: Option<usize>,
    /// What is wrong, in one sentence.
    pub what: String,
}

impl DescriptionFault {
    pub(super) fn unknown_daemon(option: &str, name: &str) -> Self {
        let what =
            format!("there is no mail daemon `{name}`; `pop-before-smtp daemons` lists them");
        Self { origin: option.into(), line: None, what }
    }

    pub(super) fn duplicate(daemon: &MailDaemon, other: &str) -> Self {
        let what = format!("the mail daemon `{}` is already described in `{other}`", daemon.name);
        Self { origin: daemon.origin.clone().unwrap_or_default(), line: None, what }
    }
}

impl fmt::Display for DescriptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.origin, self.what),
            None => write!(f, "{}: {}", self.origin, self.what),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    name: String,
    title: String,
    versions: Option<String>,
    #[serde(default)]
    verified: bool,
    note: Option<String>,
    programs: Vec<String>,
    #[serde(default)]
    facilities: Vec<String>,
    #[serde(default)]
    severities: Vec<String>,
    max_length: Option<usize>,
    #[serde(default)]
    pid_per_session: bool,
    #[serde(default)]
    login_words: Vec<String>,
    #[serde(default)]
    other_words: Vec<String>,
    #[serde(default)]
    login: Vec<WrittenPattern>,
    #[serde(default)]
    connect: Vec<WrittenPattern>,
    #[serde(default)]
    end: Vec<WrittenPattern>,
    #[serde(default)]
    logout: Vec<WrittenPattern>,
    #[serde(default)]
    distrust: Vec<WrittenPattern>,
    #[serde(default)]
    cut: Vec<WrittenCut>,
    #[serde(default)]
    shape: Vec<WrittenShape>,
    #[serde(default)]
    example: Vec<WrittenExample>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenPattern {
    pattern: Spanned<String>,
    #[serde(default)]
    once: Vec<String>,
    #[serde(default)]
    never: Vec<String>,
    same: Option<[String; 2]>,
    #[serde(default)]
    programs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenCut {
    pattern: Spanned<String>,
    length: usize,
    #[serde(default)]
    tails: u8,
    #[serde(default)]
    seconds: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenShape {
    pattern: Spanned<String>,
    cause: Cause,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    severities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenExample {
    line: Option<String>,
    lines: Option<Vec<String>>,
    verdict: Spanned<ExpectedVerdict>,
    address: Option<String>,
    user: Option<String>,
}

impl DaemonFile {
    /// Parses and compiles the description; a built-in one is not compiled yet.
    ///
    /// # Errors
    /// Every fault that can be found without running the examples.
    pub fn compile(&self) -> Result<MailDaemon, Vec<DescriptionFault>> {
        let written: Written = toml::from_str(&self.text).map_err(|error| {
            let line = error.span().map(|span| line_of(&self.text, span.start));
            let origin = self.origin.clone().unwrap_or_else(|| "built-in".into());
            vec![DescriptionFault { origin, line, what: error.message().to_owned() }]
        })?;
        let mut reader = Reader {
            text: &self.text,
            origin: self.origin.clone().unwrap_or_else(|| written.name.clone()),
            is_built_in: self.origin.is_none(),
            faults: Vec::new(),
        };
        let daemon = reader.daemon(written, self);
        if reader.faults.is_empty() { Ok(daemon) } else { Err(reader.faults) }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
    origin: String,
    /// The tests have checked its expressions, so that a start need not compile them.
    is_built_in: bool,
    faults: Vec<DescriptionFault>,
}

impl Reader<'_> {
    fn fault(&mut self, line: Option<usize>, what: impl Into<String>) {
        self.faults.push(DescriptionFault { origin: self.origin.clone(), line, what: what.into() });
    }

    fn daemon(&mut self, written: Written, file: &DaemonFile) -> MailDaemon {
        let name_fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if written.name.is_empty() || !written.name.chars().all(name_fits) {
            self.fault(None, "`name` must consist of a-z, 0-9 and -");
        }
        if written.programs.is_empty() {
            self.fault(None, "`programs` must name at least one syslog program");
        }
        if written.login.is_empty() {
            self.fault(None, "there is no [[login]] pattern");
        }
        if !written.example.iter().any(|e| *e.verdict.get_ref() == ExpectedVerdict::Login) {
            self.fault(None, "there is no [[example]] of a login");
        }
        if written.max_length.is_some_and(|max| max > MAX_SEEN) {
            self.fault(None, format!("`max-length` must be at most {MAX_SEEN}"));
        }
        if written.login_words.iter().chain(&written.other_words).any(String::is_empty) {
            self.fault(None, "`login-words` and `other-words` must not contain an empty text");
        }
        let facilities = self.codes(&written.facilities, &FACILITIES, "facility");
        let severities = self.codes(&written.severities, &SEVERITIES, "severity");
        let mut patterns = |list: Vec<WrittenPattern>, max_length| -> Vec<Pattern> {
            let own = &written.programs;
            list.into_iter().filter_map(|p| self.pattern(p, own, max_length)).collect()
        };
        let login = patterns(written.login, written.max_length);
        let connect = patterns(written.connect, None);
        let end = patterns(written.end, None);
        let logout = patterns(written.logout, None);
        let distrust = patterns(written.distrust, None);
        let names_address = |list: &[Pattern]| list.iter().any(|p| p.gives_address());
        let is_whole = |list: &[Pattern]| list.iter().all(|p| p.gives_address());
        if !self.is_built_in && !is_whole(&login) && !names_address(&connect) {
            let what = "a [[login]] pattern without the group `address` needs a [[connect]] \
                        pattern that has it";
            self.fault(None, what);
        }
        let shape = |shape| self.shape(shape, &written.programs, !distrust.is_empty());
        let shapes = written.shape.into_iter().filter_map(shape).collect();
        MailDaemon {
            name: written.name.into(),
            title: written.title,
            versions: written.versions.unwrap_or_default(),
            verified: written.verified || file.origin.is_some(),
            note: written.note,
            programs: written.programs,
            facilities,
            narrowed: None,
            severities,
            origin: file.origin.clone(),
            max_length: written.max_length.unwrap_or(MAX_SEEN),
            cuts: written.cut.into_iter().filter_map(|cut| self.cut(cut)).collect(),
            pid_per_session: written.pid_per_session,
            shapes,
            login_words: LoginWords::new(&written.login_words, &written.other_words),
            examples: written.example.into_iter().filter_map(|e| self.example(e)).collect(),
            text: file.text.clone(),
            login,
            connect,
            end,
            logout,
            distrust,
        }
    }

    fn codes(&mut self, names: &[String], known: &[&str], what: &str) -> Vec<u8> {
        let mut codes = Vec::new();
        for name in names {
            match code(name, known, what) {
                Ok(code) => codes.push(code),
                Err(fault) => self.fault(None, fault),
            }
        }
        codes
    }

    fn cut(&mut self, written: WrittenCut) -> Option<Cut> {
        let pattern = self.expression(&written.pattern)?;
        let time = Duration::from_secs(written.seconds.into());
        let following = Following { messages: written.tails, time };
        if written.length == 0 || following.is_nothing() {
            let line = line_of(self.text, written.pattern.span().start);
            let what = "`length` of a [[cut]] must be at least 1, and so must `tails` or `seconds`";
            self.fault(Some(line), what);
        }
        Some(Cut { pattern, length: written.length, following })
    }

    fn expression(&mut self, written: &Spanned<String>) -> Option<Pattern> {
        if self.is_built_in {
            return Some(Pattern::built_in(written.get_ref()));
        }
        let line = line_of(self.text, written.span().start);
        Pattern::compile(written.get_ref()).map_err(|what| self.fault(Some(line), what)).ok()
    }

    fn pattern(
        &mut self,
        written: WrittenPattern,
        programs: &[String],
        max_length: Option<usize>,
    ) -> Option<Pattern> {
        let file_line = line_of(self.text, written.pattern.span().start);
        let line = Some(file_line);
        let mut pattern = self.expression(&written.pattern)?;
        let is_missing = |group: &&String| !self.is_built_in && !pattern.has_group(group);
        let missing: Vec<_> = written.same.iter().flatten().filter(is_missing).collect();
        for group in missing {
            let what = format!("`same` names the group `{group}`, which the pattern does not have");
            self.fault(line, what);
        }
        self.check_programs(line, &written.programs, programs);
        pattern.max_length = max_length;
        pattern.file_line = file_line;
        pattern.programs = written.programs;
        pattern.once = written.once.into_iter().map(Literal::from).collect();
        pattern.never = written.never.into_iter().map(Literal::from).collect();
        pattern.same = written.same;
        Some(pattern)
    }

    /// Checks that the programs of a pattern or shape are among the daemon's own.
    fn check_programs(&mut self, line: Option<usize>, names: &[String], programs: &[String]) {
        for program in names.iter().filter(|name| !programs.contains(name)) {
            self.fault(line, format!("`{program}` is not one of the daemon's `programs`"));
        }
    }

    fn shape(
        &mut self,
        written: WrittenShape,
        programs: &[String],
        distrusts: bool,
    ) -> Option<Shape> {
        let file_line = line_of(self.text, written.pattern.span().start);
        let line = Some(file_line);
        self.check_programs(line, &written.programs, programs);
        let severities = self.codes(&written.severities, &SEVERITIES, "severity");
        if !severities.is_empty() && !distrusts {
            let what = "a [[shape]] with `severities` needs a [[distrust]] pattern, for messages \
                        that arrive without a severity";
            self.fault(line, what);
        }
        let pattern = written.pattern.into_inner();
        if !self.is_built_in
            && let Err(error) = regex::Regex::new(&pattern)
        {
            self.fault(line, error.to_string());
            return None;
        }
        let (cause, programs) = (written.cause, written.programs);
        Some(Shape { file_line, pattern, cause, programs, severities })
    }

    fn example(&mut self, written: WrittenExample) -> Option<Example> {
        let file_line = line_of(self.text, written.verdict.span().start);
        let lines = match (written.line, written.lines) {
            (Some(line), None) => vec![line],
            (None, Some(lines)) if !lines.is_empty() => lines,
            _ => {
                self.fault(Some(file_line), "an example needs either `line` or `lines`");
                return None;
            }
        };
        Some(Example {
            file_line,
            lines,
            verdict: written.verdict.into_inner(),
            address: written.address,
            user: written.user,
        })
    }
}
