//! From a frame to its outcome.
//!
//! - **Promise**: each step can only take trust away. A login counts only if its host is accepted,
//!   the line is neither a continuation nor a repetition, a pattern of a daemon matches as a whole,
//!   the frame is not late, the process is trusted, the address may be authorised, and no rule
//!   refuses the login. Every refusal has its reason. Messages that end something or take trust away
//!   count even in continuations and late frames.

use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::correlation::aging::Full;
use super::correlation::joins::Unjoined;
use super::correlation::key::Key;
use super::correlation::streams::Source;
use super::events::EventKind;
use super::grants::grant::{Grant, GrantedBy};
use super::grants::{GrantOutcome, GrantRequest};
use super::maildaemons::{Event, Match, Name, Refusal};
use super::message::Message;
use super::message::probes;
use super::message::syslog::Frame;
use super::time::Time;
use super::verdict::{Outcome, Reason, Verdict};

/// What rsyslog's `$RepeatedMsgReduction` puts before the message that was repeated.
const REPEATED: &str = "message repeated ";

/// A login that is still being checked.
struct Login<'a> {
    process: Option<Key>,
    suspect: Option<Key>,
    session: Option<Key>,
    /// Its age, by the date in the message.
    age: Option<Duration>,
    joins: bool,
    address: Option<IpAddr>,
    user: Option<String>,
    daemon: Name,
    host: Option<&'a str>,
    facility: Option<u8>,
}

impl Engine {
    /// Processes one frame: the bytes of one datagram, which are one message.
    pub fn process(&mut self, now: Time, source: Source, frame: &[u8]) -> Outcome {
        self.stats.frames += 1;
        let frame = Frame::new(frame);
        match frame.message() {
            Ok(message) => {
                let length = frame.raw_body_len(&message);
                let outcome = self.process_message(now, source, &message, length);
                let user = outcome.user.filter(|_| self.rules.remember_users);
                let outcome = Outcome { user, ..outcome };
                if outcome.verdict == Verdict::Excluded {
                    self.tell_excluded(now, &outcome);
                }
                outcome
            }
            Err(why) => {
                self.stats.malformed += 1;
                nothing(Reason::Malformed(why))
            }
        }
    }

