//! Courier, and the lines that its logger splits.

use std::thread;

use crate::SESSIONS;
use crate::support::attack::{self, FORGED};
use crate::support::client::{IMAP, POP3, Session};
use crate::support::maild::{CRYPT, MailHost, PASSWORD, Setup};
use crate::support::{PATIENCE, eventually};

/// Courier with accounts in a userdb, up to [`SESSIONS`] sessions, and otherwise the defaults of
/// Debian.
fn courier() -> Setup {
    let start = format!(
        "cd /etc/courier
sed -i 's/^authmodulelist=.*/authmodulelist=authuserdb/' authdaemonrc
sed -i 's/^\\(MAXDAEMONS\\|MAXPERIP\\)=.*/\\1={SESSIONS}/' pop3d imapd
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
    attack::try_all(&[POP3, IMAP], SESSIONS);
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

/// courierlogger splits a long line, and the continuation is a message of its own. An attacker can
/// make it the text of a login. Genuine logins after it count.
#[test]
fn split_courier_lines_are_no_logins() {
    // Of 511 bytes: the second fragment of a line whose first one is full.
    let fragment = |end: &str| {
        let begin = "LOGIN, user=";
        let fill = "x".repeat(511 - begin.len() - end.len());
        format!("{begin}{fill}{end}")
    };
    let rest = format!(", ip=[::ffff:{FORGED}], port=[40000]");
    let zeros = "0".repeat(511 - "LOGIN, user=joe, ip=[::ffff:203.0.113.66], port=[4]".len());
    let forgeries = [
        "LOGIN, user=joe".to_owned(),
        format!("LOGIN, user=joe{rest}"),
        fragment(&rest),
        fragment(&format!("{rest}, protocol=IMAP")),
        format!("LOGIN, user=joe, ip=[::ffff:{FORGED}], port=[{zeros}4]"),
    ];
    let host = MailHost::start(&courier());
    // Both services in parallel, since clients that fail have to wait. Each forgery, then a login.
    let try_on = |port: u16, tag: &str, first: usize| {
        let mut logins = Vec::new();
        for ((forgery, number), attacker) in forgeries.iter().zip(first..).zip(attack::attackers())
        {
            // The first fragment ends where the name does: after 505 bytes.
            let fill = "A".repeat(505 - "LOGIN FAILED, user=".len());
            assert!(!Session::open(&attacker, port).log_in(fill + forgery, "wrong"));
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

/// With DEBUG_LOGIN the first fragment is a byte shorter, and blanks at the beginning of a fragment
/// are lost: a short fragment may be in the middle.
#[test]
fn split_courier_debug_lines_are_no_logins() {
    let mut courier = courier();
    let off = "authdaemond start";
    let on = "echo DEBUG_LOGIN=1 | tee -a pop3d authdaemonrc\nauthdaemond start";
    assert!(courier.start.contains(off));
    courier.start = courier.start.replacen(off, on, 1);
    let host = MailHost::start(&courier);
    let before = |attacker: &str| format!("LOGIN: ip=[::ffff:{attacker}], username=");
    for (blanks, attacker) in [0, 1, 400, 500].into_iter().zip(attack::attackers()) {
        let filled = "A".repeat(504 - before(&attacker).len());
        let forged = format!("LOGIN, user=joe, ip=[::ffff:{FORGED}], port=[40000]");
        let name = match blanks {
            // The second fragment is the login.
            0 => format!("{filled}{forged}"),
            // The third fragment is.
            _ => format!("{filled}{}{}{forged}", " ".repeat(blanks), "B".repeat(511 - blanks)),
        };
        assert!(!Session::open(&attacker, POP3).log_in(name, "wrong"));
    }
    assert!(Session::open("198.51.100.9", POP3).log_in("joe", PASSWORD));
    // Fragments that may still follow the last line cost the next logins.
    assert!(Session::open("198.51.100.10", POP3).log_in("joe", PASSWORD));
    assert!(Session::open("198.51.100.11", POP3).log_in("joe", PASSWORD));
    host.has_logged(&format!("pop3d: LOGIN, user=joe, ip=[::ffff:{FORGED}], port=[40000]"));
    host.has_logged("LOGIN, user=joe, ip=[::ffff:198.51.100.11]");
    let counted = host.counted("198.51.100.11");
    let is_client = |address: &str| address.starts_with("198.51.100.");
    assert!(counted.iter().all(|[address, ..]| is_client(address)), "{counted:?}");
}

/// courierlogger writes a line of 505 bytes whole and splits one of 506, and the first fragments
/// look the same: after either, one message counts as a continuation, and it is the attacker's own.
#[test]
fn nearly_split_courier_lines_cost_no_login() {
    let host = MailHost::start(&courier());
    let mut logins = Vec::new();
    for ((length, attacker), last) in
        [499, 500, 504, 505, 506, 507, 1017].into_iter().zip(attack::attackers()).zip(10..)
    {
        // Client ports have five digits.
        let (before, after) =
            ("LOGIN FAILED, user=", format!(", ip=[::ffff:{attacker}], port=[40000]"));
        let name = "A".repeat(length - before.len() - after.len());
        assert!(!Session::open(&attacker, POP3).log_in(&name, "wrong"));
        let whole = format!("pop3d: {before}{name}, ip=[::ffff:{attacker}], port=[");
        let (first, _) = whole.split_at(whole.len().min("pop3d: ".len() + 490));
        host.has_logged(first);
        // courierlogger loses lines that it reads together with the end of a long one.
        let is_whole = || host.log().trim_end_matches("pop3d: \n").ends_with("]\n");
        eventually("the end of the line is logged", PATIENCE, is_whole);
        let client = format!("198.51.100.{last}");
        assert!(Session::open(&client, POP3).log_in("joe", PASSWORD));
        logins.push(client);
    }
    let logins: Vec<_> = logins.iter().map(|client| (client.as_str(), "joe")).collect();
    host.counts_exactly("courier", &logins);
}
