//! pop-before-smtp in a container: its image as a read-only root, its volumes, a user without a name.
//!
//! - **Promise**: the image is a directory of its own that holds what the program needs and nothing
//!   else: this build of the program and its libraries, or, if `CONTAINER` is set, the content of
//!   the image that deploy/container/build makes.
//! - **Why**: a container engine is not to be had wherever tests run; namespaces are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::wire::Wire;
use super::{PATIENCE, directory, install, need, within};

/// The program is all there is in the live image; it is fetched to every node.
const LIVE_LIMIT: u64 = 10_000_000;
/// The repository.
const HOUSE: &str = env!("CARGO_MANIFEST_DIR");
/// Makes the root and starts the program in it.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/container-root.sh");
/// The user of both images.
const USER: u32 = 65532;
/// What both images share with others or keep.
const VOLUMES: [&str; 4] = ["var/lib/pop-before-smtp", "run/pop-before-smtp", "syslog", "postfix"];

/// An image, one container of it and the volumes.
pub struct Container {
    dir: TempDir,
    process: Option<Process>,
}

impl Container {
    /// A container that has not been started. `kind` is that of deploy/container/build; `postfix`
    /// is the directory that it shares with Postfix.
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
            within(PATIENCE, || dead() || Self::run(&self.dir, "status").status.success());
        assert!(healthy && !dead(), "the container is not healthy: {}", self.said());
    }

    /// Stops it as an engine does, and expects it to end well.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = process.stop();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// What it has said on stderr in all its runs.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// A volume: `state`, `run`, `syslog` or `postfix`.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("volumes").join(name)
    }

    /// The socket that hears frames.
    pub fn wire(&self) -> Wire {
        Wire::unix(self.volume("syslog").join("socket"))
    }

    /// Is this address authorised? The program in the container is asked, as by `docker exec`.
    pub fn query(&self, address: &str) -> bool {
        let words = format!("query {address}");
        match Self::run(&self.dir, &words).status.code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("query {address}: {other:?}: {}", self.said()),
        }
    }

    /// Waits until this address is authorised.
    pub fn wait_until_authorised(&self, address: &str) {
        let heard = within(PATIENCE, || self.query(address));
        assert!(heard, "{address} is not authorised: {}", self.said());
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

/// The content of an image without an engine.
fn gather_image(kind: &str, image: &Path) {
    for name in VOLUMES.iter().chain(&["dev", "proc", "etc/pop-before-smtp"]) {
        fs::create_dir_all(image.join(name)).unwrap();
    }
    let config = format!("{HOUSE}/deploy/container/{kind}.toml");
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
        // Postfix's programs want its users to be there.
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

/// The libraries of a program, with the loader.
fn libraries(program: &str) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd can be started");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    output.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The content of the image that users build; `base` is the image that map images stand on.
fn build_image(kind: &str, base: &str, image: &Path) {
    let mut build = Command::new(format!("{HOUSE}/deploy/container/build"));
    build.arg(kind).env("ENGINE", "buildah");
    if kind == "map" {
        build.args(["--build-arg", &format!("BASE={base}")]);
    }
    said(&mut build);
    let name = format!("localhost/pop-before-smtp:{kind}");
    let about = said(buildah().args(["inspect", "--type", "image", &name]));
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    let config = &about["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/pop-before-smtp"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    assert_eq!(
        config["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/pop-before-smtp", "status"])
    );
    let container = said(buildah().args(["from", &name]));
    let content = said(buildah().args(["mount", container.trim()]));
    said(Command::new("cp").arg("-a").arg(format!("{}/.", content.trim())).arg(image));
    said(buildah().args(["rm", container.trim()]));
    if kind == "live" {
        let bytes = fs::metadata(image.join("pop-before-smtp")).unwrap().len();
        assert!(bytes < LIVE_LIMIT, "the program has {bytes} bytes");
    }
    // An engine makes what is missing.
    for name in ["dev", "proc"] {
        fs::create_dir_all(image.join(name)).unwrap();
    }
}

fn buildah() -> Command {
    Command::new("buildah")
}

/// What a program prints that must end well.
fn said(command: &mut Command) -> String {
    command.env("BUILDAH_ISOLATION", "chroot").stdin(Stdio::null());
    let output = command.output().expect("it can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
