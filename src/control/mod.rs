//! How commands and the running daemon speak with each other.
//!
//! - **Parts**: `protocol` is what they say, with `status` as the longest answer; `client` asks. The
//!   daemon's side is [`crate::daemon::control`].

pub mod client;
pub mod protocol;
pub mod status;
