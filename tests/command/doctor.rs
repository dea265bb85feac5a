//! `doctor` with the real programs around the daemon: a sound set-up, and one fault at a time.
//!
//! - **Promise**: where a finding has a fix for a restriction, the test applies it, and then
//!   Postfix relays.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::network;
use crate::support::postfix::Session;
use crate::support::site::{By, CLIENT, OTHER, Site};
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually};

const USUAL: &str =
    "permit_mynetworks, permit_sasl_authenticated, CHECK, reject_unauth_destination";
const LOOKUP: &str =
    "permit_mynetworks, permit_sasl_authenticated, permit_auth_destination, CHECK, reject";

#[test]
fn sound_setup_has_no_findings() {
    for (by, restrictions) in [(By::Map, USUAL), (By::Policy, LOOKUP), (By::Socketmap, LOOKUP)] {
        let site = Site::start(by, restrictions);
        site.log_in();
        if by == By::Map {
            eventually("it is published", PATIENCE, || {
                fs::read_to_string(site.at("clients")).is_ok_and(|text| text.contains(CLIENT))
            });
        }
        site.postfix.start();
        assert_eq!(site.relays(), [250, 250, 554, 554], "{by:?}");
        site.is_sound();
        let text = String::from_utf8(site.run(&[]).stdout).expect("text");
        assert!(text.contains("\n0 problems, 0 notes, "), "{text}");
        assert!(text.contains("messages of 900 bytes arrive whole"), "{text}");
        assert!(!site.daemon().query(OTHER) && site.daemon().authorised().len() == 1);
    }
}

/// The sample of the guide.
#[test]
fn guide_shows_a_finding() {
    let site = Site::start(By::Map, USUAL);
    site.postfix.start();
    site.set("smtpd_relay_restrictions", "permit_mynetworks, defer_unauth_destination");
    let list = format!("check_client_access {}, reject_unauth_destination", site.table());
    site.set("smtpd_recipient_restrictions", &list);
    shows_in_guide(&site);
}

/// Asserts that the sample in the guide is what `doctor` prints.
fn shows_in_guide(site: &Site) {
    let text = String::from_utf8(site.run(&[]).stdout).expect("text");
    let config = format!(" -c {}", site.postfix.config().display());
    let map = site.at("clients").display().to_string();
    let text = text.replace(&config, "").replace(&map, "/var/lib/pop-before-smtp/clients");
    let guide = include_str!("../../deploy/guide/troubleshooting.md");
    let (_, sample) = guide.split_once("```text\n").expect("the first block");
    let (sample, _) = sample.split_once("```\n").expect("a block ends");
    assert!(text.contains(sample), "the guide has:\n{sample}doctor prints:\n{text}");
}

