//! Both protocols over real sockets: what is answered, and what closes a connection. `connections` is
//! about many of them.

mod connections;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::daemon::{Daemon, program};
use crate::support::postfix::Postfix;
use crate::support::process::Process;
use crate::support::wire::{Port, Wire};
use crate::support::{PATIENCE, directory, eventually};

const CLIENT: &str = "192.0.2.7";
const OTHER: &str = "192.0.2.8";
const YES: &[u8] = b"5:OK OK,";
const NO: &[u8] = b"9:NOTFOUND ,";
const PERMIT: &[u8] = b"action=OK\n\n";
const DUNNO: &[u8] = b"action=DUNNO\n\n";

/// The kind of a lookup socket.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Unix,
    Inet,
}

const KINDS: [Kind; 2] = [Kind::Unix, Kind::Inet];

/// The daemon with one service.
struct Site {
    dir: TempDir,
    wire: Wire,
    port: Port,
    kind: Kind,
    daemon: Daemon,
}

impl Site {
    fn start(protocol: &str, kind: Kind, more: &[&str]) -> Self {
        Self::start_for(protocol, kind, "", more)
    }

    /// Appends `access` to the path of a Unix socket.
    fn start_for(protocol: &str, kind: Kind, access: &str, more: &[&str]) -> Self {
        let (dir, wire, port) = (directory(), Wire::udp(), Port::claim());
        let address = match kind {
            Kind::Unix => format!("unix:{}/asked{access}", dir.path().display()),
            Kind::Inet => format!("inet:127.0.0.1:{}", port.number()),
        };
        let mut options = vec!["--listen".to_owned(), wire.to_string()];
        options.extend([format!("--{protocol}"), address]);
        options.extend(more.iter().map(|&option| option.to_owned()));
        let daemon = Daemon::start(dir.path(), &options);
        Self { dir, wire, port, kind, daemon }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("asked")
    }

    fn peer(&self) -> Peer {
        match self.kind {
            Kind::Unix => {
                let stream = UnixStream::connect(self.socket()).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
                Peer(Box::new(stream))
            }
            Kind::Inet => {
                let address = ("127.0.0.1", self.port.number());
                let stream = TcpStream::connect(address).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
                Peer(Box::new(stream))
            }
        }
    }

    fn login(&self, user: &str, address: &str) {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
        );
        self.wire.send(frame.as_bytes());
        eventually(&format!("{user} is listed"), PATIENCE, || {
            self.daemon.list().to_string().contains(&format!("\"{user}\""))
        });
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The client's side of a connection.
struct Peer(Box<dyn Stream>);

impl Peer {
    fn ask(&mut self, request: &[u8], reply: &[u8]) {
        self.0.write_all(request).expect("it is open");
        self.expect(request, reply);
    }

    fn expect(&mut self, request: &[u8], reply: &[u8]) {
        let mut got = vec![0; reply.len()];
        let read = self.0.read_exact(&mut got);
        assert!(
            read.is_ok() && got == reply,
            "{} to {}: {read:?}",
            got.escape_ascii(),
            request.escape_ascii()
        );
    }

