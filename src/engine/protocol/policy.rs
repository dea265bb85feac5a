//! Postfix's policy protocol (SMTPD_POLICY_README): `name=value` lines, and an empty line.
//!
//! - **Promise**: unknown attributes are ignored. The action is never empty, since Postfix takes an
//!   empty one for OK. Requests in other states than those of [`SmtpStage`] have no client. Broken are
//!   lines without `=`, an attribute of ours given twice, and requests longer than [`MAX_REQUEST`].

use std::net::IpAddr;

use super::decoded::Decoded;
use crate::engine::message::address;

/// Longest request: some thirty short attributes, with sender, recipient, HELO name and a few others
/// of up to 2048 bytes (postconf(5), line_length_limit).
pub const MAX_REQUEST: usize = 32 * 1024;

/// The attributes of a request that are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyRequest<'a> {
    kind: Option<&'a [u8]>,
    state: Option<&'a [u8]>,
    client: Option<&'a [u8]>,
    sender: Option<&'a [u8]>,
    recipient: Option<&'a [u8]>,
    instance: Option<&'a [u8]>,
    queue_id: Option<&'a [u8]>,
    recipient_count: Option<&'a [u8]>,
    size: Option<&'a [u8]>,
}

/// A state of the SMTP dialogue in which the grant of a client counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpStage {
    /// A recipient is named.
    Recipient,
    /// All recipients are named, and the text will follow.
    Data,
    /// The text has been received.
    EndOfMessage,
}

impl<'a> PolicyRequest<'a> {
    /// Adds an attribute; returns whether the line is one and is not a duplicate.
    fn take(&mut self, line: &'a [u8]) -> bool {
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else { return false };
        let place = match &line[..equals] {
            b"request" => &mut self.kind,
            b"protocol_state" => &mut self.state,
            b"client_address" => &mut self.client,
            b"sender" => &mut self.sender,
            b"recipient" => &mut self.recipient,
            b"instance" => &mut self.instance,
            b"queue_id" => &mut self.queue_id,
            b"recipient_count" => &mut self.recipient_count,
            b"size" => &mut self.size,
            _ => return true,
        };
        place.replace(&line[equals + 1..]).is_none()
    }

    /// Returns the state of the dialogue, if it is one in which the client's grant counts.
    pub fn stage(&self) -> Option<SmtpStage> {
        let is_ours = self.kind == Some(b"smtpd_access_policy");
        match self.state.filter(|_| is_ours)? {
            b"RCPT" => Some(SmtpStage::Recipient),
            b"DATA" => Some(SmtpStage::Data),
            b"END-OF-MESSAGE" => Some(SmtpStage::EndOfMessage),
            _ => None,
        }
    }

    /// Returns the client, if the request is one in which its grant counts.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.stage()?;
        let text = std::str::from_utf8(self.client?).ok()?;
        address::read(text).ok()
    }

    /// Returns the envelope sender, if it is UTF-8. The null sender is empty or missing.
    pub fn sender(&self) -> Option<&'a str> {
        std::str::from_utf8(self.sender.unwrap_or_default()).ok()
    }

    /// Returns the envelope sender as it was sent.
    pub fn raw_sender(&self) -> &'a [u8] {
        self.sender.unwrap_or_default()
    }

    /// Returns the envelope recipient; at other stages than its own it is empty if there are several.
    pub fn recipient(&self) -> &'a [u8] {
        self.recipient.unwrap_or_default()
    }

    /// Returns what is the same in all requests about one message, and in no others; it may be empty.
    pub fn instance(&self) -> &'a [u8] {
        self.instance.unwrap_or_default()
    }

    /// Returns the queue id; smtpd has none before it has accepted a recipient.
    pub fn queue_id(&self) -> &'a [u8] {
        self.queue_id.unwrap_or_default()
    }

    /// Returns the number of accepted recipients; 0 before [`SmtpStage::Data`].
    pub fn recipient_count(&self) -> Option<u64> {
        number(self.recipient_count)
    }

    /// Returns the size of the message in bytes: as announced, and at the end as received.
    pub fn size(&self) -> Option<u64> {
        number(self.size)
    }
}

fn number(digits: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(digits?).ok()?.parse().ok()
}

/// The action in the reply to Postfix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The client may relay.
    Ok,
    /// The next restriction decides.
    #[default]
    Dunno,
    /// The client is rejected, with this text after `550 5.7.1`.
    Reject(String),
    /// The client may try again later, with this text after `450 4.7.1`.
    Defer(String),
}

/// Decodes the request at the beginning of `input`.
pub fn read(input: &[u8]) -> Decoded<PolicyRequest<'_>> {
    let mut request = PolicyRequest::default();
    let mut used = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        used += line.len();
        if used > MAX_REQUEST {
            return Decoded::Broken;
        }
        let Some(line) = line.strip_suffix(b"\n") else { return Decoded::Short };
        if line.is_empty() {
            return Decoded::Whole { request, used };
        }
        if !request.take(line) {
            return Decoded::Broken;
        }
    }
    Decoded::Short
}

