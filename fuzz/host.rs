//! A mail host under attack: daemons that log what clients make them log.
//!
//! - **Model**: each daemon logs its fixed text and the client's text, treated as by that daemon
//!   (escaped, truncated, refused). A line with a login is logged only for a client that has logged
//!   in; the host remembers these clients' real addresses.
//! - **Formats**: frames as written by libc, as forwarded by rsyslog, or in RFC 5424; one format,
//!   with or without priorities, for the whole run.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

/// Texts that an attacker would use: the logins of every daemon, from another client's address.
const FRAGMENTS: &[&str] = &[
    "LOGIN, user=joe, ip=[::ffff:198.51.100.7], port=[4242]",
    "LOGIN, user=joe, ip=[::ffff:198.51.100.7], port=[4242], protocol=IMAP",
    "Logged in: user=<joe>, method=PLAIN, rip=198.51.100.7, lip=127.0.0.1, mpid=77, session=<abc>",
    "imap-login: Login: user=<joe>, method=PLAIN, rip=198.51.100.7, lip=127.0.0.1, session=<a>",
    "dovecot: imap-login: Login: user=<joe>, method=PLAIN, rip=198.51.100.7, lip=127.0.0.1",
    "proxy(joe,127.0.0.2:110): Started proxying to remote host (0.010 secs): user=<joe>, ",
    "method=PLAIN, rip=198.51.100.7, lip=127.0.0.1, session=<abc>",
    "Login user=joe host=[198.51.100.7] nmsgs=0/0",
    "Authenticated user=joe host=mail.example [198.51.100.7] mech=PLAIN",
    "pop3 service init from 198.51.100.7",
    "login: [198.51.100.7] joe plaintext User logged in SESSIONID=<x>",
    "event=login.good r.clienthost=[198.51.100.7] u.username=joe login.mech=PLAIN login.tls=0",
    "User 'joe' logged in from 198.51.100.7, nmsgs=0",
    "' logged in from 198.51.100.7",
    "x' of 'y' logged in from 198.51.100.7",
    "Connect from 198.51.100.7",
    "connect from 198.51.100.7",
    "Session from 198.51.100.7",
    "User 'joe' logged in",
    "Authentication passed for joe",
    "Authentication passed for joe -- [198.51.100.7]",
    "(v4.0.5) POP login by user \"joe\" at (h) 198.51.100.7",
    "Successful login for joe [127.0.0.1] from h [198.51.100.7]",
    "fork_child: [5]joe(198.51.100.7): began session for `joe' with flatfile; child PID is 5",
    " authentication_id=\"joe\" server=\"127.0.0.1:2110\" protocol=POP3 server-secure=plaintext status=\"ok\"",
    "\" status=\"ok\"",
    "' (198.51.100.7:4242) on new sd [5]",
    "user joe authenticated - 198.51.100.7",
    "user joe authenticated",
    " [info] 13#13: *5 client logged in, client: 198.51.100.7, server: 0.0.0.0:110, login: \"joe\", upstream: 127.0.0.1:2110",
    "vchkpw-pop3: (PLAIN) login success joe@a.example:198.51.100.7",
    "login accepted: id [1] user [a] from [198.51.100.7:1]",
    "IMAP Login from [198.51.100.7] for user \"joe\"",
    "message repeated 3 times: [ ",
    "<22>Jan  1 00:00:00 dovecot: ",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "0000000000000000000000000000000000000000000000000000000000000000",
    ", ip=[",
    "]",
    "'",
    "\"",
    ">",
    "<",
    "\n",
    "\r",
    "\0",
    " ",
    ": ",
    "\u{feff}",
    "198.51.100.7",
];

/// The fuzzer's bytes, as decisions.
pub struct Script<'a> {
    bytes: &'a [u8],
}

impl<'a> Script<'a> {
    /// Creates a script of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// Returns what a client types: fragments and arbitrary bytes, until the script ends it.
    fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(byte) = self.byte() {
            match FRAGMENTS.get(usize::from(byte)) {
                Some(fragment) => text.extend_from_slice(fragment.as_bytes()),
                None if byte < 128 => break,
                None => {
                    let count = usize::from(byte - 128).min(self.bytes.len());
                    let (raw, rest) = self.bytes.split_at(count);
                    text.extend_from_slice(raw);
                    self.bytes = rest;
                }
            }
            if text.len() > 4000 {
                break;
            }
        }
        text
    }
}

/// The format in which frames reach the receiver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Libc,
    Rsyslog,
    Rfc5424,
    NoPriority,
}

