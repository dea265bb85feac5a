//! Proves the patterns of mail daemons against all shapes of messages in their files.
//!
//! - **Promise**: each pattern of a login or a connection is proved against each shape of its own
//!   file, and of every other file that shares a program name with it. What is not proved is a
//!   fault, with a message to try where one was found.
//! - **Logins**: an unauthenticated client's message must not be a login; an authenticated client's
//!   may only contain the client's own address.
//! - **Connections**: they precede the login, so whatever the cause, only the client's own address.

use super::{CheckedPattern, Forgery, ProofVerdict};
use crate::engine::maildaemons::{Cause, DescriptionFault, MailDaemon, Pattern, Shape};
use crate::engine::proof;

/// A pattern or shape with its mail daemon.
type Of<'d, T> = (&'d MailDaemon, &'d T);

/// Proves the patterns against the shapes, for each pair of daemons that is wanted, and returns what
/// could not be proved. The first of a pair has the pattern, the second the shape.
pub fn prove(
    daemons: &[MailDaemon],
    wanted: impl Fn(&MailDaemon, &MailDaemon) -> bool,
) -> Vec<DescriptionFault> {
    let mut faults = Vec::new();
    for daemon in daemons {
        let others: Vec<&MailDaemon> =
            daemons.iter().filter(|other| wanted(daemon, other)).collect();
        let logins = daemon.logins().iter().map(|pattern| (pattern, PatternRole::Login));
        let connects = daemon.connects().iter().map(|pattern| (pattern, PatternRole::Connect));
        for (pattern, role) in logins.chain(connects) {
            let claim = Claim { daemon, pattern, role };
            claim.examine(&others, &mut faults);
        }
    }
    faults
}

/// What a pattern is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PatternRole {
    Login,
    Connect,
}

/// The claim that a pattern cannot be deceived.
struct Claim<'d> {
    daemon: &'d MailDaemon,
    pattern: &'d Pattern,
    role: PatternRole,
}

impl<'d> Claim<'d> {
    fn examine(&self, others: &[&'d MailDaemon], faults: &mut Vec<DescriptionFault>) {
        let shapes = || others.iter().flat_map(|other| other.shapes.iter().map(|s| (*other, s)));
        let shared = |(other, shape): Of<'d, Shape>| {
            self.program_shared_with(other, shape).map(|program| (other, shape, program))
        };
        let mut shapes = shapes().filter_map(shared).peekable();
        if shapes.peek().is_none() {
            return;
        }
        let checked = match CheckedPattern::new(self.pattern.clone()) {
            Ok(checked) => checked,
            Err(why) => {
                faults.push(fault(self.daemon, self.pattern.file_line, why.to_string()));
                return;
            }
        };
        for (other, shape, program) in shapes {
            if !self.is_told_by_severity(shape) {
                let compiled = match proof::CheckedShape::new(&shape.pattern) {
                    Ok(compiled) => compiled,
                    Err(why) => {
                        faults.push(fault(other, shape.file_line, why.to_string()));
                        continue;
                    }
                };
                let verdict = proof::prove(&checked, &compiled, self.forgery(shape));
                faults.extend(self.fault((other, shape), program, verdict));
            }
        }
    }

