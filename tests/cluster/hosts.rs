//! What happens to the hosts and their network.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::site::{Host, Site, options};
use crate::support::network;
use crate::support::redis::Redis;
use crate::support::wire::Port;

const A: &str = "203.0.113.1";
const B: &str = "203.0.113.2";

/// Operators act on all hosts, and are told where a login was heard.
#[test]
fn operators() {
    let site = Site::start();
    let [a, b, c] = &*site.hosts else { unreachable!("three hosts") };
    a.log_in(A);
    site.everywhere(A, true);
    assert_eq!(b.daemon.list()[0]["origin"], "a");
    site.relayed_everywhere(A, true);
    assert!(!b.command(&["revoke", "--block", "1h", A]).contains("confirmed"));
    // Confirmed: all know it now.
    for host in [a, b, c] {
        assert!(!host.daemon.query(A), "{}", host.name);
        assert!(host.command(&["list", "--blocked"]).contains(A), "{}", host.name);
    }
    site.relayed_everywhere(A, false);
    let why = c.daemon.command(&["query", A]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("blocked"), "{why:?}");
    assert!(!c.command(&["allow", "--for", "1h", A]).contains("confirmed"));
    for host in [a, b, c] {
        assert!(host.daemon.query(A), "{}", host.name);
        assert_eq!(host.daemon.list()[0]["origin"], "c");
    }
    a.log_in(B);
    site.everywhere(B, true);
    let status = a.command(&["status"]);
    assert!(status.contains("this host is a: connected to redis+unix:"), "{status}");
    assert!(status.contains("b: last sign of life"), "{status}");
}

/// A host that is killed comes back and knows what it knew, with its state and without; and while the
/// store is away too.
#[test]
fn killed_host() {
    let mut redis = Redis::start(&[]);
    let url = redis.url();
    let b = Host::start("b", &[&url], &[]);
    let mut a = Host::start("a", &[&url], &[]);
    a.log_in(A);
    b.log_in(B);
    b.wait_for(A, true);
    a.wait_for(B, true);
    for has_state in [true, false] {
        a.daemon.signal(Signal::SIGKILL);
        a.daemon.wait();
        if !has_state {
            std::fs::remove_file(a.home.at("state")).expect("removed");
        }
        a.daemon = a.home.start(&options("a", &[&url], &[]));
        a.wait_for(A, true);
        a.wait_for(B, true);
        assert!(a.cluster()["same_name"] == false, "{}", a.cluster());
    }
    let saved = || std::fs::read_to_string(a.home.at("state")).unwrap_or_default();
    crate::support::eventually("saved", crate::support::PATIENCE, || {
        [A, B].iter().all(|client| saved().contains(client))
    });
    redis.kill();
    assert!(a.daemon.stop().success());
    a.daemon = a.home.start(&options("a", &[&url], &[]));
    assert!(a.daemon.query(A) && a.daemon.query(B), "{}", a.daemon.log());
    assert_eq!(a.daemon.list().as_array().map(Vec::len), Some(2));
    a.home.wire.send(crate::support::story::login_frame("203.0.113.9").as_bytes());
    a.wait_for("203.0.113.9", true);
    redis.restart();
    b.wait_for("203.0.113.9", true);
    // Without the cluster the clients are still there.
    assert!(a.daemon.stop().success());
    a.daemon = a.home.start(&[]);
    assert!(a.daemon.query(A) && a.daemon.query(B), "{}", a.daemon.log());
}

/// Two hosts with one name say so, and lose nothing.
#[test]
fn two_hosts_with_one_name() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let hosts = [(); 2].map(|()| Host::start("a", &[&url], &[]));
    let c = Host::start("c", &[&url], &[]);
    for host in &hosts {
        host.wait_until("same name", |cluster| cluster["same_name"] == true);
    }
    hosts[0].log_in(A);
    hosts[1].log_in(A);
    hosts[1].log_in(B);
    for host in hosts.iter().chain([&c]) {
        host.wait_for(A, true);
        host.wait_for(B, true);
    }
    // They do not tell each other the same for ever.
    let told = || hosts.each_ref().map(|host| host.cluster()["told"].as_u64());
    let before = told();
    hosts[0].log_in("203.0.113.5");
    c.wait_for("203.0.113.5", true);
    let after = told();
    let more: u64 = before.iter().zip(after).map(|(one, two)| two.unwrap() - one.unwrap()).sum();
    assert!(more < 10, "{before:?} {after:?}");
}

/// A host whose network is cut goes on by itself, honours what was revoked when the network is back,
/// and is named until then.
#[test]
fn host_that_is_cut_off() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can be made");
    network::ip("link set lo up");
    let port = Port::claim();
    let number = port.number().to_string();
    let redis = Redis::start(&["--port", &number, "--bind", "0.0.0.0", "--protected-mode", "no"]);
    let local = format!("redis://127.0.0.1:{number}");
    let far = format!("redis://198.51.100.1:{number}");
    let a = Host::start("a", &[&local], &[]);
    let c = Host::start("c", &[&local], &[]);
    let store = redis.process.as_ref().expect("it runs").id().to_string();
    std::thread::scope(|scope| {
        let cut_off = scope.spawn(|| {
            network::enter_connected_to(&store, &["198.51.100.9"]);
            network::ip("link set lo up");
            let b = Host::start("b", &[&far], &[]);
            b.wait_until("connected", |cluster| cluster["connected"] == true);
            a.log_in(A);
            b.wait_for(A, true);
            network::ip("link set cable down");
            b.wait_until("away", |cluster| cluster["connected"] == false);
            b.log_in(B);
            let said = a.command(&["revoke", "--block", "1h", A]);
            assert!(said.contains("not confirmed it: b;"), "{said}");
            c.wait_for(A, false);
            assert!(b.daemon.query(A), "it cannot know");
            assert!(!c.daemon.query(B));
            network::ip("link set cable up");
            b.wait_for(A, false);
            for host in [&a, &c] {
                host.wait_for(B, true);
            }
            assert!(!b.command(&["revoke", B]).contains("confirmed"));
            assert!(!a.daemon.query(B));
        });
        cut_off.join().expect("no fault");
    });
}
