//! Stories of logins that are told in several lines, and of lines that somebody else has written
//! (`support/story.rs`).

use pop_before_smtp::engine::verdict::Verdict::{Login, Logout, None, Partial};

use crate::support::story::{Story, story};

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
    let restarted = connected("a restart in between").restart(
        crate::support::story::rules(),
        pop_before_smtp::engine::state::Restored::default(),
    );
    login_by(restarted, Partial).rejects(&[A]);
}

/// Two containers with one host name, or with none, have processes of the same PID. Where two
/// connections of one may be open, nobody knows whose login it is.
#[test]
fn of_two_connections_of_one_process_none_counts() {
    let popa3d = |text: &str| format!("<30>Nov 22 07:31:23 mx1 popa3d[12]: {text}");
    let solid = |text: &str| format!("<133>Nov 22 07:31:23 mx1 spop3d[12]: {text}");
    let gnu = |text: &str| format!("<22>Nov 22 07:31:23 mx1 gnu-pop3d[12]: {text}");
    let user = "Session from 192.0.2.7";
    let stranger = "Session from 198.51.100.66";
    let passed = "Authentication passed for joe";
    let ended = "Didn't attempt authentication";
    let both = |name, first, second| {
        story(name).process(&popa3d(first), Partial).process(&popa3d(second), Partial)
    };
    for (name, first, second) in [("the stranger last", user, stranger), ("first", stranger, user)]
    {
        both(name, first, second)
            .process(&popa3d(passed), Partial)
            .process(&popa3d(passed), Partial)
            .rejects(&[A, STRANGER])
            .look(|engine| assert_eq!(engine.stats().ambiguous, 2))
            .process(&popa3d(ended), None)
            .process(&popa3d(passed), Partial)
            .at(600)
            .process(&popa3d(passed), Partial)
            .rejects(&[A, STRANGER])
            .at_ms(600_001)
            .process(&popa3d(user), Partial)
            .process(&popa3d(passed), Login)
            .admits(&[A])
            .rejects(&[STRANGER]);
    }
    both("the last connection is the one whose time matters", user, stranger)
        .at(500)
        .process(&popa3d(stranger), Partial)
        .at(1100)
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[A, STRANGER]);
    story("one of the two has logged in")
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .process(&popa3d(stranger), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[STRANGER]);
    story("the end of one that logged in long ago is not that of another")
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .at(700)
        .process(&popa3d("Session from 192.0.2.8"), Partial)
        .process(&popa3d("1 (2210) deleted, 2 (6600) left"), Logout)
        .process(&popa3d(stranger), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[STRANGER, "192.0.2.8"]);
    story("an end in between leaves one")
        .process(&popa3d(stranger), Partial)
        .process(&popa3d("Authentication failed for UNKNOWN USER"), None)
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .admits(&[A]);
    story("so does the end of a session")
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .process(&popa3d("1 (2210) deleted, 2 (6600) left"), Logout)
        .process(&popa3d("Session from 192.0.2.8"), Partial)
        .process(&popa3d(passed), Login)
        .admits(&[A, "192.0.2.8"]);

    let wrapped = solid("connect from 192.0.2.7 (192.0.2.7)").replace("<133>", "<30>");
    let named = solid("connect from client.example (192.0.2.7)");
    let login = solid("user joe authenticated");
    let twice = |name| {
        story(name).process(&wrapped, Partial).process(&named, Partial).process(&login, Login)
    };
    twice("a connection that TCP wrappers log too").admits(&[A]);
    twice("it may also have been two, of which one is open")
        .process(&solid("session ended for user joe"), Logout)
        .process(&solid("connect from 198.51.100.66"), Partial)
        .process(&login, Partial)
        .rejects(&[STRANGER]);

    let (opened, logged_in) = (gnu("Incoming connection opened"), gnu("User 'joe' logged in"));
    let from = |address: &str| gnu(&format!("connect from {address}"));
    story("TCP wrappers and both lines of the daemon")
        .process(&from(A), Partial)
        .process(&opened, None)
        .process(&logged_in, Partial)
        .process(&from(A), Partial)
        .process(&logged_in, Login);
    story("two are opened before either tells its address")
        .process(&opened, None)
        .process(&opened, None)
        .process(&from(STRANGER), Partial)
        .process(&logged_in, Partial)
        .rejects(&[STRANGER]);
    story("one is opened that does not tell its address")
        .process(&from(STRANGER), Partial)
        .process(&opened, None)
        .process(&logged_in, Partial)
        .rejects(&[STRANGER]);
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
    for length in [300, 499, 500, 504] {
        let logged_in = frame("mx1", &genuine(A));
        story("not cut").process(&piece(length), None).process(&logged_in, Login).admits(&[A]);
    }
    // One that is as long as a piece is told from it by nothing.
    for length in [505, 506, 511] {
        story("cut")
            .process(&piece(length), None)
            .process(&forged, None)
            .rejects(&[STRANGER])
            .process(&frame("mx1", &genuine(A)), Login)
            .admits(&[A]);
        story("cut twice")
            .process(&piece(length), None)
            .process(&piece(511), None)
            .process(&forged, None)
            .rejects(&[STRANGER]);
    }
    // With DEBUG_LOGIN: blanks at the beginning of a piece are lost, so it may be short.
    let command = "x".repeat(504 - "LOGIN: ip=[::ffff:198.51.100.66], command=".len());
    let command = format!("LOGIN: ip=[::ffff:198.51.100.66], command={command}");
    for second in ["x".to_owned(), genuine(STRANGER), piece(511)] {
        story("three pieces")
            .process(&frame("mx1", &command), None)
            .process(&frame("mx1", &second), None)
            .process(&forged, None)
            .rejects(&[STRANGER]);
    }
    story("another stream in between changes nothing")
        .process(&piece(505), None)
        .process(&frame("mx2", &genuine(A)), Login)
        .process("<22>Nov 22 07:31:24 mx1 postfix/smtpd[9]: connect from unknown", None)
        .process(&forged, None)
        .rejects(&[STRANGER]);
    // Some forwarders add a PID, always the same: courierlogger's.
    let with_pid = |frame: &str| frame.replace("pop3d:", "pop3d[812]:");
    story("cut, with a PID")
        .process(&with_pid(&piece(505)), None)
        .process(&frame("mx1", &genuine(A)), Login)
        .process(&with_pid(&forged), None)
        .rejects(&[STRANGER]);
    let mut flood = story("a flood of processes that log long lines");
    for pid in 0..=70_000 {
        flood = flood.process(&piece(505).replace("pop3d:", &format!("pop3d[{pid}]:")), None);
    }
    flood.process(&frame("mx1", &genuine(A)), Login).admits(&[A]);
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
        .process(&said("", 7, away), None)
        .process(&said("", 7, words), None)
        .rejects(&[STRANGER])
        .process(&said("", 8, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A])
        .at(24 * 3600 - 1)
        .process(&said("", 7, words), None)
        .at(24 * 3600 + 1)
        .process(&said("", 7, words), Login);
    story("the severity of a stranger's words gives them away")
        .process(&said("<22>", 7, away), None)
        .process(&said("<23>", 7, words), None)
        .process(&said("<21>", 7, words), None)
        .rejects(&[STRANGER])
        .process(&said("<22>", 7, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A]);
    story("a new connection does not restore it, for who says that there is one?")
        .process(&said("", 7, away), None)
        .process(&said("", 7, "pop3 service init from 192.0.2.7"), None)
        .process(&said("", 7, words), None);
    story("the severity that Solaris repeats speaks against a message, not for it")
        .process(&said("", 9, &format!("[ID 5 mail.debug] {words}")), None)
        .process(&said("", 9, &format!("[ID 5 mail.odd] {words}")), None)
        .process(&said("<23>", 9, &format!("[ID 5 mail.info] {words}")), None)
        .process(&said("", 9, away), None)
        .process(&said("", 9, &format!("[ID 5 mail.info] {words}")), None)
        .process(&said("", 8, "[ID 5 mail.info] Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login);
    story("without a PID the whole stream loses its credit")
        .process(&said("", 7, away).replace("[7]", ""), None)
        .process(&said("", 7, words).replace("[7]", ""), None)
        .rejects(&[STRANGER]);
}

/// A queue or a replay brings old logins, which prove nothing of today. Only a date with its year
/// and zone is judged, and only what gives trust is refused.
#[test]
fn a_frame_that_comes_late_authorises_nobody() {
    // Second 0 of the stories is 2026-11-18T11:06:40Z.
    let rfc5424 = |stamp: &str, text: &str| format!("<30>1 {stamp} mx1 popa3d 12 - - {text}");
    let iso = |stamp: &str, text: &str| format!("<30>{stamp} mx1 popa3d[12]: {text}");
    let one_line = format!("Authentication passed for joe -- [{A}]");
    for stamp in ["2024-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-11-18T13:36:39+03:00"] {
        for frame in [rfc5424(stamp, &one_line), iso(stamp, &one_line)] {
            let story = story("late").process(&frame, None).rejects(&[A]);
            story.look(|engine| assert_eq!(engine.stats().late, 1)).quiet();
        }
    }
    for stamp in ["2026-11-18T10:36:40Z", "2026-11-18T11:36:40.000+01:00", "2999-01-01T00:00:00Z"] {
        for frame in [rfc5424(stamp, &one_line), iso(stamp, &one_line)] {
            story("not late").process(&frame, Login).admits(&[A]);
        }
    }
    let year = format!("<30>Nov 18 2024 07:31:23 mx1 popa3d[12]: {one_line}");
    story("no zone").process(&rfc5424("-", &one_line), Login).process(&year, Login);

    let (early, now) = ("2026-11-18T09:06:40Z", "2026-11-18T11:06:40Z");
    let (connect, login) = ("Session from 192.0.2.7", "Authentication passed for joe");
    story("a late connect line gives no address")
        .process(&rfc5424(early, connect), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A]);
    story("and makes another one doubtful")
        .process(&rfc5424(now, connect), Partial)
        .process(&rfc5424(early, "Session from 198.51.100.66"), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A, STRANGER]);
    story("a late end counts")
        .process(&rfc5424(now, connect), Partial)
        .process(&rfc5424(early, "Didn't attempt authentication"), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A]);
}

