//! The real Postfix queries the daemon directly, by both protocols, over Unix sockets and TCP, from
//! a plain and a chrooted smtpd: the replies to RCPT.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::postfix::{OWN_DOMAIN, Postfix, Session};
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, eventually, within};

const CLIENT: &str = "198.51.100.7";
const NEIGHBOUR: &str = "198.51.100.8";
const FAR: &str = "someone@elsewhere.example";

/// Lines of main.cf, and the socket's name in them.
pub type Lines = (&'static str, &'static str);

/// How Postfix queries the daemon: the files of deploy/.
pub const POLICY: Lines =
    (include_str!("../../deploy/postfix/main.cf.policy"), "unix:pop-before-smtp/policy");
const SOCKETMAP_LAST: Lines =
    (include_str!("../../deploy/postfix/main.cf.socketmap"), "unix:pop-before-smtp/socketmap");
/// The socketmap in the place of the map.
const SOCKETMAP: Lines = (
    "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, \
     check_client_access socketmap:unix:pop-before-smtp/socketmap:clients, \
     defer_unauth_destination",
    "unix:pop-before-smtp/socketmap",
);

/// The kind of socket.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Below the queue directory, where a chrooted smtpd finds it too.
    Unix,
    Inet,
}

/// Postfix, and the daemon that it queries.
pub struct Site {
    /// Postfix, which is not started yet.
    pub postfix: Postfix,
    /// The daemon's directory.
    pub home: TempDir,
    wire: Wire,
    options: Vec<String>,
    asked: String,
    _port: Port,
}

impl Site {
    /// Configures both; `more` are further options of the daemon.
    pub fn configure((lines, socket): Lines, kind: Kind, more: &[&str]) -> Self {
        let (home, wire, port) = (crate::support::directory(), Wire::udp(), Port::claim());
        let inet = format!("inet:127.0.0.1:{}", port.number());
        let ask = match kind {
            Kind::Unix => socket,
            Kind::Inet => &inet,
        };
        let (_, value) = lines.split_once("smtpd_relay_restrictions =").expect("they set it");
        let postfix = Postfix::configure(&value.replace(socket, ask));
        let directory = postfix.queue().join("pop-before-smtp");
        std::fs::create_dir(&directory).expect("a directory");
        let group = nix::unistd::Group::from_name("postfix").ok().flatten();
        let group = group.expect("the package postfix makes a group postfix");
        chown(&directory, None, Some(group.gid.as_raw())).expect("we are root");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o750))
            .expect("it is ours");
        let asked = match kind {
            Kind::Unix => socket.replace("unix:", &format!("unix:{}/", postfix.queue().display())),
            Kind::Inet => inet,
        };
        let protocol = if lines.contains("socketmap:") { "--socketmap" } else { "--policy" };
        let config = postfix.config().display().to_string();
        let listen = wire.to_string();
        let address = match kind {
            Kind::Unix => format!("{asked},group=postfix"),
            Kind::Inet => asked.clone(),
        };
        let words = [protocol, &address, "--listen", &listen, "--postfix-config", &config];
        let options = words.iter().chain(more).map(|&word| word.to_owned()).collect();
        Self { postfix, home, wire, options, asked, _port: port }
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Daemon {
        Daemon::start(self.home.path(), &self.options)
    }

    /// Opens a session with the plain smtpd and one with the chrooted smtpd.
    pub fn sessions(&self, client: &str) -> [Session; 2] {
        [self.postfix.session(client), self.postfix.chrooted_session(client)]
    }

    /// A user logs in from an address, and it counts.
    pub fn login(&self, daemon: &Daemon, user: &str, address: &str) {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
        );
        self.wire.send(frame.as_bytes());
        eventually(&format!("{user} has logged in"), PATIENCE, || {
            daemon.list().to_string().contains(&format!("\"{user}\""))
        });
    }
}

