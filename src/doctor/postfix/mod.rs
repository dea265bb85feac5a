//! What Postfix does with a client: the restrictions in main.cf and master.cf.

pub mod master;
pub mod restrictions;
