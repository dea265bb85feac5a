//! What a command says to the running daemon.

pub mod client;