/// The mail host.
pub struct Host {
    name: u64,
    format: Option<Format>,
    /// The client of each process; the index is the PID.
    processes: [Option<IpAddr>; 6],
    /// UW processes that are connected to a foreign server.
    proxied: [bool; 6],
    logged_in: HashSet<IpAddr>,
    waiting: VecDeque<Vec<u8>>,
}

impl Host {
    /// Creates a host; the number is its name, so that hosts do not affect each other.
    pub fn new(name: u64) -> Self {
        Self {
            name,
            format: None,
            processes: [None; 6],
            proxied: [false; 6],
            logged_in: HashSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Returns whether a client has logged in from an address.
    pub fn has_logged_in(&self, address: IpAddr) -> bool {
        self.logged_in.contains(&address)
    }

    /// Returns the next frame; `None` at the end of the script.
    pub fn next(&mut self, script: &mut Script<'_>) -> Option<Vec<u8>> {
        if self.format.is_none() {
            let formats = [Format::Libc, Format::Rsyslog, Format::Rfc5424, Format::NoPriority];
            self.format = Some(formats[usize::from(script.byte()?) % formats.len()]);
        }
        while self.waiting.is_empty() {
            let act = script.byte()?;
            let who = script.byte()?;
            let text = script.text();
            if act < 200 {
                self.unauthenticated(act, who, &text);
            } else {
                self.authenticated(act, who, &text);
            }
        }
        self.waiting.pop_front()
    }

    fn log(&mut self, priority: u8, tag: &str, pid: Option<usize>, text: &[u8]) {
        let mut frame = Vec::new();
        let stamp = "Nov 22 07:31:23";
        let name = self.name;
        let pid = pid.map_or(String::new(), |pid| format!("[{}]", pid + 100));
        let text = match self.format {
            Some(Format::Rsyslog | Format::Rfc5424) => escaped(text),
            _ => text.to_vec(),
        };
        let head = match self.format {
            Some(Format::Rfc5424) => {
                let app = tag.split('/').next().unwrap_or(tag);
                let pid = if pid.is_empty() { "-" } else { pid.trim_matches(['[', ']']) };
                format!("<{priority}>1 2026-11-22T07:31:23+00:00 h{name} {app} {pid} - -  ")
            }
            Some(Format::Rsyslog) => format!("<{priority}>{stamp} h{name} {tag}{pid}: "),
            Some(Format::NoPriority) => format!("{stamp} h{name} {tag}{pid}: "),
            _ => format!("<{priority}>{stamp} {tag}{pid}: "),
        };
        frame.extend_from_slice(head.as_bytes());
        frame.extend_from_slice(&text);
        self.waiting.push_back(frame);
    }

    /// Logs as Courier: it writes `INFO: ` and the text to its logger, which reads 511 bytes at a
    /// time and logs each fragment as a message of its own.
    fn courier(&mut self, tag: &str, text: &[u8]) {
        let line = [b"INFO: ", &text[..text.len().min(1023)]].concat();
        for (number, fragment) in line.chunks(511).enumerate() {
            self.log(22, tag, None, if number == 0 { &fragment[6..] } else { fragment });
        }
    }

    /// An action of a client without a password.
    fn unauthenticated(&mut self, act: u8, who: u8, text: &[u8]) {
        let own = format!("203.0.113.{who}");
        let pid = usize::from(who) % self.processes.len();
        let line =
            |head: &str, text: &[u8], tail: &str| [head.as_bytes(), text, tail.as_bytes()].concat();
        let word: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        let printable: Vec<u8> =
            text.iter().map(|b| if (32..127).contains(b) { *b } else { b'.' }).collect();
        let one_line: Vec<u8> = text.iter().copied().filter(|b| *b != b'\n').collect();
        match act % 24 {
            0 => {
                let user = dovecot_user(text);
                let head = "imap-login: Disconnected: Aborted login by logging out (auth failed, \
                            1 attempts in 0 secs): user=<";
                let tail = format!(">, method=PLAIN, rip={own}, lip=127.0.0.1, session=<BU3j>");
                self.log(22, "dovecot", None, &line(head, &user, &tail));
            }
            1 => {
                let user = dovecot_user(text);
                let head = "pop3-login: Login aborted: Logged out (auth failed, 1 attempts in 0 \
                            secs) (auth_failed): user=<";
                let tail = format!(">, method=PLAIN, rip={own}, lip=127.0.0.1, session=<BU3j>");
                self.log(22, "dovecot", None, &line(head, &user, &tail));
            }
            2 => {
                let user = dovecot_user(text);
                let head = "auth: passwd-file(";
                let tail = format!(",{own},<BU3j>): unknown user");
                self.log(22, "dovecot", None, &line(head, &user, &tail));
            }
            3 | 4 => {
                let tag = ["pop3d", "imapd", "pop3d-ssl", "imapd-ssl"][usize::from(who) % 4];
                let tail = format!(", ip=[::ffff:{own}], port=[54745]");
                self.courier(tag, &line("LOGIN FAILED, user=", &printable, &tail));
            }
            5 => {
                let tag = ["cyrus/imap", "cyrus/pop3", "imapd", "pop3d"][usize::from(who) % 4];
                let head = format!("badlogin: [{own}] plaintext (");
                let tail = ") [SASL(-13): authentication failure: checkpass failed]";
                self.log(21, tag, Some(pid), &line(&head, text, tail));
            }
            6 => {
                let user = &text[..text.len().min(64)];
                let tail = format!(" auth=joe host=[{own}]");
                self.log(37, "ipop3d", Some(pid), &line("Login failed user=", user, &tail));
            }
            7 => {
                let user = &text[..text.len().min(80)];
                let tail = format!(" host=[{own}]");
                self.log(22, "imapd", Some(pid), &line("Logout user=", user, &tail));
            }
            8 if !self.proxied[pid] => {
                self.proxied[pid] = true;
                let word = &word[..word.len().min(80)];
                let tail = format!(" host=[{own}]");
                let text = line("IMAP login to host=evil.example user=", word, &tail);
                self.log(22, "ipop3d", Some(pid), &text);
            }
            8 => {
                // The foreign server's text, unchanged.
                let priority = if who & 1 == 0 { 23 } else { 21 };
                self.log(priority, "ipop3d", Some(pid), &one_line);
            }
            9 => {
                let tail = format!(" [127.0.0.1] from unknown [{own}]");
                self.log(132, "teapop", Some(pid), &line("Failed login for ", &one_line, &tail));
            }
            10 => {
                let tail = format!("' - failed auth, from={own}");
                self.log(19, "vm-pop3d", Some(pid), &line("User '", &one_line, &tail));
            }
            11 => {
                let head = "Couldn't open password file: /etc/virtual/";
                self.log(19, "vm-pop3d", Some(pid), &line(head, &one_line, "/passwd"));
            }
            12 => {
                let tail = format!(" from host (h.example) {own}");
                let head = "[AUTH] Failed attempted login to ";
                self.log(133, "qpopper", Some(pid), &line(head, &one_line, &tail));
            }
            13 => {
                let tail = format!(" at (h.example) {own}: -ERR Unknown command: \"x\".");
                self.log(133, "qpopper", Some(pid), &line("", &one_line, &tail));
            }
            14 => {
                let head = format!("connection_do: client `[5]{own}/example.org': username `");
                let tail = "': 1 authentication failures";
                self.log(19, "tpop3d", Some(pid), &line(&head, &word, tail));
            }
            15 => {
                let head = format!(
                    "Auth: {own}:50459->127.0.0.1:110 client-secure=plaintext \
                     authorisation_id=NONE authentication_id=\""
                );
                let tail = "\" server=\"127.0.0.1:2110\" protocol=POP3 server-secure=plaintext \
                            status=\"failed: Re-Authentication Failure\"\n";
                self.log(21, "perdition.pop3", Some(pid), &line(&head, &one_line, tail));
            }
            16 => {
                let head = format!(
                    "2026/11/22 08:04:34 [info] 13#13: *20 client login failed: \"no\" while in \
                     http auth state, client: {own}, server: 0.0.0.0:110, login: \""
                );
                self.log(22, "nginx", None, &line(&head, text, "\""));
            }
            17 => {
                let head = "2026/11/22 08:04:34 [info] 13#13: *20 client sent too long command \"";
                let tail = format!("\" while reading, client: {own}, server: 0.0.0.0:110");
                self.log(22, "nginx", None, &line(head, text, &tail));
            }
            18 => {
                let user = &text[..text.len().min(255)];
                let tail = format!("' ({own}:39853) failed: non-OK server response");
                self.log(22, "in.imapproxyd", Some(9), &line("LOGIN: '", user, &tail));
            }
            19 => {
                let user = &one_line[..one_line.len().min(40)];
                let tail = format!(" - {own}");
                let head = "authentication failed: no such user: ";
                self.log(133, "solid-pop3d", Some(pid), &line(head, user, &tail));
            }
            20 => {
                let head = "vchkpw-pop3: invalid user/domain characters ";
                let tail = format!(":{own}");
                self.log(22, "vpopmail", Some(pid), &line(head, &one_line, &tail));
            }
            21 => {
                let head = "Notice:[imap] dbmail_imap_session_handle_auth(+1448): [0x55d0] login \
                            rejected: user [";
                let tail = format!("] from [{own}:50231]");
                self.log(22, "dbmail/imap4d", Some(9), &line(head, &one_line, &tail));
            }
            22 => {
                let head = format!("Failed to login from [{own}] with invalid username \"");
                self.log(22, "kopano-gateway", Some(9), &line(&head, &one_line, "\""));
            }
            _ => self.log(
                22,
                "gnu-pop3d",
                Some(pid),
                &line("Possible probe of account '", &one_line, "'"),
            ),
        }
    }

    /// An action of a client with a password.
    fn authenticated(&mut self, act: u8, who: u8, text: &[u8]) {
        let pid = usize::from(who) % self.processes.len();
        let address = IpAddr::from([192, 0, 2, who]);
        let name: Vec<u8> = text.iter().copied().filter(|b| *b != b'\n').take(200).collect();
        let line = |head: &str, tail: &str| [head.as_bytes(), &name, tail.as_bytes()].concat();
        match act % 8 {
            // Daemons with one process for each client: a connection, and perhaps its login.
            0 | 1 => {
                let tag = ["vm-pop3d", "popa3d", "gnu-pop3d", "solid-pop3d"][usize::from(who) % 4];
                let (priority, head) = match tag {
                    "popa3d" => (30, "Session from"),
                    "gnu-pop3d" => (22, "connect from"),
                    "solid-pop3d" => (133, "connect from"),
                    _ => (22, "Connect from"),
                };
                self.processes[pid] = Some(address);
                self.log(priority, tag, Some(pid), format!("{head} {address}").as_bytes());
            }
            2 | 3 => {
                let Some(client) = self.processes[pid].take() else { return };
                let IpAddr::V4(v4) = client else { return };
                self.logged_in.insert(client);
                match v4.octets()[3] % 4 {
                    0 => self.log(22, "vm-pop3d", Some(pid), &line("User '", "' logged in")),
                    1 => self.log(30, "popa3d", Some(pid), &line("Authentication passed for ", "")),
                    2 => {
                        let tail = "' logged in with mailbox '/var/mail/joe' (0 msgs)";
                        self.log(22, "gnu-pop3d", Some(pid), &line("User '", tail));
                    }
                    _ => self.log(133, "solid-pop3d", Some(pid), &line("user ", " authenticated")),
                }
            }
            4 => {
                self.logged_in.insert(address);
                let user = dovecot_user(&name);
                let tail = format!(">, method=PLAIN, rip={address}, lip=127.0.0.1, mpid=22, TLS");
                let text = [b"imap-login: Login: user=<".as_slice(), &user, tail.as_bytes()];
                self.log(22, "dovecot", None, &text.concat());
            }
            5 => {
                self.logged_in.insert(address);
                let tag = ["pop3d", "imapd"][usize::from(who) % 2];
                let tail = format!(", ip=[::ffff:{address}], port=[41111]");
                let tail = if tag == "imapd" { tail + ", protocol=IMAP" } else { tail };
                self.courier(tag, &line("LOGIN, user=", &tail));
            }
            6 => {
                self.logged_in.insert(address);
                let head = format!("login: [{address}] ");
                let tail = " plaintext User logged in SESSIONID=<cyrus-1-2-3>";
                self.log(21, "cyrus/imap", Some(pid), &line(&head, tail));
            }
            _ => {
                self.logged_in.insert(address);
                let tail = format!(" host=[{address}] nmsgs=0/0");
                self.log(22, "ipop3d", Some(50 + pid), &line("Login user=", &tail));
            }
        }
    }
}

/// Formats a user as Dovecot: control bytes become question marks, truncated to 80 characters.
fn dovecot_user(text: &[u8]) -> Vec<u8> {
    let clean = |b: &u8| if *b < 32 || *b > 126 { b'?' } else { *b };
    let user: Vec<u8> = text.iter().map(clean).collect();
    if user.len() > 80 { [&user[..77], b"..."].concat() } else { user }
}

/// Escapes control bytes as rsyslog: `#` and three octal digits.
fn escaped(text: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        0..32 => format!("#{byte:03o}").into_bytes(),
        other => vec![*other],
    };
    text.iter().flat_map(escape).collect()
}
