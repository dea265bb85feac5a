//! The real Exim of Debian asks the daemon, with the files of deploy/exim: the replies to RCPT.
//!
//! - **Layers**: Debian's own configuration, split into files, and one that is a single file.
//! - **Not here**: port 25, the host's users and /etc/exim4: Exim runs in a root and a network of
//!   its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, program};
use crate::support::maild::{Setup, start_maild};
use crate::support::postfix::Session;
use crate::support::process::Process;
use crate::support::site::Findings;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually, install, network, within};

const CLIENT: &str = "198.51.100.7";
const CLIENT_6: &str = "2001:db8::7";
const STRANGER: &str = "198.51.100.8";
const STRANGER_6: &str = "2001:db8::8";
const FAR: &str = "someone@elsewhere.example";
const OWN: &str = "joe@rig.test";
const PORT: u16 = 2525;

/// Exim's user and group, and the daemon's user, who is in that group.
const EXIM: u32 = 989;
const USER: u32 = 988;

const ACL: &str = include_str!("../../deploy/exim/pop-before-smtp.acl");
/// The socket as the files name it.
const SOCKET: &str = "/run/pop-before-smtp/policy";

/// A configuration of Exim: its files, and what makes it before Exim starts.
struct Config {
    files: Vec<(&'static str, String)>,
    make: &'static str,
}

/// Debian's configuration (update-exim4.conf(8)), and whether it is split into files.
fn debian(is_split: bool) -> (&'static str, String) {
    let answers = "dc_eximconfig_configtype='internet'\ndc_other_hostnames='rig.test'\n\
        dc_local_interfaces=''\ndc_readhost=''\ndc_relay_domains=''\ndc_minimaldns='false'\n\
        dc_relay_nets=''\ndc_smarthost=''\nCFILEMODE='644'\n\
        dc_hide_mailname=''\ndc_mailname_in_oh='true'\ndc_localdelivery='mail_spool'\n";
    ("etc/exim4/update-exim4.conf.conf", format!("{answers}dc_use_split_config='{is_split}'\n"))
}

fn split() -> Config {
    let files = vec![
        debian(true),
        (
            "etc/exim4/conf.d/main/00_pop-before-smtp",
            include_str!("../../deploy/exim/main-pop-before-smtp").into(),
        ),
        (
            "etc/exim4/conf.d/acl/50_pop-before-smtp",
            include_str!("../../deploy/exim/acl-pop-before-smtp").into(),
        ),
    ];
    Config { files, make: "update-exim4.conf" }
}

/// Debian's template, with the line that the README adds.
fn template() -> Config {
    let make = r"sed -zi 's,\n  require\n    message = relay not permitted\n,\n  .include /etc/exim4/pop-before-smtp.acl\n&,' \
        /etc/exim4/exim4.conf.template && update-exim4.conf";
    Config { files: vec![debian(false)], make }
}

/// A single file, as the README describes it.
fn single() -> Config {
    let readme = include_str!("../../deploy/exim/README.md");
    let (_, acl) = readme.split_once("```text\nacl_check_rcpt:\n").expect("it shows the ACL");
    let (acl, _) = acl.split_once("```").expect("a block ends");
    let text = format!(
        "domainlist local_domains = rig.test\ndomainlist relay_to_domains =\n\
         hostlist relay_from_hosts = 127.0.0.1 : ::::1\nprimary_hostname = rig.test\n\
         acl_smtp_rcpt = acl_check_rcpt\nbegin acl\nacl_check_rcpt:\n{acl}\
         begin routers\nall:\n  driver = accept\n  transport = none\n\
         begin transports\nnone:\n  driver = appendfile\n  file = /dev/null\n"
    );
    Config { files: vec![("etc/exim4/exim4.conf", text)], make: "true" }
}

/// Exim, and the daemon that it asks.
struct Site {
    exim: Process,
    /// What both see: the sockets, and Exim's log.
    shared: TempDir,
    home: TempDir,
    private: TempDir,
    wire: Wire,
}

impl Site {
    /// Starts Exim in a new network of the calling thread. The group Debian-exim exists for this
    /// thread and its children alone.
    fn start(config: Config) -> Self {
        network::enter();
        let [shared, home, private] = [directory(), directory(), directory()];
        be_a_host_of_exim(private.path());
        // Exim writes its log, the daemon its socket.
        for (dir, group) in [(&shared, EXIM), (&home, EXIM)] {
            chown(dir.path(), Some(USER), Some(group)).unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        }
        let wire = Wire::unix(home.path().join("log.sock"));
        let here = shared.path().display();
        let socket = format!("{here}/policy");
        let users = "root:x:0:0::/root:/bin/bash\nuucp:x:10:10::/tmp:/bin/false\nmail:x:8:8::/var/mail:/bin/false\n\
            Debian-exim:x:989:989::/var/spool/exim4:/bin/false\njoe:x:1000:1000::/tmp:/bin/bash\n";
        let groups = "root:x:0:\nadm:x:4:\nmail:x:8:\nDebian-exim:x:989:\njoe:x:1000:\n";
        let mut files = vec![
            ("etc/passwd", users.to_owned()),
            ("etc/group", groups.to_owned()),
            ("etc/aliases", String::new()),
            ("etc/mailname", "rig.test\n".to_owned()),
            ("etc/exim4/pop-before-smtp.acl", ACL.replace(SOCKET, &socket)),
        ];
        files.extend(config.files);
        let make = config.make;
        let start = format!(
            "install -d -o Debian-exim -g Debian-exim /var/spool/exim4 /run/exim4 /syslog/log\n\
             install -d /var/lib/exim4 /var/log\nln -sfn /syslog/log /var/log/exim4\n\
             mkdir -p {here} && mount --bind /syslog {here}\n{make} || exit 1\nexim4 -bd -oX {PORT} || exit 1\n"
        );
        let setup = Setup { name: "exim", files, start, ports: &[PORT] };
        let exim = start_maild(private.path(), &setup, shared.path());
        let mut site = Self { exim, shared, home, private, wire };
        let up = within(PATIENCE, || {
            site.exim.ended().is_some() || network::connect(CLIENT, PORT).is_ok()
        });
        assert!(up && site.exim.ended().is_none(), "Exim does not listen: {}", site.log());
        site
    }

