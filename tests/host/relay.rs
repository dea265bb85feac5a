//! deploy/relay: a copier in an office logs in by POP3 and sends through the relay to a mail
//! provider, and nobody else does.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::package::{CLIENT, DEB, place};
use super::systemd::files_below;
use crate::support::client::{IMAP, POP3, Session};
use crate::support::network::{MAIL_HOST, connect};
use crate::support::postfix::{Reply, Session as Smtp};
use crate::support::relay::Relay;
use crate::support::systemd::Systemd;
use crate::support::{PATIENCE, within};

const USERS: &str = "# The devices\ncopier@example.org:{PLAIN}secret\n\
                     scanner@example.org:{SHA512-CRYPT}HASH\n";
/// In the private network of an office.
const COPIER: &str = "192.168.1.20";
const OTHER: &str = "192.168.1.66";
const RECIPIENT: &str = "someone@elsewhere.example";

fn users() -> String {
    USERS.replace("HASH", crate::support::maild::CRYPT)
}

fn smtp(client: &str, port: u16) -> Smtp {
    Smtp::over(connect(client, port).expect("Postfix listens"), PATIENCE).expect("it greets")
}

fn rcpt(client: &str, sender: &str) -> Reply {
    smtp(client, 25).rcpt_from(sender, RECIPIENT)
}

/// Returns what a server says first inside TLS.
fn greeting_over_tls(port: u16, farewell: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("{}:{port}", MAIL_HOST[0])]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl can be started");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(farewell.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_copier_sends_and_nobody_else() {
    let mut relay = Relay::start(&users(), &[("POP_BEFORE_SMTP_GRACE", "8s")]);
    let copier = "copier@example.org";
    assert_eq!(rcpt(COPIER, copier).code, 554, "before the login");
    let own = smtp(COPIER, 25).rcpt_from(copier, "root@[198.51.100.1]");
    assert_eq!(own.code, 550, "there are no mailboxes: {own:?}");
    assert!(!Session::open(COPIER, POP3).log_in(copier, "wrong"));
    assert_eq!(rcpt(COPIER, copier).code, 554, "after a failed login");

    let mut pop3 = Session::open(COPIER, POP3);
    assert!(pop3.log_in(copier, "secret"), "{}", relay.log());
    assert_eq!(pop3.send("STAT"), "+OK 0 0");
    drop(pop3);
    relay.wait_until(COPIER, true);
    let mut session = smtp(COPIER, 25);
    session.begin(copier);
    assert_eq!(session.add(RECIPIENT).code, 250);
    assert_eq!(session.finish().code, 250);
    let foreign = rcpt(COPIER, "scanner@example.org");
    assert!(foreign.code == 550 && foreign.text.starts_with("5.7.1"), "{foreign:?}");
    assert_eq!(rcpt(OTHER, copier).code, 554, "another device");
    relay.wait_until(COPIER, false);
    assert_eq!(rcpt(COPIER, copier).code, 554, "after the grace");

    let arrived = within(PATIENCE, || relay.delivered().len() == 1);
    assert!(arrived, "{}", relay.log());
    let mail = &relay.delivered()[0];
    assert!(mail["sender"].as_str().is_some_and(|s| s.starts_with("FROM:<copier@example.org>")));
    assert_eq!(mail["recipients"][0], format!("TO:<{RECIPIENT}>"), "{mail}");

    // With a hashed password, by IMAP, and through the other ports.
    let mut imap = Session::open(COPIER, IMAP);
    assert!(imap.log_in("scanner@example.org", "secret"), "{}", relay.log());
    let refused = imap.send("a APPEND INBOX {3+}\r\nabc");
    assert!(refused.starts_with("a NO"), "nobody can leave anything: {refused}");
    drop(imap);
    relay.wait_until(COPIER, true);
    assert_eq!(smtp(COPIER, 587).rcpt_from("scanner@example.org", RECIPIENT).code, 250);
    let servers =
        [(465, "QUIT\r\n", "220 "), (993, "a LOGOUT\r\n", "* OK "), (995, "QUIT\r\n", "+OK ")];
    for (port, farewell, expected) in servers {
        let greeting = greeting_over_tls(port, farewell);
        assert!(greeting.starts_with(expected), "{port}: {greeting:?}");
    }
    let stls = Session::open(COPIER, POP3).send("STLS");
    assert!(stls.starts_with("+OK"), "{stls}");
    let starttls = Session::open(COPIER, IMAP).send("a STARTTLS");
    assert!(starttls.starts_with("a OK"), "{starttls}");

    // Everything is in the output of the containers.
    let (dovecot, postfix) = (relay.dovecot.log(), relay.postfix.log());
    assert!(dovecot.contains("pop3-login: Info: Login: user=<copier@example.org>"), "{dovecot}");
    assert!(dovecot.contains("Password mismatch"), "{dovecot}");
    assert!(
        postfix.contains("Verified TLS connection established to smtp.example.net"),
        "{postfix}"
    );
    assert!(relay.sidecar.log().contains("relaying a message"), "{}", relay.sidecar.log());
    for part in [&mut relay.postfix, &mut relay.dovecot, &mut relay.sidecar] {
        part.stop();
    }
}