/// Refused, accepted at the first RCPT after the login, refused after the grace period: all in open
/// sessions.
fn login_counts_at_once_and_expires(lines: Lines, kind: Kind) {
    let site = Site::configure(lines, kind, &["--grace", "8s"]);
    let daemon = site.daemon();
    site.postfix.start();
    for client in [CLIENT, "2001:db8::7"] {
        let mut sessions = site.sessions(client);
        for session in &mut sessions {
            assert_eq!(session.rcpt(FAR).code, 454, "{}", site.postfix.log());
            assert_eq!(session.rcpt(&format!("someone@{OWN_DOMAIN}")).code, 250);
        }
        site.login(&daemon, "joe", client);
        for session in &mut sessions {
            assert_eq!(session.rcpt(FAR).code, 250, "{client}: {}", site.postfix.log());
        }
        for neighbour in [NEIGHBOUR, "2001:db8::7:1", "2001:db8::8"] {
            assert_eq!(site.postfix.relay(neighbour), 454, "{neighbour}");
        }
        eventually("the end of the grace period", PATIENCE, || !daemon.query(client));
        for session in &mut sessions {
            assert_eq!(session.rcpt(FAR).code, 454, "{client} after its grace period");
        }
    }
    assert!(daemon.stop().success());
}

#[test]
fn policy_over_a_unix_socket() {
    login_counts_at_once_and_expires(POLICY, Kind::Unix);
}

#[test]
fn policy_over_tcp() {
    login_counts_at_once_and_expires(POLICY, Kind::Inet);
}

#[test]
fn socketmap_over_a_unix_socket() {
    login_counts_at_once_and_expires(SOCKETMAP, Kind::Unix);
}

#[test]
fn socketmap_over_tcp() {
    login_counts_at_once_and_expires(SOCKETMAP, Kind::Inet);
}

