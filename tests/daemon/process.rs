//! The process: memory, child processes, many clients at once, and its own log as input.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::{Daemon, program};
use crate::support::forwarder::{self, Form, Forwarder};
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually};

const A: &str = "198.51.100.7";

/// With a daemon that does not run as root.
#[test]
fn its_memory_cannot_be_read() {
    const USER: u32 = 4711;
    let dir = directory();
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let options =
        ["--dry-run", "--exclude=own", "--exclude=gateway", "--listen", &wire.to_string()];
    let daemon = Daemon::spawn_as((USER, USER), dir.path(), &options);
    daemon.wait_until_logged("ready");
    let process = Path::new("/proc").join(daemon.id().to_string());
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    let fields: Vec<&str> = cores.expect("the limit is there").split_whitespace().collect();
    assert_eq!(fields[4..6], ["0", "0"], "{limits}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{USER}\t")), "{status}");
    // proc(5): these files belong to root if no core file may be written, otherwise to the user.
    assert_eq!(fs::metadata(process.join("mem")).unwrap().uid(), 0);
    wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    assert!(daemon.stop().success());
}

/// Neither before the daemon is ready nor during shutdown.
#[test]
fn no_postmap_outlives_a_second_signal() {
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
        let is_running = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(is_running());
        if !is_ready {
            daemon.signal(Signal::SIGTERM);
            daemon.wait_until_logged("stopping");
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
        eventually("postmap has exited", PATIENCE, || !is_running());
        assert!(home.sockets().is_empty(), "{:?}", home.sockets());
    }
}

fn status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("status --json prints JSON")
}

#[test]
fn evictions_are_counted_and_not_logged_one_by_one() {
    const LOGINS: u32 = 300;
    const CLIENTS: u32 = 5;
    let home = Home::new();
    let daemon = home.start(&["--max-clients", "5"]);
    let client = |number: u32| Ipv4Addr::from(0xc633_6400 + number).to_string();
    for number in 0..LOGINS {
        home.wire.send(login_frame(client(number)).as_bytes());
    }
    daemon.wait_until_authorised(&client(LOGINS - 1));
    let counts = status(&daemon)["counts"].clone();
    assert_eq!(counts["evicted"], LOGINS - CLIENTS, "{counts}");
    assert!(daemon.command(&["revoke", &client(LOGINS - 1)]).status.success());
    daemon.wait_until_logged("revoked manually");
    daemon.wait_until_logged("max-clients is reached");
    let said = daemon.log();
    assert_eq!(said.matches("were evicted").count(), 1, "{said}");
    assert!(!said.contains("no longer authorised: max-clients"), "{said}");
    assert!(daemon.stop().success());
}

/// With a low limit of open files, and so few connections for Postfix.
#[test]
fn silent_connections_do_not_block_lookups() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("config.toml"), "").unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 260; exec \"$@\"", "sh"]).arg(program().get_program());
    command.args(["run", "--listen", &format!("unix:{}", at("log.sock")), "--exclude=none"]);
    command.args(["--socketmap", &format!("unix:{}", at("map")), "--config", &at("config.toml")]);
    command.args(["--control", &at("control.sock"), "--state", &at("state")]);
    let mut process = Process::spawn(command.stderr(fs::File::create(at("said")).unwrap()));
    let said = || fs::read_to_string(at("said")).unwrap();
    eventually("it is ready", PATIENCE, || said().contains(" ready "));
    eventually("it warns", PATIENCE, || said().contains("few connections for Postfix"));
    let query = "17:clients 192.0.2.7,".as_bytes();
    let ask = |stream: &mut UnixStream| {
        let mut reply = [0; 12];
        stream.write_all(query).and_then(|()| stream.read_exact(&mut reply)).unwrap();
    };
    // More than there are slots, all of them silent.
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(at("map")).unwrap()).collect();
    ask(&mut UnixStream::connect(at("map")).unwrap());
    let mut status = program();
    status.args(["status", "--json", "--control", &at("control.sock")]);
    let status = status.output().unwrap().stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let evicted = status["lookups"][0]["evicted"].as_u64();
    assert!(evicted.is_some_and(|evicted| evicted > 30), "{status}");
    drop(silent);
    assert!(process.stop().success());
}

