//! The whole path, with the real programs at both ends: a mail daemon's syslog(3) frame, a
//! forwarder, pop-before-smtp, the access map, and Postfix's reply to RCPT.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::postfix::Postfix;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually, within};

/// Long enough to try all clients of one forwarder on a slow machine, and short enough to wait for.
const GRACE: Duration = Duration::from_secs(8);

/// The frames of one genuine login, as each daemon passes them to syslog(3); `CLIENT` is the
/// address.
const LOGINS: &[(&str, &[&str])] = &[
    (
        "vm-pop3d, with the address patched in",
        &["<22>Nov 22 09:07:18 vm-pop3d[49]: User 'joe' of 'example.org' logged in from CLIENT"],
    ),
    (
        "vm-pop3d 1.1.6, address and login in two lines",
        &[
            "<22>Nov 22 09:07:18 vm-pop3d[77]: Connect from CLIENT",
            "<22>Nov 22 09:07:18 vm-pop3d[77]: User 'joe' logged in",
        ],
    ),
    (
        "vm-pop3d 1.1.7",
        &[
            "<22>Nov 22 09:07:18 vm-pop3d[50]: User 'joe@example.org' logged in from CLIENT, nmsgs=0",
        ],
    ),
    (
        "qpopper",
        &[
            "<21>Nov 22 09:07:18 qpopper[7604]: (v4.1.0) POP login by user \"joe\" at (dsl.isp.example) CLIENT",
        ],
    ),
    (
        "qpopper, with doubled parentheses",
        &[
            "<21>Nov 22 09:07:18 qpopper[7605]: (v4.0.3) POP login by user \"joe\"  at ((dsl.isp.example)) CLIENT",
        ],
    ),
    (
        "ipop3d",
        &["<22>Nov 22 09:05:57 ipop3d[31]: Login user=joe host=dsl.isp.example [CLIENT] nmsgs=0/0"],
    ),
    (
        "imapd of Washington",
        &["<22>Nov 22 09:05:57 imapd[39]: Authenticated user=joe host=[CLIENT] mech=PLAIN"],
    ),
    (
        "teapop",
        &[
            "<134>Nov 22 09:05:57 teapop[54]: Successful login for joe [192.0.2.1] from unknown [CLIENT]",
        ],
    ),
    (
        "Courier pop3d",
        &[
            "<22>Nov 22 07:35:24 pop3d: LOGIN, user=joe@example.org, ip=[::ffff:CLIENT], port=[48703]",
        ],
    ),
    (
        "Courier imapd",
        &[
            "<22>Nov 22 07:35:28 imapd: LOGIN, user=joe, ip=[::ffff:CLIENT], port=[32989], protocol=IMAP",
        ],
    ),
    (
        "tpop3d",
        &[
            "<21>Nov 22 09:01:43 tpop3d[48]: fork_child: [5]joe(CLIENT): began session for `joe' with flatfile; child PID is 49",
        ],
    ),
    (
        "Cyrus 2",
        &[
            "<21>Nov 22 07:46:45 imapd[5501]: login: dsl.isp.example [CLIENT] joe plaintext User logged in",
        ],
    ),
    (
        "Cyrus 3",
        &[
            "<21>Nov 22 07:46:45 cyrus/pop3[350]: login: localhost [CLIENT] joe plaintext User logged in SESSIONID=<cyrus-1795333605-350-1-157>",
        ],
    ),
    (
        "Cyrus 3.13",
        &[
            "<21>Nov 22 07:46:45 cyrus/imaps[351]: event=login.good r.sessionid=cyrus-351-5 r.clienthost=\"dsl.isp.example [CLIENT]\" u.username=joe login.mech=PLAIN login.tls=1",
        ],
    ),
    (
        "Dovecot 1",
        &[
            "<22>Nov 22 08:57:07 dovecot: imap-login: Login: user=<joe>, method=PLAIN, rip=CLIENT, lip=192.0.2.1, TLS",
        ],
    ),
    (
        "Dovecot 2.3",
        &[
            "<22>Nov 22 08:57:07 dovecot: pop3-login: Login: user=<joe>, method=PLAIN, rip=CLIENT, lip=192.0.2.1, mpid=31160, TLS, session=<2hCoRk8yU5zAAAKg>",
        ],
    ),
    (
        "Dovecot 2.4",
        &[
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, rip=CLIENT, lip=192.0.2.1, mpid=84, TLS, session=<he3wqdlg9KYAAAAA>",
        ],
    ),
];

