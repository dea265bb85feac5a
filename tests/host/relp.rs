//! Logs across hosts: deploy/rsyslog/relp-sender.conf and relp-receiver.conf with two real rsyslogd and the
//! daemon, and the certificates that deploy/rsyslog/certificates makes.
//!
//! - **Promise**: only paths, host names and ports of the files are replaced.
//! - **Not here**: two failures at once, where rsyslog loses up to three lines; delays of a real network.

mod certificates;
mod host;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::certificates::{authority, file_of};
use self::host::Host;
use crate::support::daemon::Daemon;
use crate::support::{PATIENCE, directory, network, within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The names in the files, and their ports at the receiver.
const RECEIVER: &str = "log.example.org";
const SENDER: &str = "mx1.example.org";
const OTHER: &str = "mx2.example.org";
const SENDER_PORT: &str = "2514";
const OTHER_PORT: &str = "2515";

/// At least so many logins are sent, and at most ten times as many.
const LOGINS: u32 = 2000;
/// Pause between two of them, while programs end.
const PAUSE: Duration = Duration::from_millis(5);
/// Logins that arrive while something is away.
const MEANWHILE: u32 = 60;

/// A deadline for all of them to arrive: an attempt of rsyslog waits for up to ten seconds.
const CALM: Duration = Duration::from_secs(90);

/// How a program ends.
const ENDS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGKILL];

fn recipe(name: &str) -> String {
    let path = Path::new(ROOT).join("deploy/rsyslog").join(name);
    fs::read_to_string(path).expect("a file of deploy/rsyslog")
}

fn with_files(recipe: &str, authority: &TempDir, name: &str) -> String {
    let mut recipe = recipe.to_owned();
    for file in ["ca.pem", "client.pem", "client.key", "server.pem", "server.key"] {
        recipe =
            recipe.replace(&format!("/etc/rsyslog.d/relp/{file}"), &file_of(authority, name, file));
    }
    recipe
}

/// The sender's file, for the host of this name.
fn sender(authority: &TempDir, name: &str) -> String {
    with_files(&recipe("relp-sender.conf"), authority, name)
        .replace(&format!("target=\"{RECEIVER}\""), "target=\"127.0.0.1\"")
}

/// The receiver's files, with the socket of this site: for the other hosts, and for its own logins.
fn receiver(authority: &TempDir, site: &Site) -> String {
    let files = recipe("pop-before-smtp.conf") + &recipe("relp-receiver.conf");
    with_files(&files, authority, RECEIVER)
        .replace("/run/pop-before-smtp/log.sock", &site.socket_path().display().to_string())
}

/// The daemon, with sockets that outlive it, as systemd holds them.
struct Site {
    home: TempDir,
    log_socket: UnixDatagram,
    udp: UdpSocket,
}

impl Site {
    fn new() -> Self {
        network::enter();
        let home = directory();
        let log_socket = UnixDatagram::bind(home.path().join("log.sock")).expect("a free path");
        Self { log_socket, udp: UdpSocket::bind("127.0.0.1:0").expect("a port"), home }
    }

    fn socket_path(&self) -> PathBuf {
        self.home.path().join("log.sock")
    }

    fn start(&self) -> Daemon {
        let sockets = [
            self.log_socket.try_clone().expect("a descriptor").into(),
            self.udp.try_clone().expect("a descriptor").into(),
        ];
        let lookups = format!("unix:{}", self.home.path().join("lookups.sock").display());
        let options = ["--socketmap", &lookups, "--exclude", "none"];
        Daemon::start_with_sockets(self.home.path(), &options, sockets)
    }

    /// Waits until the first `logged` logins are in the state file, in whatever order they arrive.
    fn wait_until_saved(&self, logged: u32) {
        let state = || fs::read_to_string(self.home.path().join("state")).unwrap_or_default();
        let mut missing = None;
        within(CALM, || {
            let state = state();
            let saved: HashSet<_> = state
                .lines()
                .filter_map(|line| line.strip_prefix("grant\t")?.split('\t').next())
                .collect();
            missing = (0..logged).map(address).find(|address| !saved.contains(&**address));
            missing.is_none()
        });
        assert_eq!(missing, None, "it does not reach the state file");
    }
}

fn login(address: &str) -> String {
    format!(
        "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, rip={address}, \
         lip=192.0.2.1, mpid=84, TLS, session=<a>"
    )
}

/// The address of the login with this number.
fn address(number: u32) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number).to_string()
}

/// A stream of logins to a host whose rsyslogd may be away.
struct Stream {
    /// How many were logged; held while rsyslogd of the sender is away, so that mail daemons wait.
    logged: Mutex<u32>,
    /// The test needs no more of them.
    is_enough: AtomicBool,
}

