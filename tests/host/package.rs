//! The Debian package on a complete Debian: installed as the README says, with the real rsyslog,
//! Postfix and Dovecot in their defaults; upgraded, removed, purged. The archive of a release, the
//! same by its INSTALL.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support::client::{POP3, Session};
use crate::support::network::connect;
use crate::support::systemd::{Systemd, readme};
use crate::support::{PATIENCE, directory, eventually};

pub const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";

pub const PACKAGE: &str = "<!-- package: tests/host/package.rs runs this -->";
const MORE_SOCKETS: &str = "<!-- sockets: tests/host/systemd.rs runs this -->";
pub const POSTFIX: &str = "<!-- postfix: tests/host/package.rs runs this -->";

/// An existing mail host: an account, and POP3 without TLS, as old devices use it.
const DOVECOT: &str = "disable_plaintext_auth = no\nssl = no\n";
const ACCOUNT: &str = "useradd --create-home joe; echo joe:secret | chpasswd";

/// The package of the program under test, built once.
pub static DEB: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/package/deb");
    let mut command = Command::new(script);
    command.arg(env!("CARGO_BIN_EXE_pop-before-smtp")).arg(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("a path").trim().into()
});

/// Returns the path of the package on the host.
pub fn place() -> String {
    let name = DEB.file_name().expect("a name").to_str().expect("text");
    format!("src/target/package/{name}")
}

/// Starts a mail host with an account; the package is a file on it.
pub fn host() -> Systemd {
    host_with(&[])
}

/// The same with more files.
pub fn host_with(more: &[(&str, &Path)]) -> Systemd {
    let dir = directory();
    let dovecot = dir.path().join("dovecot.conf");
    fs::write(&dovecot, DOVECOT).expect("written");
    let place = place();
    let mut files = vec![(&*place, &**DEB), ("etc/dovecot/conf.d/99-test.conf", &*dovecot)];
    files.extend(more);
    let host = Systemd::start_debian(&files);
    host.join(&[CLIENT, OTHER]);
    host.must(ACCOUNT);
    host
}

/// Returns Postfix's reply to a recipient in another domain from this client.
pub fn rcpt(client: &str) -> u16 {
    let mut stream = BufReader::new(connect(client, 25).expect("Postfix listens"));
    let mut say = |line: &str| -> u16 {
        stream.get_mut().write_all(line.as_bytes()).expect("it listens");
        let mut reply = String::new();
        stream.read_line(&mut reply).expect("it answers");
        reply[..3].parse().expect("a reply begins with its code")
    };
    assert_eq!(say(""), 220);
    assert_eq!(say("HELO client.example\r\n"), 250);
    assert_eq!(say("MAIL FROM:<joe@client.example>\r\n"), 250);
    say("RCPT TO:<someone@elsewhere.example>\r\n")
}

/// Lists the files of the whole system with our name in their path.
fn ours(host: &Systemd) -> String {
    host.must(
        "find / -xdev -path '*pop-before-smtp*' -not -path '/src/*' -not -path '/sys/*' | sort",
    )
}

#[test]
fn install_upgrade_remove_purge() {
    let host = host();
    let both = || [CLIENT, OTHER].map(rcpt);
    assert_eq!(both(), [454; 2], "Debian's default");

    // Installed as the README says.
    host.must(&readme(PACKAGE));
    assert_eq!(host.must("systemctl is-enabled pop-before-smtp.service"), "enabled");
    assert_eq!(host.must("systemctl show -P StatusText pop-before-smtp"), "serving");
    host.must(&readme(POSTFIX));
    assert_eq!(both(), [454; 2]);

    // The client fetches mail, and may send.
    assert!(Session::open(CLIENT, POP3).log_in("joe", "secret"), "{}", host.journal());
    let query = || host.run(&format!("pop-before-smtp query {CLIENT}")).status.success();
    eventually("it is authorised", PATIENCE, query);
    eventually("Postfix accepts it", PATIENCE, || rcpt(CLIENT) == 250);
    assert_eq!(both(), [250, 454]);
    let findings = host.must("pop-before-smtp doctor");
    assert!(findings.contains("\n0 problems, 0 notes, "), "{findings}");

    // An upgrade keeps the grants and the administrator's choices.
    host.must(&readme(MORE_SOCKETS));
    host.must("systemctl disable pop-before-smtp.service");
    host.must(&format!("dpkg --install /{}", place()));
    assert!(query(), "{}", host.journal());
    assert_eq!(both(), [250, 454]);

    let enabled = host.run("systemctl is-enabled pop-before-smtp.service").stdout;
    assert_eq!(enabled, b"disabled\n");
    let policy = "test -S /var/spool/postfix/pop-before-smtp/policy";
    host.must(&format!("{policy}; systemctl is-active pop-before-smtp-policy.socket"));
    host.must("systemctl enable pop-before-smtp.service");

    // Removed: nothing of it runs, no one relays, and Postfix keeps working.
    host.must("apt-get remove --quiet --yes pop-before-smtp");
    assert_eq!(both(), [454; 2]);
    let units = "systemctl list-units --state=active,failed --no-legend 'pop-before-smtp*'";
    assert_eq!(host.must(units), "", "{}", host.journal());
    let left = "ls -d /lib/systemd/system/pop-before-smtp* /run/pop-before-smtp/* || true";
    assert_eq!(host.must(left), "");

    // Purged: only the administrator's own files are left.
    let said = host.run("dpkg --purge pop-before-smtp");
    let warning = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && warning.contains("still names it"), "{warning}");
    assert_eq!(ours(&host), "/etc/rsyslog.d/00-pop-before-smtp.conf");
}

