//! pop-before-smtp: whoever has just logged in by POP3 or IMAP may relay mail for a while.

pub mod engine;
pub mod error;
