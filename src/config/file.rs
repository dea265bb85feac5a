//! The text of the configuration file, read key by key.
//!
//! - **Promise**: everything that is wrong is found at once; the sound keys are read even so. Each
//!   fault names its line, its key, and a right value.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::login_rules;
use super::login_rules::RULE_KEYS;
use super::options::Layer;
use super::options::{OPTIONS, OptionInfo, Setting};
use super::rule_entry::RuleEntry;

/// The tables that are rules on logins.
const RULE: &str = "rule";
/// Most rounds in which broken lines are taken out.
const MAX_BROKEN: usize = 20;

/// What is wrong with a line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

/// A file while it is read.
struct FileReader<'t> {
    text: &'t str,
    layer: Layer,
    faults: Vec<FileFault>,
    /// Some lines are not TOML: keys may be missing.
    has_broken_lines: bool,
}

/// Reads the text of a configuration file. Keys that are wrong are missing in the layer, and
/// [`Layer::unread`] names them.
pub fn read(text: &str) -> (Layer, Vec<FileFault>) {
    let mut reader =
        FileReader { text, layer: Layer::default(), faults: Vec::new(), has_broken_lines: false };
    let mut broken = BTreeSet::new();
    let mut rest = text.to_owned();
    // What is not TOML is taken out, so that what follows is read.
    for _ in 0..MAX_BROKEN {
        let (table, errors) = DeTable::parse_recoverable(&rest);
        let before = broken.len();
        for error in errors {
            let line = reader.line(error.span().map_or(text.len(), |span| span.start));
            // The parser reports what follows from a fault as another one.
            if broken.insert(line) {
                reader.syntax(line, error.message());
            }
        }
        if broken.len() == before {
            reader.has_broken_lines = !broken.is_empty();
            reader.table(table.get_ref());
            break;
        }
        rest = without(text, &broken);
    }
    reader.faults.sort_by_key(|fault| fault.line);
    (reader.layer, reader.faults)
}

/// Returns a text in which these lines, counted from 1, consist of blanks.
fn without(text: &str, lines: &BTreeSet<usize>) -> String {
    let blank = |(index, line): (usize, &str)| match lines.contains(&(index + 1)) {
        true => line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect(),
        false => line.to_owned(),
    };
    text.split_inclusive('\n').enumerate().map(blank).collect()
}

