//! Sockets that outlive the daemon, as systemd holds them: restarts during a stream of logins lose
//! none, whether syslog(3) or a real rsyslogd sends them, over a Unix socket or UDP.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::daemon::Daemon;
use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::postfix::Postfix;
use crate::support::story::login_frame;
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, directory, within};

/// Logins of each sender; about two seconds of them.
const LOGINS: u8 = 250;
/// Pause between two logins of one sender, so that a restart does not fill the queue of UDP.
const PAUSE: Duration = Duration::from_millis(8);
/// Restarts while they are sent.
const RESTARTS: usize = 4;

fn addresses(network: &str) -> impl Iterator<Item = String> {
    (1..=LOGINS).map(move |last| format!("{network}.{last}"))
}

#[test]
fn restarts_lose_no_login() {
    let home = directory();
    let (path, port) = (home.path().join("log.sock"), Port::claim());
    let unix = UnixDatagram::bind(&path).expect("a free path");
    let udp = UdpSocket::bind(("127.0.0.1", port.number())).expect("a free port");
    // What systemd's ReceiveBuffer= does.
    SockRef::from(&udp).set_recv_buffer_size(8 << 20).expect("as much as the kernel allows");
    let postfix = Postfix::configure("reject");
    let start = || {
        let sockets = [
            unix.try_clone().expect("a descriptor").into(),
            udp.try_clone().expect("a descriptor").into(),
        ];
        let map = format!("lmdb:{}", home.path().join("clients").display());
        let config = postfix.config().display().to_string();
        let options = ["--map", &map, "--postfix-config", &config, "--exclude", "none"];
        Daemon::start_with_sockets(home.path(), &options, sockets)
    };

    let to_unix = Wire::unix(&path);
    let to_udp = Wire::Udp(port);
    let forwarders =
        [&to_unix, &to_udp].map(|wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional));
    let mut daemon = Some(start());
    thread::scope(|scope| {
        for (forwarder, network) in forwarders.iter().zip(["192.0.2", "198.51.100"]) {
            scope.spawn(move || {
                for address in addresses(network) {
                    forwarder.log(login_frame(address).replace(" mx1", ""));
                    thread::sleep(PAUSE);
                }
            });
        }
        for (wire, network) in [(&to_unix, "203.0.113"), (&to_udp, "203.0.114")] {
            scope.spawn(move || {
                for address in addresses(network) {
                    wire.send(login_frame(address).as_bytes());
                    thread::sleep(PAUSE);
                }
            });
        }
        for _ in 0..RESTARTS {
            thread::sleep(Duration::from_millis(200));
            let old = daemon.take().expect("it runs");
            assert!(old.stop().success());
            daemon = Some(start());
        }
    });
    let daemon = daemon.expect("it runs");
    let all: BTreeSet<IpAddr> = ["192.0.2", "198.51.100", "203.0.113", "203.0.114"]
        .into_iter()
        .flat_map(addresses)
        .map(|address| address.parse().expect("an address"))
        .collect();
    let listed = || daemon.authorised().into_iter().collect::<BTreeSet<_>>();
    let whole = within(PATIENCE, || listed() == all);
    let lost: Vec<_> = all.difference(&listed()).copied().collect();
    assert!(whole, "lost: {lost:?}\n{}", daemon.log());
}