    fn socket(&self) -> PathBuf {
        self.shared.path().join("policy")
    }

    fn options(&self) -> Vec<String> {
        let policy = format!("unix:{},group=Debian-exim,mode=0660", self.socket().display());
        let listen = self.wire.to_string();
        // Clients have addresses of this network, which are its host's own.
        let options = ["--listen", &listen, "--policy", &policy, "--exclude", "loopback"];
        options.map(str::to_owned).into()
    }

    /// Starts the daemon, with these options.
    fn daemon(&self, more: &[&str]) -> Daemon {
        let mut options = self.options();
        options.extend(more.iter().map(|&option| option.to_owned()));
        let mut daemon = Daemon::spawn_as((USER, EXIM), self.home.path(), &options);
        daemon.wait_until_ready();
        let socket = fs::metadata(self.socket()).expect("the socket");
        assert_eq!((socket.gid(), socket.mode() & 0o777), (EXIM, 0o660));
        daemon
    }

    fn login(&self, daemon: &Daemon, address: &str) {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<joe>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
        );
        self.wire.send(frame.as_bytes());
        daemon.wait_until_authorised(address);
    }

    /// Returns the root of Exim, as this process sees it.
    fn root(&self) -> PathBuf {
        let id = self.exim.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        format!("/proc/{}/root", children.trim()).into()
    }

    /// Runs `doctor` on a host with this Exim and without Postfix.
    fn doctor(&self) -> Findings {
        let bin = self.home.path().join("bin");
        let exim = format!("#!/bin/sh\nexec chroot {} exim4 \"$@\"\n", self.root().display());
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("text"), exim).unwrap();
        install(bin.join("text"), bin.join("exim4"));
        let mut command = program();
        let path = std::env::var("PATH").expect("a PATH");
        command.env("PATH", format!("{}:{path}", bin.display())).args(["doctor", "--json"]);
        for (option, file) in [("config", "config.toml"), ("control", "control.sock")] {
            command.arg(format!("--{option}")).arg(self.home.path().join(file));
        }
        Findings::of(&command.args(self.options()).output().expect("it can be started"))
    }

    fn log(&self) -> String {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let started = self.private.path();
        let log = self.shared.path().join("log");
        read(started.join("errors")) + &read(log.join("mainlog")) + &read(log.join("paniclog"))
    }
}

/// Adds Exim's user and group to those that this thread and its children see, and hides Postfix.
fn be_a_host_of_exim(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace can be made");
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).status().expect("mount can be started");
        assert!(done.success(), "mount {arguments:?}");
    };
    mount(&["--make-rprivate", "/"]);
    for (name, line) in [
        ("passwd", format!("Debian-exim:x:{EXIM}:{EXIM}::/:/bin/false\n")),
        ("group", format!("Debian-exim:x:{EXIM}:\n")),
    ] {
        let (real, ours) = (format!("/etc/{name}"), dir.join(name));
        fs::write(&ours, fs::read_to_string(&real).unwrap() + &line).unwrap();
        mount(&["--bind", &ours.display().to_string(), &real]);
    }
    mount(&["--bind", "/dev/null", "/usr/sbin/postconf"]);
}

