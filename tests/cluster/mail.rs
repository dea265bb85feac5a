//! A mailbox host and two hosts that relay: a POP3 login at the first lets the client relay through
//! both others, through one by its map and through the other by policy.

use super::site::{Host, options};
use crate::support::client::{POP3, Session};
use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::home::Home;
use crate::support::maild::{PASSWORD, Setup, start_maild};
use crate::support::redis::Redis;
use crate::support::{PATIENCE, directory, eventually, network, within};

const CLIENT: &str = "198.51.100.7";
const STRANGER: &str = "198.51.100.8";

fn dovecot() -> Setup {
    let conf = "protocols = pop3
listen = *
base_dir = /run/dovecot
default_internal_user = daemon
default_internal_group = daemon
default_login_user = guard
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=joe gid=joe home=/tmp/home
}
";
    Setup {
        name: "dovecot",
        files: vec![
            ("etc/dovecot/dovecot.conf", conf.to_owned()),
            ("etc/dovecot/users", format!("joe:{{PLAIN}}{PASSWORD}\n")),
        ],
        start: "mkdir -m 777 /tmp/home; dovecot -F &".to_owned(),
        ports: &[POP3],
    }
}

/// Starts a host whose Postfix asks by policy.
fn start_with_policy(name: &str, url: &str) -> Host {
    let home = Home::new();
    let socket = format!("unix:{}", home.at("policy.sock").display());
    let ask = format!("check_policy_service {socket}, reject_unauth_destination");
    home.postfix.set("smtpd_relay_restrictions", &ask);
    let policy = format!("{socket},mode=0666");
    let daemon = home.start(&options(name, &[url], &["--policy", &policy]));
    Host { name: name.to_owned(), home, daemon }
}

#[test]
fn login_on_a_third_host_lets_a_client_relay_through_two() {
    network::enter();
    let redis = Redis::start(&[]);
    let url = redis.url();
    let by_map = Host::start("mx1", &[&url], &[]);
    let by_policy = start_with_policy("mx2", &url);
    let hosts = [&by_map, &by_policy];
    hosts.iter().for_each(|host| host.start_postfix());
    // Each host has a syslog daemon; the mailbox host logs to that of the first.
    let logs = hosts.map(|it| Forwarder::start(Program::Rsyslog, &it.home.wire, Form::Traditional));
    let dir = directory();
    let _dovecot = start_maild(dir.path(), &dovecot(), logs[0].input());
    let listens = || network::connect(network::MAIL_HOST[0], POP3).is_ok();
    assert!(within(PATIENCE, listens), "{}", logs[0].record());

    for host in hosts {
        assert_eq!(host.home.postfix.relay(CLIENT), 554, "{}", host.name);
    }
    assert!(Session::open(CLIENT, POP3).log_in("joe", PASSWORD), "{}", logs[0].record());
    for host in hosts {
        let relays = within(PATIENCE, || host.home.postfix.relay(CLIENT) == 250);
        assert!(relays, "{}: {}\n{}", host.name, host.daemon.log(), logs[0].record());
        assert_eq!(host.home.postfix.relay(STRANGER), 554, "{}", host.name);
        assert_eq!(host.daemon.list()[0]["origin"], "mx1");
        assert_eq!(host.daemon.list()[0]["user"], "joe");
    }
    by_policy.command(&["revoke", CLIENT]);
    for host in hosts {
        eventually(&host.name, PATIENCE, || host.home.postfix.relay(CLIENT) == 554);
    }
}
