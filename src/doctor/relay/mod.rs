//! Checks that Postfix queries pop-before-smtp in time: the restrictions of each smtpd service.
//!
//! - **Promise**: the lists are evaluated in smtpd's order for a client that only pop-before-smtp
//!   can authorise. Reports the first list that refuses it, with the corrected value.
//! - **Layers**: [`missing`] explains what main.cf has instead; here are the lists and their order.
//! - **Not here**: whether the channels work ([`super::map`], [`super::sockets`]).

mod missing;

use super::channels::Channel;
use super::findings::Report;
use super::postfix::master::MasterEntry;
use super::postfix::restrictions::{Evaluation, Restriction, corrected, evaluate};
use super::setup::{EARLIER, RECIPIENT, RELAY, Setup};

/// Why an authorised client is refused, or an unauthorised one accepted.
struct Problem {
    what: String,
    why: String,
    list: &'static str,
    /// The value that the list should have.
    value: String,
}

/// The examination of all lists.
struct Examination<'a> {
    setup: &'a Setup,
    channels: &'a [Channel],
    /// Mistaken tables: ours once, or meant to be.
    strays: Vec<String>,
}

/// Examines the restrictions of all services.
pub async fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    let examination =
        Examination { setup, channels, strays: missing::strays(setup, channels).await };
    let (special, plain): (Vec<&MasterEntry>, Vec<&MasterEntry>) =
        setup.master.smtpd.iter().partition(|service| Setup::is_special(service));
    let special: Vec<_> = special.into_iter().map(|s| (s, examination.problem(Some(s)))).collect();
    let (postconf, reload) = (setup.postconf(), setup.reload());
    let mut reported = None;
    if setup.master.smtpd.is_empty() {
        report.problem(
            "master.cf has no smtpd service",
            "This Postfix accepts no mail by SMTP.",
            "add to master.cf: smtp inet n - y - - smtpd",
        );
    } else if plain.is_empty() && special.iter().any(|(_, problem)| problem.is_none()) {
        report.ok("master.cf overrides the restrictions of every smtpd service");
    } else {
        match examination.problem(None) {
            Some(Problem { what, why, list, value }) => {
                report.problem(&what, why, format!("{postconf} -e '{list} = {value}' && {reload}"));
                reported = Some((what, list));
            }
            None => {
                report.ok(format!("main.cf queries pop-before-smtp before {RELAY} refuses anyone"))
            }
        }
    }
    for (service, problem) in special {
        let name = &service.name;
        let Some(problem) = problem else {
            report.ok(format!("{name} has its own restrictions, and queries pop-before-smtp"));
            continue;
        };
        // The fix of main.cf also fixes this service.
        let is_reported = reported.as_ref().is_some_and(|(what, list)| {
            *what == problem.what && !service.overrides.contains_key(*list)
        });
        if is_reported {
            continue;
        }
        report.note(
            format!("{name} has its own restrictions in master.cf: {}", problem.what),
            format!("{} No login authorises relaying through this service.", problem.why),
            format!(
                "leave it if its users use SMTP AUTH; otherwise: {postconf} -P '{name}/{}={}' && {reload}",
                problem.list, problem.value
            ),
        );
    }
    examination.unused(report);
    examination.dynamic_clients(report);
}

