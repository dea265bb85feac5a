//! Start, memory and latency with few and with many clients, and what an idle receiver costs.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::cores::Cores;
use super::frames::state_file;
use super::observed;
use super::receivers::{Kind, Receiver};
use super::results::Results;
use super::support::directory;
use super::support::socketmap_client::SocketmapClient;
use super::support::story::login_frame;
use super::support::wire::Wire;

/// Clients in the state file.
const SIZES: [u32; 3] = [0, 100_000, 1_000_000];
/// Logins whose latency is measured.
const LOGINS: u32 = 1_000;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an idle receiver is watched.
const IDLE: Duration = Duration::from_secs(10);
/// How long the restored grants still last, in milliseconds.
const LEFT: u64 = 1_700_000;

/// The name of this part in the results.
pub const SIZE: &str = "size";
/// The name of the idle part in the results.
pub const IDLENESS: &str = "idle";

/// Restarts the daemon with each number of clients, and measures logins.
pub fn round(cores: Cores, results: &mut Results) {
    for clients in SIZES {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let now = u64::try_from(now.as_millis()).expect("a clock before the year 584,000,000");
        let state = state_file(clients, now, now + LEFT);
        let dir = directory();
        let log = dir.path().join("log.sock");
        // Room for as many again.
        let most = (2 * clients).max(65_536).to_string();
        let more = ["--max-clients", &most];
        let (receiver, ready) = Receiver::start_ours(&Wire::unix(&log), cores, &more, &state);
        let peak = observed::peak_memory(receiver.id());
        let mut latencies = latencies(&log, &receiver.socketmap());
        latencies.sort_unstable();
        let at = |percent: usize| milliseconds(latencies[(latencies.len() - 1) * percent / 100]);
        results.add(
            SIZE,
            &clients.to_string(),
            &json!({
                "ready_ms": milliseconds(ready),
                "peak_mib": peak,
                "latency_ms": at(50),
                "latency_99_ms": at(99),
                "latency_worst_ms": at(100),
            }),
        );
        receiver.stop();
    }
}

/// Returns the times from before a login is sent until the socketmap says OK.
fn latencies(log: &Path, socketmap: &Path) -> Vec<Duration> {
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.connect(log).expect("the daemon's socket");
    let mut client = SocketmapClient::default();
    let latency = |number| {
        let address = Ipv4Addr::from_bits(0xCB00_0000 + number);
        let frame = login_frame(address);
        let begun = Instant::now();
        sender.send(frame.as_bytes()).expect("it is received");
        while client.admits(socketmap, address.into()) != Some(true) {}
        let took = begun.elapsed();
        thread::sleep(PAUSE);
        took
    };
    (0..LOGINS).map(latency).collect()
}

/// Counts what the receivers do when nothing arrives.
pub fn idle(cores: Cores, results: &mut Results) {
    for kind in Kind::present().filter(|kind| *kind != Kind::Bare) {
        let receiver = Receiver::start(kind, &Wire::udp(), cores);
        let (switches, cpu) =
            (observed::switches(receiver.id()), observed::cpu_time(receiver.id()));
        thread::sleep(IDLE);
        let switches = observed::switches(receiver.id()) - switches;
        let cpu = observed::cpu_time(receiver.id()) - cpu;
        let figures = json!({
            "switches": switches,
            "cpu_ms": milliseconds(cpu),
            "peak_mib": observed::peak_memory(receiver.id()),
        });
        results.add(IDLENESS, kind.name(), &figures);
        receiver.stop();
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Prints the table of all rounds of [`round`].
pub fn print(results: &Results) {
    println!("\npop-before-smtp with a state file, without a map");
    println!(
        "  {:>9} {:>24} {:>22} {:>22} {:>22}",
        "clients", "start to ready, ms", "peak memory, MiB", "login to OK, ms", "99 % of logins"
    );
    for clients in SIZES.map(|clients| clients.to_string()) {
        let spread = |key, digits| results.spread(SIZE, &clients, key, digits);
        println!(
            "  {clients:>9} {:>24} {:>22} {:>22} {:>22}",
            spread("ready_ms", 1),
            spread("peak_mib", 1),
            spread("latency_ms", 3),
            spread("latency_99_ms", 3)
        );
    }
}

/// Prints the table of [`idle`].
pub fn print_idle(results: &Results) {
    println!("\nIdle for {IDLE:?}");
    println!("  {:16} {:>16} {:>12} {:>18}", "receiver", "context switches", "CPU ms", "peak, MiB");
    for kind in Kind::present().filter(|kind| *kind != Kind::Bare) {
        let median = |key| results.median(IDLENESS, kind.name(), key).unwrap_or_default();
        let (switches, cpu, peak) = (median("switches"), median("cpu_ms"), median("peak_mib"));
        println!("  {:16} {switches:>16} {cpu:>12.2} {peak:>18.1}", kind.name());
    }
}
