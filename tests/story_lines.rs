//! Stories of logins that are told in several lines, and of lines that somebody else has written
//! (`support/story.rs`).

mod support;

use pop_before_smtp::engine::heard::Verdict::{Login, Logout, None, Partial};
use support::story::{Story, story};

const A: &str = "192.0.2.7";
const STRANGER: &str = "198.51.100.66";

fn vm_pop3d(host: &str, pid: u32, text: &str) -> String {
    format!("<22>Nov 22 07:31:23 {host} vm-pop3d[{pid}]: {text}")
}

const CONNECT: &str = "Connect from 192.0.2.7";
const LOGIN: &str = "User 'joe' logged in";

#[test]
fn two_lines_are_joined_by_their_process() {
    let connected = |name| {
        story(name).hear_from("203.0.113.1", &vm_pop3d("mx1", 7, CONNECT), Partial).rejects(&[A])
    };
    let login = vm_pop3d("mx1", 7, LOGIN);
    let login_by = |story: Story, verdict| story.hear_from("203.0.113.1", &login, verdict);

    let done = login_by(connected("the same process"), Login).admits(&[A]);
    login_by(done, Partial).look(|engine| assert_eq!(engine.stats().logins, 1, "it counts once"));
    login_by(connected("the last moment of its patience").at(600), Login).admits(&[A]);
    login_by(connected("too late").at_ms(600_001), Partial).rejects(&[A]);

    for (name, sender, frame) in [
        ("another PID", "203.0.113.1", vm_pop3d("mx1", 8, LOGIN)),
        ("another host", "203.0.113.1", vm_pop3d("mx2", 7, LOGIN)),
        ("another sender", "203.0.113.2", vm_pop3d("mx1", 7, LOGIN)),
        ("no PID", "203.0.113.1", login.replace("[7]", "")),
    ] {
        let story = connected(name).hear_from(sender, &frame, Partial).rejects(&[A]).quiet();
        login_by(story, Login).admits(&[A]);
    }
    for (name, text, verdict) in [
        ("its end", "Session ended for no user", None),
        ("its socket's end", "Socket closed", None),
        ("a log-out", "Session ended for user: joe", Logout),
        ("a new connection without an address", "Connection opened", None),
    ] {
        let story = connected(name).hear_from("203.0.113.1", &vm_pop3d("mx1", 7, text), verdict);
        login_by(story, Partial).rejects(&[A]);
    }
    let newer = vm_pop3d("mx1", 7, "Connect from 198.51.100.66");
    let story = connected("the newest connection").hear_from("203.0.113.1", &newer, Partial);
    login_by(story, Login).admits(&[STRANGER]).rejects(&[A]);

    let restarted = connected("a restart in between")
        .restart(support::story::rules(), pop_before_smtp::engine::state::Restored::default());
    login_by(restarted, Partial).rejects(&[A]);
}

/// courierlogger writes a long line as several messages: a stranger's name fills the first one,
/// and what it says next begins the second.
#[test]
fn the_tail_of_a_cut_line_is_no_login() {
    let frame = |host: &str, text: &str| format!("<22>Nov 22 07:31:23 {host} pop3d: {text}");
    let genuine = |address: &str| format!("LOGIN, user=joe, ip=[::ffff:{address}], port=[4711]");
    let forged = frame("mx1", &genuine(STRANGER));
    // With the line feed that courierlogger puts before it, a body has one byte more.
    let piece = |length: usize| {
        let name = "x".repeat(length - "LOGIN FAILED, user=".len());
        frame("mx1", &format!("LOGIN FAILED, user={name}"))
    };
    for length in [505, 511] {
        story("cut")
            .hear(&piece(length), None)
            .hear(&forged, None)
            .rejects(&[STRANGER])
            .hear(&frame("mx1", &genuine(A)), Login)
            .admits(&[A]);
        story("cut twice")
            .hear(&piece(length), None)
            .hear(&piece(511), None)
            .hear(&forged, None)
            .rejects(&[STRANGER]);
    }
    story("another stream in between changes nothing")
        .hear(&piece(505), None)
        .hear(&frame("mx2", &genuine(A)), Login)
        .hear("<22>Nov 22 07:31:24 mx1 postfix/smtpd[9]: connect from unknown", None)
        .hear(&forged, None)
        .rejects(&[STRANGER]);
    story("a short line has no tail").hear(&piece(300), None).hear(&forged, Login);
}

/// An ipop3d of Washington that talks to a foreign IMAP server logs that server's words as its own.
#[test]
fn distrust_counts_where_no_severity_is_told() {
    let said = |priority: &str, pid: u32, text: &str| {
        format!("{priority}Nov 22 07:31:23 mx1 ipop3d[{pid}]: {text}")
    };
    let away = "IMAP login to host=evil.example user=joe host=[198.51.100.66]";
    let words = "Login user=joe host=[198.51.100.66] nmsgs=0/0";
    story("no severity")
        .hear(&said("", 7, away), None)
        .hear(&said("", 7, words), None)
        .rejects(&[STRANGER])
        .hear(&said("", 8, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A])
        .at(24 * 3600 - 1)
        .hear(&said("", 7, words), None)
        .at(24 * 3600 + 1)
        .hear(&said("", 7, words), Login);
    story("the severity of a stranger's words gives them away")
        .hear(&said("<22>", 7, away), None)
        .hear(&said("<23>", 7, words), None)
        .hear(&said("<21>", 7, words), None)
        .rejects(&[STRANGER])
        .hear(&said("<22>", 7, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A]);
    story("without a PID the whole stream loses its credit")
        .hear(&said("", 7, away).replace("[7]", ""), None)
        .hear(&said("", 7, words).replace("[7]", ""), None)
        .rejects(&[STRANGER]);
}
