//! Courier's settings that matter for its log.

use std::path::Path;

use super::super::findings::Report;
use super::file::settings;

/// The directories of its configuration.
const DIRS: [&str; 2] = ["/etc/courier", "/etc/authlib"];
/// What rsyslog reads.
const RSYSLOG: [&str; 2] = ["/etc/rsyslog.conf", "/etc/rsyslog.d"];

/// Reports settings with which its logins are missed, or can be forged.
pub fn examine(report: &mut Report) {
    for dir in DIRS {
        for setting in settings(Path::new(dir), "DEBUG_LOGIN", '=') {
            if setting.value.trim_matches('"') == "0" {
                continue;
            }
            report.note(
                format!("Courier has DEBUG_LOGIN={} in {}", setting.value, setting.file.display()),
                "It logs what clients send, and logins are missed while a client sends long commands.",
                format!(
                    "{} && systemctl restart courier-authdaemon courier-pop courier-imap",
                    setting.replace("DEBUG_LOGIN=0")
                ),
            );
        }
    }
    let journal = RSYSLOG.iter().find_map(|place| {
        let place = Path::new(place);
        let mut files = vec![place.to_owned()];
        files.extend(
            std::fs::read_dir(place).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())),
        );
        files.into_iter().find(|file| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines()
                .any(|line| !line.trim_start().starts_with('#') && line.contains("imjournal"))
        })
    });
    if let Some(file) = journal {
        report.problem(
            format!("{} reads Courier's log from the journal (imjournal)", file.display()),
            "The journal removes blanks at the end of a fragment of a split line, which is then not \
             recognised: an unauthenticated client can authorise its own address.",
            "have rsyslog read the log socket instead: module(load=\"imuxsock\"), without imjournal",
        );
    }
}
