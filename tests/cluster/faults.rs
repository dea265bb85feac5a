//! What happens to the store, and what the hosts do: each goes on by itself, and afterwards all know
//! the same again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::site::{Host, Site};
use crate::support::redis::Redis;
use crate::support::wire::Port;

const BEFORE: &str = "203.0.113.1";
const MEANWHILE: &str = "203.0.113.2";
const AFTER: &str = "203.0.113.3";
const KEPT: &str = "203.0.113.5";
const REVOKED: &str = "203.0.113.4";

/// The grace, in seconds.
const GRACE: u64 = 1800;

/// A store that is killed and comes back empty, and one that is flushed: nothing is forgotten, what was
/// revoked meanwhile stays revoked, and no deadline is later than it was.
#[test]
fn lost_store() {
    let mut site = Site::start();
    site.hosts[0].log_in(BEFORE);
    site.hosts[1].log_in(REVOKED);
    site.everywhere(BEFORE, true);
    site.everywhere(REVOKED, true);
    let granted = Instant::now();

    site.redis.kill();
    site.wait_until_away();
    site.everywhere(BEFORE, true);
    site.hosts[0].log_in(MEANWHILE);
    assert!(!site.hosts[1].daemon.query(MEANWHILE));
    let said = site.hosts[2].command(&["revoke", REVOKED]);
    assert!(said.contains("a, b"), "the hosts that do not know: {said}");
    site.hosts[0].wait_until("untold", |cluster| cluster["untold"].as_u64() >= Some(1));
    let status = site.hosts[0].command(&["status"]);
    assert!(status.contains("STORE AWAY"), "{status}");

    site.redis.restart();
    site.everywhere(MEANWHILE, true);
    site.everywhere(BEFORE, true);
    site.everywhere(REVOKED, false);
    site.relayed_everywhere(MEANWHILE, true);
    site.relayed_everywhere(REVOKED, false);

    for command in [&["FLUSHALL"][..], &["DEL", "pop-before-smtp:default"]] {
        site.redis.cli(command);
        // A new host knows only what the others tell again.
        let fresh = Host::start("fresh", &[&site.redis.url()], &[]);
        fresh.wait_for(BEFORE, true);
        fresh.wait_for(MEANWHILE, true);
        assert!(!fresh.daemon.query(REVOKED));
        let most = GRACE + 2 - granted.elapsed().as_secs();
        assert!((1..=most).contains(&fresh.expires_in(BEFORE)), "{}", fresh.daemon.list());
    }
    site.hosts[1].log_in(AFTER);
    site.everywhere(AFTER, true);
}

/// A store that stands still: no answer waits for it, and nobody's deadline moves.
#[test]
fn stopped_store() {
    let mut site = Site::start();
    site.hosts[0].log_in(BEFORE);
    site.everywhere(BEFORE, true);
    let granted = Instant::now();
    site.redis.process.as_mut().expect("it runs").halt();
    site.hosts[0].log_in(MEANWHILE);
    site.wait_until_away();
    assert!(!site.hosts[1].daemon.query(MEANWHILE));
    let answer = Site::time(|| assert_eq!(site.hosts[0].home.postfix.relay(BEFORE), 250));
    assert!(answer < Duration::from_secs(5), "{answer:?}");
    site.redis.process.as_mut().expect("it runs").signal(Signal::SIGCONT);
    site.everywhere(MEANWHILE, true);
    for host in &site.hosts {
        let most = GRACE + 1 - granted.elapsed().as_secs();
        assert!((most - 10..=most).contains(&host.expires_in(BEFORE)), "{}", host.daemon.list());
    }
}

