//! `doctor` on a complete Debian, with the package, the real rsyslog, Dovecot and systemd: one
//! misconfiguration after another, made by hand.
//!
//! - **Promise**: in each row a client logs in to Dovecot, and Postfix refuses its mail; `doctor`
//!   reports the cause; its fix, run as it is printed, leaves no problem; and then the client logs in
//!   and Postfix accepts its mail. (With the misconfigurations that open the host, mail is accepted
//!   before, too.)

use serde_json::Value;

use super::package::{CLIENT, PACKAGE, POSTFIX, host, rcpt};
use crate::support::client::{POP3, Session};
use crate::support::systemd::{Systemd, readme};
use crate::support::{PATIENCE, within};

/// A misconfiguration.
struct Row {
    /// The commands that make it.
    fault: &'static str,
    /// Postfix's reply to a client that has logged in.
    broken: u16,
    /// The severity of the finding.
    level: &'static str,
    /// Part of its `what`.
    what: &'static str,
    /// Part of its `why`.
    why: &'static str,
    /// Part of its `fix`.
    fix: &'static str,
    /// The commands that undo what the fix has left.
    after: &'static str,
}

/// Postfix's replies to a recipient elsewhere.
const REFUSED: u16 = 454;
const OPEN: u16 = 250;

/// Services may be restarted as often as the rows need it.
const NO_LIMITS: &str = "for unit in rsyslog.service syslog.socket dovecot.service; do \
    install -d /etc/systemd/system/$unit.d; \
    printf '[Unit]\\nStartLimitIntervalSec=0\\n' > /etc/systemd/system/$unit.d/limit.conf; done; \
    systemctl daemon-reload";

