//! The hooks of deploy/hooks, unchanged, with the real programs, in a network of their own: nft(8),
//! ipset(8), fail2ban, rspamd, nginx, curl. (CrowdSec: Debian's has no allowlists.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually, network, within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_pop-before-smtp");
const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
const C: &str = "198.51.100.9";
const V6: &str = "2001:db8:1:2:3:4:5:6";

/// A daemon in a private network, in which two addresses have logged in.
struct Site {
    home: Home,
    daemon: Daemon,
}

impl Site {
    fn start() -> Self {
        network::enter();
        let home = Home::new();
        let daemon = home.start(&[]);
        let site = Self { home, daemon };
        site.log_in(A);
        site.log_in(V6);
        site
    }

    fn log_in(&self, address: &str) {
        // A name that would end a line or a quoted text.
        let frame = login_frame(address).replace("<joe>", "<j\"; $(touch owned) '#{|}>");
        self.home.wire.send(frame.as_bytes());
        self.daemon.wait_until_authorised(address);
    }

    /// Lets a program find the hooks, pop-before-smtp and the control socket.
    fn prepare<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = std::env::var("PATH").expect("a PATH");
        let ours = Path::new(PROGRAM).parent().expect("a directory").display();
        command
            .env("PATH", format!("{ROOT}/deploy/hooks:{ours}:{path}"))
            .env("POP_BEFORE_SMTP_CONTROL", self.home.at("control.sock"))
            .current_dir(self.home.at(""))
    }

    /// Starts `follow` with these arguments.
    fn follow(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(format!("{ROOT}/deploy/hooks/follow"));
        Process::spawn(self.prepare(&mut command).args(arguments))
    }

    /// One more logs in, and the operator ends the grant of another.
    fn change(&self) {
        self.log_in(B);
        // Frames and commands arrive in different ways, so in any order.
        self.daemon.wait_until_authorised(B);
        assert!(self.daemon.command(&["revoke", A]).status.success());
    }

    /// Asserts that no text of a user was run.
    fn end_unharmed(self) {
        assert!(!self.home.at("owned").exists());
        assert!(self.daemon.stop().success());
    }
}

/// Runs a program and returns what it prints, or nothing if it fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let run = Command::new(program).args(arguments).output();
    let run = run.unwrap_or_else(|why| panic!("cannot start {program}: {why}; see tests/all"));
    if run.status.success() {
        String::from_utf8_lossy(&run.stdout).into_owned()
    } else {
        String::new()
    }
}

/// Waits until a set has exactly these elements, each with at most so many seconds left and no more
/// than a minute less.
fn has(what: &str, elements: impl Fn() -> Vec<(String, u64)>, expected: &[(&str, u64)]) {
    let matches = || {
        let mut found = elements();
        found.sort();
        found.len() == expected.len()
            && found.iter().zip(expected).all(|((address, left), (wanted, most))| {
                address == wanted && left <= most && left + 60 > *most
            })
    };
    eventually(&format!("{what}: {expected:?}"), PATIENCE, matches);
}

/// Returns the elements of a set of nft(8), with the seconds until they expire.
fn nft_set(name: &str) -> Vec<(String, u64)> {
    let text = output("nft", &["-j", "list", "set", "inet", "pop_before_smtp", name]);
    let Ok(set) = serde_json::from_str::<Value>(&text) else { return Vec::new() };
    let elements = set["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
    let element = |elem: &Value| {
        let elem = &elem["elem"];
        (elem["val"].as_str().unwrap().to_owned(), elem["expires"].as_u64().unwrap())
    };
    elements.iter().map(element).collect()
}

#[test]
fn nftables() {
    let site = Site::start();
    let follow = |site: &Site| site.follow(&["to-nftables"]);
    let mut hook = follow(&site);
    has("at the beginning", || nft_set("clients4"), &[(A, 1800)]);
    has("of the other family", || nft_set("clients6"), &[(V6, 1800)]);
    site.change();
    has("login and revocation", || nft_set("clients4"), &[(B, 1800)]);
    site.daemon.command(&["allow", B, "--for", "2h"]);
    has("a later end", || nft_set("clients4"), &[(B, 7200)]);
    let rule = "add chain inet pop_before_smtp input { type filter hook input priority 0; }
        add rule inet pop_before_smtp input ip saddr @clients4 tcp dport 25 accept";
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rule.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "a rule can refer to the set");
    // What happens while nobody follows is made up for.
    assert!(hook.stop().success());
    site.daemon.command(&["revoke", B]);
    site.log_in(C);
    let _hook = follow(&site);
    has("it follows again", || nft_set("clients4"), &[(C, 1800)]);
    site.end_unharmed();
}

