//! Postfix's socketmap protocol (socketmap_table(5)): a query `NAME KEY` and its reply, each a
//! netstring.
//!
//! - **Promise**: only one whole address can be found. Host names, `unknown`, which smtpd(8) looks up
//!   first, parts of addresses and anything else do not exist. Any map name is answered.

use std::net::IpAddr;

use super::decoded::Decoded;
use super::netstring;
use crate::engine::message::address;

/// Longest query, as limited by Postfix (postconf(5), socketmap_max_query_size).
pub const MAX_QUERY: usize = 10_000;

/// Decodes the query at the beginning of `input`; its request is the address, if the key is one.
pub fn read(input: &[u8]) -> Decoded<Option<IpAddr>> {
    netstring::read(input, MAX_QUERY).map(|query| {
        let (_, key) = std::str::from_utf8(query).ok()?.split_once(' ')?;
        address::read(key).ok()
    })
}

/// Appends the reply: the value of the address, if it is authorised.
pub fn write(value: Option<&str>, output: &mut Vec<u8>) {
    match value {
        Some(value) => netstring::write(&format!("OK {value}"), output),
        None => netstring::write("NOTFOUND ", output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::decoded::tests::is_whole_only_at_its_end;

    #[test]
    fn only_whole_addresses_are_looked_up() {
        let rows: &[(&[u8], Option<&str>)] = &[
            (b"clients 192.0.2.7", Some("192.0.2.7")),
            (b"other/map:name 192.0.2.7", Some("192.0.2.7")),
            (b" 192.0.2.7", Some("192.0.2.7")),
            (b"clients 2001:db8::7", Some("2001:db8::7")),
            (b"clients ::ffff:192.0.2.7", Some("192.0.2.7")),
            (b"clients unknown", None),
            (b"clients mail.example.org", None),
            (b"clients 192.0.2", None),
            (b"clients 192.0.2.7.", None),
            (b"clients 192.0.2.7\0", None),
            (b"clients  192.0.2.7", None),
            (b"clients 192.0.2.7 ", None),
            (b"clients 192.0.2.7/32", None),
            (b"clients 192.0.2.07", None),
            (b"clients [192.0.2.7]", None),
            (b"clients 2001:db8:", None),
            (b"clients fe80::1%eth0", None),
            (b"clients 0.0.0.0", None),
            (b"clients \xff\xfe", None),
            (b"clients ", None),
            (b"192.0.2.7", None),
            (b"clients", None),
            (b"", None),
        ];
        for (query, expected) in rows {
            let mut input = format!("{}:", query.len()).into_bytes();
            input.extend_from_slice(query);
            input.push(b',');
            let expected = expected.map(|text| text.parse().expect("an address"));
            let whole = Decoded::Whole { request: expected, used: input.len() };
            assert_eq!(read(&input), whole, "{}", query.escape_ascii());
            is_whole_only_at_its_end(&input, |input| read(input).map(drop));
        }
    }

    #[test]
    fn the_longest_query() {
        let long = |size: usize| format!("{size}:{},", "a".repeat(size)).into_bytes();
        assert!(matches!(read(&long(MAX_QUERY)), Decoded::Whole { request: None, .. }));
        assert_eq!(read(&long(MAX_QUERY + 1)[..5]), Decoded::Broken);
    }

    #[test]
    fn replies() {
        let reply = |value| {
            let mut output = Vec::new();
            write(value, &mut output);
            String::from_utf8(output)
        };
        assert_eq!(reply(Some("OK")).as_deref(), Ok("5:OK OK,"));
        assert_eq!(reply(Some("permit")).as_deref(), Ok("9:OK permit,"));
        assert_eq!(reply(None).as_deref(), Ok("9:NOTFOUND ,"));
    }
}
