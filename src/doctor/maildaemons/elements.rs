//! The login line that `login_log_format_elements` gives, and a description that takes it.
//!
//! - **Promise**: a description is returned only if a login counts with it, and if it is proved that
//!   no message of a client without a password, or of another address, does.
//! - **Source**: login-common of Dovecot 2.3 and 2.4.

use std::net::{IpAddr, Ipv4Addr};

use crate::engine::correlation::streams::Source;
use crate::engine::maildaemons::{DaemonFile, DaemonTable, MailDaemon};
use crate::engine::proof::{claims, examples};
use crate::engine::time::Time;
use crate::engine::verdict::{Outcome, Verdict};
use crate::engine::{Engine, Rules};

/// The client of the login line that is tried.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// What variables become in it.
const VALUES: [(&[&str], &str); 12] = [
    (&["u", "user", "n", "username", "auth_user", "login_user"], "joe"),
    (&["m", "mech", "mechanism"], "PLAIN"),
    (&["r", "rip", "remote_ip", "real_rip", "real_remote_ip"], "192.0.2.7"),
    (&["l", "lip", "local_ip", "real_lip", "real_local_ip"], "192.0.2.1"),
    (&["e", "mail_pid", "p", "pid"], "4711"),
    (&["a", "lport", "local_port", "b", "rport", "remote_port", "real_rport", "real_lport"], "993"),
    (&["c", "secured"], "TLS"),
    (&["k", "ssl_security"], "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"),
    (&["session"], "BU3jdthg6bl"),
    (&["s", "service", "protocol"], "imap"),
    (&["d", "domain"], "example.org"),
    (&["$", "message"], "Login"),
];

/// Letters between `%` and a variable of 2.3.
const MODIFIERS: [char; 10] = ['L', 'U', 'E', 'X', 'R', 'N', 'H', 'M', 'D', 'T'];
/// What a login line begins with.
const HEAD: &str = "(?:pop3|imap)-login: Log(?:in|ged in): ";
/// Any text of a client.
const TEXT: &str = r"[^\x00-\x1f]*";

/// An element of the login line.
enum Element {
    User { pattern: String, before: String, after: String },
    Address { pattern: String, prefix: String },
    Other(String),
}

impl Element {
    /// Returns whether it may be missing.
    fn is_optional(&self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// Returns what a client may make of it.
    fn shape(&self) -> String {
        match self {
            Self::User { before, after, .. } => format!("{before}{TEXT}{after}"),
            Self::Address { pattern, .. } => pattern.replace("(?<address>", "(?<client>"),
            Self::Other(pattern) => pattern.clone(),
        }
    }

    /// Returns the element; `None` if its value cannot be told from its neighbours'.
    fn parse(text: &str) -> Option<Self> {
        let (prefix, variable, suffix) = split(text)?;
        let (before, after) = (regex_syntax::escape(prefix), regex_syntax::escape(suffix));
        let value = |names: usize| VALUES[names].0.contains(&variable);
        Some(if value(0) && prefix.ends_with('<') && suffix.starts_with('>') {
            let pattern = format!(r"{before}(?<user>[^<>,\s]{{1,255}}){after}");
            Self::User { pattern, before, after }
        } else if value(2) && prefix.ends_with('=') {
            let pattern = format!("{before}(?<address>[0-9A-Fa-f:.]+){after}");
            Self::Address { pattern, prefix: prefix.to_owned() }
        } else if value(6) && text.starts_with('%') {
            Self::Other("(?:TLS|secured)".to_owned())
        } else if value(1) && prefix.ends_with('=') {
            // Not ANONYMOUS; APOP is the only other mechanism with A.
            Self::Other(format!("{before}(?:[B-Z][A-Z0-9-]*|APOP){after}"))
        } else if prefix.ends_with(['=', '<']) {
            Self::Other(format!(r"{before}[^\s<>,\[\]]*{after}"))
        } else {
            return None;
        })
    }
}

/// Returns the name of the variable after a `%`, and what follows it. Modifiers are left out.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => {
            let text = text.trim_start_matches(MODIFIERS);
            text.split_at(text.chars().next()?.len_utf8())
        }
    };
    let name = name.split(['|', ':']).next().unwrap_or_default();
    Some((name.trim(), rest))
}

/// Returns the text before the only variable, its name, and the text after it.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (prefix, rest) = text.split_once('%')?;
    let (name, suffix) = variable(rest)?;
    let is_plain = |text: &str| !text.contains(['%', '\'', '"', '\\', ',']);
    (is_plain(prefix) && is_plain(suffix)).then_some((prefix, name, suffix))
}

