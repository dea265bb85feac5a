//! A client of POP3 and IMAP that can send any bytes, from any address.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use super::network::connect;
use super::{PATIENCE, within};

/// POP3's port.
pub const POP3: u16 = 110;
/// IMAP's port.
pub const IMAP: u16 = 143;

/// A session; dropping it logs out.
pub struct Session {
    stream: BufReader<TcpStream>,
    port: u16,
}

impl Session {
    /// Connects from this address and reads the greeting; tries again while the server refuses more
    /// sessions.
    pub fn open(client: &str, port: u16) -> Self {
        let mut session = None;
        let greeted = within(PATIENCE, || {
            let stream = connect(client, port);
            let stream = stream.unwrap_or_else(|why| panic!("{client}, {port}: {why}"));
            let open = session.insert(Self { stream: BufReader::new(stream), port });
            let greeting = open.line();
            greeting.starts_with("+OK") || greeting.starts_with("* OK")
        });
        assert!(greeted, "{client}, {port}: no greeting");
        session.expect("it has been greeted")
    }

    /// Returns the server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a line and returns the reply: for IMAP the tagged one or `+`; empty if the server has
    /// closed the session. IMAP's tag is `a`.
    pub fn send(&mut self, line: impl AsRef<[u8]>) -> String {
        let mut bytes = line.as_ref().to_vec();
        bytes.extend(b"\r\n");
        if self.stream.get_mut().write_all(&bytes).is_err() {
            return String::new();
        }
        loop {
            let line = self.line();
            if self.port == POP3 || !line.starts_with("* ") {
                return line;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.stream.read_until(b'\n', &mut line);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Sends USER and PASS, or LOGIN with both as literals. Returns whether the client is logged
    /// in.
    pub fn log_in(&mut self, user: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> bool {
        let (user, password) = (user.as_ref(), password.as_ref());
        if self.port == POP3 {
            self.send([b"USER ", user].concat());
            return self.send([b"PASS ", password].concat()).starts_with("+OK");
        }
        let mut reply = self.send(format!("a LOGIN {{{}}}", user.len()));
        if reply.starts_with('+') {
            reply = self.send([user, format!(" {{{}}}", password.len()).as_bytes()].concat());
        }
        if reply.starts_with('+') {
            reply = self.send(password);
        }
        reply.starts_with("a OK")
    }

    /// Sends AUTH PLAIN or AUTHENTICATE PLAIN. Returns whether the client is logged in.
    pub fn authenticate(&mut self, user: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> bool {
        let token = base64(&[b"\0", user.as_ref(), b"\0", password.as_ref()].concat());
        let verb = if self.port == POP3 { "AUTH" } else { "a AUTHENTICATE" };
        let reply = self.send(format!("{verb} PLAIN"));
        let reply = if reply.starts_with('+') { self.send(token) } else { reply };
        reply.starts_with("+OK") || reply.starts_with("a OK")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let command = if self.port == POP3 { "QUIT\r\n" } else { "a LOGOUT\r\n" };
        let _ = self.stream.get_mut().write_all(command.as_bytes());
        // Until the server has closed it: by then it has logged everything.
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}

/// Encodes in base 64 (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |chunk: &[u8]| -> String {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |at: usize| {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).expect("six bits");
            if at <= chunk.len() { char::from(DIGITS[index]) } else { '=' }
        };
        (0..4).map(digit).collect()
    };
    bytes.chunks(3).map(chunk).collect()
}
