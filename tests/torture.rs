//! The daemon is killed at random moments under load, again and again, and starts again by itself.
//!
//! Promise  what the map or a reply of the socketmap has announced is authorised after the restart,
//!          however young it is; nobody is authorised past the deadline that his last login gave; the
//!          map is there and whole at every moment.
//! Limits   `TORTURE_KILLS=500` is a full run; `TORTURE_SEED` repeats the moments of a run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what must not be ends the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use support::daemon::Daemon;
use support::home::Home;
use support::random::{Random, setting};
use support::story::login_frame;
use support::wire::Wire;
use support::{PATIENCE, eventually, within};

/// Kills in a usual run of all tests.
const KILLS: u64 = 80;
/// Short, so that deadlines pass during the test, in milliseconds.
const GRACE: u64 = 8000;
/// A frame may wait so long in its socket until it is heard, and counts from then on: some
/// milliseconds, or more where others want all cores.
const HEARD_LATE: u64 = 2000;
/// The wall clock may be adjusted a little between two starts.
const CLOCK_NOISE: u64 = 20;
const GENERATION: &str = "_pbs_generation_ DUNNO ";

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 584554531")
}

/// What is known of one address, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Login {
    /// Before the first frame was sent: its right ends at `GRACE` after this, or later.
    first: u64,
    /// After the last frame was sent; while one is on its way, never.
    last: u64,
    /// When a reply of the socketmap has announced it for the first time.
    answered: Option<u64>,
    /// Whether a map has announced it.
    mapped: bool,
}

impl Login {
    fn announced_before(&self, moment: u64) -> bool {
        self.mapped || self.answered.is_some_and(|at| at < moment)
    }

    fn latest_end(&self) -> u64 {
        self.last.saturating_add(GRACE + HEARD_LATE)
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
    youngest: u64,
    latest: u64,
}

/// Everything that the threads of the test share.
struct Scene {
    home: Home,
    udp: Wire,
    logins: Mutex<BTreeMap<IpAddr, Login>>,
    next: AtomicU32,
    load: AtomicBool,
    watch: AtomicBool,
    over: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl Scene {
    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// Every fault that was found is told.
    fn must_be_sound(&self, daemon: &Daemon) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}\nthe daemon said: {}", daemon.said());
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

    /// Sends a frame, if somebody takes it.
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

