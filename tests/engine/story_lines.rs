//! Stories of logins that are logged in several lines, and of lines with foreign text
//! (`support/story.rs`).

use pop_before_smtp::engine::verdict::Verdict::{Login, Logout, None, Partial};

use crate::support::story::{Story, story};

const A: &str = "192.0.2.7";
const B: &str = "192.0.2.8";
const OTHER: &str = "198.51.100.66";

fn vm_pop3d(host: &str, pid: u32, text: &str) -> String {
    format!("<22>Nov 22 07:31:23 {host} vm-pop3d[{pid}]: {text}")
}

const CONNECT: &str = "Connect from 192.0.2.7";
const LOGIN: &str = "User 'joe' logged in";

#[test]
fn two_lines_are_joined_by_their_process() {
    let connected = |name| {
        story(name).process_from("203.0.113.1", &vm_pop3d("mx1", 7, CONNECT), Partial).rejects(&[A])
    };
    let login = vm_pop3d("mx1", 7, LOGIN);
    let login_by = |story: Story, verdict| story.process_from("203.0.113.1", &login, verdict);

    let done = login_by(connected("the same process"), Login).admits(&[A]);
    login_by(done, Partial)
        .inspect(|engine| assert_eq!(engine.stats().logins, 1, "it counts once"));
    login_by(connected("at the last moment").at(600), Login).admits(&[A]);
    login_by(connected("too late").at_ms(600_001), Partial).rejects(&[A]);

    for (name, sender, frame) in [
        ("another PID", "203.0.113.1", vm_pop3d("mx1", 8, LOGIN)),
        ("another host", "203.0.113.1", vm_pop3d("mx2", 7, LOGIN)),
        ("another sender", "203.0.113.2", vm_pop3d("mx1", 7, LOGIN)),
        ("no PID", "203.0.113.1", login.replace("[7]", "")),
    ] {
        let story = connected(name).process_from(sender, &frame, Partial).rejects(&[A]).quiet();
        login_by(story, Login).admits(&[A]);
    }
    for (name, text, verdict) in [
        ("its end", "Session ended for no user", None),
        ("its socket's end", "Socket closed", None),
        ("a log-out", "Session ended for user: joe", Logout),
        ("a new connection without an address", "Connection opened", None),
    ] {
        let story = connected(name).process_from("203.0.113.1", &vm_pop3d("mx1", 7, text), verdict);
        login_by(story, Partial).rejects(&[A]);
    }
    let restarted = connected("a restart in between").restart(
        crate::support::story::rules(),
        pop_before_smtp::engine::state::Restored::default(),
    );
    login_by(restarted, Partial).rejects(&[A]);
}

/// Two containers with one host name, or with none, have processes with the same PID. If two
/// connections of one may be open, a login cannot be joined.
#[test]
fn logins_of_two_connections_of_one_pid_do_not_count() {
    let popa3d = |text: &str| format!("<30>Nov 22 07:31:23 mx1 popa3d[12]: {text}");
    let solid = |text: &str| format!("<133>Nov 22 07:31:23 mx1 spop3d[12]: {text}");
    let gnu = |text: &str| format!("<22>Nov 22 07:31:23 mx1 gnu-pop3d[12]: {text}");
    let user = "Session from 192.0.2.7";
    let other = "Session from 198.51.100.66";
    let passed = "Authentication passed for joe";
    let ended = "Didn't attempt authentication";
    let both = |name, first, second| {
        story(name).process(&popa3d(first), Partial).process(&popa3d(second), Partial)
    };
    for (name, first, second) in [("the user first", user, other), ("last", other, user)] {
        both(name, first, second)
            .process(&popa3d(passed), Partial)
            .process(&popa3d(passed), Partial)
            .rejects(&[A, OTHER])
            .inspect(|engine| assert_eq!(engine.stats().ambiguous, 2))
            .process(&popa3d(ended), None)
            .process(&popa3d(passed), Partial)
            .at(600)
            .process(&popa3d(passed), Partial)
            .rejects(&[A, OTHER])
            .at_ms(600_001)
            .process(&popa3d(user), Partial)
            .process(&popa3d(passed), Login)
            .admits(&[A])
            .rejects(&[OTHER]);
    }
    both("ambiguity lasts from the last connection", user, other)
        .at(500)
        .process(&popa3d(other), Partial)
        .at(1100)
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[A, OTHER]);
    story("one of the two has logged in")
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .process(&popa3d(other), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[OTHER]);
    story("the end of one that logged in long ago is not that of another")
        .process(&popa3d(user), Partial)
        .process(&popa3d(passed), Login)
        .at(700)
        .process(&popa3d("Session from 192.0.2.8"), Partial)
        .process(&popa3d("1 (2210) deleted, 2 (6600) left"), Logout)
        .process(&popa3d(other), Partial)
        .process(&popa3d(passed), Partial)
        .rejects(&[OTHER, "192.0.2.8"]);
    story("an end in between leaves one")
        .process(&popa3d(other), Partial)
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
    twice("it may have been two, of which one is open")
        .process(&solid("session ended for user joe"), Logout)
        .process(&solid("connect from 198.51.100.66"), Partial)
        .process(&login, Partial)
        .rejects(&[OTHER]);

    let (opened, logged_in) = (gnu("Incoming connection opened"), gnu("User 'joe' logged in"));
    let from = |address: &str| gnu(&format!("connect from {address}"));
    story("TCP wrappers and both lines of the daemon")
        .process(&from(A), Partial)
        .process(&opened, None)
        .process(&logged_in, Partial)
        .process(&from(A), Partial)
        .process(&logged_in, Login);
    story("two are opened before either address is logged")
        .process(&opened, None)
        .process(&opened, None)
        .process(&from(OTHER), Partial)
        .process(&logged_in, Partial)
        .rejects(&[OTHER]);
    story("one is opened whose address is not logged")
        .process(&from(OTHER), Partial)
        .process(&opened, None)
        .process(&logged_in, Partial)
        .rejects(&[OTHER]);
}