/// Makes the archive of a release from the program under test, which is not static.
fn archive(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_pop-before-smtp"));
    assert!(strip.status().expect("binutils are there").success());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/package/tarball");
    let mut command = Command::new(script);
    command.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let output = command.arg(&program).arg(directory).output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// Returns the commands of INSTALL between two lines, by how they begin.
fn install_commands(from: &str, to: &str) -> String {
    let lines = include_str!("../../deploy/package/INSTALL").lines();
    let part = lines.skip_while(|line| !line.starts_with(from));
    let part = part.take_while(|line| !line.starts_with(to));
    part.filter_map(|line| line.strip_prefix("       ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn install_and_remove_the_archive() {
    let dir = directory();
    let host = host_with(&[("src/archive.tar.gz", &archive(dir.path()))]);
    host.must("cd /src && tar -xzf archive.tar.gz");
    let commands = install_commands("1. ", "An upgrade");
    host.must(&format!("cd /src/pop-before-smtp-*-linux-*\n{commands}"));
    host.must(&readme(POSTFIX));
    assert_eq!([CLIENT, OTHER].map(rcpt), [454; 2]);

    assert!(Session::open(CLIENT, POP3).log_in("joe", "secret"), "{}", host.journal());
    eventually("Postfix accepts it", PATIENCE, || rcpt(CLIENT) == 250);
    assert_eq!(rcpt(OTHER), 454);
    let findings = host.must("pop-before-smtp doctor");
    assert!(findings.contains("\n0 problems, 0 notes, "), "{findings}");

    host.must("postconf -X smtpd_relay_restrictions; postfix reload");
    host.must(&install_commands("Removal", "Without"));
    assert_eq!(ours(&host), "");
    assert_eq!([CLIENT, OTHER].map(rcpt), [454; 2]);
}

/// The scripts report what fails, and dpkg succeeds.
#[test]
fn maintainer_scripts_tolerate_faults() {
    let host = host();
    let dpkg = |arguments: &str| {
        let output = host.run(&format!("dpkg {arguments}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "dpkg {arguments}: {said}");
        said
    };
    host.must("mv /usr/sbin/postconf /usr/sbin/postconf.away");
    // As on Ubuntu; this kernel may have no AppArmor.
    host.must(
        "mkdir -p /etc/apparmor.d; touch /etc/apparmor.d/usr.sbin.rsyslogd; cd /usr/local/bin; \
         printf '#!/bin/sh\\n' > aa-enabled; chmod +x aa-enabled; \
         printf '#!/bin/sh\\necho rules: $(ls /etc/apparmor.d/rsyslog.d) >> /root/parsed; exit 1\\n' \
         > apparmor_parser; chmod +x apparmor_parser",
    );
    let said = dpkg(&format!("--install /{}", place()));
    assert!(said.contains("Postfix is not installed yet"), "{said}");
    host.must("mv /usr/sbin/postconf.away /usr/sbin/postconf; systemctl start pop-before-smtp");
    host.must(&format!("pop-before-smtp allow {CLIENT}"));
    let listed = || host.must("cat /var/lib/pop-before-smtp/clients").contains(CLIENT);
    eventually("it is published", PATIENCE, listed);

    // A crash, and a configuration that no `wipe` can read.
    host.must("echo 'map = 7' > /etc/pop-before-smtp/config.toml");
    host.must("systemctl kill --signal=KILL --kill-who=main pop-before-smtp");
    let said = dpkg("--remove pop-before-smtp");
    assert!(listed() && said.contains("the map could not be emptied"), "{said}");

    // rsyslogd's profile was read with the rule, and after a purge without it.
    dpkg("--purge pop-before-smtp");
    assert_eq!(host.must("cat /root/parsed"), "rules: pop-before-smtp\nrules:");
    assert_eq!(host.must("ls -R /etc/apparmor.d"), "/etc/apparmor.d:\nusr.sbin.rsyslogd");
}
