//! The certificates that deploy/rsyslog/certificates makes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{OTHER, RECEIVER, SENDER};
use crate::support::directory;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rsyslog/certificates");

/// Runs deploy/rsyslog/certificates.
fn certificates(directory: &Path, role: &str, name: &str) -> Output {
    let mut command = Command::new(SCRIPT);
    command.arg(directory).args([role, name]).output().expect("the script can be started")
}

/// An authority with certificates for these.
pub fn authority(holders: &[(&str, &str)]) -> TempDir {
    let dir = directory();
    for (role, name) in holders {
        let output = certificates(&dir.path().join("ca"), role, name);
        assert!(output.status.success(), "{output:?}");
    }
    dir
}

/// Returns the path of a file that the script has made for a host.
pub fn file_of(authority: &TempDir, name: &str, file: &str) -> String {
    authority.path().join("ca").join(name).join(file).display().to_string()
}

#[test]
fn the_certificates() {
    let ours = authority(&[("server", RECEIVER), ("client", SENDER)]);
    let ca = ours.path().join("ca");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(
        [mode(&ca), mode(&ca.join(SENDER)), mode(&ca.join("ca.key"))],
        [0o700, 0o700, 0o600]
    );
    for file in [file_of(&ours, SENDER, "client.key"), file_of(&ours, RECEIVER, "server.key")] {
        assert_eq!(mode(Path::new(&file)), 0o600, "{file}");
    }
    // Each for its own purpose only.
    let verify = |purpose: &str, name: &str, file: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", name]);
        openssl.arg("-CAfile").arg(ca.join("ca.pem")).arg(file_of(&ours, name, file));
        openssl.output().expect("openssl can be started").status.success()
    };
    assert!(
        verify("sslclient", SENDER, "client.pem") && verify("sslserver", RECEIVER, "server.pem")
    );
    assert!(
        !verify("sslserver", SENDER, "client.pem") && !verify("sslclient", RECEIVER, "server.pem")
    );

    // Nothing is overwritten, and nothing half done is left behind.
    let key = fs::read(file_of(&ours, SENDER, "client.key")).expect("a key");
    let names = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
    for (role, name) in
        [("client", SENDER), ("client", "MX1"), ("both", SENDER), ("client", "a,DNS:b.c")]
    {
        let output = certificates(&ca, role, name);
        assert_eq!(output.status.code(), Some(1), "{role} {name}: {output:?}");
        assert!(output.stderr.starts_with(b"certificates: "), "{role} {name}: {output:?}");
    }
    assert_eq!(fs::read(file_of(&ours, SENDER, "client.key")).expect("a key"), key);
    assert_eq!(names(&ca), 4, "the authority's two files and two hosts");
    // An authority without its key makes nothing.
    fs::remove_file(ca.join("ca.key")).expect("removed");
    let output = certificates(&ca, "client", OTHER);
    assert!(!output.status.success() && !ca.join(OTHER).exists(), "{output:?}");
}
