//! An arbitrary mail daemon description: faults or a table that processes frames, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::maildaemons::{DaemonFile, DaemonTable};
use pop_before_smtp::engine::proof::examples;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

fuzz_target!(|text: &str| {
    let file = DaemonFile { origin: Some("fuzz.toml".into()), text: text.to_owned() };
    let Ok(daemon) = file.compile() else { return };
    let _ = examples::prove(&daemon);
    let lines: Vec<String> = daemon.examples.iter().flat_map(|e| e.lines.clone()).collect();
    let mut engine =
        Engine::new(Rules { table: DaemonTable::of(vec![daemon]), ..Rules::default() });
    for line in lines {
        engine.process(Time::default(), Source::default(), line.as_bytes());
    }
});
