//! Test messages of `doctor`, to find out which messages reach the daemon.
//!
//! - **Promise**: a probe authorises nobody and changes no counter except that of frames.
//! - **Forms**: a message of a program of its own, for each facility; a long one, to find out whether
//!   it arrives whole; and the login line of a mail daemon, with a user that nobody has and a loopback
//!   address or none.
//! - **Limits**: only the last few are remembered, and only short ones, since any local user can
//!   write them.

use std::collections::VecDeque;
use std::net::IpAddr;

/// The program name of a probe that is not a login. No mail daemon has it.
pub const PROGRAM: &str = "pop-before-smtp-doctor";
/// The beginning of the text of such a probe.
pub const WORD: &str = "probe ";
/// The beginning of the user of a probe that is a login. No account has such a name.
pub const USER: &str = "pop-before-smtp-probe-";

/// Bytes of the text of a long probe: more than the longest login line that the built-in descriptions
/// accept, and with its header fewer than the 1024 that RFC 3164 has every forwarder accept.
pub const LONG_TEXT: usize = 900;
/// What a long probe begins with, up to the blank before what it is remembered by.
const PADDING: char = 'x';

/// More than twice as many as there are probes in one examination.
const MAX_PROBES: usize = 100;
/// Longest text in bytes: the prefix, a number and a facility.
const MAX_TEXT: usize = 64;

/// Returns whether a login with this address and user is a probe. It grants nothing, whoever has
/// logged it.
pub fn is_login(address: Option<IpAddr>, user: &str) -> bool {
    let is_loopback = address.is_none_or(|address| address.to_canonical().is_loopback());
    is_loopback && user.starts_with(USER)
}

/// Returns the text of a long probe that is remembered by `short`, the text of a probe. That is its
/// end, so that nothing is remembered of a message that was cut.
pub fn long(short: &str) -> String {
    format!("{} {short}", PADDING.to_string().repeat(LONG_TEXT.saturating_sub(short.len() + 1)))
}

/// Returns by what a long probe is remembered; `None`: it is none, or not whole.
fn end_of_long(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(PADDING).filter(|_| text.len() == LONG_TEXT)?;
    rest.trim_start_matches(PADDING).strip_prefix(' ')
}

/// The last probes that were received.
#[derive(Debug, Default)]
pub struct Probes(VecDeque<String>);

impl Probes {
    /// Remembers a text, if it is a probe.
    pub fn record(&mut self, text: &str) {
        let text = end_of_long(text).unwrap_or(text);
        if !(text.starts_with(WORD) || text.starts_with(USER)) || text.len() > MAX_TEXT {
            return;
        }
        if self.0.len() == MAX_PROBES {
            self.0.pop_front();
        }
        self.0.push_back(text.to_owned());
    }

