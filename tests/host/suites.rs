//! The files of deploy/suites, unchanged, with the logs and the restrictions that mail suites configure,
//! and the real Dovecot, rsyslog, syslog-ng and Postfix.
//!
//! The configurations of the suites are rebuilt here: what decides about logins and relaying, as they were
//! in 2026. Tables in SQL are replaced by `static:`, and what asks the DNS is left out.

mod logs;
mod restrictions;

use std::fs;
use std::path::Path;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";

fn deployed(path: &str) -> String {
    fs::read_to_string(Path::new(DEPLOY).join(path)).expect("a file of deploy/")
}
