//! Perdition, nginx and Dovecot as proxies of a Dovecot.

#![allow(clippy::unwrap_used, reason = "a rig that cannot be built ends the test")]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::support::client::{IMAP, POP3, Session};
use crate::support::maild::{MailHost, PASSWORD, Setup};
use crate::support::network::connect;
use crate::{CLIENTS, IPV4_CLIENTS, logins_count_and_nothing_else};

/// The server that the proxies connect to: it logs to a file of its own.
const BACKEND: &str = "protocols = pop3 imap
listen = 127.0.0.1
base_dir = /run/dovecot
log_path = /tmp/dovecot.log
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
default_process_limit = 300
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:~/Maildir
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 2110
  }
}
service imap-login {
  inet_listener imap {
    port = 2143
  }
}
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}
";

fn proxy_setup(name: &'static str, start: &str, file: (&'static str, String)) -> Setup {
    Setup {
        name,
        files: vec![
            ("etc/dovecot/dovecot.conf", BACKEND.to_owned()),
            ("etc/dovecot/users", format!("joe:{{PLAIN}}{PASSWORD}\n")),
            file,
        ],
        start: format!(
            "mkdir -m 777 /tmp/home
dovecot -F &
until : < /dev/tcp/127.0.0.1/2143; do sleep 0.1; done
{start}
"
        ),
        ports: &[POP3, IMAP],
    }
}

fn perdition_with(option: &str) -> Setup {
    let server = |name: &str, port: u16| {
        format!(
            "{name} --no_lookup {option} --outgoing_server 127.0.0.1 --outgoing_port {port} \
             --map_library ''\n"
        )
    };
    let start = server("perdition.pop3", 2110) + &server("perdition.imap4", 2143);
    proxy_setup("perdition", &start, ("etc/perdition/perdition.conf", String::new()))
}

/// Perdition listens only on IPv4.
#[test]
fn perdition() {
    let host = MailHost::start(&perdition_with("--connection_logging"));
    logins_count_and_nothing_else("perdition", &host, IPV4_CLIENTS, 200);
    host.has_logged(
        "protocol=POP3 server-secure=plaintext status=\"ok\"\" server=\"127.0.0.1:2143\"",
    );
}

/// Dovecot as a proxy of another Dovecot: a client that was kicked has logged out.
#[test]
fn dovecot_sessions_that_are_kicked() {
    let conf = "protocols = imap
listen = 198.51.100.1
base_dir = /run/proxy
state_dir = /tmp
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
ssl = no
disable_plaintext_auth = no
passdb {
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port=2143
}
userdb {
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}
";
    let start = "dovecot -F -c /etc/dovecot/proxy.conf &
(while sleep 0.2; do doveadm -c /etc/dovecot/proxy.conf proxy kick joe; done) > /dev/null 2>&1 &
";
    let mut setup = proxy_setup("dovecot", start, ("etc/dovecot/proxy.conf", conf.into()));
    setup.ports = &[IMAP];
    let host = MailHost::start(&setup);
    let mut session = Session::open("198.51.100.7", IMAP);
    assert!(session.log_in("joe", PASSWORD));
    host.has_logged("Kicked by admin");
    let answers = answers(&host, &[]);
    let found = |verdict: &str| {
        let found = answers.iter().filter(|answer| answer["verdict"] == verdict);
        let client = |answer: &Value| (answer["address"].clone(), answer["user"].clone());
        found.map(client).collect::<Vec<_>>()
    };
    let joe = ("198.51.100.7".into(), "joe".into());
    assert_eq!((found("login"), found("logout")), (vec![joe.clone()], vec![joe]), "{}", host.log());
}