/// Faults of a socket.
#[test]
fn sockets() {
    let site = Site::start(By::Policy, LOOKUP);
    site.log_in();
    site.postfix.start();
    let socket = site.postfix.queue().join("pop-before-smtp/lookup");
    let line = |call: &str| format!("permit_mynetworks, check_policy_service {call}, reject");
    let relay = "smtpd_relay_restrictions";
    let relative = "unix:pop-before-smtp/lookup";

    // All recipients would get 451 while the daemon is down.
    site.set(relay, &line(relative));
    site.finds(
        "problem",
        "451 while the policy",
        "default_action is not DUNNO",
        "default_action=DUNNO",
    );
    site.set(relay, &format!("permit_auth_destination, {}", line(relative)));
    site.finds(
        "note",
        "451 while the policy",
        "recipients in other domains get 451",
        "default_action=DUNNO",
    );
    site.set("smtpd_policy_service_default_action", "DUNNO");
    site.is_sound();

    // Absolute path: a chrooted smtpd does not find it.
    site.set(relay, &line(&format!("unix:{}", socket.display())));
    let not_found = "which is chrooted, does not find the policy";
    site.finds("problem", not_found, "leads it to", &format!("{relative}, timeout"));
    site.set(relay, &line("unix:/pop-before-smtp/lookup"));
    site.finds(
        "problem",
        "does not find the policy",
        "leads it to /pop-before-smtp/lookup",
        relative,
    );

    // Without permission for Postfix.
    site.set(relay, &line(relative));
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).expect("a mode");
    site.finds(
        "problem",
        "postfix cannot connect",
        "Permission denied",
        ",group=postfix after unix:",
    );
    fs::set_permissions(&socket, Permissions::from_mode(0o660)).expect("a mode");
    let place = socket.parent().expect("a directory");
    fs::set_permissions(place, Permissions::from_mode(0o700)).expect("a mode");
    site.finds("problem", "postfix cannot connect", "Permission denied", "chgrp postfix");
    fs::set_permissions(place, Permissions::from_mode(0o750)).expect("a mode");
    site.is_sound();

    // Outside of every chroot.
    let site = Site::start(By::Outside, LOOKUP);
    site.set("smtpd_policy_service_default_action", "DUNNO");
    let finding = site.finds("problem", not_found, "leads it to", "install -d");
    assert!(finding["fix"].to_string().contains("unix:pop-before-smtp/policy"), "{finding}");
}

/// Faults of the table.
#[test]
fn tables() {
    let mut site = Site::start(By::Map, USUAL);
    site.log_in();
    site.postfix.start();
    site.wait_for_reply(250, "at first");
    let path = site.at("clients").display().to_string();
    let relay = "smtpd_relay_restrictions";
    // proxymap does not run as root.
    site.set(relay, &format!("check_client_access proxy:hash:{path}, reject_unauth_destination"));
    site.is_sound();
    fs::set_permissions(site.dir.path(), Permissions::from_mode(0o700)).expect("a mode");
    site.wait_for_reply(451, "a proxied table that proxymap cannot read");
    site.finds("problem", "postfix cannot read", "proxymap opens it as postfix", "chmod o+x");
    fs::set_permissions(site.dir.path(), Permissions::from_mode(0o755)).expect("a mode");
    fs::set_permissions(format!("{path}.db"), Permissions::from_mode(0o600)).expect("a mode");
    site.finds("problem", "postfix cannot read", "451", "chmod o+r");
    // smtpd opens tables as root.
    site.set(relay, &format!("check_client_access hash:{path}, reject_unauth_destination"));
    site.is_sound();

    let before = fs::read(format!("{path}.db")).expect("the table");
    fs::write(format!("{path}.db"), "not a table").expect("written");
    site.finds("problem", "cannot be read", "451", "restart");
    let empty = site.at("empty");
    fs::write(&empty, "").expect("written");
    let postmap = Command::new("postmap")
        .arg("-c")
        .arg(site.postfix.config())
        .arg(format!("hash:{}", empty.display()))
        .stderr(Stdio::null())
        .status();
    assert!(postmap.expect("postmap").success());
    fs::copy(site.at("empty.db"), format!("{path}.db")).expect("copied");
    site.finds("problem", "was not written by the daemon", "_pbs_generation_", "start the daemon");
    fs::write(format!("{path}.db"), before).expect("written");
    site.is_sound();

    // An older generation is restored.
    let old = fs::read(format!("{path}.db")).expect("the table");
    assert!(site.daemon().command(&["allow", "198.51.100.9"]).status.success());
    eventually("it is published", PATIENCE, || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("198.51.100.9"))
    });
    site.is_sound();
    fs::write(format!("{path}.db"), old).expect("written");
    site.finds("problem", "the daemon has published generation", "older file", "restart");

    assert!(site.daemon.take().expect("it runs").stop().success());
    fs::remove_file(format!("{path}.db")).expect("removed");
    let findings = site.doctor(&[]);
    findings.must("problem", "the daemon does not answer", "no login counts", "start");
    findings.must("problem", "no compiled file", "451", "postfix reload");
    // Commands that would make Postfix answer 451 fail before they change anything.
    site.set(relay, "permit_mynetworks, reject_unauth_destination");
    let finding = site.finds("problem", "does not query pop-before-smtp", "", "postmap -c ");
    let script = finding["fix"].as_str().expect("a text");
    let done = Command::new("sh").args(["-c", script]).output().expect("a shell");
    assert!(!done.status.success(), "{done:?}");
    let now = fs::read_to_string(site.postfix.config().join("main.cf")).expect("main.cf");
    assert!(!now.contains("check_client_access"), "{now}");
}