impl FileReader<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    /// Reports a line that is not TOML. `said` is what the parser says about it.
    fn syntax(&mut self, line: usize, said: &str) {
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let key = key.trim().trim_matches(['"', '\'']);
        let Some(option) = option(key) else {
            let hint = "write `key = \"text\"`, `key = [\"text\", \"text\"]`, `key = true` or \
                        `key = 7`; notes begin with #";
            let what = format!("it is not TOML: {said}");
            self.faults.push(FileFault { line, what, hint: hint.into() });
            return;
        };
        self.layer.unread.insert(option.name);
        let marks: &[char] = &['"', '\'', '[', ']', '\u{201c}', '\u{201d}', ' ', ','];
        let value = value.split(" #").next().unwrap_or_default().trim_matches(marks);
        let what = format!("{}: the value is not TOML: {said}", option.name);
        self.faults.push(FileFault { line, what, hint: write(option, &[value.to_owned()]) });
    }

    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            self.key(self.line(key.span().start), key.get_ref(), value.get_ref());
        }
    }

    fn key(&mut self, line: usize, key: &str, value: &DeValue<'_>) {
        if key == RULE {
            return self.rules(line, value);
        }
        let Some(option) = option(key) else {
            self.unknown(line, key, value);
            // What stands below a heading is meant too.
            if let DeValue::Table(table) = value
                && !is_like_rule(key)
            {
                self.table(table);
            }
            return;
        };
        match self.layer.set(option.name, Setting::File(value)) {
            Ok(()) => {
                self.layer.in_file.insert(option.name);
            }
            Err(why) => {
                self.layer.unread.insert(option.name);
                let what = format!("{}: {why}", option.name);
                let hint = write(option, &super::written::texts(value));
                self.faults.push(FileFault { line, what, hint });
            }
        }
    }

    fn rules(&mut self, line: usize, value: &DeValue<'_>) {
        let tables = value.as_array().map(|tables| tables.iter());
        let mut tables = tables.into_iter().flatten().peekable();
        if tables.peek().is_none_or(|first| !first.get_ref().is_table()) {
            let what = "`rule`: expected tables".into();
            let hint = "write [[rule]] on a line of its own, and the keys of the rule below it";
            self.faults.push(FileFault { line, what, hint: hint.into() });
            return;
        }
        for (number, table) in (1..).zip(tables) {
            if let DeValue::Table(keys) = table.get_ref() {
                self.rule(number, self.line(table.span().start), keys);
            }
        }
    }

    fn rule(&mut self, number: usize, line: usize, keys: &DeTable<'_>) {
        let mut rule = RuleEntry { number, line, ..RuleEntry::default() };
        let before = self.faults.len();
        for (key, value) in keys.iter() {
            let (line, key) = (self.line(key.span().start), key.get_ref());
            let (what, hint) = match RULE_KEYS.iter().find(|info| info.name == key) {
                None => (format!("unknown key `{}`", key.escape_debug()), self.rule_key(key)),
                Some(info) => match login_rules::set(&mut rule, key, value.get_ref()) {
                    Ok(()) => continue,
                    Err(why) => {
                        let texts = super::written::texts(value.get_ref());
                        (format!("{key}: {why}"), write(info, &texts))
                    }
                },
            };
            self.faults.push(FileFault { line, what: format!("rule {number}: {what}"), hint });
        }
        if self.faults.len() > before || self.has_broken_lines && rule.is_empty() {
            return;
        }
        if let Some((what, hint)) = rule.contradiction() {
            let what = format!("rule {number}: {what}");
            self.faults.push(FileFault { line, what, hint: hint.into() });
        }
        self.layer.rules.push(rule);
    }

    /// Returns what to do about a key that rules do not have.
    fn rule_key(&mut self, key: &str) -> String {
        let mut hints = Vec::new();
        if let Some(near) = nearest_of(&RULE_KEYS, key) {
            hints.push(format!("did you mean `{}`? {}", near.name, write(near, &[])));
        }
        if let Some(option) = option(key) {
            // Its absence is not a fault of its own.
            self.layer.unread.insert(option.name);
            hints.push(format!("move `{key}` above the first [[rule]] if it is for all logins"));
        }
        if hints.is_empty() {
            hints.push("remove it; a rule has the keys from, user, grace, never, messages-per-hour and recipients-per-hour".into());
        }
        hints.join("; or ")
    }

    fn unknown(&mut self, line: usize, key: &str, value: &DeValue<'_>) {
        let shown = key.escape_debug();
        if is_like_rule(key) && (value.is_table() || value.is_array()) {
            let (what, hint) = (format!("unknown key `{shown}`"), "did you mean [[rule]]?".into());
            self.faults.push(FileFault { line, what, hint });
            return;
        }
        if value.is_table() {
            let what = format!("`{shown}`: the file has no sections");
            let hint = "remove the heading, and write its keys as `key = value`";
            self.faults.push(FileFault { line, what, hint: hint.into() });
            return;
        }
        let what = format!("unknown key `{shown}`");
        let hint = match nearest(key) {
            Some(option) => {
                // Its absence is not a fault of its own.
                self.layer.unread.insert(option.name);
                format!("did you mean `{}`? {}", option.name, write(option, &[]))
            }
            None => "remove it; `pop-before-smtp run --help` lists the keys".into(),
        };
        self.faults.push(FileFault { line, what, hint });
    }
}

fn option(name: &str) -> Option<&'static OptionInfo> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// Returns what to write for an option: these texts if they make a right value, else an example.
fn write(option: &OptionInfo, texts: &[String]) -> String {
    let example = [option.example.to_owned()];
    let value = (option.notation)(texts).or_else(|| (option.notation)(&example));
    format!("write {} = {}", option.name, value.unwrap_or_default())
}

fn is_like_rule(key: &str) -> bool {
    strsim::damerau_levenshtein(RULE, key) <= 1
}

/// Returns the option whose name is most like a name that no option has.
pub fn nearest(name: &str) -> Option<&'static OptionInfo> {
    nearest_of(OPTIONS, name)
}

