//! The real Sendmail of Debian asks the daemon's socketmap, with the lines of deploy/sendmail: the
//! replies to RCPT. It runs in a root and a network of its own, and not on port 25.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::maild::{Setup, start_maild};
use crate::support::postfix::Session;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, network, within};

const LINES: &str = include_str!("../../deploy/sendmail/pop-before-smtp.mc");
const SOCKET: &str = "/run/pop-before-smtp/socketmap";
const FAR: &str = "someone@elsewhere.example";
const OWN: &str = "joe@rig.test";
const PORT: u16 = 2525;

/// The rest of sendmail.mc; nothing is looked up in the DNS.
const CONFIG: &str = "\
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `mail.rig.test')dnl
define(`confTO_IDENT', `0')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(`Family=inet6, Addr=2001:db8::1, Port=2525')dnl
DAEMON_OPTIONS(`Family=inet, Addr=198.51.100.1, Port=2525')dnl
LOCAL_DOMAIN(`rig.test')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
";

/// Sendmail, and the directory that it shares with the daemon.
struct Site {
    sendmail: Process,
    shared: TempDir,
    private: TempDir,
    wire: Wire,
}

impl Site {
    /// Starts Sendmail, in a new network of the calling thread.
    fn start() -> Self {
        network::enter();
        let [shared, private] = [directory(), directory()];
        let wire = Wire::unix(shared.path().join("log.sock"));
        let users = "root:x:0:0::/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\n\
            mail:x:8:8::/:/bin/false\nsmmsp:x:102:102::/:/bin/false\njoe:x:1000:1000::/:/bin/bash\n";
        let groups = "root:x:0:\ndaemon:x:1:\nmail:x:8:\nsmmsp:x:102:\njoe:x:1000:\n";
        let files = vec![
            ("etc/passwd", users.to_owned()),
            ("etc/group", groups.to_owned()),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
            ("etc/mail/service.switch", "hosts files\naliases files\n".to_owned()),
            ("sendmail.mc", CONFIG.to_owned() + &LINES.replace(SOCKET, "/syslog/asked")),
        ];
        let start = "install -d /etc/mail /run/sendmail/mta && install -d -m 700 /var/spool/mqueue\n\
            cd /etc/mail && touch aliases local-host-names relay-domains trusted-users\n\
            m4 /sendmail.mc > sendmail.cf && /usr/libexec/sendmail/sendmail -bi > /dev/null || exit 1\n\
            /usr/libexec/sendmail/sendmail -bd || exit 1\n";
        let setup = Setup { name: "sendmail", files, start: start.to_owned(), ports: &[PORT] };
        let sendmail = start_maild(private.path(), &setup, shared.path());
        let mut site = Self { sendmail, shared, private, wire };
        let up = within(PATIENCE, || {
            site.sendmail.ended().is_some() || network::connect("198.51.100.7", PORT).is_ok()
        });
        let errors = std::fs::read_to_string(site.private.path().join("errors"));
        assert!(up && site.sendmail.ended().is_none(), "Sendmail does not listen: {errors:?}");
        site
    }

    fn daemon(&self) -> Daemon {
        let socketmap = format!("unix:{}", self.shared.path().join("asked").display());
        let listen = self.wire.to_string();
        // Clients have addresses of this network, which are its host's own.
        let options = ["--listen", &listen, "--socketmap", &socketmap, "--exclude", "loopback"];
        Daemon::start(self.shared.path(), &options)
    }
}

fn session(client: &str) -> Session {
    let stream = network::connect(client, PORT).expect("Sendmail listens");
    Session::over(stream, PATIENCE).expect("Sendmail answers")
}

#[test]
fn relays_after_a_login() {
    let site = Site::start();
    let daemon = site.daemon();
    for (client, stranger) in [("198.51.100.7", "198.51.100.8"), ("2001:db8::7", "2001:db8::8")] {
        let mut session = session(client);
        let refused = session.rcpt(FAR);
        assert_eq!(refused.code, 550, "{}", refused.text);
        assert!(refused.text.contains("Relaying denied"), "{}", refused.text);
        assert_eq!(session.rcpt(OWN).code, 250);
        site.wire.send(login_frame(client).as_bytes());
        daemon.wait_until_authorised(client);
        for (recipient, code) in [(FAR, 250), (OWN, 250), ("nobody.here@rig.test", 550)] {
            let reply = session.rcpt(recipient);
            assert_eq!(reply.code, code, "{client} {recipient}: {}", reply.text);
        }
        assert_eq!(self::session(stranger).rcpt(FAR).code, 550);
    }
    assert!(daemon.stop().success());
    let mut waiting = session("198.51.100.7");
    assert_eq!([FAR, OWN].map(|to| waiting.rcpt(to).code), [550, 250], "the daemon is down");
    let _daemon = site.daemon();
    assert_eq!(session("198.51.100.7").rcpt(FAR).code, 250, "it is back");
}
