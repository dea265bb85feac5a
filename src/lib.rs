//! pop-before-smtp: after a POP3 or IMAP login, the client's address may relay through Postfix for
//! a while.
//!
//! This library exists for the program and its tests; its API is not stable. The modules:
//!
//! - [`cli`]: command line in, exit status out.
//! - [`doctor`]: diagnoses the host; only [`cli`] imports it.
//! - [`daemon`]: everything that exists only while `run` runs. Its parts meet only in
//!   [`daemon::shared`], the one lock around the engine, and the only source of its
//!   time while the daemon runs.
//! - [`control`]: the protocol between commands and the running daemon, and its client.
//! - [`rules`]: builds the engine's rules from configuration, files, host and Postfix.
//! - [`config`]: what the administrator configured.
//! - [`postfix`]: queries Postfix and builds maps with its programs.
//! - [`sys`]: the operating system; knows nothing of mail.
//! - [`engine`]: pure: from frames to grants, from requests to answers. It knows no clock, socket
//!   or disk.
//! - [`error`]: failures with a hint, and exit statuses.
//!
//! Terms:
//!
//! - **Mail daemon**: a POP3 or IMAP server or proxy whose log messages count.
//! - **Frame**: one syslog message as it was received.
//! - **Login**: what one or several messages of a mail daemon prove: a user logged in from an
//!   address.
//! - **Client address**: the IP address of the mail client, as the mail daemon logged it.
//! - **Grant**: a client address with the time at which its authorisation expires.
//! - **Authorised**: has a grant that has not expired, and so may relay.
//! - **Exclusion**: an address or network that is never authorised, such as loopback.
//! - **Shared address**: a client address of more users than `max-users-per-address`; not
//!   authorised.
//! - **Session**: a client's connection to a mail daemon, from login to log-out.
//! - **Generation**: one complete version of the map, numbered.
//! - **Fallback map**: an empty map, prepared to replace one that cannot be rebuilt.

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