#[test]
fn fifty_messages_an_hour_and_no_lies_about_health() {
    let mut relay = Relay::start(&users(), &[]);
    assert!(Session::open(COPIER, POP3).log_in("copier@example.org", "secret"));
    let mut session = smtp(COPIER, 25);
    relay.wait_until(COPIER, true);
    let mut send = || session.rcpt_from("copier@example.org", RECIPIENT).code;
    let codes: Vec<u16> = (0..51).map(|_| send()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 250).count(), 50, "{codes:?}");
    assert_eq!(codes.last(), Some(&450));

    // Without pop-before-smtp the others say so, and nobody is refused for good.
    relay.sidecar.stop();
    assert_eq!(rcpt(COPIER, "copier@example.org").code, 451);
    let said = relay.postfix.health().expect_err("it cannot relay");
    assert!(said.contains("expected 554"), "{said}");
    let said = relay.dovecot.health().expect_err("its log is lost");
    assert!(said.contains("pop-before-smtp does not receive the log"), "{said}");

    // A new container on the old volumes: the others need no restart.
    relay.sidecar.start();
    assert_eq!(rcpt(COPIER, "copier@example.org").code, 250, "the state is kept");
    assert!(relay.postfix.health().is_ok() && relay.dovecot.health().is_ok());
    assert!(Session::open(OTHER, POP3).log_in("scanner@example.org", "secret"));
    relay.wait_until(OTHER, true);
    assert_eq!(rcpt(OTHER, "scanner@example.org").code, 250, "the first login counts");
}

/// The same files on a host, by the script; its packages are there, as if apt had installed them.
#[test]
fn a_debian_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        files_below("deploy").iter().map(|path| (format!("src/{path}"), root.join(path))).collect();
    files.push((place(), DEB.clone()));
    let files: Vec<_> = files.iter().map(|(path, source)| (&**path, &**source)).collect();
    let host = Systemd::start_debian_with(&files, "relay");
    host.must(&format!(
        "printf '#!/bin/sh\\n[ $1 = update ] || dpkg --install /{}\\n' \
                        > /usr/local/bin/apt-get; chmod 755 /usr/local/bin/apt-get",
        place()
    ));
    host.must("echo 'copier@example.org:{PLAIN}secret' > /src/deploy/relay/users");
    host.must("echo '[198.51.100.20]:587' > /src/deploy/relay/smarthost");
    let refused = host.run("/src/deploy/relay/debian");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("--replace"), "{said}");
    let done = host.run("/src/deploy/relay/debian --replace");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("\n0 problems, "), "{said} {done:?}");

    host.join(&[CLIENT, "198.51.100.66"]);
    let sender = "copier@example.org";
    assert_eq!(rcpt(CLIENT, sender).code, 554);
    assert!(Session::open(CLIENT, POP3).log_in(sender, "secret"), "{}", host.journal());
    let query = || host.run(&format!("pop-before-smtp query {CLIENT}")).status.success();
    assert!(within(PATIENCE, query), "{}", host.journal());
    assert_eq!(rcpt(CLIENT, sender).code, 250);
    assert_eq!(rcpt(CLIENT, "other@example.org").code, 550);
    assert_eq!(rcpt("198.51.100.66", sender).code, 554);
    assert!(Session::open(CLIENT, IMAP).log_in(sender, "secret"), "{}", host.journal());
    assert_eq!(smtp(CLIENT, 587).rcpt_from(sender, RECIPIENT).code, 250);
    // Again, as after a change.
    host.must("/src/deploy/relay/debian");
    assert_eq!(rcpt(CLIENT, sender).code, 250, "{}", host.journal());
}

