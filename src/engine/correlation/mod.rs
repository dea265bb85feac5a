//! What several messages from the same place mean together.

pub mod aging;
pub mod joins;
pub mod key;
pub mod sessions;
pub mod streams;
