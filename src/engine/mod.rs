//! The sentence itself: who has logged in, until when, and what Postfix should know of it.

pub mod address;
pub mod map;
pub mod proof;
pub mod syslog;
pub mod time;
