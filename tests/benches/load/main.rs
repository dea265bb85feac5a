//! The load test: pop-before-smtp beside a bare receiver and syslog daemons, under the same load and in
//! turns, so that what else this machine does hits all of them alike.
//!
//! `cargo bench --bench load`; as root, on two cores, with rsyslog installed. `ROUNDS=5` is the
//! number of rounds; `cargo bench --bench load -- udp` runs only parts whose name contains `udp`
//! (`udp-400k`, `udp-20k`, `unix`, `idle`, `size`).
//!
//! The receiver has one core for itself, the sender the other. Prints tables with the median of
//! the rounds and, in brackets, the least and the largest figure, and writes a line of JSON for each
//! round to `target/load.jsonl`. CPU time is the receiver's, user and system. Everything is on
//! loopback and in temporary directories.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

mod bare;
mod cores;
#[path = "../frames.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod frames;
mod observed;
mod receivers;
mod results;
mod sender;
mod sizes;
#[path = "../../support/mod.rs"]
mod support;
mod throughput;

use std::process::ExitCode;

use cores::Cores;
use results::Results;
use support::random;
use throughput::SCENARIOS;

/// Rounds unless `ROUNDS` says otherwise.
const ROUNDS: u64 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &*arguments
        && first == "bare"
    {
        bare::run(rest);
    }
    match ready() {
        Ok(cores) => {
            measure(cores, &arguments);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::from(2)
        }
    }
}

/// Checks what is needed.
fn ready() -> Result<Cores, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("must be root: the receive buffer is larger than others may ask for".into());
    }
    if results::output("rsyslogd", &["-v"]).is_empty() {
        return Err("rsyslogd is missing: apt-get install --no-install-recommends rsyslog".into());
    }
    Cores::choose()
}

fn measure(cores: Cores, arguments: &[String]) {
    let rounds = random::setting("ROUNDS").unwrap_or(ROUNDS);
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.is_none_or(|part| name.contains(part.as_str()));
    let mut results = Results::create(rounds);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
            scenario.round(cores, &mut results);
        }
        if wanted(sizes::SIZE) {
            sizes::round(cores, &mut results);
        }
    }
    if wanted(sizes::IDLENESS) {
        sizes::idle(cores, &mut results);
    }
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        scenario.print(&results);
    }
    if wanted(sizes::SIZE) {
        sizes::print(&results);
    }
    if wanted(sizes::IDLENESS) {
        sizes::print_idle(&results);
    }
    println!("\neach round: {}", results::path().display());
}
