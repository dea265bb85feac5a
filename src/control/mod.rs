//! The control protocol between commands and the running daemon.
//!
//! - **Parts**: [`protocol`] has the requests and answers, [`status`] the longest answer, [`events`]
//!   the lines of a watch; [`client`] sends requests. The daemon's side is [`crate::daemon::control`].

pub mod client;
pub mod events;
pub mod json;
pub mod protocol;
pub mod status;