impl Examination<'_> {
    fn is_ours(&self, restriction: &Restriction) -> bool {
        self.channels.iter().any(|channel| channel.is_meant_by(restriction, &self.setup.queue))
    }

    /// Returns a list with our restriction in its place, and without mistaken ones.
    fn corrected(&self, list: &[Restriction]) -> String {
        let drop = |r: &Restriction| self.is_ours(r) || self.is_mistaken(r);
        let Some(channel) = self.channels.first() else { return String::new() };
        let mut ours = channel.restriction(&self.setup.queue);
        // Mail for our own domains need not wait for a reply.
        let early = |r: &Restriction| r.name == "permit_auth_destination";
        if channel.serve().is_some() && !list.iter().any(early) {
            ours = format!("permit_auth_destination, {ours}");
        }
        corrected(list, drop, &ours)
    }

    fn problem(&self, service: Option<&MasterEntry>) -> Option<Problem> {
        let list = |name| self.setup.list(service, name);
        let is_ours = |r: &Restriction| self.is_ours(r);
        let refuses = |list: &[Restriction]| list.iter().any(Restriction::refuses);
        let problem = |name, what: String, why: &str| {
            let value = self.corrected(&list(name));
            Some(Problem { what, why: why.to_owned(), list: name, value })
        };
        for name in EARLIER {
            if let Evaluation::Refused { by, .. } = evaluate(&list(name), is_ours) {
                let what = format!("{name} refuses every client with `{by}`");
                return problem(
                    name,
                    what,
                    "It is evaluated before the lists that query pop-before-smtp.",
                );
            }
        }
        let (relay, recipient) = (list(RELAY), list(RECIPIENT));
        match (evaluate(&relay, is_ours), evaluate(&recipient, is_ours)) {
            (Evaluation::Asked { .. }, Evaluation::Refused { by, .. }) => problem(
                RECIPIENT,
                format!("{RECIPIENT} refuses clients that {RELAY} accepts: `{by}`"),
                "A client must pass both lists, and this one refuses before it queries pop-before-smtp.",
            ),
            (Evaluation::Asked { after, .. }, Evaluation::Open | Evaluation::Undecided)
                if !refuses(after) =>
            {
                problem(
                    RELAY,
                    format!("{RELAY} refuses no one after it queries pop-before-smtp"),
                    "Anyone can relay, with or without a login: an open relay.",
                )
            }
            (Evaluation::Asked { .. }, _) => None,
            (Evaluation::Open | Evaluation::Undecided, Evaluation::Asked { after, .. })
                if refuses(after) =>
            {
                None
            }
            (Evaluation::Refused { by, asked_later: true }, _) => problem(
                RELAY,
                format!("{RELAY} queries pop-before-smtp too late: after `{by}`"),
                "smtpd evaluates the list in order, and this refuses every recipient in another \
                 domain. What follows it is never reached.",
            ),
            (Evaluation::Refused { by, .. }, _) => {
                let (what, why) = self.absence(service, by);
                problem(RELAY, what, &why)
            }
            (_, Evaluation::Refused { by, .. }) => {
                let (what, why) = self.absence(service, by);
                problem(RECIPIENT, what, &why)
            }
            _ => problem(
                RELAY,
                format!("neither {RELAY} nor {RECIPIENT} refuses unauthorised clients"),
                "Anyone can relay, with or without a login: an open relay.",
            ),
        }
    }

    /// Reports channels that main.cf does not name while it names another.
    fn unused(&self, report: &mut Report) {
        let is_named = |channel: &Channel| {
            let names = |r: &Restriction| channel.is_meant_by(r, &self.setup.queue);
            self.setup.all_lists().any(|(_, _, list)| list.iter().any(names))
        };
        let (named, unused): (Vec<&Channel>, Vec<&Channel>) =
            self.channels.iter().partition(|channel| is_named(channel));
        for channel in unused.into_iter().filter(|_| !named.is_empty()) {
            report.note(
                format!("main.cf does not name the {channel}"),
                "The daemon provides it, but no smtpd uses it.",
                "leave it, or remove it from the daemon's configuration",
            );
        }
    }

    /// Reports lists that may refuse dynamic addresses before they query pop-before-smtp.
    fn dynamic_clients(&self, report: &mut Report) {
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]) {
            let list = self.setup.list(None, name);
            let before = list.iter().take_while(|restriction| !self.is_ours(restriction));
            if let Some(judge) = before.into_iter().find(|r| r.judges_clients()) {
                report.note(
                    format!("{name} has `{judge}` before it queries pop-before-smtp"),
                    "It may refuse clients with dynamic addresses even after a login.",
                    format!(
                        "{} -e '{name} = {}' && {}",
                        self.setup.postconf(),
                        self.earlier(&list),
                        self.setup.reload()
                    ),
                );
            }
        }
    }

    /// Returns a list with our restriction before those that judge clients.
    fn earlier(&self, list: &[Restriction]) -> String {
        let ours = self.channels.first().map(|channel| channel.restriction(&self.setup.queue));
        let mut result: Vec<String> = Vec::new();
        let mut ours = ours;
        for restriction in list.iter().filter(|restriction| !self.is_ours(restriction)) {
            if restriction.judges_clients() {
                result.extend(ours.take());
            }
            result.push(restriction.to_string());
        }
        result.join(", ")
    }
}
