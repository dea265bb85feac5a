//! What the operating system denies, and too much at once.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::small_disk::SmallDisk;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually, install, within};
use crate::{
    A, B, is_no_flood, log_in, many_log_in, survives_a_kill, wait_until_logged_after,
    wait_until_unmapped, with_state,
};

/// Changes a soft limit of a running process, as its own user.
fn limit(daemon: &Daemon, (user, group): (u32, u32), what: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.uid(user).gid(group).args(["--pid", &daemon.id().to_string(), what]);
    assert!(prlimit.status().expect("prlimit").success(), "{what}");
}

/// Returns the processor time used.
fn cpu_time(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id())).expect("it runs");
    // The fields after the name, which may contain anything; proc(5) counts from 1: utime is 14.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |at: usize| fields[at - 3].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

/// Without file descriptors frames are processed, and nothing spins; the map and new connections
/// wait.
#[test]
fn frames_are_processed_without_file_descriptors() {
    let home = Home::new();
    let socketmap = home.at("socketmap.sock");
    let option = format!("unix:{}", socketmap.display());
    let options = ["--socketmap", &*option];
    let daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("it runs").count();
    limit(&daemon, (0, 0), &format!("--nofile={}:", open + 20));
    let before = daemon.log().len();
    let mut connections: Vec<UnixStream> = Vec::new();
    while connections.len() < 60 {
        connections.push(UnixStream::connect(&socketmap).expect("the kernel accepts it"));
    }
    wait_until_logged_after(&daemon, before, "cannot accept a connection");
    home.wire.send(login_frame(B).as_bytes());
    wait_until_logged_after(&daemon, before, &format!("authorised address={B}"));
    wait_until_logged_after(&daemon, before, "Too many open files");
    let (before_pause, begun) = (cpu_time(&daemon), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (used, span) = (cpu_time(&daemon) - before_pause, begun.elapsed());
    assert!(used < span / 4, "it used the processor for {used:?} of {span:?}");
    is_no_flood("no file descriptors", &daemon, before, 30);
    assert_eq!(home.map_value(A).as_deref(), Some("OK"));
    assert_eq!(home.map_value(B), None, "{}", daemon.log());

    drop(connections);
    home.wait_until_mapped(B, &daemon);
    limit(&daemon, (0, 0), "--nofile=1024:");
    assert!(daemon.query(A) && daemon.query(B));
    survives_a_kill(&home, daemon, &options, &[A, B]);
}

/// No process and no thread can be created, for longer than idle threads live.
#[test]
fn frames_are_processed_without_new_processes() {
    let home = Home::new();
    let nobody = User::from_name("nobody").ok().flatten().expect("there is a user nobody");
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    chown(home.at("."), Some(user), Some(group)).expect("owner changed");
    let daemon = home.start_as((user, group), &[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    limit(&daemon, (user, group), "--nproc=1:");
    std::thread::sleep(Duration::from_secs(12));
    let before = daemon.log().len();
    log_in(&home, &daemon, B);
    wait_until_logged_after(&daemon, before, "temporarily unavailable");
    assert_eq!(home.map_value(A).as_deref(), Some("OK"));
    assert_eq!(home.map_value(B), None, "{}", daemon.log());
    is_no_flood("no processes", &daemon, before, 20);
    limit(&daemon, (user, group), "--nproc=4096:");
    home.wait_until_mapped(B, &daemon);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// Hundreds of reloads while hundreds log in.
#[test]
fn many_reloads_lose_no_frame() {
    let home = Home::with_directories("hash");
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    for round in 0..20 {
        for _ in 0..20 {
            daemon.signal(Signal::SIGHUP);
        }
        many_log_in(&home, 50 * (round + 1));
    }
    log_in(&home, &daemon, B);
    assert_eq!(daemon.authorised().len(), 1002, "every frame was processed");
    home.wait_until_mapped(B, &daemon);
    let calm = || daemon.command(&["status"]).status.success();
    eventually("it answers", PATIENCE, calm);
    survives_a_kill(&home, daemon, &options, &[A, B, "198.18.0.1", "198.18.3.232"]);
}

/// Expired clients leave the map even while a reload waits for Postfix.
#[test]
fn hanging_reload_delays_nothing() {
    let home = Home::new();
    fs::create_dir(home.at("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\nwhile [ -e {} ]; do sleep 0.02; done\nexec /usr/sbin/postconf \"$@\"\n",
        home.at("hang").display()
    );
    fs::write(home.at("bin/new"), script).unwrap();
    install(home.at("bin/new"), home.at("bin/postconf"));
    let mut daemon = home.start(&[]);
    assert!(daemon.command(&["allow", A, "--for", "4s"]).status.success());
    home.wait_until_mapped(A, &daemon);
    fs::write(home.at("hang"), "").unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_until_unmapped(&home, A, &daemon);
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);
    assert!(!daemon.log().contains("configuration reloaded"), "the map waited: {}", daemon.log());
    fs::remove_file(home.at("hang")).unwrap();
    daemon.wait_until_logged("configuration reloaded");
    assert!(daemon.stop().success());
}

/// Several faults at once, which are then fixed one by one.
#[test]
fn several_faults_at_once_lose_nothing() {
    let home = Home::with_directories("hash");
    home.play_postmap("[ ! -e $home/broken ] || exit 1\nreal \"$@\"");
    let (maps, states) = (SmallDisk::mount(home.at("maps")), SmallDisk::mount(home.at("states")));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let before = daemon.log().len();
    fs::write(home.at("broken"), "").unwrap();
    states.fill(0);
    fs::remove_file(home.at("maps/clients")).unwrap();
    maps.fill(8);
    fs::write(home.at("config.toml"), "grace = 'soon'\n").unwrap();
    for _ in 0..20 {
        daemon.signal(Signal::SIGHUP);
        many_log_in(&home, 100);
        std::thread::sleep(Duration::from_millis(50));
    }
    home.wire.send(login_frame(B).as_bytes());
    wait_until_logged_after(&daemon, before, &format!("authorised address={B}"));
    wait_until_logged_after(&daemon, before, "was not published");
    wait_until_logged_after(&daemon, before, "not reloaded");
    assert_eq!(home.map_value(A).as_deref(), Some("OK"), "the old map stays in use");
    assert_eq!(home.map_value(B), None);
    for fixed in 0..4 {
        match fixed {
            0 => maps.clear(),
            1 => fs::write(home.at("config.toml"), "").unwrap(),
            2 => states.clear(),
            _ => fs::remove_file(home.at("broken")).unwrap(),
        }
        assert!(daemon.query(A));
    }
    daemon.wait_until_authorised(B);
    // After so many failures the next attempt may be a minute away; a reload makes one at once.
    daemon.signal(Signal::SIGHUP);
    home.wait_until_mapped(B, &daemon);
    let source = || fs::read_to_string(home.at("maps/clients")).unwrap_or_default();
    assert!(within(PATIENCE, || source().contains(B)), "{}", daemon.log());
    survives_a_kill(&home, daemon, &options, &[A, B, "198.18.0.1", "198.18.0.100"]);
}
