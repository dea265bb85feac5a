//! The three results of decoding requests from a stream of bytes.

/// What the bytes received so far begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A whole request.
    Whole {
        /// The request.
        request: T,
        /// Its length in bytes.
        used: usize,
    },
    /// The beginning of a request.
    Short,
    /// Bytes that cannot become a request. The connection is to be closed.
    Broken,
}

impl<T> Decoded<T> {
    /// Converts the request, if it is whole.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Decoded<U> {
        match self {
            Self::Whole { request, used } => Decoded::Whole { request: make(request), used },
            Self::Short => Decoded::Short,
            Self::Broken => Decoded::Broken,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Decoded;

    /// Asserts that every proper prefix of `whole` is `Short`, and that `whole` is decoded the same
    /// whatever follows it.
    pub fn is_whole_only_at_its_end(whole: &[u8], read: impl Fn(&[u8]) -> Decoded<()>) {
        for end in 0..whole.len() {
            let short = matches!(read(&whole[..end]), Decoded::Short);
            assert!(short, "{}", whole[..end].escape_ascii());
        }
        for rest in [&b""[..], b"\n", b"\0", b"9", whole] {
            let Decoded::Whole { used, .. } = read(&[whole, rest].concat()) else {
                panic!("{} before {}", whole.escape_ascii(), rest.escape_ascii());
            };
            assert_eq!(used, whole.len());
        }
    }
}
