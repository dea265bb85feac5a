//! The whole daemon, measured from outside with the real Postfix: how soon a login is in the map, how
//! soon it counts by socketmap while a map is being rebuilt, and how many requests per second are
//! answered, compared with `postmap -q -` on a hash map in the same run.
//!
//! `cargo bench --bench lookups`; as root, with Postfix installed. `CLIENTS=1000000` is the size of
//! the large set. `-- map` measures only how soon a login is in a map of ten.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::daemon::Daemon;
use support::home::Home;
use support::story::login_frame;

/// Duration of the logins at each size.
const LOGINS: Duration = Duration::from_secs(20);
/// Pause between two logins: short enough that the map is always being rebuilt.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests in each measurement of throughput.
const REQUESTS: u32 = 200_000;
/// Connections in use at the same time.
const MANY: usize = 100;

/// When five clients log in, in milliseconds after the first.
const WITHIN_A_SECOND: [u64; 5] = [0, 100, 300, 600, 900];
/// How often they do.
const ROUNDS: u32 = 50;

fn main() {
    Site::new(10).map_latency();
    if std::env::args().any(|argument| argument == "map") {
        return;
    }
    let large = std::env::var("CLIENTS").map_or(1_000_000, |number| number.parse().unwrap());
    for clients in [10, large] {
        let site = Site::new(clients);
        site.latency();
        if clients == large {
            site.throughput();
        }
        site.memory();
    }
}

fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + number)
}

struct Site {
    clients: u32,
    home: Home,
    daemon: Daemon,
}

impl Site {
    fn new(clients: u32) -> Self {
        let home = Home::with_map("hash");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut state = String::from("pop-before-smtp state 1\n");
        for number in 0..clients {
            let (address, end) = (client(number), now + 1_700_000);
            writeln!(
                state,
                "grant\t{address}\t{now}\t{end}\t\t\t1\tdovecot\tmx1\t\t{end}\tuser{number}\t."
            )
            .unwrap();
        }
        fs::write(home.at("state"), state).unwrap();
        let begun = Instant::now();
        let socketmap = format!("unix:{}", home.at("socketmap").display());
        let options =
            ["--socketmap", &socketmap, "--max-clients", "2000000", "--log-level", "warn"];
        let daemon = home.start(&options);
        println!("\n{clients} clients: restored and published after {:.2?}", begun.elapsed());
        Self { clients, home, daemon }
    }

    /// From before the datagram is sent until `postmap -s` shows the address, for five logins within
    /// a second after a second without any.
    fn map_latency(&self) {
        let log = UnixDatagram::unbound().unwrap();
        log.connect(self.home.at("log.sock")).unwrap();
        let mut took = [const { Vec::new() }; WITHIN_A_SECOND.len()];
        for round in 0..ROUNDS {
            std::thread::sleep(Duration::from_secs(2));
            let addresses = [1, 2, 3, 4, 5].map(|last| Ipv4Addr::new(203, 0, 113, last));
            let (begun, mut sent, mut shown) = (Instant::now(), Vec::new(), [false; 5]);
            while shown != [true; 5] {
                if let Some(at) = WITHIN_A_SECOND.get(sent.len())
                    && begun.elapsed() >= Duration::from_millis(*at)
                {
                    let frame = login_frame(addresses[sent.len()]);
                    sent.push(Instant::now());
                    log.send(frame.as_bytes()).unwrap();
                }
                let map = self.map();
                for (number, sent) in sent.iter().enumerate() {
                    if !shown[number] && map.contains(&format!("{}\t", addresses[number])) {
                        shown[number] = true;
                        took[number].push(sent.elapsed());
                    }
                }
            }
            for address in addresses {
                assert!(self.daemon.command(&["revoke", &address.to_string()]).status.success());
            }
            assert!(took.iter().all(|took| took.len() == round as usize + 1));
        }
        for (number, what) in [(0, "first"), (1, "second"), (4, "fifth")] {
            took[number].sort_unstable();
            println!(
                "  login to map, {what} login within a second: median {:.0?}, worst {:.0?}",
                took[number][took[number].len() / 2],
                took[number][took[number].len() - 1]
            );
        }
    }

