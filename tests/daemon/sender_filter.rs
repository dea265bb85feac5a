//! Whose frames are accepted: users, hosts and facilities; also temporary errors of a socket, and
//! file descriptors sent with frames.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use pop_before_smtp::engine::Rules;
use pop_before_smtp::engine::message::hosts::Hosts;
use pop_before_smtp::engine::verdict::{Reason, Verdict};
use serde_json::Value;

use crate::support::daemon::{Daemon, program};
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::story::{login_frame, rules, story_with};
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually};

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
const EVIL: &str = "198.51.100.66";

fn status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("status --json prints JSON")
}

/// Builds a library that makes recvmmsg(2) fail with the error number in a file, while that exists.
fn build_shim(home: &Home) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/recvmmsg.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(home.at("recvmmsg.so")).arg(source).arg("-ldl");
    assert!(cc.status().expect("the linker of Rust is there").success());
}

#[test]
fn temporary_errors_do_not_stop_the_receiver() {
    let home = Home::new();
    build_shim(&home);
    let udp = Wire::udp();
    let options = home.options(&["--listen", &udp.to_string()]);
    let mut daemon = Daemon::spawn_with(&home.at("."), &options, |command| {
        command.env("LD_PRELOAD", home.at("recvmmsg.so")).env("RECVMMSG_FAILS", home.at("fails"));
    });
    eventually("it is ready", PATIENCE, || daemon.has_notified("READY=1"));
    let fail = |code: Errno| {
        fs::write(home.at("fails.new"), (code as i32).to_string()).unwrap();
        fs::rename(home.at("fails.new"), home.at("fails")).unwrap();
    };
    let passing = [
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::ECONNREFUSED,
        Errno::EINTR,
        Errno::EAGAIN,
        Errno::EIO,
    ];
    let mut errors = 0;
    for (row, code) in passing.into_iter().enumerate() {
        fail(code);
        let client = format!("203.0.113.{row}");
        for wire in [&home.wire, &udp] {
            wire.send(login_frame(&client).as_bytes());
        }
        if ![Errno::EINTR, Errno::EAGAIN].contains(&code) {
            let begin = Instant::now();
            eventually(&format!("{code}"), PATIENCE, || {
                status(&daemon)["listeners"][1]["errors"].as_u64() >= Some(errors + 3)
            });
            assert!(begin.elapsed() >= Duration::from_millis(200), "{code}: it does not pause");
        }
        fs::remove_file(home.at("fails")).unwrap();
        // After EAGAIN only a new frame wakes the receiver.
        for wire in [&home.wire, &udp] {
            wire.send(login_frame(&client).as_bytes());
        }
        daemon.wait_until_authorised(&client);
        errors = status(&daemon)["listeners"][1]["errors"].as_u64().expect("a number");
    }
    assert_eq!(daemon.log().matches("cannot receive; trying again").count(), 2, "once a socket");
    fail(Errno::EBADF);
    udp.send(login_frame(A).as_bytes());
    assert_eq!(daemon.wait().code(), Some(74), "{}", daemon.log());
    daemon.wait_until_logged("a receiver has failed: udp:");
}

/// Sends a frame with the file descriptor of a file, several times.
fn send_with_files(path: &Path, frame: &str, file: &Path, times: usize) {
    let socket = UnixDatagram::unbound().unwrap();
    let file = fs::File::open(file).unwrap();
    let numbers = vec![file.as_raw_fd(); times];
    let address = UnixAddr::new(path).unwrap();
    let control = [ControlMessage::ScmRights(&numbers)];
    let frame = [IoSlice::new(frame.as_bytes())];
    sendmsg(socket.as_raw_fd(), &frame, &control, MsgFlags::empty(), Some(&address)).unwrap();
}

#[test]
fn file_descriptors_sent_with_frames_are_closed() {
    for (options, is_accepted) in [(&[][..], true), (&["--allow-uid", "0"][..], false)] {
        let home = Home::new();
        let daemon = home.start(options);
        home.wire.send(login_frame(A).as_bytes());
        daemon.wait_until_authorised(A);
        let file = home.at("passed");
        fs::write(&file, "").unwrap();
        for times in [1, 2, 253] {
            send_with_files(&home.at("log.sock"), &login_frame(EVIL), &file, times);
        }
        home.wire.send(login_frame(B).as_bytes());
        daemon.wait_until_authorised(B);
        assert_eq!(daemon.query(EVIL), is_accepted, "{options:?}");
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("it runs");
        let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        assert_eq!(links.filter(|link| *link == file).count(), 0, "{options:?}: it keeps files");
        assert!(daemon.stop().success());
    }
}

