//! `users` and rules in the running daemon, and what it says about logins that do not authorise.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::home::Home;

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";

fn login(user: &str, address: &str) -> String {
    format!(
        "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<{user}>, method=PLAIN, \
         rip={address}, lip=192.0.2.1, mpid=7, session=<a>"
    )
}

fn query(daemon: &Daemon, address: &str) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = daemon.command(&["query", address]);
    (status.code(), String::from_utf8(stdout).unwrap())
}

fn is_refused(daemon: &Daemon, address: &str, why: &str) {
    let (code, out) = query(daemon, address);
    assert!(code == Some(1) && out.contains(why), "{address}: {code:?} {out}");
}

#[test]
fn rules_decide_and_a_reload_ends_what_they_refuse() {
    let home = Home::new();
    let config = |rule: &str| fs::write(home.at("config.toml"), rule).unwrap();
    config(
        "[[rule]]\nuser = 'scanner@example.org'\ngrace = '8h'\n[[rule]]\nuser = '@example.com'\nnever = true\n",
    );
    let mut daemon = home.start(&[]);
    for (user, address) in [("joe@example.com", A), ("joe", B), ("scanner@example.org", A)] {
        home.wire.send(login(user, address).as_bytes());
    }
    home.wait_until_mapped(A, &daemon);
    home.wait_until_mapped(B, &daemon);
    let list = daemon.list();
    let left = |n: usize| list[n]["expires_in"].as_u64().unwrap();
    assert!((28_700..=28_800).contains(&left(0)) && (1700..=1800).contains(&left(1)), "{list}");
    let status: Value =
        serde_json::from_slice(&daemon.command(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["counts"]["refused_by_rule"], 1, "{status}");
    assert_eq!(status["logins"], 2, "{status}");
    daemon.wait_until_logged("rule 2 (config.toml line 4): never");

    config("users = ['scanner@example.org']\n[[rule]]\ngrace = '8h'\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("no longer authorised: the new configuration refuses its logins");
    is_refused(&daemon, B, "the new configuration refuses its logins");
    let gone = crate::support::within(crate::support::PATIENCE, || home.map_value(B).is_none());
    assert!(gone && home.map_value(A).is_some(), "{}", daemon.log());
    home.wire.send(login("joe", B).as_bytes());
    daemon.wait_until_logged("`users` does not name this user");
    is_refused(&daemon, B, "was refused: `users` does not name this user");

    config("[[rule]]\nusr = 'x'\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("did you mean `user`?");
    assert!(daemon.query(A), "the old rules stay");
    assert!(daemon.stop().success());

    config("users = ['scanner@example.org']\n[[rule]]\ngrace = '8h'\n");
    let daemon = home.start(&[]);
    let list = daemon.list();
    assert!(list[0]["expires_in"].as_u64().unwrap() > 28_000, "{list}");
    assert!(daemon.stop().success());
}

#[test]
fn the_first_excluded_login_of_each_kind_is_said() {
    let home = Home::new();
    fs::write(home.at("config.toml"), "[[rule]]\nfrom = '203.0.113.0/24'\nnever = true\n").unwrap();
    let daemon = home.start(&["--exclude", "loopback", "--exclude", "link-local", "--exclude", A]);
    // What `doctor` sends is no login.
    home.wire.send(login("pop-before-smtp-probe-7", "127.0.0.1").as_bytes());
    let rows = [
        ("127.0.0.1", "it belongs to `loopback`", "webmail or another program on this host"),
        ("169.254.7.7", "it belongs to `link-local`", "other hosts may have this address too"),
        (A, "it belongs to `exclude`", "the option `exclude` names it"),
        ("203.0.113.9", "rule 1 (config.toml line 1): never", "your configuration says so"),
    ];
    for (address, _, _) in rows {
        home.wire.send(login("joe", address).as_bytes());
        home.wire.send(login("ann", address).as_bytes());
    }
    home.wire.send(login("joe", B).as_bytes());
    daemon.wait_until_authorised(B);
    daemon.wait_until_logged("203.0.113.9");
    let log = daemon.log();
    let said: Vec<&str> = log.lines().filter(|l| l.contains("does not authorise its")).collect();
    assert_eq!(said.len(), rows.len(), "{log}");
    for (line, (address, reason, meaning)) in said.iter().zip(rows) {
        for part in ["WARN", address, reason, meaning, "joe", "dovecot"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }

    is_refused(&daemon, "127.0.0.1", "this host itself");
    is_refused(
        &daemon,
        "203.0.113.7",
        "no login from it authorises, by rule 1 (config.toml line 1)",
    );
    is_refused(&daemon, "192.0.2.7", "no login from it is known");
    assert_eq!(query(&daemon, B).0, Some(0));
    daemon.command(&["revoke", B]);
    is_refused(&daemon, B, "revoked by the operator");
    daemon.command(&["revoke", B, "--block", "1h"]);
    is_refused(&daemon, B, "blocked until");
    assert!(daemon.stop().success());
}

/// A file of networks is read again on SIGHUP; with a fault in it, the one before stays.
#[test]
fn networks_in_a_file_are_excluded() {
    let home = Home::new();
    let file = home.at("shared");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("# Fetchers\n203.0.113.0/24\n2001:db8:f::/48\n");
    let name = format!("file:{}", file.display());
    let mut daemon = home.start(&["--exclude", "loopback", "--exclude", &name]);
    for address in ["203.0.113.9", "2001:db8:f::9", A, B] {
        home.wire.send(login("joe", address).as_bytes());
    }
    daemon.wait_until_authorised(B);
    assert!(daemon.query(A));
    for address in ["203.0.113.9", "2001:db8:f::9"] {
        is_refused(
            &daemon,
            address,
            &format!("a file that you have written names it (the option `exclude`: {name})"),
        );
    }

    write(&format!("203.0.113.0/24\n{A}\n"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("no longer authorised: excluded by the new configuration");
    assert!(!daemon.query(A) && daemon.query(B), "{}", daemon.log());
    home.wire.send(login("ann", "2001:db8:f::9").as_bytes());
    daemon.wait_until_authorised("2001:db8:f::9");

    write(&format!("{B}\nfetcher.example\n"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged(&format!("exclude `{}`: line 2: `fetcher.example`", file.display()));
    assert!(daemon.query(B) && !daemon.query(A), "what was read before stays");
    assert!(daemon.stop().success());
}
