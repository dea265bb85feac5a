//! popa3d, solid-pop3d and Cyrus.

use crate::support::client::{IMAP, POP3};
use crate::support::maild::{MailHost, PASSWORD, Setup};
use crate::{CLIENTS, POP3_CLIENTS, logins_count_and_nothing_else};

/// popa3d supports only IPv4, and few sessions at a time.
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

/// solid-pop3d started by inetd and tcpd, which logs under the same name.
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