/// Logs a login as another user.
fn log_as(user: &str, path: &Path, address: &str) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", "65533", "--clear-groups"]);
    command.args(["logger", "--socket-errors=on", "--priority=mail.info", "--tag=dovecot"]);
    let text = login_frame(address);
    command.arg("--socket").arg(path).arg(&text[text.find("imap-login").expect("it is there")..]);
    assert!(command.status().expect("setpriv and logger are there").success());
}

#[test]
fn frames_are_accepted_by_user() {
    let home = Home::new();
    let path = home.at("log.sock");
    let options = ["--allow-uid=4711", "--allow-uid=daemon", "--log-level=debug"];
    let daemon = home.start_for(",mode=0666", &options);
    log_as("4712", &path, EVIL);
    home.wire.send(login_frame(EVIL).as_bytes());
    log_as("4711", &path, A);
    log_as("1", &path, B);
    daemon.wait_until_authorised(B);
    assert!(daemon.query(A) && !daemon.query(EVIL), "{}", daemon.log());
    let status = status(&daemon);
    assert_eq!(status["listeners"][0]["rejected"], 2, "{status}");
    assert_eq!(status["frames"], 2, "{status}");
    daemon.wait_until_logged("uid=4712");
    daemon.wait_until_logged("frame dropped: allow-uid does not name its sender");
    assert!(daemon.stop().success());

    let daemon = home.start_for(",mode=0666", &[]);
    log_as("4712", &path, EVIL);
    daemon.wait_until_authorised(EVIL);
    assert!(daemon.stop().success());
}