/// Returns what `test` prints about each line that the mail host has logged.
fn answers(host: &MailHost, options: &[&str]) -> Vec<Value> {
    let dir = crate::support::directory();
    let log = dir.path().join("log");
    fs::write(&log, host.log()).unwrap();
    let mut test = Command::new(PROGRAM);
    test.args(["test", "--json", "--exclude=none", "--config=/dev/null"]).args(options).arg(&log);
    let output = String::from_utf8(test.output().unwrap().stdout).unwrap();
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// With client_server_specification a client names the mail server, which may be its own.
#[test]
fn perdition_with_a_server_named_by_the_client() {
    let host = MailHost::start(&perdition_with("--client_server_specification"));
    let server = TcpListener::bind("198.51.100.66:2525").unwrap();
    let accept = |it| accept_all(it, "+OK", "+OK").unwrap_or(());
    thread::spawn(move || server.incoming().flatten().for_each(accept));
    assert!(Session::open("198.51.100.66", POP3).log_in("nobody@198.51.100.66:2525", "x"));
    assert!(Session::open("198.51.100.7", POP3).log_in("joe", PASSWORD));
    host.has_logged("authentication_id=\"nobody\" server=\"198.51.100.66:2525\"");
    host.has_logged("authentication_id=\"joe\" server=\"127.0.0.1:2110\"");

    // The command in the guide.
    let guide = include_str!("../../deploy/guide/security.md");
    let (_, command) = guide.split_once("pop-before-smtp daemons perdition |").unwrap();
    let (command, _) = command.split_once("> /etc/pop-before-smtp/daemons/").unwrap();
    let command = command
        .replace("10.0.0.2", "127.0.0.1")
        .replace("10\\\\.0\\\\.0\\\\.2", "127\\\\.0\\\\.0\\\\.1");
    let own = crate::support::directory();
    let shell = format!("'{PROGRAM}' daemons perdition | {command} > perdition.toml");
    let made = Command::new("sh").args(["-c", &shell]).current_dir(own.path()).status().unwrap();
    assert!(made.success(), "{shell}");
    let check = Command::new(PROGRAM)
        .args(["check", "--dry-run", "--exclude=none", "--config=/dev/null", "--daemons-dir"])
        .arg(own.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    let logins = |options: &[&str]| {
        let answers = answers(&host, options);
        let logins = answers.iter().filter(|answer| answer["verdict"] == "login");
        logins.map(|login| login["user"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let own = own.path().to_str().unwrap();
    assert_eq!(logins(&["--daemons-dir", own]), ["joe"]);
    assert_eq!(logins(&[]), ["nobody", "joe"], "exactly the line of a login");
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_pop-before-smtp");

/// nginx as a proxy of Dovecot, with additional servers.
fn nginx_with(servers: &str, start: &str) -> MailHost {
    let conf = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
user daemon daemon;
error_log syslog:server=unix:/dev/log,facility=mail,tag=nginx,nohostname info;
pid /run/nginx.pid;
events {{
  worker_connections 1000;
}}
mail {{
  auth_http 127.0.0.1:8008/;
  server {{
    listen 110;
    listen [::]:110;
    protocol pop3;
    pop3_auth plain;
  }}
  server {{
    listen 143;
    listen [::]:143;
    protocol imap;
    imap_auth plain login;
  }}
{servers}
}}
"
    );
    let start = format!("nginx -c /etc/nginx.conf &\n{start}");
    let host = MailHost::start(&proxy_setup("nginx", &start, ("etc/nginx.conf", conf)));
    let auth_http = TcpListener::bind("127.0.0.1:8008").unwrap();
    thread::spawn(move || {
        auth_http.incoming().flatten().for_each(|it| authenticate(it).unwrap_or(()))
    });
    host
}

#[test]
fn nginx() {
    let host = nginx_with("", "");
    logins_count_and_nothing_else("nginx", &host, CLIENTS, 20);
    host.has_logged("login: \"joe\", client: 203.0.113.66, server: 0.0.0.0:110, ");
}

/// nginx as a proxy for SMTP logs "client logged in" for an unauthenticated client whose RCPT it
/// passes on, with the name of its aborted authentication.
#[test]
fn nginx_logs_logins_of_unauthenticated_smtp_clients() {
    let servers = "
  server {
    listen 25;
    listen [::]:25;
    protocol smtp;
    smtp_auth none;
  }
  server {
    listen 587;
    listen 18926;
    listen unix:/run/smtp.sock;
    protocol smtp;
    smtp_auth none plain login;
  }
";
    let dialogue = ["EHLO x", "MAIL FROM:<a@evil.example>", AUTH, "*", "RCPT TO:<b@other.example>"];
    // A client inside the mail host, over the Unix socket.
    let inside = format!(
        "until [ -S /run/smtp.sock ]; do sleep 0.1; done
(until : < /dev/tcp/127.0.0.1/2525 && : < /dev/tcp/127.0.0.1/8008; do sleep 0.1; done 2> /dev/null
perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => \"/run/smtp.sock\") or die; <$s>;
for (@ARGV) {{ print $s \"$_\\r\\n\"; while (<$s>) {{ last if /^... /; }} }}' '{}') &",
        dialogue.join("' '")
    );
    let host = nginx_with(servers, &inside);
    let backend = TcpListener::bind("127.0.0.1:2525").unwrap();
    let accept = |it| accept_all(it, "220", "250 taken").unwrap_or(());
    thread::spawn(move || backend.incoming().flatten().for_each(accept));
    let clients = [
        ("198.51.100.66", 25),
        ("198.51.100.67", 587),
        ("198.51.100.68", 18926),
        ("2001:db8::6", 25),
    ];
    for (client, port) in clients {
        let mut stream = BufReader::new(connect(client, port).unwrap());
        reply(&mut stream).unwrap();
        let replies: Vec<String> = dialogue
            .iter()
            .map(|line| {
                write!(stream.get_mut(), "{line}\r\n").unwrap();
                reply(&mut stream).unwrap()
            })
            .collect();
        assert!(replies.last().unwrap().starts_with("250"), "{client} {port}: {replies:?}");
        host.has_logged(&format!("client logged in, client: {client}, server: "));
    }
    host.has_logged("client logged in, client: unix:, server: unix:/run/smtp.sock, login: \"joe");
    assert!(Session::open("198.51.100.7", POP3).log_in("joe", PASSWORD));
    host.counts_exactly("nginx", &[("198.51.100.7", "joe")]);
}

/// joe@example.org
const AUTH: &str = "AUTH LOGIN am9lQGV4YW1wbGUub3Jn";

/// Returns the last line of an SMTP reply.
fn reply(stream: &mut impl io::BufRead) -> io::Result<String> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.get(3..4) == Some(" ") {
            return Ok(line);
        }
    }
}

/// Serves a mail client: sends the greeting, and answers `yes` to every command.
fn accept_all(stream: TcpStream, greeting: &str, yes: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    write!(stream.get_mut(), "{greeting} mail.example\r\n")?;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        write!(stream.get_mut(), "{yes}\r\n")?;
        if line.starts_with("QUIT") {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// Answers one request of nginx's auth_http module: are the name and the password correct?
fn authenticate(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut pass, mut port) = (0, 2110);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            "Auth-User: joe" => pass += 1,
            "Auth-Pass: secret" => pass += 1,
            "Auth-Protocol: imap" => port = 2143,
            "Auth-Method: none" => (pass, port) = (2, 2525),
            _ => {}
        }
    }
    let answer = if pass == 2 {
        format!("Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {port}")
    } else {
        "Auth-Status: Invalid login or password".to_owned()
    };
    write!(stream.get_mut(), "HTTP/1.0 200 OK\r\n{answer}\r\n\r\n")
}
