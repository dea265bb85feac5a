//! pop-before-smtp: whoever has just logged in by POP3 or IMAP may relay mail for a while.

pub mod child;
pub mod disk;
pub mod engine;
pub mod error;
pub mod mapspec;
pub mod mynetworks;
pub mod postfix;
pub mod postmap;