    /// Logs in from an address and waits for the socketmap to announce it.
    fn log_in(&self, address: IpAddr, by_udp: bool, asker: &mut Asker, figures: &Figures) {
        let begun = now();
        let change = |change: &dyn Fn(&mut Login)| {
            change(self.logins.lock().unwrap().entry(address).or_insert(Login {
                first: begun,
                last: begun,
                answered: None,
                mapped: false,
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
            match asker.ask(&self.socketmap(), address) {
                Some(true) => {
                    let at = now();
                    figures.replies.fetch_add(1, Ordering::Relaxed);
                    change(&|login| login.answered = login.answered.or(Some(at)));
                    return;
                }
                Some(false) => {}
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// One of several who log in.
    fn sender(&self, mut random: Random, by_udp: bool, figures: &Figures) {
        let mut asker = Asker(None);
        let mut mine: Vec<IpAddr> = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2 + random.below(15)));
            if self.load.load(Ordering::Relaxed) {
                // Most are new; some come back while their right lasts.
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
                self.log_in(address, by_udp, &mut asker, figures);
            }
            let Some(old) = mine.get(random.index(mine.len().max(1))).copied() else { continue };
            let (login, asked) = (self.logins.lock().unwrap()[&old], now());
            if login.latest_end() < asked {
                match asker.ask(&self.socketmap(), old) {
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

    /// Looks at the map all the while, as other processes do.
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
                        self.fault(format!("the source is not whole, it ends with {last:?}"));
                    }
                }
                Err(error) => self.fault(format!("the source cannot be read: {error}")),
            }
            let told = self.home.map_says("_pbs_generation_");
            if !told.as_deref().is_some_and(|told| told.starts_with("DUNNO ")) {
                self.fault(format!("the map is not whole, it says {told:?}"));
            }
            figures.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The addresses in the compiled map, read by postmap.
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

    /// Ends the daemon as a power cut would, and notes what was announced before.
    fn kill(&self, daemon: &mut Daemon, figures: &mut Figures) {
        let killed = now();
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        let map = self.map();
        let mut logins = self.logins.lock().unwrap();
        for address in map {
            match logins.get_mut(&address) {
                Some(login) => login.mapped = true,
                None => self.fault(format!("{address} is in the map and never logged in")),
            }
        }
        let ages = logins.values().filter_map(|login| killed.checked_sub(login.answered?));
        figures.youngest = figures.youngest.min(ages.min().unwrap_or(u64::MAX));
    }

    /// A daemon that was started at `started` is ready: is everything as it was announced?
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
                    Some(login) if login.latest_end() < then => {
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
            if end + CLOCK_NOISE < login.first + GRACE || end > login.latest_end() {
                self.fault(format!("the state file says {address} until {end}: {login:?}"));
            } else if !in_flight {
                figures.latest = figures.latest.max(end.saturating_sub(login.last + GRACE));
            }
        }
        for (address, login) in logins.iter().filter(|(_, login)| login.announced_before(before)) {
            if login.first + GRACE < after + CLOCK_NOISE {
                continue;
            }
            if !listed.contains(address) {
                self.fault(format!("{address} is lost, at {after}: {login:?}"));
            }
            figures.kept += 1;
            // What came after the start may be too young for the first map.
            let is_old = login.answered.is_none_or(|at| at < started);
            if is_old && !mapped.contains(address) {
                self.fault(format!("{address} is not in the map after a restart: {login:?}"));
            }
        }
    }
}

/// A connection to the socketmap.
struct Asker(Option<UnixStream>);

impl Asker {
    /// Whether an address is admitted, if somebody answers.
    fn ask(&mut self, socket: &PathBuf, address: IpAddr) -> Option<bool> {
        let answer = self.try_ask(socket, address).ok();
        if answer.is_none() {
            self.0 = None;
        }
        answer
    }

    fn try_ask(&mut self, socket: &PathBuf, address: IpAddr) -> std::io::Result<bool> {
        if self.0.is_none() {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            self.0 = Some(stream);
        }
        let stream = self.0.as_mut().expect("it has been connected");
        let question = format!("clients {address}");
        stream.write_all(format!("{}:{question},", question.len()).as_bytes())?;
        let mut reply = [0; 12];
        // Both replies are netstrings with a length of one digit.
        stream.read_exact(&mut reply[..2])?;
        let length = usize::from(reply[0] - b'0') + 1;
        stream.read_exact(&mut reply[..length])?;
        Ok(reply.starts_with(b"OK OK,"))
    }
}

/// How long a daemon may live, from its start: often not long enough to be ready, often until its
/// second publication.
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
        load: AtomicBool::new(true),
        watch: AtomicBool::new(false),
        over: AtomicBool::new(false),
        faults: Mutex::default(),
    };
    let shared = Figures::default();
    let mut figures = Figures { youngest: u64::MAX, ..Figures::default() };
    std::thread::scope(|threads| {
        for number in 0..3 {
            let random = Random::new(seed ^ (number + 1) << 32);
            let (scene, shared) = (&scene, &shared);
            threads.spawn(move || scene.sender(random, number == 2, shared));
        }
        threads.spawn(|| scene.watcher(&shared));
        // However it ends, the threads end with it.
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
            assert!(!ended, "round {round}: it has not come back: {}", daemon.said());
            if ready {
                scene.watch.store(true, Ordering::Relaxed);
                scene.check(&daemon, started, &mut figures);
            } else {
                figures.unready += 1;
            }
            scene.must_be_sound(&daemon);
            if round == kills {
                assert!(ready, "not ready: {}", daemon.said());
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
        "{map_type}: {} of {kills} kills before it was ready; {} checks; {} logins, {} announced by \
         the socketmap; {} times an announced right was found again; {} refusals after the end; \
         {} looks at the map",
        figures.unready,
        figures.checks,
        of(&shared.logins),
        of(&shared.replies),
        figures.kept,
        of(&shared.refusals),
        of(&shared.looks),
    );
    println!(
        "{map_type}: the youngest reply at a kill was {} ms old; the latest deadline was {} ms after \
         the last login and its grace",
        figures.youngest, figures.latest
    );
}

/// No more logins: the map empties by itself, in time.
fn finish(scene: &Scene, daemon: Daemon) {
    scene.load.store(false, Ordering::Relaxed);
    let limit = Duration::from_millis(GRACE) + PATIENCE;
    eventually("the map is empty", limit, || scene.map().is_empty());
    let logins = scene.logins.lock().unwrap();
    let last = logins.values().map(Login::latest_end).max().expect("somebody has logged in");
    drop(logins);
    // The next edition waits for a second after the one before, and for postmap.
    assert!(now() < last + 2500, "the map is empty only at {}, and not at {last}", now());
    assert_eq!(daemon.authorised(), Vec::<IpAddr>::new());
    scene.must_be_sound(&daemon);
    assert!(daemon.stop().success());
}

/// Says that it is over when it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// Two at a time, which makes the moments of each more random.

#[test]
fn a_killed_daemon_keeps_its_word_with_hash() {
    let kills = setting("TORTURE_KILLS").unwrap_or(KILLS);
    torture("hash", kills.div_ceil(2), setting("TORTURE_SEED").unwrap_or_else(now));
}

#[test]
fn a_killed_daemon_keeps_its_word_with_lmdb() {
    let kills = setting("TORTURE_KILLS").unwrap_or(KILLS);
    torture("lmdb", kills / 2, setting("TORTURE_SEED").unwrap_or_else(now));
}
