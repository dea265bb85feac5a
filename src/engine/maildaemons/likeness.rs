//! What looks like a login although no pattern takes it: the words of a description.
//!
//! - **Promise**: this decides only what is reported, never who may relay. A message that a stranger
//!   can cause does not look like a login; tests/engine/likeness.rs checks that against the corpus.

use super::literal::Literal;

/// The words that logins of a mail daemon contain in every version, and those that tell other
/// messages from them.
#[derive(Clone, Debug, Default)]
pub struct LoginWords {
    begin: Vec<String>,
    login: Vec<Literal>,
    other: Vec<Literal>,
}

impl LoginWords {
    /// Creates them: a message looks like a login if it contains one of `login` and none of `other`.
    /// It must begin with a word after `^`.
    pub fn new(login: &[String], other: &[String]) -> Self {
        let anywhere = login.iter().filter(|word| !word.starts_with('^'));
        let anchored = login.iter().filter_map(|word| word.strip_prefix('^'));
        Self {
            begin: anchored.map(str::to_owned).collect(),
            login: anywhere.cloned().map(Literal::from).collect(),
            other: other.iter().cloned().map(Literal::from).collect(),
        }
    }

    /// Returns whether a message looks like a login.
    pub fn fit(&self, text: &str) -> bool {
        let has = |words: &[Literal]| words.iter().any(|word| word.is_in(text));
        let begins = || self.begin.iter().any(|word| text.starts_with(word));
        (begins() || has(&self.login)) && !has(&self.other)
    }
}
