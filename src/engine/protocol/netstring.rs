//! Netstrings (<https://cr.yp.to/proto/netstrings.txt>): `LENGTH:BYTES,`.
//!
//! - **Promise**: a length that is too large is `Broken` at its last digit, before a byte of the
//!   body has arrived. Leading zeros are refused, as the specification requires.

use super::decoded::Decoded;

/// Decodes the netstring at the beginning of `input`, with a body of at most `max` bytes.
pub fn read(input: &[u8], max: usize) -> Decoded<&[u8]> {
    let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = 0_usize;
    for digit in &input[..digits] {
        length = length * 10 + usize::from(digit - b'0');
        if length > max {
            return Decoded::Broken;
        }
    }
    if digits > 1 && input[0] == b'0' {
        return Decoded::Broken;
    }
    let rest = match input.get(digits) {
        None => return Decoded::Short,
        Some(b':') if digits > 0 => &input[digits + 1..],
        Some(_) => return Decoded::Broken,
    };
    match rest.get(length) {
        None => Decoded::Short,
        Some(b',') => Decoded::Whole { request: &rest[..length], used: digits + length + 2 },
        Some(_) => Decoded::Broken,
    }
}

/// Appends the netstring of `body`.
pub fn write(body: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(format!("{}:{body},", body.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::decoded::tests::is_whole_only_at_its_end;

    #[test]
    fn whole_short_and_broken() {
        let whole: &[(&[u8], &[u8])] = &[
            (b"0:,", b""),
            (b"3:abc,", b"abc"),
            (b"3:,,,,", b",,,"),
            (b"2:\xff\0,", b"\xff\0"),
            (b"10:0123456789,", b"0123456789"),
        ];
        for (input, body) in whole {
            let expected = Decoded::Whole { request: *body, used: input.len() };
            assert_eq!(read(input, 10), expected, "{}", input.escape_ascii());
            is_whole_only_at_its_end(input, |input| read(input, 10).map(drop));
        }
        let broken: &[&[u8]] = &[
            b":",
            b",",
            b"a",
            b" 3:abc,",
            b"-1:,",
            b"+3:abc,",
            b"3;",
            b"3 :abc,",
            b"03:abc,",
            b"00",
            b"11",
            b"99999999999999999999999999",
            b"3:abcd",
            b"3:abc\n",
            b"0:a",
            b"\xff\xff\xff\xff",
            b"\0",
            b"GET / HTTP/1.1\r\n",
        ];
        for input in broken {
            assert_eq!(read(input, 10), Decoded::Broken, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for body in ["", "OK OK", "NOTFOUND "] {
            let mut output = b"1:x,".to_vec();
            write(body, &mut output);
            let expected = Decoded::Whole { request: body.as_bytes(), used: output.len() - 4 };
            assert_eq!(read(&output[4..], 100), expected);
        }
    }
}
