//! The lines of deploy/postfix that name the map, unchanged, with the real Postfix: who may relay,
//! and where. (Those for policy and socketmap: tests/postfix/live.rs.)

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::postfix::{Postfix, Session};
use crate::support::story::login_frame;
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, directory, within};

const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";
const FAR: &str = "someone@elsewhere.example";

/// Postfix with its defaults (postconf -d smtpd_relay_restrictions), and an authorised client.
struct Site {
    postfix: Postfix,
    _daemon: Daemon,
    home: TempDir,
}

impl Site {
    fn start(options: &[&str]) -> Self {
        let home = directory();
        let postfix = Postfix::configure(
            "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
        );
        let wire = Wire::unix(home.path().join("log.sock"));
        let (config, listen) = (postfix.config().display().to_string(), wire.to_string());
        let map = format!("hash:{}", home.path().join("clients").display());
        let mut all = vec!["--postfix-config", &config, "--listen", &listen, "--map", &map];
        all.extend(options);
        let daemon = Daemon::start(home.path(), &all);
        wire.send(login_frame(CLIENT).as_bytes());
        let mapped = || std::fs::read_to_string(home.path().join("clients")).unwrap_or_default();
        let published = within(PATIENCE, || mapped().contains(CLIENT));
        assert!(published, "{}", daemon.log());
        Self { postfix, _daemon: daemon, home }
    }

    /// Adds lines of deploy/postfix, with the directory of this site.
    fn add(&self, file: &str, lines: &str) {
        let clients = self.home.path().join("clients").display().to_string();
        let here = lines.replace("/var/lib/pop-before-smtp/clients", &clients);
        assert!(here.contains(&clients), "the lines name the map");
        self.postfix.add(file, &here);
    }

    fn relays(&self, mut session: Session) -> u16 {
        session.rcpt(FAR).code
    }

    /// Returns the replies to an authorised client and to another, from the plain and the chrooted
    /// smtpd.
    fn answers(&self) -> [u16; 4] {
        let Self { postfix, .. } = self;
        let plain = [CLIENT, OTHER].map(|client| self.relays(postfix.session(client)));
        let chrooted = [CLIENT, OTHER].map(|client| self.relays(postfix.chrooted_session(client)));
        [plain[0], plain[1], chrooted[0], chrooted[1]]
    }
}

#[test]
fn the_map() {
    let site = Site::start(&[]);
    site.add("main.cf", include_str!("../../deploy/postfix/main.cf.map"));
    site.postfix.start();
    assert_eq!(site.answers(), [250, 454, 250, 454], "{}", site.postfix.log());
}

/// Recipes for old versions put the check where it is reached too late.
#[test]
fn recipe_for_old_versions_fails() {
    let site = Site::start(&[]);
    let lines = "smtpd_recipient_restrictions = permit_mynetworks, check_client_access \
                 hash:/var/lib/pop-before-smtp/clients, reject_unauth_destination\n";
    site.add("main.cf", lines);
    site.postfix.start();
    assert_eq!(site.answers(), [454; 4], "{}", site.postfix.log());
}

#[test]
fn the_submission_port() {
    let site = Site::start(&[]);
    let (port, closed) = (Port::claim(), Port::claim());
    let lines = include_str!("../../deploy/postfix/master.cf.submission");
    let at = |port: &Port| format!("127.0.0.1:{} inet", port.number());
    site.add("master.cf", &lines.replace("submission inet", &at(&port)));
    // As in Debian's master.cf.
    let (first, _) = lines.split_once("  -o {").expect("the last option");
    let debian = first.replace("submission inet", &at(&closed))
        + "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n";
    site.postfix.add("master.cf", &debian);
    site.postfix.start();
    let ask = |port: &Port, client: &str| site.relays(Session::open(port, client));
    assert_eq!(ask(&port, CLIENT), 250, "{}", site.postfix.log());
    assert_eq!(ask(&port, OTHER), 554);
    assert_eq!(ask(&closed, CLIENT), 554);
}

