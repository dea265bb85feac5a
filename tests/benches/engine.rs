//! The cost of each piece of the engine: a frame, a request, a restart, a map.
//!
//! `cargo bench --bench engine`; `cargo bench --bench engine -- login` runs only what has `login`
//! in its name.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

#[path = "../support/engine_loop.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod engine_loop;
mod frames;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod random;
mod setup;
mod worst;

use std::cmp::Reverse;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use frames::{Kind, client, frames};
use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::grants::Cursor;
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::{policy, socketmap};
use pop_before_smtp::engine::state::Restoration;
use setup::{HEADER, NOW};

/// A large mail host, and as many clients as there can be.
const SIZES: [u32; 2] = [10_000, 1_000_000];
/// Different frames: the clients of the next one are in no cache of the processor.
const CORPUS: usize = 200_000;
/// A normal login, with which the most expensive frames are compared.
const NORMAL: &[u8] = b"<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<ann>, \
    method=PLAIN, rip=11.0.0.1, lip=192.0.2.1, mpid=71, TLS, session=<x>";
/// How often each of the frames that should be expensive is processed.
const RUNS: usize = 4;
/// How many of the most expensive ones of each length are printed.
const SHOWN: usize = 8;

/// Processes one frame of a corpus after the other, in bytes to grant or refusal.
fn frame(criterion: &mut Criterion) {
    for clients in SIZES {
        let mut engine = setup::engine(clients);
        for (name, kind) in [
            ("login", Kind::Logins),
            ("mixed", Kind::Mixed),
            ("no login of a mail daemon", Kind::Known),
            ("of another program", Kind::Unknown),
        ] {
            let frames = frames(CORPUS, kind, clients, HEADER);
            let mut group = criterion.benchmark_group("frame");
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, clients), |bencher| {
                let mut next = frames.iter().cycle();
                bencher.iter(|| setup::process(&mut engine, next.next().unwrap()));
            });
            group.finish();
        }
    }
}

/// Answers Postfix, from the bytes of a request to those of the reply.
fn request(criterion: &mut Criterion) {
    for clients in SIZES {
        let mut engine = setup::engine(clients);
        let mut turn = 0_u32;
        let mut next = || {
            turn = turn.wrapping_add(7_368_787);
            client(turn % clients)
        };
        let mut group = criterion.benchmark_group("request");
        let mut reply = Vec::new();
        group.bench_function(BenchmarkId::new("socketmap", clients), |bencher| {
            let request = || {
                let key = format!("clients {}", next());
                format!("{}:{key},", key.len())
            };
            bencher.iter_batched(
                request,
                |request| {
                    let Decoded::Whole { request: Some(address), .. } =
                        socketmap::read(request.as_bytes())
                    else {
                        panic!("{request}")
                    };
                    reply.clear();
                    socketmap::write(engine.admits(NOW, address).map(|_| "OK"), &mut reply);
                    assert_eq!(reply, b"5:OK OK,");
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("policy", clients), |bencher| {
            let request = || {
                format!(
                    "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
                     client_address={}\nsender=alice@example.org\nrecipient=bob@example.net\n\n",
                    next()
                )
            };
            bencher.iter_batched(
                request,
                |request| {
                    let Decoded::Whole { request, .. } = policy::read(request.as_bytes()) else {
                        panic!("{request}")
                    };
                    reply.clear();
                    engine.decide(NOW, &request).action.write(&mut reply);
                    assert_eq!(reply, b"action=OK\n\n");
                },
                BatchSize::SmallInput,
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

/// What happens to the whole set: a restart, and a publication as far as it is not postmap's.
fn whole(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    for clients in SIZES {
        let state = setup::state(clients);
        let mut group = criterion.benchmark_group("whole set");
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("restore", clients), |bencher| {
            bencher.iter_with_large_drop(|| {
                let mut engine = setup::empty();
                // As at the start of the daemon.
                let mut file = Restoration::written(NOW, engine.rules().max_clients);
                state.lines().for_each(|line| file.line(line));
                engine.restore(NOW, file);
                engine
            });
        });
        let mut engine = setup::engine(clients);
        group.bench_function(BenchmarkId::new("map source", clients), |bencher| {
            bencher.iter(|| write_map(&mut engine, dir.path().join("clients")));
        });
        group.finish();
    }
}

fn write_map(engine: &mut Engine, path: impl AsRef<std::path::Path>) {
    engine.publish_again();
    let generation = engine_loop::generation(engine, NOW).expect("one is due");
    let mut file = File::create(path).unwrap();
    generation.text("OK").for_each(|piece| file.write_all(piece.as_bytes()).unwrap());
    file.sync_all().unwrap();
}

/// The most expensive frame, compared with a normal login. Also prints the cost of the others.
fn worst_frame(criterion: &mut Criterion) {
    let mut engine = setup::engine(10);
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
    (0..100).for_each(|_| _ = time(NORMAL));
    let unit = time(NORMAL).1;
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
    let mut group = criterion.benchmark_group("worst");
    for (name, frame) in [("normal login", NORMAL), ("worst frame", &worst.1)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| engine.process(NOW, Source::default(), black_box(frame)));
        });
    }
    group.finish();
}

criterion_group!(benches, frame, request, whole, worst_frame);
criterion_main!(benches);