    /// Sends a request, and expects this reply and then the end of the connection.
    fn breaks_after(mut self, request: &[u8], reply: &[u8]) {
        // The daemon may close the connection before it has read everything.
        let _ = self.0.write_all(request);
        let mut got = Vec::new();
        let end = self.0.read_to_end(&mut got);
        let shown = request[..request.len().min(100)].escape_ascii();
        assert_eq!(got.escape_ascii().to_string(), reply.escape_ascii().to_string(), "{shown}");
        // TCP resets a connection with unread input.
        let reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(end.is_ok() || end.is_err_and(reset), "{shown}: it is still open");
    }
}

fn query(key: &str) -> Vec<u8> {
    format!("{}:clients {key},", key.len() + 8).into_bytes()
}

fn request(state: &str, client: &str, sender: &str) -> Vec<u8> {
    format!(
        "request=smtpd_access_policy\nprotocol_state={state}\nprotocol_name=ESMTP\n\
         helo_name=client.test\nqueue_id=\nsender={sender}\nrecipient=far@elsewhere.example\n\
         recipient_count=0\nclient_address={client}\nclient_name=unknown\nfuture=attribute\n\n"
    )
    .into_bytes()
}

#[test]
fn socketmap() {
    for kind in KINDS {
        let site = Site::start("socketmap", kind, &[]);
        let mut peer = site.peer();
        peer.ask(&query(CLIENT), NO);
        site.login("joe", CLIENT);
        site.login("ann", "2001:db8::7");
        for (key, reply) in [
            (CLIENT, YES),
            ("2001:db8::7", YES),
            ("::ffff:192.0.2.7", YES),
            (OTHER, NO),
            ("2001:db8::7:1", NO),
            ("unknown", NO),
            ("mail.example.org", NO),
            ("192.0.2", NO),
            ("2001:db8:", NO),
            ("", NO),
            ("192.0.2.7 OK", NO),
        ] {
            peer.ask(&query(key), reply);
        }
        peer.ask(b"18:anything 192.0.2.7,", YES);
        peer.ask(b"3:\0\xff\n,", NO);

        let [several, replies] = [[query("unknown"), query(CLIENT)], [NO.into(), YES.into()]];
        peer.ask(&several.concat().repeat(100), &replies.concat().repeat(100));
        for (place, byte) in query(CLIENT).iter().enumerate() {
            std::thread::sleep(Duration::from_millis(2));
            peer.0.write_all(&[*byte]).unwrap_or_else(|why| panic!("at {place}: {why}"));
        }
        peer.expect(&query(CLIENT), YES);
        peer.ask(&[b"9992:clients ".as_slice(), &b"a".repeat(9984), b","].concat(), NO);

        for broken in [
            &b"10001:"[..],
            b"99999999999999999999:",
            b"03:abc,",
            b"3:abc;",
            b"-1:",
            b":,",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\xff",
            b"\n",
        ] {
            site.peer().breaks_after(broken, b"");
            let sound = [query(CLIENT), broken.to_vec(), query(CLIENT)].concat();
            site.peer().breaks_after(&sound, YES);
        }
        peer.ask(&query(CLIENT), YES);
        assert!(site.daemon.command(&["revoke", CLIENT]).status.success());
        peer.ask(&query(CLIENT), NO);
        let counted = &status(&site.daemon)["lookups"][0];
        assert_eq!((&counted["broken"], &counted["connections"]), (&18.into(), &1.into()));
    }
}

#[test]
fn policy() {
    for kind in KINDS {
        let site = Site::start("policy", kind, &[]);
        let mut peer = site.peer();
        peer.ask(&request("RCPT", CLIENT, "joe@example.org"), DUNNO);
        site.login("joe", CLIENT);
        for (state, client, reply) in [
            ("RCPT", CLIENT, PERMIT),
            ("DATA", CLIENT, PERMIT),
            ("END-OF-MESSAGE", CLIENT, DUNNO),
            ("CONNECT", CLIENT, DUNNO),
            ("MAIL", CLIENT, DUNNO),
            ("", CLIENT, DUNNO),
            ("RCPT", OTHER, DUNNO),
            ("RCPT", "unknown", DUNNO),
            ("RCPT", "192.0.2", DUNNO),
            ("RCPT", "", DUNNO),
        ] {
            peer.ask(&request(state, client, ""), reply);
        }
        peer.ask(b"\n", DUNNO);
        peer.ask(b"request=other\nprotocol_state=RCPT\nclient_address=192.0.2.7\n\n", DUNNO);
        peer.ask(&request("RCPT", CLIENT, "a").repeat(100), &PERMIT.repeat(100));
        for byte in request("RCPT", CLIENT, "joe@example.org") {
            peer.0.write_all(&[byte]).expect("it is open");
        }
        peer.expect(b"byte by byte", PERMIT);
        let long = format!("helo={}\n", "x".repeat(30_000)).into_bytes();
        peer.ask(&[long.clone(), request("RCPT", CLIENT, "")].concat(), PERMIT);

        for broken in [
            &b"no attribute\n"[..],
            b"request=smtpd_access_policy\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\xff\n",
            b"sender=a\nsender=b\n",
            &long.repeat(2),
            &b"x".repeat(40_000),
            &b"a=\n".repeat(20_000),
        ] {
            site.peer().breaks_after(broken, b"");
            let sound = [request("RCPT", CLIENT, ""), broken.to_vec()].concat();
            site.peer().breaks_after(&sound, PERMIT);
        }
        peer.ask(&request("RCPT", CLIENT, ""), PERMIT);
    }
}

#[test]
fn restricted_senders() {
    let table = directory();
    let path = table.path().join("senders");
    std::fs::write(&path, "ann sales@example.org\n").expect("it can be done");
    let map = table.path().join("login_map");
    std::fs::write(&map, "info@example.org joe, ann\n@lists.example ann\n")
        .expect("it can be done");
    let map = format!("hash:{}", map.display());
    let postfix = Postfix::configure("reject_unauth_destination");
    let config = postfix.config().display().to_string();
    let made = std::process::Command::new("postmap").args(["-c", &config, &map]).status();
    assert!(made.expect("postmap can be started").success());
    let path = path.display().to_string();
    let site = Site::start(
        "policy",
        Kind::Unix,
        &[
            "--sender=user",
            "--sender-domains=example.org",
            "--sender-delimiter=+",
            "--sender-table",
            &path,
            "--sender-login-map",
            &map,
            "--postfix-config",
            &config,
            "--sender-mismatch=reject check your mail first",
        ],
    );
    site.login("joe", CLIENT);
    site.login("ann", CLIENT);
    let mut peer = site.peer();
    let rejected = b"action=550 5.7.1 check your mail first\n\n";
    for (client, sender, reply) in [
        (CLIENT, "joe@example.org", PERMIT),
        (CLIENT, "Joe+list@Example.org", PERMIT),
        (CLIENT, "ann@example.org", PERMIT),
        (CLIENT, "sales@example.org", PERMIT),
        (CLIENT, "info@example.org", PERMIT),
        (CLIENT, "any@lists.example", PERMIT),
        (CLIENT, "eve@example.org", rejected),
        (CLIENT, "joe@example.net", rejected),
        (CLIENT, "", rejected),
        (CLIENT, "joe", rejected),
        (OTHER, "joe@example.org", DUNNO),
        (OTHER, "eve@example.org", DUNNO),
    ] {
        peer.ask(&request("RCPT", client, sender), reply);
    }
    peer.ask(&request("MAIL", CLIENT, "eve@example.org"), DUNNO);
    let list = site.daemon.list();
    assert_eq!(list[0]["user"], "ann");
    assert_eq!(list[0]["users"], serde_json::json!(["joe", "ann"]));
}

#[test]
fn a_shared_address_is_logged_once() {
    let site = Site::start("socketmap", Kind::Unix, &["--max-users-per-address=2"]);
    site.login("joe", CLIENT);
    site.login("ann", CLIENT);
    let mut peer = site.peer();
    peer.ask(&query(CLIENT), YES);
    for user in ["eve", "joe", "ann"] {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
             rip={CLIENT}, lip=192.0.2.1, mpid=84, TLS, session=<a>"
        );
        site.wire.send(frame.as_bytes());
    }
    eventually("it is no longer authorised", PATIENCE, || !site.daemon.query(CLIENT));
    peer.ask(&query(CLIENT), NO);
    site.daemon.wait_until_logged("max-users-per-address");
    site.login("eve", OTHER);
    assert_eq!(site.daemon.log().matches("max-users-per-address").count(), 1);
    let status = status(&site.daemon);
    assert_eq!(status["counts"]["shared"], 1);
    assert_eq!(status["shared"], serde_json::json!([{ "address": CLIENT, "users": 3 }]));
    assert_eq!(status["clients"], 1);
}

