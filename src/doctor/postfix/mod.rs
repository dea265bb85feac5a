//! What Postfix does with a client: the restrictions in main.cf and master.cf, and the processes that
//! apply them.

pub mod corrections;
pub mod known;
pub mod master;
pub mod processes;
pub mod restrictions;
