//! The shapes of the built-in mail daemons against what running daemons have logged: a shape that
//! is narrower than the daemon's messages proves less than it claims.
//!
//! - **Promise**: every captured message of a known program matches a shape of its daemon, or
//!   contains nothing chosen by a client; and the message of a login matches one with the client.

use std::collections::HashMap;

use pop_before_smtp::engine::maildaemons::{Cause, DaemonTable, Selection, Shape};
use pop_before_smtp::engine::message::syslog::Frame;
use regex::Regex;
use serde_json::Value;

use crate::support::base64;

const CAPTURES: [(&str, &str); 2] = [
    ("frames", include_str!("../corpus/frames.jsonl")),
    ("frames2", include_str!("../corpus/frames2.jsonl")),
];

/// Messages without any text of a client: fixed text, numbers, and addresses.
const FIXED: &[&str] = &[
    // Courier. Without a user nobody has logged in.
    r"(?:Connection|LOGOUT|Disconnected), ip=\[[0-9a-f:.]+\], port=\[[0-9]+\](?:, [a-z]+=[0-9]+)*",
    "malloc: Success",
    // Cyrus.
    "counts: retr=<[0-9]+> top=<[0-9]+> dele=<[0-9]+>",
    "DBERROR: read failed, assuming the worst: filename=<[a-z/]+> syserror=<[A-Za-z ]+> func=<myinit>",
    "graceful shutdown",
    "inittls: Loading hard-coded DH parameters",
    "TLS server engine: No client CA certs specified. Client side certs may not work",
    "Connection reset by peer, closing connection",
    // Dovecot's master.
    "master: Warning: [A-Za-z0-9 ()=-]+",
    // GNU pop3d and Mailutils, vm-pop3d.
    "Incoming connection opened|Session ended for no user|No socket to send to",
    r"process [0-9]+ finished with code [0-9]+ \([A-Za-z/ ]+\)",
    "Read failed: Connection reset by peer|I/O error|Unexpected eof on input|remote protocol error",
    r"pop3d \(GNU Mailutils [0-9.]+\) terminated",
    "Socket closed(?: from [0-9a-f:.]+)?|Quitting on signal: [0-9]+|Quitting Too many bad command",
    // nginx itself.
    r"[0-9/]+ [0-9:]+ \[notice\] [0-9]+#[0-9]+: (?:signal|worker process|exit)[A-Za-z0-9 (),]*",
    // Perdition, popa3d, solid-pop3d.
    "Exiting on signal [0-9]+",
    "Didn't attempt authentication|Premature disconnect",
    r"[0-9]+ messages? \([0-9]+ bytes?\) loaded|[0-9]+ \([0-9]+\) deleted, [0-9]+ \([0-9]+\) left",
    "session ended - [0-9a-f:.]+|read: Connection reset by peer",
    // UW.
    "(?:imap|imaps SSL|pop3|pop3s SSL) service init from [0-9a-f:.]+",
    r"(?:Missing|Null) command before authentication host=\[[0-9a-f:.]+\]",
    r"Unable to accept SSL connection, host=\[[0-9a-f:.]+\]",
    "SSL error status: error:[0-9A-F]+:SSL routines::no shared cipher",
];

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("an expression")
}

/// Returns the shapes of each program.
fn shapes() -> HashMap<String, Vec<(Shape, Regex)>> {
    let table =
        DaemonTable::load(&[], &Selection::Verified).expect("the built-in daemons are sound");
    let mut shapes: HashMap<String, Vec<(Shape, Regex)>> = HashMap::new();
    for daemon in table.daemons() {
        for shape in &daemon.shapes {
            let own = if shape.programs.is_empty() { &daemon.programs } else { &shape.programs };
            for program in own {
                let entry = (shape.clone(), whole(&shape.pattern));
                shapes.entry(program.clone()).or_default().push(entry);
            }
        }
    }
    shapes
}

#[test]
fn captured_messages_match_the_shapes() {
    let shapes = shapes();
    let fixed: Vec<Regex> = FIXED.iter().map(|text| whole(text)).collect();
    let mut used = vec![0; fixed.len()];
    let (mut matched, mut logins) = (0, 0);
    for (file, text) in CAPTURES {
        let mut after_a_fragment = false;
        for row in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
            let word = |name: &str| row[name].as_str().unwrap_or_default();
            // Not as written by the daemon: changed by a forwarder, or made manually.
            if word("daemon").contains("<-") || row["synthetic"] == true {
                continue;
            }
            let bytes = base64::decode(word("raw_b64"));
            let frame = Frame::new(&bytes);
            let Ok(message) = frame.message() else { continue };
            let Some(shapes) = shapes.get(message.program) else { continue };
            let text = message.text();
            // courierlogger has split the line before this one, and this is its continuation.
            let is_continuation = word("daemon").starts_with("courier") && after_a_fragment;
            after_a_fragment = text.len() >= 505;
            let mut fits = shapes.iter().filter(|(_, whole)| whole.is_match(text)).peekable();
            let is_login = word("expect") == "login"
                && !["forged", "unusable", "anonymous"].iter().any(|key| row[*key] == true);
            if is_login {
                let knows_client = |(shape, whole): &(Shape, Regex)| {
                    let client = whole.captures(text).and_then(|found| found.name("client"));
                    let client = client.and_then(|client| client.as_str().parse().ok());
                    let client = client.map(|client: std::net::IpAddr| client.to_canonical());
                    shape.cause == Cause::Client
                        && client.is_none_or(|client| client.to_string() == word("ip"))
                };
                assert!(fits.any(knows_client), "{file}: no shape of this login: {text:?}");
                logins += 1;
            } else if fits.peek().is_some() {
                matched += 1;
            } else if let Some(index) = fixed.iter().position(|it| it.is_match(text)) {
                used[index] += 1;
            } else {
                assert!(is_continuation, "{file}: no shape of {} has {text:?}", message.program);
            }
        }
    }
    let unused: Vec<_> = FIXED.iter().zip(used).filter(|(_, times)| *times == 0).collect();
    assert!(unused.is_empty(), "never seen: {unused:?}");
    assert!(matched > 3000 && logins > 300, "{matched} messages, {logins} logins");
}
