//! Sender ownership: Postfix's smtpd_sender_login_maps, as smtpd and as the daemon apply them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::support::daemon::Daemon;
use crate::support::postfix::Postfix;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, directory, eventually};

/// What smtpd expects of Dovecot before it offers SASL.
const SASL: &[u8] = b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t7\nCOOKIE\t00\nDONE\n";

/// Two maps, in their order.
const MAPS: [&str; 2] = [
    "info@example.org ann, joe@example.com\n@example.org bob\ncarl@example.net ann\n\
     dora+x@example.net bob\n@lists.example ann\n",
    "any@lists.example bob\ninfo@example.org eve\n@example.net eve\n",
];

/// The users, and the address from which each logs in.
const USERS: [(&str, &str); 7] = [
    ("ann", "203.0.113.1"),
    ("bob", "203.0.113.2"),
    ("carl", "203.0.113.3"),
    ("dora", "203.0.113.4"),
    ("eve", "203.0.113.5"),
    ("joe@example.com", "203.0.113.6"),
    ("info", "203.0.113.7"),
];

/// Senders that the maps list, and their owners.
const SENDERS: [(&str, &[&str]); 11] = [
    ("info@example.org", &["ann", "joe@example.com"]),
    ("Info+x@Example.org", &["ann", "joe@example.com"]),
    ("any@example.org", &["bob"]),
    ("ann@example.org", &["bob"]),
    ("sales@example.org", &["bob"]),
    ("carl@example.net", &["ann"]),
    ("carl+x@example.net", &["ann"]),
    ("dora@example.net", &["eve"]),
    ("dora+x@example.net", &["bob"]),
    ("any@lists.example", &["bob"]),
    ("other@lists.example", &["ann"]),
];

/// Senders that no map lists, and who may use them by the daemon's own rules.
const UNLISTED: [(&str, &[&str]); 4] = [
    ("eve@example.edu", &["eve"]),
    ("joe@example.com", &["joe@example.com"]),
    ("table@example.edu", &["dora"]),
    ("any@elsewhere.example", &[]),
];

/// An smtpd that restricts senders to their owners and accepts any login.
fn postfix(home: &Path) -> (Postfix, Vec<String>) {
    let sasl = home.join("sasl");
    let listener = UnixListener::bind(&sasl).expect("a socket");
    fs::set_permissions(&sasl, fs::Permissions::from_mode(0o666)).expect("it is ours");
    thread::spawn(move || {
        for mut smtpd in listener.incoming().flatten() {
            let _ = smtpd.write_all(SASL);
            thread::spawn(move || smtpd.read_to_end(&mut Vec::new()));
        }
    });
    let postfix = Postfix::configure("reject_unauth_destination");
    let mut maps = Vec::new();
    for (number, entries) in MAPS.iter().enumerate() {
        let map = home.join(format!("owners{number}"));
        fs::write(&map, entries).expect("written");
        let map = format!("hash:{}", map.display());
        let done = Command::new("postmap").arg("-c").arg(postfix.config()).arg(&map).status();
        assert!(done.expect("postmap can be started").success());
        maps.push(map);
    }
    for (name, value) in [
        // A client that impersonates another may also impersonate a user.
        ("smtpd_authorized_xclient_hosts", "127.0.0.1, 203.0.113.0/24"),
        ("recipient_delimiter", "+"),
        ("smtpd_sasl_auth_enable", "yes"),
        ("smtpd_sasl_type", "dovecot"),
        ("smtpd_sasl_path", &*sasl.display().to_string()),
        ("smtpd_sender_login_maps", &*maps.join(", ")),
        ("smtpd_sender_restrictions", "reject_known_sender_login_mismatch"),
    ] {
        postfix.set(name, value);
    }
    (postfix, maps)
}

/// Returns whether the daemon lets Postfix accept a sender.
fn permits(asked: &mut UnixStream, client: &str, sender: &str) -> bool {
    let request = format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={client}\n\
         sender={sender}\n\n"
    );
    asked.write_all(request.as_bytes()).expect("it listens");
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n\n") {
        let mut byte = [0];
        asked.read_exact(&mut byte).expect("it answers");
        reply.extend(byte);
    }
    let permitted = reply == b"action=OK\n\n";
    let text = String::from_utf8_lossy(&reply);
    assert!(permitted || text == "action=DUNNO\n\n", "{text}");
    permitted
}

#[test]
fn daemon_and_postfix_agree_on_sender_owners() {
    let home = directory();
    let (postfix, maps) = postfix(home.path());
    postfix.start();
    let table = home.path().join("senders");
    let ours = "ann sales@example.org\neve info@example.org\ndora table@example.edu\n";
    fs::write(&table, ours).expect("written");
    let (wire, socket) = (Wire::udp(), home.path().join("asked"));
    let mut options = vec![
        "--listen".to_owned(),
        wire.to_string(),
        format!("--policy=unix:{}", socket.display()),
        "--sender=user".into(),
        "--sender-domains=example.org".into(),
        "--sender-domains=example.net".into(),
        "--sender-domains=example.edu".into(),
        format!("--sender-table={}", table.display()),
        format!("--postfix-config={}", postfix.config().display()),
    ];
    options.extend(maps.iter().map(|map| format!("--sender-login-map={map}")));
    let daemon = Daemon::start(home.path(), &options);
    for (user, client) in USERS {
        let frame = format!(
            "<22>Nov 22 08:57:07 dovecot: imap-login: Logged in: user=<{user}>, method=PLAIN, \
             rip={client}, lip=192.0.2.100, mpid=84, TLS, session=<a>"
        );
        wire.send(frame.as_bytes());
        eventually(&format!("{user} is authorised"), PATIENCE, || daemon.query(client));
    }
    let mut asked = UnixStream::connect(&socket).expect("it listens");
    asked.set_read_timeout(Some(PATIENCE)).expect("a time limit");

    for (user, client) in USERS {
        let mut session = postfix.session(client);
        session.log_in(user);
        for (sender, owners) in SENDERS {
            let owns = owners.contains(&user);
            let reply = session.rcpt_from(sender, "joe@rig.test");
            assert_eq!(reply.code == 250, owns, "Postfix: {user} as {sender}: {reply:?}");
            assert_eq!(permits(&mut asked, client, sender), owns, "{user} as {sender}");
        }
        for (sender, owners) in UNLISTED {
            let reply = session.rcpt_from(sender, "joe@rig.test");
            assert_eq!(reply.code, 250, "Postfix: {user} as {sender}: {reply:?}");
            let owns = owners.contains(&user);
            assert_eq!(permits(&mut asked, client, sender), owns, "{user} as {sender}");
        }
    }
}