/// Returns the lines with which a description of Dovecot also takes logins with these elements, in
/// the default form; `None` if there is no safe one.
pub fn description(daemon: &MailDaemon, form: &str, elements: &str) -> Option<Vec<String>> {
    let parsed: Vec<Element> =
        elements.split_whitespace().map(Element::parse).collect::<Option<_>>()?;
    let prefix = parsed.iter().find_map(|element| match element {
        Element::Address { prefix, .. } => Some(prefix),
        _ => None,
    })?;
    let required: Vec<usize> = (0..parsed.len()).filter(|&at| !parsed[at].is_optional()).collect();
    let [first, last] = required[..] else { return None };
    let mut pattern = format!("^{HEAD}");
    for (index, element) in parsed.iter().enumerate() {
        pattern += &match element {
            // An element without a value is left out.
            Element::Other(text) if index < first => format!("(?:{text}, )?"),
            Element::Other(text) => format!("(?:, {text})?"),
            Element::User { pattern, .. } | Element::Address { pattern, .. } if index == last => {
                format!(", {pattern}")
            }
            Element::User { pattern, .. } | Element::Address { pattern, .. } => pattern.clone(),
        };
    }
    // The client may have written anything into the others, and into its name.
    let [one, other] = [first, last].map(|at| parsed[at].shape());
    let shape = format!("{HEAD}(?:{TEXT}, )?{one}, (?:{TEXT}, )?{other}(?:, {TEXT})?");
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\"));
    let example = format!("dovecot: {}", line(form, elements));
    let lines = vec![
        "[[login]]".to_owned(),
        format!("pattern = {}", quoted(&format!("{pattern}$"))),
        format!("once = [{}]", quoted(&format!(" {prefix}"))),
        "[[shape]]".to_owned(),
        "cause = \"client\"".to_owned(),
        format!("pattern = {}", quoted(&shape)),
        "[[example]]".to_owned(),
        format!("line = {}", quoted(&example)),
        "verdict = \"login\"".to_owned(),
        format!("address = \"{CLIENT}\""),
    ];
    let text = format!("{}\n{}\n", daemon.text, lines.join("\n"));
    let own = DaemonFile { origin: Some("dovecot.toml".into()), text }.compile().ok()?;
    let is_safe = examples::prove(&own).is_empty()
        && claims::prove(std::slice::from_ref(&own), |_, _| true).is_empty();
    (is_safe && is_login(&own, form, elements)).then_some(lines)
}

/// Returns the command that prints the description with these lines.
pub fn command(daemon: &MailDaemon, lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("'{line}'")).collect();
    let (name, lines) = (&daemon.name, lines.join(" "));
    format!("{{ pop-before-smtp daemons {name} && printf '%s\\n' {lines}; }}")
}

/// Returns whether a login that is logged in this form counts.
pub fn is_login(daemon: &MailDaemon, form: &str, elements: &str) -> bool {
    let table = DaemonTable::of(vec![daemon.clone()]);
    let mut engine = Engine::new(Rules { table, ..Rules::default() });
    let program = daemon.programs.first().map_or("dovecot", String::as_str);
    let frame = format!("{program}: {}", line(form, elements));
    let outcome = engine.process(Time::default(), Source::default(), frame.as_bytes());
    matches!(outcome, Outcome { verdict: Verdict::Login, address: Some(CLIENT), .. })
}

/// Returns the text of a login line, as login-common builds it: the elements are joined by commas,
/// and those without a value are left out.
pub fn line(form: &str, elements: &str) -> String {
    let elements: Vec<String> = elements.split_whitespace().map(expand).collect();
    let elements = elements.join(", ");
    let form = form.replace("%s", "%{elements}");
    let (before, after) = form.split_once("%{elements}").unwrap_or((&form, ""));
    format!("imap-login: {}{elements}{}", expand(before), expand(after))
}

/// Replaces variables: `%u`, `%{user}`, and with a modifier `%Lu`, `%{user|lower}`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let (name, tail) = variable(after).unwrap_or_default();
        let value = VALUES.iter().find(|(names, _)| names.contains(&name));
        out.push_str(before);
        out.push_str(value.map_or("x", |(_, value)| value));
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::maildaemons;

    const FORM: &str = "%$: %s";

    fn dovecot() -> MailDaemon {
        let (daemons, _) = maildaemons::all(&[]);
        daemons.into_iter().find(|daemon| &*daemon.name == "dovecot").expect("it is built in")
    }

    #[test]
    fn elements_get_a_description() {
        for elements in [
            "rip=%r user=<%u> country=%{passdb:country} %c",
            "user=<%u> method=%m country=%{passdb:cc} rip=%r lip=%l session=<%{session}>",
            "session=<%{session}> %c client=%{remote_ip} login=<%Lu>",
            "method=%m lip=%l rip=%r user=<%{user}>",
        ] {
            assert!(!is_login(&dovecot(), FORM, elements), "{elements}");
            let lines = description(&dovecot(), FORM, elements).expect(elements);
            let told = line(FORM, elements);
            assert!(lines.iter().any(|line| line.contains(&told)), "{lines:#?}");
            let command = command(&dovecot(), &lines);
            assert_eq!(command.lines().count(), 1);
        }
    }

    /// Where a client's text could be taken for another element, or the address is not logged.
    #[test]
    fn what_cannot_be_told_apart_gets_none() {
        for elements in [
            "%u %r",
            "user=%u rip=%r",
            "rip=%r",
            "%r user=<%u>",
            "rip=%r user=<%u> %{passdb:note}",
            "rip=%r user=<%u>%{session} x'y=%m",
        ] {
            assert_eq!(description(&dovecot(), FORM, elements), None, "{elements}");
        }
    }
}