/// Settings that refuse only some clients, as devices often are, or refuse them late.
#[test]
fn devices() {
    let site = Site::start(By::Map, USUAL);
    site.log_in();
    site.postfix.start();
    for (setting, value, level, what, why, fix) in [
        ("smtpd_tls_security_level", "encrypt", "note", "over TLS only", "530", "otherwise: "),
        (
            "smtpd_helo_restrictions",
            "permit_mynetworks, reject_non_fqdn_helo_hostname",
            "note",
            "smtpd_helo_restrictions has `reject_non_fqdn_helo_hostname` before",
            "devices that say HELO",
            " -e 'smtpd_helo_restrictions = permit_mynetworks, check_client_access",
        ),
        (
            "smtpd_sender_restrictions",
            "reject_sender_login_mismatch",
            "note",
            "smtpd_sender_restrictions has `reject_sender_login_mismatch` before",
            "has not used SMTP AUTH",
            " -e 'smtpd_sender_restrictions = check_client_access",
        ),
        (
            "smtpd_data_restrictions",
            "permit_mynetworks, reject",
            "problem",
            "smtpd_data_restrictions refuses every client with `reject`",
            "when the client sends the message",
            " -e 'smtpd_data_restrictions = permit_mynetworks, check_client_access",
        ),
    ] {
        site.is_sound();
        site.set(setting, value);
        site.carry_out(&site.finds(level, what, why, fix));
        let findings = site.doctor(&[]).list.to_string();
        assert!(!findings.contains(setting), "{findings}");
    }
}

/// A login that the configuration refuses is not said to be none.
#[test]
fn refused_logins_are_counted() {
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let forward = |wire: &Wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional);
    let site = Site::with(dir, &wire, forward, By::Map, USUAL, &["--users", "ann"]);
    site.send_login();
    eventually("it is refused", PATIENCE, || {
        let status = site.daemon().command(&["status", "--json"]);
        String::from_utf8_lossy(&status.stdout).contains("\"refused_by_rule\":1")
    });
    let why = "Logins have arrived, and the configuration or the operator refuses them";
    site.finds("note", "no login has counted", why, "pop-before-smtp test");
}

