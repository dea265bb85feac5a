//! How the process behaves: what it keeps to itself, what it leaves behind, what it says of crowds,
//! and what it makes of its own words.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use support::daemon::Daemon;
use support::home::Home;
use support::story::login_frame;
use support::wire::Wire;
use support::{PATIENCE, directory, eventually};

const A: &str = "198.51.100.7";

/// The daemon of a user without rights.
#[test]
fn its_memory_is_closed() {
    const USER: u32 = 4711;
    let dir = directory();
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let options =
        ["--dry-run", "--exclude=own", "--exclude=gateway", "--listen", &wire.to_string()];
    let daemon = Daemon::spawn_with(dir.path(), &options, |command| {
        command.uid(USER).gid(USER);
    });
    daemon.wait_until_said("ready");
    let process = Path::new("/proc").join(daemon.id().to_string());
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = cores.expect("the limit is there").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{USER}\t")), "{status}");
    // proc(5): what belongs to the user as long as core files may be written is root's now.
    assert_eq!(fs::metadata(process.join("mem")).unwrap().uid(), 0);
    wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    assert!(daemon.stop().success());
}

/// Neither before the daemon is ready nor on the way out.
#[test]
fn no_postmap_outlives_an_impatient_end() {
    for is_ready in [false, true] {
        let home = Home::new();
        home.play_postmap(
            "if [ -e $home/hang ]; then echo $$ > $home/pid; exec sleep 1000; fi\nreal \"$@\"",
        );
        let mut daemon = if is_ready {
            home.start(&[])
        } else {
            fs::write(home.at("hang"), "").unwrap();
            home.spawn(&[])
        };
        fs::write(home.at("hang"), "").unwrap();
        if is_ready {
            daemon.signal(Signal::SIGTERM);
        }
        let pid = || fs::read_to_string(home.at("pid")).unwrap_or_default();
        eventually("postmap hangs", PATIENCE, || pid().ends_with('\n'));
        let stat = Path::new("/proc").join(pid().trim()).join("stat");
        let lives = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(lives());
        if !is_ready {
            daemon.signal(Signal::SIGTERM);
            daemon.wait_until_said("stopping");
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.said());
        eventually("postmap has ended", PATIENCE, || !lives());
        assert!(home.sockets().is_empty(), "{:?}", home.sockets());
    }
}
