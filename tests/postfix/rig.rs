//! The test rig without the daemon: what real forwarders and the real Postfix do. The other tests
//! rely on it.

use std::fs;
use std::process::Command;

use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::postfix::{OWN_DOMAIN, Postfix};
use crate::support::wire::Wire;

/// Only a complete address matches.
#[test]
fn postfix_admits_only_listed_clients() {
    for map_type in ["hash", "lmdb", "cdb"] {
        let dir = crate::support::directory();
        let table = format!("{map_type}:{}", dir.path().join("clients").display());
        let postfix = Postfix::configure(&format!(
            "permit_mynetworks, check_client_access {table}, reject_unauth_destination"
        ));
        let listed = ["198.51.100.7", "2001:db8:1:2:3:4:5:6"];
        let source: String = listed.iter().map(|address| format!("{address} OK\n")).collect();
        fs::write(dir.path().join("clients"), source).unwrap();
        let made = Command::new("postmap").arg("-c").arg(postfix.config()).arg(&table).status();
        assert!(made.expect("postmap can be started").success(), "{table}");
        postfix.start();

        for client in listed {
            assert_eq!(postfix.relay(client), 250, "{map_type} {client}\n{}", postfix.log());
            assert_eq!(postfix.chrooted_session(client).rcpt("far@elsewhere.example").code, 250);
        }
        for other in ["198.51.100.8", "198.51.100.70", "2001:db8:1:2:3:4:5:7", "127.0.0.1"] {
            let reply = postfix.rcpt(other, "far@elsewhere.example");
            assert_eq!(reply.code, 554, "{map_type} {other}");
            assert!(reply.text.contains("Relay access denied"), "{}", reply.text);
        }
        let mut session = postfix.session("198.51.100.8");
        assert_eq!(session.rcpt(&format!("someone@{OWN_DOMAIN}")).code, 250, "own domain");
        assert_eq!(session.rcpt("far@elsewhere.example").code, 554, "one session, many RCPTs");
    }
}

/// The frames that forwarders make of syslog(3) messages, in each format and over both transports.
#[test]
fn forwarders_send_what_a_mail_daemon_logs() {
    const DOVECOT: &str = "pop3-login: Login: user=<joe>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, mpid=7, session=<a>";
    const CYRUS: &str = "login: [198.51.100.7] joe plaintext User logged in";
    for (program, form) in Program::ALL.into_iter().flat_map(|it| Form::ALL.map(|form| (it, form)))
    {
        let dir = crate::support::directory();
        for wire in [Wire::udp(), Wire::unix(dir.path().join("far"))] {
            let receiver = wire.bind();
            let forwarder = Forwarder::start(program, &wire, form);
            forwarder.log(format!("<22>Nov 22 07:31:23 dovecot: {DOVECOT}"));
            forwarder.log(format!("<21>Nov  5 07:31:23 cyrus/pop3[350]: {CYRUS}"));
            let dovecot = receiver.frame_with("rip=198.51.100.7");
            let cyrus = receiver.frame_with("[198.51.100.7]");

            let version = if form == Form::Rfc5424 { "1 " } else { "" };
            // syslog-ng ends every frame with a line feed, rsyslog those of RFC 5424. rsyslog also keeps
            // the space before the text of a syslog(3) message, after its own.
            let (tags, end) = match (program, form) {
                (Program::Rsyslog, Form::Rfc5424) => {
                    ([" dovecot - - -  ", " cyrus/pop3 350 - -  "], "\n")
                }
                (Program::Rsyslog, _) => ([" dovecot: ", " cyrus/pop3[350]: "], ""),
                (Program::SyslogNg, Form::Rfc5424) => (
                    [
                        " dovecot - - [meta sequenceId=\"1\"] ",
                        " cyrus/pop3 350 - [meta sequenceId=\"2\"] ",
                    ],
                    "\n",
                ),
                (Program::SyslogNg, _) => ([" dovecot: ", " cyrus/pop3[350]: "], "\n"),
            };
            let which = format!("{program:?} {form:?} {wire}");
            assert!(dovecot.starts_with(&format!("<22>{version}")), "{which} {dovecot:?}");
            assert!(
                dovecot.ends_with(&format!("{}{DOVECOT}{end}", tags[0])),
                "{which} {dovecot:?}"
            );
            assert!(cyrus.ends_with(&format!("{}{CYRUS}{end}", tags[1])), "{which} {cyrus:?}");
        }
    }
}

/// A raw line feed never splits a frame: rsyslog escapes it, syslog-ng forwards it.
#[test]
fn line_feed_does_not_split_a_frame() {
    for (program, seen) in [(Program::Rsyslog, "x#012<22>"), (Program::SyslogNg, "x\n<22>")] {
        let wire = Wire::udp();
        let receiver = wire.bind();
        let forwarder = Forwarder::start(program, &wire, Form::Traditional);
        forwarder.log(
            "<22>Nov 22 07:31:23 imapd[9]: failed user=x\n<22>Nov 22 07:31:23 imapd[9]: Login",
        );
        let frame = receiver.frame_with("failed");
        assert!(frame.contains(seen), "{program:?} {frame:?}");
    }
}