/// A store that answers and takes nothing: full, a replica, with another password, with too narrow
/// rights. `status` says what it is, and everything is told as soon as it is over.
#[test]
fn refusing_store() {
    let site = Site::start();
    let redis = &site.redis;
    type Commands<'c> = &'c [&'c [&'c str]];
    let rows: [(Commands, &str, Commands); 4] = [
        (&[&["CONFIG", "SET", "maxmemory", "1"]], "OOM", &[&["CONFIG", "SET", "maxmemory", "0"]]),
        (&[&["REPLICAOF", "127.0.0.1", "1"]], "replica", &[&["REPLICAOF", "NO", "ONE"]]),
        (
            &[&["ACL", "SETUSER", "default", "-xadd"]],
            "deploy/cluster has the rule",
            &[&["ACL", "SETUSER", "default", "+@all"]],
        ),
        (
            &[
                &["CONFIG", "SET", "requirepass", "secret"],
                &["-a", "secret", "CLIENT", "KILL", "TYPE", "normal"],
            ],
            "cluster-password-file",
            &[&["-a", "secret", "CONFIG", "SET", "requirepass", ""]],
        ),
    ];
    for (number, (fault, error, remedy)) in rows.into_iter().enumerate() {
        fault.iter().for_each(|command| drop(redis.cli(command)));
        let client = format!("203.0.113.{}", 10 + number);
        site.hosts[0].log_in(&client);
        let has_error = |cluster: &serde_json::Value| {
            cluster["error"].as_str().is_some_and(|found| found.contains(error))
        };
        site.hosts[0].wait_until(error, has_error);
        assert!(!site.hosts[1].daemon.query(&client), "{error}");
        remedy.iter().for_each(|command| drop(redis.cli(command)));
        site.everywhere(&client, true);
        site.hosts[0].wait_until("no error", |cluster| cluster["error"].is_null());
    }
}

/// A replica without the last entries becomes the primary store; its clock may be an hour off.
#[test]
fn replica_with_a_lost_tail_is_promoted() {
    for clock in [0, -3600, 3600] {
        let port = Port::claim();
        let mut primary = Redis::start(&["--port", &port.number().to_string()]);
        let replica = Redis::start_with_clock(&[], clock);
        let seconds: i64 =
            replica.cli(&["TIME"]).lines().next().and_then(|it| it.parse().ok()).expect("s");
        let shifted = seconds - i64::try_from(now()).expect("this century");
        assert!((shifted - i64::from(clock)).abs() < 60, "its clock is {shifted} s ahead");
        replica.set(&["REPLICAOF", "127.0.0.1", &port.number().to_string()]);
        let urls = [primary.url(), replica.url()];
        let urls = [&*urls[0], &urls[1]];
        let hosts = ["a", "b"].map(|name| Host::start(name, &urls, &[]));
        hosts.iter().for_each(|host| host.wait_until("connected", |it| it["connected"] == true));
        hosts[0].log_in(KEPT);
        hosts[0].log_in(BEFORE);
        hosts[1].wait_for(BEFORE, true);
        let length = || replica.cli(&["XLEN", "pop-before-smtp:default"]);
        crate::support::eventually("the replica follows", crate::support::PATIENCE, || {
            length().parse::<u32>().is_ok_and(|length| length >= 4)
        });

        // It keeps what it has, and loses the rest.
        replica.set(&["REPLICAOF", "127.0.0.1", "1"]);
        hosts[0].log_in(MEANWHILE);
        let granted = Instant::now();
        hosts[1].wait_for(MEANWHILE, true);
        hosts[1].command(&["revoke", BEFORE]);
        primary.kill();
        replica.set(&["REPLICAOF", "NO", "ONE"]);
        hosts[0].log_in(AFTER);
        hosts[1].wait_for(AFTER, true);

        let fresh = Host::start("fresh", &urls, &[]);
        fresh.wait_for(MEANWHILE, true);
        fresh.wait_for(AFTER, true);
        fresh.wait_for(KEPT, true);
        fresh.wait_for(BEFORE, false);
        for host in hosts.iter().chain([&fresh]) {
            let most = GRACE + 2 - granted.elapsed().as_secs();
            let left = host.expires_in(MEANWHILE);
            assert!((1..=most).contains(&left), "{clock} {}: {left} s", host.name);
            host.wait_for(BEFORE, false);
        }
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}
