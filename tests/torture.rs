//! The daemon is killed at random moments under load, again and again, and restarts.
//!
//! - **Promise**: a login that is a second old is authorised after the restart. No one is
//!   authorised past the deadline of their last login, or after `revoke` has returned. The map is
//!   present and complete at every moment.
//! - **Limits**: `TORTURE_KILLS=500` is a full run; `TORTURE_SEED` repeats the moments of a run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what must not be ends the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use support::daemon::{Daemon, program};
use support::home::Home;
use support::random::{Random, setting};
use support::socketmap_client::SocketmapClient as Client;
use support::story::login_frame;
use support::wire::Wire;
use support::{PATIENCE, eventually, within};

/// Kills in a usual run of all tests.
const KILLS: u64 = 80;
/// Short, so that deadlines pass during the test, in milliseconds.
const GRACE: u64 = 8000;
/// Longest time, in milliseconds, that a frame may wait in its socket before it is processed and
/// counts: usually a few, more on a busy machine.
const MAX_DELAY: u64 = 2000;
/// A login announced this long before a kill, in milliseconds, is in the state file.
const SAVED_WITHIN: u64 = 1000;
/// Adjustment of the wall clock between two starts, in milliseconds.
const CLOCK_NOISE: u64 = 20;
const GENERATION: &str = "_pbs_generation_ DUNNO ";

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 584554531")
}

/// What is known of one address, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Login {
    /// Before the first frame was sent: its grant expires `GRACE` after this, or later.
    first: u64,
    /// After the last frame was sent; the maximum while one is in flight.
    last: u64,
    /// When the socketmap first confirmed it, unless a kill may have undone that.
    answered: Option<u64>,
    /// How old it was at the kill that may have undone it.
    young: Option<u64>,
    /// When `revoke` had removed its grant and blocked new ones.
    revoked: Option<u64>,
}

impl Login {
    fn confirmed_before(&self, moment: u64) -> bool {
        self.revoked.is_none() && self.answered.is_some_and(|at| at < moment)
    }

    fn revoked_before(&self, moment: u64) -> bool {
        self.revoked.is_some_and(|at| at < moment)
    }

    fn latest_end(&self) -> u64 {
        self.last.saturating_add(GRACE + MAX_DELAY)
    }
}

/// Figures of a run.
#[derive(Debug, Default)]
struct Figures {
    logins: AtomicU64,
    replies: AtomicU64,
    refusals: AtomicU64,
    looks: AtomicU64,
    unready: u64,
    checks: u64,
    kept: u64,
    revoked: AtomicU64,
    still_revoked: u64,
    lost: u64,
    oldest_lost: u64,
    youngest_kept: u64,
    latest: u64,
}

