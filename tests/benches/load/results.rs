//! What was measured: a line of JSON for each round, and tables of medians.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// Where the lines of JSON are; `deploy/guide/performance` makes tables and pictures of them.
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("load.jsonl")
}

/// The results of this run.
pub struct Results {
    file: File,
    rows: Vec<Map<String, Value>>,
}

impl Results {
    /// Starts a new file with a line about the machine.
    pub fn create(rounds: u64) -> Self {
        let mut results =
            Self { file: File::create(path()).expect("the target directory"), rows: Vec::new() };
        results.add("machine", "", &machine(rounds));
        results
    }

    /// Adds what was measured in one round.
    pub fn add(&mut self, scenario: &str, receiver: &str, figures: &Value) {
        let mut row = figures.as_object().expect("an object").clone();
        row.insert("scenario".into(), scenario.into());
        row.insert("receiver".into(), receiver.into());
        writeln!(self.file, "{}", Value::Object(row.clone())).expect("a disk with space");
        self.rows.push(row);
    }

    /// Returns the figures of one kind, in ascending order.
    fn figures(&self, scenario: &str, receiver: &str, key: &str) -> Vec<f64> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row["scenario"] == scenario && row["receiver"] == receiver);
        let mut figures: Vec<f64> = rows.filter_map(|row| row.get(key)?.as_f64()).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    /// Returns the median of the rounds.
    pub fn median(&self, scenario: &str, receiver: &str, key: &str) -> Option<f64> {
        let figures = self.figures(scenario, receiver, key);
        figures.get(figures.len() / 2).copied()
    }

    /// Returns the median, and the smallest and largest figure if they differ.
    pub fn spread(&self, scenario: &str, receiver: &str, key: &str, digits: usize) -> String {
        let figures = self.figures(scenario, receiver, key);
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            return "-".into();
        };
        let median = figures[figures.len() / 2];
        format!("{median:.digits$} [{least:.digits$}-{most:.digits$}]")
    }
}

/// Describes where this runs.
fn machine(rounds: u64) -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Those that this process may use were restricted to the sender's.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let program = fs::metadata(env!("CARGO_BIN_EXE_pop-before-smtp"));
    json!({
        "cpu": cpu.unwrap_or("unknown"),
        "cores": cores,
        "system": system.unwrap_or("unknown").trim_matches('"'),
        "kernel": kernel.trim(),
        "load": load.split(' ').next().and_then(|load| load.parse::<f64>().ok()),
        "rsyslog": output("rsyslogd", &["-v"]).split_whitespace().nth(1),
        "date": output("date", &["-u", "+%Y-%m-%d"]),
        "commit": output("git", &["rev-parse", "--short", "HEAD"]),
        "version": env!("CARGO_PKG_VERSION"),
        "program_bytes": program.map_or(0, |file| file.len()),
        "rounds": rounds,
    })
}

/// Returns the first line that a program prints, or nothing if there is no such program.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().trim_end().to_owned()
}