/// What keeps the login lines of one mail daemon from counting.
const MAIL_DAEMONS: &[Row] = &[
    Row {
        fault: "printf ':programname, isequal, \"dovecot\" /var/log/pop\\n& stop\\n' \
                > /etc/rsyslog.d/00-dovecot.conf; systemctl restart rsyslog",
        broken: REFUSED,
        level: "problem",
        what: "login lines of dovecot do not arrive (program `dovecot`, facility mail)",
        why: "/etc/rsyslog.d/00-dovecot.conf:2 discards them first: `& stop`",
        fix: "mv /etc/rsyslog.d/00-pop-before-smtp.conf '/etc/rsyslog.d/00-0-pop-before-smtp.conf'",
        after: "rm /etc/rsyslog.d/00-dovecot.conf; cd /etc/rsyslog.d; \
                mv 00-0-pop-before-smtp.conf 00-pop-before-smtp.conf; systemctl restart rsyslog",
    },
    // As iRedMail does it, with our file where older versions of it were.
    Row {
        fault: "cd /etc/rsyslog.d; mv 00-pop-before-smtp.conf 40-pop-before-smtp.conf; \
                printf \"if \\$syslogfacility-text == 'local5' and \\$programname == 'dovecot' then \
                -/var/log/dovecot.log\\n& stop\\n\" > 1-iredmail-dovecot.conf; \
                echo 'syslog_facility = local5' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart rsyslog dovecot",
        broken: REFUSED,
        level: "problem",
        what: "login lines of dovecot do not arrive (program `dovecot`, facility local5)",
        why: "1-iredmail-dovecot.conf:2 discards them first",
        fix: "'/etc/rsyslog.d/00-pop-before-smtp.conf' && rsyslogd -N1",
        after: "rm /etc/rsyslog.d/1-iredmail-dovecot.conf",
    },
    Row {
        fault: "sed -i 's/local5,//' /etc/rsyslog.d/00-pop-before-smtp.conf; systemctl restart rsyslog",
        broken: REFUSED,
        level: "problem",
        what: "the forwarder does not deliver: local5",
        why: "Logins of dovecot are logged there",
        fix: "s/\\./,local5./' /etc/rsyslog.d/00-pop-before-smtp.conf",
        after: "rm /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
    },
    Row {
        fault: "echo 'log_path = /var/log/dovecot.log' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart dovecot",
        broken: REFUSED,
        level: "problem",
        what: "Dovecot does not log logins to syslog: log_path = /var/log/dovecot.log",
        why: "/usr/share/doc/pop-before-smtp/examples/rsyslog/dovecot-file.conf",
        fix: "|log_path = syslog|' /etc/dovecot/conf.d/99-suite.conf",
        after: "rm /etc/dovecot/conf.d/99-suite.conf",
    },
    Row {
        fault: "echo 'info_log_path = /var/log/dovecot-info.log' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart dovecot",
        broken: REFUSED,
        level: "problem",
        what: "info_log_path = /var/log/dovecot-info.log",
        why: "No login of it can count",
        fix: "sed -i '1s|^|#|' /etc/dovecot/conf.d/99-suite.conf && systemctl restart dovecot",
        after: "rm /etc/dovecot/conf.d/99-suite.conf",
    },
    Row {
        fault: "echo 'login_log_format_elements = rip=%r user=<%u> country=%{passdb:country} %c' \
                > /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
        broken: REFUSED,
        level: "problem",
        what: "login_log_format_elements gives login lines that are not recognised",
        why: "`imap-login: Login: rip=192.0.2.7, user=<joe>, country=x, TLS`",
        fix: "login_log_format_elements = user=<%u> method=%m rip=%r %c",
        after: "rm /etc/dovecot/conf.d/99-suite.conf",
    },
    // The same, and the other way: the description that is shown.
    Row {
        fault: "echo 'login_log_format_elements = rip=%r user=<%u> country=%{passdb:country} %c' \
                > /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
        broken: REFUSED,
        level: "note",
        what: "a description takes Dovecot's login lines as they are",
        why: "if login_log_format_elements must stay",
        fix: "'line = \"dovecot: imap-login: Login: rip=192.0.2.7, user=<joe>, country=x, TLS\"'",
        after: "grep -q country= /etc/pop-before-smtp/daemons/dovecot.toml; \
                doveconf login_log_format_elements | grep -q country=; \
                rm /etc/dovecot/conf.d/99-suite.conf /etc/pop-before-smtp/daemons/dovecot.toml; \
                systemctl restart dovecot pop-before-smtp",
    },
    Row {
        fault: "echo 'login_log_format = %s -- %$' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart dovecot",
        broken: REFUSED,
        level: "problem",
        what: "login_log_format gives login lines that are not recognised",
        why: "-- Login`",
        fix: "login_log_format = %$: %s",
        after: "rm /etc/dovecot/conf.d/99-suite.conf",
    },
    Row {
        fault: "echo 'instance_name = mailstore' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart dovecot",
        broken: REFUSED,
        level: "problem",
        what: "Dovecot logs as `mailstore` (instance_name), which is not known",
        why: "do not count",
        fix: "mv dovecot.new dovecot.toml && pop-before-smtp check",
        after: "rm /etc/dovecot/conf.d/99-suite.conf /etc/pop-before-smtp/daemons/dovecot.toml; \
                systemctl restart dovecot pop-before-smtp",
    },
    Row {
        fault: "printf 'auth_username_chars =\\npassdb {\\n  driver = static\\n  args = proxy=y \
                host=127.0.0.9 nopassword=y\\n}\\n' > /etc/dovecot/conf.d/99-suite.conf; \
                systemctl restart dovecot",
        broken: OPEN,
        level: "problem",
        what: "allows any character in user names",
        why: "can forge a login line",
        fix: "sed -i '1s|^|#|' /etc/dovecot/conf.d/99-suite.conf",
        after: "rm /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
    },
    Row {
        fault: "echo 'imap_id_log = *' > /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
        broken: OPEN,
        level: "problem",
        what: "imap_id_log = *",
        why: "its second part looks like a login",
        fix: "sed -i '1s|^|#|' /etc/dovecot/conf.d/99-suite.conf",
        after: "rm /etc/dovecot/conf.d/99-suite.conf; systemctl restart dovecot",
    },
];

