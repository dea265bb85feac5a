//! The relay of deploy/relay: its three containers without an engine, and a mail provider's server.
//!
//! - **Promise**: the files of deploy/relay are those of the images, in Debian's own Postfix and
//!   Dovecot; users, capabilities, volumes and read-only roots are those of compose.yaml.
//! - **Not here**: images that were built, and a network for each container: the three share that of
//!   the test, as in a pod of Kubernetes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::container::libraries;
use super::network::MAIL_HOST;
use super::process::Process;
use super::{PATIENCE, directory, install, need, network, within};

/// The root of the repository.
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// The mail provider's server.
const SMARTHOST: (&str, &str) = ("smtp.example.net", "2525");

/// A container, running or not.
pub struct Part {
    name: &'static str,
    work: PathBuf,
    base: String,
    variables: Vec<(&'static str, &'static str)>,
    process: Option<Process>,
}

impl Part {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(format!("{REPOSITORY}/tests/support/relay-root.sh"));
        command.arg(self.name).arg(&self.work).arg(&self.base).args(arguments);
        command.envs(self.variables.iter().copied()).stdin(Stdio::null());
        command
    }

    /// Starts it and waits until its health check succeeds.
    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command(&[]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Process::spawn(&mut command));
        let healthy = within(PATIENCE, || self.ended() || self.health().is_ok());
        assert!(healthy && !self.ended(), "{}: {:?}: {}", self.name, self.health(), self.log());
    }

    /// Stops it as an engine does.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// Ends it and all its processes.
    fn end(&mut self, signal: Signal) {
        // A change of user has undone --kill-child. What is PID 1 in it is a child of `unshare`.
        if let Some(mut process) = self.process.take()
            && process.ended().is_none()
            && let Ok(inner) = inner(&process).parse()
        {
            let _ = kill(Pid::from_raw(inner), signal);
            process.wait();
        }
    }

    fn ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some())
    }

    /// Returns what its health check says, as an error if it is not healthy.
    pub fn health(&self) -> Result<String, String> {
        let words: &[&str] = match self.name {
            "pop-before-smtp" => &["/pop-before-smtp", "status", "--check"],
            name => &["/usr/local/bin/health", name],
        };
        let output = self.run(words);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Runs a program in it, as `docker exec` does.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(inner(self.process.as_ref().expect("it has been started")));
        command.args(["--mount", "--pid", "--root", "--wd", "--"]).args(words);
        command.stdin(Stdio::null()).output().expect("nsenter can be started")
    }

    /// Returns the output of all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.work.join(format!("{}.log", self.name))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// Returns the process that is PID 1 in a container.
fn inner(unshare: &Process) -> String {
    let parent = unshare.id();
    let inner = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    inner.unwrap_or_default().trim().to_owned()
}

/// The relay, in the network of the calling thread.
pub struct Relay {
    /// The container of pop-before-smtp.
    pub sidecar: Part,
    /// The container of Dovecot.
    pub dovecot: Part,
    /// The container of Postfix.
    pub postfix: Part,
    _provider: Process,
    dir: TempDir,
}

impl Relay {
    /// Starts it, with these users and these variables for pop-before-smtp.
    pub fn start(users: &str, variables: &[(&'static str, &'static str)]) -> Self {
        need("openssl", "openssl");
        network::enter();
        network::ip("address add 192.168.1.1/24 dev lo");
        // As `sysctls` in compose.yaml.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").expect("our network");
        let dir = directory();
        make_volumes(dir.path(), users);
        let provider = start_provider(dir.path());
        let part = |name, base, variables| {
            let work = dir.path().to_owned();
            fs::create_dir(work.join(name)).unwrap();
            Part { name, work, base, variables, process: None }
        };
        let sidecar = part("pop-before-smtp", gather(dir.path()), variables.to_vec());
        let [dovecot, postfix] = ["dovecot", "postfix"].map(|name| part(name, debian(), vec![]));
        let mut relay = Self { sidecar, dovecot, postfix, _provider: provider, dir };
        let prepared = relay.prepare();
        assert!(prepared.status.success(), "{prepared:?}");
        relay.sidecar.start();
        relay.dovecot.start();
        relay.postfix.start();
        relay
    }

    /// Runs what compose.yaml runs first.
    pub fn prepare(&self) -> Output {
        let mut prepare = self.dovecot.command(&["/usr/local/bin/prepare"]);
        prepare.output().expect("unshare can be started")
    }

    /// Changes a file that the user has written.
    pub fn write(&self, secret: &str, text: &str) {
        fs::write(self.dir.path().join("secrets").join(secret), text).unwrap();
    }

    /// Waits until this client is authorised, or until it is no longer.
    pub fn wait_until(&self, client: &str, authorised: bool) {
        let query = ["/pop-before-smtp", "query", client];
        let agrees = || self.sidecar.run(&query).status.success() == authorised;
        let in_time = within(PATIENCE, agrees);
        assert!(in_time, "{client}: not {authorised} that it is authorised: {}", self.log());
    }

    /// Returns the messages that have arrived at the mail provider.
    pub fn delivered(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("delivered")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Returns everything that the containers have printed.
    pub fn log(&self) -> String {
        [&self.sidecar, &self.dovecot, &self.postfix].map(Part::log).concat()
    }
}

/// Returns the lower directories of the images that have Debian's packages.
fn debian() -> String {
    let tools = ["relay", "debian"].map(|name| format!("{REPOSITORY}/target/tools/{name}"));
    for path in &tools {
        assert!(Path::new(path).exists(), "{path} is missing: tests/all unpacks it");
    }
    tools.join(":")
}

/// Creates the content of pop-before-smtp's image: this build and its libraries.
fn gather(dir: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_pop-before-smtp");
    let image = dir.join("image");
    fs::create_dir(&image).unwrap();
    install(program, image.join("pop-before-smtp"));
    for file in libraries(program) {
        let copy = image.join(file.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(copy.parent().expect("it is in a directory")).unwrap();
        fs::copy(&file, copy).unwrap();
    }
    image.display().to_string()
}

fn make_volumes(dir: &Path, users: &str) {
    for (name, owner) in
        [("state", 0), ("secrets", 0), ("syslog", 65532), ("policy", 65532), ("run", 65532)]
    {
        fs::create_dir(dir.join(name)).unwrap();
        std::os::unix::fs::chown(dir.join(name), Some(owner), Some(owner)).unwrap();
    }
    let line = format!("[{}]:{} relay:pass-word\r\n", SMARTHOST.0, SMARTHOST.1);
    fs::write(dir.join("hosts"), format!("{} {}\n", MAIL_HOST[0], SMARTHOST.0)).unwrap();
    for (name, text) in [("users", users), ("smarthost", &line)] {
        fs::write(dir.join("secrets").join(name), text).unwrap();
    }
}

/// Starts the mail provider's server, with a certificate that the relay trusts.
fn start_provider(dir: &Path) -> Process {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "1", "-subj"]);
    openssl.arg(format!("/CN={}", SMARTHOST.0));
    openssl.arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("ca.pem"));
    let made = openssl.output().expect("openssl can be started");
    assert!(made.status.success(), "{made:?}");
    let mut provider = Command::new("python3");
    provider.arg(format!("{REPOSITORY}/tests/support/smarthost.py"));
    provider.args([MAIL_HOST[0], SMARTHOST.1]).arg(dir.join("ca.pem")).arg(dir.join("key.pem"));
    provider.stdout(fs::File::create(dir.join("delivered")).unwrap());
    provider.stderr(fs::File::create(dir.join("provider.log")).unwrap());
    Process::spawn(&mut provider)
}
