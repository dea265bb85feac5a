//! The control protocol between commands and the running daemon.
//!
//! - **Parts**: [`protocol`] has the requests and answers, [`status`] the longest answer; [`client`]
//!   sends requests. The daemon's side is [`crate::daemon::control`].

pub mod client;
pub mod protocol;
pub mod status;
