//! How much an authorised client may relay, and the record of it, with the real Postfix: what it
//! asks, how often, and what its clients are told. (An hour later: tests/engine/limits.rs.)

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::live::{Kind, POLICY, Site};
use crate::support::daemon::Daemon;
use crate::support::postfix::{OWN_DOMAIN, Session};
use crate::support::{PATIENCE, eventually};

const CLIENT: &str = "198.51.100.7";
const FAR: &str = "someone@elsewhere.example";

fn user(name: &str) -> String {
    format!("{name}@{OWN_DOMAIN}")
}

/// Returns messages and recipients of an address, as `list` shows them.
fn relayed(daemon: &Daemon, address: &str) -> (u64, u64) {
    let list = daemon.list();
    let list = list.as_array().expect("a list");
    let entry = list.iter().find(|entry| entry["address"] == address).expect("it is authorised");
    let count = |name: &str| entry[name].as_u64().expect("a number");
    (count("messages"), count("recipients"))
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.command(&["status", "--json"]).stdout).expect("JSON")
}

/// Returns the lines of the daemon's log with this text.
fn logged(daemon: &Daemon, text: &str) -> Vec<String> {
    daemon.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[test]
fn the_fourth_message_is_deferred() {
    let site = Site::configure(POLICY, Kind::Unix, &[]);
    let config = site.home.path().join("config.toml");
    fs::write(&config, "messages-per-hour = 3\n").expect("written");
    let mut daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let [mut plain, mut chrooted] = site.sessions(CLIENT);
    for turn in 0..3 {
        let session = if turn == 1 { &mut chrooted } else { &mut plain };
        let replies = [session.rcpt(FAR), session.add("other@elsewhere.example")];
        assert_eq!(replies.map(|reply| reply.code), [250, 250], "{}", site.postfix.log());
    }
    for session in [&mut plain, &mut chrooted] {
        let reply = session.rcpt(FAR);
        assert_eq!(reply.code, 450, "{}", reply.text);
        let text = "Limit of 3 messages per hour for this address reached; try again in 60 minutes";
        assert!(reply.text.starts_with("4.7.1") && reply.text.contains(text), "{}", reply.text);
        assert_eq!(session.rcpt(&user("ann")).code, 250, "mail to our own domain");
    }
    assert_eq!(site.postfix.relay("198.51.100.8"), 454, "not authorised at all");
    assert_eq!(relayed(&daemon, CLIENT), (3, 6));
    let status = status(&daemon);
    assert_eq!(
        (&status["relay"]["messages"], &status["relay"]["beyond_messages"]),
        (&3.into(), &2.into())
    );
    assert_eq!(logged(&daemon, "beyond a limit").len(), 1, "once a minute: {}", daemon.log());
    assert_eq!(logged(&daemon, "relaying a message").len(), 3, "{}", daemon.log());

    fs::write(&config, "messages-per-hour = 4\n").expect("written");
    daemon.signal(Signal::SIGHUP);
    eventually("the limit is higher", PATIENCE, || plain.rcpt(FAR).code == 250);
    assert_eq!(plain.rcpt(FAR).code, 450, "what was counted before counts");

    fs::write(&config, "messages-per-hour = 4\nlimit-action = 'revoke'\n").expect("written");
    daemon.signal(Signal::SIGHUP);
    eventually("the grant ends", PATIENCE, || {
        plain.rcpt(FAR);
        !daemon.query(CLIENT)
    });
    assert_eq!(plain.rcpt(FAR).code, 454);
    let blocks = daemon.command(&["list", "--blocked", "--json"]).stdout;
    let blocks: Value = serde_json::from_slice(&blocks).expect("JSON");
    assert_eq!(blocks[0]["address"], CLIENT);
    let rest = blocks[0]["ends_in"].as_u64().expect("seconds");
    assert!((3000..=3600).contains(&rest), "{blocks}");
    assert!(daemon.stop().success());
}

/// Each accepted recipient counts once, also if two restriction lists ask; refused ones do not.
#[test]
fn a_hundred_recipients_are_a_hundred() {
    let bound = ["--sender=user", "--sender-domains", OWN_DOMAIN, "--recipients-per-hour=150"];
    let site = Site::configure(POLICY, Kind::Unix, &bound);
    let asks =
        "check_policy_service { unix:pop-before-smtp/policy, timeout=3s, default_action=DUNNO }";
    site.postfix.set(
        "smtpd_recipient_restrictions",
        &format!("check_recipient_access inline:{{ {{ bad@elsewhere.example = reject }} }}, {asks}, permit"),
    );
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut session = site.postfix.session(CLIENT);
    assert_eq!(session.rcpt_from(&user("eve"), FAR).code, 454, "not joe's sender");
    assert_eq!(session.rcpt_from("joe@elsewhere.example", FAR).code, 454);
    assert_eq!(relayed(&daemon, CLIENT), (0, 0), "refused recipients do not count");
    let mut send = |recipients: u32| {
        session.begin(&user("joe"));
        let replies =
            (0..recipients).map(|n| session.add(&format!("to{n}@elsewhere.example")).code);
        replies.filter(|code| *code == 250).count()
    };
    assert_eq!(send(100), 100, "{}", site.postfix.log());
    assert_eq!(relayed(&daemon, CLIENT), (1, 100));
    assert_eq!(send(60), 50);
    assert_eq!(relayed(&daemon, CLIENT), (2, 150));
    assert_eq!(status(&daemon)["relay"]["beyond_recipients"], 10);
}

/// Postfix delivers to one recipient as often as the client names another original one.
#[test]
fn without_dsn_a_recipient_cannot_be_repeated() {
    let site = Site::configure(POLICY, Kind::Unix, &["--recipients-per-hour=1"]);
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let repeated = || {
        let mut session = site.postfix.session(CLIENT);
        session.begin(&user("joe"));
        ["a@elsewhere.example", "b@elsewhere.example"]
            .map(|original| session.add_for(FAR, original).code)
    };
    assert_eq!(repeated(), [250, 250]);
    assert_eq!(relayed(&daemon, CLIENT), (1, 1));
    site.postfix.set("smtpd_discard_ehlo_keywords", "dsn");
    eventually("Postfix refuses it", PATIENCE, || repeated() == [501, 501]);
}

#[test]
fn users_behind_one_address_have_limits_of_their_own() {
    let site = Site::configure(POLICY, Kind::Unix, &[]);
    let table = site.home.path().join("limits");
    fs::write(&table, format!("{} messages-per-hour=2\n", user("bob"))).expect("written");
    let config =
        format!("sender = 'user'\nmessages-per-hour = 3\nlimits = '{}'\n", table.display());
    fs::write(site.home.path().join("config.toml"), config).expect("written");
    let daemon = site.daemon();
    site.postfix.start();
    let mut session = site.postfix.session(CLIENT);
    for (name, limit) in [("joe", 3), ("ann", 3), ("bob", 2)] {
        site.login(&daemon, &user(name), CLIENT);
        for _ in 0..limit {
            assert_eq!(session.rcpt_from(&user(name), FAR).code, 250, "{name}");
        }
        let reply = session.rcpt_from(&user(name), FAR);
        let text = format!("Limit of {limit} messages per hour for this user reached");
        assert!(reply.code == 450 && reply.text.contains(&text), "{name}: {}", reply.text);
    }
    assert_eq!(relayed(&daemon, CLIENT), (8, 8));
}

/// Sends a message to two recipients elsewhere and to one of our own.
fn send(session: &mut Session) {
    session.begin(&user("joe"));
    for recipient in [FAR, "other@elsewhere.example", &user("ann")] {
        assert_eq!(session.add(recipient).code, 250, "{recipient}");
    }
    assert_eq!(session.finish().code, 250);
}

#[test]
fn messages_are_recorded_with_their_queue_id() {
    let site = Site::configure(POLICY, Kind::Unix, &[]);
    site.postfix.add("main.cf", include_str!("../../deploy/postfix/main.cf.record"));
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut session = site.postfix.session(CLIENT);
    send(&mut session);
    let begun = logged(&daemon, "relaying a message");
    assert_eq!(begun.len(), 1, "{}", daemon.log());
    let sender = user("joe");
    for part in [
        &format!("address={CLIENT} user=\"joe\" sender=\"{sender}\" instance=\"") as &str,
        "daemon=\"dovecot\" since=\"20",
    ] {
        assert!(begun[0].contains(part), "{part}: {}", begun[0]);
    }
    assert!(!begun[0].contains("queue_id"), "there is none yet: {}", begun[0]);
    eventually("the end is logged", PATIENCE, || !logged(&daemon, "relayed a message").is_empty());
    let ended = logged(&daemon, "relayed a message");
    let (_, id) = ended[0].split_once("queue_id=\"").expect("a queue id");
    let (id, _) = id.split_once('"').expect("its end");
    assert!(ended[0].contains("recipients=3 size="), "{}", ended[0]);
    let log = site.postfix.log();
    let taken = log.lines().find(|line| line.contains("smtpd") && line.contains("client=unknown["));
    assert!(taken.is_some_and(|line| line.contains(&format!("{id}: client="))), "{id}: {log}");
    assert_eq!(relayed(&daemon, CLIENT), (1, 2), "the end of a message counts nothing");

    // Mail that needs no authorisation is not ours.
    session.begin(&user("joe"));
    assert_eq!(session.add(&user("ann")).code, 250);
    assert_eq!(session.finish().code, 250);
    send(&mut session);
    eventually("the next one is logged", PATIENCE, || {
        logged(&daemon, "relayed a message").len() == 2
    });
    assert_eq!(logged(&daemon, "relaying a message").len(), 2);
}

/// Nothing is lost and nothing counts twice, also in a session that is open while the daemon restarts:
/// Postfix repeats its request over a new connection. The counters begin anew.
#[test]
fn a_restart_begins_a_new_hour() {
    let site = Site::configure(POLICY, Kind::Unix, &["--messages-per-hour=2"]);
    let daemon = site.daemon();
    site.postfix.start();
    site.login(&daemon, "joe", CLIENT);
    let mut session = site.postfix.session(CLIENT);
    assert_eq!(session.rcpt(FAR).code, 250);
    session.begin(&user("joe"));
    assert_eq!(session.add(FAR).code, 250);
    assert_eq!(relayed(&daemon, CLIENT), (2, 2));
    assert!(daemon.stop().success());
    let daemon = site.daemon();
    assert_eq!(relayed(&daemon, CLIENT), (0, 0));
    assert_eq!(session.add("other@elsewhere.example").code, 250, "{}", site.postfix.log());
    assert_eq!(session.finish().code, 250);
    assert_eq!(relayed(&daemon, CLIENT), (1, 1));
    assert_eq!([250, 450].map(|_| session.rcpt(FAR).code), [250, 450]);
    assert_eq!(relayed(&daemon, CLIENT), (2, 2));
}