/// Where the daemon is PID 1, as in an image with one program, the rest of the host is elsewhere.
#[test]
fn in_a_container_only_the_daemon_is_examined() {
    let dir = directory();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_pop-before-smtp")]);
    command.args([
        "doctor",
        "--config",
        "/dev/null",
        "--dry-run",
        "--listen",
        "udp:127.0.0.1:5514",
    ]);
    command.arg("--control").arg(dir.path().join("control.sock"));
    let output = command.output().expect("unshare can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("note    run in a container\n"), "{text}{output:?}");
    assert!(text.contains("problem the daemon does not answer"), "{text}");
    assert!(text.contains("\n1 problem, ") && !text.contains("smtpd"), "{text}");
}

/// A forwarder that takes away the messages of one program.
#[test]
fn a_program_that_is_filtered() {
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let without_dovecot = |wire: &Wire| {
        let socket = wire.to_string().replace("unix:", "");
        let rules = format!(
            ":programname, isequal, \"dovecot\" stop\n$ModLoad omuxsock\n$OMUxSockSocket \
             {socket}\n*.* :omuxsock:\n"
        );
        Forwarder::start_with(Program::Rsyslog, &rules)
    };
    let site = Site::with(dir, &wire, without_dovecot, By::Map, USUAL, &["--daemon", "courier"]);
    let findings = site.doctor(&[]);
    findings.must(
        "problem",
        "login lines of dovecot do not arrive (program `dovecot`, facility mail)",
        "Messages of another program to the same facility do",
        "grep -rn 'dovecot'",
    );
    let courier = findings.all().find(|finding| {
        finding["what"].as_str().is_some_and(|what| what.starts_with("login lines arrive: courier"))
    });
    assert!(courier.is_some_and(|finding| finding["level"] == "ok"), "{:#}", findings.list);
    assert!(site.daemon().authorised().is_empty(), "probes authorise nobody");
}

/// Faults on the path from the log to the daemon.
#[test]
fn forwarders() {
    // One that sends elsewhere.
    let (dir, elsewhere) = (directory(), directory());
    let wire = Wire::unix(dir.path().join("log.sock"));
    let other = Wire::unix(elsewhere.path().join("log.sock"));
    let _receiver = other.bind();
    let start = |wire: &Wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional);
    let site = Site::with(dir, &wire, |_| start(&other), By::Map, USUAL, &[]);
    site.finds("problem", "do not reach", "No login can count", "rsyslogd -N1");
    let nowhere = site.at("no-log");
    let findings = site.doctor(&["--log-socket", nowhere.to_str().expect("text")]);
    findings.must("problem", "no-log: No such file", "no syslog daemon runs here", "rsyslog");

    // One that filters, and popa3d logs to daemon.
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let mail = |wire: &Wire| Forwarder::selecting("mail.*", wire);
    let site = Site::with(dir, &wire, mail, By::Map, USUAL, &["--daemon", "popa3d"]);
    site.finds(
        "problem",
        "does not deliver: daemon",
        "Logins of popa3d are logged there",
        "daemon",
    );

    // The same where only Dovecot counts.
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let site = Site::with(dir, &wire, mail, By::Map, USUAL, &[]);
    site.finds("note", "does not deliver: daemon", "popa3d logs to daemon", "daemon");

    // One that does not deliver the only facility accepted for a mail daemon.
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let options = ["--daemon", "popa3d", "--facility", "popa3d=daemon"];
    let site = Site::with(dir, &wire, mail, By::Map, USUAL, &options);
    let finding = site.finds("problem", "does not deliver: daemon", "popa3d", "daemon");
    assert!(!finding["what"].to_string().contains("mail"), "{finding}");

    // One with two rules, as after an upgrade that left an old file in place.
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let twice = |wire: &Wire| {
        let socket = wire.to_string().replace("unix:", "");
        let rule = |selector: &str| format!("$OMUxSockSocket {socket}\n{selector} :omuxsock:\n");
        let rules = "$ModLoad omuxsock\n".to_owned() + &rule("*.*") + &rule("mail.*");
        Forwarder::start_with(Program::Rsyslog, &rules)
    };
    let site = Site::with(dir, &wire, twice, By::Map, USUAL, &["--daemon", "popa3d"]);
    let finding = site.finds("problem", "more than once: mail", "counted twice", "rsyslog.d");
    assert!(!finding["what"].to_string().contains("daemon"), "{finding}");

    // One whose address is not allowed.
    let (dir, wire) = (directory(), Wire::udp());
    let site = Site::with(dir, &wire, start, By::Map, USUAL, &["--allow-from", "192.0.2.0/24"]);
    site.finds(
        "problem",
        "allow-from does not allow the forwarder",
        "rejects them",
        "allow-from = [",
    );
    site.finds(
        "problem",
        "frames from senders that allow-from does not allow",
        "do not count",
        "allow-from",
    );
}

