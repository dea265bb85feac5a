//! The life cycle of the process: start, reload, stop, kill and restart.

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
fn ready_means_that_the_map_is_published() {
    let home = Home::new();
    home.make_postmap_blockable();
    home.hang_postmap();
    let daemon = home.spawn(&[]);
    home.wait_until_hanging();
    home.wire.send(login_frame(A).as_bytes());
    assert!(!daemon.has_notified("READY=1"), "{}", daemon.log());
    assert_eq!(home.map_value(GENERATION), None, "no map yet");
    home.release_postmap();
    eventually("it is ready", PATIENCE, || daemon.has_notified("READY=1"));
    assert!(home.map_value(GENERATION).is_some(), "ready without a map");
    // A login before that is not lost.
    home.wait_until_mapped(A, &daemon);
}

#[test]
fn frames_are_accepted_only_from_allowed_senders() {
    let home = Home::new();
    let udp = Wire::udp();
    let Wire::Udp(port) = &udp else { panic!("it is UDP") };
    let listen = udp.to_string();
    let daemon = home.start(&["--listen", &listen, "--allow-from", "127.0.0.1/32"]);
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    for _ in 0..3 {
        let frame = login_frame("198.51.100.66");
        other.send_to(frame.as_bytes(), ("127.0.0.1", port.number())).unwrap();
    }
    // A socket keeps the order: when this frame counts, the others have been processed.
    udp.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    assert!(!daemon.query("198.51.100.66"), "another sender was accepted");
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);

    let status = status(&daemon);
    assert_eq!(status["listeners"][0]["frames"], 1, "{status}");
    assert_eq!(status["listeners"][1]["frames"], 1, "{status}");
    assert_eq!(status["listeners"][1]["rejected"], 3, "{status}");
    assert_eq!((&status["frames"], &status["clients"]), (&2.into(), &2.into()), "{status}");
    assert!(!daemon.log().contains("198.51.100.66"), "another sender fills the log");
}

