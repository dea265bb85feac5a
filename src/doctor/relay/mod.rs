//! Whether Postfix asks us in time: the restrictions of each smtpd service.
//!
//! Promise  the lists are followed in smtpd's order for a client that only we can let relay. The
//!          first that refuses him is told, with the list as it should be.
//! Layers   `missing` says what main.cf has in our place; here the lists and their order.
//! Not here whether what is asked answers (`map`, `sockets`).

mod missing;

use super::channels::Channel;
use super::findings::Report;
use super::postfix::master::MasterEntry;
use super::postfix::restrictions::{Evaluation, Restriction, corrected, follow};
use super::setup::{EARLIER, RECIPIENT, RELAY, Setup};

/// Why the client is not let in, or who is let in besides.
struct Problem {
    what: String,
    why: String,
    list: &'static str,
    /// The value that the list should have.
    value: String,
}

/// What is looked for in the lists.
struct Examination<'a> {
    setup: &'a Setup,
    channels: &'a [Channel],
    /// Tables that were ours once, or were meant to be.
    strays: Vec<String>,
}

/// Examines the restrictions of all services.
pub async fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    let look = Examination { setup, channels, strays: missing::strays(setup, channels).await };
    let (special, plain): (Vec<&MasterEntry>, Vec<&MasterEntry>) =
        setup.master.smtpd.iter().partition(|service| Setup::is_special(service));
    let special: Vec<_> = special.into_iter().map(|s| (s, look.problem(Some(s)))).collect();
    let (postconf, reload) = (setup.postconf(), setup.reload());
    let mut told = None;
    if setup.master.smtpd.is_empty() {
        report.problem(
            "master.cf has no smtpd service",
            "Nobody can send mail through this Postfix.",
            "add to master.cf: smtp inet n - y - - smtpd",
        );
    } else if plain.is_empty() && special.iter().any(|(_, problem)| problem.is_none()) {
        report.ok("master.cf has restrictions of its own for every smtpd service");
    } else {
        match look.problem(None) {
            Some(Problem { what, why, list, value }) => {
                report.problem(&what, why, format!("{postconf} -e '{list} = {value}' && {reload}"));
                told = Some((what, list));
            }
            None => report.ok(format!("main.cf asks us in {RELAY} before anything refuses")),
        }
    }
    for (service, problem) in special {
        let name = &service.name;
        let Some(problem) = problem else {
            report.ok(format!("{name} has restrictions of its own, and asks us"));
            continue;
        };
        // What mends main.cf mends this service too.
        let is_told = told.as_ref().is_some_and(|(what, list)| {
            *what == problem.what && !service.overrides.contains_key(*list)
        });
        if is_told {
            continue;
        }
        report.note(
            format!("{name} has restrictions of its own in master.cf: {}", problem.what),
            format!("{} So pop-before-smtp lets nobody relay through this service.", problem.why),
            format!(
                "leave it if its users do SMTP AUTH; else {postconf} -P '{name}/{}={}' && {reload}",
                problem.list, problem.value
            ),
        );
    }
    look.unused(report);
    look.dynamic_clients(report);
}

impl Examination<'_> {
    fn is_ours(&self, restriction: &Restriction) -> bool {
        self.channels.iter().any(|channel| channel.is_meant_by(restriction, &self.setup.queue))
    }

    /// A list with our line in its place, and without those that were meant to be it.
    fn corrected(&self, list: &[Restriction]) -> String {
        let drop = |r: &Restriction| self.is_ours(r) || self.stands_for_us(r);
        let Some(channel) = self.channels.first() else { return String::new() };
        let mut words = channel.words(&self.setup.queue);
        // Mail for our own domains need not wait for an answer.
        let early = |r: &Restriction| r.name == "permit_auth_destination";
        if channel.serve().is_some() && !list.iter().any(early) {
            words = format!("permit_auth_destination, {words}");
        }
        corrected(list, drop, &words)
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
            if let Evaluation::Refused { by, .. } = follow(&list(name), is_ours) {
                let what = format!("{name} refuses everybody who comes to its `{by}`");
                return problem(name, what, "It is evaluated before the lists that ask us.");
            }
        }
        let (relay, recipient) = (list(RELAY), list(RECIPIENT));
        match (follow(&relay, is_ours), follow(&recipient, is_ours)) {
            (Evaluation::Asked { .. }, Evaluation::Refused { by, .. }) => problem(
                RECIPIENT,
                format!("{RECIPIENT} refuses by `{by}` whom {RELAY} lets in"),
                "A client must pass both lists, and this one does not ask us before it refuses.",
            ),
            (Evaluation::Asked { after, .. }, Evaluation::Open | Evaluation::Undecided)
                if !refuses(after) =>
            {
                problem(
                    RELAY,
                    format!("nothing after our line in {RELAY} refuses strangers"),
                    "Everybody may relay, logged in or not: an open relay.",
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
                format!("{RELAY} asks us too late: after `{by}`"),
                "smtpd goes through the list in order, and this refuses every recipient in a \
                 foreign domain. What stands after it is never reached.",
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
                format!("neither {RELAY} nor {RECIPIENT} refuses strangers"),
                "Everybody may relay, logged in or not: an open relay.",
            ),
        }
    }

    /// Several channels, of which one is named and another is not.
    fn unused(&self, report: &mut Report) {
        let is_named = |channel: &Channel| {
            let names = |r: &Restriction| channel.is_meant_by(r, &self.setup.queue);
            self.setup.all_lists().any(|(_, _, list)| list.iter().any(names))
        };
        let (named, unused): (Vec<&Channel>, Vec<&Channel>) =
            self.channels.iter().partition(|w| is_named(w));
        for channel in unused.into_iter().filter(|_| !named.is_empty()) {
            report.note(
                format!("main.cf does not name the {channel}"),
                "The daemon keeps it, and no smtpd asks it.",
                "leave it, or take it out of the daemon's configuration",
            );
        }
    }

    /// Our clients are on dynamic addresses, which many lists of others refuse.
    fn dynamic_clients(&self, report: &mut Report) {
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]) {
            let list = self.setup.list(None, name);
            let before = list.iter().take_while(|restriction| !self.is_ours(restriction));
            if let Some(judge) = before.into_iter().find(|r| r.judges_clients()) {
                report.note(
                    format!("{name} has `{judge}` before it asks us"),
                    "Clients on dynamic addresses fall to that, logged in or not.",
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

    /// A list with our line before what judges clients.
    fn earlier(&self, list: &[Restriction]) -> String {
        let words = self.channels.first().map(|channel| channel.words(&self.setup.queue));
        let mut others: Vec<String> = Vec::new();
        let mut words = words;
        for restriction in list.iter().filter(|restriction| !self.is_ours(restriction)) {
            if restriction.judges_clients() {
                others.extend(words.take());
            }
            others.push(restriction.to_string());
        }
        others.join(", ")
    }
}