impl Action {
    /// Appends the reply.
    pub fn write(&self, output: &mut Vec<u8>) {
        let reply = match self {
            Self::Ok => "action=OK\n\n",
            Self::Dunno => "action=DUNNO\n\n",
            Self::Reject(text) => &format!("action=550 5.7.1 {text}\n\n"),
            Self::Defer(text) => &format!("action=450 4.7.1 {text}\n\n"),
        };
        output.extend_from_slice(reply.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::decoded::tests::is_whole_only_at_its_end;

    fn request(attributes: &str) -> Vec<u8> {
        format!("request=smtpd_access_policy\n{attributes}\n\n").into_bytes()
    }

    #[test]
    fn requests_have_a_client_and_a_sender() {
        let joe = Some("joe@example.org");
        let rows: &[(&str, Option<&str>, Option<&str>)] = &[
            (
                "protocol_state=RCPT\nclient_address=192.0.2.7\nsender=joe@example.org",
                Some("192.0.2.7"),
                joe,
            ),
            (
                "sender=joe@example.org\nfuture=a=b\n=\nclient_address=2001:db8::7\n\
                 protocol_state=DATA",
                Some("2001:db8::7"),
                joe,
            ),
            (
                "protocol_state=END-OF-MESSAGE\nclient_address=192.0.2.7",
                Some("192.0.2.7"),
                Some(""),
            ),
            ("protocol_state=RCPT\nclient_address=192.0.2.7\nsender=", Some("192.0.2.7"), Some("")),
            (
                "protocol_state=RCPT\nclient_address=192.0.2.7\nsender=a=b",
                Some("192.0.2.7"),
                Some("a=b"),
            ),
            ("protocol_state=CONNECT\nclient_address=192.0.2.7", None, Some("")),
            ("protocol_state=MAIL\nclient_address=192.0.2.7", None, Some("")),
            ("protocol_state=VRFY\nclient_address=192.0.2.7", None, Some("")),
            ("protocol_state=rcpt\nclient_address=192.0.2.7", None, Some("")),
            ("protocol_state=RCPT\r\nclient_address=192.0.2.7", None, Some("")),
            ("protocol_state=RCPT\nclient_address=unknown", None, Some("")),
            ("protocol_state=RCPT\nclient_address=192.0.2", None, Some("")),
            ("protocol_state=RCPT\nclient_address=", None, Some("")),
            ("protocol_state=RCPT\nClient_address=192.0.2.7", None, Some("")),
            ("protocol_state=RCPT", None, Some("")),
            ("client_address=192.0.2.7", None, Some("")),
        ];
        for (attributes, client, sender) in rows {
            let input = request(attributes);
            let Decoded::Whole { request, used } = read(&input) else { panic!("{attributes}") };
            let client = client.map(|text| text.parse().expect("an address"));
            assert_eq!((request.client_address(), used), (client, input.len()), "{attributes}");
            assert_eq!(request.sender(), *sender, "{attributes}");
            is_whole_only_at_its_end(&input, |input| read(input).map(drop));
        }
        for kind in ["", "request=junk\n", "request=smtpd_access_policy2\n"] {
            let input = format!("{kind}protocol_state=RCPT\nclient_address=192.0.2.7\n\n");
            let Decoded::Whole { request, .. } = read(input.as_bytes()) else { panic!("{kind}") };
            assert_eq!(request.client_address(), None, "{kind}");
        }
        let Decoded::Whole { request, .. } = read(b"sender=\xff\n\n") else { panic!("binary") };
        assert_eq!(request.sender(), None);
    }

    #[test]
    fn broken_requests() {
        let rows: &[&[u8]] = &[
            b"request\n",
            b"\0\n",
            b"\xff\xfe\n",
            b"GET / HTTP/1.1\r\n",
            b"request=smtpd_access_policy\r\n\r\n",
            b"client_address=192.0.2.7\nclient_address=192.0.2.8\n",
            b"sender=\nsender=\n",
        ];
        for input in rows {
            assert_eq!(read(input), Decoded::Broken, "{}", input.escape_ascii());
        }
        let long = |size: usize| {
            let mut input = b"a=".to_vec();
            input.resize(size, b'x');
            input
        };
        assert_eq!(read(&long(MAX_REQUEST)), Decoded::Short);
        assert_eq!(read(&long(MAX_REQUEST + 1)), Decoded::Broken, "one line");
        let many = b"a=\n".repeat(MAX_REQUEST / 3 + 1);
        assert_eq!(read(&many), Decoded::Broken, "many lines");
    }

    #[test]
    fn no_action_is_empty() {
        let reply = |action: &Action| {
            let mut output = Vec::new();
            action.write(&mut output);
            String::from_utf8(output).expect("text")
        };
        assert_eq!(reply(&Action::Ok), "action=OK\n\n");
        assert_eq!(reply(&Action::default()), "action=DUNNO\n\n");
        assert_eq!(reply(&Action::Reject("no".into())), "action=550 5.7.1 no\n\n");
        assert_eq!(reply(&Action::Defer("later".into())), "action=450 4.7.1 later\n\n");
    }
}