/// A frame that systemd's socket has received before the daemon requests credentials has no sender,
/// and so is rejected.
#[test]
fn frames_on_a_passed_socket_are_accepted_by_user() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let socket = UnixDatagram::bind(at("log")).unwrap();
    fs::set_permissions(at("log"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(at("config.toml"), "").unwrap();
    log_as("4711", &at("log"), EVIL);
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(program().get_program());
    command.args(["run", "--dry-run", "--allow-uid=4711", "--exclude=none"]);
    command.arg("--config").arg(at("config.toml")).arg("--control").arg(at("control"));
    command.env("LISTEN_FDS", "1").stdin(Stdio::from(OwnedFd::from(socket)));
    command.stderr(fs::File::create(at("said")).unwrap());
    let mut process = Process::spawn(&mut command);
    let query = |address: &str| {
        let mut query = program();
        query.args(["query", address, "--control"]).arg(at("control"));
        query.output().expect("it can be started").status.code()
    };
    eventually("it is ready", PATIENCE, || query(A) == Some(1));
    log_as("4712", &at("log"), B);
    log_as("4711", &at("log"), A);
    eventually("the named user is accepted", PATIENCE, || query(A) == Some(0));
    assert_eq!((query(B), query(EVIL)), (Some(1), Some(1)));
    assert!(process.stop().success());
}

#[test]
fn messages_are_accepted_by_host_name() {
    let named = |names: &[&str]| Rules {
        hosts: Hosts::Named(names.iter().map(|&name| name.to_owned()).collect()),
        ..rules()
    };
    let frame = |host: &str| login_frame(A).replace(" mx1 ", host);
    let other = |name: Option<&str>| Reason::OtherHost(name.map(str::to_owned));
    story_with("only mx1", named(&["MX1"]))
        .refused(&frame(" mx2 "), &other(Some("mx2")))
        .refused(&frame(" mx1.example.org "), &other(Some("mx1.example.org")))
        .refused(&frame(" "), &other(None))
        .refused("<22>Nov 22 07:31:23 mx2 sshd[7]: hello", &other(Some("mx2")))
        .rejects(&[A])
        .inspect(|engine| {
            assert_eq!((engine.stats().other_hosts, engine.stats().logins), (4, 0));
        })
        .process(&frame(" mx1 "), Verdict::Login)
        .admits(&[A]);
    story_with("frames without a host", named(&["-"]))
        .refused(&frame(" mx1 "), &other(Some("mx1")))
        .process(&frame(" - "), Verdict::Login)
        .process(&frame(" "), Verdict::Login);
    // Lines of another host do not count towards a login of several lines.
    let (connect, login) =
        ("vm-pop3d[7]: Connect from 192.0.2.8", "vm-pop3d[7]: User 'joe' logged in");
    let line = |host: &str, text: &str| format!("<22>Nov 22 07:31:23 {host} {text}");
    story_with("two lines", named(&["mx1"]))
        .process(&line("mx2", connect), Verdict::None)
        .process(&line("mx1", login), Verdict::Partial)
        .rejects(&["192.0.2.8"]);
}

#[test]
fn a_reload_changes_hosts_and_facilities() {
    let home = Home::new();
    let write = |text: &str| fs::write(home.at("config.toml"), text).unwrap();
    write("allow-host = ['mx2', '-']\nfacility = ['dovecot=local3']\n");
    let mut daemon = home.start(&["--log-level", "debug"]);
    let local3 = |host: &str| login_frame(A).replace("<22>", "<158>").replace(" mx1 ", host);
    home.wire.send(local3(" mx1 ").as_bytes());
    daemon.wait_until_logged("the host `mx1` is not in allow-host");
    home.wire.send(login_frame(A).replace(" mx1 ", " ").as_bytes());
    daemon.wait_until_logged("logins are not accepted from this facility");
    assert!(!daemon.query(A));
    let now = status(&daemon);
    assert_eq!((&now["counts"]["other_hosts"], &now["counts"]["refused"]), (&1.into(), &1.into()));
    home.wire.send(local3(" mx2 ").as_bytes());
    daemon.wait_until_authorised(A);
    write("facility = ['dovecot=mail']\n");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_until_logged("configuration reloaded");
    home.wire.send(login_frame(B).as_bytes());
    daemon.wait_until_authorised(B);
    write("facility = ['dovcot=mail']\n");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_until_logged("facility: there is no mail daemon `dovcot`");
    assert!(daemon.stop().success());
}

/// `test` applies the same options as `run`.
#[test]
fn test_accepts_the_same() {
    let dir = directory();
    let file = dir.path().join("lines");
    let daemons = dir.path().join("daemons");
    fs::create_dir(&daemons).unwrap();
    fs::write(&file, login_frame(A).replace("<22>", "<158>")).unwrap();
    let facility = "not accepted from this facility";
    let rows: &[(&[&str], i32, &str)] = &[
        (&[], 0, "login "),
        (&["--facility", "dovecot=local3"], 0, "login "),
        (&["--facility", "dovecot=mail", "--facility", "dovecot=local3"], 0, "login "),
        (&["--facility", "dovecot=mail,local3"], 0, "login "),
        (&["--facility", "dovecot=daemon"], 1, facility),
        (&["--facility", "qpopper=mail"], 0, "login "),
        (&["--facility", "vdpop3d=mail"], 0, "login "),
        (&["--facility", "dovecot=local3", "--allow-host", "MX1"], 0, "login "),
        (&["--facility", "dovecot=local3", "--allow-host", "-"], 1, "host `mx1`"),
        (&["--facility", "dovcot=local3"], 78, "facility: there is no mail daemon `dovcot`"),
        (&["--facility", "dovecot=lokal3"], 2, "`lokal3` is not a syslog facility (one of kern"),
    ];
    for (options, code, expected) in rows {
        let mut command = program();
        command.arg("test").arg(&file).args(["--exclude=none", "--config=/dev/null"]);
        let output = command.arg("--daemons-dir").arg(&daemons).args(*options).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{options:?}: {text}");
        assert!(text.contains(expected), "{options:?}: {text}");
    }
    // The examples of a description are tested without `facility`.
    let own = program().args(["daemons", "dovecot"]).output().unwrap().stdout;
    fs::write(daemons.join("dovecot.toml"), own).unwrap();
    let mut check = program();
    check.args(["check", "--dry-run", "--config=/dev/null", "--facility=dovecot=local3"]);
    let output = check.args(["--exclude=none", "--daemons-dir"]).arg(&daemons).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
