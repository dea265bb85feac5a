//! What several messages of one place mean together.

pub mod aging;
pub mod joins;
pub mod sessions;
pub mod streams;
