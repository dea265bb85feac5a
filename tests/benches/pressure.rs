//! Whether a mail host that logs much has to wait for us, and whether we lose a frame: when nothing
//! is wrong, when postmap takes long, and when the disk stalls.
//!
//! `cargo bench --bench pressure`; as root, who may mount and freeze a file system of its own, with
//! Postfix installed. Counts are asserted; times are only printed, for they are the machine's too.

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

/// Frames a second, each due at its own moment: who was kept waiting catches up.
const RATE: u32 = 20_000;
/// For so many seconds they are sent.
const SECONDS: u32 = 10;
/// One frame of so many is a login, as the noise has one line less.
const LOGIN_OF: usize = NOISE.len() + 1;
/// Addresses that log in.
const CLIENTS: u64 = 10_000;
/// The trouble begins so long after the first frame, and lasts as long.
const TROUBLE: Duration = Duration::from_secs(3);
/// A `send()` that takes longer would be felt by a daemon that logs.
const FELT: Duration = Duration::from_millis(10);
/// The address that logs in when all is over.
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
    press("nothing is wrong", &home, daemon, || {});
}

fn slow_postmap() {
    let home = Home::new();
    home.play_postmap("if [ -e $home/slow ]; then : > $home/slowed; sleep 3; fi\nreal \"$@\"");
    let daemon = home.start(&[]);
    press("postmap takes 3 s", &home, daemon, || {
        fs::write(home.at("slow"), "").unwrap();
        thread::sleep(TROUBLE);
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

/// Sends all frames, with a trouble in their midst, and prints and asserts what became of them.
fn press(what: &str, home: &Home, daemon: Daemon, trouble: impl FnOnce() + Send) {
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
            thread::sleep(TROUBLE);
            trouble();
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
    let heard = status["frames"].as_u64().unwrap() - 1;
    println!(
        "  {what}: {} frames sent in {span:.2?}, {heard} heard, {} logins of {} clients; send() \
         took at most {:.2?}, more than {FELT:?} {} times, 99.9 % {:.2?}",
        frames.len(),
        logins.len(),
        clients.len(),
        took[took.len() - 1],
        took.iter().filter(|took| **took > FELT).count(),
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
    // Beside them it has an entry that proves the generation.
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

    /// Who writes waits, and cannot even be killed; so a shell of its own, which no signal from the
    /// terminal ends, lets them go on, whatever becomes of us. Nothing may come to the file
    /// meanwhile.
    fn stall(&self, file: &Path) {
        let script = "trap '' INT TERM HUP; fsfreeze -f \"$0\" || exit\n\
                      stat -c %s \"$1\"; sleep \"$2\"; stat -c %s \"$1\"; fsfreeze -u \"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&self.0).arg(file).arg(TROUBLE.as_secs().to_string());
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