    fn process_message(
        &mut self,
        now: Time,
        source: Source,
        message: &Message<'_>,
        length: usize,
    ) -> Outcome {
        // Before anything is remembered: other hosts must not fill the tables.
        if !self.rules.hosts.allows(message.host) {
            self.stats.other_hosts += 1;
            return nothing(Reason::OtherHost(message.host.map(str::to_owned)));
        }
        // Written by the syslog server: neither a fragment nor a continuation of the daemon's.
        if message.text().starts_with(REPEATED) {
            return nothing(Reason::Repeated);
        }
        let known = self.rules.table.program(message.program);
        let of_nginx = message.of_nginx().filter(|_| known.is_none());
        let message = &of_nginx.unwrap_or(*message);
        let Some(program) = known.or_else(|| self.rules.table.program(message.program)) else {
            if message.program == probes::PROGRAM {
                self.probes.record(message.text());
                return nothing(Reason::Probe);
            }
            self.stats.other_programs += 1;
            return nothing(Reason::UnknownProgram(message.program.to_owned()));
        };
        let found = program.read(message, length);
        // Before anything is remembered: a probe must not take the place of a continuation.
        if let Match::Event(daemon, Event::Login { address, user: Some(user), .. }) = &found
            && probes::is_login(*address, user)
        {
            let daemon = Some(daemon.name.clone());
            self.probes.record(user);
            // As after any login: no later login may use the connection.
            if address.is_none()
                && let Some(process) = self.streams.process(source, message)
            {
                // Probes are not joined, so it does not matter whether there is a connection.
                let _ = self.streams.joins.login(process, now);
            }
            return Outcome { daemon, ..nothing(Reason::Probe) };
        }
        let process = self.streams.process(source, message);
        let following = program.following(message, length);
        if let Some(next) = following.filter(|it| !it.is_nothing() || self.streams.may_continue()) {
            let stream = self.streams.stream(source, message);
            let continues = self.streams.is_continuation(stream, process, next.messages, now);
            let unsettled = self.streams.is_unsettled(stream, next.time, now);
            match (continues, unsettled) {
                _ if found.takes_trust_away() => {}
                (Err(Full), _) | (_, Err(Full)) => return self.overloaded(),
                (Ok(true), _) => return nothing(Reason::Continuation),
                (Ok(false), Ok(true)) => {
                    if let Match::Event(daemon, _) = found {
                        let daemon = Some(daemon.name.clone());
                        self.stats.refused += 1;
                        return Outcome {
                            daemon,
                            is_lost_login: true,
                            ..nothing(Reason::Unsettled)
                        };
                    }
                }
                (Ok(false), Ok(false)) => {}
            }
        }
        let (daemon, event) = match found {
            Match::NoPattern(daemon) => {
                let daemon = daemon.name.clone();
                self.stats.daemon(&daemon).unmatched();
                return match program.looks_like_login(message) {
                    Some(daemon) => Outcome {
                        daemon: Some(daemon.name.clone()),
                        is_lost_login: true,
                        ..nothing(Reason::UnknownLogin)
                    },
                    None => Outcome { daemon: Some(daemon), ..nothing(Reason::NoPattern) },
                };
            }
            Match::Refused(daemon, why) => {
                let daemon = Some(daemon.name.clone());
                let is_lost_login = program.looks_like_login(message).is_some();
                self.stats.refused += 1;
                if let (Refusal::TooLong, Some(process)) = (&why, process) {
                    // Its end was not read, and it may be the end of a connection or session.
                    self.streams.joins.end(process, now);
                    self.close(now, process);
                }
                return Outcome { daemon, is_lost_login, ..nothing(Reason::Refused(why)) };
            }
            Match::Event(daemon, event) => (daemon, event),
        };
        let name = daemon.name.clone();
        // Without a PID, distrust applies to the whole stream.
        let suspect = daemon
            .distrusts()
            .then(|| process.unwrap_or_else(|| self.streams.stream(source, message)));
        // A severity, where the frame has one, already tells foreign text from a login.
        let is_proved = daemon.is_told_by_severity() && message.severity.is_some();
        let suspect = suspect.filter(|_| !is_proved);
        let joins = daemon.joins();
        let by_process = process.filter(|_| daemon.pid_per_session);
        let age = message.stamp.map(|stamp| now.since(stamp));
        let late = age.filter(|age| *age > self.rules.grace);
        let outcome = match event {
            Event::Connect { address } if joins => {
                self.process_connect(now, process, address, late)
            }
            Event::Connect { address } => Outcome { address, ..nothing(Reason::ConnectedOnly) },
            Event::End { session } => {
                if let Some(process) = process {
                    self.streams.joins.end(process, now);
                }
                if let Some(key) = self.streams.session(source, message, session).or(process) {
                    self.close(now, key);
                }
                nothing(Reason::Ended)
            }
            Event::Distrust => match suspect.map(|key| self.streams.distrust(key, now)) {
                Some(Err(Full)) => self.overloaded(),
                _ => nothing(Reason::Distrust),
            },
            Event::Logout { address, user, session } => {
                if let Some(process) = process {
                    self.streams.joins.log_out(process, now);
                }
                let key = self.streams.session(source, message, session);
                if key.is_some() {
                    self.sessions.pairs(self.streams.stream(source, message));
                }
                if let Some(key) = key.or(by_process) {
                    self.close(now, key);
                }
                Outcome { verdict: Verdict::Logout, address, user, ..nothing(Reason::LoggedOut) }
            }
            Event::Login { address, user, session } => {
                let host = message.host;
                let session = self.streams.session(source, message, session);
                let is_paired =
                    |_: &Key| self.sessions.is_paired(self.streams.stream(source, message));
                let session = session.filter(is_paired).or(by_process);
                let daemon = name.clone();
                let facility = message.facility;
                let outcome = self.process_login(
                    now,
                    Login {
                        process,
                        suspect,
                        session,
                        age,
                        joins,
                        address,
                        user,
                        daemon,
                        host,
                        facility,
                    },
                );
                let is_lost_login = matches!(outcome.verdict, Verdict::None | Verdict::Partial);
                Outcome { is_lost_login, ..outcome }
            }
        };
        Outcome { daemon: Some(name), ..outcome }
    }

