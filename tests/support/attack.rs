//! Attacks on a mail daemon's log without a password: puts the text of a login into every place
//! that a client can write to.
//!
//! - **Limits**: one session for each attempt.

use std::thread;

use super::client::{POP3, Session};

/// An address that no client has: only a forged line can name it.
pub const FORGED: &str = "203.0.113.66";
/// Returns addresses of attackers; many, since daemons limit the sessions of each.
pub fn attackers() -> impl Iterator<Item = String> {
    (128..255).cycle().map(|last| format!("198.51.100.{last}"))
}

/// Texts of logins, whole or as continuations after a name; FORGED is replaced.
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

/// Prefixes after which the text may begin a line, a message or a fragment.
const BEFORE: &[&str] = &["", "x\n", "x\r\n<22>Nov 22 07:31:24 mail ", "x\u{1b}[2K\t"];

/// Returns the texts, with and without these prefixes.
pub fn texts() -> Vec<String> {
    let with = |before: &str| {
        let text = |text: &&str| before.to_owned() + &text.replace("FORGED", FORGED);
        TEXTS.iter().map(text).collect::<Vec<_>>()
    };
    BEFORE.iter().flat_map(|before| with(before)).collect()
}

/// Sends a text to the daemon; returns whether that logged the client in.
type Attempt = fn(&mut Session, &str) -> bool;

/// As the name, as the password, and as an unknown command or mechanism.
const ATTEMPTS: &[Attempt] = &[
    // A line feed ends a line of POP3: what follows would be commands.
    |session, text| is_one_command(session, text) && session.log_in(text, "wrong"),
    |session, text| session.authenticate(text, "wrong"),
    |session, text| is_one_command(session, text) && session.log_in("joe", text),
    |session, text| session.authenticate("joe", text),
    // A mechanism contains no blanks.
    |session, text| {
        let tag = if session.port() == POP3 { "" } else { "a " };
        let verb = if session.port() == POP3 { "AUTH" } else { "AUTHENTICATE" };
        session.send(format!("{tag}{text}"));
        session.send(format!("{tag}{verb} {}", text.replace(' ', "")));
        false
    },
];

fn is_one_command(session: &Session, text: &str) -> bool {
    session.port() != POP3 || !text.contains('\n')
}

/// Makes every attempt with every text on these ports, with `at_a_time` sessions.
///
/// # Panics
/// If one of them is a login.
pub fn try_all(ports: &[u16], at_a_time: usize) {
    let texts = texts();
    let tries: Vec<_> = ATTEMPTS
        .iter()
        .flat_map(|attempt| texts.iter().map(move |text| (attempt, text)))
        .flat_map(|(attempt, text)| ports.iter().map(move |port| (attempt, text, *port)))
        .collect();
    let mut attackers = attackers();
    for group in tries.chunks(at_a_time) {
        thread::scope(|scope| {
            for ((attempt, text, port), attacker) in group.iter().zip(&mut attackers) {
                scope.spawn(move || {
                    let mut session = Session::open(&attacker, *port);
                    assert!(!attempt(&mut session, text), "{text:?} is a login");
                });
            }
        });
    }
}
