//! pop-before-smtp: whoever has just logged in by POP3 or IMAP may relay mail for a while.
//!
//! The house in one walk. [`engine`] is the sentence: it hears frames, remembers addresses until a
//! moment, and knows what the map should say; it has neither clock nor socket nor disk. Everything
//! else is the weather around it. [`receiver`] takes frames from sockets; [`state_file`] writes
//! down what was decided, [`publisher`] publishes it through [`postfix::postmap`], and [`sweeper`]
//! takes out what has ended; [`lookup`] answers Postfix, [`control`] operators with
//! [`status`], [`metrics`] their monitoring, and [`connections`] says who of them all keeps a seat.
//! They never meet: each speaks to the engine through
//! [`shared`], the one door, which is also the only reader of the clock. [`daemon`] is the order of
//! life, from [`privacy`] to [`signals`]. [`config`] holds what the administrator has decided, and
//! [`rules`] makes the engine's rules of it, of what [`host`] and [`postfix`] say, of the mail
//! daemons' files and of the [`sender_tables`]. [`log`] never makes anyone wait, and [`terminal`] is
//! how things look. [`cli`] turns words into a command, [`client`] and [`trial`] are commands of
//! their own; [`doctor`] examines what is around the daemon.

pub mod child;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod host;
pub mod lock;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod postfix;
pub mod privacy;
pub mod publisher;
pub mod receiver;
pub mod rules;
pub mod seldom;
pub mod sender_tables;
pub mod shared;
pub mod signals;
pub mod state_file;
pub mod status;
pub mod sweeper;
pub mod systemd;
pub mod terminal;
pub mod trial;
pub mod unix_socket;