/// What stands around a message is not its text.
#[test]
fn the_text_begins_and_ends_where_the_daemon_s_words_do() {
    let login = "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
                 rip=192.0.2.7, lip=192.0.2.1, mpid=7, session=<a>";
    let teapop = "<134>Nov 22 07:31:23 mx1 teapop[7]: Successful login for joe [192.0.2.1] from \
                  client.example [192.0.2.7]";
    for frame in [login, teapop] {
        for end in ["", "\n", "\0", "\r", "\r\n", "\r\0", "\n\0", "\r\n\0"] {
            story("an end").process(&format!("{frame}{end}"), Login).admits(&[A]);
        }
    }
    for end in ["\n\n", "\r\r", "\n\r", "\r ", "\0\0"] {
        story("no end").process(&format!("{teapop}{end}"), None);
    }

    let head = |head: &str| teapop.replace(": Succ", &format!(": {head}Succ"));
    story("Solaris").process(&head("[ID 583609 mail.info] "), Login).admits(&[A]);
    story("Solaris").process(&head(" [ID 1 local0.notice] "), Login).admits(&[A]);
    for odd in [
        "[ID 583609 mail.info]",
        "[ID 583609 mail.info]  ",
        "[ID  mail.info] ",
        "[ID x mail.info] ",
        "[ID 5 mail] ",
        "[ID 5 mail.info.x] ",
        "[ID 5 mail.info x] ",
        "[ID 5 Mail.info] ",
        "[ID 5 mail.info] [ID 5 mail.info] ",
        "x [ID 583609 mail.info] ",
    ] {
        story("no head of Solaris").process(&head(odd), None);
    }
}