    /// Remembers the client of a process whose login line will not name it. The address of a late
    /// line is not used.
    fn process_connect(
        &mut self,
        now: Time,
        process: Option<Key>,
        address: Option<IpAddr>,
        late: Option<Duration>,
    ) -> Outcome {
        let fresh = address.filter(|_| late.is_none());
        if let Some(Err(Full)) = process.map(|key| self.streams.joins.connect(key, fresh, now)) {
            return self.overloaded();
        }
        if let Some(age) = late {
            self.stats.late += 1;
            return Outcome { address, ..nothing(Reason::Late(age)) };
        }
        match address {
            Some(_) => Outcome { verdict: Verdict::Partial, address, ..nothing(Reason::Connected) },
            None => nothing(Reason::ConnectedOnly),
        }
    }

    fn process_login(&mut self, now: Time, login: Login<'_>) -> Outcome {
        let user = login.user;
        if let Some(age) = login.age.filter(|age| *age > self.rules.grace) {
            let reason = self.late(now, login.address, age);
            return Outcome { address: login.address, user, ..nothing(reason) };
        }
        if let Some(process) = login.suspect
            && self.streams.is_distrusted(process, now)
        {
            self.stats.refused += 1;
            return Outcome { user, ..nothing(Reason::Distrusted) };
        }
        let joined = login.address.is_none();
        // Also for a login that names its address: no later login may use the same connection.
        let process = login.process.filter(|_| login.joins);
        let client = process.map(|process| self.streams.joins.login(process, now));
        let address = match (login.address, client) {
            (Some(address), _) | (None, Some(Ok(address))) => address,
            (None, Some(Err(Unjoined::Full))) => return Outcome { user, ..self.overloaded() },
            (None, unjoined) => {
                let reason = match unjoined {
                    Some(Err(Unjoined::Several)) => Reason::SeveralConnections,
                    Some(_) => Reason::NoConnection,
                    None => Reason::NoPid,
                };
                self.stats.ambiguous += u64::from(reason == Reason::SeveralConnections);
                return Outcome { verdict: Verdict::Partial, user, ..nothing(reason) };
            }
        };
        let outcome = |verdict, reason| Outcome {
            verdict,
            reason,
            daemon: None,
            address: Some(address),
            user: user.clone(),
            rule: None,
            is_lost_login: false,
        };
        if let Some(list) = self.rules.exclude.reason(address) {
            self.stats.excluded += 1;
            self.stats.daemon(&login.daemon).excluded();
            return outcome(Verdict::Excluded, Reason::Excluded(list.to_owned()));
        }
        if self.blocked_until(now, address).is_some() {
            self.stats.blocked += 1;
            return outcome(Verdict::Excluded, Reason::Blocked);
        }
        let ruling = self.rules.logins.ruling(address, user.as_deref());
        let (rule, grace) = (ruling.label(), ruling.grace(self.rules.grace));
        let remembered = user.clone().filter(|_| self.rules.remember_users);
        let grace = match grace {
            Ok(grace) => grace,
            Err(reason) => {
                self.stats.refused_by_rule += 1;
                self.stats.daemon(&login.daemon).excluded();
                self.count_refused(now, address, remembered);
                self.recent.refused(address, now, reason.clone());
                return Outcome { rule, ..outcome(Verdict::Excluded, reason) };
            }
        };
        if let Some(age) = login.age.filter(|age| *age > grace) {
            let reason = self.late(now, Some(address), age);
            return Outcome { rule, ..outcome(Verdict::None, reason) };
        }
        self.count_login(now, &login.daemon, login.facility);
        let request = GrantRequest {
            by: GrantedBy::Login(self.origins.share(&login.daemon, login.host)),
            span: self.span(now, address, remembered.clone(), login.session, grace),
            user: remembered,
            note: None,
        };
        let outcome = match self.grant(now, address, request) {
            GrantOutcome::Shared => outcome(Verdict::Excluded, Reason::Shared),
            granted if joined => outcome(Verdict::Login, Reason::Joined(granted)),
            granted => outcome(Verdict::Login, Reason::LoggedIn(granted)),
        };
        Outcome { rule, ..outcome }
    }