/// `mynetworks`, and services with their own restrictions.
#[test]
fn networks_and_services() {
    let site = Site::start(By::Map, USUAL);
    site.log_in();
    site.postfix.start();
    for (networks, level, what) in [
        ("0.0.0.0/0", "problem", "contains 0.0.0.0/0: anyone can relay"),
        ("127.0.0.0/8 [::]/0", "problem", "contains ::/0: anyone"),
        ("198.0.0.0/8", "note", "a wide public network"),
    ] {
        site.set("mynetworks", networks);
        // The client is excluded from the next reload on; the daemon keeps running.
        site.finds(level, what, "", "mynetworks");
    }
    site.set("mynetworks", &format!("127.0.0.0/8 {}", site.table()));
    site.finds("problem", "mynetworks names hash:", "", "check_client_access");
    site.set("mynetworks", "127.0.0.0/8 10.0.0.0/8");
    site.is_sound();

    site.set("smtpd_client_restrictions", "reject_rbl_client dynamic.example.org");
    site.finds("note", "has `reject_rbl_client dynamic.example.org` before", "dynamic", " -e '");
    site.set("smtpd_client_restrictions", "");

    site.postfix.add(
        "master.cf",
        "127.0.0.1:1 inet n - n - - smtpd\n  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n",
    );
    let own = site.finds(
        "note",
        "127.0.0.1:1/inet has its own restrictions",
        "No login authorises relaying",
        " -P '127.0.0.1:1/inet/smtpd_relay_restrictions=permit_sasl_authenticated,check_client_access",
    );
    assert!(own["why"].to_string().contains("`reject` refuses"), "{own}");

    site.set("smtpd_relay_restrictions", "permit_mynetworks");
    site.finds(
        "problem",
        "neither smtpd_relay_restrictions nor",
        "open relay",
        "defer_unauth_destination",
    );
    fs::write(site.at("config.toml"), "grace = '30d'\n").expect("written");
    site.finds("problem", "configuration: grace: longer than 7 days", "does not start", "30m");
    let text = String::from_utf8(site.run(&[]).stdout).expect("text");
    assert!(text.starts_with("problem configuration: grace"), "{text}");
    assert!(text.contains(" -e 'smtpd_relay_restrictions = "), "{text}");
}

/// A client that logs in by IPv6 and can send by IPv4 only.
#[test]
fn address_families() {
    const ADDRESS: &str = "2001:db8:1:2:3:4:5:6";
    network::enter();
    network::ip(&format!("-6 address add {ADDRESS}/128 dev lo nodad"));
    let dir = directory();
    let wire = Wire::unix(dir.path().join("log.sock"));
    let forward = |wire: &Wire| Forwarder::start(Program::Rsyslog, wire, Form::Traditional);
    // All clients of this network are addresses of this host.
    let options = ["--exclude", "loopback"];
    let site = Site::with(dir, &wire, forward, By::Map, USUAL, &options);
    site.postfix.add("master.cf", "smtp inet n - n - - smtpd\n");
    site.set("inet_interfaces", "all");
    site.set("inet_protocols", "ipv4");
    let _imap = TcpListener::bind("[::]:143").expect("a port");
    assert!(site.daemon().command(&["allow", ADDRESS]).status.success());
    eventually("it is published", PATIENCE, || {
        fs::read_to_string(site.at("clients")).is_ok_and(|text| text.contains(ADDRESS))
    });
    site.postfix.start();
    let reply = |client: &str| {
        let session =
            network::connect(client, 25).and_then(|stream| Session::over(stream, PATIENCE));
        session.map_or(0, |mut session| session.rcpt("someone@elsewhere.example").code)
    };
    assert_eq!([reply(ADDRESS), reply(CLIENT)], [0, 554]);
    let what = "the mail daemons listen on IPv6, but Postfix does not";
    site.carry_out(&site.finds(
        "note",
        what,
        "refused when it sends by IPv4",
        "inet_protocols = all",
    ));
    assert_eq!([reply(ADDRESS), reply(CLIENT)], [250, 554]);
    let list = site.doctor(&[]).list.to_string();
    assert!(list.contains("listen on the same address families"), "{list}");
}
