//! Cyrus, popa3d, solid-pop3d, and the proxies Perdition and nginx in front of a Dovecot, as Debian
//! ships them, with honest clients and others: their own log lines, through rsyslogd, authorise the
//! true address of each login and nothing else.

mod support;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use support::attack;
use support::client::{IMAP, POP3, Session};
use support::maild::{MailHost, PASSWORD, Setup};

/// Logs joe in from some addresses, plays the attacks in so many sessions at a time, and logs him in
/// again: exactly these clients count.
fn logins_count_and_nothing_else(
    daemon: &str,
    host: &MailHost,
    clients: &[(&str, u16)],
    at_a_time: usize,
) {
    let (before, after) = clients.split_at(clients.len() / 2);
    let log_in = |(client, port): &(&str, u16)| {
        assert!(
            Session::open(client, *port).log_in("joe", PASSWORD),
            "{client} {port}\n{}",
            host.said()
        );
    };
    before.iter().for_each(log_in);
    let mut ports: Vec<_> = clients.iter().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    attack::try_all(&ports, at_a_time);
    // Strangers who do nothing are connected meanwhile: their addresses are in the log, too.
    let strangers: Vec<_> = attack::strangers().take(3).collect();
    let idle: Vec<_> = strangers.iter().map(|it| Session::open(it, ports[0])).collect();
    after.iter().for_each(log_in);
    drop(idle);
    let logins: Vec<_> = clients.iter().map(|(client, _)| (*client, "joe")).collect();
    host.counts_exactly(daemon, &logins);
}

/// Joe's; one address has a name.
const POP3_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", POP3),
    ("198.51.100.8", POP3),
    ("198.51.100.9", POP3),
];

const IPV4_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", IMAP),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];

const CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("2001:db8::7", IMAP),
    ("198.51.100.20", IMAP),
    ("2001:db8::8", POP3),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];

/// popa3d knows IPv4 alone, and few sessions at a time.
#[test]
fn popa3d() {
    let host = MailHost::start(&Setup {
        name: "popa3d",
        files: vec![],
        start:
            "install -d -m 1777 /var/mail; touch /var/mail/joe; chown joe /var/mail/joe; popa3d -D"
                .into(),
        ports: &[POP3],
    });
    logins_count_and_nothing_else("popa3d", &host, POP3_CLIENTS, 4);
    host.has_logged("Authentication failed for joe");
}

/// solid-pop3d behind inetd and tcpd, which logs under the same name.
#[test]
fn solid_pop3d() {
    let host = MailHost::start(&Setup {
        name: "solid-pop3d",
        files: vec![(
            "etc/inetd.conf",
            "pop3 stream tcp nowait.10000 root /usr/sbin/tcpd /usr/sbin/solid-pop3d\n".into(),
        )],
        start:
            "install -d -m 1777 /var/mail; touch /var/mail/joe; chown joe /var/mail/joe; inetd -i &"
                .into(),
        ports: &[POP3],
    });
    logins_count_and_nothing_else("solid-pop3d", &host, POP3_CLIENTS, 20);
    host.has_logged("no such user: session from 203.0.113.66 - ");
}

/// The server behind a proxy: it logs for itself.
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

fn behind(name: &'static str, start: &str, file: (&'static str, String)) -> Setup {
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

/// Perdition listens on IPv4 alone.
#[test]
fn perdition() {
    let start = "
perdition.pop3 --connection_logging --no_lookup --outgoing_server 127.0.0.1 --outgoing_port 2110 --map_library ''
perdition.imap4 --connection_logging --no_lookup --outgoing_server 127.0.0.1 --outgoing_port 2143 --map_library ''
";
    let host = MailHost::start(&behind(
        "perdition",
        start,
        ("etc/perdition/perdition.conf", String::new()),
    ));
    logins_count_and_nothing_else("perdition", &host, IPV4_CLIENTS, 200);
    host.has_logged(
        "protocol=POP3 server-secure=plaintext status=\"ok\"\" server=\"127.0.0.1:2143\"",
    );
}

#[test]
fn nginx() {
    let conf = "load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
user daemon daemon;
error_log syslog:server=unix:/dev/log,facility=mail,tag=nginx,nohostname info;
pid /run/nginx.pid;
events {
  worker_connections 1000;
}
mail {
  auth_http 127.0.0.1:8008/;
  server {
    listen 110;
    listen [::]:110;
    protocol pop3;
    pop3_auth plain;
  }
  server {
    listen 143;
    listen [::]:143;
    protocol imap;
    imap_auth plain login;
  }
}
";
    let host = MailHost::start(&behind(
        "nginx",
        "nginx -c /etc/nginx.conf &",
        ("etc/nginx.conf", conf.to_owned()),
    ));
    let judge = TcpListener::bind("127.0.0.1:8008").unwrap();
    thread::spawn(move || judge.incoming().flatten().for_each(|it| judge_one(it).unwrap_or(())));
    logins_count_and_nothing_else("nginx", &host, CLIENTS, 20);
    host.has_logged("login: \"joe\", client: 203.0.113.66, server: 0.0.0.0:110, ");
}

/// Answers nginx's question whether a name and a password are right, as its module auth_http wants.
fn judge_one(stream: TcpStream) -> io::Result<()> {
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

#[test]
fn cyrus() {
    let imapd = "configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus/mail
servername: mail.example
autocreate_quota: 0
autocreate_post: no
autocreate_users: anyone
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_mech_list: PLAIN LOGIN
syslog_prefix: cyrus
";
    let conf = "START {
  recover cmd=\"/usr/sbin/cyrus ctl_cyrusdb -r\"
}
SERVICES {
  imap cmd=\"imapd\" listen=\"imap\" prefork=0 maxchild=300
  pop3 cmd=\"pop3d\" listen=\"pop3\" prefork=0 maxchild=300
}
";
    let start = format!("
install -d -o cyrus -g mail /var/lib/cyrus /var/spool/cyrus /var/spool/cyrus/mail /run/cyrus /run/cyrus/proc /run/cyrus/lock /run/cyrus/socket
echo {PASSWORD} | saslpasswd2 -c -p -u mail.example joe
chown cyrus /etc/sasldb2
setpriv --reuid cyrus --regid mail --clear-groups /usr/lib/cyrus/bin/makedirs
/usr/lib/cyrus/bin/master -D &
");
    let host = MailHost::start(&Setup {
        name: "cyrus",
        files: vec![("etc/imapd.conf", imapd.into()), ("etc/cyrus.conf", conf.into())],
        start,
        ports: &[POP3, IMAP],
    });
    logins_count_and_nothing_else("cyrus", &host, CLIENTS, 100);
    host.has_logged("plaintext (x) [203.0.113.66] joe plaintext user logged in");
}
