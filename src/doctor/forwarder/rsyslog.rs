//! rsyslog's configuration, as far as it decides whether a message reaches the daemon's rule.
//!
//! - **Limits**: finds rules by their text, in the order in which rsyslogd reads them. It is asked only
//!   when a message is missing, and what it finds is named with its file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// The main configuration file.
pub const MAIN: &str = "/etc/rsyslog.conf";
/// Deepest nesting of included files.
const MAX_DEPTH: usize = 4;
/// Lines above a `stop` within which its condition begins.
const MAX_CONDITION: usize = 12;

/// One line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLine {
    /// Its file.
    pub file: PathBuf,
    /// Its number, counted from 1.
    pub number: usize,
    /// The line without comments and blanks around it.
    pub text: String,
}

/// All lines that rsyslogd reads, in this order.
#[derive(Debug, Default)]
pub struct Rsyslog {
    lines: Vec<RuleLine>,
    patterns: Vec<String>,
}

impl Rsyslog {
    /// Reads the configuration; what cannot be read is left out.
    pub fn read(main: &Path) -> Self {
        let mut all = Self::default();
        all.include(main, 0);
        all
    }

    fn include(&mut self, file: &Path, depth: usize) {
        let Ok(text) = fs::read_to_string(file) else { return };
        for (index, line) in text.lines().enumerate() {
            let text = line.split('#').next().unwrap_or_default().trim().to_owned();
            match included(&text) {
                Some(pattern) if depth < MAX_DEPTH => {
                    self.patterns.push(pattern.to_owned());
                    for file in matching(pattern) {
                        self.include(&file, depth + 1);
                    }
                }
                _ if text.is_empty() => {}
                _ => self.lines.push(RuleLine { file: file.to_owned(), number: index + 1, text }),
            }
        }
    }

    /// Returns whether files of this directory are read.
    pub fn includes(&self, dir: &str) -> bool {
        self.patterns.iter().any(|pattern| Path::new(pattern).starts_with(dir))
    }

    /// Returns the place of the first line that names the daemon's socket: a path or a port.
    pub fn ours(&self, socket: &str) -> Option<usize> {
        self.lines.iter().position(|line| line.text.contains(socket))
    }

    /// Returns the line with the selector of the rule at this place: `mail,daemon.*  :omuxsock:`.
    pub fn selector(&self, ours: usize) -> Option<&RuleLine> {
        let file = &self.lines.get(ours)?.file;
        let in_file = self.lines.iter().filter(|line| line.file == *file);
        let is_selector = |line: &&RuleLine| {
            let (facilities, rest) = line.text.split_once('.').unwrap_or_default();
            let is_list = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ',';
            !facilities.is_empty() && facilities.chars().all(is_list) && rest.starts_with('*')
        };
        in_file.into_iter().find(is_selector)
    }

    /// Returns the line that limits messages to fewer than this many bytes; the last limit counts.
    pub fn limit_below(&self, bytes: usize) -> Option<&RuleLine> {
        let mut limits = self.lines.iter().rev().filter_map(|line| Some((size(&line.text)?, line)));
        limits.next().filter(|(size, _)| *size < bytes).map(|(_, line)| line)
    }

    /// Returns the file of the line at this place.
    pub fn file(&self, ours: usize) -> Option<&Path> {
        self.lines.get(ours).map(|line| &*line.file)
    }

    /// Returns the rule before this place that discards the messages of a program, or of a facility.
    pub fn discards(&self, ours: usize, program: &str, facility: &str) -> Option<&RuleLine> {
        let before = &self.lines[..ours.min(self.lines.len())];
        before.iter().enumerate().find_map(|(index, line)| {
            let first = index.saturating_sub(MAX_CONDITION);
            let above = before[first..=index].iter().rev();
            let above = above.take_while(|other| other.file == line.file);
            is_discard(&line.text).then_some(())?;
            let condition = above.into_iter().find(|line| is_condition(&line.text))?;
            is_about(&condition.text, program, facility).then_some(line)
        })
    }
}

/// Returns the pattern of an include line.
fn included(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("$IncludeConfig") {
        return Some(rest.trim());
    }
    let (_, rest) = line.strip_prefix("include(")?.split_once("file=\"")?;
    rest.split('"').next()
}

/// Returns the limit in bytes in `$MaxMessageSize 8k` or `global(maxMessageSize="8k")`.
fn size(line: &str) -> Option<usize> {
    let line = line.to_ascii_lowercase();
    let (_, value) = line.split_once("maxmessagesize")?;
    let value = value.trim_start_matches([' ', '\t', '=', '"']);
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let unit = if unit.starts_with(['k', 'm', 'g']) { 1024 } else { 1 };
    Some(number.parse::<usize>().ok()?.saturating_mul(unit))
}

