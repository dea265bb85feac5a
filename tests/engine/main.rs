//! The engine, by itself, with invented time and messages: who is authorised, until when, and why.
//!
//! Layers   `stories`, `story_lines`, `users`, `sessions`, `restarts` and `long_frames` what it promises; `corpus`,
//!          `shapes` and `proof` what it makes of the messages that mail daemons write; `purity`
//!          that it knows nothing of the world outside.
//! Needs    nothing: no root, no other program.

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod long_frames;
mod proof;
mod purity;
mod restarts;
mod sessions;
mod shapes;
mod stories;
mod story_lines;
mod users;
