//! What the suites log, through their own syslog daemon to pop-before-smtp.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{CLIENT, OTHER, deployed};
use crate::support::client::{IMAP, POP3, Session};
use crate::support::daemon::Daemon;
use crate::support::forwarder::{Forwarder, Program, SYSLOG_NG};
use crate::support::maild::{PASSWORD, Setup, start_maild};
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, install, network, within};

/// The daemon, listening at this socket in its home; it publishes nothing.
fn listening_daemon(home: &Path, socket: &str) -> Daemon {
    let wire = Wire::unix(home.join(socket)).to_string();
    let options = ["--dry-run", "--daemon", "dovecot", "--exclude", "none", "--listen", &wire];
    Daemon::start(home, &options)
}

/// Waits until Dovecot listens on both ports.
fn wait_for_dovecot(dovecot: &mut Process, dir: &Path) {
    let listens = || [POP3, IMAP].iter().all(|port| network::connect(CLIENT, *port).is_ok());
    let up = within(PATIENCE, || dovecot.ended().is_some() || listens());
    let errors = fs::read_to_string(dir.join("errors")).unwrap_or_default();
    assert!(up && dovecot.ended().is_none(), "Dovecot does not listen: {errors}");
}

/// Dovecot with these settings of a suite.
fn dovecot(settings: &str) -> Setup {
    let conf = format!(
        "protocols = pop3 imap
base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
userdb {{
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}}
{settings}"
    );
    Setup {
        name: "dovecot",
        files: vec![
            ("etc/dovecot/dovecot.conf", conf),
            ("etc/dovecot/users", format!("joe:{{PLAIN}}{PASSWORD}\n")),
        ],
        start: "mkdir -m 777 /tmp/home; dovecot -F &".to_owned(),
        ports: &[POP3, IMAP],
    }
}

/// Logs in by POP3 and by IMAP, fails to from another address, and asserts who is authorised.
fn logins_count(daemon: &Daemon) {
    assert!(!Session::open(OTHER, POP3).log_in("joe", "wrong"));
    for (client, port) in [(CLIENT, POP3), ("198.51.100.9", IMAP)] {
        assert!(Session::open(client, port).log_in("joe", PASSWORD));
        let authorised = within(PATIENCE, || daemon.query(client));
        assert!(authorised, "{client} is not authorised: {}", daemon.log());
    }
    assert!(!daemon.query(OTHER));
}

// ---- iRedMail ----

/// iRedMail's dovecot.conf.
const IREDMAIL_DOVECOT: &str = "log_path = syslog
syslog_facility = local5
login_log_format_elements = user=<%u> method=%m rip=%r lip=%l mpid=%e %c %k session=<%{session}>
";

/// What its 1-iredmail-dovecot.conf does with logins: a file for each protocol, then `stop`.
fn iredmail_rules(dir: &Path) -> String {
    let rule = |texts: [&str; 2], file: &str| {
        format!(
            "if $syslogfacility-text == 'local5' and ($msg contains \"{}\" or $msg contains \"{}\") \
             then -{}\n& stop\n",
            texts[0],
            texts[1],
            dir.join(file).display()
        )
    };
    rule(["imap(", "imap-login:"], "imap.log") + &rule(["pop3(", "pop3-login:"], "pop3.log")
}

/// iRedMail's rules and ours, under this name, in one directory that rsyslogd includes.
fn iredmail_rsyslog(dir: &Path, ours: &str) -> Forwarder {
    let included = dir.join("rsyslog.d");
    fs::create_dir(&included).expect("a directory");
    fs::write(included.join("1-iredmail-dovecot.conf"), iredmail_rules(dir)).expect("written");
    let socket = dir.join("log.sock").display().to_string();
    let rule = deployed("rsyslog/pop-before-smtp.conf");
    let rule = rule.replace("/run/pop-before-smtp/log.sock", &socket);
    fs::write(included.join(ours), rule).expect("written");
    let include = format!("$IncludeConfig {}/*.conf\n", included.display());
    Forwarder::start_with(Program::Rsyslog, &include)
}

#[test]
fn iredmail_logs() {
    network::enter();
    let (home, maild) = (directory(), directory());
    let daemon = listening_daemon(home.path(), "log.sock");
    let rsyslog = iredmail_rsyslog(home.path(), "00-pop-before-smtp.conf");
    let mut dovecot = start_maild(maild.path(), &dovecot(IREDMAIL_DOVECOT), rsyslog.input());
    wait_for_dovecot(&mut dovecot, maild.path());
    logins_count(&daemon);
    // iRedMail's own files, which its Fail2ban reads, stay whole.
    for (file, client) in [("pop3.log", CLIENT), ("imap.log", "198.51.100.9")] {
        let text = || fs::read_to_string(home.path().join(file)).unwrap_or_default();
        assert!(within(PATIENCE, || text().contains(client)), "{file}: {}", text());
    }
}

