//! Metrics and health checks over HTTP, checked by a strict parser of the exposition format and by
//! promtool; also hostile clients, alerts and dashboard.

#![allow(clippy::panic, reason = "a page that cannot be read ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Daemon, program};
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::small_disk::SmallDisk;
use crate::support::story::login_frame;
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, directory, eventually};

const A: &str = "198.51.100.7";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn connect(port: &Port) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port.number())).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// Returns the reply to a request.
fn reply(port: &Port, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).expect("it is open");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap_or_else(|why| panic!("{why}: {text}"));
    text
}

fn get(port: &Port, path: &str) -> (String, String) {
    let text = reply(port, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length) && head.contains("Connection: close"), "{head}");
    (head.lines().next().expect("a status line").to_owned(), body.to_owned())
}

/// Starts a daemon that serves metrics.
fn start(home: &Home, more: &[&str]) -> (Port, Daemon) {
    let port = Port::claim();
    let address = format!("inet:127.0.0.1:{}", port.number());
    let daemon = home.start(&[&["--metrics", &address], more].concat());
    (port, daemon)
}

/// Parses a page into samples by name and labels. Stricter than the format: HELP and TYPE come
/// first and once, all samples of a name are adjacent, and no sample comes twice.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let valid_name = regex::Regex::new("^[a-z][a-z0-9_]*$").expect("a pattern");
    let labels =
        regex::Regex::new(r#"^\{([a-z_]+="([^"\\\n]|\\[\\"n])*"(,|\}))+$"#).expect("a pattern");
    let (mut samples, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let mut lines = page.lines().peekable();
    assert!(page.ends_with('\n') && page.is_ascii(), "{page}");
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("HELP, not {line}"));
        let (name, help) = help.split_once(' ').expect("a help text");
        assert!(name.starts_with("pop_before_smtp_") && valid_name.is_match(name), "{name}");
        assert!(seen.insert(name.to_owned()), "{name} comes twice");
        assert!(help.ends_with('.'), "{name}: {help}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let kind = kind.unwrap_or_else(|| panic!("{name} has no TYPE"));
        assert!(["counter", "gauge"].contains(&kind), "{name}: {kind}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let given = sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} below {name}"));
            assert!(given.is_empty() || labels.is_match(given), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|why| panic!("{line}: {why}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} comes twice");
        }
    }
    samples
}

fn promtool() -> Command {
    let path = PathBuf::from(ROOT).join("target/tools/prometheus/usr/bin/promtool");
    assert!(path.exists(), "promtool is not in target/tools: tests/all unpacks it");
    Command::new(path)
}

