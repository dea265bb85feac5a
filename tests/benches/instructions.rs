//! Instructions that the engine executes for one frame, counted by valgrind. Unlike times they are
//! the same on a busy machine, so a change that makes frames more expensive fails here.
//!
//! `cargo test --bench instructions` compiles it like the other tests and compares the counts with
//! limits; `cargo bench --bench instructions` does so as in a release, and writes them to
//! `target/instructions.jsonl`. Both need valgrind. Where a change makes frames cheaper, or is worth
//! what it costs, adjust both limits: about 8 % above the count.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

#[path = "../support/engine_loop.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod engine_loop;
mod frames;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod random;
mod setup;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;

use frames::{Kind, frames};

/// Clients that are authorised, as on a large host.
const CLIENTS: u32 = 10_000;
/// Different frames of each kind.
const CORPUS: usize = 2_000;
/// How often all frames are processed: the difference is what counts, without the start of the
/// program and without what happens only the first time.
const ROUNDS: [u64; 2] = [1, 5];

struct Measured {
    name: &'static str,
    kind: Kind,
    /// Most instructions for one frame, with and without the optimisation of a release.
    limits: (u64, u64),
}

const MEASURED: [Measured; 4] = [
    Measured { name: "mixed", kind: Kind::Mixed, limits: (4_320, 27_000) },
    Measured { name: "login", kind: Kind::Logins, limits: (14_950, 72_900) },
    Measured { name: "no login, mail daemon", kind: Kind::Known, limits: (6_670, 37_800) },
    Measured { name: "no login, other program", kind: Kind::Unknown, limits: (2_310, 18_600) },
];
/// Whether this is a test, compiled as all tests are.
const IS_TEST: bool = cfg!(debug_assertions);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name, rounds] = &*arguments
        && first == "process"
    {
        process(name, rounds.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut exit = ExitCode::SUCCESS;
    let mut lines = String::new();
    println!("{:24} {:>12} {:>12}", "instructions per frame", "counted", "limit");
    for Measured { name, limits, .. } in MEASURED {
        let limit = if IS_TEST { limits.1 } else { limits.0 };
        let [few, many] = ROUNDS.map(|rounds| thread::spawn(move || count(name, rounds)));
        let [few, many] = [few, many].map(|count| count.join().expect("valgrind has counted"));
        let frames = (ROUNDS[1] - ROUNDS[0]) * CORPUS as u64;
        let counted = (many - few) / frames;
        println!("{name:24} {counted:>12} {limit:>12}");
        writeln!(lines, r#"{{"frames": "{name}", "instructions": {counted}, "limit": {limit}}}"#)
            .unwrap();
        if counted > limit {
            eprintln!("instructions: {name}: {counted} are more than {limit}");
            exit = ExitCode::FAILURE;
        }
    }
    // The guide has the counts of a release.
    if !IS_TEST {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("instructions.jsonl");
        fs::write(file, lines).expect("the target directory");
    }
    exit
}

/// Runs this program under valgrind and returns how many instructions it executed.
fn count(name: &str, rounds: u64) -> u64 {
    let own = std::env::current_exe().expect("the path of this program");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(own).args(["process", name, &rounds.to_string()]);
    let output = valgrind.output().unwrap_or_else(|why| {
        panic!("valgrind cannot be started ({why}): apt-get install valgrind")
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // ==71== I   refs:      1,234,567
    let line = text.lines().find(|line| line.contains("refs:")).expect("a count");
    let digits = line.rsplit(':').next().unwrap_or_default().trim().replace(',', "");
    digits.parse().unwrap_or_else(|why| panic!("{line}: {why}"))
}

/// Processes all frames so many times.
fn process(name: &str, rounds: u64) {
    let measured = MEASURED.iter().find(|measured| measured.name == name).expect("a kind");
    let frames = frames(CORPUS, measured.kind, CLIENTS, setup::HEADER);
    let mut engine = setup::engine(CLIENTS);
    for _ in 0..rounds {
        frames.iter().for_each(|frame| setup::process(&mut engine, frame));
    }
}
