//! The files of deploy/cluster, unchanged but for addresses, paths and passwords: the real
//! redis-server with TLS and its rules, a replica, Sentinel, and two daemons that share their clients.

#![allow(clippy::panic, reason = "an answer that cannot be read ends the test")]

mod containers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, program};
use crate::support::process::Process;
use crate::support::site::Findings;
use crate::support::story::login_frame;
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, directory, eventually, install, within};

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
const C: &str = "198.51.100.9";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn file(name: &str) -> String {
    fs::read_to_string(format!("{ROOT}/deploy/cluster/{name}")).expect(name)
}

/// Replaces parts of a text, all of which it has.
fn replaced(text: String, parts: &[(&str, &str)]) -> String {
    parts.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "{old} is not in {text}");
        text.replace(old, new)
    })
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn redis(name: &str) -> Command {
    let root = Path::new(ROOT).join("target/tools/redis");
    let program = root.join("usr/bin").join(name);
    assert!(program.exists(), "{name} is not in target/tools: tests/all unpacks it");
    let mut command = Command::new(program);
    // Of the packages, wherever this machine keeps its libraries.
    let libraries = format!("{}/usr/lib/{}-linux-gnu", root.display(), std::env::consts::ARCH);
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

/// The certificates, rules and passwords of a site.
struct Cluster {
    dir: TempDir,
    ports: [Port; 2],
}

impl Cluster {
    /// Makes them with the commands of README.md.
    fn new() -> Self {
        let dir = directory();
        let cluster = Self { dir, ports: [Port::claim(), Port::claim()] };
        install(format!("{ROOT}/deploy/cluster/certificates"), cluster.at("certificates"));
        for name in ["users.acl", "redis.conf", "sentinel.conf"] {
            fs::write(cluster.at(name), file(name)).expect("a file");
        }
        let readme = file("README.md");
        let (_, commands) = readme.split_once("```sh\n").expect("the commands");
        let (commands, _) = commands.split_once("```\n").expect("their end");
        let commands =
            replaced(commands.into(), &[("store1.example.org store2.example.org", "localhost")]);
        succeeds(Command::new("sh").args(["-euc", &commands]).current_dir(cluster.dir.path()));
        cluster
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the command that makes a host's certificate.
    fn certify(&self, host: &str) -> Command {
        let mut command = Command::new(self.at("certificates"));
        command.args(["tls", "host", host]).current_dir(self.dir.path());
        command
    }

    /// Starts a store, as a replica of the other one if so.
    fn start(&self, number: usize, is_replica: bool) -> Process {
        let data = self.at(&format!("data{number}"));
        fs::create_dir_all(&data).expect("a directory");
        let [port, other] =
            [number, 1 - number].map(|number| self.ports[number].number().to_string());
        let mut text = replaced(
            self.placed("redis.conf"),
            &[
                ("tls-port 6379", &format!("tls-port {port}")),
                ("/etc/redis", &self.dir.path().display().to_string()),
                ("/var/lib/redis", &data.display().to_string()),
            ],
        );
        if is_replica {
            let place = "#replicaof store1.example.org 6379";
            text = replaced(text, &[(place, &format!("replicaof localhost {other}"))]);
        }
        let config = self.at(&format!("redis{number}.conf"));
        fs::write(&config, text).expect("a file");
        let log = fs::File::create(self.at(&format!("redis{number}.log"))).expect("a file");
        let process = Process::spawn(redis("redis-server").arg(&config).stdout(log));
        let log = || fs::read_to_string(self.at(&format!("redis{number}.log"))).unwrap_or_default();
        eventually("it accepts connections", PATIENCE, || {
            assert!(!log().contains("Aborting") && !log().contains("FATAL"), "{}", log());
            log().contains("Ready to accept connections")
        });
        process
    }

    /// Returns a file for this host, with the certificates of this test.
    fn placed(&self, name: &str) -> String {
        let tls = self.at("tls/localhost").display().to_string();
        let text = fs::read_to_string(self.at(name)).expect("a file");
        replaced(text, &[("bind 192.0.2.10", "bind 127.0.0.1"), ("/etc/redis/tls/store1", &tls)])
    }

    /// Starts the only Sentinel, on a port of its own.
    fn watch(&self) -> (Process, Port) {
        let port = Port::claim();
        let text = replaced(
            self.placed("sentinel.conf"),
            &[
                ("tls-port 26379", &format!("tls-port {}", port.number())),
                ("/etc/redis", &self.dir.path().display().to_string()),
                ("/var/lib/redis", &self.dir.path().display().to_string()),
                ("store1.example.org 6379 2", &format!("localhost {} 1", self.ports[0].number())),
                (
                    "down-after-milliseconds pop-before-smtp 5000",
                    "down-after-milliseconds pop-before-smtp 500",
                ),
            ],
        );
        let config = self.at("watching.conf");
        fs::write(&config, text).expect("a file");
        let log = fs::File::create(self.at("sentinel.log")).expect("a file");
        (Process::spawn(redis("redis-server").arg(&config).arg("--sentinel").stdout(log)), port)
    }

    /// Runs a command as the administrator.
    fn command(&self, number: usize, arguments: &[&str]) -> String {
        let mut cli = redis("redis-cli");
        cli.args(["-h", "localhost", "-p", &self.ports[number].number().to_string(), "--tls"]);
        cli.arg("--cacert").arg(self.at("tls/ca.pem"));
        cli.arg("--cert").arg(self.at("tls/mx1.pem")).arg("--key").arg(self.at("tls/mx1.key"));
        let password = fs::read_to_string(self.at("password-of-admin")).expect("a file");
        cli.args(["--user", "admin"]).env("REDISCLI_AUTH", password.trim());
        succeeds(cli.args(arguments))
    }
}

/// A mail host, with a configuration like the one of deploy/cluster.
struct MailHost {
    dir: TempDir,
    wire: Wire,
    metrics: Port,
    daemon: Daemon,
}

impl MailHost {
    fn start(cluster: &Cluster, name: &str, change: impl FnOnce(String) -> String) -> Self {
        let dir = directory();
        let at = |name: &str| dir.path().join(name);
        let (wire, metrics) = (Wire::unix(at("log.sock")), Port::claim());
        let password = at("store-password");
        fs::copy(cluster.at("password-of-pbs"), &password).expect("a file");
        let [first, second] =
            cluster.ports.each_ref().map(|port| format!("localhost:{}", port.number()));
        let text = change(replaced(
            file("config.toml"),
            &[
                ("store1.example.org", &first),
                ("store2.example.org", &second),
                ("mx1", name),
                ("/etc/pop-before-smtp/store-password", &password.display().to_string()),
                ("/etc/pop-before-smtp", &cluster.dir.path().display().to_string()),
            ],
        ));
        let text = format!(
            "listen = [\"{wire}\"]\npolicy = \"unix:{}\"\nexclude = [\"loopback\"]\n\
             metrics = \"inet:127.0.0.1:{}\"\n{text}",
            at("policy.sock").display(),
            metrics.number()
        );
        fs::write(at("config.toml"), text).expect("a file");
        let none: [&str; 0] = [];
        let daemon = Daemon::start(dir.path(), &none);
        Self { dir, wire, metrics, daemon }
    }

    fn log_in(&self, address: &str) {
        self.wire.send(login_frame(address).as_bytes());
        self.daemon.wait_until_authorised(address);
    }

    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.daemon.command(arguments).stdout).expect("text")
    }

    fn status(&self) -> Value {
        let status: Value = serde_json::from_str(&self.text(&["status", "--json"])).expect("JSON");
        status["cluster"].clone()
    }

    fn wait_until_connected(&self) {
        eventually("it is connected", PATIENCE, || self.status()["connected"] == true);
    }

    /// Waits until the status has an error with these parts.
    fn wait_for_error(&self, parts: &[&str]) {
        let error = || self.status()["error"].as_str().unwrap_or_default().to_owned();
        let says = || parts.iter().all(|part| error().contains(part));
        assert!(within(PATIENCE, says), "it does not say {parts:?}: {}", self.status());
    }

    fn doctor(&self) -> Findings {
        let mut command = program();
        command.args(["doctor", "--json"]).arg("--config").arg(self.dir.path().join("config.toml"));
        command.arg("--control").arg(self.dir.path().join("control.sock"));
        let Output { status, stdout, stderr } = command.output().expect("it can be started");
        let list = serde_json::from_slice(&stdout);
        let list = list.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
        Findings { code: status.code().expect("a status"), list }
    }

    fn metric(&self, name: &str) -> f64 {
        use std::io::{Read as _, Write as _};
        let mut stream =
            std::net::TcpStream::connect(("127.0.0.1", self.metrics.number())).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it is open");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page");
        let start = format!("pop_before_smtp_cluster_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().expect("a number")
    }
}