#[test]
fn a_stale_socket_is_replaced() {
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
fn a_reload_applies_everything_or_nothing() {
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
    assert!(!daemon.query("198.51.100.66"), "the login of an unknown mail daemon counted");

    configure("10m");
    fs::write(daemons.join("own.toml"), OWN).unwrap();
    let before = daemon.notified();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("configuration reloaded");
    let told = |daemon: &Daemon| daemon.notified()[before.len()..].to_owned();
    eventually("it is ready again", PATIENCE, || told(&daemon).contains("READY=1\n"));
    let told = told(&daemon);
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    home.wire.send(own(B).as_bytes());
    daemon.wait_until_authorised(B);
    let left = |daemon: &Daemon, index: usize| daemon.list()[index]["expires_in"].as_u64().unwrap();
    assert!((3500..=3600).contains(&left(&daemon, 0)), "an existing grant is unchanged");
    assert!((550..=600).contains(&left(&daemon, 1)), "the new grace applies");

    let text = fs::read_to_string(home.at("config.toml")).unwrap();
    fs::write(home.at("config.toml"), text + "map-value = 'permit'\nlog-level = 'debug'\n")
        .unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("only a restart changes these options: map-value, log-level");

    for (wrong, grace) in [("`soon`", "soon"), ("7 days", "8days")] {
        configure(grace);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_until_logged(wrong);
    }
    daemon.wait_until_logged("not reloaded, the old configuration stays");
    fs::write(daemons.join("own.toml"), OWN.replace("192.0.2.7", "192.0.2.x")).unwrap();
    configure("20m");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("own.toml:");
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
fn a_clean_restart_keeps_everything() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let home = Home::new();
        let mut daemon = home.start(&[]);
        log_in(&home, &daemon, A);
        assert!(daemon.command(&["allow", B, "--for", "2h", "--note", "a guest"]).status.success());
        log_in(&home, &daemon, B);
        home.wait_until_mapped(B, &daemon);
        let before = expiry(&daemon);

        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
        assert!(daemon.has_notified("STOPPING=1"));
        assert_eq!(home.map_value(A), None, "nothing would remove it");
        assert!(home.map_value(GENERATION).is_some_and(|text| text.starts_with("DUNNO ")));
        assert!(home.sockets().is_empty(), "{:?}", home.sockets());
        let saved = grants(&home);
        assert_eq!(saved.len(), 2, "{saved:?}");

        let daemon = home.start(&[]);
        assert_eq!(expiry(&daemon), before);
        assert_eq!(grants(&home), saved);
        assert_eq!(home.map_value(A).as_deref(), Some("OK"), "ready, but the map is old");
        let list = daemon.list();
        assert_eq!((&list[1]["note"], &list[1]["logins"]), (&"a guest".into(), &1.into()));
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_second_signal_exits_immediately() {
    let home = Home::new();
    home.make_postmap_blockable();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    let saved = grants(&home);
    home.hang_postmap();
    daemon.signal(Signal::SIGTERM);
    home.wait_until_hanging();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    home.release_postmap();
    let daemon = home.start(&[]);
    assert_eq!((grants(&home), daemon.query(A)), (saved, true));
    assert!(daemon.stop().success());
}

#[test]
fn it_can_be_stopped_before_it_is_ready() {
    for twice in [false, true] {
        let home = Home::new();
        home.make_postmap_blockable();
        home.hang_postmap();
        let mut daemon = home.spawn(&[]);
        home.wait_until_hanging();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_until_logged("stopping");
        if twice {
            daemon.signal(Signal::SIGTERM);
        } else {
            home.release_postmap();
        }
        assert_eq!(daemon.wait().code(), Some(i32::from(twice)), "{}", daemon.log());
        assert!(!daemon.has_notified("READY=1"));
        assert_eq!(home.map_value(GENERATION).is_some(), !twice, "an empty map at the end");
        let _ = fs::remove_file(home.at("hang"));
    }
}

#[test]
fn after_a_kill_it_starts_without_help() {
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
    assert_eq!(home.sockets(), ["control.sock", "log.sock"], "not removed");
    assert_eq!(home.map_value(A).as_deref(), Some("OK"), "not emptied");

    let state = fs::read_to_string(home.at("state")).unwrap();
    fs::write(home.at("state"), state + &format!("gone\t{A}\t.\ngrant\t{B}\ttorn")).unwrap();
    for half_built in ["clients.new", "clients.new.lmdb"] {
        fs::write(home.at(half_built), "half").unwrap();
    }
    let daemon = home.start(&[]);
    assert!(!home.at("clients.new").exists() && !home.at("clients.new.lmdb").exists());
    assert_eq!(home.map_value(A), None, "the map has the restored grants");
    assert_eq!(home.map_value(B).as_deref(), Some("OK"));
    assert_eq!(grants(&home), saved[1..], "the torn record changes nothing");
    assert!(daemon.log().contains("is damaged") && home.at("state.damaged").exists());
    log_in(&home, &daemon, A);
    assert!(daemon.stop().success());
}

#[test]
fn a_state_file_of_another_version_is_kept_and_not_restored() {
    let home = Home::new();
    let old = format!("pop-before-smtp state 0\ngrant\t{A}\n");
    fs::write(home.at("state"), &old).unwrap();
    let daemon = home.start(&[]);
    assert!(daemon.log().contains("another version; nothing was restored"), "{}", daemon.log());
    assert!(!daemon.log().contains("is damaged"), "{}", daemon.log());
    assert_eq!(fs::read_to_string(home.at("state.damaged")).unwrap(), old);
    assert!(daemon.authorised().is_empty());
    assert!(daemon.stop().success());
}

#[test]
fn a_second_daemon_is_refused_and_the_first_continues() {
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

/// Anyone who can write to the state file can authorise any address.
#[test]
fn a_state_file_that_others_may_write_is_not_trusted() {
    let home = Home::new();
    let state = home.at("state");
    fs::write(&state, "pop-before-smtp state 1\n").unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o666)).unwrap();
    let mut daemon = home.spawn(&[]);
    assert_eq!(daemon.wait().code(), Some(74));
    daemon.wait_until_logged("others can write to it (mode 666)");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(home.start(&[]).stop().success());
}

/// As root, who can read everything.
#[test]
fn a_state_file_of_another_user_or_a_link_is_not_trusted() {
    assert!(nix::unistd::geteuid().is_root());
    let home = Home::new();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_saved(A, &daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let state = home.at("state");
    let is_refused = |why: &str, fix: &str| {
        let before = fs::read_to_string(&state).unwrap();
        let mut daemon = home.spawn(&[]);
        assert_eq!(daemon.wait().code(), Some(74), "{}", daemon.log());
        daemon.wait_until_logged(why);
        daemon.wait_until_logged(&format!("{fix} {}`", state.display()));
        assert_eq!(fs::read_to_string(&state).unwrap(), before, "it is unchanged");
    };
    chown(&state, Some(4711), None).unwrap();
    is_refused("it belongs to user 4711", "`chown root");
    chown(&state, Some(0), None).unwrap();
    fs::rename(&state, home.at("moved")).unwrap();
    symlink("moved", &state).unwrap();
    is_refused("it is a symbolic link", "`rm");
    fs::rename(home.at("moved"), &state).unwrap();
    let daemon = home.start(&[]);
    assert!(daemon.query(A), "the state is restored: {}", daemon.log());
}

/// If the configuration is no longer trusted, the daemon continues with the previous one.
#[test]
fn an_untrusted_configuration_is_not_reloaded() {
    let home = Home::new();
    let config = home.at("config.toml");
    fs::write(&config, "grace = '1h'\n").unwrap();
    let mut daemon = home.start(&[]);
    fs::write(&config, "allow-host = ['-']\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("not reloaded, the old configuration stays");
    assert!(daemon.log().contains("others can write to it (mode 666)"), "{}", daemon.log());
    log_in(&home, &daemon, A);
    assert!(daemon.stop().success());
}

/// A user who can write to the directory cannot replace the configuration by one that is trusted,
/// but can remove it.
#[test]
fn a_world_writable_directory_is_logged_once() {
    let home = Home::new();
    let directory = home.at("etc");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config.toml"), "").unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let config = directory.join("config.toml").display().to_string();
    let daemon = home.start(&["--config", &config]);
    let remark = format!("any local user can write to {}", directory.display());
    assert_eq!(daemon.log().matches(&remark).count(), 1, "{}", daemon.log());
    assert!(daemon.stop().success());
}