/// nginx names its host, which a local syslog takes for the tag.
#[test]
fn nginx_behind_a_local_syslog_is_heard_in_both_forms() {
    let login = "2026/11/22 08:04:34 [info] 13#13: *5 client logged in, client: 192.0.2.7, server: \
                 0.0.0.0:110, login: \"joe\", upstream: 192.0.2.2:110";
    let rfc5424 = |host: &str, app: &str, text: &str| {
        format!("<190>1 2026-11-18T11:06:40+00:00 {host} {app} - - - {text}")
    };
    let nginx = format!("nginx: {login}");
    story("RFC 3164").process(&format!("<190>Nov 22 07:31:23 mx1 mx1 {nginx}"), Login).admits(&[A]);
    story("RFC 5424").process(&rfc5424("mx1", "mx1", &nginx), Login).admits(&[A]);
    story("with a blank").process(&rfc5424("mx1", "mx1", &format!(" {nginx}")), Login);
    for frame in [
        rfc5424("mx1", "mx2", &nginx),
        rfc5424("mx1", "mx1", login),
        rfc5424("mx1", "mx1", &format!("nginx {login}")),
        rfc5424("mx1", "mx1", &format!("x {nginx}")),
        rfc5424("mx1", "mx1 7", &nginx).replace(" - - -", " - -"),
        // A mail daemon on a host of its name: what it writes is its own.
        rfc5424("pop3d", "pop3d", &nginx),
    ] {
        story("not nginx").process(&frame, None);
    }
}
