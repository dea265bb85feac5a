//! The three answers of whoever reads requests from a stream of bytes.

/// What the front of the bytes received so far is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A whole request.
    Whole {
        /// The request.
        request: T,
        /// How many bytes it has.
        used: usize,
    },
    /// The beginning of a request.
    Short,
    /// Nothing that more bytes could make a request of. The connection is of no further use.
    Broken,
}

impl<T> Decoded<T> {
    /// Makes something of the request, if it is whole.
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

    /// Asserts that every proper beginning of `whole` is `Short`, and that `whole` is read as
    /// itself whatever follows it.
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