fn nearest_of<'o>(options: &'o [OptionInfo], name: &str) -> Option<&'o OptionInfo> {
    let name = name.to_lowercase().replace('_', "-");
    let distance = |option: &OptionInfo| strsim::damerau_levenshtein(option.name, &name);
    let near = options.iter().map(|option| (distance(option), option));
    let (distance, option) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + option.name.len() / 4).then_some(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row: a file, and for each fault its line, a part of what is wrong, and the hint's end.
    #[test]
    fn faults_show_what_to_write() {
        type FaultRow<'a> = (&'a str, &'a [(usize, &'a str, &'a str)]);
        let rows: &[FaultRow<'_>] = &[
            ("grace = 30", &[(1, "grace: expected one text in quotes", "write grace = \"30m\"")]),
            ("grace = 'soon'", &[(1, "grace: `soon` is not a duration", "write grace = \"30m\"")]),
            ("grace = 45m", &[(1, "grace: the value is not TOML", "write grace = \"45m\"")]),
            (
                "listen = 'udp:127.0.0.1:5514'",
                &[(1, "listen: expected a list", "write listen = [\"udp:127.0.0.1:5514\"]")],
            ),
            ("allow-uid = [0]", &[(1, "allow-uid: expected a list", "write allow-uid = [\"0\"]")]),
            (
                "policy = ['unix:/run/p']",
                &[(1, "policy: expected one text", "write policy = \"unix:/run/p\"")],
            ),
            ("dry-run = 'yes'", &[(1, "dry-run: expected true or", "write dry-run = true")]),
            ("dry-run = 1", &[(1, "dry-run: expected true or", "write dry-run = true")]),
            ("max-clients = '9'", &[(1, "expected a whole number", "write max-clients = 9")]),
            ("max-clients = -1", &[(1, "max-clients: `-1`", "write max-clients = 65536")]),
            ("sender = 'users'", &[(1, "any, user, domain", "write sender = \"user\"")]),
            ("log-format = 'txt'", &[(1, "text, json, journald", "write log-format = \"json\"")]),
            ("grase = '1m'", &[(1, "unknown key `grase`", "write grace = \"30m\"")]),
            ("map_value = 'OK'", &[(1, "`map_value`", "write map-value = \"OK\"")]),
            ("colour = 'red'", &[(1, "unknown key `colour`", "lists the keys")]),
            (
                "listen = ['x', 'unix:/run/x', 'y']",
                &[(
                    1,
                    "`x`: write unix:/PATH or udp:HOST:PORT; `y`: ",
                    "write listen = [\"unix:/run/pop-before-smtp/log.sock\"]",
                )],
            ),
            (
                "[mail]\nmax-clients = 'x'\n",
                &[(1, "`mail`: the file has no sections", ""), (2, "max-clients: expected", "")],
            ),
            (
                "grace\nmap-value = 1\n= 2\nstate = \"/x\ndry-run = 3\ncolour = 1",
                &[
                    (1, "grace: the value is not TOML", "write grace = \"30m\""),
                    (2, "map-value: expected", "write map-value = \"1\""),
                    (3, "it is not TOML", "notes begin with #"),
                    (4, "state: the value is not TOML", "write state = \"/x\""),
                    (5, "dry-run: expected", "write dry-run = false"),
                    (6, "unknown key `colour`", "lists the keys"),
                ],
            ),
            ("grace = '1m'\ngrace = '2m'", &[(2, "grace: the value is not TOML: dup", "")]),
            ("users = 'joe'", &[(1, "users: expected a list", "write users = [\"joe\"]")]),
            ("[rule]\nuser = 'joe'", &[(1, "`rule`: expected tables", "of the rule below it")]),
            ("rule = ['joe']", &[(1, "`rule`: expected tables", "of the rule below it")]),
            ("[[rules]]\nuser = 'joe'", &[(1, "unknown key `rules`", "did you mean [[rule]]?")]),
            ("[[rule]]\n", &[(1, "rule 1: it says nothing", "or remove it")]),
            (
                "[[rule]]\nmessages-per-hour = 0",
                &[(2, "not between 1 and", "messages-per-hour = 20")],
            ),
            (
                "# x\n[[rule]]\nnever = true\n\n[[rule]]\nform = '192.0.2.0/24'\nmax-clients = 5\nx = 1",
                &[
                    (6, "rule 2: unknown key `form`", "write from = \"192.0.2.0/24\""),
                    (7, "rule 2: unknown key `max-clients`", "if it is for all logins"),
                    (8, "rule 2: unknown key `x`", "and recipients-per-hour"),
                ],
            ),
            (
                "[[rule]]\nusers = ['joe']\ngrace = 8\nnever = 'yes'\nfrom = ['192.0.2.7', 'x']",
                &[
                    (2, "rule 1: unknown key `users`", "if it is for all logins"),
                    (3, "rule 1: grace: expected one text", "write grace = \"8h\""),
                    (4, "rule 1: never: expected true or", "write never = true"),
                    (5, "rule 1: from: `x` is not a network", "write from = \"192.0.2.0/24\""),
                ],
            ),
            (
                "[[rule]]\nuser = []\n[[rule]]\ngrace = '8d'\n[[rule]]\ngrace = '8h'\nnever = true",
                &[
                    (2, "rule 1: user: the list is empty", "write user = \"joe@example.org\""),
                    (3, "rule 2: grace: longer than 7 days", "write grace = \"8h\""),
                    (5, "rule 3: a login that never authorises", "remove never, or the others"),
                ],
            ),
            (
                "[[rule]]\ngrace = 8h",
                &[(2, "grace: the value is not TOML", "write grace = \"8h\"")],
            ),
        ];
        for (text, expected) in rows {
            let (_, faults) = read(text);
            let fits = |(fault, expected): (&FileFault, &(usize, &str, &str))| {
                let (line, what, hint) = expected;
                fault.line == *line && fault.what.contains(what) && fault.hint.ends_with(hint)
            };
            assert_eq!(faults.len(), expected.len(), "{text}: {faults:#?}");
            assert!(faults.iter().zip(*expected).all(fits), "{text}: {faults:#?}");
        }
    }

    #[test]
    fn sound_keys_are_read_beside_wrong_ones() {
        let (layer, faults) = read("control = '/run/x'\ngrace = 30m\nlistn = ['x']\nstate = 1");
        assert_eq!(faults.len(), 3, "{faults:#?}");
        assert_eq!(layer.control().path.to_str(), Some("/run/x"));
        assert_eq!(layer.unread, ["grace", "listen", "state"].into());
        assert_eq!(layer.in_file, ["control"].into());
    }

    #[test]
    fn rules_have_numbers_and_lines() {
        let text = "grace = '1h'\n[[rule]]\nuser = 'joe'\nfrom = ['192.0.2.7', '2001:db8::/32']\n\
                    grace = '8h'\n\n[[ rule ]]\nnever = true\n[[rule]]\nuser = ['a', '@b']\n";
        let (layer, faults) = read(text);
        assert_eq!(faults, []);
        let rules = layer.rules.iter();
        let shown: Vec<_> =
            rules.map(|r| (r.number, r.line, r.from.len(), r.users.len())).collect();
        assert_eq!(shown, [(1, 2, 2, 1), (2, 7, 0, 0), (3, 9, 0, 2)]);
        assert_eq!(layer.rules[0].grace.map(|span| span.0.as_secs()), Some(8 * 3600));
        assert!(layer.rules[1].never && !layer.rules[2].never);
        let over = Layer::default().over(layer.clone());
        assert_eq!(over.rules, layer.rules);
    }

    #[test]
    fn every_key_of_a_rule_has_a_right_example() {
        for key in &RULE_KEYS {
            let hint = write(key, &[]);
            let key = hint.strip_prefix("write ").expect("its begin");
            assert_eq!(read(&format!("[[rule]]\n{key}")).1, [], "{hint}");
        }
    }

    #[test]
    fn every_option_has_a_right_example() {
        for option in OPTIONS {
            let hint = write(option, &[]);
            let (layer, faults) = read(hint.strip_prefix("write ").expect("its begin"));
            assert_eq!(faults, [], "{hint}");
            assert!(layer.in_file.contains(option.name), "{hint}");
        }
    }
}