#[test]
fn nftables_follows_a_daemon_that_restarts() {
    let site = Site::start();
    let _hook = site.follow(&["to-nftables"]);
    has("at the beginning", || nft_set("clients4"), &[(A, 1800)]);
    let Site { home, daemon } = site;
    assert!(daemon.stop().success());
    has("without a daemon nobody is listed", || nft_set("clients4"), &[]);
    let site = Site { daemon: home.start(&[]), home };
    has("it follows again", || nft_set("clients4"), &[(A, 1800)]);
    site.end_unharmed();
}

/// Returns the elements of a set of ipset(8), with the seconds until they expire.
fn ipset_set(name: &str) -> Vec<(String, u64)> {
    let text = output("ipset", &["save", name]);
    let elements = text.lines().filter_map(|line| line.strip_prefix(&format!("add {name} ")));
    let element = |line: &str| {
        let (address, left) = line.split_once(" timeout ").unwrap();
        (address.to_owned(), left.parse().unwrap())
    };
    elements.map(element).collect()
}

#[test]
fn ipset() {
    let site = Site::start();
    let mut hook = site.follow(&["to-ipset"]);
    has("at the beginning", || ipset_set("pop-before-smtp4"), &[(A, 1800)]);
    has("of the other family", || ipset_set("pop-before-smtp6"), &[(V6, 1800)]);
    site.change();
    has("login and revocation", || ipset_set("pop-before-smtp4"), &[(B, 1800)]);
    site.daemon.command(&["allow", B, "--for", "2h"]);
    has("a later end", || ipset_set("pop-before-smtp4"), &[(B, 7200)]);
    assert!(hook.stop().success());
    site.daemon.command(&["revoke", B]);
    site.log_in(C);
    let _hook = site.follow(&["to-ipset"]);
    has("it follows again", || ipset_set("pop-before-smtp4"), &[(C, 1800)]);
    assert_eq!(output("ipset", &["list", "-name"]), "pop-before-smtp4\npop-before-smtp6\n");
    site.end_unharmed();
}