/// Mistakes in the two files of the user are named.
#[test]
fn mistakes_in_the_files() {
    let mut relay = Relay::start(&users(), &[]);
    let said = |relay: &Relay| {
        let output = relay.prepare();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (users, expected) in [
        ("# none\n", "has no users"),
        ("\ncopier@example.org:secret\n", "users, line 2: "),
        ("copier:{PLAIN}secret\n", "users, line 1: "),
        ("Copier@example.org:{PLAIN}secret\n", "in small letters"),
    ] {
        relay.write("users", users);
        let said = said(&relay);
        assert!(said.contains(expected), "{said}");
    }
    for (line, expected) in [
        ("smtp.example.net:587 relay:secret\n", "is not [HOST]:PORT"),
        ("[smtp.example.net]:587 relay\n", "USER:PASSWORD is missing"),
        ("[a.example]:25\n[b.example]:25\n", "more than one line"),
    ] {
        relay.write("smarthost", line);
        let configure = ["/usr/local/bin/configure-postfix", "/run/secrets/smarthost"];
        let output = relay.postfix.run(&configure);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
    relay.write("smarthost", "# none\n");
    relay.postfix.stop();
    relay.postfix.start();
    let setting = relay.postfix.run(&["/usr/sbin/postconf", "-h", "relayhost"]).stdout;
    assert_eq!(setting, b"\n", "direct delivery");
}

/// Compose and Kubernetes agree on what each container may do and sees.
#[test]
fn the_manifest_is_that_of_compose() {
    let read = |name: &str| {
        let path = format!("{}/deploy/relay/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"))
    };
    let (compose, manifest) = (read("compose.yaml"), read("kubernetes.yaml"));
    let found = |text: &str, pattern: &str| -> BTreeSet<String> {
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
    };
    let capabilities = found(&compose, r"cap_add: \[(.*)\]");
    assert_eq!(capabilities.len(), 2);
    assert_eq!(capabilities, found(&manifest, r"add: \[(.*?)\]"));
    let mut ports = found(&compose, r#""\d+:(\d+)""#);
    assert_eq!(ports, found(&manifest, r"containerPort: (\d+)"));
    assert_eq!(ports, found(&manifest, r", port: (\d+)"));
    ports.retain(|port| port.parse::<u16>().is_ok_and(|port| port < 1024));
    assert_eq!(ports.len(), 7);
    let volumes = found(&compose, r"- (\w+:/[\w/-]+(?::ro)?)\n");
    let mounts = r"name: (state|syslog|policy), mountPath: ([\w/-]+)(, readOnly: true)?";
    let mounts = regex::Regex::new(mounts).expect("a pattern");
    let mounts = mounts.captures_iter(&manifest).map(|found| {
        let read_only = if found.get(3).is_some() { ":ro" } else { "" };
        format!("{}:{}{read_only}", &found[1], &found[2])
    });
    assert_eq!(volumes, mounts.collect());
    assert!(volumes.len() >= 5, "{volumes:?}");
}
