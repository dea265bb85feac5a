//! A flood of random and altered frames, at full speed from several senders, while real logins
//! arrive.
//!
//! - **Promise**: every login that arrives over the Unix socket counts, memory stays bounded, and
//!   the log has no line for each frame that an unauthenticated client can cause.
//! - **Limits**: `FLOOD_FRAMES=1000000` of each kind and `FLOOD_ROUNDS=20` are a full run. Random
//!   frames hardly fill a table; what grows during such a flood are the automata of the patterns,
//!   ever more slowly and each within its own limit. Tables are filled deliberately.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what must not be ends the test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::base64;
use support::daemon::Daemon;
use support::home::Home;
use support::random::{Random, setting};
use support::story::login_frame;
use support::wire::Wire;
use support::{PATIENCE, eventually};

/// Frames of each kind in a usual run of all tests.
const FRAMES: u64 = 60_000;
/// Least number of real logins meanwhile.
const LOGINS: u32 = 500;
/// `max-clients`, so that altered logins authorise a bounded number of addresses.
const CLIENTS: &str = "2000";
/// Permitted memory growth in the second half of the flood, in KiB.
const GROWTH: u64 = 12 * 1024;
/// Processes and hosts that fill every table; the largest tables have 65,536 entries.
const FILL: u64 = 70_000;
/// Rounds of `FILL` new processes and hosts in a usual run of all tests.
const ROUNDS: u64 = 2;
/// Permitted memory growth once the tables are full, in KiB: more than the allocator's fluctuation,
/// and less than four bytes for each frame.
const SLACK: u64 = 2 * 1024;
/// Permitted log lines that are not about an address that was authorised or expired.
const OTHER_LINES: usize = 10;
/// Permitted log lines about altered logins: a few reasons for each of 19 mail daemons.
const LOST_LOGINS: usize = 100;
const CORPUS: [&str; 2] =
    [include_str!("corpus/frames.jsonl"), include_str!("corpus/frames2.jsonl")];

fn genuine_frames() -> Vec<Vec<u8>> {
    let frame = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a row of JSON");
        base64::decode(row["raw_b64"].as_str().expect("a frame"))
    };
    CORPUS.iter().flat_map(|text| text.lines()).map(frame).collect()
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    let length = match random.below(1000) {
        0 => 60_000,
        1..=20 => random.index(8000),
        _ => random.index(400),
    };
    // Half of them begin like a frame.
    let mut frame =
        if random.below(2) == 0 { b"<22>Nov 22 07:31:23 ".to_vec() } else { Vec::new() };
    frame.extend((0..length.div_ceil(8)).flat_map(|_| random.number().to_le_bytes()));
    frame
}

fn altered_frame(random: &mut Random, genuine: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = genuine[random.index(genuine.len())].clone();
    for _ in 0..1 + random.below(3) {
        let length = frame.len();
        if length == 0 {
            break;
        }
        let (at, to) = (random.index(length), random.index(length));
        match random.below(6) {
            0 => frame[at] = random.number().to_le_bytes()[0],
            1 => frame.truncate(at),
            2 => drop(frame.drain(at.min(to)..at.max(to))),
            3 => {
                let part = frame[at.min(to)..at.max(to)].to_vec();
                frame.splice(at..at, part);
            }
            4 => frame.insert(at, random.number().to_le_bytes()[0]),
            _ => {
                let other = &genuine[random.index(genuine.len())];
                frame.splice(
                    at..,
                    other[random.index(other.len().max(1)).min(other.len())..].to_vec(),
                );
            }
        }
    }
    frame
}

/// Returns the resident memory in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("status --json prints JSON")
}

/// Sends `count` frames of both kinds, by UDP or to the Unix socket.
fn flood(home: &Home, udp: &Wire, seed: u64, count: u64, sent: &AtomicU64, genuine: &[Vec<u8>]) {
    let mut random = Random::new(seed);
    let (Wire::Udp(port), Wire::Unix(path)) = (udp, &home.wire) else {
        panic!("one of each kind");
    };
    let to = ("127.0.0.1", port.number());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let local = UnixDatagram::unbound().expect("a socket");
    for number in 0..count {
        let frame = match number % 2 {
            0 => random_frame(&mut random),
            _ => altered_frame(&mut random, genuine),
        };
        // UDP drops the excess; the Unix socket makes its senders wait.
        let accepted = match seed % 2 {
            0 => socket.send_to(&frame, to).is_ok(),
            _ => local.send_to(&frame, path).is_ok(),
        };
        sent.fetch_add(u64::from(accepted), Ordering::Relaxed);
    }
}

fn real_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc612_0000 + number)
}

/// Returns the frame of a login on a host of its own: some altered lines look like fragments, and for a
/// moment no login counts that the same host logs.
fn real_login(address: impl std::fmt::Display) -> Vec<u8> {
    login_frame(address).replace(" mx1 ", " mail ").into_bytes()
}

