//! The images of deploy/container, each in a read-only root of its own, between a real Dovecot in
//! another root and a real Postfix: a login in one lets the client relay through the other.
//!
//! `CONTAINER=debian:12-slim cargo test --test host -- --test-threads=1 container` builds the
//! images with buildah and tests those, with the named image as the base for postmap; otherwise the
//! test uses this build of the program.

use std::fs;

use tempfile::TempDir;

use crate::support::client::{POP3, Session};
use crate::support::container::Container;
use crate::support::daemon::program;
use crate::support::maild::{PASSWORD, Setup, start_maild};
use crate::support::network;
use crate::support::postfix::{OWN_DOMAIN, Postfix};
use crate::support::process::Process;
use crate::support::{PATIENCE, directory, eventually, within};

const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.66";

/// Starts Dovecot as an image without root does, and makes /dev/log from outside once it runs.
const WITHOUT_ROOT: &str = "rm /dev/log; mkdir -m 777 /tmp/home
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
setpriv --reuid joe --regid joe --groups 65532 --no-new-privs dovecot -F &
until [ -S /tmp/dovecot/master ]; do sleep 0.05; done
ln -sfn /syslog/socket /dev/log";

/// A real Dovecot in a root of its own.
struct Dovecot {
    dir: TempDir,
    _process: Process,
}

impl Dovecot {
    /// Starts Dovecot; it logs to `log_path`, and its /dev/log is in the container's volume.
    fn start(container: &Container, log_path: &str) -> Self {
        let users = "base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
";
        let start = "mkdir -m 777 /tmp/home; dovecot -F &";
        Self::start_as(container, log_path, users, start)
    }

    /// The same as a user without rights, with /dev/log made after the start.
    fn start_without_root(container: &Container) -> Self {
        let relay = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/relay/dovecot-container.conf");
        let users = fs::read_to_string(relay).expect("a file");
        let users = users.replace("= dovecot\n", "= joe\n").replace("log_path", "# log_path");
        Self::start_as(container, "syslog", &users, WITHOUT_ROOT)
    }

    fn start_as(container: &Container, log_path: &str, users: &str, start: &str) -> Self {
        let conf = format!(
            "protocols = pop3
listen = *
log_path = {log_path}
{users}
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
userdb {{
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}}
"
        );
        let setup = Setup {
            name: "dovecot",
            files: vec![
                ("etc/dovecot/dovecot.conf", conf),
                ("etc/dovecot/users", format!("joe:{{PLAIN}}{PASSWORD}\n")),
            ],
            start: start.to_owned(),
            ports: &[POP3],
        };
        let dir = directory();
        let process = start_maild(dir.path(), &setup, &container.volume("syslog"));
        let dovecot = Self { dir, _process: process };
        let listens = || network::connect(network::MAIL_HOST[0], POP3).is_ok();
        assert!(within(PATIENCE, listens), "Dovecot does not listen: {}", dovecot.log());
        dovecot
    }

    /// Returns its stderr.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }
}

fn log_in(client: &str) {
    assert!(Session::open(client, POP3).log_in("joe", PASSWORD), "{client} cannot log in");
}

#[test]
fn container_answers_postfix_in_another() {
    network::enter();
    // As in deploy/container/README.md.
    let postfix = Postfix::configure(
        "permit_mynetworks, permit_auth_destination, \
         check_policy_service { unix:pop-before-smtp/policy, timeout=3s, default_action=DUNNO }, \
         reject",
    );
    let mut container = Container::create("live", &postfix.queue().join("pop-before-smtp"));
    container.start();
    postfix.start();
    let dovecot = Dovecot::start(&container, "syslog");
    assert_eq!(postfix.relay(CLIENT), 554);

    log_in(CLIENT);
    container.wait_until_authorised(CLIENT);
    let foreign = "someone@elsewhere.example";
    for (client, code) in [(CLIENT, 250), (OTHER, 554)] {
        assert_eq!(postfix.relay(client), code, "{client}");
        assert_eq!(postfix.chrooted_session(client).rcpt(foreign).code, code, "{client}, chroot");
    }

    // Addresses that many clients share are excluded.
    let wire = container.wire();
    for address in ["10.244.0.1", "172.18.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"] {
        let login = format!(
            "<22>Nov 22 07:31:24 dovecot: pop3-login: Login: user=<joe>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=22, session=<a>"
        );
        wire.send(login.as_bytes());
    }
    log_in("198.51.100.8");
    container.wait_until_authorised("198.51.100.8");
    for address in ["10.244.0.1", "172.18.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"] {
        assert!(!container.query(address), "{address}");
    }

    // A new container on the old volumes: neither Dovecot nor Postfix needs a restart.
    container.stop();
    assert_eq!(postfix.relay(CLIENT), 554, "no reply");
    assert_eq!(postfix.rcpt(OTHER, &format!("joe@{OWN_DOMAIN}")).code, 250, "own mail");
    container.start();
    assert_eq!(postfix.relay(CLIENT), 250, "the state is kept");
    log_in("198.51.100.9");
    container.wait_until_authorised("198.51.100.9");
    assert_eq!(postfix.relay("198.51.100.9"), 250);
    assert!(!container.log().contains("WARN mynetworks"), "{}", container.log());
    drop(dovecot);
    container.stop();
}