/// Opens a session from this client.
fn session(client: &str) -> Session {
    let stream = network::connect(client, PORT).expect("Exim listens");
    Session::over(stream, PATIENCE).expect("Exim answers")
}

fn relay(client: &str) -> u16 {
    session(client).rcpt(FAR).code
}

fn relays_after_a_login(config: Config) {
    let site = Site::start(config);
    let mut daemon = site.daemon(&[]);
    for (client, stranger) in [(CLIENT, STRANGER), (CLIENT_6, STRANGER_6)] {
        let mut session = session(client);
        let refused = session.rcpt(FAR);
        assert_eq!(refused.code, 550, "{}\n{}", refused.text, site.log());
        assert!(refused.text.contains("relay not permitted"), "{}", refused.text);
        assert_eq!(session.rcpt(OWN).code, 250, "{}", site.log());
        site.login(&daemon, client);
        assert_eq!(session.rcpt(FAR).code, 250, "{client}: {}", site.log());
        assert_eq!(session.rcpt(OWN).code, 250);
        assert_eq!(session.rcpt("a|b%c@elsewhere.example").code, 550, "other rules decide");
        assert_eq!(relay(stranger), 550);
    }

    daemon.halt();
    let begun = Instant::now();
    let mut open = session(CLIENT);
    let reply = open.rcpt(FAR);
    assert_eq!(reply.code, 451, "{}", reply.text);
    assert!(reply.text.contains("try again later"), "{}", reply.text);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(open.rcpt(OWN).code, 250);
    daemon.signal(Signal::SIGCONT);
    eventually("it answers again", PATIENCE, || open.rcpt(FAR).code == 250);

    assert!(daemon.stop().success());
    for client in [CLIENT, CLIENT_6, STRANGER] {
        let mut session = session(client);
        assert_eq!(session.rcpt(FAR).code, 451, "{client} while the daemon is down");
        assert_eq!(session.rcpt(OWN).code, 250);
    }
    assert!(site.log().contains("pop-before-smtp does not answer"), "{}", site.log());
    let _daemon = site.daemon(&[]);
    assert_eq!([relay(CLIENT), relay(STRANGER)], [250, 550]);
}

#[test]
fn debians_split_configuration() {
    relays_after_a_login(split());
}

#[test]
fn debians_template() {
    relays_after_a_login(template());
}

#[test]
fn a_single_file() {
    relays_after_a_login(single());
}

/// The texts for limits and for other senders reach the client, and a message counts once.
#[test]
fn limits_and_senders() {
    let site = Site::start(split());
    let options = [
        "--sender=user",
        "--sender-domains=rig.test",
        "--sender-delimiter=+",
        "--sender-mismatch=reject",
    ];
    let daemon = site.daemon(&[&options[..], &["--messages-per-hour=2"]].concat());
    site.login(&daemon, CLIENT);
    let mut session = session(CLIENT);
    let reply = session.rcpt_from("eve@rig.test", FAR);
    assert_eq!(reply.code, 550, "{}", site.log());
    assert!(reply.text.starts_with("5.7.1 This sender is not the user"), "{}", reply.text);
    for message in 1..=2 {
        session.begin(OWN);
        for recipient in [FAR, FAR, "other@elsewhere.example", OWN] {
            assert_eq!(session.add(recipient).code, 250, "{message}: {recipient} {}", site.log());
        }
    }
    let reply = session.rcpt_from(OWN, FAR);
    assert_eq!(reply.code, 450, "{}", site.log());
    assert!(reply.text.starts_with("4.7.1 Limit of 2 messages per hour"), "{}", reply.text);
    assert_eq!(session.rcpt_from(OWN, OWN).code, 250, "mail to our own domain");
    let relayed = &daemon.list()[0];
    assert_eq!((&relayed["messages"], &relayed["recipients"]), (&2.into(), &4.into()), "{relayed}");
    assert_eq!(relay(STRANGER), 550);
}