/// Asserts that `doctor` found this to be right.
fn is_ok(findings: &Findings, what: &str) {
    let is_it = |finding: &Value| {
        finding["level"] == "ok" && finding["what"].as_str().is_some_and(|text| text.contains(what))
    };
    assert!(findings.all().any(is_it), "{what} is not ok: {:#}", findings.list);
}

#[test]
fn two_hosts_share_their_clients() {
    let cluster = Cluster::new();
    let mut first = cluster.start(0, false);
    let second = cluster.start(1, true);
    let hosts = ["mx1", "mx2"].map(|name| MailHost::start(&cluster, name, |text| text));
    let [mx1, mx2] = &hosts;
    mx1.log_in(A);
    mx2.daemon.wait_until_authorised(A);
    let list = mx2.text(&["list"]);
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = list.lines().map(fields).collect();
    assert_eq!(lines[0][..5], ["ADDRESS", "USERS", "DAEMON", "HOST", "VIA"], "{list}");
    assert_eq!(lines[1][..5], [A, "joe", "dovecot", "mx1", "mx1"], "{list}");
    assert!(mx2.text(&["query", A]).contains("(joe, dovecot, via mx1)"));
    for host in &hosts {
        eventually("it hears of the other", PATIENCE, || host.metric("hosts") == 1.0);
        assert_eq!(host.metric("connected"), 1.0);
        assert_eq!((host.metric("hosts_silent"), host.metric("same_name")), (0.0, 0.0));
    }
    eventually("told is counted", PATIENCE, || {
        mx1.metric("entries_total{result=\"told\"}") > 0.0
            && mx2.metric("entries_total{result=\"heard\"}") > 0.0
    });
    let refusals = cluster.command(0, &["ACL", "LOG"]);
    assert_eq!(refusals.trim(), "", "the rule permits all that the daemon does");
    let role = || cluster.command(1, &["INFO", "replication"]);
    eventually("it is a copy", PATIENCE, || role().contains("master_link_status:up"));

    let findings = mx1.doctor();
    is_ok(&findings, "this host is mx1 in the cluster default, connected to rediss:");
    let [one, two] =
        cluster.ports.each_ref().map(|port| format!("rediss://pbs@localhost:{}", port.number()));
    for (url, role) in [(&one, "primary"), (&two, "a replica")] {
        is_ok(&findings, &format!("{url} answers over TLS and is {role}"));
        is_ok(&findings, &format!("{url} permits what is needed, and no more"));
        is_ok(&findings, &format!("{url} does not say what it does"));
    }

    // The first store is gone; the other one has the clients, and takes over.
    assert!(first.stop().success());
    mx2.log_in(B);
    mx1.wait_for_error(&["Connection refused", "it is a replica"]);
    assert!(!mx1.daemon.query(B) && mx1.daemon.query(A));
    let findings = mx1.doctor();
    findings.must(
        "problem",
        "the cluster's store has been away",
        "does not hear of",
        "start the store",
    );
    findings.must("problem", "no store of the cluster", "", "REPLICAOF NO ONE");
    assert_eq!(cluster.command(1, &["REPLICAOF", "NO", "ONE"]).trim(), "OK");
    mx1.daemon.wait_until_authorised(B);
    mx1.log_in(C);
    mx2.daemon.wait_until_authorised(C);
    mx2.wait_until_connected();
    assert_eq!(mx2.status()["store"], two.as_str());

    // As it was, it would be another primary one.
    let first = cluster.start(0, false);
    mx1.doctor().must(
        "problem",
        "several stores are primary",
        "do not hear of each other",
        "REPLICAOF",
    );
    drop(first);
    let _first = cluster.start(0, true);
    eventually("it is a copy", PATIENCE, || {
        cluster.command(0, &["INFO", "replication"]).contains("master_link_status:up")
    });
    assert!(!mx1.doctor().has("problem", "several stores are primary", "", ""));
    drop(second);
    for host in hosts {
        assert!(host.daemon.stop().success());
    }
}