#[test]
fn flood_hides_no_login_and_is_not_logged() {
    let frames = setting("FLOOD_FRAMES").unwrap_or(FRAMES);
    let seed = 2 * setting("FLOOD_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{frames} frames of each kind, FLOOD_SEED={}", seed / 2);
    let genuine = genuine_frames();
    let (home, udp) = (Home::new(), Wire::udp());
    let listen = udp.to_string();
    let daemon = home.start(&["--listen", &listen, "--max-clients", CLIENTS]);
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut course, mut real) = (Vec::new(), 0);
    let begun = Instant::now();
    thread::scope(|threads| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (home, udp, sent, genuine) = (&home, &udp, &sent, &genuine);
                threads.spawn(move || flood(home, udp, seed + sender, frames / 2, sent, genuine))
            })
            .collect();
        let logins = threads.spawn(|| {
            let mut number = 0;
            while number < LOGINS || !over.load(Ordering::Relaxed) {
                number += 1;
                let address = real_address(number);
                home.wire.send(&real_login(address));
                // Checked early, before others evict it.
                if number % 50 == 0 {
                    daemon.wait_until_authorised(&address.to_string());
                }
                thread::sleep(Duration::from_millis(2));
            }
            number
        });
        for tenth in 1..=10 {
            let passed = || sent.load(Ordering::Relaxed) >= frames / 5 * tenth;
            eventually("another tenth of the flood", Duration::from_secs(600), passed);
            course.push(memory(&daemon));
        }
        for sender in senders {
            sender.join().expect("it has sent everything");
        }
        over.store(true, Ordering::Relaxed);
        real = logins.join().expect("every login counted");
    });
    let span = begun.elapsed();
    // One socket preserves the order.
    home.wire.send(&real_login("198.51.100.7"));
    daemon.wait_until_authorised("198.51.100.7");
    home.wait_until_mapped("198.51.100.7", &daemon);
    let (late, status) = (memory(&daemon), status(&daemon));

    let log = daemon.log();
    let (about, other): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| line.contains("authorised") && line.contains(" address="));
    // Altered logins still look like logins; the first one of each kind is logged.
    let (lost, other): (Vec<&str>, Vec<&str>) =
        other.into_iter().partition(|line| line.contains("a login has authorised nobody"));
    let kinds: BTreeSet<&str> = lost.iter().filter_map(|line| kind_of_lost_login(line)).collect();
    let counted = |number: u32| {
        about.iter().any(|line| line.contains(&format!(" address={} ", real_address(number))))
    };
    println!(
        "{} of {} frames in {span:.1?}, {} processed, {} of the UDP frames dropped by the kernel; \
         {real} real logins; {} grants in all; memory {course:?} KiB, {late} KiB at the \
         end; {} lines about grants, {} others",
        sent.load(Ordering::Relaxed),
        2 * frames,
        status["frames"],
        status["listeners"][1]["kernel_drops"],
        status["counts"]["granted"],
        about.len(),
        other.len(),
    );
    let missing: Vec<u32> = (1..=real).filter(|number| !counted(*number)).collect();
    assert!(missing.is_empty(), "not authorised: {missing:?}");
    let half_way = course[4];
    assert!(late <= half_way + GROWTH, "memory grows: {course:?} KiB, {late} KiB");
    assert!(other.len() <= OTHER_LINES, "the log is flooded: {:#?}", &other[..20.min(other.len())]);
    assert_eq!(kinds.len(), lost.len(), "each kind is logged once: {lost:#?}");
    assert!(lost.len() <= LOST_LOGINS, "{lost:#?}");
    let granted = usize::try_from(status["counts"]["granted"].as_u64().expect("a number"));
    assert!(about.len() <= 2 * granted.expect("small"), "more lines than grants");
    eventually("the client is authorised", PATIENCE, || daemon.query("198.51.100.7"));
    assert!(daemon.stop().success());
}

/// Returns the mail daemon and the reason in a log line about a login that has authorised nobody.
fn kind_of_lost_login(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" daemon=")?;
    rest.split_once(" frame=").map(|(kind, _)| kind)
}

/// Returns frames that each take an entry in a table, for a new process and host each time.
fn frames_to_remember(number: u64) -> [String; 5] {
    let fragment = "x".repeat(505);
    let client = real_address(u32::try_from(number % 1000).expect("small"));
    [
        // A connection that never logs in.
        format!("<30>Nov 22 07:31:23 mx1 popa3d[{number}]: Session from 192.0.2.7"),
        // The first fragment of a line, whose continuation never arrives.
        format!("<22>Nov 22 07:31:23 mx1 imapd[{number}]: {fragment}"),
        // A process that connects to another server, in a message without a priority.
        format!("Nov 22 07:31:23 mx1 ipop3d[{number}]: IMAP login to host=x"),
        // A host whose logouts have session ids.
        format!("<22>Nov 22 07:31:23 mx{number} dovecot: imap(joe)<7><a>: Logged out in=9 out=7"),
        // A host with a login.
        login_frame(client).replace(" mx1 ", &format!(" mx{number} ")),
    ]
}

#[test]
fn full_tables_do_not_grow() {
    let home = Home::new();
    let daemon = home.start(&["--max-clients", CLIENTS]);
    let rounds = setting("FLOOD_ROUNDS").unwrap_or(ROUNDS);
    let local = UnixDatagram::unbound().expect("a socket");
    local.connect(home.at("log.sock")).expect("the daemon listens");
    let course: Vec<u64> = (0..rounds)
        .map(|round| {
            for frame in (FILL * round..FILL * (round + 1)).flat_map(frames_to_remember) {
                local.send(frame.as_bytes()).expect("the socket makes its senders wait");
            }
            let last = format!("198.51.100.{round}");
            local.send(login_frame(&last).as_bytes()).expect("sent");
            daemon.wait_until_authorised(&last);
            memory(&daemon)
        })
        .collect();
    let counts = &status(&daemon)["counts"];
    println!("memory after each {FILL} of each kind: {course:?} KiB; {counts}");
    // Since the first round all tables are full.
    let overloaded = counts["overloaded"].as_u64().expect("a number");
    assert!(overloaded >= 2 * FILL * (rounds - 1), "a table has room: {counts}");
    let late = course[course.len() - 1];
    assert!(late <= course[0] + SLACK, "memory grows: {course:?} KiB");
    assert!(daemon.stop().success());
}
