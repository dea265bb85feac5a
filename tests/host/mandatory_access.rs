//! The rules of deploy/apparmor and deploy/selinux, compiled by the programs of both and, for SELinux,
//! linked with Debian's policy.
//!
//! - **Promise**: the compiled policies contain the permissions, and name only types that exist.
//! - **Not here**: enforcement, which needs a kernel that enforces one of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::package::DEB;
use crate::support::directory;

/// Where tests/all unpacks the programs and Debian's policy.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/mandatory-access");
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

/// Ubuntu's profile of rsyslogd, as far as it concerns additions.
const PROFILE: &str = "abi <abi/3.0>,
include <tunables/global>
profile rsyslogd /usr/sbin/rsyslogd {
  include <abstractions/base>
  include if exists <rsyslog.d>
  include if exists <local/usr.sbin.rsyslogd>
}
";

/// Runs shell commands that must succeed, with the unpacked programs; returns their output.
fn run(dir: &TempDir, commands: &str) -> String {
    let tools = Path::new(TOOLS);
    assert!(tools.exists(), "{TOOLS} is missing: tests/all unpacks it");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", commands]).current_dir(dir.path());
    shell.env("PATH", format!("{TOOLS}/usr/bin:{TOOLS}/usr/sbin:{TOOLS}/sbin:{path}"));
    shell.env("LD_LIBRARY_PATH", format!("{TOOLS}/usr/lib/x86_64-linux-gnu"));
    let output = shell.output().expect("bash can be started");
    let text = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{commands}: {text}");
    text
}

#[test]
fn apparmor_compiles_the_rule() {
    let dir = directory();
    fs::write(dir.path().join("profile"), PROFILE).expect("a file");
    let compiled = || {
        let base = format!("--base {TOOLS}/etc/apparmor.d --Include {}", dir.path().display());
        let parser = "apparmor_parser --skip-kernel-load --skip-cache --dump=rule-exprs";
        run(&dir, &format!("{parser} {base} profile"))
    };
    let has_rule = |text: &str| text.contains("rule: /run/pop-before-smtp/log\\.sock ");
    assert!(!has_rule(&compiled()));
    // Where the Debian package puts it, and where an administrator may.
    run(&dir, &format!("dpkg-deb --fsys-tarfile {} > package", DEB.display()));
    run(&dir, "tar -x --strip-components=3 -f package ./etc/apparmor.d/rsyslog.d/pop-before-smtp");
    let text = compiled();
    assert!(has_rule(&text), "{text}");
    run(
        &dir,
        &format!(
            "rm -r rsyslog.d; mkdir local; cp {DEPLOY}/apparmor/rsyslogd local/usr.sbin.rsyslogd"
        ),
    );
    let text = compiled();
    assert!(has_rule(&text), "{text}");
}

/// With the commands in the file's own comment, except for the one that loads it.
#[test]
fn selinux_links_with_the_policy() {
    let dir = directory();
    let source = format!("{DEPLOY}/selinux/pop-before-smtp.te");
    let text = fs::read_to_string(&source).expect("a file");
    fs::copy(&source, dir.path().join("pop-before-smtp.te")).expect("copied");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let (load, build) = commands.split_last().expect("commands");
    assert_eq!((build.len(), *load), (2, "semodule -i pop-before-smtp.pp"));
    run(&dir, &build.join("\n"));
    for module in ["base.pp", "unconfined.pp"] {
        let policy = format!("{TOOLS}/usr/share/selinux/default/{module}.bz2");
        run(&dir, &format!("bzip2 -dc {policy} > {module}"));
    }
    let permissions = |modules: &str| {
        run(&dir, &format!("semodule_link -o linked.pp {modules}"));
        run(&dir, "semodule_expand linked.pp policy && checkpolicy -M -b -C -o text policy");
        let text = fs::read_to_string(dir.path().join("text")).expect("a policy");
        let ours = [
            "(allow syslogd_t var_run_t (sock_file (write)))",
            "(allow syslogd_t init_t (unix_dgram_socket (sendto)))",
            "(allow syslogd_t initrc_t (unix_dgram_socket (sendto)))",
        ];
        ours.map(|rule| text.lines().any(|line| line == rule))
    };
    assert_eq!(permissions("base.pp pop-before-smtp.pp"), [true; 3]);
    assert!(permissions("base.pp unconfined.pp").contains(&false), "the policy had them already");
}
