//! Base 64, for captured datagrams in text files.

/// Decodes base 64 (RFC 4648).
pub fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).expect("base 64") as u32;
    let quads = text.trim_end_matches('=').as_bytes().chunks(4);
    let decode = |quad: &[u8]| {
        let bits = quad.iter().fold(0, |bits, byte| bits << 6 | value(byte));
        let aligned = bits << (6 * (4 - quad.len()));
        aligned.to_be_bytes()[1..quad.len()].to_vec()
    };
    quads.flat_map(decode).collect()
}
