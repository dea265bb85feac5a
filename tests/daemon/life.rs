//! The life of the process, seen from outside: ready, heard, reloaded, stopped, killed, started
//! again.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::{Daemon, program};
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, eventually};

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
const GENERATION: &str = "_pbs_generation_";

fn log_in(home: &Home, daemon: &Daemon, address: &str) {
    home.wire.send(login_frame(address).as_bytes());
    daemon.wait_until_authorised(address);
}

fn status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("status --json prints JSON")
}

#[test]
fn ready_means_that_the_map_is_there() {
    let home = Home::new();
    home.put_gate_before_postmap();
    home.hang_postmap();
    let daemon = home.spawn(&[]);
    home.wait_until_hanging();
    home.wire.send(login_frame(A).as_bytes());
    assert!(!daemon.has_notified("READY=1"), "{}", daemon.said());
    assert_eq!(home.map_says(GENERATION), None, "no map yet");
    home.release_postmap();
    eventually("it is ready", PATIENCE, || daemon.has_notified("READY=1"));
    assert!(home.map_says(GENERATION).is_some(), "ready without a map");
    // What came before is not lost.
    home.wait_until_mapped(A, &daemon);
}

#[test]
fn frames_are_heard_from_those_who_may_speak() {
    let home = Home::new();
    let udp = Wire::udp();
    let Wire::Udp(port) = &udp else { panic!("it is UDP") };
    let listen = udp.to_string();
    let daemon = home.start(&["--listen", &listen, "--allow-from", "127.0.0.1/32"]);
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    for _ in 0..3 {
        let frame = login_frame("198.51.100.66");
        stranger.send_to(frame.as_bytes(), ("127.0.0.1", port.number())).unwrap();
    }
    // One socket keeps the order: when this one counts, the others have been decided.
    udp.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    assert!(!daemon.query("198.51.100.66"), "a stranger was heard");
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);

    let status = status(&daemon);
    assert_eq!(status["listeners"][0]["frames"], 1, "{status}");
    assert_eq!(status["listeners"][1]["frames"], 1, "{status}");
    assert_eq!(status["listeners"][1]["rejected"], 3, "{status}");
    assert_eq!((&status["frames"], &status["clients"]), (&2.into(), &2.into()), "{status}");
    assert!(!daemon.said().contains("198.51.100.66"), "a stranger fills the log");
}

#[test]
fn a_socket_that_nobody_uses_is_replaced() {
    let home = Home::new();
    for name in ["log.sock", "control.sock"] {
        drop(UnixDatagram::bind(home.at(name)).unwrap());
        assert!(home.at(name).exists());
    }
    // The control socket is of another kind, as after a change of the configuration.
    let daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    assert!(daemon.stop().success());
    assert!(home.sockets().is_empty(), "{:?}", home.sockets());
}

const OWN: &str = r#"name = "own"
title = "own"
versions = "1"
verified = true
programs = ["ownd"]
facilities = ["mail"]
severities = ["info"]

[[login]]
pattern = '^login (?<user>[a-z]+) (?<address>[0-9.]+)$'

[[example]]
line = "<22>Nov 22 07:31:23 ownd[7]: login joe 192.0.2.7"
verdict = "login"
address = "192.0.2.7"
user = "joe"
"#;

#[test]
fn a_reload_takes_effect_or_changes_nothing() {
    let home = Home::new();
    let daemons = home.at("daemons");
    fs::create_dir(&daemons).unwrap();
    let configure = |grace: &str| {
        let text = format!("grace = '{grace}'\ndaemons-dir = '{}'\n", daemons.display());
        fs::write(home.at("config.toml"), text).unwrap();
    };
    configure("1h");
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    let own = |address| format!("<22>Nov 22 07:31:23 mx1 ownd[7]: login joe {address}");
    home.wire.send(own("198.51.100.66").as_bytes());
    log_in(&home, &daemon, A);
    assert!(!daemon.query("198.51.100.66"), "an unknown daemon was believed");

    configure("10m");
    fs::write(daemons.join("own.toml"), OWN).unwrap();
    let before = daemon.notified();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_said("configuration reloaded");
    let told = |daemon: &Daemon| daemon.notified()[before.len()..].to_owned();
    eventually("it is ready again", PATIENCE, || told(&daemon).contains("READY=1\n"));
    let told = told(&daemon);
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    home.wire.send(own(B).as_bytes());
    daemon.wait_until_authorised(B);
    let left = |daemon: &Daemon, index: usize| daemon.list()[index]["expires_in"].as_u64().unwrap();
    assert!((3500..=3600).contains(&left(&daemon, 0)), "an old right is kept");
    assert!((550..=600).contains(&left(&daemon, 1)), "the new grace counts");

    let text = fs::read_to_string(home.at("config.toml")).unwrap();
    fs::write(home.at("config.toml"), text + "map-value = 'permit'\nlog-level = 'debug'\n")
        .unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_said("only a restart changes these options: map-value, log-level");

    for (wrong, grace) in [("`soon`", "soon"), ("7 days", "8days")] {
        configure(grace);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_until_said(wrong);
    }
    daemon.wait_until_said("not reloaded, the old configuration stays");
    fs::write(daemons.join("own.toml"), OWN.replace("192.0.2.7", "192.0.2.x")).unwrap();
    configure("20m");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_said("own.toml:");
    home.wire.send(own("198.51.100.9").as_bytes());
    daemon.wait_until_authorised("198.51.100.9");
    assert!((550..=600).contains(&left(&daemon, 2)), "the old grace stays");
    assert_eq!(daemon.authorised().len(), 3);
    assert!(daemon.stop().success());
}

