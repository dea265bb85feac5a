//! The engine by itself, with invented time and messages: who is authorised, until when, and why.
//!
//! - **Layers**: `stories`, `story_lines`, `users`, `login_rules`, `limits`, `events`, `sessions`,
//!   `restarts` and `long_frames` test what it promises; `corpus`, `likeness`, `shapes` and `proof` how it
//!   understands the messages of mail daemons; `purity` that it uses nothing outside.
//! - **Needs**: nothing, neither root nor another program.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod corpus;
mod events;
mod likeness;
mod limits;
mod login_rules;
mod long_frames;
mod one_pass;
mod proof;
mod purity;
mod restarts;
mod sessions;
mod shapes;
mod stories;
mod story_lines;
mod users;
