//! What streams, processes and sessions are remembered by.

/// A stream, process or session, as a keyed hash: of fixed size however long the names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(super) u64);
