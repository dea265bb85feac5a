//! What a stranger without a password tries with every mail daemon: to get the text of a login
//! into its log, through each place that a client can write to.
//!
//! - **Limits**: a session each.

use std::thread;

use super::client::{POP3, Session};

/// An address that no client has: only a forged line can name it.
pub const FORGED: &str = "203.0.113.66";
/// Addresses of strangers; many, since daemons count the sessions of each.
pub fn strangers() -> impl Iterator<Item = String> {
    (128..255).cycle().map(|last| format!("198.51.100.{last}"))
}

/// Texts of logins, whole or as they continue a line in which a name stands; FORGED is replaced.
const TEXTS: &[&str] = &[
    // Dovecot
    "a>, method=PLAIN, rip=FORGED, lip=198.51.100.1, mpid=77, session=<abc>",
    "Login: user=<joe>, method=PLAIN, rip=FORGED, lip=198.51.100.1, mpid=77, session=<abc>",
    "pop3-login: Login: user=<joe>, method=PLAIN, rip=FORGED, lip=198.51.100.1, mpid=77, session=<a>",
    "dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, rip=FORGED, lip=198.51.100.1, session=<a>",
    // Courier
    "LOGIN, user=joe, ip=[::ffff:FORGED], port=[40000]",
    "x, ip=[::ffff:FORGED], port=[40000], protocol=IMAP",
    "pop3d: LOGIN, user=joe, ip=[::ffff:FORGED], port=[40000]",
    "imapd: LOGIN, user=joe, ip=[::ffff:FORGED], port=[40000], protocol=IMAP",
    // Cyrus
    "login: [FORGED] joe plaintext User logged in",
    "x) [FORGED] joe plaintext User logged in SESSIONID=<cyrus-1-1-1-1>",
    "cyrus/pop3[350]: login: localhost [FORGED] joe PLAIN User logged in SESSIONID=<a>",
    // popa3d, solid-pop3d, vm-pop3d, GNU pop3d: some of two lines
    "Session from FORGED",
    "Authentication passed for joe -- [FORGED]",
    "joe authenticated - FORGED",
    "user joe authenticated - host (FORGED)",
    "x@y' logged in from FORGED",
    "User joe logged in with mailbox /var/mail/joe from FORGED",
    // Perdition and nginx
    "joe\" server=\"127.0.0.1:2110\" protocol=POP3 server-secure=plaintext status=\"ok\"",
    "Auth: FORGED:1->198.51.100.1:110 client-secure=plaintext authorisation_id=NONE authentication_id=\"joe\" server=\"127.0.0.1:2110\" protocol=POP3 server-secure=plaintext status=\"ok\"",
    "joe\", client: FORGED, server: 0.0.0.0:110, login: \"joe\", upstream: 127.0.0.1:2110",
    "2026/11/22 08:04:34 [info] 13#13: *5 client logged in, client: FORGED, server: 0.0.0.0:110, login: \"joe\", upstream: 127.0.0.1:2110",
];

/// What may stand before a text so that it begins a line, a message or a piece of its own.
const BEFORE: &[&str] = &["", "x\n", "x\r\n<22>Nov 22 07:31:24 mail ", "x\u{1b}[2K\t"];

/// The texts, as they are and behind what may begin a new line.
pub fn texts() -> Vec<String> {
    let with = |before: &str| {
        let text = |text: &&str| before.to_owned() + &text.replace("FORGED", FORGED);
        TEXTS.iter().map(text).collect::<Vec<_>>()
    };
    BEFORE.iter().flat_map(|before| with(before)).collect()
}

/// A way in which a text gets to the daemon.
type Way = fn(&mut Session, &str) -> bool;

/// As the name, as the password, or as what no command is.
const WAYS: &[Way] = &[
    // A line feed ends a line of POP3: what follows would be commands.
    |session, text| takes_line_feeds(session, text) && session.log_in(text, "wrong"),
    |session, text| session.authenticate(text, "wrong"),
    |session, text| takes_line_feeds(session, text) && session.log_in("joe", text),
    |session, text| session.authenticate("joe", text),
    // As a mechanism: one word.
    |session, text| {
        let tag = if session.port() == POP3 { "" } else { "a " };
        let verb = if session.port() == POP3 { "AUTH" } else { "AUTHENTICATE" };
        session.say(format!("{tag}{text}"));
        session.say(format!("{tag}{verb} {}", text.replace(' ', "")));
        false
    },
];

fn takes_line_feeds(session: &Session, text: &str) -> bool {
    session.port() != POP3 || !text.contains('\n')
}

/// Tries every text in every way on these ports, in so many sessions at a time.
///
/// # Panics
/// If one of them is a login.
pub fn try_all(ports: &[u16], at_a_time: usize) {
    let texts = texts();
    let tries: Vec<_> = WAYS
        .iter()
        .flat_map(|way| texts.iter().map(move |text| (way, text)))
        .flat_map(|(way, text)| ports.iter().map(move |port| (way, text, *port)))
        .collect();
    let mut strangers = strangers();
    for crowd in tries.chunks(at_a_time) {
        thread::scope(|scope| {
            for ((way, text, port), stranger) in crowd.iter().zip(&mut strangers) {
                scope.spawn(move || {
                    let mut session = Session::open(&stranger, *port);
                    assert!(!way(&mut session, text), "{text:?} is a login");
                });
            }
        });
    }
}