    /// Returns how often a probe was received.
    pub fn count(&self, text: &str) -> usize {
        self.0.iter().filter(|probe| *probe == text).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::correlation::streams::Source;
    use crate::engine::maildaemons::{DaemonTable, Selection};
    use crate::engine::time::Time;
    use crate::engine::verdict::{Reason, Verdict};
    use crate::engine::{Engine, Rules};

    #[test]
    fn a_probe_is_recognised_in_every_format_and_has_no_effect() {
        let mut engine = Engine::new(Rules::default());
        let (now, source) = (Time::default(), Source { receiver: 0, sender: None });
        for (number, frame) in [
            format!("<22>Nov 22 07:31:23 {PROGRAM}[7]: probe 0"),
            format!("<134>Nov 22 07:31:23 mx1 {PROGRAM}[7]: probe 1\n"),
            format!("<22>1 2026-11-22T07:31:23+00:00 mx1 {PROGRAM} 7 - - probe 2"),
        ]
        .iter()
        .enumerate()
        {
            let outcome = engine.process(now, source, frame.as_bytes());
            assert_eq!(
                (outcome.verdict, outcome.reason),
                (Verdict::None, Reason::Probe),
                "{frame}"
            );
            assert_eq!(engine.probes().count(&format!("probe {number}")), 1, "{frame}");
        }
        assert!(engine.clients_at(now) == 0 && engine.stats().other_programs == 0);
    }

    #[test]
    fn the_last_probes_are_remembered_if_they_are_short() {
        let mut probes = Probes::default();
        let long = format!("{WORD}{}", "x".repeat(MAX_TEXT));
        for no_probe in ["", "hello", long.as_str()] {
            probes.record(no_probe);
            assert_eq!(probes.count(no_probe), 0, "{no_probe}");
        }
        let probe = |number: usize| format!("{WORD}{number}");
        (0..=MAX_PROBES).for_each(|number| probes.record(&probe(number)));
        assert_eq!(probes.count(&probe(0)), 0, "the oldest is forgotten");
        assert!((1..=MAX_PROBES).all(|number| probes.count(&probe(number)) == 1));
        probes.record(&probe(7));
        assert_eq!(probes.count(&probe(7)), 2, "received twice");
    }

    #[test]
    fn a_long_probe_is_recorded_only_if_it_is_whole() {
        let mut engine = Engine::new(Rules::default());
        let text = long("probe 7 whole");
        assert!(text.len() == LONG_TEXT && text.len() > 800 && text.ends_with("x probe 7 whole"));
        let mut process = |text: &str| {
            let frame = format!("<22>Nov 22 07:31:23 mx1 {PROGRAM}[7]: {text}");
            let outcome = engine.process(Time::default(), Source::default(), frame.as_bytes());
            assert_eq!(outcome.reason, Reason::Probe, "{text}");
            engine.probes().count("probe 7 whole")
        };
        let padded = format!("x probe 7 whole{}", "x".repeat(LONG_TEXT));
        for cut in [&text[..LONG_TEXT - 1], &text[..200], &text[1..], &padded[..LONG_TEXT]] {
            assert_eq!(process(cut), 0, "{cut}");
        }
        assert_eq!(process(&text), 1);
        assert!(engine.clients_at(Time::default()) == 0 && engine.stats().other_programs == 0);
    }

    fn all_daemons() -> Engine {
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        Engine::new(Rules { table, ..Rules::default() })
    }

    #[test]
    fn a_login_probe_grants_nothing_without_any_exclusion() {
        let mut engine = all_daemons();
        let user = format!("{USER}7");
        let mut process = |frame: String| {
            let outcome = engine.process(Time::default(), Source::default(), frame.as_bytes());
            (outcome.verdict, outcome.reason)
        };
        let dovecot = |user: &str, address: &str| {
            let rest = format!("method=PLAIN, rip={address}, lip=127.0.0.1, session=<a>");
            format!("<22>Nov 22 07:31:23 dovecot: imap-login: Login: user=<{user}>, {rest}")
        };
        let probe = (Verdict::None, Reason::Probe);
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "::1"] {
            assert_eq!(process(dovecot(&user, address)), probe, "{address}");
        }
        // Half of a login, with and without the other half: the connection is used up.
        let popa3d = |text: &str| format!("<30>Nov 22 07:31:23 popa3d[7]: {text}");
        let passed = popa3d(&format!("Authentication passed for {user}"));
        assert_eq!(process(passed.clone()), probe);
        assert_eq!(process(popa3d("Session from 192.0.2.7")).0, Verdict::Partial);
        assert_eq!(process(passed), probe);
        let joe = process(popa3d("Authentication passed for joe"));
        assert_eq!(joe, (Verdict::Partial, Reason::NoConnection));
        assert_eq!(engine.probes().count(&user), 5);
        assert_eq!((engine.clients_at(Time::default()), engine.stats().logins), (0, 0));

        // An address that can be a client's is a login like any other.
        let frame = dovecot(&user, "192.0.2.7");
        let outcome = engine.process(Time::default(), Source::default(), frame.as_bytes());
        assert_eq!(outcome.verdict, Verdict::Login);
    }

    /// The second fragment of a split line may read like a login.
    #[test]
    fn a_login_probe_between_two_fragments_changes_nothing() {
        let courier = |text: &str| format!("<22>Nov 22 07:31:23 pop3d: {text}");
        let login = |user: &str, address: &str| {
            courier(&format!("LOGIN, user={user}, ip=[{address}], port=[4711]"))
        };
        let mut engine = all_daemons();
        let mut process = |frame: &str| {
            engine.process(Time::default(), Source::default(), frame.as_bytes()).reason
        };
        process(&courier(&format!("LOGIN FAILED, user={}", "x".repeat(490))));
        assert_eq!(process(&login(&format!("{USER}7"), "127.0.0.1")), Reason::Probe);
        assert_eq!(process(&login("joe", "192.0.2.7")), Reason::Continuation);
    }
}
