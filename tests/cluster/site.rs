//! Some hosts and their store.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::redis::Redis;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, within};

/// A mail host: a Postfix and the daemon.
pub struct Host {
    pub name: String,
    pub home: Home,
    pub daemon: Daemon,
}

impl Host {
    /// Starts one. Its Postfix runs only after [`Self::start_postfix`].
    pub fn start(name: &str, urls: &[&str], more: &[&str]) -> Self {
        let home = Home::new();
        let daemon = home.start(&options(name, urls, more));
        Self { name: name.to_owned(), home, daemon }
    }

    /// Starts its Postfix.
    pub fn start_postfix(&self) {
        self.home.postfix.start();
    }

    /// Logs a client in.
    pub fn log_in(&self, client: &str) {
        self.home.wire.send(login_frame(client).as_bytes());
        self.daemon.wait_until_authorised(client);
    }

    /// Waits until a client is authorised here, or not.
    pub fn wait_for(&self, client: &str, authorised: bool) {
        let same = within(PATIENCE, || self.daemon.query(client) == authorised);
        assert!(same, "{}: {client} {authorised}: {}", self.name, self.daemon.log());
    }

    /// Returns what `status` says of the cluster.
    pub fn cluster(&self) -> Value {
        let output = self.daemon.command(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["cluster"].clone()
    }

    /// Waits until `status` says this of the cluster.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let so = within(PATIENCE, || is_so(&self.cluster()));
        assert!(so, "{}: {what}: {}\n{}", self.name, self.cluster(), self.daemon.log());
    }

    /// Returns for how many seconds a client is authorised.
    pub fn expires_in(&self, client: &str) -> u64 {
        let list = self.daemon.list();
        let list = list.as_array().expect("a list");
        let entry = list.iter().find(|entry| entry["address"] == client);
        entry.map_or(0, |entry| entry["expires_in"].as_u64().expect("a number"))
    }

    /// Runs a command that must succeed; returns what it prints and warns.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = self.daemon.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// Returns the options of a host.
pub fn options<'o>(name: &'o str, urls: &[&'o str], more: &[&'o str]) -> Vec<&'o str> {
    let mut options = vec!["--cluster-host", name];
    urls.iter().for_each(|url| options.extend(["--cluster", url]));
    options.extend(more);
    options
}

/// Three hosts, each with its Postfix, and one store.
pub struct Site {
    pub redis: Redis,
    pub hosts: Vec<Host>,
}

impl Site {
    /// Starts all of it.
    pub fn start() -> Self {
        let redis = Redis::start(&[]);
        let url = redis.url();
        let hosts: Vec<Host> =
            ["a", "b", "c"].iter().map(|name| Host::start(name, &[&url], &[])).collect();
        hosts.iter().for_each(Host::start_postfix);
        hosts.iter().for_each(|host| host.wait_until("connected", |it| it["connected"] == true));
        Self { redis, hosts }
    }

    /// Waits until a client is authorised on all hosts, or on none.
    pub fn everywhere(&self, client: &str, authorised: bool) {
        self.hosts.iter().for_each(|host| host.wait_for(client, authorised));
    }

    /// Waits until Postfix on all hosts relays for a client, or on none.
    pub fn relayed_everywhere(&self, client: &str, relays: bool) {
        let code = if relays { 250 } else { 554 };
        for host in &self.hosts {
            let same = within(PATIENCE, || host.home.postfix.relay(client) == code);
            assert!(same, "{}: {client} {relays}: {}", host.name, host.daemon.log());
        }
    }

    /// Waits until the hosts know that the store is away.
    pub fn wait_until_away(&self) {
        for host in &self.hosts {
            host.wait_until("away", |cluster| cluster["connected"] == false);
        }
    }

    /// Returns how long `happens` takes.
    pub fn time(happens: impl FnOnce()) -> Duration {
        let begun = Instant::now();
        happens();
        begun.elapsed()
    }
}
