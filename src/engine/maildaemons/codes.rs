//! Facilities and severities by name.

/// Facility names of syslog.conf(5), at the index of their code (RFC 5424 section 6.2.1).
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
/// Severity names of syslog.conf(5), at the index of their code (RFC 5424 section 6.2.1).
pub(super) const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Returns the code of a facility.
///
/// # Errors
/// A sentence that lists all names.
pub fn facility_code(name: &str) -> Result<u8, String> {
    code(name, &FACILITIES, "facility")
}

pub(super) fn code(name: &str, known: &[&str], what: &str) -> Result<u8, String> {
    let code = known.iter().position(|k| *k == name).and_then(|code| u8::try_from(code).ok());
    code.ok_or_else(|| format!("`{name}` is not a syslog {what} (one of {})", known.join(", ")))
}