fn expiry(daemon: &Daemon) -> Vec<(String, String)> {
    let list = daemon.list();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let clients = list.as_array().expect("an array").iter();
    clients.map(|client| (text(&client["since"]), text(&client["expires"]))).collect()
}

/// The grants of the state file, to the millisecond.
fn grants(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.at("state")).expect("the state file");
    let last = |address: &str| {
        let grant = format!("grant\t{address}\t");
        text.lines().rfind(|line| line.starts_with(&grant)).map(str::to_owned)
    };
    [A, B].iter().filter_map(|address| last(address)).collect()
}

#[test]
fn it_ends_in_order_and_goes_on_where_it_was() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let home = Home::new();
        let mut daemon = home.start(&[]);
        log_in(&home, &daemon, A);
        assert!(daemon.command(&["allow", B, "--for", "2h", "--note", "a guest"]).status.success());
        log_in(&home, &daemon, B);
        home.wait_until_mapped(B, &daemon);
        let before = expiry(&daemon);

        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.said());
        assert!(daemon.has_notified("STOPPING=1"));
        assert_eq!(home.map_says(A), None, "nobody will take it out");
        assert!(home.map_says(GENERATION).is_some_and(|text| text.starts_with("DUNNO ")));
        assert!(home.sockets().is_empty(), "{:?}", home.sockets());
        let saved = grants(&home);
        assert_eq!(saved.len(), 2, "{saved:?}");

        let daemon = home.start(&[]);
        assert_eq!(expiry(&daemon), before);
        assert_eq!(grants(&home), saved);
        assert_eq!(home.map_says(A).as_deref(), Some("OK"), "ready, and the map is not the last");
        let list = daemon.list();
        assert_eq!((&list[1]["note"], &list[1]["logins"]), (&"a guest".into(), &1.into()));
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let home = Home::new();
    home.put_gate_before_postmap();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    let saved = grants(&home);
    home.hang_postmap();
    daemon.signal(Signal::SIGTERM);
    home.wait_until_hanging();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.said());
    home.release_postmap();
    let daemon = home.start(&[]);
    assert_eq!((grants(&home), daemon.query(A)), (saved, true));
    assert!(daemon.stop().success());
}

#[test]
fn it_can_be_stopped_before_it_is_ready() {
    for impatient in [false, true] {
        let home = Home::new();
        home.put_gate_before_postmap();
        home.hang_postmap();
        let mut daemon = home.spawn(&[]);
        home.wait_until_hanging();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_until_said("stopping");
        if impatient {
            daemon.signal(Signal::SIGTERM);
        } else {
            home.release_postmap();
        }
        assert_eq!(daemon.wait().code(), Some(i32::from(impatient)), "{}", daemon.said());
        assert!(!daemon.has_notified("READY=1"));
        assert_eq!(home.map_says(GENERATION).is_some(), !impatient, "an empty map at the end");
        let _ = fs::remove_file(home.at("hang"));
    }
}

