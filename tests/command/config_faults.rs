//! Wrong configurations are refused at the start, with one clear sentence, a hint and the documented
//! exit status; no file is created or left.

#![allow(clippy::unwrap_used, reason = "a home that cannot be built ends the test")]

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::program;
use crate::support::directory;
use crate::support::postfix::Postfix;
use crate::support::process::Process;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const USAGE: i32 = 2;
const IO: i32 = 74;
const CONFIG: i32 = 78;

/// A user that is neither root nor the daemon's.
const OTHER_USER: u32 = 4711;

/// One wrong configuration: a title, the file, an environment variable, the arguments of `run`, the
/// exit status, and what stderr must contain. `{home}` is a directory of the test; `{listen}`,
/// `{map}` and `{etc}` (the directory of main.cf) are correct options.
type Row<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a str, i32, &'a [&'a str]);

const NONE: (&str, &str) = ("LC_ALL", "C");

#[rustfmt::skip] // one row, one line
const ROWS: &[Row<'_>] = &[
    ("unknown key", "grase = '30m'", NONE, "{listen} {map}", CONFIG, &["config.toml", "line 1", "`grase`"]),
    ("unknown key and its likeness", "listn = ['unix:/x']", NONE, "{listen} {map}", CONFIG, &["line 1", "`listn`", "did you mean `listen`?"]),
    ("number for a duration", "grace = 30", NONE, "{listen} {map}", CONFIG, &["line 1: grace: ", "write grace = \"30m\""]),
    ("text for a list", "listen = 'udp:127.0.0.1:1'", NONE, "{map}", CONFIG, &["listen: ", "write listen = [\"udp:127.0.0.1:1\"]"]),
    ("bits after the prefix", "exclude = ['192.0.2.7/24']", NONE, "{listen} {map}", CONFIG, &["exclude: ", "192.0.2.0/24 for the network, or 192.0.2.7"]),
    ("unknown key below others", "grace = '30m'\n\n[x]\n", NONE, "{listen} {map}", CONFIG, &["line 3", "`x`"]),
    ("no TOML", "grace", NONE, "{listen} {map}", CONFIG, &["config.toml", "line 1"]),
    ("duration, file", "grace = 'soon'", NONE, "{listen} {map}", CONFIG, &["line 1", "`soon`", "30m"]),
    ("duration, environment", "", ("POP_BEFORE_SMTP_GRACE", "soon"), "{listen} {map}", CONFIG, &["POP_BEFORE_SMTP_GRACE", "`soon`", "30m"]),
    ("duration, command line", "", NONE, "{listen} {map} --grace soon", USAGE, &["--grace", "soon", "30m"]),
    ("no time at all", "", NONE, "{listen} {map} --grace 0s", USAGE, &["--grace", "0s", "second"]),
    ("too long a time", "", NONE, "{listen} {map} --grace 8days", CONFIG, &["grace", "7 days", "hint: "]),
    ("list, environment", "", ("POP_BEFORE_SMTP_EXCLUDE", "own gatway"), "{listen} {map}", CONFIG, &["POP_BEFORE_SMTP_EXCLUDE", "`gatway`"]),
    ("unknown option", "", NONE, "{listen} {map} --grase 1m", USAGE, &["--grase", "--grace"]),
    ("named file", "", NONE, "{listen} {map} --config {home}/nowhere.toml", CONFIG, &["nowhere.toml", "No such file", "hint: "]),
    ("named file, environment", "", ("POP_BEFORE_SMTP_CONFIG", "/nowhere.toml"), "{listen} {map}", CONFIG, &["/nowhere.toml", "No such file", "hint: "]),
    ("file that is a directory", "", NONE, "{listen} {map} --config {home}", CONFIG, &["{home}` is not trusted", "not a regular file", "hint: "]),
    ("file that is a pipe", "", NONE, "{listen} {map} --config {home}/trust/pipe", CONFIG, &["trust/pipe", "not a regular file", "hint: "]),
    ("file without an end", "", NONE, "{listen} {map} --config /dev/zero", CONFIG, &["/dev/zero", "not a regular file", "hint: "]),
    ("file of enormous size", "", NONE, "{listen} {map} --config {home}/trust/large", CONFIG, &["trust/large", "larger than 1048576 bytes", "hint: "]),
    ("file for a group to write", "", NONE, "{listen} {map} --config {home}/trust/grouped", CONFIG, &["trust/grouped` is not trusted: its group can write to it (mode 664)", "hint: ", "`chmod g-w {home}/trust/grouped`"]),
    ("file of another user", "", NONE, "{listen} {map} --config {home}/trust/foreign", CONFIG, &["trust/foreign` is not trusted: it belongs to user 4711", "hint: ", "`chown root {home}/trust/foreign`"]),
    ("file, environment, of another user", "", ("POP_BEFORE_SMTP_CONFIG", "{home}/trust/foreign"), "{listen} {map}", CONFIG, &["trust/foreign", "user 4711", "hint: "]),
    ("file behind a link of another user", "", NONE, "{listen} {map} --config {home}/trust/foreign.link", CONFIG, &["symbolic link", "user 4711", "hint: ", "`chown -h root {home}/trust/foreign.link`"]),
    ("sender-table for anybody to write", "", NONE, "{listen} {map} {policy} --sender-table {home}/trust/open", CONFIG, &["sender-table", "group and others can write to it (mode 666)", "hint: ", "`chmod go-w {home}/trust/open`"]),
    ("sender-table that is a pipe", "", NONE, "{listen} {map} {policy} --sender-table {home}/trust/pipe", CONFIG, &["sender-table", "not a regular file", "hint: "]),
    ("unknown daemon", "", NONE, "{listen} {map} --daemon dovcot", CONFIG, &["dovcot"]),
    ("no listener", "", NONE, "{map}", CONFIG, &["no socket", "--listen", "hint: "]),
    ("no output", "", NONE, "{listen}", CONFIG, &["neither a map nor a socket for Postfix", "--map", "hint: "]),
    ("one socket twice", "", NONE, "{listen} {listen} {map}", CONFIG, &["twice", "log.sock", "hint: "]),
    ("relative socket", "", NONE, "--listen unix:log.sock {map}", USAGE, &["log.sock", "absolute"]),
    ("no host, only a name", "", NONE, "--listen udp:mx1:514 {map}", USAGE, &["udp:mx1:514", "numeric"]),
    ("relative state", "", NONE, "{listen} {map} --state state", CONFIG, &["state", "absolute", "hint: "]),
    ("no clients", "", NONE, "{listen} {map} --max-clients 0", CONFIG, &["max-clients", "hint: "]),
    ("exclude", "", NONE, "{listen} {map} --exclude gatway", USAGE, &["gatway", "gateway"]),
    ("exclude, relative file", "", NONE, "{listen} {map} --exclude file:shared", USAGE, &["file:shared", "absolute"]),
    ("exclude, no file", "", NONE, "{listen} {map} --exclude file:{home}/nowhere", CONFIG, &["exclude `{home}/nowhere`: No such file", "hint: "]),
    ("exclude, file for anybody to write", "", NONE, "{listen} {map} --exclude file:{home}/trust/open", CONFIG, &["exclude", "(mode 666)", "`chmod go-w {home}/trust/open`"]),
    ("exclude, wrong line of a file", "", NONE, "{listen} {map} --exclude file:{home}/trust/networks", CONFIG, &["exclude `{home}/trust/networks`: line 2: `192.0.2.7/24` has bits", "hint: each line is a network"]),
    ("exclude none and more", "", NONE, "{listen} {map} --exclude none --exclude own", CONFIG, &["none", "hint: "]),
    ("network", "", NONE, "{listen} {map} --allow-from 192.0.2.0/33", USAGE, &["192.0.2.0/33", "192.0.2.0/24"]),
    ("unknown user", "", NONE, "{listen} {map} --allow-uid nobodys-user", CONFIG, &["no user `nobodys-user`", "hint: "]),
    ("nobody", "", NONE, "{listen} {map} --allow-uid 65534", CONFIG, &["65534", "hint: "]),
    ("no user", "allow-uid = []", NONE, "{listen} {map}", CONFIG, &["allow-uid", "empty", "hint: "]),
    ("no host", "allow-host = []", NONE, "{listen} {map}", CONFIG, &["allow-host", "empty", "hint: "]),
    ("host", "", ("POP_BEFORE_SMTP_ALLOW_HOST", "m\u{fc}nchen"), "{listen} {map}", CONFIG, &["POP_BEFORE_SMTP_ALLOW_HOST", "not a host name"]),
    ("unknown facility", "facility = ['dovecot=mial']", NONE, "{listen} {map}", CONFIG, &["line 1", "`mial` is not a syslog facility", "local0"]),
    ("facility of nobody", "", NONE, "{listen} {map} --facility mail", USAGE, &["DAEMON=FACILITY"]),
    ("facility of an unknown daemon", "", NONE, "{listen} {map} --facility dovcot=mail", CONFIG, &["no mail daemon `dovcot`", "`pop-before-smtp daemons` lists"]),
    ("mode", "", NONE, "{listen},mode=999 {map}", USAGE, &["999", "octal"]),
    ("access", "", NONE, "{listen},owner=root {map}", USAGE, &["owner=root", "mode=OCTAL", "group=NAME"]),
    ("everybody's control", "", NONE, "{listen} {map} --control /run/x,mode=0666", CONFIG, &["anybody could authorise", "hint: "]),
    ("map without type", "", NONE, "{listen} --map /clients", USAGE, &["/clients", "TYPE:PATH"]),
    ("unknown map type", "", NONE, "{listen} --map nonsense:{home}/clients {etc}", CONFIG, &["nonsense", "hash", "hint: "]),
    ("map type that is not built", "", NONE, "{listen} --map cidr:{home}/clients {etc}", CONFIG, &["cidr", "postmap", "hint: "]),
    ("map directory", "", NONE, "{listen} --map hash:{home}/nowhere/clients {etc}", CONFIG, &["nowhere", "hint: "]),
    ("map is a directory", "", NONE, "{listen} --map hash:{home}/taken.d {etc}", CONFIG, &["taken.d` is a directory", "hint: "]),
    ("value that gives 451", "", NONE, "{listen} {map} --map-value 450x", CONFIG, &["450x", "451", "hint: "]),
    ("value that admits nobody", "", NONE, "{listen} {map} --map-value REJECT", CONFIG, &["REJECT", "hint: "]),
    ("Postfix's configuration", "", NONE, "{listen} --map hash:{home}/clients --postfix-config {home}", CONFIG, &["main.cf", "set postfix-config", "hint: "]),
    ("UDP port", "", NONE, "--listen udp:127.0.0.1:{port} {map}", IO, &["{port}", "in use", "hint: "]),
    ("UDP port after a good socket", "", NONE, "{listen} --listen udp:127.0.0.1:{port} {map}", IO, &["{port}", "hint: "]),
    ("address of another host", "", NONE, "--listen udp:192.0.2.1:5514 {map}", IO, &["192.0.2.1", "hint: "]),
    ("socket path is a file", "", NONE, "--listen unix:{home}/taken.file {map}", IO, &["taken.file", "not a socket", "hint: "]),
    ("socket path is alive", "", NONE, "--listen unix:{home}/taken.sock {map}", IO, &["taken.sock", "another process", "hint: "]),
    ("socket directory", "", NONE, "--listen unix:{home}/nowhere/log.sock {map}", IO, &["nowhere", "does not exist", "hint: "]),
    ("socket path is too long", "", NONE, "--listen unix:{home}/{long} {map}", CONFIG, &["longer than", "hint: "]),
    ("group", "", NONE, "{listen},group=nobodys-group {map}", CONFIG, &["nobodys-group", "hint: "]),
    ("control group", "", NONE, "{listen} {map} --control {home}/control.sock,group=nobodys-group", CONFIG, &["nobodys-group", "hint: "]),
    ("control path is alive", "", NONE, "{listen} {map} --control {home}/taken.control", IO, &["taken.control", "another process", "hint: "]),
    ("one socket to read and to change", "", NONE, "{listen} {map} --control /run/x --control-read /run/x", CONFIG, &["both control and control-read", "hint: "]),
    ("relative reading socket", "", NONE, "{listen} {map} --control-read x", USAGE, &["control-read", "absolute"]),
    ("control directory", "", NONE, "{listen} {map} --control {home}/nowhere/control.sock", IO, &["nowhere", "does not exist", "hint: "]),
    ("state directory", "", NONE, "{listen} {map} --state {home}/nowhere/state", IO, &["nowhere/state", "hint: "]),
    ("state is a directory", "", NONE, "{listen} {map} --state {home}/taken.d", IO, &["taken.d", "hint: "]),
    ("daemons directory", "", NONE, "{listen} {map} --daemons-dir {home}/nowhere", CONFIG, &["nowhere", "hint: "]),
    ("daemons directory for anybody to write", "", NONE, "{listen} {map} --daemons-dir {home}/open.d", CONFIG, &["mail daemons `{home}/open.d`", "group and others can write to it (mode 1777)", "hint: ", "`chmod go-w {home}/open.d`"]),
    ("daemon file of another user", "", NONE, "{listen} {map} --daemons-dir {home}/foreign.d", CONFIG, &["foreign.d/own.toml", "user 4711", "hint: ", "`chown root {home}/foreign.d/own.toml`"]),
    ("map that is a pipe", "", NONE, "{listen} --map hash:{home}/trust/pipe {etc}", CONFIG, &["trust/pipe", "not written by pop-before-smtp", "hint: "]),
    ("state of another user", "", NONE, "{listen} {map} --state {home}/trust/foreign", IO, &["state file", "trust/foreign` is not trusted: it belongs to user 4711", "hint: ", "`rm {home}/trust/foreign`"]),
    ("state behind a link", "", NONE, "{listen} {map} --state {home}/trust/link", IO, &["state file", "it is a symbolic link", "hint: ", "`rm {home}/trust/link`"]),
    ("state that is a pipe", "", NONE, "{listen} {map} --state {home}/trust/pipe", IO, &["state file", "not a regular file", "hint: "]),
    ("daemon file, key", "", NONE, "{listen} {map} --daemons-dir {home}/key", CONFIG, &["key/own.toml:4: ", "patern"]),
    ("daemon file, example", "", NONE, "{listen} {map} --daemons-dir {home}/example", CONFIG, &["example/own.toml:10: ", "example", "`login`"]),
];