/// Dovecot splits a long line, too, begins each part with the name of the process, and other messages may
/// come between the parts.
#[test]
fn soon_after_a_long_line_of_dovecot_no_login_counts() {
    let frame = |text: &str| format!("<22>Nov 22 07:31:23 mx1 dovecot: {text}");
    let login = |address: &str| {
        let login = "imap-login: Login: user=<joe>, method=PLAIN, ";
        frame(&format!("{login}rip={address}, lip=192.0.2.1, mpid=7, session=<a>"))
    };
    let long =
        |head: &str, length: usize| frame(&format!("{head}{}", "x".repeat(length - head.len())));
    let other =
        frame("pop3-login: Disconnected: user=<>, rip=192.0.2.9, lip=192.0.2.1, session=<b>");
    story("an ordinary line")
        .process(&long("imap-login: ID sent: name=", 799), None)
        .process(&login(A), Login)
        .admits(&[A]);
    let heads = ["imap-login: ID sent: name=", "Info: imap-login: ID sent: ", "imap-login: proxy("];
    for head in heads {
        story("a line that is split")
            .process(&long(head, 4090), None)
            .process(&other, None)
            .process(&login(OTHER), None)
            .at(59)
            .process(&login(OTHER), None)
            .rejects(&[OTHER])
            .at(60)
            .process(&login(A), Login)
            .admits(&[A]);
    }
    story("a long line of another process, or host")
        .process(&long("lmtp(joe): msgid=<", 4090), None)
        .process(&login(A), Login)
        .process(&long("imap-login: ID sent: ", 4090).replace("mx1", "mx2"), None)
        .process(&login(B), Login)
        .admits(&[A, B]);
}

/// courierlogger splits a long line into several messages: the user name of a failed login fills the
/// first one, and its rest begins the second.
#[test]
fn the_continuation_of_a_split_line_is_not_a_login() {
    let frame = |host: &str, text: &str| format!("<22>Nov 22 07:31:23 {host} pop3d: {text}");
    let genuine = |address: &str| format!("LOGIN, user=joe, ip=[::ffff:{address}], port=[4711]");
    let forged = frame("mx1", &genuine(OTHER));
    // With the line feed that courierlogger puts before it, a body has one byte more.
    let fragment = |length: usize| {
        let name = "x".repeat(length - "LOGIN FAILED, user=".len());
        frame("mx1", &format!("LOGIN FAILED, user={name}"))
    };
    for length in [300, 499, 500, 504] {
        let logged_in = frame("mx1", &genuine(A));
        story("not split").process(&fragment(length), None).process(&logged_in, Login).admits(&[A]);
    }
    // From 505 bytes on, a line cannot be told from a fragment.
    for length in [505, 506, 511] {
        story("split")
            .process(&fragment(length), None)
            .process(&forged, None)
            .rejects(&[OTHER])
            .process(&frame("mx1", &genuine(A)), Login)
            .admits(&[A]);
        story("split twice")
            .process(&fragment(length), None)
            .process(&fragment(511), None)
            .process(&forged, None)
            .rejects(&[OTHER]);
    }
    // With DEBUG_LOGIN: leading blanks of a fragment are lost, so it may be short.
    let command = "x".repeat(504 - "LOGIN: ip=[::ffff:198.51.100.66], command=".len());
    let command = format!("LOGIN: ip=[::ffff:198.51.100.66], command={command}");
    for second in ["x".to_owned(), genuine(OTHER), fragment(511)] {
        story("three fragments")
            .process(&frame("mx1", &command), None)
            .process(&frame("mx1", &second), None)
            .process(&forged, None)
            .rejects(&[OTHER]);
    }
    story("another stream in between changes nothing")
        .process(&fragment(505), None)
        .process(&frame("mx2", &genuine(A)), Login)
        .process("<22>Nov 22 07:31:24 mx1 postfix/smtpd[9]: connect from unknown", None)
        .process(&forged, None)
        .rejects(&[OTHER]);
    // Some forwarders add a PID, always the same: courierlogger's.
    let with_pid = |frame: &str| frame.replace("pop3d:", "pop3d[812]:");
    story("split, with a PID")
        .process(&with_pid(&fragment(505)), None)
        .process(&frame("mx1", &genuine(A)), Login)
        .process(&with_pid(&forged), None)
        .rejects(&[OTHER]);
    let mut flood = story("a flood of processes that log long lines");
    for pid in 0..=70_000 {
        flood = flood.process(&fragment(505).replace("pop3d:", &format!("pop3d[{pid}]:")), None);
    }
    flood.process(&frame("mx1", &genuine(A)), Login).admits(&[A]);
}