/// Runs a session through postscreen, which learns the client's address by the PROXY protocol.
/// Returns whether it skipped its tests, and the reply to RCPT.
fn through_postscreen(postfix: &Postfix, port: &Port, client: &str) -> (bool, u16) {
    let stream = TcpStream::connect(("127.0.0.1", port.number())).expect("postscreen listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut stream = BufReader::new(stream);
    let mut say = |line: &str| {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("it listens");
        let code = |reply: &str| reply.get(..3).and_then(|code| code.parse::<u16>().ok());
        loop {
            let mut reply = String::new();
            stream.read_line(&mut reply).expect("it answers");
            if reply.as_bytes().get(3) != Some(&b'-') {
                return code(&reply).expect("a reply begins with its code");
            }
        }
    };
    say(&format!("PROXY TCP4 {client} 127.0.0.1 40000 25"));
    assert_eq!(say("EHLO client.test"), 250);
    assert_eq!(say("MAIL FROM:<user@rig.test>"), 250);
    let code = say(&format!("RCPT TO:<{FAR}>"));
    (postfix.log().contains(&format!("ALLOWLISTED [{client}]")), code)
}

#[test]
fn postscreen_skips_its_tests_for_clients_and_no_more() {
    for (value, allowlisted) in [("permit", true), ("OK", false)] {
        let site = Site::start(&["--map-value", value]);
        let port = Port::claim();
        site.add("main.cf", include_str!("../../deploy/postfix/main.cf.postscreen"));
        site.postfix.add(
            "main.cf",
            "postscreen_upstream_proxy_protocol = haproxy\npostscreen_greet_wait = 2s\n\
             postscreen_cache_map =\n",
        );
        let lines = format!(
            "127.0.0.1:{} inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n",
            port.number()
        );
        site.postfix.add("master.cf", &lines);
        site.postfix.start();
        let ask = |client| through_postscreen(&site.postfix, &port, client);
        assert_eq!(ask(CLIENT), (allowlisted, 454), "{value}: {}", site.postfix.log());
        assert_eq!(ask(OTHER), (false, 454));
        let gives_up = site.postfix.log().contains("ignoring the remainder of this access list");
        assert_ne!(gives_up, allowlisted, "{}", site.postfix.log());
    }
}

/// postscreen asks the daemon, as in deploy/suites/mailcow.
#[test]
fn postscreen_asks_the_socketmap() {
    let home = directory();
    let socket = home.path().join("socketmap").display().to_string();
    let option = format!("unix:{socket},mode=0666");
    let site = Site::start(&["--map-value", "permit", "--socketmap", &option]);
    let port = Port::claim();
    // Without mailcow's own tables.
    let (_, list) = include_str!("../../deploy/suites/mailcow/extra.cf")
        .split_once("postscreen_access_list = permit_mynetworks,")
        .expect("the last parameter");
    let table = list.split(',').next_back().expect("the last table").trim();
    let table = table.replace("/pop-before-smtp/socketmap", &socket);
    site.postfix.add(
        "main.cf",
        &format!(
            "postscreen_access_list = permit_mynetworks, {table}\n\
             postscreen_upstream_proxy_protocol = haproxy\npostscreen_greet_wait = 2s\n\
             postscreen_cache_map =\n"
        ),
    );
    let lines = format!(
        "127.0.0.1:{} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n",
        port.number()
    );
    site.postfix.add("master.cf", &lines);
    site.postfix.start();
    let Site { postfix, _daemon: daemon, home: _home } = site;
    let ask = |client| through_postscreen(&postfix, &port, client);
    assert_eq!(ask(CLIENT), (true, 454), "{}", postfix.log());
    assert_eq!(ask(OTHER), (false, 454));
    // While the daemon is down, mail still comes in.
    assert!(daemon.stop().success());
    assert_eq!(ask("198.51.100.9"), (false, 454), "{}", postfix.log());
}
