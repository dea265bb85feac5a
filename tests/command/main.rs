//! The commands: what they print, their exit status, and whether the documentation agrees.
//!
//! - **Parts**: `commands` and `output` test what scripts and people see, `config_faults` what is
//!   refused, `doctor` and `cut_messages` what `doctor` finds; `readme`, `guide` and `manuals` test the documentation.
//! - **Needs**: root; a mount namespace; Postfix and rsyslog.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod config_faults;
mod cut_messages;
mod doctor;
mod guide;
mod login_rules;
mod manuals;
mod misconfigurations;
mod output;
mod readme;