impl Stream {
    fn run(&self, input: &Path) {
        let socket = UnixDatagram::unbound().expect("a socket");
        for number in 0..10 * LOGINS {
            if number >= LOGINS && self.is_enough.load(Ordering::Relaxed) {
                return;
            }
            let mut logged = self.logged.lock().expect("no panic");
            socket.send_to(login(&address(number)).as_bytes(), input).expect("rsyslogd listens");
            *logged = number + 1;
            drop(logged);
            thread::sleep(PAUSE);
        }
    }

    fn logged(&self) -> u32 {
        *self.logged.lock().expect("no panic")
    }

    /// Waits until more logins were logged, and returns their number.
    fn wait_for_more(&self) -> u32 {
        let before = self.logged();
        assert!(within(PATIENCE, || self.logged() >= before + MEANWHILE), "mail daemons wait");
        self.logged()
    }
}

#[test]
fn nothing_is_lost_while_each_part_ends_in_turn() {
    let site = Site::new();
    let authority = authority(&[("server", RECEIVER), ("client", SENDER), ("client", OTHER)]);
    let mut to = Host::start(&receiver(&authority, &site));
    let mut from = Host::start(&sender(&authority, SENDER));
    let mut daemon = site.start();
    let stream = Stream { logged: Mutex::new(0), is_enough: AtomicBool::new(false) };
    let input = from.input();
    thread::scope(|scope| {
        scope.spawn(|| stream.run(&input));
        for how in ENDS {
            stream.wait_for_more();
            to.end(how);
            stream.wait_for_more();
            to.start_again();
            site.wait_until_saved(stream.wait_for_more());

            {
                let logged = stream.logged.lock().expect("no panic");
                from.wait_until_recorded(&format!("rip={},", address(*logged - 1)));
                from.end(how);
                from.start_again();
            }
            site.wait_until_saved(stream.wait_for_more());

            // A crash may lose what the daemon has read in the last second: it reads nothing meanwhile.
            {
                let logged = stream.logged.lock().expect("no panic");
                site.wait_until_saved(*logged);
                daemon.halt();
            }
            stream.wait_for_more();
            // The receiver has confirmed only what is in the socket.
            to.end(Signal::SIGKILL);
            to.start_again();
            daemon.signal(how);
            daemon.signal(Signal::SIGCONT);
            daemon.wait();
            daemon = site.start();
            site.wait_until_saved(stream.wait_for_more());
        }
        stream.is_enough.store(true, Ordering::Relaxed);
    });
    let all = 0..stream.logged();
    let all: BTreeSet<IpAddr> =
        all.map(|number| address(number).parse().expect("an address")).collect();
    let mut lost = all.clone();
    within(CALM, || {
        lost = all.difference(&daemon.authorised().into_iter().collect()).copied().collect();
        lost.is_empty()
    });
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), all.len());
}

/// The receiver was never there: the local log does not wait, and the lines survive a kill on disk.
#[test]
fn lines_wait_on_disk_for_the_receiver() {
    let site = Site::new();
    let authority = authority(&[("server", RECEIVER), ("client", SENDER), ("client", OTHER)]);
    let mut from = Host::start(&sender(&authority, SENDER));
    for how in ENDS {
        let before = from.record().matches("rip=").count();
        for number in 0..LOGINS {
            from.log(&login(&address(number)));
        }
        let recorded = || from.record().matches("rip=").count() - before;
        assert!(
            within(PATIENCE, || recorded() == LOGINS as usize),
            "other logs wait: {}",
            recorded()
        );
        from.end(how);
        from.start_again();
    }
    let daemon = site.start();
    let _to = Host::start(&receiver(&authority, &site));
    let arrived = within(CALM, || daemon.authorised().len() == LOGINS as usize);
    assert!(arrived, "only {} have arrived: {}", daemon.authorised().len(), from.record());
}

/// Returns the host that the daemon shows for an address.
fn host_of(daemon: &Daemon, address: &str) -> Option<String> {
    let list = daemon.list();
    let mut clients = list.as_array().expect("an array").iter();
    let client = clients.find(|client| client["address"] == address)?;
    Some(client["host"].as_str().expect("each has a host").to_owned())
}

fn wait_until_from(daemon: &Daemon, address: &str, host: &str) {
    let is_from = within(PATIENCE, || host_of(daemon, address).as_deref() == Some(host));
    assert!(is_from, "{address} is not from {host}: {} {}", daemon.list(), daemon.log());
}

