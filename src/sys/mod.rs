//! The operating system: files, processes, sockets, systemd, the log. Knows nothing of mail.

pub mod blocking;
pub mod child;
pub mod files;
pub mod host;
pub mod lock;
pub mod log;
pub mod log_limit;
pub mod programs;
pub mod systemd;
pub mod terminal;
pub mod trusted_file;
pub mod unix_socket;