fn status(daemon: &Daemon) -> serde_json::Value {
    let status = daemon.command(&["status", "--json"]).stdout;
    serde_json::from_slice(&status).expect("JSON")
}

/// Sockets passed by systemd are distinguished by their names.
#[test]
fn passed_sockets() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let bind = |name: &str| UnixListener::bind(at(name)).expect("a socket");
    let (socketmap, policy) = (bind("socketmap"), bind("policy"));
    std::fs::write(at("config.toml"), "").expect("a file");
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 4>&1 </dev/null >&2; LISTEN_PID=$$ exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(program().get_program()).arg("run");
    let wire = Wire::unix(at("log"));
    command.args(["--listen", &wire.to_string(), "--sender=user", "--sender-delimiter="]);
    command.arg("--config").arg(at("config.toml")).arg("--control").arg(at("control"));
    command.arg("--state").arg(at("state"));
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "policy:socketmap");
    command.stdin(Stdio::from(OwnedFd::from(policy)));
    command.stdout(Stdio::from(OwnedFd::from(socketmap)));
    command.stderr(std::fs::File::create(at("said")).expect("a file"));
    let mut process = Process::spawn(&mut command);
    let peer = |name: &str| {
        let stream = UnixStream::connect(at(name)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Peer(Box::new(stream))
    };
    peer("socketmap").ask(&query(CLIENT), NO);
    let ask = || peer("policy").ask(&request("RCPT", CLIENT, "joe@example.org"), DUNNO);
    ask();
    assert!(process.stop().success());
    assert!(at("policy").exists(), "it is systemd's");
    let said = std::fs::read_to_string(at("said")).expect("its log");
    assert!(said.contains("does not restrict senders"), "{said}");
}

