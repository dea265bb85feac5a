//! A text that is searched for in many messages.

use memchr::memmem::Finder;

/// A text, prepared for being searched for.
#[derive(Clone, Debug)]
pub struct Literal {
    text: String,
    finder: Finder<'static>,
}

impl Literal {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether a message contains it.
    pub fn is_in(&self, message: &str) -> bool {
        self.finder.find(message.as_bytes()).is_some()
    }

    /// Returns whether a message contains it exactly once, as counted by [`str::matches`].
    pub fn is_once_in(&self, message: &str) -> bool {
        self.finder.find_iter(message.as_bytes()).take(2).count() == 1
    }
}

impl From<String> for Literal {
    fn from(text: String) -> Self {
        Self { finder: Finder::new(&text).into_owned(), text }
    }
}