    /// Returns how long a login counts: its grace, or the ceiling if its session is open.
    fn span(
        &mut self,
        now: Time,
        address: IpAddr,
        user: Option<String>,
        session: Option<Key>,
        grace: Duration,
    ) -> Duration {
        let (Some(ceiling), Some(key)) = (self.rules.session_ceiling, session) else {
            return grace;
        };
        if self.sessions.is_open(key, now) {
            // Its log-out was lost, or is still to come and will end the new session too early.
            self.close(now, key);
        }
        let is_open = self.sessions.open(key, address, user, now, now + ceiling);
        if is_open { ceiling.max(grace) } else { grace }
    }

    /// Closes a session: its client keeps the grace of its login, or what other sessions grant.
    fn close(&mut self, now: Time, session: Key) {
        if self.rules.session_ceiling.is_none() {
            return;
        }
        let Some(closed) = self.sessions.close(session, now) else { return };
        let (address, max_users) = (closed.address, self.rules.max_users);
        let ruling = self.rules.logins.ruling(address, closed.user.as_deref());
        // New rules have ended the sessions that they refuse.
        let Ok(grace) = ruling.grace(self.rules.grace) else { return };
        let last = now + grace;
        let until = closed.address_until.max(Some(last));
        let user_until = closed.user_until.unwrap_or(last).max(last);
        let user = closed.user.zip(Some(user_until));
        let end = |grant: &mut Grant| grant.log_out(until, user, max_users);
        if self.cluster.is_some() {
            self.change_own(now, address, end);
        } else if self.grants.work_on(address, end) {
            self.changed(address);
            self.tell_grant(now, address, EventKind::Renewed);
        }
    }

    fn late(&mut self, now: Time, address: Option<IpAddr>, age: Duration) -> Reason {
        self.stats.late += 1;
        let reason = Reason::Late(age);
        if let Some(address) = address {
            self.recent.refused(address, now, reason.clone());
        }
        reason
    }

    fn count_login(&mut self, now: Time, daemon: &Name, facility: Option<u8>) {
        self.stats.logins += 1;
        self.stats.last_login = Some(now);
        self.stats.daemon(daemon).login(now, facility);
    }

    fn overloaded(&mut self) -> Outcome {
        self.stats.overloaded += 1;
        nothing(Reason::Overloaded)
    }
}