    /// Returns a program whose messages the pattern sees and which may write messages of the shape.
    fn program_shared_with(&self, other: &MailDaemon, shape: &Shape) -> Option<&'d str> {
        let writes = |program: &str| {
            let named = shape.programs.is_empty() || shape.programs.iter().any(|p| p == program);
            named && other.programs.iter().any(|p| p == program)
        };
        let programs = self.daemon.programs.iter().map(String::as_str);
        programs.filter(|program| self.pattern.is_for(program)).find(|program| writes(program))
    }

    /// Returns whether frames with a priority cannot deceive the pattern, and a distrust pattern
    /// protects against the others.
    fn is_told_by_severity(&self, shape: &Shape) -> bool {
        let accepted = &self.daemon.severities;
        let differ = !accepted.is_empty() && !shape.severities.iter().any(|s| accepted.contains(s));
        self.role == PatternRole::Login
            && !shape.severities.is_empty()
            && differ
            && self.daemon.distrusts()
    }

    fn forgery(&self, shape: &Shape) -> Forgery {
        match (self.role, shape.cause) {
            (PatternRole::Login, Cause::Stranger) => Forgery::Any,
            (PatternRole::Login, Cause::Client) | (PatternRole::Connect, _) => {
                Forgery::OtherAddress
            }
        }
    }

    fn fault(
        &self,
        (other, shape): Of<'d, Shape>,
        program: &str,
        verdict: ProofVerdict,
    ) -> Option<DescriptionFault> {
        let place = match other.name == self.daemon.name {
            true => format!("line {}", shape.file_line),
            false => format!("{}:{}", origin(other), shape.file_line),
        };
        let what = match verdict {
            ProofVerdict::Proved { .. } => return None,
            ProofVerdict::Undecided(doubt) => {
                format!("cannot prove that the [[shape]] in {place} is harmless: {doubt}")
            }
            ProofVerdict::Forged { message, address } => {
                let who = match (self.role, shape.cause) {
                    (PatternRole::Login, Cause::Stranger) => "anyone",
                    (PatternRole::Login, Cause::Client) | (PatternRole::Connect, _) => "a client",
                };
                let gained = match address {
                    Some(address) => format!("authorise {address}"),
                    None => "authorise their own address".into(),
                };
                let lines: String =
                    self.complete(program, message).iter().map(|m| log_line(program, m)).collect();
                format!(
                    "forged: {who} can {gained} with a message of the [[shape]] in {place}:{lines}"
                )
            }
        };
        Some(fault(self.daemon, self.pattern.file_line, what))
    }

    /// Returns the message, with the other half of the login before or after it if it is only half
    /// of one.
    fn complete(&self, program: &str, message: String) -> Vec<String> {
        let half = |patterns: &[Pattern], has_address| {
            let mut patterns = patterns.iter().filter(|p| p.is_for(program));
            patterns.find_map(|p| self.sample(p).filter(|_| p.gives_address() == has_address))
        };
        let before = match self.role {
            PatternRole::Login if !self.pattern.gives_address() => {
                half(self.daemon.connects(), true)
            }
            _ => None,
        };
        let after = match self.role {
            PatternRole::Connect => half(self.daemon.logins(), false),
            PatternRole::Login => None,
        };
        before.into_iter().chain([message]).chain(after).collect()
    }

    /// Returns a message of the daemon itself that a pattern accepts.
    fn sample(&self, pattern: &Pattern) -> Option<String> {
        let checked = CheckedPattern::new(pattern.clone()).ok()?;
        self.daemon.shapes.iter().find_map(|shape| {
            let shape = proof::CheckedShape::new(&shape.pattern).ok()?;
            match proof::prove(&checked, &shape, Forgery::Any) {
                ProofVerdict::Forged { message, .. } => Some(message),
                _ => None,
            }
        })
    }
}

fn origin(daemon: &MailDaemon) -> String {
    daemon.origin.clone().unwrap_or_else(|| daemon.name.to_string())
}

fn fault(daemon: &MailDaemon, line: usize, what: String) -> DescriptionFault {
    DescriptionFault { origin: origin(daemon), line: Some(line), what }
}

