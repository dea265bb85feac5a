//! The rig examined by itself, and what real forwarders and the real Postfix do: the ground that
//! the other tests with real peers stand on.

use std::fs;
use std::process::Command;

use crate::support::forwarder::{Form, Forwarder, Program};
use crate::support::postfix::{OWN_DOMAIN, Postfix};
use crate::support::wire::Wire;

/// Addresses as a map of three lines shows them to Postfix: only the whole address counts.
#[test]
fn postfix_admits_the_listed_client_alone() {
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
        for stranger in ["198.51.100.8", "198.51.100.70", "2001:db8:1:2:3:4:5:7", "127.0.0.1"] {
            let reply = postfix.rcpt(stranger, "far@elsewhere.example");
            assert_eq!(reply.code, 554, "{map_type} {stranger}");
            assert!(reply.text.contains("Relay access denied"), "{}", reply.text);
        }
        let mut session = postfix.session("198.51.100.8");
        assert_eq!(session.rcpt(&format!("someone@{OWN_DOMAIN}")).code, 250, "own domain");
        assert_eq!(session.rcpt("far@elsewhere.example").code, 554, "one session, many RCPTs");
    }
}

/// What forwarders make of syslog(3) frames, in each form and over both ways.
#[test]
fn forwarders_send_what_a_mail_daemon_logs() {
    const DOVECOT: &str = "pop3-login: Login: user=<joe>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, mpid=7, session=<a>";
    const CYRUS: &str = "login: [198.51.100.7] joe plaintext User logged in";
    for (program, form) in Program::ALL.into_iter().flat_map(|it| Form::ALL.map(|form| (it, form)))
    {
        let dir = crate::support::directory();
        for wire in [Wire::udp(), Wire::unix(dir.path().join("far"))] {
            let ear = wire.bind();
            let forwarder = Forwarder::start(program, &wire, form);
            forwarder.log(format!("<22>Nov 22 07:31:23 dovecot: {DOVECOT}"));
            forwarder.log(format!("<21>Nov  5 07:31:23 cyrus/pop3[350]: {CYRUS}"));
            let dovecot = ear.frame_with("rip=198.51.100.7");
            let cyrus = ear.frame_with("[198.51.100.7]");

            let version = if form == Form::Rfc5424 { "1 " } else { "" };
            // syslog-ng ends every frame with a line feed, rsyslog those of RFC 5424; of the blank
            // before MSG in syslog(3), rsyslog makes a second one there.
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

/// A raw line feed never makes two frames of one: rsyslog escapes it, syslog-ng passes it on.
#[test]
fn a_line_feed_stays_inside_its_frame() {
    for (program, seen) in [(Program::Rsyslog, "x#012<22>"), (Program::SyslogNg, "x\n<22>")] {
        let wire = Wire::udp();
        let ear = wire.bind();
        let forwarder = Forwarder::start(program, &wire, Form::Traditional);
        forwarder.log(
            "<22>Nov 22 07:31:23 imapd[9]: failed user=x\n<22>Nov 22 07:31:23 imapd[9]: Login",
        );
        let frame = ear.frame_with("failed");
        assert!(frame.contains(seen), "{program:?} {frame:?}");
    }
}
