//! The cost of one frame and of one request in the engine, with few and with many clients.
//!
//! `cargo bench --bench engine`

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

mod noise;
mod worst;

use std::cmp::Reverse;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use noise::NOISE;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::grants::Cursor;
use pop_before_smtp::engine::maildaemons::{DaemonTable, Selection};
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::socketmap;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

/// How often each frame is processed.
const RUNS: usize = 4;
/// How many of the most expensive frames of each length are printed.
const SHOWN: usize = 8;
const NOW: Time = Time::from_millis(1_795_000_000_000);

fn login(address: IpAddr) -> String {
    format!(
        "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<ann>, method=PLAIN, \
         rip={address}, lip=192.0.2.1, mpid=71, TLS, session=<x>"
    )
}

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0B00_0000 + number).into()
}

fn engine(clients: u32) -> Engine {
    let table = DaemonTable::load(&[], &Selection::Verified).unwrap();
    let mut engine = Engine::new(Rules { table, max_clients: 2_000_000, ..Rules::default() });
    for number in 0..clients {
        engine.allow(NOW, client(number), None, None).unwrap();
    }
    while engine.has_changes() {
        engine.journal();
    }
    engine
}

fn all(criterion: &mut Criterion) {
    for clients in [10, 100_000, 1_000_000] {
        let mut engine = engine(clients);
        let mut turn = 0_u32;
        // Far apart, so that no cache holds the next one.
        let mut next = || {
            turn = turn.wrapping_add(7_368_787);
            turn % clients
        };
        let mut group = criterion.benchmark_group("frame");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("login that renews", clients), |bencher| {
            bencher.iter_batched(
                || login(client(next())),
                |frame| engine.process(NOW, Source::default(), frame.as_bytes()),
                criterion::BatchSize::SmallInput,
            );
        });
        let mut place = 0;
        group.bench_function(BenchmarkId::new("no login", clients), |bencher| {
            bencher.iter(|| {
                place = (place + 1) % NOISE.len();
                engine.process(NOW, Source::default(), black_box(NOISE[place]).as_bytes())
            });
        });
        group.finish();
        let mut group = criterion.benchmark_group("request");
        group.bench_function(BenchmarkId::new("socketmap", clients), |bencher| {
            bencher.iter_batched(
                || {
                    let key = format!("clients {}", client(next()));
                    format!("{}:{key},", key.len())
                },
                |request| match socketmap::read(request.as_bytes()) {
                    Decoded::Whole { request: Some(address), .. } => {
                        assert!(engine.admits(NOW, address).is_some());
                    }
                    other => panic!("{other:?}"),
                },
                criterion::BatchSize::SmallInput,
            );
        });
        // How long the lock is held at a time while the map or the state file is rebuilt.
        group.bench_function(BenchmarkId::new("slice of the map", clients), |bencher| {
            bencher.iter(|| engine.listed(NOW, Cursor::default()));
        });
        group.bench_function(BenchmarkId::new("slice of the state", clients), |bencher| {
            bencher.iter(|| engine.state(NOW, Cursor::default()));
        });
        group.finish();
    }
}

/// The most expensive frame, compared with a normal login. Also prints the cost of the others.
fn worst_frame(criterion: &mut Criterion) {
    let mut engine = engine(10);
    let mut time = |frame: &[u8]| {
        let mut once = |_| {
            let begin = Instant::now();
            black_box(engine.process(NOW, Source::default(), black_box(frame)));
            begin.elapsed()
        };
        let first = once(0);
        // The minimum: other load only adds to it.
        (first, (0..RUNS).map(&mut once).min().unwrap())
    };
    let normal = login(client(1));
    (0..100).for_each(|_| _ = time(normal.as_bytes()));
    let unit = time(normal.as_bytes()).1;
    let mut firsts = Vec::new();
    let (mut frames, mut worst) = (Vec::new(), (Duration::ZERO, Vec::new()));
    worst::each(|name, frame| {
        let (first, cost) = time(frame);
        firsts.push(first);
        frames.push((cost, name.to_owned()));
        if cost > worst.0 {
            worst = (cost, frame.to_vec());
        }
    });
    frames.sort_by_key(|(cost, _)| Reverse(*cost));
    println!("{} frames; a normal login takes {unit:?}; relative cost:", frames.len());
    for length in worst::LENGTHS {
        let of_length = frames.iter().filter(|(_, name)| name.starts_with(&format!("{length}: ")));
        for (cost, name) in of_length.take(SHOWN) {
            println!("{:8.1}  {name}", cost.as_secs_f64() / unit.as_secs_f64());
        }
    }
    firsts.sort_unstable();
    let first = firsts[firsts.len() * 99 / 100].as_secs_f64() / unit.as_secs_f64();
    println!("{first:8.1}  99th percentile when processed for the first time");
    let mut group = criterion.benchmark_group("frame");
    for (name, frame) in [("normal login", normal.as_bytes()), ("worst frame", &worst.1)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| engine.process(NOW, Source::default(), black_box(frame)));
        });
    }
    group.finish();
}

criterion_group!(benches, worst_frame, all);
criterion_main!(benches);