/// Why the name begins with 00: after iRedMail's rules nothing arrives.
#[test]
fn iredmail_rules_stop_what_comes_later() {
    let home = directory();
    let daemon = listening_daemon(home.path(), "log.sock");
    let rsyslog = iredmail_rsyslog(home.path(), "40-pop-before-smtp.conf");
    // <174>: local5. <22>: mail, for which iRedMail has no rule. syslog(3) names no host.
    let login =
        |priority: &str, client| login_frame(client).replace("<22>", priority).replace("mx1 ", "");
    rsyslog.log(login("<174>", CLIENT));
    rsyslog.log(login("<22>", OTHER));
    assert!(within(PATIENCE, || daemon.query(OTHER)), "{}", daemon.log());
    assert!(rsyslog.record().contains(CLIENT) && !daemon.query(CLIENT));
}

// ---- mailcow ----

/// mailcow's dovecot.conf.
const MAILCOW_DOVECOT: &str = "log_path = syslog
log_timestamp = \"%Y-%m-%d %H:%M:%S \"
login_log_format_elements = \"user=<%u> method=%m rip=%r lip=%l mpid=%e %c %k\"
auth_master_user_separator = *
auth_verbose = yes
";

/// The syslog-ng.conf of mailcow's Dovecot image, with a file for its standard output and Redis.
const MAILCOW_SYSLOG_NG: &str = r#"@version: current
options {
  chain_hostnames(off); flush_lines(0); use_dns(no); dns_cache(no); use_fqdn(no); perm(0640);
  keep_timestamp(no); bad_hostname("^gconfd$");
};
source s_dgram { unix-dgram("DIR/dev-log"); internal(); };
destination d_stdout { file("DIR/stdout"); };
destination d_redis_ui_log { file("DIR/redis" template("$PROGRAM $MESSAGE\n")); };
filter f_mail { facility(mail); };
filter f_replica { not match("User has no mail_replica in userdb" value("MESSAGE")); };
filter f_dovecot_auth_try { not match("- trying the next passdb" value("MESSAGE")); };
log {
  source(s_dgram); filter(f_dovecot_auth_try); filter(f_replica); destination(d_stdout);
  filter(f_mail); destination(d_redis_ui_log);
};
"#;

/// Runs the hook for the files `syslog-ng*.conf` in this directory.
fn run_mailcow_hook(dir: &Path) -> Output {
    let at = |name: &str| dir.join(name).display().to_string();
    let hook = deployed("suites/mailcow/pop-before-smtp.sh");
    assert!(hook.contains("/etc/syslog-ng/") && hook.contains("/run/pop-before-smtp/socket"));
    let hook = hook.replace("/etc/syslog-ng/", &at(""));
    let hook = hook.replace("/run/pop-before-smtp/socket", &at("log.sock"));
    fs::write(at("hook"), hook).expect("written");
    let program = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH={SYSLOG_NG}/usr/lib/syslog-ng\n\
         exec {SYSLOG_NG}/usr/sbin/syslog-ng --module-path \"$(echo \"$LD_LIBRARY_PATH\"/*/)\" \"$@\"\n"
    );
    fs::write(at("program"), program).expect("written");
    install(at("program"), at("syslog-ng"));
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").expect("PATH"));
    Command::new("bash").arg(at("hook")).env("PATH", path).output().expect("bash can be started")
}

#[test]
fn mailcow_logs() {
    network::enter();
    let (home, maild) = (directory(), directory());
    let at = |name: &str| home.path().join(name);
    let daemon = listening_daemon(home.path(), "log.sock");
    let conf = MAILCOW_SYSLOG_NG.replace("DIR", &home.path().display().to_string());
    for name in ["syslog-ng.conf", "syslog-ng-redis_slave.conf"] {
        fs::write(at(name), &conf).expect("written");
    }
    // A container that is started again has the file of the time before.
    for _ in 0..2 {
        let hook = run_mailcow_hook(home.path());
        assert!(hook.status.success() && hook.stdout.is_empty(), "{hook:?}");
    }
    let ready = fs::read_to_string(at("syslog-ng.conf")).expect("it is still there");
    assert_eq!(ready.matches("destination(d_pop_before_smtp)").count(), 1, "{ready}");
    assert_eq!(ready, fs::read_to_string(at("syslog-ng-redis_slave.conf")).expect("the other"));
    let body = ready.strip_prefix("@version: current\n").expect("its first line");
    let _syslog_ng = Forwarder::start_with(Program::SyslogNg, body);
    assert!(within(PATIENCE, || at("dev-log").exists()), "syslog-ng does not listen");
    let mut dovecot = start_maild(maild.path(), &dovecot(MAILCOW_DOVECOT), &at("dev-log"));
    wait_for_dovecot(&mut dovecot, maild.path());
    logins_count(&daemon);
    let redis = || fs::read_to_string(at("redis")).unwrap_or_default();
    assert!(within(PATIENCE, || redis().contains(CLIENT)), "mailcow's own log: {}", redis());
}