#[test]
fn each_host_speaks_for_itself() {
    let site = Site::new();
    let ours = authority(&[("server", RECEIVER), ("client", SENDER), ("client", OTHER)]);
    let foreign = authority(&[("server", RECEIVER), ("client", SENDER)]);
    let daemon = site.start();
    let to = Host::start(&receiver(&ours, &site));

    // What these log comes from the certificate's name, whatever name they give themselves.
    let honest = Host::start(&sender(&ours, SENDER));
    let claims = format!("global(localHostname=\"{SENDER}\")\n");
    let at_its_port = sender(&ours, OTHER).replace(SENDER_PORT, OTHER_PORT);
    let liar = Host::start(&(claims.clone() + &at_its_port));
    honest.log(&login("198.51.100.11"));
    liar.log(&login("198.51.100.12"));
    wait_until_from(&daemon, "198.51.100.11", SENDER);
    wait_until_from(&daemon, "198.51.100.12", OTHER);

    // These are refused: one that has nobody's certificate, or another host's, or none, or no TLS.
    let honest_file = sender(&ours, SENDER);
    let mut of_foreign = honest_file.clone();
    for file in ["client.pem", "client.key"] {
        of_foreign =
            of_foreign.replace(&file_of(&ours, SENDER, file), &file_of(&foreign, SENDER, file));
    }
    let without = |from: &str, to: &str| {
        let part = honest_file.split_once(from).and_then(|(_, rest)| rest.split_once(to));
        honest_file.replace(&format!("{from}{}", part.expect("it is there").0), "")
    };
    let refused = [
        ("a foreign authority", of_foreign),
        ("another host's port", sender(&ours, OTHER)),
        ("no certificate", without("tls.myCert=", "queue.type=")),
        ("no TLS", without("tls=", "queue.type=")),
    ];
    for (number, (what, file)) in refused.iter().enumerate() {
        let address = format!("198.51.100.{}", 20 + number);
        let host = Host::start(&(claims.clone() + file));
        host.log(&login(&address));
        host.wait_until_it_says("rsyslogd-2007:action");
        let after = format!("198.51.100.{}", 30 + number);
        honest.log(&login(&after));
        daemon.wait_until_authorised(&after);
        assert!(!daemon.query(&address), "{what} is accepted: {}", host.record());
        assert!(!host.record().contains("DISABLING"), "{what}: {}", host.record());
    }

    // The sender, too, refuses a receiver of a foreign authority.
    let wary = sender(&ours, SENDER)
        .replace(&file_of(&ours, SENDER, "ca.pem"), &file_of(&foreign, SENDER, "ca.pem"));
    let wary = Host::start(&wary);
    wary.log(&login("198.51.100.41"));
    wary.wait_until_it_says("DISABLING action");
    assert!(!daemon.query("198.51.100.41"), "{}", to.record());

    // A line that has waited at the sender has the time at which it was logged, and is too late.
    let waited = sender(&ours, SENDER)
        .replace("%TIMEGENERATED:::date-rfc3339%", "2020-01-01T00:00:00+00:00");
    let waited = Host::start(&waited);
    waited.log(&login("198.51.100.43"));
    let late =
        || String::from_utf8_lossy(&daemon.command(&["status", "--json"]).stdout).into_owned();
    let is_late = within(PATIENCE, || late().contains("\"late\":1"));
    assert!(is_late && !daemon.query("198.51.100.43"), "an old login counts: {}", late());

    // The receiver's own logins.
    to.log(&login("198.51.100.42"));
    daemon.wait_until_authorised("198.51.100.42");
}

/// As relp-receiver.conf describes it: by another name in tls.permittedPeer and a restart.
#[test]
fn a_revoked_certificate_is_refused() {
    let site = Site::new();
    let new = "mx2-2.example.org";
    let ours =
        authority(&[("server", RECEIVER), ("client", SENDER), ("client", OTHER), ("client", new)]);
    let daemon = site.start();
    let mut to = Host::start(&receiver(&ours, &site));
    let at_its_port = |name| sender(&ours, name).replace(SENDER_PORT, OTHER_PORT);
    let [honest, revoked] =
        [sender(&ours, SENDER), at_its_port(OTHER)].map(|file| Host::start(&file));
    revoked.log(&login("198.51.100.11"));
    wait_until_from(&daemon, "198.51.100.11", OTHER);

    let permits = |name| format!("tls.permittedPeer=[\"{name}\"]");
    to.configure(&permits(OTHER), &permits(new));
    // A reload is not enough.
    to.process.signal(Signal::SIGHUP);
    to.wait_until_it_says("rsyslogd was HUPed");
    revoked.log(&login("198.51.100.12"));
    wait_until_from(&daemon, "198.51.100.12", OTHER);

    to.end(Signal::SIGTERM);
    to.start_again();
    revoked.log(&login("198.51.100.13"));
    to.wait_until_it_says(&format!("'no permited name found', peer is 'DNSname: {OTHER}"));
    let renewed = Host::start(&at_its_port(new));
    renewed.log(&login("198.51.100.14"));
    honest.log(&login("198.51.100.15"));
    wait_until_from(&daemon, "198.51.100.14", OTHER);
    wait_until_from(&daemon, "198.51.100.15", SENDER);
    assert!(!daemon.query("198.51.100.13"), "the revoked certificate is accepted: {}", to.record());
}