/// Sentinel makes the second store primary, and the first one a replica when it returns.
#[test]
fn a_store_that_fails_is_replaced() {
    let cluster = Cluster::new();
    let mut first = cluster.start(0, false);
    let _second = cluster.start(1, true);
    let _sentinel = cluster.watch();
    let log = || fs::read_to_string(cluster.at("sentinel.log")).unwrap_or_default();
    let says = |text: &str| assert!(within(PATIENCE, || log().contains(text)), "{text}: {}", log());
    says("+slave slave ");
    let [mx1, mx2] = ["mx1", "mx2"].map(|name| MailHost::start(&cluster, name, |text| text));
    mx1.log_in(A);
    mx2.daemon.wait_until_authorised(A);
    assert!(first.stop().success());
    mx1.log_in(B);
    says("+switch-master");
    mx2.daemon.wait_until_authorised(B);
    let port = cluster.ports[1].number().to_string();
    assert!(mx2.status()["store"].as_str().is_some_and(|store| store.ends_with(&port)));
    let _first = cluster.start(0, false);
    says("+convert-to-slave");
    for host in [mx1, mx2] {
        assert!(host.daemon.stop().success());
    }
}

/// What `status` and `doctor` say of a wrong password, a missing certificate, and rules that are too
/// narrow or too wide.
#[test]
fn faults_are_named() {
    let cluster = Cluster::new();
    let _store = cluster.start(0, false);
    let host = MailHost::start(&cluster, "mx1", |text| text);
    host.wait_until_connected();
    assert_eq!((host.metric("connected"), host.metric("hosts")), (1.0, 0.0));
    host.doctor().must("note", "no other host of the cluster default", "", "cluster-name");
    let url = format!("rediss://pbs@localhost:{}", cluster.ports[0].number());

    // While it is connected.
    let rule = |rule: &str| {
        let set = [&["ACL", "SETUSER", "pbs"][..], &rule.split(' ').collect::<Vec<_>>()].concat();
        assert_eq!(cluster.command(0, &set).trim(), "OK");
    };
    rule("-xadd");
    host.wire.send(login_frame(A).as_bytes());
    host.wait_for_error(&["NOPERM", "xadd", "deploy/cluster"]);
    assert!(host.text(&["status"]).contains("TELLS NOTHING: "), "{}", host.text(&["status"]));
    assert!(host.metric("connected") == 1.0 && host.metric("untold_changes") > 0.0);
    let findings = host.doctor();
    findings.must(
        "problem",
        "refuses what this host tells: NOPERM",
        "do not hear",
        "deploy/cluster",
    );
    findings.must("problem", &format!("{url} refuses XADD: NOPERM"), "", "users.acl");
    rule("+xadd");
    eventually("it is told", PATIENCE, || host.metric("untold_changes") == 0.0);
    for (command, lack) in [("XTRIM", "-xtrim"), ("XREAD", "-xread"), ("XREVRANGE", "resetkeys")] {
        rule(lack);
        let what = format!("{url} refuses {command}: NOPERM");
        host.doctor().must("problem", &what, "", "users.acl");
        rule("+xtrim +xread resetkeys %RW~pop-before-smtp:default");
    }
    rule("~* +@all");
    let wide = format!("at {url} this host may also change other keys, and read and change the");
    assert_eq!(
        cluster.command(0, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).trim(),
        "OK"
    );
    let findings = host.doctor();
    findings.must("note", &wide, "could take over the store", "users.acl");
    findings.must("note", "maxmemory-policy is allkeys-lru", "delete the whole", "noeviction");
    assert_eq!(
        cluster.command(0, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).trim(),
        "OK"
    );
    is_ok(&host.doctor(), "maxmemory-policy noeviction spares the stream");

    // From the start.
    let with = |change: &dyn Fn(String) -> String| MailHost::start(&cluster, "mx2", change);
    let no_certificate = with(&|text| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("cluster-cert") && !line.starts_with("cluster-key"));
        lines.map(|line| format!("{line}\n")).collect()
    });
    no_certificate.wait_for_error(&["CertificateRequired (see cluster-cert and cluster-key)"]);
    let other_authority = with(&|text| {
        let lines = text.lines().filter(|line| !line.starts_with("cluster-ca"));
        lines.map(|line| format!("{line}\n")).collect()
    });
    other_authority.wait_for_error(&["UnknownIssuer (see cluster-ca,"]);
    let unknown = with(&|text| text.replace("pbs@", "nobody@"));
    unknown.wait_for_error(&["refuses the user or the password", "cluster-password-file"]);
    let what = format!("{} cannot be used: it refuses the user", url.replace("pbs@", "nobody@"));
    unknown.doctor().must("problem", &what, "", "the password");
    let wrong = with(&|text| text);
    wrong.wait_until_connected();
    fs::write(wrong.dir.path().join("store-password"), "wrong\n").expect("a file");
    wrong.doctor().must("problem", "cannot be used: it refuses the user", "", "the password");
    for host in [no_certificate, other_authority, unknown] {
        assert!(host.text(&["status"]).contains("STORE AWAY for "));
        assert!(host.daemon.log().contains("the cluster's store is away"), "{}", host.daemon.log());
        assert!(host.daemon.stop().success());
    }

    // Two hosts with one name.
    let twin = MailHost::start(&cluster, "mx2", |text| text);
    for host in [&wrong, &twin] {
        eventually("it sees the other", PATIENCE, || host.metric("same_name") == 1.0);
    }
    twin.doctor().must(
        "problem",
        "another host of the cluster is called mx2 too",
        "",
        "cluster-host",
    );
    assert!(twin.daemon.stop().success());
    assert!(wrong.daemon.stop().success());
    eventually("it is missed", PATIENCE, || host.metric("hosts_silent") == 1.0);
    host.doctor().must("note", "are silent: mx2 (last heard of at", "do not hear", "doctor` there");
    assert!(host.daemon.stop().success());
}