#[test]
fn doctor_examines_exim() {
    let site = Site::start(split());
    let daemon = site.daemon(&[]);
    let found = site.doctor();
    let name = "acl_check_rcpt_pop_before_smtp";
    for what in [
        &format!("in {name}, before it refuses to relay") as &str,
        "Debian-exim can connect to",
        "policy answers",
    ] {
        assert!(found.has_ok(what), "{what}: {:#}", found.list);
    }
    assert!(!found.list.to_string().contains("ostfix"), "there is none: {:#}", found.list);

    let acl = site.root().join("etc/exim4/pop-before-smtp.acl");
    let text = fs::read_to_string(&acl).unwrap();
    let finds = |text: &str, what: &str, why: &str, fix: &str| {
        fs::write(&acl, text).unwrap();
        site.doctor().must("problem", what, why, fix);
    };
    let socket = site.socket().display().to_string();
    let moved = text.replace(&socket, "/run/elsewhere/policy");
    finds(
        &moved,
        "Exim asks at /run/elsewhere/policy",
        "answers at unix:",
        &format!("{{{socket}}}"),
    );
    let late = format!("require\n  domains = +local_domains\n{text}");
    finds(&late, "too late: after `require domains = +local_domains`", "in order", "before it");
    finds("", "Exim does not ask", &format!("{name} has no ${{readsocket{{{socket}}}"), "README");
    let unused = format!("accept\nunused:\n{text}");
    finds(&unused, "in an ACL that acl_smtp_rcpt =", "No login", "README");
    finds("warn\n  no_such = condition\n", "cannot read Exim's configuration", "could not", "-bV");
    fs::write(&acl, &text).unwrap();

    fs::set_permissions(site.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    site.doctor().must(
        "problem",
        "Debian-exim cannot connect to",
        "451",
        "SocketGroup=Debian-exim",
    );
    fs::set_permissions(site.shared.path(), fs::Permissions::from_mode(0o700)).unwrap();
    site.doctor().must("problem", "Debian-exim cannot connect to", "451", "chgrp Debian-exim");
    fs::set_permissions(site.shared.path(), fs::Permissions::from_mode(0o775)).unwrap();
    assert!(daemon.stop().success());
    site.doctor().must("problem", "policy does not exist", "Until then", "start");
}

/// Sends lines as they are, each after the reply to the last one, and returns the replies.
fn raw(client: &str, lines: &[String]) -> Vec<String> {
    let mut stream = BufReader::new(network::connect(client, PORT).expect("Exim listens"));
    let mut reply = |line: &str| {
        stream.get_mut().write_all(line.as_bytes()).expect("it reads");
        let mut reply = String::new();
        stream.read_line(&mut reply).expect("it answers");
        reply
    };
    assert!(reply("").starts_with("220"));
    lines.iter().map(|line| reply(&format!("{line}\r\n"))).collect()
}

/// No address adds an attribute to the request: a stranger never relays, and no request is malformed.
#[test]
fn addresses_add_no_lines() {
    let site = Site::start(split());
    let daemon = site.daemon(&[]);
    site.login(&daemon, CLIENT);
    let ends = [
        "\r",
        "\\\r",
        "\\n",
        "\\\\n",
        "\0",
        "\t",
        "\u{b}",
        "\u{85}",
        "\u{2028}",
        "${eval:10}",
        "=",
    ];
    let (mut asked, mut sent) = (0, 0);
    for (end, quote) in ends.into_iter().flat_map(|end| [(end, ""), (end, "\"")]) {
        let bad = format!("{quote}joe{end}client_address={CLIENT}{end}{end}{quote}");
        let from = format!("MAIL FROM:<{bad}@rig.test>");
        let to = format!("RCPT TO:<{bad}@elsewhere.example>");
        let (good_from, good_to) = (format!("MAIL FROM:<{OWN}>"), format!("RCPT TO:<{FAR}>"));
        for [from, to] in [[from, good_to], [good_from, to]] {
            let lines = ["HELO client.test".to_owned(), from, to];
            let replies = raw(STRANGER, &lines);
            assert!(!replies[2].starts_with("25"), "{lines:?}: {replies:?}\n{}", site.log());
            asked += usize::from(replies[2].contains("relay not permitted"));
            let replies = raw(CLIENT, &lines);
            assert!(!replies[2].starts_with("451"), "{lines:?}: {replies:?}\n{}", site.log());
            sent += usize::from(replies[2].starts_with("25"));
        }
    }
    // Exim refuses line feeds and NUL in commands, but its own rules may rewrite an address.
    for variable in ["$sender_address", "$local_part@$domain"] {
        let call = format!("${{sg{{{variable}}}{{[[:cntrl:]]}}{{?}}}}\\n");
        assert!(ACL.contains(&call), "{call}");
        let mut exim = Command::new("chroot");
        let text = call.replace(variable, "a\\nb\\r=\\td\\x7f");
        let output = exim.arg(site.root()).args(["exim4", "-be", &text]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a?b?=?d?\n\n", "{output:?}");
    }
    assert!(asked > 6 && sent > 6, "asked about {asked}, accepted {sent}");
    let status = daemon.command(&["status", "--json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!(status["lookups"][0]["broken"], 0, "{status}");
}