/// Forwarders and their formats: each over UDP and over a Unix socket.
const PROGRAMS_AND_FORMS: &[(Program, Form)] = &[
    (Program::Rsyslog, Form::Traditional),
    (Program::Rsyslog, Form::IsoStamp),
    (Program::Rsyslog, Form::Rfc5424),
    (Program::SyslogNg, Form::Traditional),
];

/// Returns two addresses that differ in the last place only: a client and its neighbour. Where the
/// daemon can log IPv6, every other client has an IPv6 address.
fn client_and_neighbour(path: usize, login: usize) -> [String; 2] {
    let place = path * LOGINS.len() + login;
    let only_ipv4 = LOGINS[login].1[0].contains("::ffff:") || LOGINS[login].0 == "tpop3d";
    [2 * place + 1, 2 * place + 2].map(|last| match place % 2 {
        0 if !only_ipv4 => format!("2001:db8:1:2:3:4:5:{last:x}"),
        _ if last < 256 => format!("198.51.100.{last}"),
        _ => format!("203.0.113.{}", last - 255),
    })
}

/// The daemon and Postfix, with a map between them.
struct Site {
    dir: TempDir,
    map_type: &'static str,
    postfix: Postfix,
    daemon: Daemon,
}

impl Site {
    fn start(map_type: &'static str, grace: Duration, wires: &[&Wire]) -> Self {
        let dir = directory();
        let table = format!("{map_type}:{}", dir.path().join("clients").display());
        let postfix = Postfix::configure(&format!(
            "permit_mynetworks, permit_sasl_authenticated, check_client_access {table}, reject_unauth_destination"
        ));
        let mut options = vec!["--map".to_owned(), table];
        options.extend(["--grace".to_owned(), format!("{}s", grace.as_secs())]);
        options.extend(["--postfix-config".to_owned(), postfix.config().display().to_string()]);
        for wire in wires {
            options.extend(["--listen".to_owned(), wire.to_string()]);
        }
        let daemon = Daemon::start(dir.path(), &options);
        postfix.start();
        Self { dir, map_type, postfix, daemon }
    }

    /// Returns the addresses in the map's source.
    fn source(&self) -> HashSet<String> {
        let source =
            fs::read_to_string(self.dir.path().join("clients")).expect("the source always exists");
        let keys = source.lines().filter_map(|line| line.split(' ').next());
        keys.filter(|key| *key != "_pbs_generation_").map(str::to_owned).collect()
    }

    fn wait_for_reply(&self, code: u16, client: &str, whose: &str, limit: Duration) {
        let mut last = None;
        let as_expected = within(limit, || {
            let reply = self.postfix.rcpt(client, "someone@elsewhere.example");
            last.insert(reply).code == code
        });
        assert!(
            as_expected,
            "{}: {client} ({whose}) does not get {code}, but {last:?}; map: {:?}\n{}\n{}",
            self.map_type,
            self.source(),
            self.daemon.log(),
            self.postfix.log()
        );
    }
}

