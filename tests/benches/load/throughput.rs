//! CPU time per frame, and loss.

use std::time::Duration;

use serde_json::json;

use super::cores::Cores;
use super::frames::{Frame, Header, Kind as FrameKind, frames};
use super::observed;
use super::receivers::{Kind, Receiver};
use super::results::{Results, output};
use super::sender::{self, Pace};
use super::support::directory;
use super::support::wire::Wire;

/// Addresses that log in.
const CLIENTS: u32 = 10_000;
/// Different frames; they are sent again and again.
const CORPUS: usize = 20_000;

/// How frames are sent.
#[derive(Clone, Copy, Debug)]
enum Link {
    /// So many per second.
    Udp(Pace),
    /// As fast as they are taken.
    Unix,
}

/// One kind of load.
pub struct Scenario {
    /// Its name in the results.
    pub name: &'static str,
    /// What is done.
    pub title: &'static str,
    link: Link,
    count: u64,
}

/// All kinds of load.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "udp-400k",
        title: "UDP, 400,000 frames per second",
        link: Link::Udp(Pace { rate: 400_000, together: 16, segments: 16 }),
        count: 400_000,
    },
    Scenario {
        name: "udp-20k",
        title: "UDP, 20,000 frames per second, ten after another",
        link: Link::Udp(Pace { rate: 20_000, together: 10, segments: 1 }),
        count: 40_000,
    },
    Scenario {
        name: "udp-20k-single",
        title: "UDP, 20,000 frames per second, each alone",
        link: Link::Udp(Pace { rate: 20_000, together: 1, segments: 1 }),
        count: 40_000,
    },
    Scenario {
        name: "unix",
        title: "Unix socket, as fast as frames are taken",
        link: Link::Unix,
        count: 300_000,
    },
];

impl Scenario {
    /// Measures every receiver once.
    pub fn round(&self, cores: Cores, results: &mut Results) {
        let stamp = output("date", &["+%b %e %H:%M:%S"]);
        let host = matches!(self.link, Link::Udp(_)).then_some("mx1");
        let header = Header { stamp: &stamp, host };
        let corpus = frames(CORPUS, FrameKind::Mixed, CLIENTS, header);
        for kind in Kind::present() {
            self.measure(kind, cores, &corpus, results);
        }
    }

    fn measure(&self, kind: Kind, cores: Cores, corpus: &[Frame], results: &mut Results) {
        let dir = directory();
        let wire = match self.link {
            Link::Udp(_) => Wire::udp(),
            Link::Unix => Wire::unix(dir.path().join("log.sock")),
        };
        let receiver = Receiver::start(kind, &wire, cores);
        let before = observed::cpu_time(receiver.id());
        let sent = match (&wire, self.link) {
            (Wire::Udp(port), Link::Udp(pace)) => {
                sender::to_udp(port.number(), corpus, self.count, pace)
            }
            (Wire::Unix(path), _) => sender::to_unix(path, corpus, self.count),
            (Wire::Udp(_), Link::Unix) => unreachable!("the wire follows the link"),
        };
        observed::wait_until_idle(receiver.id());
        let cpu = observed::cpu_time(receiver.id()) - before;
        let lost = match &wire {
            Wire::Udp(port) => observed::drops(port.number()).expect("it listens"),
            Wire::Unix(_) => 0,
        };
        let peak = observed::peak_memory(receiver.id());
        let found = receiver.stop();
        // Logins are lost like other frames, never otherwise.
        let complete = lost > 0 || found.is_none_or(|found| found == sent.logins);
        assert!(complete, "{}: {found:?} logins of {}", kind.name(), sent.logins);
        let handled = sent.frames - lost;
        results.add(
            self.name,
            kind.name(),
            &json!({
                "sent": sent.frames,
                "sent_per_s": per_second(sent.frames, sent.took),
                "handled_per_s": per_second(handled, sent.took),
                "loss_percent": 100.0 * lost as f64 / sent.frames as f64,
                "cpu_s_per_million": cpu.as_secs_f64() / handled as f64 * 1e6,
                "logins": sent.logins,
                "logins_found": found,
                "peak_mib": peak,
            }),
        );
    }

    /// Prints the table of all rounds.
    pub fn print(&self, results: &Results) {
        println!("\n{}", self.title);
        println!(
            "  {:16} {:>20} {:>20} {:>10} {:>9} {:>9}",
            "receiver", "CPU s per million", "loss %", "handled/s", "x bare", "x rsyslog"
        );
        let cpu = |kind: Kind| results.median(self.name, kind.name(), "cpu_s_per_million");
        for kind in Kind::present() {
            let spread = |key, digits| results.spread(self.name, kind.name(), key, digits);
            let ratio = |other| match (cpu(kind), cpu(other)) {
                (Some(own), Some(others)) => format!("{:.2}", own / others),
                _ => "-".into(),
            };
            println!(
                "  {:16} {:>20} {:>20} {:>10.0} {:>9} {:>9}",
                kind.name(),
                spread("cpu_s_per_million", 3),
                spread("loss_percent", 2),
                results.median(self.name, kind.name(), "handled_per_s").unwrap_or_default(),
                ratio(Kind::Bare),
                ratio(Kind::Rsyslog),
            );
        }
    }
}

fn per_second(frames: u64, took: Duration) -> f64 {
    frames as f64 / took.as_secs_f64()
}
