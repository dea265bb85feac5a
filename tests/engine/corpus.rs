//! The built-in mail daemons against the whole collection of their logs: lines from samples and
//! sources, and datagrams captured from running daemons and forwarders, attacks included
//! (`corpus/README.md`).
//!
//! - **Promise**: only real logins authorise, with the right address, and every login is found except
//!   those in the tables of refused ones, with the reason.

use std::collections::HashMap;
use std::net::IpAddr;

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons::{DaemonTable, MailDaemon, Selection};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Outcome, Verdict};
use pop_before_smtp::engine::{Engine, Rules};
use serde_json::Value;

use crate::support::base64;

const LINES: &str = include_str!("../corpus/lines.jsonl");
const FIELD: &str = include_str!("../corpus/field.jsonl");
const FRAMES: [(&str, &str); 2] = [
    ("frames", include_str!("../corpus/frames.jsonl")),
    ("frames2", include_str!("../corpus/frames2.jsonl")),
];

/// Genuine logins that are refused on purpose: file, text of the scenario or frame, number, reason.
const REFUSED: &[(&str, &str, usize, &str)] = &[
    ("frames", "user=mailutils", 5, "Cyrus: a blank in the name hides where it ends"),
    ("frames", "mx1 otherhost dovecot: ", 5, "a second host name where the program should be"),
    ("frames", " v 22 07:31:23 dovecot: ", 3, "rsyslog has mangled a frame without priority"),
    ("frames", "input embedded LF", 5, "a line feed in the message"),
    ("frames", ":23.123456+00:00 gin: ", 3, "rsyslog has mangled an ISO time stamp"),
    ("frames", "otherhost dovecot 99", 5, "an RFC 5424 frame inside a BSD frame"),
    ("frames", " 2001: db8::5 dovecot: ", 6, "rsyslog has split an IPv6 host name"),
    ("frames", "user=quote", 1, "nginx: a quote in the name"),
    ("frames", "user=nginx", 2, "nginx: quotes and the text of a login in the name"),
    ("frames", "user=tab", 2, "nginx: a control byte in the name"),
    ("frames", "user=esc", 1, "nginx: control bytes in the name"),
    ("frames", "user=cr", 2, "nginx: carriage return, line feed in the name"),
    ("frames", "user=nlonly", 1, "nginx: a line feed in the name"),
    ("frames2", " backend: ", 26, "Dovecot under a program name of the administrator's choice"),
    ("frames2", "user=host", 3, "UW: two addresses, one in the name"),
    ("frames2", "user=full", 3, "UW: the text of a login in the name"),
    ("frames2", "user=blank", 3, "UW: a blank in the name hides where it ends"),
    ("frames2", "user=vm", 2, "vm-pop3d: a quote in the name hides where it ends"),
    ("frames2", "user=quote", 3, "vm-pop3d, GNU pop3d: a quote in the name"),
    ("frames2", "user=tick", 2, "vm-pop3d: a quote in the name"),
    ("frames2", "virtual a'b", 2, "vm-pop3d: a quote in the name"),
];

/// Published lines of genuine logins that are refused, and why.
const REFUSED_FIELD: &[(&str, &str)] = &[
    ("dv-fbsd-vv", "FreeBSD's `syslogd -vv` writes facility and severity into its files only"),
    ("own-iso-raw", "no syslog header at all: the program cannot be told from the message"),
    ("own-1x-ossec", "the program name occurs twice"),
    ("ng-book", "no released nginx writes the connection pairs"),
    ("fw-aix", "the forwarding host is where the program should be"),
];

/// Daemons whose logins are joined by PID, in both captures.
const JOINED: [&str; 3] = ["popa3d", "gnu-pop3d", "vm-pop3d"];

fn daemons() -> Vec<MailDaemon> {
    let table =
        DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons are sound");
    table.daemons().to_vec()
}

fn engine(daemons: &[MailDaemon]) -> Engine {
    Engine::new(Rules { table: DaemonTable::of(daemons.to_vec()), ..Rules::default() })
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a row of JSON")).collect()
}

fn field<'r>(row: &'r Value, name: &str) -> &'r str {
    row[name].as_str().unwrap_or_default()
}

/// Returns the address of a complete login, as text; empty if there was none.
fn authorised(outcome: &Outcome) -> String {
    match (outcome.verdict, outcome.address) {
        (Verdict::Login, Some(address)) => address.to_string(),
        _ => String::new(),
    }
}

/// Groups the rows that belong together, in order: the lines of one login, or a single line.
fn groups(rows: &[Value]) -> Vec<&[Value]> {
    let same = |one: &Value, next: &Value| {
        !field(one, "group").is_empty() && field(one, "group") == field(next, "group")
    };
    rows.chunk_by(same).collect()
}

#[test]
fn lines_give_their_verdict() {
    let daemons = daemons();
    let mut found = 0;
    for group in groups(&rows(LINES)) {
        let mut engine = engine(&daemons);
        let mut logins = Vec::new();
        for row in group {
            let line = field(row, "line");
            let outcome = engine.process(Time::default(), Source::default(), line.as_bytes());
            let address = authorised(&outcome);
            if !address.is_empty() {
                assert!(
                    ["login", "partial"].contains(&field(row, "expect")),
                    "{line}: {outcome:?}"
                );
                logins.push((address, outcome.user.unwrap_or_default()));
            }
        }
        // The last line of a group has the expected result.
        let Some(last) = group.last() else { continue };
        let result = &last["group_result"];
        let truth = if result.is_object() { result } else { last };
        let expected = match field(truth, "expect") {
            "login" => vec![(field(truth, "ip").to_owned(), field(truth, "user").to_owned())],
            _ => Vec::new(),
        };
        let is_known = ["core", "extended"].contains(&field(last, "tier"));
        if is_known || !logins.is_empty() {
            assert_eq!(logins, expected, "{group:?}");
            found += logins.len();
        }
    }
    assert!(found > 130, "the corpus has more logins than {found}");
}

