//! pop-before-smtp: after a POP3 or IMAP login, the client's address may relay through Postfix for a
//! while.
//!
//! This library exists for the program and its tests; its API is not stable. The modules:
//!
//! - [`cli`]: command line in, exit status out.
//! - [`doctor`]: diagnoses the host; only [`cli`] imports it.
//! - [`daemon`]: all that lives while `run` runs. Its parts meet only in [`daemon::shared`], the one
//!   lock around the engine and the only reader of the clock.
//! - [`control`]: the protocol between commands and the running daemon, and its client.
//! - [`rules`]: makes the engine's rules of configuration, files, host and Postfix.
//! - [`config`]: what the administrator wrote.
//! - [`postfix`]: what is asked of Postfix and built with it.
//! - [`sys`]: the operating system; knows nothing of mail.
//! - [`engine`]: pure: from frames to grants, from questions to answers. It knows no clock, socket or
//!   disk.
//! - [`error`]: failures with a hint, and exit statuses.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod postfix;
pub mod rules;
pub mod sys;
