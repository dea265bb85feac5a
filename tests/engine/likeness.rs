//! What looks like a login that authorises nobody, against the whole corpus: logins in a format that
//! no pattern knows do, and nothing else does.

use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons::{DaemonTable, MailDaemon, Selection};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::verdict::{Outcome, Reason, Verdict};
use pop_before_smtp::engine::{Engine, Rules};
use serde_json::Value;

use crate::support::base64;

const LINES: [&str; 2] =
    [include_str!("../corpus/lines.jsonl"), include_str!("../corpus/field.jsonl")];
const FRAMES: [&str; 2] =
    [include_str!("../corpus/frames.jsonl"), include_str!("../corpus/frames2.jsonl")];

/// Mail daemons whose logins have no words: only numbers and names.
const WORDLESS: [&str; 1] = ["cucipop"];

/// How the daemons begin their messages about logins, before any text of a client.
const OWN_WORDS: [&str; 10] = [
    "LOGIN, user=",
    "login: [",
    "event=login.good",
    "imap-login: Login: user=",
    "pop3-login: Login: user=",
    "imap-login: Logged in: user=",
    "Login user=",
    "Auth user=",
    "APOP user=",
    "Auth: ",
];

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a row of JSON")).collect()
}

fn daemons() -> Vec<MailDaemon> {
    let (daemons, faults) = pop_before_smtp::engine::maildaemons::all(&[]);
    assert!(faults.is_empty(), "{faults:?}");
    daemons
}

fn outcome(daemons: &[MailDaemon], frames: &[&[u8]]) -> Outcome {
    let table = DaemonTable::of(daemons.to_vec());
    let mut engine = Engine::new(Rules { table, ..Rules::default() });
    let outcomes = frames.iter().map(|f| engine.process(Time::default(), Source::default(), f));
    outcomes.last().expect("a frame")
}

/// Failed logins, attacks, and everything else that the daemons log.
#[test]
fn noise_does_not_look_like_a_login() {
    let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
    let mut engine = Engine::new(Rules { table, ..Rules::default() });
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut check = |frame: &[u8]| {
        seen += 1;
        if engine.process(Time::default(), Source::default(), frame).is_lost_login {
            wrong.push(String::from_utf8_lossy(frame).into_owned());
        }
    };
    for row in LINES.iter().flat_map(|text| rows(text)) {
        if row["expect"] == "none" {
            let one = [row["line"].clone()];
            let lines = row["lines"].as_array().map_or(&one[..], |lines| lines);
            lines.iter().filter_map(Value::as_str).for_each(|line| check(line.as_bytes()));
        }
    }
    for row in FRAMES.iter().flat_map(|text| rows(text)) {
        if row["expect"] == "none" || row["forged"] == true {
            check(&base64::decode(row["raw_b64"].as_str().unwrap_or_default()));
        }
    }
    assert!(seen > 1000, "{seen}");
    // Written by the daemon itself after a login, and refused for its address or its user.
    wrong.retain(|frame| {
        let text = frame.split_once(": ").map_or("", |(_, text)| text);
        !OWN_WORDS.iter().any(|word| text.starts_with(word))
    });
    assert!(wrong.is_empty(), "{} of {seen}: {wrong:#?}", wrong.len());
}

/// Every example of a login, with a word at its end and with one before its address.
#[test]
fn logins_in_another_format_look_like_one() {
    let daemons = daemons();
    let (mut seen, mut missed) = (0, Vec::new());
    for daemon in daemons.iter().filter(|daemon| !WORDLESS.contains(&&*daemon.name)) {
        for example in daemon.examples.iter().filter(|example| example.is_login()) {
            let Some((last, earlier)) = example.lines.split_last() else { continue };
            let address = example.address.as_deref().unwrap_or_default();
            let altered =
                [format!("{last}, tls=1.4"), last.replace(address, &format!("client={address}"))];
            for line in altered {
                let frames: Vec<&[u8]> =
                    earlier.iter().chain([&line]).map(|line| line.as_bytes()).collect();
                let found = outcome(std::slice::from_ref(daemon), &frames);
                let is_known = found.verdict == Verdict::Login
                    || matches!(found.reason, Reason::Malformed(_) | Reason::UnknownProgram(_));
                seen += usize::from(!is_known);
                if !is_known && !found.is_lost_login {
                    missed.push(format!("{}: {line}: {found:?}", daemon.name));
                }
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(missed.is_empty(), "{} of {seen}: {missed:#?}", missed.len());
}
