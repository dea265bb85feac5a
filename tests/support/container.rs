//! pop-before-smtp in a container: its image as a read-only root, its volumes, and a user without a
//! name.
//!
//! - **Promise**: the image is a directory with only what the program needs: this build of the
//!   program and its libraries, or, if `CONTAINER` is set, the content of the image that
//!   deploy/container/build builds.
//! - **How**: with namespaces, because tests often run where there is no container engine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::wire::Wire;
use super::{PATIENCE, directory, install, need, within};

/// Most bytes of the program in the live image, which is downloaded to every node.
const LIVE_LIMIT: u64 = 10_000_000;
/// The root of the repository.
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// The script that creates the root and starts the program in it.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/container-root.sh");
/// The user of both images.
const USER: u32 = 65532;
/// The volumes of both images.
const VOLUMES: [&str; 4] = ["var/lib/pop-before-smtp", "run/pop-before-smtp", "syslog", "postfix"];

/// An image, one container of it and the volumes.
pub struct Container {
    dir: TempDir,
    process: Option<Process>,
}

impl Container {
    /// Creates a container and does not start it. `kind` is that of deploy/container/build;
    /// `postfix` is the directory that it shares with Postfix.
    pub fn create(kind: &str, postfix: &Path) -> Self {
        need("setpriv", "util-linux");
        let dir = directory();
        let image = dir.path().join("image");
        fs::create_dir(&image).unwrap();
        match std::env::var("CONTAINER") {
            Ok(base) => build_image(kind, &base, &image),
            Err(_) => gather_image(kind, &image),
        }
        for name in ["state", "run", "syslog"] {
            let volume = dir.path().join("volumes").join(name);
            fs::create_dir_all(&volume).unwrap();
            chown(volume, Some(USER), Some(USER)).unwrap();
        }
        fs::create_dir_all(postfix).unwrap();
        chown(postfix, Some(USER), Some(USER)).unwrap();
        std::os::unix::fs::symlink(postfix, dir.path().join("volumes/postfix")).unwrap();
        Self { dir, process: None }
    }

    /// Starts it and waits until it is healthy.
    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let process = self.process.insert(Process::spawn(self.command("run").stderr(log)));
        let mut dead = || process.ended().is_some();
        let healthy =
            within(PATIENCE, || dead() || Self::run(&self.dir, "status --check").status.success());
        assert!(healthy && !dead(), "the container is not healthy: {}", self.log());
    }

    /// Stops it as an engine does; asserts that it exits successfully.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = process.stop();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Returns its stderr of all runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Returns a volume: `state`, `run`, `syslog` or `postfix`.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("volumes").join(name)
    }

    /// Returns the socket that receives frames.
    pub fn wire(&self) -> Wire {
        Wire::unix(self.volume("syslog").join("socket"))
    }

    /// Returns whether an address is authorised, by `query` in the container, as with `docker
    /// exec`.
    pub fn query(&self, address: &str) -> bool {
        let words = format!("query {address}");
        match Self::run(&self.dir, &words).status.code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("query {address}: {other:?}: {}", self.log()),
        }
    }

    /// Waits until this address is authorised.
    pub fn wait_until_authorised(&self, address: &str) {
        let authorised = within(PATIENCE, || self.query(address));
        assert!(authorised, "{address} is not authorised: {}", self.log());
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn command(&self, words: &str) -> Command {
        Self::command_in(&self.dir, words)
    }

    fn run(dir: &TempDir, words: &str) -> Output {
        Self::command_in(dir, words).output().expect("unshare can be started")
    }

    fn command_in(dir: &TempDir, words: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", ROOT]);
        command.arg(dir.path().join("image")).arg(dir.path().join("volumes"));
        command.args(words.split(' ')).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

/// Creates the content of an image without an engine.
fn gather_image(kind: &str, image: &Path) {
    for name in VOLUMES.iter().chain(&["dev", "proc", "etc/pop-before-smtp"]) {
        fs::create_dir_all(image.join(name)).unwrap();
    }
    let config = format!("{REPOSITORY}/deploy/container/{kind}.toml");
    fs::copy(config, image.join("etc/pop-before-smtp/config.toml")).unwrap();
    let program = env!("CARGO_BIN_EXE_pop-before-smtp");
    install(program, image.join("pop-before-smtp"));
    let mut files = libraries(program);
    if kind == "map" {
        fs::create_dir(image.join("etc/postfix")).unwrap();
        fs::write(image.join("etc/postfix/main.cf"), "compatibility_level = 3.6\n").unwrap();
        for file in ["/usr/sbin/postmap", "/usr/sbin/postconf", "/usr/lib/postfix/postfix-lmdb.so"]
        {
            files.extend(libraries(file));
            files.insert(file.into());
        }
        // Postfix's programs require its users.
        files.extend(
            ["passwd", "group", "postfix/dynamicmaps.cf"].map(|n| Path::new("/etc").join(n)),
        );
    }
    for file in files {
        let copy = image.join(file.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(copy.parent().expect("it is in a directory")).unwrap();
        fs::copy(&file, copy).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    }
}

/// Returns the libraries of a program, with the loader.
pub fn libraries(program: &str) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd can be started");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    output.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Builds the image as users do, and copies its content; `base` is the base of the map image.
fn build_image(kind: &str, base: &str, image: &Path) {
    // In the network of the machine: the test may have left it, and the program is compiled.
    let mut build = Command::new("nsenter");
    build.arg(format!("--net=/proc/{}/ns/net", std::process::id()));
    build.arg(format!("{REPOSITORY}/deploy/container/build")).arg(kind).env("ENGINE", "buildah");
    if kind == "map" {
        build.args(["--build-arg", &format!("BASE={base}")]);
    }
    output_of(&mut build);
    let name = format!("localhost/pop-before-smtp:{kind}");
    let about = output_of(buildah().args(["inspect", "--type", "image", &name]));
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    let config = &about["Docker"]["config"];
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    for name in ["title", "description", "licenses", "url", "source", "documentation"] {
        assert!(label(name).is_string(), "{name}");
    }
    for name in ["revision", "created"] {
        assert!(label(name).is_string() && label(name) != "unknown", "{name}");
    }
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/pop-before-smtp"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    assert_eq!(
        config["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/pop-before-smtp", "status", "--check"])
    );
    let container = output_of(buildah().args(["from", &name]));
    let content = output_of(buildah().args(["mount", container.trim()]));
    output_of(Command::new("cp").arg("-a").arg(format!("{}/.", content.trim())).arg(image));
    output_of(buildah().args(["rm", container.trim()]));
    if kind == "live" {
        let bytes = fs::metadata(image.join("pop-before-smtp")).unwrap().len();
        assert!(bytes < LIVE_LIMIT, "the program has {bytes} bytes");
    }
    // An engine creates the missing ones.
    for name in ["dev", "proc"] {
        fs::create_dir_all(image.join(name)).unwrap();
    }
}

fn buildah() -> Command {
    Command::new("buildah")
}

/// Runs a program that must succeed; returns its output.
fn output_of(command: &mut Command) -> String {
    command.env("BUILDAH_ISOLATION", "chroot").env("BUILDAH_LAYERS", "true").stdin(Stdio::null());
    let output = command.output().expect("it can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
