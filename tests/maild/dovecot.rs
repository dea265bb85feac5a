//! Dovecot, with its usual names and passwords, and with names that contain the text of a login.

use std::collections::BTreeSet;

use crate::SESSIONS;
use crate::support::attack;
use crate::support::client::{IMAP, POP3, Session};
use crate::support::maild::{MailHost, PASSWORD, Setup};

/// Dovecot with plain passwords and its most verbose log; `options` come last.
fn dovecot(options: &str) -> Setup {
    let conf = format!(
        "protocols = pop3 imap
listen = *, ::
base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
default_process_limit = {SESSIONS}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_verbose = yes
auth_verbose_passwords = plain
auth_failure_delay = 0
mail_location = maildir:~/Maildir
# No penalty for addresses with failures.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
userdb {{
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}}
{options}"
    );
    Setup {
        name: "dovecot",
        files: vec![
            ("etc/dovecot/dovecot.conf", conf),
            (
                "etc/dovecot/users",
                format!("joe:{{PLAIN}}{PASSWORD}\njoe@example.org:{{PLAIN}}{PASSWORD}\n"),
            ),
        ],
        start: "mkdir -m 777 /tmp/home; dovecot -F &".to_owned(),
        ports: &[POP3, IMAP],
    }
}

#[test]
fn dovecot_logins_count_and_nothing_else() {
    let host = MailHost::start(&dovecot(""));
    assert!(Session::open("198.51.100.7", POP3).log_in("joe", PASSWORD));
    assert!(Session::open("198.51.100.8", POP3).authenticate("joe", PASSWORD));
    assert!(Session::open("2001:db8::7", POP3).log_in("joe@example.org", PASSWORD));
    attack::try_all(&[POP3, IMAP], SESSIONS);
    assert!(Session::open("198.51.100.9", IMAP).log_in("joe@example.org", PASSWORD));
    assert!(Session::open("2001:db8::9", IMAP).authenticate("joe", PASSWORD));
    let mut session = Session::open("198.51.100.10", IMAP);
    assert!(!session.log_in("joe", "wrong"), "a failure first");
    assert!(session.log_in("joe", PASSWORD));
    drop(session);
    let quoted = format!("a LOGIN \"joe\" \"{PASSWORD}\"");
    assert!(Session::open("198.51.100.11", IMAP).send(quoted).starts_with("a OK"));

    host.counts_exactly(
        "dovecot",
        &[
            ("198.51.100.7", "joe"),
            ("198.51.100.8", "joe"),
            ("2001:db8::7", "joe@example.org"),
            ("198.51.100.9", "joe@example.org"),
            ("2001:db8::9", "joe"),
            ("198.51.100.10", "joe"),
            ("198.51.100.11", "joe"),
        ],
    );
    host.has_logged("user=<a>, method=PLAIN, rip=203.0.113.66, lip=198.51.100.1, mpid=77, ");
    host.has_logged("(given password: LOGIN, user=joe, ip=[::ffff:203.0.113.66], port=[40000])");
}

/// Names that contain the text of a login, and accounts with such names: the true address counts,
/// or none where the name makes the line ambiguous.
#[test]
fn dovecot_that_accepts_every_name() {
    let host = MailHost::start(&dovecot(&format!(
        "auth_username_chars =
passdb {{
  driver = static
  args = password={PASSWORD}
}}
"
    )));
    let mut wanted = BTreeSet::new();
    for (text, last) in attack::texts().iter().zip(100..) {
        let client = format!("198.51.100.{last}");
        let port = if last % 2 == 0 { POP3 } else { IMAP };
        assert!(Session::open(&client, port).authenticate(text, PASSWORD), "{text:?}");
        // Of a long name 77 characters are logged.
        if !text.chars().take(77).any(|char| "<>".contains(char)) {
            wanted.insert(client);
        }
    }
    assert!(Session::open("198.51.100.7", POP3).log_in("joe", PASSWORD));
    wanted.insert("198.51.100.7".to_owned());
    let counted = host.counted("198.51.100.7").into_iter().map(|[address, ..]| address).collect();
    assert_eq!(wanted, counted, "{}", host.log());
}

/// A client without a password.
const ATTACKER: &str = "198.51.100.66";

/// What a client says of itself before it has logged in can make a line so long that Dovecot splits it,
/// and the second part can be a login as Dovecot would log it.
#[test]
fn dovecot_that_logs_what_clients_say_of_themselves() {
    let host = MailHost::start(&dovecot("imap_id_log = *"));
    assert!(Session::open("198.51.100.7", IMAP).log_in("joe", PASSWORD));
    for last in ["Login", "proxy(joe): started proxying to remote host"] {
        // 4,096 bytes less what precedes the text there: three bytes and the PID.
        for place in 4087..4093 {
            let mut session = Session::open(ATTACKER, IMAP);
            assert!(!session.log_in("joe", "wrong"));
            assert!(session.send(identification(place, last)).starts_with("a OK"));
        }
    }
    let forged = |line: &&str| {
        let parts =
            ["imap-login: Login: ", "imap-login: proxy(joe): started proxying to remote host: "];
        parts.iter().any(|part| line.contains(&format!("{part}user=<joe>")))
            && line.contains(&format!("rip={}", ATTACKER))
    };
    host.has_logged("imap-login: Login: user=<joe>, method=PLAIN, rip=198.51.100.66, ");
    host.has_logged("imap-login: proxy(joe): started proxying to remote host: user=<joe>, ");
    host.refuses(host.log().lines().filter(forged).count(), "198.51.100.7");
}

/// Returns the IMAP command ID (RFC 2971) of which Dovecot logs `ID sent: name=..., name=LAST`, with LAST
/// at this place.
fn identification(place: usize, last: &str) -> String {
    /// Dovecot logs 80 bytes of a value.
    const LONGEST: usize = 80;
    let mut values = Vec::new();
    let mut left = place - "ID sent: name=".len();
    while left > 0 {
        // The last one gets what is left, and the one before it leaves enough.
        let length = if left <= LONGEST { left - ", name=".len() } else { left.min(LONGEST / 2) };
        values.push("v".repeat(length));
        left -= length + ", name=".len();
    }
    values.push(last.to_owned());
    let pairs: Vec<_> = values.iter().map(|value| format!("\"name\" \"{value}\"")).collect();
    format!("a ID ({})", pairs.join(" "))
}