#[test]
fn after_a_kill_it_starts_by_itself() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);
    home.wait_until_saved(B, &daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let saved = grants(&home);
    assert_eq!(saved.len(), 2, "{saved:?}");
    assert_eq!(home.sockets(), ["control.sock", "log.sock"], "left behind");
    assert_eq!(home.map_says(A).as_deref(), Some("OK"), "left behind");

    let state = fs::read_to_string(home.at("state")).unwrap();
    fs::write(home.at("state"), state + &format!("gone\t{A}\t.\ngrant\t{B}\ttorn")).unwrap();
    for half_built in ["clients.new", "clients.new.lmdb"] {
        fs::write(home.at(half_built), "half").unwrap();
    }
    let daemon = home.start(&[]);
    assert!(!home.at("clients.new").exists() && !home.at("clients.new.lmdb").exists());
    assert_eq!(home.map_says(A), None, "the map is that of the new set");
    assert_eq!(home.map_says(B).as_deref(), Some("OK"));
    assert_eq!(grants(&home), saved[1..], "the torn record changes nothing");
    assert!(daemon.said().contains("is damaged") && home.at("state.damaged").exists());
    log_in(&home, &daemon, A);
    assert!(daemon.stop().success());
}

#[test]
fn a_second_one_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    let daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let mut second = program();
    second.arg("run").args(home.options(&["--config"])).arg(home.at("config.toml"));
    second.arg("--control").arg(home.at("control.sock")).arg("--state").arg(home.at("state"));
    let said = tempfile::NamedTempFile::new().unwrap();
    let status = Process::spawn(second.stdin(Stdio::null()).stderr(said.reopen().unwrap())).wait();
    let said = fs::read_to_string(said.path()).unwrap();
    assert_eq!(status.code(), Some(74), "{said}");
    assert!(said.contains("another process answers") && said.contains("hint: "), "{said}");
    assert_eq!(home.sockets(), ["control.sock", "log.sock"]);
    assert!(daemon.query(A));
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);
    assert!(daemon.stop().success());
}

/// Whoever may write the state file may authorise anybody.
#[test]
fn a_state_file_that_others_may_write_is_not_believed() {
    let home = Home::new();
    let state = home.at("state");
    fs::write(&state, "pop-before-smtp state 1\n").unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o666)).unwrap();
    let mut daemon = home.spawn(&[]);
    assert_eq!(daemon.wait().code(), Some(74));
    daemon.wait_until_said("others may write to it (mode 666)");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(home.start(&[]).stop().success());
}

/// As root, which may read everything.
#[test]
fn a_state_file_of_another_user_or_behind_a_link_is_not_believed() {
    assert!(nix::unistd::geteuid().is_root());
    let home = Home::new();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_saved(A, &daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let state = home.at("state");
    let is_refused = |why: &str, mend: &str| {
        let before = fs::read_to_string(&state).unwrap();
        let mut daemon = home.spawn(&[]);
        assert_eq!(daemon.wait().code(), Some(74), "{}", daemon.said());
        daemon.wait_until_said(why);
        daemon.wait_until_said(&format!("{mend} {}`", state.display()));
        assert_eq!(fs::read_to_string(&state).unwrap(), before, "it stays as it was");
    };
    chown(&state, Some(4711), None).unwrap();
    is_refused("it belongs to the user 4711", "`chown root");
    chown(&state, Some(0), None).unwrap();
    fs::rename(&state, home.at("moved")).unwrap();
    symlink("moved", &state).unwrap();
    is_refused("it is a symbolic link", "`rm");
    fs::rename(home.at("moved"), &state).unwrap();
    let daemon = home.start(&[]);
    assert!(daemon.query(A), "what it was before: {}", daemon.said());
}

/// A configuration that is no longer trusted is no reason to end, or to forget the one that was.
#[test]
fn what_is_not_trusted_is_not_reloaded() {
    let home = Home::new();
    let config = home.at("config.toml");
    fs::write(&config, "grace = '1h'\n").unwrap();
    let mut daemon = home.start(&[]);
    fs::write(&config, "allow-host = ['-']\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_said("not reloaded, the old configuration stays");
    assert!(daemon.said().contains("others may write to it (mode 666)"), "{}", daemon.said());
    log_in(&home, &daemon, A);
    assert!(daemon.stop().success());
}

/// Whoever may replace the configuration may not write one that counts, but he can take it away.
#[test]
fn a_directory_that_is_open_to_all_is_said_once() {
    let home = Home::new();
    let place = home.at("etc");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("config.toml"), "").unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    let config = place.join("config.toml").display().to_string();
    let daemon = home.start(&["--config", &config]);
    let remark = format!("any user of this host may write in {}", place.display());
    assert_eq!(daemon.said().matches(&remark).count(), 1, "{}", daemon.said());
    assert!(daemon.stop().success());
}