/// Its own log at debug level returns to its socket as the log of a mail daemon, through a real
/// logger and syslog daemon: no login is seen in it, and the loop ends.
#[test]
fn its_own_log_as_input_is_no_login_and_no_endless_loop() {
    for (wire_is_unix, format) in [(true, "text"), (false, "text"), (true, "json")] {
        let home = Home::new();
        let udp = Wire::udp();
        let wire = if wire_is_unix { &home.wire } else { &udp };
        let forwarder = Forwarder::start(forwarder::Program::Rsyslog, wire, Form::Traditional);
        let mut logger = Command::new("logger");
        logger.args(["--priority=mail.info", "--tag=dovecot", "--socket"]).arg(forwarder.input());
        let mut logger = Process::spawn(logger.stdin(Stdio::piped()));
        let pipe = logger.child().stdin.take().expect("it is piped");
        let mut command = program();
        command.args(["run", "--log-level=debug", "--dry-run", "--exclude=192.0.2.0/24"]);
        command.args(["--log-format", format]);
        command.args(["--listen", &home.wire.to_string(), "--listen", &udp.to_string()]);
        fs::write(home.at("config.toml"), "").unwrap();
        let control = home.at("control.sock");
        command.arg("--config").arg(home.at("config.toml")).arg("--control").arg(&control);
        let mut daemon = Process::spawn(command.stderr(Stdio::from(OwnedFd::from(pipe))));
        let ask = |arguments: &[&str]| {
            let mut command = program();
            let output = command.args(arguments).arg("--control").arg(&control).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let frames = || {
            let status: Value = serde_json::from_str(&ask(&["status", "--json"])).ok()?;
            status["frames"].as_u64()
        };
        eventually("it is ready", PATIENCE, || frames().is_some());

        // Texts that look like a login anywhere in a line, backslashes and control bytes that
        // become longer when escaped, and lines that a logger splits.
        let login = login_frame("198.51.100.66");
        let text = &login[login.find("imap-login").expect("it is there")..];
        let long = |byte: &str| format!("<22>Nov 22 07:31:23 mx1 dovecot: {}", byte.repeat(6000));
        let odd = [
            format!("<22>Nov 22 07:31:23 mx1 sshd[7]: {text}"),
            format!("<22>Nov 22 07:31:23 mx1 dovecot: x\n{login}"),
            format!("<22>Nov 22 07:31:23 mx1 {text}: {text}"),
            format!("<22>Nov 22 07:31:23 mx1 dovecot: {} {text}", "a".repeat(900)),
            format!("{text}\n{text}"),
            long("\\"),
            long("\""),
            long("\u{1b}"),
            long("\u{fc}"),
            login_frame("192.0.2.66"),
            login_frame("198.51.100.7"),
        ];
        for frame in &odd {
            wire.send(frame.as_bytes());
        }
        eventually("the real login counts", PATIENCE, || ask(&["list"]).contains("198.51.100.7"));
        // Ended: no further frame within half a second.
        let (mut last, mut since) = (None, Instant::now());
        eventually("the loop ends", PATIENCE, || {
            let now = frames();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(500)
        });
        let (processed, sent) = (last.expect("it answers"), odd.len() as u64);
        println!("{sent} frames were sent and {processed} processed");
        assert!(processed > 2 * sent && processed < 2000, "{processed} frames");
        assert_eq!(
            ask(&["list", "--json"]).matches("\"address\"").count(),
            1,
            "{}",
            ask(&["list"])
        );
        assert!(daemon.stop().success());
    }
}
