//! Dovecot's configuration, as doveconf(1) prints it: where and how it logs logins.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::super::findings::Report;
use super::super::forwarder::LogsAs;
use super::super::host::Host;
use super::elements;
use super::elements::{is_login, line};
use super::file::{FileSetting, settings};
use super::{more_programs, replace_description};
use crate::engine::maildaemons::{MailDaemon, facility_code};
use crate::sys::child;

const DOVECONF: [&str; 3] = ["/usr/bin/doveconf", "/usr/local/bin/doveconf", "/usr/sbin/doveconf"];
/// It answers in a tenth of a second.
const LIMIT: Duration = Duration::from_secs(10);
/// The settings for 2.3, and for the variables of 2.4.
const DEFAULTS: [(&str, &str); 2] = [
    ("%$: %s", "user=<%u> method=%m rip=%r lip=%l mpid=%e %c session=<%{session}>"),
    (
        "%{message}: %{elements}",
        "user=<%{user}> method=%{mechanism} rip=%{remote_ip} lip=%{local_ip} mpid=%{mail_pid} \
         %{secured} session=<%{session}>",
    ),
];
/// The settings that were printed, without sections.
struct Settings {
    values: BTreeMap<String, String>,
    /// The directory of the configuration.
    dir: PathBuf,
    has_proxy: bool,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let top = text.lines().filter(|line| !line.starts_with([' ', '\t', '#', '}']));
        let values = top.filter_map(|line| {
            let (name, value) = line.split_once(" =").or_else(|| line.split_once('='))?;
            let value = value.trim();
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            Some((name.to_owned(), inner.unwrap_or(value).trim().to_owned()))
        });
        let file =
            text.lines().next().and_then(|line| line.rsplit_once(": ")).map(|(_, file)| file);
        let dir =
            file.and_then(|file| Path::new(file).parent()).unwrap_or(Path::new("/etc/dovecot"));
        Self {
            values: values.collect(),
            dir: dir.to_owned(),
            has_proxy: text.split_whitespace().any(|word| word.starts_with("proxy")),
        }
    }

    fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Returns the last line that sets this.
    fn line(&self, name: &str) -> Option<FileSetting> {
        settings(&self.dir, name, '=').into_iter().rev().find(|setting| {
            let value = setting.value.trim_matches('"').trim();
            value == self.get(name)
        })
    }

    /// Returns the commands that give a setting another value, or its default.
    fn change(&self, name: &str, value: Option<&str>) -> String {
        let line = value.map(|value| format!("{name} = {value}"));
        match (self.line(name), line) {
            (Some(setting), Some(line)) => format!("{} && {}", setting.replace(&line), restart()),
            (Some(setting), None) => format!("{} && {}", setting.disable(), restart()),
            (None, Some(line)) => format!(
                "echo '{}' >> {} && {}",
                line.replace('\'', r"'\''"),
                self.dir.join("dovecot.conf").display(),
                restart()
            ),
            (None, None) => format!("remove {name} from dovecot.conf, then: {}", restart()),
        }
    }
}

fn restart() -> &'static str {
    "systemctl restart dovecot"
}

/// Reports what keeps Dovecot's logins from being logged, or from being recognised, and returns how
/// it logs. `dir` has the administrator's descriptions.
pub async fn examine(
    daemon: &MailDaemon,
    dir: &Path,
    host: &Host,
    is_silent: bool,
    report: &mut Report,
) -> Option<LogsAs> {
    let doveconf = DOVECONF.iter().find(|path| Path::new(path).exists())?;
    let text = match child::run(Command::new(doveconf).arg("-a"), LIMIT).await {
        Ok(text) => text,
        Err(error) => {
            report.note(
                format!("cannot read Dovecot's configuration: {doveconf}: {error}"),
                "Whether it logs logins as expected could not be examined.",
                "doveconf -n",
            );
            return None;
        }
    };
    let settings = Settings::parse(&text);
    let before = report.findings().len();
    destination(&settings, host, report);
    login_lines(&settings, daemon, dir, report);
    forgery(&settings, report);
    listeners(&settings, report);
    if is_silent {
        cleartext(&settings, report);
    }
    let program = match settings.get("instance_name") {
        "" => "dovecot",
        name => name,
    };
    if !daemon.programs.iter().any(|known| known == program) {
        report.problem(
            format!("Dovecot logs as `{program}` (instance_name), which is not known"),
            "Logins under this program name do not count.",
            more_programs(daemon, dir, &[program.to_owned()]),
        );
        return None;
    }
    if report.findings().len() == before {
        report.ok("Dovecot's configuration logs logins as expected");
    }
    let facility = facility_code(settings.get("syslog_facility")).ok();
    Some(LogsAs { daemon: daemon.name.clone(), programs: vec![program.to_owned()], facility })
}