/// Postfix's own socketmap client and our `query` agree.
#[test]
fn postmap_and_query_agree() {
    for kind in [Kind::Unix, Kind::Inet] {
        let site = Site::configure(SOCKETMAP, kind, &["--map-value", "permit"]);
        let daemon = site.daemon();
        site.login(&daemon, "joe", CLIENT);
        site.login(&daemon, "ann", "2001:db8::7");
        let table = format!("socketmap:{}:clients", site.asked);
        let ask = |key: &str| {
            let mut postmap = Command::new("postmap");
            let output = postmap.arg("-c").arg(site.postfix.config()).args(["-q", key, &table]);
            let output = output.output().expect("postmap can be started");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{key}");
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        for key in [CLIENT, "2001:db8::7"] {
            assert_eq!(ask(key), (true, "permit\n".to_owned()), "{key}");
            assert!(daemon.query(key));
        }
        for key in [NEIGHBOUR, "198.51.100", "unknown", "2001:db8::7:1", "_pbs_generation_"] {
            assert_eq!(ask(key), (false, String::new()), "{key}");
        }
    }
}

/// Two users behind one address: each may send as themselves, and no one else behind it at all.
#[test]
fn users_send_as_themselves() {
    for (mismatch, code) in [("dunno", 454), ("reject", 550)] {
        let bound =
            ["--sender=user", "--sender-domains", OWN_DOMAIN, "--sender-mismatch", mismatch];
        let site = Site::configure(POLICY, Kind::Unix, &bound);
        let daemon = site.daemon();
        site.postfix.start();
        site.login(&daemon, "joe", CLIENT);
        let mut sessions = site.sessions(CLIENT);
        let ann = format!("ann@{OWN_DOMAIN}");
        let rcpt_from = |session: &mut Session, sender: &str| session.rcpt_from(sender, FAR);
        for session in &mut sessions {
            assert_eq!(rcpt_from(session, &ann).code, code, "ann has not logged in yet");
        }
        site.login(&daemon, "ann", CLIENT);
        for session in &mut sessions {
            for local in ["joe", "Joe", "ann", "\"joe\""] {
                let reply = rcpt_from(session, &format!("{local}@{OWN_DOMAIN}"));
                assert_eq!(reply.code, 250, "{local}: {}", reply.text);
            }
            let unlisted = ["eve", "joe+list", "\"joe ann\"", "joey"];
            let unlisted = unlisted.map(|local| format!("{local}@{OWN_DOMAIN}"));
            for sender in unlisted.iter().map(String::as_str).chain(["", "joe", "joe@a.example"]) {
                let reply = rcpt_from(session, sender);
                assert_eq!(reply.code, code, "<{sender}>: {}", reply.text);
                let explained = reply.text.contains("Send as the account whose mail you check");
                assert_eq!(explained, mismatch == "reject", "<{sender}>: {}", reply.text);
            }
            let own = session.rcpt_from("eve@a.example", &format!("ann@{OWN_DOMAIN}"));
            assert_eq!(own.code, 250, "mail for our own domain: {}", own.text);
        }
        let mut neighbour = site.postfix.session(NEIGHBOUR);
        assert_eq!(rcpt_from(&mut neighbour, &ann).code, 454);
        assert!(daemon.stop().success());
    }
}

/// Address extensions are split off as this Postfix does it.
#[test]
fn extensions_are_those_of_postfix() {
    let bound = ["--sender=user", "--sender-domains", OWN_DOMAIN];
    let site = Site::configure(POLICY, Kind::Unix, &bound);
    site.postfix.add("main.cf", "recipient_delimiter = -\n");
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut session = site.postfix.session(CLIENT);
    for (local, code) in [("joe", 250), ("joe-list", 250), ("joe+list", 454), ("joe-request", 454)]
    {
        let reply = session.rcpt_from(&format!("{local}@{OWN_DOMAIN}"), FAR);
        assert_eq!(reply.code, code, "{local}: {}", reply.text);
    }
}

/// The replies while the daemon is down, and after it is back, in sessions that stay open.
fn daemon_stops_and_returns(lines: Lines, kind: Kind, own: u16, far: u16) {
    let site = Site::configure(lines, kind, &[]);
    let mut daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut sessions = site.sessions(CLIENT);
    let mut others = site.sessions(NEIGHBOUR);
    let to_own = format!("someone@{OWN_DOMAIN}");
    let mut assert_normal = |sessions: &mut [Session; 2], when: &str| {
        for (client, other) in sessions.iter_mut().zip(&mut others) {
            assert_eq!(client.rcpt(FAR).code, 250, "{when}: {}", site.postfix.log());
            assert_eq!(other.rcpt(FAR).code, 454, "{when}");
            assert_eq!(other.rcpt(&to_own).code, 250, "{when}");
        }
    };
    assert_normal(&mut sessions, "at first");

    assert!(daemon.stop().success());
    daemon = site.daemon();
    assert_normal(&mut sessions, "after a restart between two queries");

    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    for session in &mut sessions {
        let start = std::time::Instant::now();
        assert_eq!(session.rcpt(&to_own).code, own, "mail for our own domain");
        assert_eq!(session.rcpt(FAR).code, far, "relaying");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
    let _daemon = site.daemon();
    assert_normal(&mut sessions, "after it was killed");
}

#[test]
fn policy_fails_safe() {
    for kind in [Kind::Unix, Kind::Inet] {
        daemon_stops_and_returns(POLICY, kind, 250, 454);
    }
}

#[test]
fn socketmap_defers_all_mail() {
    daemon_stops_and_returns(SOCKETMAP, Kind::Unix, 451, 451);
    daemon_stops_and_returns(SOCKETMAP, Kind::Inet, 451, 451);
}

#[test]
fn socketmap_after_permit_auth_destination_defers_relaying_alone() {
    daemon_stops_and_returns(SOCKETMAP_LAST, Kind::Unix, 250, 451);
}

/// Each smtpd keeps a connection, and new ones are answered as well.
#[test]
fn many_sessions_at_once() {
    let site = Site::configure(POLICY, Kind::Unix, &[]);
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut sessions: Vec<_> = (0..60).map(|_| site.postfix.session(CLIENT)).collect();
    for session in &mut sessions {
        assert_eq!(session.rcpt(FAR).code, 250);
    }
    let answered = within(PATIENCE, || site.postfix.relay(CLIENT) == 250);
    assert!(answered);
    let status = String::from_utf8(daemon.command(&["status"]).stdout).expect("text");
    assert!(status.contains("POSTFIX SOCKET") && status.contains("policy unix:"), "{status}");
}
