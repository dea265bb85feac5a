//! The load: what a mail host logs. One frame in ten is a login at one of five mail daemons; the
//! others are messages of programs that count (Dovecot) and of programs that do not (Postfix,
//! amavis).
//!
//! - **Promise**: the same arguments produce the same frames.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::random::Random;

/// One login in this many frames.
const LOGIN_OF: u64 = 10;
/// Clients whose messages are no logins.
const STRANGERS: u64 = 1 << 20;
const USERS: [&str; 8] = [
    "alice",
    "bob.smith",
    "carol@example.org",
    "dave",
    "erin-m@example.net",
    "info",
    "sales@shop.example",
    "j.doe",
];

/// Relative frequency, priority, and a message with placeholders.
type Template = (u64, u8, &'static str);

const LOGINS: &[Template] = &[
    (
        3,
        22,
        "dovecot: imap-login: Login: user=<USER>, method=PLAIN, rip=CLIENT, lip=192.0.2.25, mpid=NUMBER, TLS, session=<HEX>",
    ),
    (
        2,
        22,
        "dovecot: pop3-login: Login: user=<USER>, method=PLAIN, rip=CLIENT, lip=192.0.2.25, mpid=NUMBER, TLS, session=<HEX>",
    ),
    (1, 22, "imapd-ssl[PID]: LOGIN, user=USER, ip=[::ffff:CLIENT], port=[NUMBER], protocol=IMAP"),
    (1, 22, "pop3d[PID]: LOGIN, user=USER, ip=[::ffff:CLIENT], port=[NUMBER]"),
    (
        1,
        86,
        "cyrus/imaps[PID]: login: dyn.example.net [CLIENT] USER PLAIN+TLS User logged in SESSIONID=<mx1.example.org-PID-1795332390-1>",
    ),
    (1, 22, "ipop3d[PID]: Login user=USER host=dyn.example.net [CLIENT] nmsgs=12/340"),
    (
        1,
        22,
        "popper[PID]: (v4.0.19) POP login by user \"USER\" at (dyn.example.net) CLIENT [pop_log.c:244]",
    ),
];

/// Of programs that belong to no mail daemon.
const UNKNOWN: &[Template] = &[
    (3, 22, "postfix/smtpd[PID]: connect from dyn.provider.example.net[CLIENT]"),
    (
        2,
        22,
        "postfix/smtpd[PID]: disconnect from dyn.provider.example.net[CLIENT] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
    ),
    (1, 22, "postfix/smtpd[PID]: HEX: client=mail.provider.example.net[CLIENT]"),
    (
        1,
        20,
        "postfix/smtpd[PID]: warning: dyn.example.net[CLIENT]: SASL LOGIN authentication failed: authentication failure, sasl_username=USER",
    ),
    (
        1,
        22,
        "postfix/smtpd[PID]: NOQUEUE: reject: RCPT from unknown[CLIENT]: 554 5.7.1 <USER>: Relay access denied; from=<spam@example.com> to=<USER> proto=ESMTP helo=<win-7>",
    ),
    (1, 22, "postfix/cleanup[PID]: HEX: message-id=<HEX.NUMBER@mail.example.org>"),
    (2, 22, "postfix/qmgr[PID]: HEX: from=<USER>, size=NUMBER, nrcpt=1 (queue active)"),
    (
        2,
        22,
        "postfix/smtp[PID]: HEX: to=<USER>, relay=mx.example.com[CLIENT]:25, delay=1.4, delays=0.05/0.01/0.6/0.74, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as HEX)",
    ),
    (
        1,
        22,
        "postfix/lmtp[PID]: HEX: to=<USER>, relay=mx1.example.org[private/dovecot-lmtp], delay=0.23, delays=0.2/0.01/0/0.02, dsn=2.0.0, status=sent (250 2.0.0 <USER> Saved)",
    ),
    (1, 22, "postfix/qmgr[PID]: HEX: removed"),
    (
        1,
        22,
        "amavis[PID]: (PID-12) Passed CLEAN {RelayedInbound}, [CLIENT]:41234 <USER> -> <info@example.org>, Queue-ID: HEX, Hits: -1.9, size: NUMBER, 812 ms",
    ),
];

/// Of a mail daemon, and no logins.
const KNOWN: &[Template] = &[
    (
        2,
        22,
        "dovecot: imap(USER)<PID><HEX>: Disconnected: Logged out in=NUMBER out=NUMBER deleted=0 expunged=0 trashed=0 hdr_count=3 hdr_bytes=1204 body_count=0 body_bytes=0",
    ),
    (
        1,
        22,
        "dovecot: imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 4 secs): user=<USER>, method=PLAIN, rip=CLIENT, lip=192.0.2.25, TLS, session=<HEX>",
    ),
    (
        1,
        22,
        "dovecot: lmtp(USER)<PID><HEX>: sieve: msgid=<HEX@mail.example.org>: stored mail into mailbox 'INBOX'",
    ),
];

/// What the frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Logins only.
    Logins,
    /// Messages of programs that belong to no mail daemon.
    Unknown,
    /// Messages of a mail daemon that are no logins.
    Known,
    /// One login in ten; 16 of 20 others are of unknown programs.
    Mixed,
}