/// Where login lines go: `info_log_path`, or else `log_path`.
fn destination(settings: &Settings, host: &Host, report: &mut Report) {
    let (name, path) = match settings.get("info_log_path") {
        "" => ("log_path", settings.get("log_path")),
        path => ("info_log_path", path),
    };
    if path.is_empty() || path == "syslog" || is_followed(path) {
        return;
    }
    let value = (name == "log_path").then_some("syslog");
    report.problem(
        format!("Dovecot does not log logins to syslog: {name} = {path}"),
        format!(
            "No login of it can count. Let it log to syslog; or, if the file must stay, have rsyslog \
             follow it ({}).",
            host.shipped("rsyslog/dovecot-file.conf")
        ),
        settings.change(name, value),
    );
}

/// Returns whether rsyslog follows this file.
fn is_followed(path: &str) -> bool {
    let files = fs::read_dir("/etc/rsyslog.d").into_iter().flatten();
    files.filter_map(|entry| Some(entry.ok()?.path())).any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.any(|line| line.contains("imfile") && line.contains(&format!("\"{path}\"")))
    })
}

/// The form of the login line.
fn login_lines(settings: &Settings, daemon: &MailDaemon, dir: &Path, report: &mut Report) {
    let (form, elements) =
        (settings.get("login_log_format"), settings.get("login_log_format_elements"));
    if form.is_empty() || elements.is_empty() || is_login(daemon, form, elements) {
        return;
    }
    let is_new = elements.contains("%{user}") || form.contains("%{message}");
    let (default_form, default_elements) = DEFAULTS[usize::from(is_new)];
    let (name, value) = if is_login(daemon, form, default_elements) {
        let mended = mended(daemon, form, elements, default_elements);
        ("login_log_format_elements", mended)
    } else {
        ("login_log_format", default_form.to_owned())
    };
    report.problem(
        format!("Dovecot's {name} gives login lines that are not recognised"),
        format!(
            "They would read `{}`: no login of it can count. `user`, `method` and `rip` must come \
             first, in this order, and only Dovecot's own fields may follow.",
            line(form, elements)
        ),
        settings.change(name, Some(&value)),
    );
    let knows_names = !settings.get("auth_mechanisms").to_lowercase().contains("anonymous");
    let is_default = DEFAULTS.iter().any(|(usual, _)| *usual == form);
    if let Some(lines) = elements::description(daemon, form, elements)
        && is_default
        && knows_names
    {
        report.note(
            "a description takes Dovecot's login lines as they are",
            "The other way, if login_log_format_elements must stay. `check` proves that no message of a \
             client without a password matches it. Compare it with newer versions of the built-in \
             description, which it replaces.",
            replace_description(daemon, dir, &elements::command(daemon, &lines)),
        );
    }
}

/// Returns the administrator's elements in an order that is recognised, without those that cannot be.
fn mended(daemon: &MailDaemon, form: &str, elements: &str, default: &str) -> String {
    let first: Vec<&str> = default.split_whitespace().take(3).collect();
    let mut kept = first.join(" ");
    let name = |element: &str| element.split('=').next().unwrap_or_default().to_owned();
    let others = elements
        .split_whitespace()
        .filter(|element| !first.iter().any(|first| name(first) == name(element)));
    for element in others {
        let longer = format!("{kept} {element}");
        if is_login(daemon, form, &longer) {
            kept = longer;
        }
    }
    kept
}