/// Everything that the threads of the test share.
struct Scene {
    home: Home,
    udp: Wire,
    logins: Mutex<BTreeMap<IpAddr, Login>>,
    next: AtomicU32,
    kills: AtomicU64,
    load: AtomicBool,
    watch: AtomicBool,
    over: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl Scene {
    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// Asserts that no fault was found.
    fn must_be_sound(&self, daemon: &Daemon) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}\nlog: {}", daemon.log());
    }

    fn spawn(&self) -> Daemon {
        let (socketmap, listen) = (self.socketmap(), self.udp.to_string());
        let socketmap = format!("unix:{}", socketmap.display());
        let grace = format!("{}s", GRACE / 1000);
        let options = ["--socketmap", &socketmap, "--listen", &listen];
        self.home.spawn(&[&["--grace", &*grace][..], &options].concat())
    }

    fn socketmap(&self) -> PathBuf {
        self.home.at("socketmap.sock")
    }

    /// Sends a frame; returns whether it was accepted.
    fn send(&self, by_udp: bool, frame: &[u8]) -> bool {
        let sent = match (&self.udp, &self.home.wire) {
            (Wire::Udp(port), _) if by_udp => UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(frame, ("127.0.0.1", port.number()))),
            (_, Wire::Unix(path)) => {
                UnixDatagram::unbound().and_then(|socket| socket.send_to(frame, path))
            }
            _ => panic!("two Unix sockets"),
        };
        sent.is_ok()
    }

    /// Logs in from an address and waits until the socketmap confirms it.
    fn log_in(&self, address: IpAddr, by_udp: bool, client: &mut Client, figures: &Figures) {
        let (begun, life) = (now(), self.kills.load(Ordering::Relaxed));
        let change = |change: &dyn Fn(&mut Login)| {
            change(self.logins.lock().unwrap().entry(address).or_insert(Login {
                first: begun,
                last: begun,
                answered: None,
                young: None,
                revoked: None,
            }));
        };
        change(&|login| login.last = u64::MAX);
        let sent = self.send(by_udp, login_frame(address).as_bytes());
        let after = now();
        change(&|login| login.last = after);
        if !sent {
            std::thread::sleep(Duration::from_millis(5));
            return;
        }
        figures.logins.fetch_add(1, Ordering::Relaxed);
        for _ in 0..20 {
            match client.admits(&self.socketmap(), address) {
                Some(true) => {
                    let at = now();
                    figures.replies.fetch_add(1, Ordering::Relaxed);
                    change(&|login| {
                        // A reply from before a kill says nothing about the next process.
                        if self.kills.load(Ordering::Relaxed) == life {
                            login.answered = login.answered.or(Some(at));
                        }
                    });
                    return;
                }
                Some(false) => {}
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Revokes a grant and blocks new ones, as an operator does.
    fn revoke(&self, address: IpAddr, figures: &Figures) {
        // The grant is removed before the command returns.
        let change = |change: &dyn Fn(&mut Login)| {
            change(self.logins.lock().unwrap().get_mut(&address).expect("it has logged in"));
        };
        change(&|login| (login.answered, login.young) = (None, None));
        let mut command = program();
        command.args(["revoke", &address.to_string(), "--block", "1h", "--control"]);
        let output = command.arg(self.home.at("control.sock")).output().expect("it can be started");
        let done = output.status.success();
        // The map may be updated later.
        if done && String::from_utf8_lossy(&output.stderr).contains("cannot write") {
            self.fault(format!("the disk does not have the revocation: {output:?}"));
        }
        if done {
            figures.revoked.fetch_add(1, Ordering::Relaxed);
            let at = now();
            change(&|login| login.revoked = login.revoked.or(Some(at)));
        }
    }

    /// One of several threads that log in, and revoke some of the logins.
    fn sender(&self, mut random: Random, by_udp: bool, figures: &Figures) {
        let mut client = Client::default();
        let mut mine: Vec<IpAddr> = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2 + random.below(15)));
            if self.load.load(Ordering::Relaxed) {
                // Most are new; some log in again while their grant lasts.
                let back = mine.len().saturating_sub(1 + random.index(60));
                let address = match mine.get(back).filter(|_| random.below(5) == 0) {
                    Some(address) if self.age(*address) < GRACE / 2 => *address,
                    _ => {
                        // 198.18.0.0/15: networks of test benches (RFC 2544).
                        let number = self.next.fetch_add(1, Ordering::Relaxed);
                        let address = Ipv4Addr::from_bits(0xc612_0000 + number).into();
                        mine.push(address);
                        address
                    }
                };
                self.log_in(address, by_udp, &mut client, figures);
            }
            let Some(old) = mine.get(random.index(mine.len().max(1))).copied() else { continue };
            let young = mine.len().saturating_sub(1 + random.index(60));
            if random.below(30) == 0 && self.age(mine[young]) < GRACE / 2 {
                self.revoke(mine[young], figures);
            }
            let (login, asked) = (self.logins.lock().unwrap()[&old], now());
            if login.revoked.is_some() {
                // The block must still hold.
                self.send(by_udp, login_frame(old).as_bytes());
            }
            if login.revoked.is_some() || login.latest_end() < asked {
                match client.admits(&self.socketmap(), old) {
                    Some(true) => self.fault(format!("{old} is admitted at {asked}: {login:?}")),
                    Some(false) => drop(figures.refusals.fetch_add(1, Ordering::Relaxed)),
                    None => {}
                }
            }
        }
    }

    fn age(&self, address: IpAddr) -> u64 {
        now().saturating_sub(self.logins.lock().unwrap()[&address].first)
    }

    /// Reads the map all the time, as other processes do.
    fn watcher(&self, figures: &Figures) {
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(3));
            if !self.watch.load(Ordering::Relaxed) {
                continue;
            }
            match fs::read_to_string(self.home.at("clients")) {
                Ok(source) => {
                    let last = source.lines().next_back().unwrap_or_default();
                    if !source.ends_with('\n') || !last.starts_with(GENERATION) {
                        self.fault(format!("the source is incomplete, it ends with {last:?}"));
                    }
                }
                Err(error) => self.fault(format!("the source cannot be read: {error}")),
            }
            let found = self.home.map_value("_pbs_generation_");
            if !found.as_deref().is_some_and(|value| value.starts_with("DUNNO ")) {
                self.fault(format!("the map is incomplete, its generation is {found:?}"));
            }
            figures.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the addresses in the compiled map, as postmap reads it.
    fn map(&self) -> BTreeSet<IpAddr> {
        let mut postmap = Command::new("postmap");
        postmap.arg("-c").arg(self.home.postfix.config()).arg("-s").arg(self.home.table());
        let output = postmap.output().expect("postmap can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        if self.watch.load(Ordering::Relaxed) && !(output.status.success() && said.is_empty()) {
            self.fault(format!("the map cannot be read: {said}"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let keys = text.lines().map(|line| line.split('\t').next().unwrap_or_default());
        let clients = keys.filter(|key| *key != "_pbs_generation_");
        clients.map(|key| key.parse().expect("a key is an address")).collect()
    }

    /// Kills the daemon, and notes what was confirmed before.
    fn kill(&self, daemon: &mut Daemon, figures: &mut Figures) {
        let killed = now();
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        let map = self.map();
        let mut logins = self.logins.lock().unwrap();
        self.kills.fetch_add(1, Ordering::Relaxed);
        for address in map.iter().filter(|address| !logins.contains_key(*address)) {
            self.fault(format!("{address} is in the map and never logged in"));
        }
        for login in logins.values_mut() {
            let age = login.answered.map(|at| killed.saturating_sub(at));
            login.young = age.filter(|age| *age < SAVED_WITHIN);
            if login.young.is_some() {
                login.answered = None;
            } else if let Some(age) = age {
                figures.youngest_kept = figures.youngest_kept.min(age);
            }
        }
    }

    /// Checks the daemon that was started at `started` against what was confirmed before.
    fn check(&self, daemon: &Daemon, started: u64, figures: &mut Figures) {
        figures.checks += 1;
        let before = now();
        let (listed, mapped) = (daemon.authorised(), self.map());
        let listed: BTreeSet<IpAddr> = listed.into_iter().collect();
        let after = now();
        let state = fs::read_to_string(self.home.at("state")).expect("the state file");
        let logins = self.logins.lock().unwrap();
        for (from, addresses, then) in [("list", &listed, before), ("map", &mapped, started)] {
            for address in addresses {
                match logins.get(address) {
                    None => self.fault(format!("{address} is in the {from} and never logged in")),
                    Some(login) if login.revoked_before(then) || login.latest_end() < then => {
                        self.fault(format!("{address} is in the {from} at {then}: {login:?}"));
                    }
                    Some(_) => {}
                }
            }
        }
        for line in state.lines().filter_map(|line| line.strip_prefix("grant\t")) {
            let fields: Vec<&str> = line.split('\t').collect();
            let (address, end) = (fields[0].parse().expect("an address"), fields[2]);
            let (login, end): (_, u64) = (&logins[&address], end.parse().expect("a moment"));
            let in_flight = login.last == u64::MAX;
            // The records of later revocations follow.
            if login.revoked.is_some() {
                continue;
            }
            if end + CLOCK_NOISE < login.first + GRACE || end > login.latest_end() {
                self.fault(format!("the state file says {address} until {end}: {login:?}"));
            } else if !in_flight {
                figures.latest = figures.latest.max(end.saturating_sub(login.last + GRACE));
            }
        }
        for (address, login) in logins.iter() {
            figures.still_revoked += u64::from(login.revoked_before(started));
            let is_lost = login.revoked.is_none() && !listed.contains(address);
            if let Some(age) = login.young.filter(|_| is_lost && after < login.first + GRACE) {
                figures.lost += 1;
                figures.oldest_lost = figures.oldest_lost.max(age);
            }
        }
        for (address, login) in logins.iter().filter(|(_, login)| login.confirmed_before(before)) {
            if login.first + GRACE < after + CLOCK_NOISE {
                continue;
            }
            if !listed.contains(address) {
                self.fault(format!("{address} is lost, at {after}: {login:?}"));
            }
            figures.kept += 1;
            // Logins after the start may be too recent for the first map.
            let is_old = login.answered.is_none_or(|at| at < started);
            if is_old && !mapped.contains(address) {
                self.fault(format!("{address} is not in the map after a restart: {login:?}"));
            }
        }
    }
}

/// Returns how long a daemon may live from its start: often not long enough to become ready, often
/// until its second publication.
fn span(random: &mut Random) -> Duration {
    let millis = match random.below(4) {
        0 => random.below(200),
        1 | 2 => random.below(700),
        _ => 900 + random.below(700),
    };
    Duration::from_millis(millis)
}

fn torture(map_type: &'static str, kills: u64, seed: u64) {
    println!("{map_type}: {kills} kills, TORTURE_SEED={seed}");
    let scene = Scene {
        home: Home::with_map(map_type),
        udp: Wire::udp(),
        logins: Mutex::default(),
        next: AtomicU32::new(1),
        kills: AtomicU64::new(0),
        load: AtomicBool::new(true),
        watch: AtomicBool::new(false),
        over: AtomicBool::new(false),
        faults: Mutex::default(),
    };
    let shared = Figures::default();
    let mut figures = Figures { youngest_kept: u64::MAX, ..Figures::default() };
    std::thread::scope(|threads| {
        for number in 0..3 {
            let random = Random::new(seed ^ (number + 1) << 32);
            let (scene, shared) = (&scene, &shared);
            threads.spawn(move || scene.sender(random, number == 2, shared));
        }
        threads.spawn(|| scene.watcher(&shared));
        // The threads end with the test, also on a panic.
        let _end = AtEnd(&scene.over);
        let mut random = Random::new(seed);
        for round in 0..=kills {
            let started = now();
            let mut daemon = scene.spawn();
            let span = if round == kills { PATIENCE } else { span(&mut random) };
            let end = started + u64::try_from(span.as_millis()).expect("short");
            let mut ended = false;
            let ready = within(span, || {
                ended = daemon.has_ended();
                ended || daemon.has_notified("READY=1")
            });
            assert!(!ended, "round {round}: it has exited: {}", daemon.log());
            if ready {
                scene.watch.store(true, Ordering::Relaxed);
                scene.check(&daemon, started, &mut figures);
            } else {
                figures.unready += 1;
            }
            scene.must_be_sound(&daemon);
            if round == kills {
                assert!(ready, "not ready: {}", daemon.log());
                finish(&scene, daemon);
                break;
            }
            std::thread::sleep(Duration::from_millis(end.saturating_sub(now())));
            scene.kill(&mut daemon, &mut figures);
            scene.must_be_sound(&daemon);
        }
    });
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{map_type}: {} of {kills} kills before it was ready; {} checks; {} logins, {} confirmed by \
         the socketmap; {} times a confirmed grant was found again; {} revoked, found to be {} times; \
         {} refusals after expiry; {} reads of the map",
        figures.unready,
        figures.checks,
        of(&shared.logins),
        of(&shared.replies),
        figures.kept,
        of(&shared.revoked),
        figures.still_revoked,
        of(&shared.refusals),
        of(&shared.looks),
    );
    println!(
        "{map_type}: {} logins were undone by a kill, the oldest {} ms after it was confirmed; the \
         youngest that had to stay was {} ms old; the latest deadline was {} ms after the last login \
         and its grace",
        figures.lost, figures.oldest_lost, figures.youngest_kept, figures.latest
    );
}

/// Without further logins the map becomes empty in time.
fn finish(scene: &Scene, daemon: Daemon) {
    scene.load.store(false, Ordering::Relaxed);
    let limit = Duration::from_millis(GRACE) + PATIENCE;
    eventually("the map is empty", limit, || scene.map().is_empty());
    let logins = scene.logins.lock().unwrap();
    let last = logins.values().map(Login::latest_end).max().expect("somebody has logged in");
    drop(logins);
    // The next generation comes a second after the last, and after postmap.
    assert!(now() < last + 2500, "the map is empty only at {}, and not at {last}", now());
    assert_eq!(daemon.authorised(), Vec::<IpAddr>::new());
    scene.must_be_sound(&daemon);
    assert!(daemon.stop().success());
}

/// Sets the flag when dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// Both run at the same time, which makes their moments more random.

#[test]
fn killed_daemon_keeps_its_promises_with_hash() {
    let kills = setting("TORTURE_KILLS").unwrap_or(KILLS);
    torture("hash", kills.div_ceil(2), setting("TORTURE_SEED").unwrap_or_else(now));
}

#[test]
fn killed_daemon_keeps_its_promises_with_lmdb() {
    let kills = setting("TORTURE_KILLS").unwrap_or(KILLS);
    torture("lmdb", kills / 2, setting("TORTURE_SEED").unwrap_or_else(now));
}