/// What keeps everything from the daemon. The last row leaves a host without rsyslog.
const HOST: &[Row] = &[
    Row {
        fault: "sed -i 's/^#listen =/listen =/' /etc/pop-before-smtp/config.toml; \
                systemctl restart pop-before-smtp || true",
        broken: REFUSED,
        level: "problem",
        what: "delete it from `listen` in `/etc/pop-before-smtp/config.toml`",
        why: "does not start with this configuration",
        fix: "sed -i 's/^listen *=/#&/' /etc/pop-before-smtp/config.toml",
        after: "",
    },
    // What a first `run` as root leaves.
    Row {
        fault: "systemctl stop pop-before-smtp.service pop-before-smtp.socket; \
                rm -f /var/lib/pop-before-smtp/*; \
                pop-before-smtp run --listen udp:127.0.0.1:5599 & \
                until pop-before-smtp status > /dev/null 2>&1; do kill -0 $!; sleep 0.1; done; \
                kill $!; wait $!; systemctl restart pop-before-smtp || true",
        broken: REFUSED,
        level: "problem",
        what: "files of the daemon belong to root: /var/lib/pop-before-smtp/",
        why: "once run as root, leaves exactly that",
        fix: "chown pop-before-smtp: /var/lib/pop-before-smtp/",
        after: "",
    },
    Row {
        fault: "systemctl disable --now rsyslog syslog.socket",
        broken: REFUSED,
        level: "problem",
        what: "rsyslog does not run",
        why: "Only the journal gets them",
        fix: "systemctl enable --now rsyslog",
        after: "",
    },
    // As on Ubuntu.
    Row {
        fault: "printf '$PrivDropToUser daemon\\n$PrivDropToGroup daemon\\n' \
                > /etc/rsyslog.d/02-user.conf; systemctl restart rsyslog",
        broken: REFUSED,
        level: "problem",
        what: "the syslog daemon runs as daemon, who may not write to /run/pop-before-smtp/log.sock",
        why: "so no login can count",
        fix: "SocketGroup=daemon",
        after: "rm /etc/rsyslog.d/02-user.conf; systemctl restart rsyslog",
    },
    Row {
        fault: "rm /etc/rsyslog.d/00-pop-before-smtp.conf; systemctl restart rsyslog",
        broken: REFUSED,
        level: "problem",
        what: "messages to /dev/log do not reach the daemon",
        why: "none was forwarded to unix:/run/pop-before-smtp/log.sock",
        fix: "install -m 644 /usr/share/doc/pop-before-smtp/examples/rsyslog/pop-before-smtp.conf",
        after: "",
    },
    Row {
        fault: "sed -i 's/^.IncludeConfig/#&/' /etc/rsyslog.conf; systemctl restart rsyslog",
        broken: REFUSED,
        level: "problem",
        what: "/etc/rsyslog.conf does not include /etc/rsyslog.d",
        why: "rsyslogd reads no file there",
        fix: ">> /etc/rsyslog.conf && install -m 644",
        after: "",
    },
    Row {
        fault: "cd /etc/rsyslog.d; mv 00-pop-before-smtp.conf /root; systemctl restart rsyslog; \
                mv /root/00-pop-before-smtp.conf .",
        broken: REFUSED,
        level: "problem",
        what: "messages to /dev/log do not reach the daemon",
        why: "rsyslogd has not read it",
        fix: "rsyslogd -N1 && systemctl restart rsyslog",
        after: "",
    },
    // What cuts a line of a failed login so that it may look like one.
    Row {
        fault: "sed -i '1i $MaxMessageSize 256' /etc/rsyslog.conf; systemctl restart rsyslog",
        broken: OPEN,
        level: "problem",
        what: "the forwarder cuts messages: one of 900 bytes does not arrive whole",
        why: "whoever tries to log in with a long name chooses where it ends",
        fix: "sed -Ei '1s/(maxmessagesize[^0-9]*)[0-9]+[a-z]*/\\18k/I' /etc/rsyslog.conf",
        after: "grep -qx '$MaxMessageSize 8k' /etc/rsyslog.conf",
    },
    Row {
        fault: "sed -i 's/%msg%/%msg:1:200%/' /etc/rsyslog.d/00-pop-before-smtp.conf; \
                systemctl restart rsyslog",
        broken: OPEN,
        level: "problem",
        what: "the forwarder cuts messages",
        why: "can look like a login",
        fix: "install -m 644 /usr/share/doc/pop-before-smtp/examples/rsyslog/pop-before-smtp.conf",
        after: "sed -i 1d /etc/rsyslog.conf; systemctl restart rsyslog",
    },
    // This kernel may have no AppArmor: a profile that is said to be enforced, and a parser that lets
    // rsyslogd through.
    Row {
        fault: "mount -t tmpfs none /sys/kernel/security; mkdir /sys/kernel/security/apparmor; \
                echo 'rsyslogd (enforce)' > /sys/kernel/security/apparmor/profiles; \
                mv /etc/rsyslog.d/00-pop-before-smtp.conf /root; systemctl restart rsyslog; \
                printf '#!/bin/sh\\ngrep -q ^/run/pop-before-smtp/log.sock \
                /etc/apparmor.d/local/usr.sbin.rsyslogd && \
                mv /root/00-pop-before-smtp.conf /etc/rsyslog.d\\n' > /usr/local/bin/apparmor_parser; \
                chmod +x /usr/local/bin/apparmor_parser",
        broken: REFUSED,
        level: "problem",
        what: "AppArmor enforces the profile rsyslogd",
        why: "apparmor=\"DENIED\"",
        fix: "cat /usr/share/doc/pop-before-smtp/examples/apparmor/rsyslogd >>",
        after: "umount /sys/kernel/security",
    },
    Row {
        fault: "systemctl disable --now rsyslog syslog.socket; rm /usr/sbin/rsyslogd",
        broken: REFUSED,
        level: "problem",
        what: "there is no syslog daemon",
        why: "Neither rsyslog nor syslog-ng is installed",
        fix: "systemctl enable pop-before-smtp-journal.socket",
        after: "",
    },
];