#[test]
fn frames_give_their_verdict() {
    let daemons = daemons();
    let mut missed = vec![0; REFUSED.len()];
    let mut found = 0;
    for (file, text) in FRAMES {
        let mut engine = engine(&daemons);
        let mut receivers: HashMap<(String, String), u16> = HashMap::new();
        let mut opened: HashMap<(u16, String), String> = HashMap::new();
        for row in &rows(text) {
            let pair = (field(row, "daemon").to_owned(), field(row, "transport").to_owned());
            let next = u16::try_from(receivers.len()).expect("a few transports");
            let receiver = *receivers.entry(pair).or_insert(next);
            let frame = base64::decode(field(row, "raw_b64"));
            let words = String::from_utf8_lossy(&frame).into_owned();
            let outcome =
                engine.process(Time::default(), Source { receiver, sender: None }, &frame);
            let address = authorised(&outcome);

            let (daemon, expect) = (field(row, "daemon"), field(row, "expect"));
            let process = words.split(": ").next().unwrap_or_default();
            let process = process.rsplit(' ').next().unwrap_or_default();
            let is_false = ["forged", "unusable", "anonymous"].iter().any(|key| row[*key] == true);
            let truth = match expect {
                _ if is_false => "",
                "login" => field(row, "ip"),
                // The first half has the address; the second half is the login.
                "partial" if JOINED.iter().any(|name| daemon.contains(name)) => {
                    let half = (receiver, process.to_owned());
                    if words.contains(" passed for ") || words.contains(" logged in") {
                        &opened.remove(&half).unwrap_or_default()
                    } else {
                        opened.insert(half, field(row, "ip").to_owned());
                        ""
                    }
                }
                _ => "",
            };
            let context = format!("{file}, {daemon}, {}: {words:?}", field(row, "scenario"));
            if address.is_empty() && !truth.is_empty() {
                let known = |(place, needle, _, _): &(&str, &str, usize, &str)| {
                    *place == file && (context.contains(needle) || words.contains(needle))
                };
                let index = REFUSED.iter().position(known);
                missed[index.unwrap_or_else(|| panic!("missed: {context}: {outcome:?}"))] += 1;
            } else {
                assert_eq!(address, truth, "{context}: {outcome:?}");
                found += usize::from(!truth.is_empty());
            }
        }
    }
    let counted: Vec<_> = REFUSED.iter().zip(&missed).map(|(r, n)| (r.0, r.1, *n)).collect();
    let stated: Vec<_> = REFUSED.iter().map(|r| (r.0, r.1, r.2)).collect();
    assert_eq!(counted, stated, "what is refused on purpose");
    assert!(found > 500, "the corpus has more logins than {found}");
}

#[test]
fn published_lines_give_their_verdict() {
    let mut refused = Vec::new();
    for row in &rows(FIELD) {
        let mut table = DaemonTable::of(daemons());
        for option in row["args"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some((daemon, "local0")) = option.split_once('=') {
                table.set_facilities(daemon, &[16]).expect("a daemon of the table");
            }
        }
        let mut engine = Engine::new(Rules { table, ..Rules::default() });
        let lines = row["lines"].as_array().cloned().unwrap_or_else(|| vec![row["line"].clone()]);
        let outcome: Vec<Outcome> = lines
            .iter()
            .map(|line| line.as_str().expect("a line"))
            .map(|line| engine.process(Time::default(), Source::default(), line.as_bytes()))
            .collect();
        let found = outcome.iter().find(|outcome| outcome.verdict.as_str() == field(row, "expect"));
        let Some(found) = found else {
            assert_eq!(field(row, "tier"), "optional", "{row}: {outcome:?}");
            refused.push(field(row, "variant").to_owned());
            continue;
        };
        let address = found.address.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(address, field(row, "ip"), "{row}: {found:?}");
        assert_eq!(found.user.as_deref().unwrap_or_default(), field(row, "user"), "{row}");
    }
    let stated: Vec<_> = REFUSED_FIELD.iter().map(|(variant, _)| *variant).collect();
    assert_eq!(refused, stated, "what is refused on purpose");
}

/// Facility and severity of a frame count only where they tell a login from foreign text.
#[test]
fn any_facility_and_severity_is_accepted_except_of_uw() {
    let daemons = daemons();
    for daemon in &daemons {
        for example in daemon.examples.iter().filter(|example| example.is_login()) {
            let mut engine = engine(std::slice::from_ref(daemon));
            for priority in 0..=191u8 {
                // Each from a host of its own: what one has sent does not affect the others.
                let sender = Some(IpAddr::from([203, 0, 113, priority]));
                let source = Source { receiver: 0, sender };
                let outcome = example.lines.iter().map(|line| {
                    let bare = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
                        Some((_, rest)) => rest,
                        None => line,
                    };
                    let frame = format!("<{priority}>{bare}");
                    engine.process(Time::default(), source, frame.as_bytes())
                });
                let outcome = outcome.last().expect("an example has lines");
                let is_accepted = &*daemon.name != "uw-imap" || priority & 7 == 6;
                let is_login = outcome.verdict == Verdict::Login;
                assert_eq!(is_login, is_accepted, "<{priority}> {:?}: {outcome:?}", example.lines);
            }
        }
    }
}
