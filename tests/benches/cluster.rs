//! Several hosts with one set, measured from outside with a real Redis: how soon what happens on one
//! host counts on another, how soon a new host knows all, and how much the store needs.
//!
//! `cargo bench --features cluster --bench cluster`; Redis in target/tools. `CLIENTS=1000000` is the
//! number of clients of the large set.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use support::daemon::Daemon;
use support::redis::Redis;
use support::socketmap_client::SocketmapClient;
use support::story::login_frame;

/// Samples of each latency.
const SAMPLES: u32 = 300;
/// Logins per second of the loaded run.
const RATE: u32 = 5000;
/// Renewals of each client before the store's size is taken.
const RENEWALS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(120);

struct Host {
    dir: TempDir,
    daemon: Daemon,
}

impl Host {
    /// Starts a host that has so many clients in its state file.
    fn start(name: &str, url: &str, clients: u32) -> Self {
        let dir = support::directory();
        let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
        fs::write(dir.path().join("state"), state(clients)).unwrap();
        let options = [
            ["--listen", &at("log.sock")],
            ["--socketmap", &at("socketmap")],
            ["--cluster", url],
            ["--cluster-host", name],
            ["--max-clients", "3000000"],
            ["--exclude", "none"],
            ["--log-level", "warn"],
        ];
        let daemon = Daemon::start(dir.path(), options.as_flattened());
        Self { dir, daemon }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> UnixDatagram {
        let log = UnixDatagram::unbound().unwrap();
        log.connect(self.at("log.sock")).unwrap();
        log
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.daemon.command(&["status", "--json"]).stdout).unwrap()
    }

    fn clients(&self) -> u64 {
        self.status()["clients"].as_u64().unwrap()
    }
}

fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + number)
}

fn state(clients: u32) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let end = now + 1_700_000;
    let mut state = String::from("pop-before-smtp state 1\n");
    for number in 0..clients {
        let address = client(number);
        let user = format!("user{number}@example.org");
        writeln!(state, "grant\t{address}\t{now}\t{end}\t\t\t1\tdovecot\tmx1\t\t{end}\t{user}\t.")
            .unwrap();
    }
    state
}

fn wait(what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}

fn admitted(map: &mut SocketmapClient, socket: &Path, address: IpAddr, wanted: bool) -> Duration {
    let begun = Instant::now();
    while map.admits(socket, address) != Some(wanted) {
        assert!(begun.elapsed() < PATIENCE, "{address} {wanted}");
    }
    begun.elapsed()
}

/// From before a login on one host, and before a revocation, until the socketmap of another answers.
fn latency(what: &str, from: &Host, to: &Host) {
    let (log, socket) = (from.log(), to.at("socketmap"));
    let mut map = SocketmapClient::default();
    let (mut logins, mut revocations) = (Vec::new(), Vec::new());
    for number in 0..SAMPLES {
        let address = Ipv4Addr::from_bits(0xCB00_7100 + number % 200).into();
        log.send(login_frame(address).as_bytes()).unwrap();
        logins.push(admitted(&mut map, &socket, address, true));
        let shown = address.to_string();
        std::thread::scope(|scope| {
            // The command starts a process: the time counts from when the first host refuses.
            let command = scope.spawn(|| from.daemon.command(&["revoke", &shown]));
            admitted(&mut SocketmapClient::default(), &from.at("socketmap"), address, false);
            revocations.push(admitted(&mut map, &socket, address, false));
            assert!(command.join().unwrap().status.success());
        });
    }
    for (what_happens, took) in [("login", &mut logins), ("revoke", &mut revocations)] {
        took.sort_unstable();
        let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
        println!(
            "  {what}: {what_happens} on one host to the answer of another: median {:.2?}, 99 % {:.2?}, \
             worst {:.2?}",
            at(50),
            at(99),
            took[took.len() - 1]
        );
    }
}

