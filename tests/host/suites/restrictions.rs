//! Who relays with the restrictions of the suites and what deploy/suites adds to them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;

use super::{CLIENT, DEPLOY, OTHER, deployed};
use crate::support::daemon::Daemon;
use crate::support::postfix::{OWN_DOMAIN, Postfix};
use crate::support::site::{By, Site};
use crate::support::story::login_frame;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, within};

/// Sets these parameters, a line each. Those for relaying and recipients that they do not name have
/// Postfix's defaults, as in most suites.
fn configure(postfix: &Postfix, parameters: &str) {
    let mut postconf = Command::new("postconf");
    postconf.arg("-c").arg(postfix.config()).arg("-X");
    postconf.args(["smtpd_relay_restrictions", "smtpd_recipient_restrictions"]);
    assert!(postconf.status().expect("postconf can be started").success());
    postfix.add("main.cf", &format!("{parameters}\n"));
}

/// A host whose Postfix has a suite's restrictions, and a client that has logged in.
struct Relay {
    postfix: Postfix,
    _daemon: Daemon,
    home: TempDir,
}

impl Relay {
    /// Starts one with these parameters.
    fn start(parameters: &str) -> Self {
        let home = directory();
        let postfix = Postfix::configure("reject");
        configure(&postfix, parameters);
        let wire = Wire::unix(home.path().join("log.sock"));
        let map = format!("hash:{}", home.path().join("clients").display());
        let policy = format!("unix:{},mode=0666", home.path().join("policy").display());
        let (listen, config) = (wire.to_string(), postfix.config().display().to_string());
        let options = ["--listen", &listen, "--map", &map, "--policy", &policy, "--postfix-config"];
        let daemon = Daemon::start(home.path(), &[&options[..], &[&config]].concat());
        wire.send(login_frame(CLIENT).as_bytes());
        let mapped = || fs::read_to_string(home.path().join("clients")).unwrap_or_default();
        assert!(within(PATIENCE, || mapped().contains(CLIENT)), "{}", daemon.log());
        Self { postfix, _daemon: daemon, home }
    }

    /// Returns a text of deploy/ with the paths of this host.
    fn here(&self, text: &str) -> String {
        let at = |name: &str| self.home.path().join(name).display().to_string();
        text.replace("/var/lib/pop-before-smtp/clients", &at("clients"))
            .replace("/pop-before-smtp/policy", &at("policy"))
    }

    /// Runs a script for this Postfix and returns its output.
    fn run(&self, script: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).env("MAIL_CONFIG", self.postfix.config());
        let output = command.output().expect("bash can be started");
        self.postfix.make_old("main.cf");
        output
    }

    /// Returns the parameters of main.cf.
    fn parameters(&self) -> String {
        fs::read_to_string(self.postfix.config().join("main.cf")).expect("main.cf")
    }

    /// Asserts that only the client that has logged in relays, and that both can send to this host.
    fn relays_for_the_client_alone(&self, suite: &str) {
        let relays = |client: &str, name: &str| {
            let mut session = self.postfix.session(client);
            session.greet(name);
            session.rcpt("someone@elsewhere.example").code
        };
        // Devices greet with a name that has no domain.
        for name in ["client.test", "scanner"] {
            assert_eq!(relays(CLIENT, name), 250, "{suite}, {name}: {}", self.postfix.log());
        }
        let other = relays(OTHER, "client.test");
        assert!([454, 554].contains(&other), "{suite}: {other} {}", self.postfix.log());
        let own = format!("joe@{OWN_DOMAIN}");
        let codes = [CLIENT, OTHER].map(|client| self.postfix.rcpt(client, &own).code);
        assert_eq!(codes[0], 250, "{suite}: {}", self.postfix.log());
        assert_ne!(codes[1], 451, "{suite}: {}", self.postfix.log());
    }
}