const DAEMON: &str = r#"name = "own"
title = "own"
versions = "1"
programs = ["ownd"]

[[login]]
pattern = '^login (?<user>\S+) (?<address>[0-9.]+)$'

[[example]]
verdict = "login"
line = "<22>Nov 22 07:31:23 ownd[7]: login joe 192.0.2.7"
address = "192.0.2.7"
user = "joe"
"#;

/// A home with files and sockets that get in the way.
struct Home {
    dir: tempfile::TempDir,
    postfix: Postfix,
    udp: UdpSocket,
    _taken: (UnixDatagram, UnixListener),
}

impl Home {
    fn new() -> Self {
        let dir = directory();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("taken.file"), "precious").unwrap();
        for name in ["taken.d", "key", "example", "trust", "open.d", "foreign.d"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::set_permissions(at("open.d"), Permissions::from_mode(0o1777)).unwrap();
        fs::write(at("foreign.d/own.toml"), DAEMON).unwrap();
        chown(at("foreign.d/own.toml"), Some(OTHER_USER), None).unwrap();
        for (name, mode) in [("trusted", 0o644), ("grouped", 0o664), ("open", 0o666)] {
            fs::write(at("trust").join(name), "").unwrap();
            fs::set_permissions(at("trust").join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(at("trust/networks"), "192.0.2.0/24\n192.0.2.7/24\n").unwrap();
        File::create(at("trust/large")).unwrap().set_len((1 << 20) + 1).unwrap();
        mkfifo(&at("trust/pipe"), Mode::S_IRUSR).unwrap();
        fs::write(at("trust/foreign"), "").unwrap();
        for link in ["link", "foreign.link"] {
            symlink("trusted", at("trust").join(link)).unwrap();
        }
        for name in ["foreign", "foreign.link"] {
            lchown(at("trust").join(name), Some(OTHER_USER), None).unwrap();
        }
        let key = DAEMON.replace("programs = [\"ownd\"]", "patern = \"x\"");
        fs::write(at("key/own.toml"), key).unwrap();
        fs::write(at("example/own.toml"), DAEMON.replace("]: login joe", "]: signed in: joe"))
            .unwrap();
        let taken = (
            UnixDatagram::bind(at("taken.sock")).unwrap(),
            UnixListener::bind(at("taken.control")).unwrap(),
        );
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let postfix = Postfix::configure("reject_unauth_destination");
        Self { dir, postfix, udp, _taken: taken }
    }

    fn expand(&self, text: &str) -> Vec<String> {
        let text = text
            .replace(
                "{policy}",
                "--policy unix:{home}/policy.sock --sender user --sender-delimiter=",
            )
            .replace("{listen}", "--listen unix:{home}/log.sock")
            .replace("{map}", "--map hash:{home}/clients {etc}")
            .replace("{etc}", "--postfix-config {main.cf}")
            .replace("{main.cf}", &self.postfix.config().display().to_string())
            .replace("{home}", &self.dir.path().display().to_string())
            .replace("{port}", &self.udp.local_addr().unwrap().port().to_string())
            .replace("{long}", &"x".repeat(120));
        text.split(' ').map(str::to_owned).collect()
    }

    /// Expands the arguments of a command, and adds options so that it only uses this home.
    fn complete(&self, text: &str) -> Vec<String> {
        let mut arguments = self.expand(text);
        for (option, name) in
            [("--control", "control.sock"), ("--config", "config.toml"), ("--state", "state")]
        {
            if !arguments.iter().any(|argument| argument == option) {
                let path = self.dir.path().join(name).display().to_string();
                arguments.extend([option.to_owned(), path]);
            }
        }
        arguments
    }

    fn files(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Runs a command, and returns its exit status and stderr.
fn run(mut command: Command) -> (Option<i32>, String) {
    let said = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen().unwrap());
    let status = Process::spawn(&mut command).wait();
    (status.code(), fs::read_to_string(said.path()).unwrap())
}

/// Returns how many faults, not warnings, a command has printed.
fn printed_faults(said: &str) -> usize {
    said.matches("pop-before-smtp: ").count() - said.matches("pop-before-smtp: warning: ").count()
}

fn check_sentence(what: &str, outcome: &(Option<i32>, String), status: i32, texts: &[String]) {
    let (code, said) = outcome;
    assert_eq!(*code, Some(status), "{what}: {said}");
    for text in texts {
        assert!(said.contains(text), "{what}: {text:?} is not in: {said}");
    }
    // Faults that only a running daemon detects are in its log.
    let sentences = printed_faults(said) + said.matches(" ERROR ").count();
    assert!(status == USAGE || sentences == 1, "{what}: {sentences} sentences: {said}");
    assert!(!said.contains("panicked") && !said.contains("Error {"), "{what}: {said}");
}

#[test]
fn wrong_configurations_are_refused() {
    let home = Home::new();
    for (what, file, (variable, value), arguments, status, texts) in ROWS {
        fs::write(home.dir.path().join("config.toml"), file).unwrap();
        let before = home.files();
        let mut arguments = home.complete(arguments);
        if *variable == "POP_BEFORE_SMTP_CONFIG" {
            let config = arguments.iter().position(|one| one == "--config").expect("completed");
            arguments.drain(config..config + 2);
        }
        let mut command = program();
        command.arg("run").args(arguments).env(variable, home.expand(value).join(" "));
        let outcome = run(command);
        let texts: Vec<String> = texts.iter().map(|text| home.expand(text).join(" ")).collect();
        check_sentence(what, &outcome, *status, &texts);
        assert_eq!(home.files(), before, "{what}: no file created or removed");
    }
    assert_eq!(fs::read_to_string(home.dir.path().join("taken.file")).unwrap(), "precious");
}

/// In a mount namespace where Postfix's programs cannot be executed.
#[test]
fn a_missing_postmap_is_refused() {
    let home = Home::new();
    fs::write(home.dir.path().join("config.toml"), "").unwrap();
    let before = home.files();
    for missing in ["postmap", "postconf"] {
        let daemon = program();
        let mut command = Command::new("unshare");
        let script = "for dir in /usr/sbin /usr/bin /usr/local/sbin; do \
                      [ ! -e $dir/$0 ] || mount --bind \"$1\" $dir/$0; done; shift; exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, missing]);
        command.arg(home.dir.path().join("taken.file")).arg(daemon.get_program());
        command.arg("run").args(home.complete("{listen} {map} --exclude none"));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let texts = [missing, "neither in PATH", "hint: ", "install Postfix"].map(str::to_owned);
        check_sentence(missing, &run(command), CONFIG, &texts);
    }
    assert_eq!(home.files(), before);
}

fn check(home: &Home, arguments: &str) -> (Option<i32>, String, String) {
    let output = program().arg("check").args(home.complete(arguments)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_reports_every_fault_at_once() {
    let home = Home::new();
    fs::write(home.dir.path().join("config.toml"), "max-clients = 0\n").unwrap();
    let before = home.files();
    let wrong = "--map cidr:{home}/clients --map-value REJECT {etc} \
                 --daemon dovcot --daemons-dir {home}/example";
    let (status, out, said) = check(&home, wrong);
    assert_eq!((status, out.as_str()), (Some(CONFIG), ""), "{said}");
    let faults = ["max-clients", "REJECT", "dovcot", "cidr"];
    for fault in faults {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    assert_eq!(printed_faults(&said), faults.len(), "{said}");

    let (status, out, _) = check(&home, &format!("--json {wrong}"));
    assert_eq!(status, Some(CONFIG));
    let json: serde_json::Value = serde_json::from_str(&out).expect("one JSON value");
    assert_eq!(json["ok"], false, "{out}");
    assert_eq!(json["faults"].as_array().map(Vec::len), Some(faults.len()), "{out}");
    assert!(json["faults"][0]["fault"].is_string() && json["faults"][0]["hint"].is_string());

    let untrusted = "{listen} {map} {policy} --sender-table {home}/trust/open \
                     --daemons-dir {home}/foreign.d --state {home}/trust/link";
    fs::write(home.dir.path().join("foreign.d/other.toml"), "").unwrap();
    let other = home.dir.path().join("foreign.d/other.toml");
    fs::set_permissions(other, Permissions::from_mode(0o606)).unwrap();
    let faults = ["trust/open`", "foreign.d/own.toml`", "foreign.d/other.toml`", "trust/link`"];
    // With another fault and without it.
    for max_clients in [0, 1] {
        fs::write(home.dir.path().join("config.toml"), format!("max-clients = {max_clients}\n"))
            .unwrap();
        let (status, out, said) = check(&home, untrusted);
        assert_eq!((status, out.as_str()), (Some(CONFIG), ""), "{said}");
        for fault in faults {
            assert!(said.contains(fault), "{fault}: {said}");
        }
        let others = usize::from(max_clients == 0);
        assert_eq!(printed_faults(&said), faults.len() + others, "{said}");
    }

    fs::write(home.dir.path().join("config.toml"), "").unwrap();
    let (status, out, said) = check(&home, "{listen} {map}");
    assert_eq!((status, out.as_str()), (Some(0), "no errors found\n"), "{said}");
    let (status, out, said) = check(&home, "{listen} {map} --json");
    assert_eq!(
        (status, out.as_str()),
        (Some(0), "{\"faults\":[],\"ok\":true,\"warnings\":[]}\n"),
        "{said}"
    );
    assert_eq!(home.files(), before, "check creates no file");
    assert!(Path::new(&home.dir.path().join("taken.file")).exists());
}