fn main() {
    let large: u32 = std::env::var("CLIENTS").map_or(1_000_000, |number| number.parse().unwrap());
    hearing(large);
    let redis = Redis::start(&[]);
    let url = redis.url();
    let hosts = ["a", "b"].map(|name| Host::start(name, &url, 0));
    let [a, b] = &hosts;
    wait("connected", || hosts.iter().all(|it| it.status()["cluster"]["connected"] == true));
    latency("idle", a, b);

    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| logins(b, &ends));
        latency("5,000 logins a second", a, b);
        ends.store(true, Ordering::Relaxed);
    });

    let begun = Instant::now();
    let c = Host::start("c", &url, large);
    latency("a third host tells a million", a, b);
    let all = u64::from(large);
    wait("told", || a.clients() >= all && b.clients() >= all);
    println!("  {large} clients restored, told and heard after {:.1?}", begun.elapsed());

    let begun = Instant::now();
    let fresh = Host::start("fresh", &url, 0);
    wait("heard", || fresh.clients() >= all);
    println!("  a fresh host has {large} clients after {:.2?}", begun.elapsed());
    let usage = redis.cli(&["MEMORY", "USAGE", "pop-before-smtp:default", "SAMPLES", "0"]);
    println!("  the store has {usage} bytes, {} a client", usage.parse::<u64>().unwrap() / all);

    redis.cli(&["FLUSHALL"]);
    wait("told again", || c.status()["cluster"]["told"].as_u64() > Some(all + 10_000));
    latency("a million are told again", a, b);
    drop((fresh, c, hosts, redis));
    renewals();
}

/// Logs clients in at a constant rate.
fn logins(host: &Host, ends: &AtomicBool) {
    let (log, begun) = (host.log(), Instant::now());
    let mut sent = 0;
    while !ends.load(Ordering::Relaxed) {
        while f64::from(sent) < begun.elapsed().as_secs_f64() * f64::from(RATE) {
            let frame = login_frame(Ipv4Addr::from_bits(0x0C00_0000 + sent));
            log.send(frame.as_bytes()).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a client takes in the store after it has renewed its grant again and again.
fn renewals() {
    const CLIENTS: u32 = 10_000;
    let redis = Redis::start(&[]);
    let dir = support::directory();
    let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
    // With a grace of 30 seconds each second is a renewal that is told.
    let options = [
        ["--listen", &at("log.sock")],
        ["--socketmap", &at("socketmap")],
        ["--cluster", &redis.url()],
        ["--cluster-host", "mx1"],
        ["--grace", "120s"],
        ["--log-level", "warn"],
    ];
    let daemon = Daemon::start(dir.path(), options.as_flattened());
    let host = Host { dir, daemon };
    wait("connected", || host.status()["cluster"]["connected"] == true);
    let log = host.log();
    for round in 0..=RENEWALS {
        let begun = Instant::now();
        for number in 0..CLIENTS {
            let frame =
                login_frame(client(number)).replace("joe", &format!("user{number}@example.org"));
            log.send(frame.as_bytes()).unwrap();
        }
        let told = u64::from(CLIENTS) * (round + 1);
        wait("told", || host.status()["cluster"]["told"].as_u64() >= Some(told));
        std::thread::sleep(Duration::from_millis(4100).saturating_sub(begun.elapsed()));
    }
    let usage = redis.cli(&["MEMORY", "USAGE", "pop-before-smtp:default", "SAMPLES", "0"]);
    let each = usage.parse::<u64>().unwrap() / u64::from(CLIENTS);
    println!("  {CLIENTS} clients after {RENEWALS} renewals: {usage} bytes, {each} a client");
}

/// What an entry costs the host that hears it.
fn hearing(clients: u32) {
    use pop_before_smtp::engine::cluster::entry::EntryId;
    use pop_before_smtp::engine::time::Time;
    use pop_before_smtp::engine::{Engine, Rules};
    let now = Time::from_millis(1_795_000_000_000);
    let mut engine = Engine::new(Rules { max_clients: 2_000_000, ..Rules::default() });
    engine.join_cluster("b".into(), 1);
    engine.begin_reading(now, now, []);
    let entry = |number: u32| {
        let address = client(number);
        let user = format!("user{number}@example.org");
        format!("g\t{address}\ta\t\t1795000000000\t5\t1800000\t\t\t1\tdovecot\tmx1\t\t\t{user}")
    };
    let entries: Vec<String> = (0..clients).map(entry).collect();
    let begun = Instant::now();
    for (number, text) in (0..).zip(&entries) {
        engine.hear(now, EntryId { millis: now.as_millis(), number }, text);
    }
    assert_eq!(engine.clients_at(now), clients as usize);
    println!("  an entry heard: {:.0?}", begun.elapsed() / clients);
}