/// What lets clients that have not logged in write the line of a login: a long line that is split, and a
/// login proxy with any characters in names.
fn forgery(settings: &Settings, report: &mut Report) {
    let identification = settings.get("imap_id_log");
    if !identification.is_empty() {
        report.problem(
            format!("Dovecot logs what clients say of themselves: imap_id_log = {identification}"),
            "Any client can make such a line so long that Dovecot splits it, and that its second part looks \
             like a login. So no login counts within a minute after a long one.",
            settings.change("imap_id_log", None),
        );
    }
    let chars = settings.values.get("auth_username_chars");
    if !chars.is_some_and(String::is_empty) || !settings.has_proxy {
        return;
    }
    report.problem(
        "Dovecot is a login proxy and allows any character in user names (auth_username_chars is empty)",
        "With auth_verbose, and a passdb that asks for no password, an unauthenticated client can forge \
         a login line with a name that contains one.",
        settings.change("auth_username_chars", None),
    );
}

/// Clients without TLS, as long as no client has logged in.
fn cleartext(settings: &Settings, report: &mut Report) {
    let refusals = [
        ("ssl", "required", "yes"),
        ("disable_plaintext_auth", "yes", "no"),
        ("auth_allow_cleartext", "no", "yes"),
    ];
    let found = refusals.into_iter().filter(|(name, value, _)| settings.get(name) == *value);
    let (mut set, mut fixes) = (Vec::new(), Vec::new());
    for (name, value, mended) in found {
        set.push(format!("{name} = {value}"));
        fixes.push(settings.change(name, Some(mended)));
    }
    if set.is_empty() {
        return;
    }
    report.note(
        format!("Dovecot refuses logins without TLS: {}", set.join(", ")),
        "No client has logged in yet. A device that cannot do TLS never will.",
        format!("leave it if all devices can do TLS; otherwise: {}", fixes.join(" && ")),
    );
}

/// Services and addresses.
fn listeners(settings: &Settings, report: &mut Report) {
    let protocols = settings.get("protocols");
    let serves = |name: &str| {
        protocols.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found == name)
    };
    if settings.values.contains_key("protocols") && !serves("imap") && !serves("pop3") {
        report.note(
            format!("Dovecot serves neither IMAP nor POP3: protocols = {protocols}"),
            "There are no logins of mail clients to hear.",
            "install dovecot-imapd or dovecot-pop3d; or leave it",
        );
    }
    let listen = settings.get("listen");
    let is_local = |address: &str| {
        address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let mut addresses = listen.split([',', ' ']).filter(|address| !address.is_empty()).peekable();
    if addresses.peek().is_some() && addresses.all(is_local) {
        report.note(
            format!("Dovecot listens on this host only: listen = {listen}"),
            "All clients come through a proxy or a webmail here, and its address never counts.",
            settings.change("listen", None),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::maildaemons;

    fn dovecot() -> MailDaemon {
        let (daemons, _) = maildaemons::all(&[]);
        daemons.into_iter().find(|daemon| &*daemon.name == "dovecot").expect("it is built in")
    }

    #[test]
    fn the_defaults_are_recognised() {
        for (form, elements) in DEFAULTS {
            assert!(is_login(&dovecot(), form, elements), "{}", line(form, elements));
        }
    }

    #[test]
    fn elements_are_mended() {
        let rows = [
            ("rip=%r user=<%u> %c", "user=<%u> method=%m rip=%r %c"),
            (
                "user=<%u> method=%m rip=%r lip=%l country=%{passdb:cc} session=<%{session}>",
                "user=<%u> method=%m rip=%r lip=%l session=<%{session}>",
            ),
            ("%u %r", "user=<%u> method=%m rip=%r"),
        ];
        let (form, default) = DEFAULTS[0];
        for (elements, expected) in rows {
            assert!(!is_login(&dovecot(), form, elements), "{elements}");
            let mended = mended(&dovecot(), form, elements, default);
            assert_eq!(mended, expected);
            assert!(is_login(&dovecot(), form, &mended));
        }
    }

    #[test]
    fn settings_are_read_without_sections() {
        let text = "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\nprotocols = \" pop3\"\n\
                    log_path = \npassdb {\n  args = proxy=y host=127.0.0.1\n  log_path = /x\n}\n";
        let settings = Settings::parse(text);
        assert_eq!((settings.get("protocols"), settings.get("log_path")), ("pop3", ""));
        assert!(settings.has_proxy && settings.dir == Path::new("/etc/dovecot"));
    }
}