/// UW's ipop3d, connected to a foreign IMAP server, logs that server's text as its own.
#[test]
fn distrust_counts_in_frames_without_a_severity() {
    let frame = |priority: &str, pid: u32, text: &str| {
        format!("{priority}Nov 22 07:31:23 mx1 ipop3d[{pid}]: {text}")
    };
    let away = "IMAP login to host=evil.example user=joe host=[198.51.100.66]";
    let forged = "Login user=joe host=[198.51.100.66] nmsgs=0/0";
    story("no severity")
        .process(&frame("", 7, away), None)
        .process(&frame("", 7, forged), None)
        .rejects(&[OTHER])
        .process(&frame("", 8, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A])
        .at(24 * 3600 - 1)
        .process(&frame("", 7, forged), None)
        .at(24 * 3600 + 1)
        .process(&frame("", 7, forged), Login);
    story("the severity reveals foreign text")
        .process(&frame("<22>", 7, away), None)
        .process(&frame("<23>", 7, forged), None)
        .process(&frame("<21>", 7, forged), None)
        .rejects(&[OTHER])
        .process(&frame("<22>", 7, "Login user=joe host=[192.0.2.7] nmsgs=0/0"), Login)
        .admits(&[A]);
    story("a new connection does not restore the trust: it may be forged")
        .process(&frame("", 7, away), None)
        .process(&frame("", 7, "pop3 service init from 192.0.2.7"), None)
        .process(&frame("", 7, forged), None);
    story("the severity that Solaris repeats refuses a message, but does not confirm it")
        .process(&frame("", 9, &format!("[ID 5 mail.debug] {forged}")), None)
        .process(&frame("", 9, &format!("[ID 5 mail.odd] {forged}")), None)
        .process(&frame("<23>", 9, &format!("[ID 5 mail.info] {forged}")), None)
        .process(&frame("", 9, away), None)
        .process(&frame("", 9, &format!("[ID 5 mail.info] {forged}")), None)
        .process(
            &frame("", 8, "[ID 5 mail.info] Login user=joe host=[192.0.2.7] nmsgs=0/0"),
            Login,
        );
    story("without a PID the whole stream is distrusted")
        .process(&frame("", 7, away).replace("[7]", ""), None)
        .process(&frame("", 7, forged).replace("[7]", ""), None)
        .rejects(&[OTHER]);
}

/// A queue or a replay delivers old logins, which prove nothing now. Only a date with year and zone
/// is checked, and only what authorises is refused.
#[test]
fn a_late_frame_does_not_authorise() {
    // Second 0 of the stories is 2026-11-18T11:06:40Z.
    let rfc5424 = |stamp: &str, text: &str| format!("<30>1 {stamp} mx1 popa3d 12 - - {text}");
    let iso = |stamp: &str, text: &str| format!("<30>{stamp} mx1 popa3d[12]: {text}");
    let one_line = format!("Authentication passed for joe -- [{A}]");
    for stamp in ["2024-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-11-18T13:36:39+03:00"] {
        for frame in [rfc5424(stamp, &one_line), iso(stamp, &one_line)] {
            let story = story("late").process(&frame, None).rejects(&[A]);
            story.inspect(|engine| assert_eq!(engine.stats().late, 1)).quiet();
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
    story("the address of a late connect line is not used")
        .process(&rfc5424(early, connect), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A]);
    story("but it makes the process ambiguous")
        .process(&rfc5424(now, connect), Partial)
        .process(&rfc5424(early, "Session from 198.51.100.66"), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A, OTHER]);
    story("a late end counts")
        .process(&rfc5424(now, connect), Partial)
        .process(&rfc5424(early, "Didn't attempt authentication"), None)
        .process(&rfc5424(now, login), Partial)
        .rejects(&[A]);
}

/// What is around a message is not its text.
#[test]
fn the_text_is_exactly_what_the_daemon_wrote() {
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
        story("not a message ID of Solaris").process(&head(odd), None);
    }
}

/// nginx writes its host name, which a local syslog server takes for the tag.
#[test]
fn nginx_through_a_local_syslog_server_is_recognised_in_both_formats() {
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
        // A known mail daemon on a host with the same name.
        rfc5424("pop3d", "pop3d", &nginx),
    ] {
        story("not nginx").process(&frame, None);
    }
}