/// Returns the files that a pattern names, in rsyslogd's order. Only the last part may have a `*`.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((head, tail)) = name.split_once('*') else { return vec![path.to_owned()] };
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok());
    let files = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let fits = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= head.len() + tail.len()
            && name.starts_with(head)
            && name.ends_with(tail)
            && !name.starts_with('.')
    };
    let mut files: Vec<PathBuf> = files.filter(fits).collect();
    files.sort();
    files
}

/// `stop`, `& stop`, `& ~`, `... then stop`, `... ~`.
fn is_discard(line: &str) -> bool {
    let last = line.trim_end_matches(['}', ' ', ';']).rsplit([' ', '\t', '{']).next();
    matches!(last, Some("stop" | "~"))
}

fn is_condition(line: &str) -> bool {
    let starts = ["if ", "if(", ":", "} else", "else if", "!"].iter().any(|s| line.starts_with(s));
    let selector = line.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
    starts || (selector.contains('.') && !selector.contains(['(', '/', '"']))
}

/// Returns whether a condition selects messages of this program or of this facility.
fn is_about(condition: &str, program: &str, facility: &str) -> bool {
    let quoted = |quote: char| condition.split(quote).skip(1).step_by(2).collect::<Vec<_>>();
    let mut texts = [quoted('"'), quoted('\'')].concat();
    texts.retain(|text| text.len() > 2);
    let by_name = texts.iter().any(|text| {
        let text = text.trim_end_matches([':', '[']);
        program.contains(text) || (text.contains(program) && text.len() < program.len() + 3)
    });
    let is_expression = condition.starts_with("if") || condition.starts_with(':');
    let selector = condition.split_whitespace().next().unwrap_or_default();
    let by_facility = if is_expression {
        texts.contains(&facility)
    } else {
        selector.split(';').filter_map(|part| part.split_once('.')).any(|(facilities, severity)| {
            severity != "none"
                && facilities.split(',').any(|found| found == facility || found == "*")
        })
    };
    let by_program = condition.strip_prefix('!').is_some_and(|name| name.trim() == program);
    by_name || by_facility || by_program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_rule_that_discards() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("written");
        write(
            "main",
            &format!("$IncludeConfig {}/*.conf\nmail.* /var/log/mail\n", dir.path().display()),
        );
        let ours = "# comment\n$OMUxSockSocket /run/x.sock\nmail,daemon.*  :omuxsock:;t\n";
        write("40-ours.conf", ours);
        let rows = [
            (":programname, isequal, \"dovecot\" /var/log/dovecot\n& stop\n", Some(2)),
            (":programname, isequal, \"dovecot\" stop\n", Some(1)),
            (":syslogtag, startswith, \"dovecot:\" ~\n", Some(1)),
            (
                "if $programname == 'dovecot' then {\n    action(type=\"omfile\" file=\"/x\")\n    stop\n}\n",
                Some(3),
            ),
            (
                "if $syslogfacility-text == 'local5' and $programname startswith 'dov' then -/x\n& stop\n",
                Some(2),
            ),
            ("local5.* /x\n& ~\n", Some(2)),
            ("if $programname == 'postfix' then stop\n", None),
            ("local6.* /x\n& stop\n", None),
            ("# if $programname == 'dovecot' then stop\n", None),
        ];
        for (text, expected) in rows {
            write("1-suite.conf", text);
            let all = Rsyslog::read(&at("main"));
            let place = all.ours("/run/x.sock").expect("it is there");
            let found = all.discards(place, "dovecot", "local5");
            assert_eq!(found.map(|line| line.number), expected, "{text}{all:?}");
            assert_eq!(all.selector(place).map(|line| line.number), Some(3));
        }
        // After ours it does no harm.
        fs::rename(at("1-suite.conf"), at("50-suite.conf")).expect("renamed");
        write("50-suite.conf", rows[0].0);
        let all = Rsyslog::read(&at("main"));
        assert_eq!(
            all.discards(all.ours("/run/x.sock").expect("it is there"), "dovecot", "mail"),
            None
        );
    }

    #[test]
    fn finds_a_low_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let main = dir.path().join("main");
        for (text, expected) in [
            ("$MaxMessageSize 256\n", Some(1)),
            ("x\nglobal(net.ipprotocol=\"4\" maxMessageSize = \"512\")\n", Some(2)),
            ("$MaxMessageSize 8k\n$maxmessagesize 300\n", Some(2)),
            ("$MaxMessageSize 300\n$MaxMessageSize 8k\n", None),
            ("global(maxMessageSize=\"1m\")\n#$MaxMessageSize 256\n", None),
            ("$MaxMessageSize 1024\n", None),
            ("$MaxMessageSize x\n", None),
        ] {
            fs::write(&main, text).expect("written");
            let all = Rsyslog::read(&main);
            assert_eq!(all.limit_below(1024).map(|line| line.number), expected, "{text}");
        }
    }
}