#[test]
fn events_are_counted() {
    let home = Home::new();
    let udp = Wire::udp();
    let listen = udp.to_string();
    let asked = Port::claim();
    let policy = format!("inet:127.0.0.1:{}", asked.number());
    let (port, daemon) =
        start(&home, &["--listen", &listen, "--policy", &policy, "--allow-from", "127.0.0.9"]);
    home.wire.send(login_frame(A).as_bytes());
    home.wire.send(b"<22>Nov 22 07:31:23 mx1 dovecot: nothing of interest");
    home.wire.send(b"<22>Nov 22 07:31:23 mx1 sshd[7]: nothing of interest");
    home.wire.send(login_frame("127.0.0.1").as_bytes());
    udp.send(login_frame("198.51.100.66").as_bytes());
    daemon.wait_until_authorised(A);
    let request =
        format!("request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={A}\n\n");
    let mut peer = connect(&asked);
    peer.write_all(request.as_bytes()).expect("it is open");
    let mut answer = [0; 8];
    peer.read_exact(&mut answer).expect("it answers");
    home.wait_until_mapped(A, &daemon);
    let rejected =
        format!("pop_before_smtp_frames_dropped_total{{listener=\"{udp}\",reason=\"sender\"}}");
    eventually("all is counted", PATIENCE, || {
        let samples = parse(&get(&port, "/metrics").1);
        samples[&rejected] == 1.0 && samples["pop_before_smtp_publications_total"] == 2.0
    });

    let (status, page) = get(&port, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let samples = parse(&page);
    let wire = &home.wire;
    for (sample, value) in [
        (format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
        (format!("frames_total{{listener=\"{wire}\"}}"), 4.0),
        (format!("frames_total{{listener=\"{udp}\"}}"), 0.0),
        (format!("frames_dropped_total{{listener=\"{udp}\",reason=\"kernel\"}}"), 0.0),
        ("frames_ignored_total{reason=\"other_program\"}".into(), 1.0),
        ("frames_ignored_total{reason=\"excluded\"}".into(), 1.0),
        ("logins_total{daemon=\"dovecot\"}".into(), 1.0),
        ("logins_total{daemon=\"cyrus\"}".into(), 0.0),
        ("unmatched_total{daemon=\"dovecot\"}".into(), 1.0),
        ("last_login_timestamp_seconds{daemon=\"cyrus\"}".into(), 0.0),
        ("clients".into(), 1.0),
        ("max_clients".into(), 65536.0),
        ("most_users_of_an_address".into(), 1.0),
        ("shared_addresses".into(), 0.0),
        ("grant_events_total{event=\"granted\"}".into(), 1.0),
        (
            format!(
                "lookups_total{{service=\"policy\",listener=\"{policy}\",answer=\"admitted\"}}"
            ),
            1.0,
        ),
        ("relayed_messages_total".into(), 1.0),
        ("relayed_recipients_total".into(), 1.0),
        ("limited_recipients_total{limit=\"messages\"}".into(), 0.0),
        (format!("lookup_connections{{service=\"policy\",listener=\"{policy}\"}}"), 1.0),
        ("publication_failures_total".into(), 0.0),
        ("map_generation_published".into(), 2.0),
        ("map_generation_desired".into(), 2.0),
        ("map_emptied".into(), 0.0),
        ("map_stuck".into(), 0.0),
        ("state_unsaved".into(), 0.0),
        ("log_lines_lost_total".into(), 0.0),
    ] {
        let sample = format!("pop_before_smtp_{sample}");
        assert_eq!(samples.get(&sample), Some(&value), "{sample}: {page}");
    }
    let now = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_secs_f64();
    for name in [
        "start_time_seconds",
        "last_publication_timestamp_seconds",
        "last_login_timestamp_seconds{daemon=\"dovecot\"}",
    ] {
        let time = samples[&format!("pop_before_smtp_{name}")];
        assert!((now - 60.0..=now + 1.0).contains(&time), "{name} {time}, now {now}");
    }
    for secret in [A, "joe", "198.51.100.66", "mx1"] {
        assert!(!page.contains(secret), "{secret} is in {page}");
    }

    let mut check = promtool();
    check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool can be started");
    check.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("it reads");
    let judged = check.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(judged.status.success() && said.is_empty() && judged.stdout.is_empty(), "{said}");
    assert!(daemon.stop().success());
}

#[test]
fn unhealthy_until_the_first_map_is_published() {
    let home = Home::new();
    home.make_postmap_blockable();
    home.hang_postmap();
    let port = Port::claim();
    let daemon = home.spawn(&["--metrics", &format!("inet:127.0.0.1:{}", port.number())]);
    home.wait_until_hanging();
    assert_eq!(get(&port, "/livez").0, "HTTP/1.1 200 OK");
    let (status, why) = get(&port, "/healthz");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(why, "no map has been published yet\n");
    parse(&get(&port, "/metrics").1);
    home.release_postmap();
    eventually("it is ready", PATIENCE, || daemon.has_notified("READY=1"));
    assert_eq!(get(&port, "/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(daemon.affects_mail(), None);
    // A postmap that hangs blocks neither page.
    home.hang_postmap();
    home.wire.send(login_frame(A).as_bytes());
    home.wait_until_hanging();
    assert_eq!(get(&port, "/livez").0, "HTTP/1.1 200 OK");
    let samples = parse(&get(&port, "/metrics").1);
    let generation = |what: &str| samples[&format!("pop_before_smtp_map_generation_{what}")];
    assert!(generation("published") < generation("desired"), "{samples:?}");
    home.release_postmap();
    assert!(daemon.stop().success());
}

/// Postfix and the syslog daemon cannot connect to a socket without a file.
#[test]
fn a_removed_socket_affects_mail() {
    let home = Home::new();
    let policy = home.at("policy.sock");
    let option = format!("--policy=unix:{},mode=0666", policy.display());
    for removed in [&policy, &home.at("log.sock")] {
        let daemon = home.start(&[&option]);
        assert_eq!(daemon.affects_mail(), None);
        std::fs::remove_file(removed).expect("it is there");
        let why = daemon.affects_mail().expect("nobody can connect");
        assert!(why.contains(&format!("unix:{}", removed.display())), "{why}");
        let status = daemon.command(&["status"]).stdout;
        assert!(String::from_utf8_lossy(&status).contains("AFFECTED: the socket `unix:"));
        assert!(daemon.stop().success());
    }
}

/// A state file that cannot be written is reported everywhere, and logged once; so is the recovery.
/// Logins count meanwhile.
#[test]
fn an_unsaved_state_is_reported_everywhere() {
    let home = Home::with_directories("lmdb");
    let disk = SmallDisk::mount(home.at("states"));
    let state = home.at("states/state").display().to_string();
    let (port, daemon) = start(&home, &["--state", &state]);
    let unsaved = || parse(&get(&port, "/metrics").1)["pop_before_smtp_state_unsaved"];
    let status = || String::from_utf8(daemon.command(&["status"]).stdout).expect("text");
    let fault = || {
        let output = daemon.command(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["state_fault"].clone()
    };
    assert_eq!((get(&port, "/healthz").0.as_str(), unsaved()), ("HTTP/1.1 200 OK", 0.0));
    assert_eq!(fault(), Value::Null);
    disk.fill(0);
    // The last page of the file still takes some records.
    for number in 0..100 {
        home.wire.send(login_frame(std::net::Ipv4Addr::from(0xc612_0001_u32 + number)).as_bytes());
    }
    home.wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    home.wait_until_mapped(A, &daemon);
    eventually("it is reported", PATIENCE, || unsaved() == 1.0);
    let (head, why) = get(&port, "/healthz");
    assert_eq!(head, "HTTP/1.1 503 Service Unavailable");
    assert!(why.contains("No space left") && why.contains("logins still count"), "{why}");
    assert_eq!(daemon.affects_mail(), None, "only a crash would lose a login");
    assert!(status().contains("NOT SAVED for") && status().contains("No space left"));
    assert!(fault()["seconds"].is_number(), "{}", fault());
    assert!(fault()["error"].as_str().is_some_and(|error| error.contains("No space left")));
    // Several attempts.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(daemon.log().matches("state not saved").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.list().as_array().map(Vec::len), Some(101));

    disk.clear();
    daemon.wait_until_logged("state saved again");
    assert_eq!((get(&port, "/healthz").0.as_str(), unsaved()), ("HTTP/1.1 200 OK", 0.0));
    assert_eq!(fault(), Value::Null);
    assert!(!status().contains("NOT SAVED"), "{}", status());
    home.wait_until_saved(A, &daemon);
    assert!(daemon.stop().success());
}

#[test]
fn wrong_requests_are_refused() {
    let home = Home::new();
    let (port, daemon) = start(&home, &[]);
    let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "a".repeat(20_000));
    let rows: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        (b"DELETE /healthz HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (long.as_bytes(), "431 Request Header Fields Too Large"),
    ];
    for (request, status) in rows {
        let reply = reply(&port, request);
        let shown = request[..request.len().min(60)].escape_ascii();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{shown}: {reply}");
        let body = reply.split_once("\r\n\r\n").expect("a head").1;
        assert_eq!(body.is_empty(), request.starts_with(b"HEAD"), "{shown}: {reply}");
    }
    assert!(!daemon.log().contains("WARN") && !daemon.log().contains("ERROR"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn hostile_clients_block_nobody() {
    let home = Home::new();
    let (port, daemon) = start(&home, &[]);
    let idle: Vec<_> = (0..200).map(|_| connect(&port)).collect();
    let begin = Instant::now();
    parse(&get(&port, "/metrics").1);
    assert!(begin.elapsed() < Duration::from_secs(3), "idle clients: {:?}", begin.elapsed());
    // Slow clients send a byte from time to time. Others disconnect early, or do not read.
    let mut slow: Vec<_> = (0..100).map(|_| connect(&port)).collect();
    for _ in 0..5 {
        for stream in &mut slow {
            // It may have been evicted.
            let _ = stream.write_all(b"G");
        }
        let mut early = connect(&port);
        let _ = early.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        drop(early);
        let mut garbage = connect(&port);
        let _ = garbage.write_all(&[0xff; 100_000]);
        parse(&get(&port, "/metrics").1);
    }
    home.wire.send(login_frame(A).as_bytes());
    home.wait_until_mapped(A, &daemon);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("its files").count();
    assert!(open < 100, "{open} files are open");
    // The newest have a slot, and lose it at the time limit.
    let mut last = slow.pop().expect("there are some");
    let end = last.read_to_end(&mut Vec::new());
    let waits = end.is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!waits && begin.elapsed() < PATIENCE, "a slow client keeps its slot");
    drop(idle);
    assert!(daemon.stop().success());
}

#[test]
fn a_passed_socket_is_identified_by_its_name() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    fs::write(at("config.toml"), "").expect("a file");
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(program().get_program()).args(["run", "--dry-run"]);
    command.args(["--listen", &Wire::unix(at("log")).to_string()]);
    command.arg("--config").arg(at("config.toml")).arg("--control").arg(at("control"));
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "metrics");
    command.stdin(Stdio::from(OwnedFd::from(listener))).stderr(Stdio::null());
    let mut process = Process::spawn(&mut command);
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it is open");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    parse(text.split_once("\r\n\r\n").expect("a head").1);
    assert!(process.stop().success());
}

#[test]
fn wrong_addresses_are_refused_at_the_start() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("inet:{}", listener.local_addr().expect("it is bound"));
    for (address, expected) in [
        ("unix:/run/metrics", "write inet:HOST:PORT"),
        ("inet:9475", "write inet:HOST:PORT"),
        (&taken, "another program uses this port"),
        ("inet:192.0.2.1:9475", "this host does not have that address"),
    ] {
        let mut daemon = home.spawn(&["--metrics", address]);
        assert!(!daemon.wait().success());
        daemon.wait_until_logged(expected);
    }
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let name = regex::Regex::new("pop_before_smtp_[a-z0-9_]+").expect("a pattern");
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    let home = Home::new();
    let (port, daemon) = start(&home, &[]);
    let exported = names(&get(&port, "/metrics").1);
    let at = |path: &str| format!("{ROOT}/{path}");
    let file = |path: &str| fs::read_to_string(at(path)).expect(path);
    let alerts = file("deploy/monitoring/alerts.yml");
    let dashboard = file("deploy/monitoring/grafana-dashboard.json");
    for text in [&alerts, &dashboard, &file("deploy/guide/monitoring.md")] {
        let unknown: Vec<_> = names(text).difference(&exported).cloned().collect();
        assert!(unknown.is_empty(), "not exported: {unknown:?}");
    }
    let unseen: Vec<_> = exported.difference(&names(&dashboard)).cloned().collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");

    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    let text = |value: &serde_json::Value| value.as_str().is_some_and(|text| !text.is_empty());
    let (mut ids, mut queries) = (BTreeSet::new(), Vec::new());
    for panel in panels {
        assert!(text(&panel["title"]) && text(&panel["description"]), "{panel}");
        assert!(text(&panel["fieldConfig"]["defaults"]["unit"]), "{panel}");
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
            queries.push(serde_json::json!({ "record": "dashboard", "expr": query }));
        }
    }
    // promtool reads them as rules; JSON is YAML.
    let queries = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": queries }] });
    fs::write(home.at("queries.yml"), queries.to_string()).expect("a file");
    for arguments in [
        ["check", "rules", "--lint=none", &home.at("queries.yml").display().to_string()],
        ["check", "rules", "--lint-fatal", &at("deploy/monitoring/alerts.yml")],
        ["test", "rules", "--", &at("tests/monitoring/alerts_test.yml")],
    ] {
        let checked = promtool().args(arguments).output().expect("promtool runs");
        assert!(checked.status.success(), "{checked:?}");
    }
    assert!(daemon.stop().success());
}