/// If a new mailcow names its source otherwise, its syslog-ng and its Dovecot still start.
#[test]
fn mailcow_hook_that_does_not_fit() {
    let home = directory();
    let at = |name: &str| home.path().join(name);
    let conf = MAILCOW_SYSLOG_NG.replace("s_dgram", "s_new");
    let conf = conf.replace("DIR", &home.path().display().to_string());
    fs::write(at("syslog-ng.conf"), &conf).expect("written");
    let hook = run_mailcow_hook(home.path());
    let said = String::from_utf8_lossy(&hook.stdout).into_owned();
    assert!(hook.status.success() && said.contains("nothing is forwarded"), "{hook:?}");
    assert_eq!(fs::read_to_string(at("syslog-ng.conf")).expect("it is still there"), conf);
    assert!(!at("syslog-ng.conf.new").exists());
}

// ---- Mailu ----

/// Mailu's `front`: a proxy that checks the password and connects to `imap` without one.
const MAILU_FRONT: &str = "protocols = pop3 imap
listen = 198.51.100.1
base_dir = /run/front
state_dir = /tmp
log_path = /tmp/front.log
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
auth_username_chars =
auth_verbose = yes
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
login_log_format_elements = user=<%u> method=%m rip=%r rport=%b lip=%l lport=%a mpid=%e %c
passdb {
  driver = passwd-file
  args = /etc/dovecot/front-users
}
userdb {
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}
";

/// Mailu's `imap`, which believes `front` in everything: passwords and the client's address.
const MAILU_IMAP: &str = "protocols = pop3 imap
listen = 127.0.0.2
base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
ssl = no
disable_plaintext_auth = no
auth_username_chars =
login_trusted_networks = 127.0.0.0/8
mail_location = maildir:~/Maildir
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}
";

/// Only the log of `imap` is forwarded: it has the client's address, and no name of a stranger.
#[test]
fn mailu_logs() {
    network::enter();
    let (home, maild) = (directory(), directory());
    // The container's /dev/log is a link to `socket` in the directory of the volume.
    let volume = home.path().join("volume");
    fs::create_dir(&volume).expect("a directory");
    let daemon = listening_daemon(home.path(), "volume/socket");
    let forged = "x, method=PLAIN, rip=203.0.113.66, lip=198.51.100.1, mpid=7";
    let user = |name: &str| {
        format!("{name}:{{PLAIN}}{PASSWORD}::::::proxy=y host=127.0.0.2 nopassword=y\n")
    };
    let setup = Setup {
        name: "dovecot",
        files: vec![
            (
                "etc/dovecot/dovecot.conf",
                MAILU_IMAP.to_owned() + &deployed("suites/mailu/dovecot.conf"),
            ),
            ("etc/dovecot/front.conf", MAILU_FRONT.to_owned()),
            ("etc/dovecot/front-users", user("joe@example.org")),
        ],
        start: "mkdir -m 777 /tmp/home; dovecot -F & dovecot -F -c /etc/dovecot/front.conf &
until : < /dev/tcp/127.0.0.2/143; do sleep 0.1; done
"
        .to_owned(),
        ports: &[POP3, IMAP],
    };
    let mut mailu = start_maild(maild.path(), &setup, &volume);
    wait_for_dovecot(&mut mailu, maild.path());
    for port in [POP3, IMAP] {
        assert!(!Session::open(OTHER, port).authenticate(forged, PASSWORD));
        assert!(!Session::open(OTHER, port).log_in("joe@example.org", "wrong"));
    }
    for (client, port) in [(CLIENT, POP3), ("198.51.100.9", IMAP)] {
        assert!(Session::open(client, port).log_in("joe@example.org", PASSWORD), "{client}");
        let authorised = within(PATIENCE, || daemon.query(client));
        assert!(authorised, "{client} is not authorised: {}", daemon.log());
    }
    assert_eq!(daemon.authorised().len(), 2, "{:?}", daemon.authorised());
}