/// A login of every daemon over every forwarder lets its client relay, no one else, and not for
/// longer than the grace period.
fn every_login_counts_and_expires(map_type: &'static str) {
    let sockets = directory();
    let mut paths = Vec::new();
    for (program, form) in PROGRAMS_AND_FORMS {
        let socket = sockets.path().join(format!("{program:?}-{form:?}"));
        paths.extend([Wire::udp(), Wire::unix(socket)].map(|wire| (*program, *form, wire)));
    }
    let wires: Vec<_> = paths.iter().map(|(_, _, wire)| wire).collect();
    let site = Site::start(map_type, GRACE, &wires);

    for (path, (program, form, wire)) in paths.iter().enumerate() {
        let forwarder = Forwarder::start(*program, wire, *form);
        let whose = |login: usize| format!("{}, {program:?}, {form:?}, {wire}", LOGINS[login].0);
        for (login, (_, frames)) in LOGINS.iter().enumerate() {
            let [client, _] = client_and_neighbour(path, login);
            assert_eq!(site.postfix.relay(&client), 554, "{} before", whose(login));
            for frame in *frames {
                forwarder.log(frame.replace("CLIENT", &client));
            }
        }
        for login in 0..LOGINS.len() {
            let [client, neighbour] = client_and_neighbour(path, login);
            site.wait_for_reply(250, &client, &whose(login), GRACE);
            assert_eq!(site.postfix.relay(&neighbour), 554, "neighbour of {}", whose(login));
        }
    }
    for path in 0..paths.len() {
        for (login, (name, _)) in LOGINS.iter().enumerate() {
            let [client, _] = client_and_neighbour(path, login);
            site.wait_for_reply(554, &client, name, GRACE + PATIENCE);
        }
    }
    assert_eq!(site.source(), HashSet::new(), "all grants have expired");
    assert!(site.daemon.stop().success());
}

#[test]
fn every_login_counts_and_expires_with_hash() {
    every_login_counts_and_expires("hash");
}

#[test]
fn every_login_counts_and_expires_with_lmdb() {
    every_login_counts_and_expires("lmdb");
}

#[test]
fn every_login_counts_and_expires_with_cdb() {
    every_login_counts_and_expires("cdb");
}

/// Counts publications: the kernel reports every rename onto the map's source.
struct Publications(Inotify);

impl Publications {
    fn watch(dir: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
        inotify.add_watch(dir, AddWatchFlags::IN_MOVED_TO).expect("the map's directory exists");
        Self(inotify)
    }

    /// Returns the number of publications since the last call.
    fn count(&self) -> usize {
        let events = std::iter::from_fn(|| self.0.read_events().ok()).flatten();
        events.filter(|event| event.name.as_deref() == Some("clients".as_ref())).count()
    }
}

fn dovecot(address: &str) -> String {
    format!(
        "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
    )
}

/// Renewals do not publish, and many logins are published together.
#[test]
fn publications_are_few() {
    let wire = Wire::udp();
    let site = Site::start("lmdb", Duration::from_secs(1800), &[&wire]);
    let publications = Publications::watch(site.dir.path());
    let publishes = |address: &str| {
        eventually(&format!("{address} is published"), PATIENCE, || {
            site.source().contains(address)
        });
    };
    wire.send(dovecot("198.51.100.1").as_bytes());
    publishes("198.51.100.1");
    assert_eq!(publications.count(), 1, "the first client");

    for _ in 0..20 {
        wire.send(dovecot("198.51.100.1").as_bytes());
    }
    eventually("all 21 logins are counted", PATIENCE, || site.daemon.list()[0]["logins"] == 21);
    // Publications keep their order: one of the renewals would come before that of this client.
    wire.send(dovecot("198.51.100.2").as_bytes());
    publishes("198.51.100.2");
    assert_eq!(publications.count(), 1, "twenty renewals, then a second client");

    let start = Instant::now();
    for last in 1..=100 {
        wire.send(dovecot(&format!("203.0.113.{last}")).as_bytes());
    }
    let most = 2 + start.elapsed().as_secs() as usize;
    eventually("all clients are published", PATIENCE, || site.source().len() == 102);
    let count = publications.count();
    assert!((1..=most).contains(&count), "{count} publications for a hundred clients");
    assert_eq!(site.postfix.relay("203.0.113.100"), 250);
    assert_eq!(site.postfix.relay("203.0.113.101"), 554);
}
