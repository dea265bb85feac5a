//! Many connections: what idle and slow ones, and those that do not read, cost the daemon and the
//! others.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{CLIENT, DUNNO, Kind, NO, Peer, Site, query, request, status};
use crate::support::daemon::Daemon;
use crate::support::wire::Port;
use crate::support::{PATIENCE, eventually};

/// More connections than a service has slots.
const MANY: usize = 2300;

/// Returns the daemon's memory, in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.and_then(|figure| figure.parse().ok()).expect("a figure in KiB")
}

#[test]
fn hundreds_of_idle_connections_cost_little() {
    for (protocol, asked, reply) in [
        ("socketmap", query(CLIENT), NO),
        ("policy", request("RCPT", CLIENT, "joe@example.org"), DUNNO),
    ] {
        let site = Site::start(protocol, Kind::Unix, &[]);
        let before = memory(&site.daemon);
        let idle: Vec<Peer> = (0..200).map(|_| site.peer()).collect();
        let mut slow: Vec<Peer> = (0..300).map(|_| site.peer()).collect();
        let mut peer = site.peer();
        let mut worst = Duration::ZERO;
        for byte in &asked[..asked.len().min(20) - 1] {
            for each in &mut slow {
                each.0.write_all(&[*byte]).expect("it is open");
            }
            let start = Instant::now();
            peer.ask(&asked, reply);
            worst = worst.max(start.elapsed());
        }
        assert!(worst < Duration::from_secs(1), "{protocol}: {worst:?} for an answer");
        let cost = memory(&site.daemon).saturating_sub(before);
        assert!(cost < 500 * 16, "{protocol}: {cost} KiB for 500 connections");
        println!("{protocol}: worst answer {worst:?}, {cost} KiB for 500 connections");
        for each in idle.into_iter().take(3) {
            let mut each = each;
            each.ask(&asked, reply);
        }
        assert!(site.daemon.stop().success());
    }
}

/// Many short requests behind a long one, which has made room for them, are answered piece by piece;
/// nothing is kept for a client that is idle afterwards.
#[test]
fn many_requests_at_once_cost_little() {
    const CONNECTIONS: u64 = 200;
    const REQUESTS: usize = 32_000;
    let site = Site::start("policy", Kind::Unix, &[]);
    let lookups = || status(&site.daemon)["lookups"][0].clone();
    let begin = || {
        let mut peers: Vec<Peer> = (0..CONNECTIONS).map(|_| site.peer()).collect();
        for peer in &mut peers {
            let head = format!("helo_name={}", "x".repeat(32_000));
            peer.0.write_all(head.as_bytes()).expect("it is open");
        }
        // Read before the rest is sent, it has made the daemon's buffers as long as they become.
        std::thread::sleep(Duration::from_millis(500));
        peers
    };
    let flood = [&b"\n\n"[..], &b"\n".repeat(REQUESTS)].concat();
    let before = memory(&site.daemon);
    let cost = || memory(&site.daemon).saturating_sub(before);

    let mut idle = begin();
    for peer in &mut idle {
        peer.ask(&flood, &DUNNO.repeat(REQUESTS + 1));
    }
    println!("{} KiB for {CONNECTIONS} idle connections", cost());
    // The C library keeps what the beginnings took, once for all.
    assert!(cost() < CONNECTIONS * 64, "{} KiB for {CONNECTIONS} idle connections", cost());
    drop(idle);
    eventually("they are closed", PATIENCE, || lookups()["connections"] == 0);

    // What is not read fills the socket's buffer first.
    let answered = lookups()["requests"].as_u64().expect("a number") + CONNECTIONS * 5000;
    let mut unread = begin();
    for peer in &mut unread {
        peer.0.write_all(&flood).expect("it is open");
    }
    eventually("all are answered in part", PATIENCE, || {
        lookups()["requests"].as_u64().is_some_and(|requests| requests > answered)
    });
    println!("{} KiB for {CONNECTIONS} that do not read", cost());
    assert!(cost() < CONNECTIONS * 80, "{} KiB for {CONNECTIONS} that do not read", cost());
    let mut peer = site.peer();
    peer.ask(&request("RCPT", CLIENT, ""), DUNNO);
    unread[0].expect(&flood[..9], &DUNNO.repeat(REQUESTS + 1));
    drop(unread);
    assert!(site.daemon.stop().success());
}

/// Silent and slow connections block nobody, neither on the other service nor on their own.
#[test]
fn many_connections_block_nobody() {
    // For this end of the connections; the daemon raises its own limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may be raised");
    let port = Port::claim();
    let policy = format!("inet:127.0.0.1:{}", port.number());
    let site = Site::start("socketmap", Kind::Unix, &["--policy", &policy]);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port.number())).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Peer(Box::new(stream))
    };
    let asked = request("RCPT", CLIENT, "joe@example.org");
    let mut old = connect();
    old.ask(&asked, DUNNO);
    let mut many: Vec<Peer> = (0..MANY).map(|_| connect()).collect();
    for each in &mut many {
        // It may have been evicted.
        let _ = each.0.write_all(b"r");
    }
    let begin = Instant::now();
    let (mut other, mut new) = (site.peer(), connect());
    other.ask(&query(CLIENT), NO);
    new.ask(&asked, DUNNO);
    old.ask(&asked, DUNNO);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let lookups = &status(&site.daemon)["lookups"];
    let (socketmap, policy) = (&lookups[0], &lookups[1]);
    assert_eq!((&socketmap["evicted"], &socketmap["connections"]), (&0.into(), &1.into()));
    // The old one, the many and a new one, in 2,000 slots.
    let evicted = policy["evicted"].as_u64().expect("a number");
    assert_eq!(evicted, MANY as u64 + 2 - 2000, "{policy}");
    assert_eq!(policy["connections"], 2000, "{policy}");
    assert!(!site.daemon.log().contains("connection"), "{}", site.daemon.log());
    drop(many);
    assert!(site.daemon.stop().success());
}