#[test]
fn socket_files() {
    let site = Site::start_for("policy", Kind::Unix, ",mode=0666,group=daemon", &[]);
    let file = std::fs::metadata(site.socket()).expect("it is there");
    let group = nix::unistd::Group::from_name("daemon").unwrap().expect("every system has it");
    assert_eq!(file.permissions().mode() & 0o777, 0o666);
    assert_eq!(file.gid(), group.gid.as_raw());
    let path = site.socket();
    assert!(site.daemon.stop().success());
    assert!(!path.exists(), "it is removed at the end");
}

#[test]
fn wrong_options_are_refused_at_the_start() {
    let dir = directory();
    let socketmap = format!("unix:{}/socketmap", dir.path().display());
    let policy = format!("unix:{}/policy", dir.path().display());
    let wire = Wire::udp();
    let postfix = Postfix::configure("reject_unauth_destination");
    let rows: &[(&[&str], &str)] = &[
        (&[], "neither a map nor a socket for Postfix"),
        (&["--socketmap", &socketmap, "--sender=user"], "policy is off"),
        (&["--socketmap", &policy, "--policy", &policy], "cannot be both"),
        (&["--policy", "unix:policy"], "must be absolute"),
        (&["--policy", "inet:10040"], "inet:HOST:PORT"),
        (&["--policy", "unix:/nowhere/at/all"], "does not exist"),
        (&["--policy", &format!("{policy},group=nobody-has-this")], "no group"),
        (&["--policy", &policy, "--sender=user", "--sender-table=/nowhere"], "sender-table"),
    ];
    for (options, expected) in rows {
        let mut arguments = vec!["--listen".to_owned(), wire.to_string()];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        arguments.extend(["--postfix-config".into(), postfix.config().display().to_string()]);
        let mut daemon = Daemon::spawn(dir.path(), &arguments);
        let status = daemon.wait();
        assert!(!status.success());
        daemon.wait_until_logged(expected);
        assert!(!dir.path().join("policy").exists(), "{options:?} leaves a socket");
    }
}
