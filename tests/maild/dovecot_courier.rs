//! Dovecot and Courier as Debian ships them, with honest clients and others: their own log lines,
//! through rsyslogd, authorise the true address of each login and nothing else.

use std::collections::BTreeSet;
use std::thread;

use crate::support::attack::{self, FORGED};
use crate::support::client::{IMAP, POP3, Session};
use crate::support::maild::{CRYPT, MailHost, PASSWORD, Setup};

/// Sessions at a time: both daemons make those wait who fail.
const CROWD: usize = 280;

/// Dovecot with plain passwords, which says as much as it can; `options` come last.
fn dovecot(options: &str) -> Setup {
    let conf = format!(
        "protocols = pop3 imap
listen = *, ::
base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
default_process_limit = {CROWD}
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
    attack::try_all(&[POP3, IMAP], CROWD);
    assert!(Session::open("198.51.100.9", IMAP).log_in("joe@example.org", PASSWORD));
    assert!(Session::open("2001:db8::9", IMAP).authenticate("joe", PASSWORD));
    let mut session = Session::open("198.51.100.10", IMAP);
    assert!(!session.log_in("joe", "wrong"), "a failure first");
    assert!(session.log_in("joe", PASSWORD));
    drop(session);
    let quoted = format!("a LOGIN \"joe\" \"{PASSWORD}\"");
    assert!(Session::open("198.51.100.11", IMAP).say(quoted).starts_with("a OK"));

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

/// Names that hold the text of a login, and accounts with such names: the true address counts, or
/// none where the name makes the line ambiguous.
#[test]
fn dovecot_that_takes_every_name() {
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
    assert_eq!(wanted, counted, "{}", host.said());
}

/// Courier with accounts in a userdb, as many sessions as wanted, and otherwise as it comes.
fn courier() -> Setup {
    let start = format!(
        "cd /etc/courier
sed -i 's/^authmodulelist=.*/authmodulelist=authuserdb/' authdaemonrc
sed -i 's/^\\(MAXDAEMONS\\|MAXPERIP\\)=.*/\\1={CROWD}/' pop3d imapd
chmod 600 userdb
makeuserdb
install -d -o courier -g courier /run/courier /run/courier/authdaemon
install -d -o joe -g joe /tmp/home
setpriv --reuid joe --regid joe --clear-groups maildirmake.courier /tmp/home/Maildir
authdaemond start
/usr/lib/courier/pop3d start
/usr/lib/courier/imapd start
"
    );
    let account =
        |name: &str| format!("{name}\tuid=1000|gid=1000|home=/tmp/home|systempw={CRYPT}\n");
    let accounts = account("joe") + &account("joe@example.org");
    Setup {
        name: "courier",
        files: vec![("etc/courier/userdb", accounts)],
        start,
        ports: &[POP3, IMAP],
    }
}

#[test]
fn courier_logins_count_and_nothing_else() {
    let host = MailHost::start(&courier());
    assert!(Session::open("198.51.100.7", POP3).log_in("joe", PASSWORD));
    assert!(Session::open("2001:db8::7", IMAP).log_in("joe", PASSWORD));
    attack::try_all(&[POP3, IMAP], CROWD);
    assert!(Session::open("2001:db8::8", POP3).log_in("joe@example.org", PASSWORD));
    assert!(Session::open("198.51.100.8", IMAP).log_in("joe@example.org", PASSWORD));
    host.counts_exactly(
        "courier",
        &[
            ("198.51.100.7", "joe"),
            ("2001:db8::7", "joe"),
            ("2001:db8::8", "joe@example.org"),
            ("198.51.100.8", "joe@example.org"),
        ],
    );
    host.has_logged(
        "LOGIN FAILED, user=LOGIN, user=joe, ip=[::ffff:203.0.113.66], port=[40000], ip=",
    );
}

/// courierlogger cuts a long line, and the rest of it is a message of its own, which may be any
/// text that a stranger gives: the line of a login. Genuine logins behind it are found.
#[test]
fn courier_lines_that_are_cut_are_no_logins() {
    // Of 511 bytes: the second piece of a line whose first one is filled.
    let piece = |end: &str| {
        let begin = "LOGIN, user=";
        let fill = "x".repeat(511 - begin.len() - end.len());
        format!("{begin}{fill}{end}")
    };
    let tail = format!(", ip=[::ffff:{FORGED}], port=[40000]");
    let zeros = "0".repeat(511 - "LOGIN, user=joe, ip=[::ffff:203.0.113.66], port=[4]".len());
    let forgeries = [
        "LOGIN, user=joe".to_owned(),
        format!("LOGIN, user=joe{tail}"),
        piece(&tail),
        piece(&format!("{tail}, protocol=IMAP")),
        format!("LOGIN, user=joe, ip=[::ffff:{FORGED}], port=[{zeros}4]"),
    ];
    let host = MailHost::start(&courier());
    // Services apart, since those who fail have to wait. Each forgery, then a login.
    let try_on = |port: u16, tag: &str, first: usize| {
        let mut logins = Vec::new();
        for ((forgery, number), stranger) in forgeries.iter().zip(first..).zip(attack::strangers())
        {
            // The first piece ends where the name does: after 505 bytes.
            let fill = "A".repeat(505 - "LOGIN FAILED, user=".len());
            assert!(!Session::open(&stranger, port).log_in(fill + forgery, "wrong"));
            let client = format!("198.51.100.{number}");
            assert!(Session::open(&client, port).log_in("joe", PASSWORD));
            host.has_logged(&format!("{tag}: {forgery}"));
            logins.push(client);
        }
        logins
    };
    let mut logins = thread::scope(|scope| {
        let imapd = scope.spawn(|| try_on(IMAP, "imapd", 110));
        [try_on(POP3, "pop3d", 10), imapd.join().expect("it ends well")].concat()
    });
    assert!(Session::open("198.51.100.9", POP3).log_in("joe", PASSWORD));
    logins.push("198.51.100.9".to_owned());
    let logins: Vec<_> = logins.iter().map(|client| (client.as_str(), "joe")).collect();
    host.counts_exactly("courier", &logins);
}

/// courierlogger writes a line of 505 bytes whole and cuts one of 506, and nothing tells the two
/// apart: behind either, one message counts as a tail, and that is the stranger's own next one.
#[test]
fn courier_lines_that_are_nearly_cut_cost_no_login() {
    let host = MailHost::start(&courier());
    let mut logins = Vec::new();
    for ((length, stranger), last) in
        [499, 500, 504, 505, 506, 507, 1017].into_iter().zip(attack::strangers()).zip(10..)
    {
        // A port of a client has five digits.
        let (before, behind) =
            ("LOGIN FAILED, user=", format!(", ip=[::ffff:{stranger}], port=[40000]"));
        let name = "A".repeat(length - before.len() - behind.len());
        assert!(!Session::open(&stranger, POP3).log_in(&name, "wrong"));
        let whole = format!("pop3d: {before}{name}, ip=[::ffff:{stranger}], port=[");
        let (first, _) = whole.split_at(whole.len().min("pop3d: ".len() + 490));
        host.has_logged(first);
        let client = format!("198.51.100.{last}");
        assert!(Session::open(&client, POP3).log_in("joe", PASSWORD));
        logins.push(client);
    }
    let logins: Vec<_> = logins.iter().map(|client| (client.as_str(), "joe")).collect();
    host.counts_exactly("courier", &logins);
}