/// Formats a message as a line of a log, for `test`.
fn log_line(program: &str, message: &str) -> String {
    let message = match message.chars().any(char::is_control) {
        true => message.escape_debug().to_string(),
        false => message.to_owned(),
    };
    format!("\n  | Nov 22 07:31:23 mx1 {program}[4242]: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::maildaemons;

    #[test]
    fn the_built_in_patterns_are_proved() {
        let (daemons, faults) = maildaemons::all(&[]);
        assert_eq!(faults, []);
        assert!(daemons.iter().all(|daemon| !daemon.shapes.is_empty()), "each has shapes");
        let faults: Vec<String> =
            prove(&daemons, |_, _| true).iter().map(DescriptionFault::to_string).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    fn daemon(origin: &str, patterns: &str) -> MailDaemon {
        let text = format!(
            "name = \"{origin}\"\ntitle = \"Own\"\nprograms = [\"ownd\"]\n{patterns}\n\
             [[example]]\nline = \"ownd: in\"\nverdict = \"login\"\n"
        );
        let origin = Some(format!("{origin}.toml"));
        maildaemons::DaemonFile { origin, text }.compile().expect("a sound file")
    }

    fn faults(daemons: &[MailDaemon]) -> Vec<String> {
        prove(daemons, |_, _| true).iter().map(DescriptionFault::to_string).collect()
    }

    /// Returns the faults of a login pattern in line 5 and a shape in line 9.
    fn faults_of(login: &str, condition: &str, cause: &str, shape: &str) -> Vec<String> {
        let patterns = format!(
            "[[login]]\npattern = '{login}'\n{condition}\n\
             [[shape]]\ncause = \"{cause}\"\npattern = '{shape}'"
        );
        faults(&[daemon("own", &patterns)])
    }

    #[test]
    fn a_forgery_names_who_can_authorise_what() {
        let in_ip = "^in (?<address>[0-9.]+)";
        let rows = [
            (
                (in_ip, "stranger", "in [0-9.]{7,15}"),
                "own.toml:5: forged: anyone can authorise 198.51.100.7 with a message of the \
                 [[shape]] in line 9:\n  \
                 | Nov 22 07:31:23 mx1 ownd[4242]: in 198.51.100.7",
            ),
            (
                (in_ip, "client", r"in [0-9.]{7,15}: (?<client>192\.0\.2\.7)"),
                "own.toml:5: forged: a client can authorise 198.51.100.7 with a message of the \
                 [[shape]] in line 9:\n  \
                 | Nov 22 07:31:23 mx1 ownd[4242]: in 198.51.100.7: 192.0.2.7",
            ),
            (
                (r"^in\n(?<address>[0-9.]+)$", "stranger", r"in\s[0-9.]{7,15}"),
                "own.toml:5: forged: anyone can authorise 198.51.100.7 with a message of the \
                 [[shape]] in line 9:\n  \
                 | Nov 22 07:31:23 mx1 ownd[4242]: in\\n198.51.100.7",
            ),
        ];
        for ((login, cause, shape), expected) in rows {
            assert_eq!(faults_of(login, "", cause, shape), [expected]);
        }
        assert_eq!(faults_of(in_ip, "", "stranger", "out [0-9.]{7,15}"), [""; 0]);
    }

    #[test]
    fn half_of_a_forged_login_is_completed() {
        let halves = "[[login]]\npattern = '^user (?<user>[a-z]+)$'\n\
                      [[connect]]\npattern = '^from (?<address>[0-9.]+)'\n\
                      [[shape]]\ncause = \"stranger\"\npattern = 'user [a-z]{1,9}'\n\
                      [[shape]]\ncause = \"client\"\npattern = 'from [0-9.]{7,15}'";
        let both = "  | Nov 22 07:31:23 mx1 ownd[4242]: from 198.51.100.7\n  \
                    | Nov 22 07:31:23 mx1 ownd[4242]: user joe";
        let expected = [
            "own.toml:5: forged: anyone can authorise their own address with a message of the \
             [[shape]] in line 10:\n",
            "own.toml:7: forged: a client can authorise 198.51.100.7 with a message of the \
             [[shape]] in line 13:\n",
        ];
        assert_eq!(faults(&[daemon("own", halves)]), expected.map(|what| format!("{what}{both}")));
    }

    #[test]
    fn a_shape_of_another_file_is_named_with_its_file() {
        let login = "[[login]]\npattern = '^in (?<address>[0-9.]+)$'";
        let shaped = format!("{login}\n[[shape]]\ncause = \"stranger\"\npattern = 'PATTERN'");
        let other = |pattern| daemon("other", &shaped.replace("PATTERN", pattern));
        let faults_with = |pattern| faults(&[daemon("own", login), other(pattern)]);
        let found = faults_with("in [0-9.]{7,15}");
        assert_eq!(found.len(), 2, "{found:#?}");
        let forged = "forged: anyone can authorise 198.51.100.7 with a message of the [[shape]] in";
        assert!(
            found[0].starts_with(&format!("own.toml:5: {forged} other.toml:8:\n")),
            "{found:?}"
        );
        assert!(found[1].starts_with(&format!("other.toml:5: {forged} line 8:\n")), "{found:?}");
        let found = faults_with(r"\bin");
        assert_eq!(found.len(), 2, "once for each pattern: {found:#?}");
        assert!(found.iter().all(|what| what.starts_with("other.toml:8: only ")), "{found:?}");
    }

    #[test]
    fn an_unproved_shape_has_a_reason_and_advice() {
        let doubt = |message: &str, why: &str| {
            format!(
                "own.toml:5: cannot prove that the [[shape]] in line 9 is harmless: the pattern \
                 matches the message {message:?}; this one is refused ({why}), but similar ones \
                 may not be; make the pattern narrower"
            )
        };
        let assertion = "only the assertions ^ and $ can be analysed, not \\b or (?m); match the \
                         neighbouring characters instead";
        let large = "the expression is too large when its repetitions are expanded; use \
                     smaller bounds, or [0-9] instead of \\d and [A-Za-z0-9_] instead of \\w";
        let ip = "(?<address>[0-9.]+)";
        let rows = [
            (
                (format!("^ in {ip}$"), "", "stranger", " in 192"),
                doubt(" in 192", "the pattern does not match the whole message"),
            ),
            (
                (format!("^u=(?<user>[a-z]*) {ip}$"), "", "stranger", r"u= 192\.0\.2\.7"),
                doubt("u= 192.0.2.7", "the user name is empty"),
            ),
            (
                (format!("^in (?:from {ip}|by [0-9]+)$"), "", "client", "in by (?<client>7)"),
                doubt("in by 7", "the group `address` is not part of the match"),
            ),
            (
                (
                    format!("^user=(?<user>.+) ip={ip}(?: .*)?$"),
                    "",
                    "client",
                    r"user=x ip=1 ip=(?<client>192\.0\.2\.7)",
                ),
                doubt("user=x ip=1 ip=192.0.2.7", "the address in it is the client's own"),
            ),
            ((format!(r"^in\b {ip}$"), "", "stranger", "in"), format!("own.toml:5: {assertion}")),
            ((format!("^in {ip}$"), "", "stranger", r"in\b"), format!("own.toml:9: {assertion}")),
            (
                (format!("^(?:(?:a?){{100}}){{100}}{ip}$"), "", "stranger", "in"),
                format!("own.toml:5: {large}"),
            ),
            (
                (format!("^in {ip}$"), "once = [\"\"]", "stranger", "in"),
                "own.toml:5: a text in `once` or `never` must have 1 to 64 bytes: \"\"".into(),
            ),
        ];
        for ((login, condition, cause, shape), expected) in rows {
            assert_eq!(faults_of(&login, condition, cause, shape), [expected], "{login}");
        }
    }
}