fn nothing(reason: Reason) -> Outcome {
    Outcome::nothing(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Rules;
    use crate::engine::maildaemons::{DaemonTable, Selection};
    use crate::engine::message::hosts::Hosts;

    /// Entries after which the tables are full.
    const CAPACITY: usize = 65_536;

    fn engine() -> Engine {
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        Engine::new(Rules { table, ..Rules::default() })
    }

    fn process(engine: &mut Engine, seconds: u64, frame: &str) -> Reason {
        let now = Time::from_millis(seconds * 1000);
        engine.process(now, Source::default(), frame.as_bytes()).reason
    }

    #[test]
    fn no_login_is_joined_while_connections_are_forgotten() {
        let mut engine = engine();
        let frame = |pid, text| format!("Nov 22 07:31:23 mx1 popa3d[{pid}]: {text}");
        let connect = |pid| frame(pid, "Session from 192.0.2.7");
        assert_eq!(first_refused(&mut engine, connect), Some(CAPACITY));
        let passed = frame(7, "Authentication passed for joe");
        assert_eq!(process(&mut engine, 1, &passed), Reason::Overloaded);
        assert_eq!(engine.stats().overloaded, 2);
        let named = frame(7, "Authentication passed for joe -- [192.0.2.7]");
        assert_eq!(process(&mut engine, 1, &named), Reason::LoggedIn(GrantOutcome::New));
        assert_eq!(process(&mut engine, 601, &connect(8)), Reason::Connected);
        let passed = frame(8, "Authentication passed for joe");
        assert_eq!(process(&mut engine, 601, &passed), Reason::Joined(GrantOutcome::Renewed));
    }

    /// Returns the number of the first of these frames that is refused because a table is full.
    fn first_refused(engine: &mut Engine, frame: impl Fn(usize) -> String) -> Option<usize> {
        (0..=CAPACITY).find(|&number| process(engine, 0, &frame(number)) == Reason::Overloaded)
    }

    #[test]
    fn daemons_with_split_lines_are_refused_while_fragments_are_forgotten() {
        let mut engine = engine();
        let name = "x".repeat(490); // with what stands before it, more than 505 bytes
        let fragment = |host| format!("Nov 22 07:31:23 mx{host} pop3d: LOGIN FAILED, user={name}");
        assert_eq!(first_refused(&mut engine, fragment), Some(CAPACITY));
        let courier = "Nov 22 07:31:23 mx pop3d: LOGIN, user=joe, ip=[192.0.2.7], port=[4711]";
        assert_eq!(
            process(&mut engine, 1, courier).to_string(),
            "refused: too many processes or split lines to remember; check for a flood of log \
             messages"
        );
        assert_eq!((engine.stats().overloaded, engine.stats().logins), (2, 0));
        let teapop = "Nov 22 07:31:23 mx teapop[7]: Successful login for joe [192.0.2.1] from \
                      client.example [192.0.2.8]";
        assert_eq!(
            process(&mut engine, 1, teapop),
            Reason::LoggedIn(GrantOutcome::New),
            "its lines are never split"
        );
        let day = 24 * 3600;
        assert_eq!(process(&mut engine, day, courier), Reason::Overloaded);
        assert_eq!(process(&mut engine, day + 1, courier), Reason::LoggedIn(GrantOutcome::New));
    }

    #[test]
    fn daemons_with_distrust_are_refused_while_distrusted_processes_are_forgotten() {
        let mut engine = engine();
        let away = |pid| format!("Nov 22 07:31:23 mx1 ipop3d[{pid}]: IMAP login to host=evil");
        assert_eq!(first_refused(&mut engine, away), Some(CAPACITY));
        let frame = |priority| {
            let login = "Login user=joe host=[192.0.2.7] nmsgs=0/0";
            format!("{priority}Nov 22 07:31:23 mx1 ipop3d[99999]: {login}")
        };
        assert_eq!(process(&mut engine, 1, &frame("")), Reason::Distrusted);
        assert_eq!((engine.stats().overloaded, engine.stats().refused), (1, 1));
        let reason = process(&mut engine, 1, &frame("<22>"));
        assert_eq!(reason, Reason::LoggedIn(GrantOutcome::New), "its severity proves it");
    }

    #[test]
    fn messages_of_other_hosts_are_counted_and_ignored() {
        let hosts = Hosts::Named(vec!["mx1".into()]);
        let mut engine = Engine::new(Rules { hosts, ..engine().rules });
        let teapop = |host| {
            let login = "Successful login for joe [192.0.2.1] from client.example [192.0.2.8]";
            format!("Nov 22 07:31:23 {host} teapop[7]: {login}")
        };
        let other = Reason::OtherHost(Some("mx2".into()));
        assert_eq!(process(&mut engine, 0, &teapop("mx2")), other);
        assert_eq!((engine.stats().other_hosts, engine.stats().logins), (1, 0));
        assert_eq!(process(&mut engine, 0, &teapop("mx1")), Reason::LoggedIn(GrantOutcome::New));
        assert_eq!((engine.stats().other_hosts, engine.stats().logins), (1, 1));
    }
}