/// Returns what a file says.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn rspamd() {
    let site = Site::start();
    let root = format!("{ROOT}/target/tools/rspamd");
    let libraries = format!("{root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/rspamd");
    let map = site.home.at("rspamd.map");
    let _hook = site.follow(&["to-file", "ADDRESS", map.to_str().unwrap()]);
    eventually("the map", PATIENCE, || text(&map) == format!("{A}\n{V6}\n"));
    let multimap = text(Path::new(&format!("{ROOT}/deploy/hooks/rspamd-multimap.conf")));
    let ours = multimap.replace("/var/lib/pop-before-smtp/rspamd.map", map.to_str().unwrap());
    assert_ne!(ours, multimap);
    let at = |name: &str| site.home.at(name).display().to_string();
    let configuration = format!(
        "options {{ filters = \"\"; pidfile = \"{}\"; url_tld = \"{}\"; map_watch_interval = 1s;
             disable_hyperscan = true; hs_cache_dir = \"{}\"; tempdir = \"{}\"; one_shot = true;
             dns {{ nameserver = [\"127.0.0.1\"]; }} }}
         logging {{ type = \"console\"; level = \"error\"; }}
         lua = \"{root}/usr/share/rspamd/rules/rspamd.lua\";
         modules {{ path = \"{root}/usr/share/rspamd/plugins/multimap.lua\"; }}
         worker {{ type = \"normal\"; bind_socket = \"127.0.0.1:11333\"; count = 1; }}
         actions {{ reject = 15; }}
         multimap {{ {ours} }}",
        at("rspamd.pid"),
        at("tld"),
        at(""),
        at("")
    );
    fs::write(site.home.at("tld"), "example\n").unwrap();
    fs::write(site.home.at("rspamd.conf"), configuration).unwrap();
    let share = format!("{root}/usr/share/rspamd");
    let mut command = Command::new(format!("{root}/usr/bin/rspamd"));
    command.env("LD_LIBRARY_PATH", &libraries).args(["-f", "-i", "-c"]).arg(at("rspamd.conf"));
    for (name, path) in [
        ("PLUGINSDIR", format!("{share}/plugins")),
        ("RULESDIR", format!("{share}/rules")),
        ("LUALIBDIR", format!("{share}/lualib")),
        ("SHAREDIR", share.clone()),
        ("CONFDIR", at("")),
        ("LOCAL_CONFDIR", at("")),
        ("DBDIR", at("")),
        ("RUNDIR", at("")),
    ] {
        command.arg(format!("--var={name}={path}"));
    }
    let _rspamd = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let mail = "From: a@example.org\nTo: b@example.org\nSubject: x\n\nhello\n";
    fs::write(site.home.at("mail"), mail).unwrap();
    let symbols = |client: &str| {
        let mut rspamc = Command::new(format!("{root}/usr/bin/rspamc"));
        rspamc.env("LD_LIBRARY_PATH", &libraries).args(["-h", "127.0.0.1:11333", "-i", client]);
        let run = rspamc.arg("symbols").arg(site.home.at("mail")).output().expect("rspamc");
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    let knows = |client: &str, expected: bool| {
        eventually(&format!("{client}: {expected}"), PATIENCE, || {
            let said = symbols(client);
            said.contains("Score:") && said.contains("POP_BEFORE_SMTP") == expected
        });
    };
    knows(A, true);
    knows(V6, true);
    knows(B, false);
    site.change();
    knows(B, true);
    knows(A, false);
    site.end_unharmed();
}

#[test]
fn nginx() {
    let site = Site::start();
    let program = format!("{ROOT}/target/tools/nginx/usr/sbin/nginx");
    let at = |name: &str| site.home.at(name).display().to_string();
    let (geo, conf) = (site.home.at("pop-before-smtp.geo"), at("nginx.conf"));
    let sample = text(Path::new(&format!("{ROOT}/deploy/hooks/nginx.conf")));
    let ours = sample.replace("/var/lib/pop-before-smtp/nginx.geo", geo.to_str().unwrap());
    assert_ne!(ours, sample);
    fs::write(&geo, "").unwrap();
    let configuration = format!(
        "user root; daemon off; pid {0}/nginx.pid; error_log {0}/nginx.log; events {{ }}
         http {{ access_log off; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2;
             fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;
             {ours}
             server {{ listen 198.51.100.1:8080; return 200 \"[$pop_before_smtp]\"; }} }}",
        at("")
    );
    fs::write(&conf, configuration).unwrap();
    let mut nginx = Process::spawn(Command::new(&program).args(["-c", &conf]));
    let shown = |client: &str| {
        let Ok(mut stream) = network::connect(client, 8080) else { return String::new() };
        let mut reply = String::new();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut reply);
        reply.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
    };
    eventually("nginx answers", PATIENCE, || shown(A) == "[0]");
    let reload = [&program, "-c", &conf, "-s", "reload"].map(str::to_owned);
    let mut arguments = vec!["to-file", "ADDRESS 1;", geo.to_str().unwrap()];
    arguments.extend(reload.iter().map(String::as_str));
    let mut hook = site.follow(&arguments);
    eventually("the first addresses", PATIENCE, || shown(A) == "[1]" && shown(B) == "[0]");
    assert_eq!(text(&geo), format!("{A} 1;\n{V6} 1;\n"));
    site.change();
    eventually("changes", PATIENCE, || shown(A) == "[0]" && shown(B) == "[1]");
    assert!(hook.stop().success());
    eventually("nobody, if nobody follows", PATIENCE, || {
        shown(B) == "[0]" && text(&geo).is_empty()
    });
    assert!(nginx.stop().success());
    site.end_unharmed();
}

#[test]
fn webhook() {
    let site = Site::start();
    let server = TcpListener::bind("198.51.100.1:8081").unwrap();
    // accept(2) obeys it too (socket(7), SO_RCVTIMEO).
    socket2::SockRef::from(&server).set_read_timeout(Some(PATIENCE)).unwrap();
    let _hook = site.follow(&["--events", "to-url", "http://198.51.100.1:8081/login"]);
    site.change();
    let mut events = Vec::new();
    while !events.contains(&format!("ended {A}")) {
        let (mut stream, _) = server.accept().unwrap();
        let (mut request, mut buffer) = (String::new(), [0; 4096]);
        // Headers and body: curl sends them at once or one after another.
        while !request.ends_with('}') {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "{request}");
            request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /login ") && head.contains("application/json"), "{head}");
        let event: Value = serde_json::from_str(body).unwrap();
        if event["event"] == "granted" {
            assert_eq!(event["user"], "j\"; $(touch owned) '#{|}");
        }
        let address = event["address"].as_str().unwrap_or_default();
        events.push(format!("{} {address}", event["event"].as_str().unwrap()));
    }
    for expected in [format!("granted {A}"), format!("granted {V6}"), format!("granted {B}")] {
        assert!(events.contains(&expected), "{expected}: {events:?}");
    }
    site.end_unharmed();
}

#[test]
fn fail2ban() {
    let site = Site::start();
    let root = format!("{ROOT}/target/tools/fail2ban");
    let at = |name: &str| site.home.at(name).display().to_string();
    for name in ["jail.d", "filter.d", "action.d"] {
        fs::create_dir_all(site.home.at("f2b").join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(site.home.at("f2b").join(name), text).unwrap();
    let sample = text(Path::new(&format!("{ROOT}/deploy/hooks/fail2ban.local")));
    write(
        "jail.d/pop-before-smtp.local",
        &sample.replace("/usr/local/bin/pop-before-smtp", PROGRAM),
    );
    write(
        "fail2ban.conf",
        "[Definition]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\n\
        dbfile = None\ndbpurgeage = 1d\n[Thread]\nstacksize = 0\n",
    );
    write("filter.d/smtp.conf", "[Definition]\nfailregex = ^\\s*failed from <HOST>$\n");
    write("action.d/none.conf", "[Definition]\nactionban = true\nactionunban = true\n");
    let log = at("mail.log");
    fs::write(&log, "").unwrap();
    write(
        "jail.conf",
        &format!(
            "[DEFAULT]\n[smtp]\nenabled = true\nfilter = smtp\naction = none\nlogpath = {log}\n\
             backend = polling\nmaxretry = 1\nbantime = 600\nfindtime = 600\n"
        ),
    );
    let mut command = Command::new("/usr/bin/python3");
    command
        .env("PYTHONPATH", format!("{root}/usr/lib/python3/dist-packages"))
        .arg(format!("{root}/usr/bin/fail2ban-server"))
        .args(["-f", "-c", &at("f2b"), "-s", &at("f2b.sock"), "-p", &at("f2b.pid"), "start"]);
    let log_file = fs::File::create(site.home.at("f2b.log")).unwrap();
    command.stdout(log_file.try_clone().unwrap()).stderr(log_file);
    let mut server = Process::spawn(site.prepare(&mut command));
    let said = || text(&site.home.at("f2b.log"));
    eventually("fail2ban runs", PATIENCE, || said().contains("Jail 'smtp' started"));
    let fail = |address: &str| {
        let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
        let now = output("date", &["+%Y-%m-%d %H:%M:%S"]);
        writeln!(file, "{} failed from {address}", now.trim()).unwrap();
    };
    fail(A);
    fail(C);
    let says = |text: String| {
        assert!(within(PATIENCE, || said().contains(&text)), "{text}: {}", said());
    };
    says(format!("Ban {C}"));
    says(format!("Ignore {A} by command"));
    assert!(!said().contains(&format!("Ban {A}")), "{}", said());
    server.stop();
    site.end_unharmed();
}
