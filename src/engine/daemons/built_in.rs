//! The descriptions that come with the program, embedded as they are written.

/// Name and text of every built-in description.
pub const BUILT_IN: &[(&str, &str)] = &[];
