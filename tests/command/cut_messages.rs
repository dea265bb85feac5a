//! `doctor` with real forwarders that cut messages.

use serde_json::Value;

use crate::support::directory;
use crate::support::forwarder::{Forwarder, Program};
use crate::support::site::{By, Site};
use crate::support::wire::Wire;

const USUAL: &str = "permit_mynetworks, CHECK, reject_unauth_destination";

/// By a limit of rsyslog and one of syslog-ng, and by a template, at Dovecot's `max-length`.
#[test]
fn cut_messages() {
    let rsyslog =
        |socket: &str| format!("$ModLoad omuxsock\n$OMUxSockSocket {socket}\n*.* :omuxsock:;cut\n");
    let template = |text: &str| {
        format!(
            "template(name=\"cut\" type=\"string\" string=\"<%PRI%>%TIMESTAMP% %syslogtag%{text}\")\n"
        )
    };
    let syslog_ng = |socket: &str| {
        format!(
            "destination far {{ unix-dgram(\"{socket}\"); }};\n\
             log {{ source(s_src); destination(far); }};\n"
        )
    };
    for (program, limit) in [
        (Program::Rsyslog, format!("global(maxMessageSize=\"256\")\n{}", template("%msg%"))),
        (Program::Rsyslog, template("%msg:1:801%")),
        (Program::SyslogNg, "options { log-msg-size(512); };\n".to_owned()),
    ] {
        let dir = directory();
        let wire = Wire::unix(dir.path().join("log.sock"));
        let forward = |wire: &Wire| {
            let socket = wire.to_string().replace("unix:", "");
            let rule =
                if program == Program::Rsyslog { rsyslog(&socket) } else { syslog_ng(&socket) };
            Forwarder::start_with(program, &(limit.clone() + &rule))
        };
        let site = Site::with(dir, &wire, forward, By::Map, USUAL, &[]);
        site.finds(
            "problem",
            "the forwarder cuts messages: one of 900 bytes does not arrive whole",
            "A short one does (facility mail). A line that is cut can look like a login",
            "rsyslog: $MaxMessageSize",
        );
        assert!(site.daemon().authorised().is_empty(), "probes authorise nobody");
        let status = site.daemon().command(&["status", "--json"]).stdout;
        let status: Value = serde_json::from_slice(&status).expect("JSON");
        for counter in ["malformed", "other_programs", "excluded", "refused"] {
            assert_eq!(status["counts"][counter], 0, "{counter}: {status:#}");
        }
        assert!(status["logins"] == 0 && status["last_login"].is_null(), "{status:#}");
    }
}