#[test]
fn container_publishes_a_map() {
    let volume = directory();
    network::enter();
    let mut container = Container::create("map", volume.path());
    let table = format!("lmdb:{}/clients", volume.path().display());
    let postfix = Postfix::configure(&format!("check_client_access {table}, reject"));
    container.start();
    postfix.start();
    assert_eq!(postfix.relay(CLIENT), 554);
    let _dovecot = Dovecot::start(&container, "syslog");
    log_in(CLIENT);
    eventually("the client may relay", PATIENCE, || postfix.relay(CLIENT) == 250);
    assert_eq!(postfix.relay(OTHER), 554);
    container.stop();
    eventually("the map is empty", PATIENCE, || postfix.relay(CLIENT) == 554);
}

/// The link to the socket in the container of a Dovecot that does not run as root. That its output
/// can be passed on instead is shown by the relay.
#[test]
fn logins_of_a_dovecot_without_root() {
    network::enter();
    let volume = directory();
    let mut container = Container::create("live", volume.path());
    container.start();
    let _dovecot = Dovecot::start_without_root(&container);
    log_in(CLIENT);
    container.wait_until_authorised(CLIENT);
    // A new container on the same volume.
    container.stop();
    container.start();
    log_in(OTHER);
    container.wait_until_authorised(OTHER);
}

/// Docker's syslog driver adds its own header to each line that a container prints.
#[test]
fn logins_through_dockers_syslog_driver() {
    network::enter();
    let volume = directory();
    let mut container = Container::create("live", volume.path());
    container.start();
    let dovecot = Dovecot::start(&container, "/dev/stderr");
    let (wire, counts) = (container.wire(), true);
    // The tag of deploy/container/README.md, in all formats of Docker's driver and with another
    // facility; then Docker's default tag. The dates are far in the future.
    let headers = [
        ("<27>Nov 22 07:31:24 dovecot[812]: ", counts),
        ("<30>Nov 22 07:31:24 dovecot[812]: ", counts),
        ("<27>Nov 22 07:31:24 host1 dovecot[812]: ", counts),
        ("<27>1 2999-11-22T07:31:24+01:00 host1 dovecot 812 dovecot - ", counts),
        ("<27>1 2999-11-22T07:31:24.123456+01:00 host1 dovecot 812 dovecot - ", counts),
        ("<22>Nov 22 07:31:24 dovecot[812]: ", counts),
        ("<27>Nov 22 07:31:24 0123456789ab[812]: ", !counts),
    ];
    for ((header, expected), number) in headers.into_iter().zip(10..) {
        let client = format!("198.51.100.{number}");
        log_in(&client);
        let place = format!("rip={client}, ");
        let logged = within(PATIENCE, || dovecot.log().contains(&place));
        assert!(logged, "Dovecot has not logged {place:?}: {}", dovecot.log());
        for line in dovecot.log().lines().filter(|line| line.contains(&place)) {
            wire.send(format!("{header}{line}\n").as_bytes());
        }
        // Once this counts, the frames before it have been processed.
        let last = format!("198.51.100.{}", number + 100);
        let login = format!(
            "<22>Nov 22 07:31:24 dovecot: pop3-login: Login: user=<joe>, method=PLAIN, \
             rip={last}, lip=192.0.2.1"
        );
        wire.send(login.as_bytes());
        container.wait_until_authorised(&last);
        assert_eq!(container.query(&client), expected, "{header:?}");
    }
}

/// Engines and Kubernetes ask whether mail is affected, with the command that says so.
#[test]
fn health_checks_in_deploy() {
    let words = ["/pop-before-smtp", "status", "--check"];
    let quoted = words.map(|word| format!("\"{word}\"")).join(", ");
    let read = |name: &str| {
        let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("a file")
    };
    for kind in ["live", "map"] {
        let file = read(&format!("container/Containerfile.{kind}"));
        let check = file.lines().find(|line| line.starts_with("HEALTHCHECK ")).expect("a line");
        assert!(check.ends_with(&format!("CMD [{quoted}]")), "{check}");
    }
    let waits = read("container/compose.yaml").matches("condition: service_healthy").count();
    assert_eq!(waits, 2, "Dovecot and Postfix start after it");
    let manifest = read("kubernetes/sidecar.yaml");
    let (_, probe) = manifest.split_once("startupProbe:\n").expect("a probe");
    let probe = probe.lines().next().expect("its command").trim();
    assert_eq!(probe, format!("exec: {{command: [{}]}}", words.join(", ")));
}

/// The configuration in deploy/kubernetes is valid, and has the same exclusions as the images.
#[test]
fn configurations_in_deploy() {
    let read = |name: &str| {
        let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"))
    };
    let manifest = read("kubernetes/sidecar.yaml");
    let (_, block) = manifest.split_once("config.toml: |\n").expect("a ConfigMap");
    let lines = block.lines().map_while(|line| line.strip_prefix("    "));
    let in_kubernetes = lines.collect::<Vec<_>>().join("\n");
    let dir = directory();
    let file = dir.path().join("config.toml");
    fs::write(&file, &in_kubernetes).expect("a file");
    let check = program().arg("check").arg("--config").arg(&file).output().expect("it runs");
    assert!(check.status.success() && check.stderr.is_empty(), "{check:?}");

    let [live, map] = ["live", "map"].map(|kind| read(&format!("container/{kind}.toml")));
    let exclude = |text: &str| {
        let table: toml::Table = text.parse().expect("TOML");
        table["exclude"].clone()
    };
    assert_eq!(exclude(&live), exclude(&map));
    assert_eq!(exclude(&live), exclude(&in_kubernetes));
}