/// Answers as iRedAPD does: it refuses senders of our own domains that have not authenticated.
fn iredapd() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = String::new();
                let mut reader = BufReader::new(&stream);
                while reader.read_line(&mut request).is_ok_and(|length| length > 0) {
                    if !request.ends_with("\n\n") {
                        continue;
                    }
                    let is_ours = |line: &str| {
                        line.starts_with("sender=") && line.ends_with(&format!("@{OWN_DOMAIN}"))
                    };
                    let ours = request.lines().any(is_ours);
                    let action = if ours { "REJECT Sender login mismatched" } else { "DUNNO" };
                    let answer = format!("action={action}\n\n");
                    request.clear();
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// The restrictions of suites for the script `postfix-restrictions`. IREDAPD is a policy service.
const RESTRICTIONS: &[(&str, &str)] = &[
    (
        "iRedMail",
        "smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks permit_sasl_authenticated check_helo_access static:DUNNO reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender reject_unlisted_sender permit_mynetworks permit_sasl_authenticated
smtpd_recipient_restrictions = reject_non_fqdn_recipient reject_unlisted_recipient check_policy_service inet:IREDAPD permit_mynetworks permit_sasl_authenticated reject_unauth_destination
smtpd_data_restrictions = reject_unauth_pipelining",
    ),
    (
        "Modoboa",
        "smtpd_helo_required = yes
smtpd_recipient_restrictions = check_policy_service inet:IREDAPD permit_mynetworks permit_sasl_authenticated check_recipient_access static:DUNNO reject_unverified_recipient reject_unauth_destination reject_non_fqdn_sender reject_non_fqdn_recipient reject_non_fqdn_helo_hostname",
    ),
    (
        "ISPConfig",
        "smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, permit
smtpd_sender_restrictions = check_sender_access static:DUNNO, permit_mynetworks, permit_sasl_authenticated, reject_non_fqdn_sender, reject_unlisted_sender
smtpd_client_restrictions = check_client_access static:DUNNO, permit_inet_interfaces, permit_mynetworks, permit_sasl_authenticated, reject_unauth_pipelining, permit
smtpd_recipient_restrictions = permit_mynetworks, reject_unlisted_recipient, check_recipient_access static:DUNNO, permit_sasl_authenticated, reject_non_fqdn_recipient, reject_unauth_destination, check_recipient_access static:DUNNO",
    ),
    (
        "without smtpd_relay_restrictions",
        "smtpd_relay_restrictions = 
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination",
    ),
];

const RESTRICTING: &str = "suites/postfix-restrictions";

#[test]
fn restrictions_of_suites_with_the_map() {
    let script = Path::new(DEPLOY).join(RESTRICTING);
    let iredapd = iredapd();
    for (suite, parameters) in RESTRICTIONS {
        let relay = Relay::start(&parameters.replace("IREDAPD", &iredapd));
        let check = relay.here("check_client_access hash:/var/lib/pop-before-smtp/clients");
        let first = relay.run(&script, &[&check]);
        assert!(first.status.success(), "{suite}: {first:?}");
        let changed = relay.parameters();
        let second = relay.run(&script, &[&check]);
        assert!(second.status.success() && second.stdout.is_empty(), "{suite}: {second:?}");
        assert_eq!(relay.parameters(), changed, "{suite}: it is not added twice");
        relay.postfix.start();
        relay.relays_for_the_client_alone(suite);
        // What it has printed undoes it.
        let undo = relay.home.path().join("undo");
        fs::write(&undo, &first.stdout).expect("written");
        assert!(relay.run(&undo, &[]).status.success());
        assert!(!relay.parameters().contains(&check), "{suite}: {}", relay.parameters());
    }
}

/// After the script `doctor` finds nothing; before, it says that the map is asked nowhere.
#[test]
fn doctor_with_restrictions_of_suites() {
    let iredapd = iredapd();
    for (suite, parameters) in RESTRICTIONS {
        let site = Site::start(By::Map, "permit_mynetworks, defer_unauth_destination");
        configure(&site.postfix, &parameters.replace("IREDAPD", &iredapd));
        site.log_in();
        let mapped = || fs::read_to_string(site.at("clients")).unwrap_or_default();
        assert!(within(PATIENCE, || mapped().contains(CLIENT)), "{suite}");
        let mut script = Command::new("bash");
        script.arg(Path::new(DEPLOY).join(RESTRICTING));
        script.arg(format!("check_client_access {}", site.table()));
        let before = site.doctor(&[]);
        assert_eq!(before.code, 1, "{suite}: {:#}", before.list);
        let done = script.env("MAIL_CONFIG", site.postfix.config()).output().expect("bash");
        assert!(done.status.success(), "{suite}: {done:?}");
        site.postfix.make_old("main.cf");
        site.postfix.start();
        site.is_sound();
    }
}

/// The README's line alone is not enough for these suites: other lists refuse the client.
#[test]
fn one_restriction_is_not_enough() {
    let iredapd = iredapd();
    for (suite, parameters) in &RESTRICTIONS[..3] {
        let relay = Relay::start(&parameters.replace("IREDAPD", &iredapd));
        relay.postfix.set(
            "smtpd_relay_restrictions",
            &relay.here("check_client_access hash:/var/lib/pop-before-smtp/clients, reject"),
        );
        relay.postfix.start();
        assert!(relay.postfix.relay(CLIENT) > 400, "{suite}: {}", relay.postfix.log());
    }
}

#[test]
fn restrictions_that_are_not_understood_stay() {
    let relay = Relay::start("smtpd_relay_restrictions = permit_mynetworks, reject");
    let before = relay.parameters();
    let output = relay.run(&Path::new(DEPLOY).join(RESTRICTING), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nothing is changed"), "{output:?}");
    assert_eq!(relay.parameters(), before);
}

/// docker-mailserver's main.cf, all of whose lists refuse relaying.
const DOCKER_MAILSERVER: &str = "smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks, reject_invalid_helo_hostname, permit
smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, reject_unauth_destination, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_client_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_data_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_pipelining";

#[test]
fn docker_mailserver_patches() {
    let relay = Relay::start(DOCKER_MAILSERVER);
    let at = |name: &str| relay.home.path().join(name);
    for file in ["rsyslog/pop-before-smtp.conf", RESTRICTING] {
        let name = file.rsplit('/').next().expect("a name");
        fs::copy(Path::new(DEPLOY).join(file), at(name)).expect("copied");
    }
    let patches = relay.here(&deployed("suites/docker-mailserver/user-patches.sh"));
    let patches = patches
        .replace("/tmp/docker-mailserver", &at("").display().to_string())
        .replace("/etc/rsyslog.d/", &at("").display().to_string());
    fs::write(at("user-patches.sh"), patches).expect("written");
    let output = relay.run(&at("user-patches.sh"), &[]);
    assert!(output.status.success(), "{output:?}");
    let rule = fs::read_to_string(at("00-pop-before-smtp.conf")).expect("the rule");
    assert_eq!(rule, deployed("rsyslog/pop-before-smtp.conf"));
    relay.postfix.start();
    relay.relays_for_the_client_alone("docker-mailserver");
}

/// mailcow's main.cf without extra.cf.
const MAILCOW: &str = "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination
smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, check_recipient_access static:DUNNO, reject_invalid_helo_hostname, reject_unauth_destination
smtpd_sender_restrictions = permit_mynetworks, reject_unlisted_sender
smtpd_helo_required = yes";

#[test]
fn mailcow_restrictions() {
    let relay = Relay::start(MAILCOW);
    let extra = relay.here(&deployed("suites/mailcow/extra.cf"));
    // postscreen: tests/postfix/snippets.rs
    let (extra, _) = extra.split_once("# With the socketmap last").expect("postscreen's list");
    let table = "proxy:mysql:/opt/postfix/conf/sql/mysql_tls_enforce_in_policy.cf";
    let exchangers =
        "check_recipient_mx_access proxy:mysql:/opt/postfix/conf/sql/mysql_mbr_access_maps.cf,";
    assert!(extra.contains(table) && extra.contains(exchangers));
    // In place of the old lists: Postfix's programs log a warning about each overridden line.
    configure(&relay.postfix, &extra.replace(table, "static:DUNNO").replace(exchangers, ""));
    relay.postfix.start();
    relay.relays_for_the_client_alone("mailcow");
    // mailcow's last entry, which is left out, would refuse the client.
    let relay = Relay::start(MAILCOW);
    let extra = relay.here(&deployed("suites/mailcow/extra.cf"));
    let (first, _) = extra.split_once("smtpd_recipient_restrictions").expect("two lists");
    let (_, list) = first.split_once("smtpd_relay_restrictions =").expect("the first list");
    relay.postfix.set("smtpd_relay_restrictions", &list.replace('\n', " "));
    relay.postfix.start();
    assert_eq!(relay.postfix.relay(CLIENT), 554, "{}", relay.postfix.log());
}

/// Mailu's main.cf, and its way to read overrides: `postconf -e "LINE"`.
#[test]
fn mailu_restrictions() {
    let relay = Relay::start(
        "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_client_restrictions = permit_mynetworks, reject_non_fqdn_sender, permit
smtpd_helo_required = yes",
    );
    let script: String = relay
        .here(&deployed("suites/mailu/postfix.cf"))
        .lines()
        .map(|line| format!("postconf -e \"{line}\"\n"))
        .collect();
    let file = relay.home.path().join("start");
    fs::write(&file, script).expect("written");
    assert!(relay.run(&file, &[]).status.success());
    relay.postfix.start();
    relay.relays_for_the_client_alone("Mailu");
}
