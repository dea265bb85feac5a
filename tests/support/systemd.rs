//! A private systemd: the real one as PID 1, with its journal, in a private root.
//!
//! - **Promise**: its services, sockets, accounts and control groups are separate from the
//!   machine's, and end with the test.
//! - **Not here**: a network.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::{PATIENCE, directory, need, network, within};

/// The script that creates the root and starts systemd in it.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/systemd-root.sh");

/// Where tests/all installs a whole Debian.
const DEBIAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/debian");

/// Returns the commands below a mark in the README or the guide, for a host with this project in
/// /src.
pub fn readme(mark: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_dir(root.join("deploy/guide")).expect("the guide is there");
    let mut pages: Vec<_> = guide.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root.join("README.md"));
    let texts = pages.iter().map(|page| fs::read_to_string(page).expect("it can be read"));
    let texts: Vec<_> = texts.filter(|text| text.contains(mark)).collect();
    assert_eq!(texts.len(), 1, "pages with {mark}");
    let (_, block) =
        texts[0].split_once(&format!("{mark}\n```sh\n")).expect("a mark above a block");
    let (block, _) = block.split_once("```\n").expect("a block ends");
    format!("cd /src\n{block}")
}

/// A running systemd.
pub struct Systemd {
    process: Process,
    id: String,
    _dir: TempDir,
}

impl Systemd {
    /// Starts it with these files, by their paths without the first slash, and without the services
    /// of this machine; waits until it has booted.
    pub fn start(files: &[(&str, &Path)]) -> Self {
        Self::boot(files, &[])
    }

    /// The same with a whole Debian and its services, which tests/all installs: systemd, rsyslog,
    /// Postfix, Dovecot's POP3 server, with their defaults.
    pub fn start_debian(files: &[(&str, &Path)]) -> Self {
        let base = Path::new(DEBIAN);
        assert!(base.exists(), "{} is missing: tests/all installs it", base.display());
        Self::boot(files, &[base])
    }

    /// The same with the packages that tests/all has unpacked under this name.
    pub fn start_debian_with(files: &[(&str, &Path)], name: &str) -> Self {
        let tools = Path::new(DEBIAN).with_file_name(name);
        assert!(tools.exists(), "{} is missing: tests/all unpacks it", tools.display());
        // As overlay file systems want their lower directories.
        let base = format!("{}:{DEBIAN}", tools.display());
        Self::boot(files, &[Path::new(&base)])
    }

    fn boot(files: &[(&str, &Path)], base: &[&Path]) -> Self {
        need("systemd-analyze", "systemd");
        need("unshare", "util-linux");
        let dir = directory();
        for name in ["files", "root"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (path, source) in files {
            let path = dir.path().join("files").join(path);
            fs::create_dir_all(path.parent().expect("it is in a directory")).unwrap();
            fs::copy(source, path).unwrap_or_else(|why| panic!("{}: {why}", source.display()));
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", ROOT]);
        command.arg(dir.path().join("files")).arg(dir.path().join("root")).args(base);
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut id = String::new();
        let output = process.child().stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut id).expect("the id of the parent of PID 1");
        let id = id.trim();
        let children = format!("/proc/{id}/task/{id}/children");
        let mut inner = String::new();
        let there = within(PATIENCE, || {
            inner = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            fs::read_to_string(format!("/proc/{inner}/comm")).is_ok_and(|name| name == "systemd\n")
        });
        assert!(there, "systemd does not start: it needs CAP_SYS_ADMIN and control groups");
        let systemd = Self { process, id: inner, _dir: dir };
        let booted = within(PATIENCE, || {
            systemd.run("systemctl is-active test.target").stdout == b"active\n"
        });
        assert!(booted, "systemd has not booted: {}", systemd.journal());
        systemd
    }

    /// Moves the calling thread into a new network with these addresses, connected to the host's;
    /// the host has the first address of that network and no default route.
    pub fn join(&self, clients: &[&str]) {
        network::enter_connected_to(&self.id, clients);
    }

    /// Returns the path of a file in its root.
    pub fn at(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.id).join("root").join(path.trim_start_matches('/'))
    }

    /// Runs a shell command in it, as root.
    pub fn run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id, "--mount", "--pid", "--net", "--uts", "--ipc"]);
        // A shell cannot trap a signal that was ignored when it began.
        let shell = ["env", "--default-signal", "bash", "-euc", script];
        command.args(["--cgroup", "--root", "--wd", "--"]).args(shell);
        command.stdin(Stdio::null()).output().expect("nsenter can be started")
    }

    /// The same, for a command that must succeed; returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, script: &str) -> String {
        let output = self.run(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}\n{}", self.journal());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Returns the journal.
    pub fn journal(&self) -> String {
        String::from_utf8_lossy(&self.run("journalctl --no-pager").stdout).into_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // The end of its input makes the script clean up.
        drop(self.process.child().stdin.take());
        within(PATIENCE, || self.process.ended().is_some());
    }
}