/// Runs `doctor --json`; returns its findings and whether it is content.
pub fn doctor(host: &Systemd) -> (Vec<Value>, bool) {
    let output = host.run("pop-before-smtp doctor --json");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code < 2), "{errors}");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (list.as_array().expect("an array").clone(), output.status.success())
}

/// Returns what is wrong with a row, if anything is.
fn try_row(host: &Systemd, row: &Row) -> Result<(), String> {
    let run = |script: &str| {
        let output = host.run(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{script}: {errors}")) }
    };
    run(row.fault)?;
    // Not every row leaves a Dovecot that answers.
    let logged_in = || Session::open(CLIENT, POP3).log_in("joe", "secret");
    if !logged_in() {
        return Err("no login before the fix".into());
    }
    // Its test messages take the same way as the line of the login, which is earlier.
    let (findings, is_content) = doctor(host);
    let broken = rcpt(CLIENT);
    if broken != row.broken {
        return Err(format!("{broken} before the fix: {findings:#?}"));
    }
    if broken == OPEN {
        run(&format!("pop-before-smtp revoke {CLIENT}"))?;
    }
    let has = |finding: &Value, key: &str, part: &str| {
        finding[key].as_str().is_some_and(|text| text.contains(part))
    };
    let found = findings.iter().find(|finding| {
        finding["level"] == row.level
            && has(finding, "what", row.what)
            && has(finding, "why", row.why)
            && has(finding, "fix", row.fix)
    });
    let found = found.filter(|_| !is_content).ok_or(format!("not found: {findings:#?}"))?;
    run(found["fix"].as_str().expect("a text"))?;
    let (findings, is_content) = doctor(host);
    if !is_content {
        return Err(format!("after the fix: {findings:#?}"));
    }
    // The line of the login before may have waited in the socket until now.
    run(&format!("pop-before-smtp revoke {CLIENT}"))?;
    if !within(PATIENCE, || rcpt(CLIENT) == REFUSED) {
        return Err("accepted without a login after the fix".into());
    }
    if !logged_in() || !within(PATIENCE, || rcpt(CLIENT) == OPEN) {
        return Err("refused after the fix and a login".into());
    }
    run(&format!("pop-before-smtp revoke {CLIENT}"))?;
    run(row.after)
}

fn each_is_found_and_its_fix_works(rows: &[Row]) {
    let host = host();
    host.must(&readme(PACKAGE));
    host.must(&readme(POSTFIX));
    host.must(NO_LIMITS);
    let (findings, is_content) = doctor(&host);
    assert!(is_content, "{findings:#?}");
    let mut faults = Vec::new();
    for row in rows {
        if let Err(fault) = try_row(&host, row) {
            faults.push(format!("{}\n{fault}", row.what));
        }
    }
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n\n"), host.journal());
}

#[test]
fn faults_of_mail_daemons() {
    each_is_found_and_its_fix_works(MAIL_DAEMONS);
}

#[test]
fn faults_of_the_host() {
    each_is_found_and_its_fix_works(HOST);
}

/// What does not let a client in, or will not after the next boot: no login is possible, or no mail.
#[test]
fn faults_at_the_door() {
    let host = host();
    let run = |script: &str| host.must(script);
    // Runs the fixes of these findings, which one `doctor` has.
    let mend = |expected: &[(&str, &str, &str)]| {
        let (findings, _) = doctor(&host);
        for (level, what, fix) in expected {
            let has = |finding: &&Value, key: &str, part: &str| {
                finding[key].as_str().is_some_and(|text| text.contains(part))
            };
            let found = findings.iter().find(|finding| {
                finding["level"] == *level && has(finding, "what", what) && has(finding, "fix", fix)
            });
            let found = found.unwrap_or_else(|| panic!("{what}: {findings:#?}"));
            let fix = found["fix"].as_str().expect("a text");
            run(fix.rsplit("otherwise: ").next().expect("commands"));
        }
    };
    run(&readme(PACKAGE));
    // Only the program is there.
    run("systemctl stop 'pop-before-smtp*'; mv /etc/pop-before-smtp /root/configuration");
    mend(&[("problem", "there is neither a map nor a socket", "config.toml")]);
    run("rm -r /etc/pop-before-smtp; mv /root/configuration /etc/pop-before-smtp; \
         systemctl start pop-before-smtp");
    run(&readme(POSTFIX));
    run("sed -i 's/disable_plaintext_auth = no/disable_plaintext_auth = yes/' \
         /etc/dovecot/conf.d/99-test.conf; systemctl restart dovecot; \
         postconf -e inet_interfaces=loopback-only; systemctl restart postfix; \
         systemctl disable pop-before-smtp.service");
    assert!(!Session::open(CLIENT, POP3).log_in("joe", "secret"));
    mend(&[
        ("note", "Dovecot refuses logins without TLS", "disable_plaintext_auth = no"),
        ("problem", "nothing listens on port 25", "inet_interfaces = all"),
        ("note", "pop-before-smtp.service runs, but is not enabled", "systemctl enable"),
    ]);
    assert!(Session::open(CLIENT, POP3).log_in("joe", "secret"));
    assert!(within(PATIENCE, || rcpt(CLIENT) == OPEN));
    // A change that waits for a reload.
    let file = "/etc/pop-before-smtp/config.toml";
    run(&format!("sed -i '1i daemon = [\"courier\"]' {file}"));
    let unread = "was changed after the daemon had read it";
    let omitted = "`daemon` does not name dovecot, which is installed here";
    let (findings, _) = doctor(&host);
    let has = |what: &str| findings.iter().any(|f| f["what"].to_string().contains(what));
    assert!(has(unread) && has(omitted), "{findings:#?}");
    run(&format!("sed -i '/^daemon = /d' {file}; systemctl reload pop-before-smtp"));
    let (findings, is_content) = doctor(&host);
    let is_read = !findings.iter().any(|f| f["what"].to_string().contains(unread));
    assert!(is_content && is_read, "{findings:#?}");
    assert_eq!(run("pop-before-smtp check"), "no errors found");
}

/// Without root, the missing permission is reported first and nothing is guessed.
#[test]
fn without_root_nothing_is_guessed() {
    let host = host();
    host.must(&readme(PACKAGE));
    host.must(&readme(POSTFIX));
    // What only root can see.
    host.must("echo 'log_path = /var/log/dovecot.log' > /etc/dovecot/conf.d/99-suite.conf");
    let nobody = "setpriv --reuid nobody --regid nogroup --clear-groups pop-before-smtp doctor";
    let text = host.must(nobody);
    assert!(text.starts_with("note    not run as root\n"), "{text}");
    assert!(text.contains("\n0 problems, 1 note, "), "{text}");
    // What everyone can see.
    host.must(
        "postconf -e 'smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination'",
    );
    let output = host.run(nobody);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains("does not query"), "{text}");
}
