//! Whether a busy mail host has to wait for the daemon, and whether frames are lost: without a
//! fault, with a slow postmap, and with a disk that stalls.
//!
//! `cargo bench --bench pressure`; as root, with Postfix installed; it mounts and freezes a file
//! system. Counts are asserted; times are only printed, because they depend on the machine.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

mod noise;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use noise::NOISE;
use serde_json::Value;
use support::daemon::Daemon;
use support::home::Home;
use support::random::Random;
use support::story::login_frame;

/// Frames per second. Each is due at its own time, so a delayed sender catches up.
const RATE: u32 = 20_000;
/// Seconds for which frames are sent.
const SECONDS: u32 = 10;
/// One login in this many frames; the others are the lines of the noise.
const LOGIN_OF: usize = NOISE.len() + 1;
/// Addresses that log in.
const CLIENTS: u64 = 10_000;
/// Time from the first frame to the fault, and duration of the fault.
const FAULT: Duration = Duration::from_secs(3);
/// A `send()` that takes longer delays a mail daemon noticeably.
const SLOW_SEND: Duration = Duration::from_millis(10);
/// The address that logs in last.
const LAST: &str = "198.51.100.7";

fn main() {
    println!("{RATE} frames a second for {SECONDS} s, a {LOGIN_OF}th of them logins");
    calm();
    slow_postmap();
    stalled_disk();
}

fn calm() {
    let home = Home::new();
    let daemon = home.start(&[]);
    press("no fault", &home, daemon, || {});
}

fn slow_postmap() {
    let home = Home::new();
    home.play_postmap("if [ -e $home/slow ]; then : > $home/slowed; sleep 3; fi\nreal \"$@\"");
    let daemon = home.start(&[]);
    press("postmap takes 3 s", &home, daemon, || {
        fs::write(home.at("slow"), "").unwrap();
        thread::sleep(FAULT);
        fs::remove_file(home.at("slow")).unwrap();
    });
    assert!(home.at("slowed").exists(), "postmap was not slow");
}

fn stalled_disk() {
    let home = Home::with_directories("lmdb");
    let disk = Disk::mount(&home.at("disk"), home.at("maps"));
    let state = home.at("maps/state");
    let daemon = home.start(&["--state", &state.display().to_string()]);
    press("the disk stalls for 3 s", &home, daemon, || disk.stall(&state));
}

/// Sends all frames, causes the fault meanwhile, and prints and asserts what was processed.
fn press(what: &str, home: &Home, daemon: Daemon, fault: impl FnOnce() + Send) {
    let mut random = Random::new(1);
    let frames: Vec<(String, Option<Ipv4Addr>)> = (0..(RATE * SECONDS) as usize)
        .map(|number| match NOISE.get(number % LOGIN_OF) {
            Some(line) => ((*line).to_owned(), None),
            None => {
                let number = u32::try_from(random.below(CLIENTS)).unwrap();
                let address = Ipv4Addr::from_bits(0xC612_0000 + number);
                (login_frame(address), Some(address))
            }
        })
        .collect();
    let log = UnixDatagram::unbound().unwrap();
    log.connect(home.at("log.sock")).unwrap();

    let begun = Instant::now();
    let mut took: Vec<Duration> = thread::scope(|threads| {
        threads.spawn(|| {
            thread::sleep(FAULT);
            fault();
        });
        let send = |(number, (frame, _)): (u32, &(String, _))| {
            let due = begun + Duration::from_secs(1) * number / RATE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            log.send(frame.as_bytes()).unwrap();
            sent.elapsed()
        };
        (0..).zip(&frames).map(send).collect()
    });
    let span = begun.elapsed();
    // One socket keeps the order.
    log.send(login_frame(LAST).as_bytes()).unwrap();
    daemon.wait_until_authorised(LAST);
    let status = status(&daemon);
    home.wait_until_mapped(LAST, &daemon);

    took.sort_unstable();
    let logins: Vec<Ipv4Addr> = frames.iter().filter_map(|(_, address)| *address).collect();
    let clients: HashSet<&Ipv4Addr> = logins.iter().collect();
    let processed = status["frames"].as_u64().unwrap() - 1;
    println!(
        "  {what}: {} frames sent in {span:.2?}, {processed} processed, {} logins of {} clients; \
         send() took at most {:.2?}, more than {SLOW_SEND:?} {} times, 99.9 % {:.2?}",
        frames.len(),
        logins.len(),
        clients.len(),
        took[took.len() - 1],
        took.iter().filter(|took| **took > SLOW_SEND).count(),
        took[(took.len() - 1) * 999 / 1000],
    );
    let is = |key: &str, expected: usize| assert_eq!(status[key], expected + 1, "{what}: {key}");
    is("frames", frames.len());
    is("logins", logins.len());
    is("clients", clients.len());
    assert_eq!(status["log_lines_lost"], 0, "{what}");
    let mut postmap = Command::new("postmap");
    postmap.arg("-c").arg(home.postfix.config()).args(["-s", &home.table()]);
    let map = run(&mut postmap);
    // The map also has the generation entry.
    let is_client = |line: &&str| line.split('\t').next().unwrap().parse::<Ipv4Addr>().is_ok();
    assert_eq!(map.lines().filter(is_client).count(), clients.len() + 1, "{what}: the map");
    assert!(daemon.stop().success());
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.command(&["status", "--json"]).stdout).unwrap()
}

/// A file system of its own, in a file.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, path: PathBuf) -> Self {
        fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&path));
        Self(path)
    }

    /// Freezes the file system. A process that writes to it cannot even be killed, so a shell that
    /// ignores signals thaws it, even if this process ends. Asserts that the file does not grow
    /// meanwhile.
    fn stall(&self, file: &Path) {
        let script = "trap '' INT TERM HUP; fsfreeze -f \"$0\" || exit\n\
                      stat -c %s \"$1\"; sleep \"$2\"; stat -c %s \"$1\"; fsfreeze -u \"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&self.0).arg(file).arg(FAULT.as_secs().to_string());
        let lengths = run(&mut shell);
        let (before, after) = lengths.trim().split_once('\n').unwrap();
        assert_eq!(before, after, "the disk did not stall");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the daemon may have a file open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