    /// Returns all entries of the map.
    fn map(&self) -> String {
        let mut postmap = Command::new("postmap");
        postmap.arg("-c").arg(self.home.postfix.config()).args(["-s", &self.home.table()]);
        String::from_utf8_lossy(&postmap.output().unwrap().stdout).into_owned()
    }

    fn connect(&self) -> Client {
        Client(UnixStream::connect(self.home.at("socketmap")).unwrap())
    }

    /// From before the datagram is sent until the socketmap says OK, while each login makes another
    /// generation of the map due.
    fn latency(&self) {
        let log = UnixDatagram::unbound().unwrap();
        log.connect(self.home.at("log.sock")).unwrap();
        let mut socketmap = self.connect();
        let (mut took, mut blocked) = (Vec::new(), Duration::ZERO);
        let begun = Instant::now();
        for number in 0.. {
            if begun.elapsed() > LOGINS {
                break;
            }
            let address = Ipv4Addr::from_bits(0xCB00_0000 + number);
            let frame = login_frame(address);
            let sent = Instant::now();
            log.send(frame.as_bytes()).unwrap();
            blocked = blocked.max(sent.elapsed());
            while !socketmap.admits(address) {}
            took.push(sent.elapsed());
            std::thread::sleep(PAUSE);
        }
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "  datagram to OK, {} logins: median {:.2?}, 99 % {:.2?}, worst {:.2?}; send() took at \
             most {blocked:.2?}",
            took.len(),
            at(50),
            at(99),
            at(100)
        );
    }

    fn throughput(&self) {
        let keys: Vec<Ipv4Addr> = (0..REQUESTS).map(|n| client(n * 7919 % self.clients)).collect();
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        let file = self.home.at("keys");
        fs::write(&file, text).unwrap();
        let socketmap = format!("socketmap:unix:{}:clients", self.home.at("socketmap").display());
        let rate = |begun: Instant| f64::from(REQUESTS) / begun.elapsed().as_secs_f64();
        for round in 1..=3 {
            println!("  requests per second, round {round}:");
            for table in [self.home.table(), socketmap.clone()] {
                let begun = Instant::now();
                let mut postmap = Command::new("postmap");
                postmap.arg("-c").arg(self.home.postfix.config()).args(["-q", "-", &table]);
                let keys = Stdio::from(fs::File::open(&file).unwrap());
                let output = postmap.stdin(keys).output().unwrap();
                assert!(output.status.success(), "{output:?}");
                let found = output.stdout.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(found, REQUESTS as usize, "{table}");
                let kind = table.split(':').next().unwrap();
                println!("    {:>9.0}  postmap -q - {kind}:", rate(begun));
            }
            let mut one = self.connect();
            let begun = Instant::now();
            assert!(keys.iter().all(|key| one.admits(*key)));
            println!("    {:>9.0}  one connection", rate(begun));
            let mut many: Vec<Client> = (0..MANY).map(|_| self.connect()).collect();
            let begun = Instant::now();
            for keys in keys.chunks(MANY) {
                many.iter_mut().zip(keys).for_each(|(client, key)| client.ask(*key));
                assert!(many.iter_mut().take(keys.len()).all(Client::answer));
            }
            println!("    {:>9.0}  {MANY} connections", rate(begun));
        }
    }

    fn memory(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let lines =
            status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
        println!(
            "  memory: {}",
            lines.map(|line| line.replace('\t', " ")).collect::<Vec<_>>().join(", ")
        );
    }
}

struct Client(UnixStream);

impl Client {
    fn ask(&mut self, address: Ipv4Addr) {
        let query = format!("clients {address}");
        self.0.write_all(format!("{}:{query},", query.len()).as_bytes()).unwrap();
    }

    fn answer(&mut self) -> bool {
        let mut reply = [0; 64];
        let length = self.0.read(&mut reply).unwrap();
        match &reply[..length] {
            b"5:OK OK," => true,
            b"9:NOTFOUND ," => false,
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
    }

    fn admits(&mut self, address: Ipv4Addr) -> bool {
        self.ask(address);
        self.answer()
    }
}
