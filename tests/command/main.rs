//! The program as a command: what it prints, with which status it ends, and whether the documents
//! say the same.
//!
//! Layers   `commands` and `eyes` what scripts and people see; `config_faults` what is refused;
//!          `doctor` what it finds and mends; `readme`, `guide` and `manuals` the documents.
//! Needs    root; a mount namespace; Postfix and rsyslog.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod config_faults;
mod doctor;
mod eyes;
mod guide;
mod manuals;
mod readme;
