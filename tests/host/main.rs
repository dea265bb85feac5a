//! The daemon among the programs of a host: service manager, package, containers, syslog daemons,
//! routes, Exim, with the files of deploy/ unchanged.
//!
//! - **Needs**: root; mount, process and network namespaces; what tests/all installs, and in
//!   target/tools the Debian, mail and syslog daemons that it unpacks.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "cluster")]
mod cluster_files;
mod container;
mod doctor;
mod exim;
mod gateways;
mod hooks;
mod init_scripts;
mod installation;
mod mandatory_access;
mod package;
mod recipes;
mod relay;
mod relp;
mod sendmail;
mod suites;
mod systemd;
