//! The ACLs of Exim's configuration, as `exim -bP config` prints it: files included, macros replaced,
//! lines joined.
//!
//! - **Limits**: an ACL that Exim chooses for each message by an expansion is not followed.

use std::collections::BTreeMap;

/// Statements begin with one of these.
const VERBS: [&str; 7] = ["accept", "defer", "deny", "discard", "drop", "require", "warn"];
/// What is no condition in a statement, so that it always applies.
const MODIFIERS: [&str; 9] = [
    "add_header",
    "control",
    "delay",
    "endpass",
    "log_message",
    "logwrite",
    "message",
    "remove_header",
    "set",
];
/// ACLs that call each other are followed to this depth.
const MAX_DEPTH: usize = 10;

#[derive(Debug, Default)]
struct Statement {
    verb: String,
    lines: Vec<String>,
}

/// All ACLs, and which of them decides about recipients.
#[derive(Debug, Default)]
pub struct Acls {
    /// The value of `acl_smtp_rcpt`.
    pub rcpt: Option<String>,
    named: BTreeMap<String, Vec<Statement>>,
}

/// Something that happens to a recipient in another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclStep {
    /// pop-before-smtp is asked at this socket: a path, or `inet:HOST:PORT`.
    Asks(String),
    /// The recipient is refused; by this statement.
    Refuses(String),
}

impl Acls {
    /// Reads a configuration.
    pub fn read(config: &str) -> Self {
        let mut acls = Self::default();
        let (mut section, mut current) = ("", String::new());
        for line in config.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix("begin ") {
                section = name.trim();
            } else if section.is_empty() {
                let value = line.strip_prefix("acl_smtp_rcpt").and_then(|rest| {
                    rest.trim_start().strip_prefix('=').map(|value| value.trim().to_owned())
                });
                acls.rcpt = value.or(acls.rcpt);
            } else if section == "acl" {
                acls.add(&mut current, line);
            }
        }
        acls
    }

    fn add(&mut self, current: &mut String, line: &str) {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if let Some(name) = line.strip_suffix(':').filter(|name| is_name(name)) {
            name.clone_into(current);
            self.named.entry(name.to_owned()).or_default();
            return;
        }
        let Some(statements) = self.named.get_mut(current) else { return };
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let mut line = line;
        if VERBS.contains(&word) {
            statements.push(Statement { verb: word.to_owned(), lines: Vec::new() });
            line = rest.trim_start();
        }
        if let Some(statement) = statements.last_mut().filter(|_| !line.is_empty()) {
            statement.lines.push(line.to_owned());
        }
    }

    /// Returns what the ACL for recipients does, in its order; nothing if it is not known.
    pub fn steps(&self) -> Vec<AclStep> {
        let mut steps = Vec::new();
        self.follow(self.rcpt.as_deref().unwrap_or_default(), 0, &mut steps);
        steps
    }

    /// Returns the sockets at which any ACL asks, used or not.
    pub fn sockets(&self) -> Vec<String> {
        let lines = self.named.values().flatten().flat_map(|statement| &statement.lines);
        lines.filter_map(|line| asked(line)).collect()
    }

    /// Returns whether the ACL for recipients is known: a name, not an expansion.
    pub fn is_known(&self) -> bool {
        self.rcpt.as_ref().is_some_and(|name| self.named.contains_key(name))
    }

    fn follow(&self, name: &str, depth: usize, steps: &mut Vec<AclStep>) {
        let Some(statements) = self.named.get(name).filter(|_| depth < MAX_DEPTH) else { return };
        for statement in statements {
            for line in &statement.lines {
                steps.extend(asked(line).map(AclStep::Asks));
                if let Some(called) = called(line) {
                    self.follow(called, depth + 1, steps);
                }
            }
            if statement.refuses() {
                steps.push(AclStep::Refuses(format!(
                    "{} {}",
                    statement.verb,
                    statement.lines.join(" ")
                )));
            }
        }
    }
}

impl Statement {
    /// Returns whether it refuses every recipient in another domain.
    fn refuses(&self) -> bool {
        let mut conditions =
            self.lines.iter().map(|line| word(line)).filter(|word| !is_modifier(word));
        match &*self.verb {
            "require" => conditions.any(|word| word == "domains"),
            "deny" | "drop" | "defer" => conditions.next().is_none(),
            _ => false,
        }
    }
}

/// Returns the name of a condition or modifier.
fn word(line: &str) -> &str {
    line.split([' ', '\t', '=']).next().unwrap_or_default()
}

fn is_modifier(word: &str) -> bool {
    MODIFIERS.contains(&word)
}

/// Returns the socket at which a line asks by Postfix's policy protocol.
fn asked(line: &str) -> Option<String> {
    let (_, call) = line.split_once("${readsocket{")?;
    let (socket, request) = call.split_once('}')?;
    request.contains("smtpd_access_policy").then(|| socket.trim().to_owned())
}

/// Returns the ACL that a condition calls.
fn called(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    let is_call = ["acl", "!acl"].contains(&name.trim());
    is_call.then(|| value.split_whitespace().next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: &str = "set acl_m_a = ${sg{${readsocket{/run/p}{request=smtpd_access_policy\\n}}}}";

    #[test]
    fn steps_of_the_acl_for_recipients() {
        let asks = || AclStep::Asks("/run/p".into());
        let refuses = |text: &str| AclStep::Refuses(text.to_owned());
        let require = "require domains = +local_domains";
        let rows: [(&str, Vec<AclStep>); 7] = [
            (&format!("rcpt:\n warn\n {ASKS}\n accept"), vec![asks()]),
            (
                &format!("rcpt:\n {require}\n warn {ASKS}\n deny\n message = no"),
                vec![refuses(require), asks(), refuses("deny message = no")],
            ),
            (
                &format!("ours:\n warn {ASKS}\n rcpt:\n accept acl = ours\n {require}"),
                vec![asks(), refuses(require)],
            ),
            (&format!("other:\n warn {ASKS}\n rcpt:\n deny hosts = 192.0.2.7\n accept"), vec![]),
            ("rcpt:\n warn set acl_m_a = ${readsocket{/run/p}{hello\\n}}", vec![]),
            ("rcpt:\n accept acl = rcpt", vec![]),
            ("other:\n deny", vec![]),
        ];
        for (text, expected) in rows {
            let config = format!(
                "# Exim\nacl_smtp_rcpt = rcpt\nacl_smtp_rcpt_x = y\nbegin acl\n{text}\nbegin routers\n deny\n"
            );
            let acls = Acls::read(&config);
            assert_eq!(acls.steps(), expected, "{text}");
            assert_eq!(acls.rcpt.as_deref(), Some("rcpt"));
            assert_eq!(acls.is_known(), text.contains("rcpt:"), "{text}");
            assert_eq!(acls.sockets().len(), text.matches("smtpd_access").count(), "{text}");
        }
        assert!(!Acls::read("acl_smtp_rcpt = ${if eq{a}{b}{c}{d}}\nbegin acl\nc:\n").is_known());
    }
}
