//! What Postfix does with a client: its restrictions, as main.cf and master.cf name them.

pub mod master;
pub mod restrictions;