/// What all frames of a corpus have in common.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The time stamp, such as `Nov 22 07:31:23`.
    pub stamp: &'a str,
    /// The host name. syslog(3) writes none to a local socket.
    pub host: Option<&'a str>,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it is a login.
    pub is_login: bool,
}

/// Returns frames in which `clients` addresses log in.
pub fn frames(count: usize, kind: Kind, clients: u32, header: Header<'_>) -> Vec<Frame> {
    let mut random = Random::new(7);
    (0..count).map(|_| frame(&mut random, kind, clients, header)).collect()
}

fn frame(random: &mut Random, kind: Kind, clients: u32, header: Header<'_>) -> Frame {
    let is_login = match kind {
        Kind::Logins => true,
        Kind::Mixed => random.below(LOGIN_OF) == 0,
        Kind::Unknown | Kind::Known => false,
    };
    let (templates, clients) = match kind {
        _ if is_login => (LOGINS, clients.into()),
        Kind::Unknown => (UNKNOWN, STRANGERS),
        Kind::Mixed if random.below(20) < 16 => (UNKNOWN, STRANGERS),
        _ => (KNOWN, STRANGERS),
    };
    let address = client(u32::try_from(random.below(clients)).expect("below a u32"));
    let (priority, text) = choose(random, templates);
    let host = header.host.map(|host| format!("{host} ")).unwrap_or_default();
    let message = text
        .replace("CLIENT", &address.to_string())
        .replace("USER", USERS[random.index(USERS.len())])
        .replace("PID", &(1000 + random.below(60_000)).to_string())
        .replace("NUMBER", &(1024 + random.below(60_000)).to_string())
        .replace("HEX", &format!("{:010X}", random.below(1 << 40)));
    let bytes = format!("<{priority}>{} {host}{message}", header.stamp).into_bytes();
    Frame { bytes, is_login }
}

fn choose(random: &mut Random, templates: &'static [Template]) -> (u8, &'static str) {
    let mut left = random.below(templates.iter().map(|(share, ..)| share).sum());
    for (share, priority, text) in templates {
        match left.checked_sub(*share) {
            Some(rest) => left = rest,
            None => return (*priority, text),
        }
    }
    unreachable!("the rest is below the sum")
}

/// Returns the address of a client: each number below 2^24 has its own, and neighbours are far
/// apart.
pub fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 | (number.wrapping_mul(0x9E37_79B1) & 0x00FF_FFFF))
}

/// Returns a state file with this many clients, each with a user, that ends their grants at `end`
/// (milliseconds since 1970).
pub fn state_file(clients: u32, since: u64, end: u64) -> String {
    let mut text = String::from("pop-before-smtp state 1\n");
    for number in 0..clients {
        let address = client(number);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "grant\t{address}\t{since}\t{end}\t\t\t1\tdovecot\tmx1\t\t{end}\tuser{number}\t."
        );
    }
    text
}
