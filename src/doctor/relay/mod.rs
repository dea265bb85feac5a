//! Checks that Postfix queries pop-before-smtp in time: the restrictions of each smtpd service.
//!
//! - **Promise**: the lists are evaluated in smtpd's order for a client that only pop-before-smtp
//!   can authorise. Reports the first list that refuses it, with commands that mend it.
//! - **Layers**: [`missing`] explains what main.cf has instead; [`advice`] computes what to change;
//!   here are the lists and their order.
//! - **Not here**: whether the channels work ([`super::map`], [`super::sockets`]).

mod advice;
mod missing;

use super::channels::Channel;
use super::findings::Report;
use super::postfix::corrections::spared;
use super::postfix::known::fault;
use super::postfix::master::MasterEntry;
use super::postfix::restrictions::{Evaluation, Restriction, evaluate};
use super::setup::{Change, EARLIER, LATER, RECIPIENT, RELAY, Setup};

/// What happens if no list refuses unauthorised clients.
const OPEN_RELAY: &str = "Either smtpd does not start (it logs `specify at least one working \
    instance of`), or anyone can relay: an open relay.";

/// Why an authorised client is refused, or an unauthorised one accepted.
struct Problem {
    what: String,
    why: String,
    /// The list to change.
    list: &'static str,
}

/// The examination of all lists.
#[derive(Clone, Copy)]
struct Examination<'a> {
    setup: &'a Setup,
    channels: &'a [Channel],
    /// Mistaken tables: ours once, or meant to be.
    strays: &'a [String],
}

/// Examines the restrictions of all services.
pub async fn examine(setup: &Setup, channels: &[Channel], report: &mut Report) {
    let strays = missing::strays(setup, channels).await;
    let examination = Examination { setup, channels, strays: &strays };
    examination.services(report);
    examination.unused(report);
    examination.dynamic_clients(report);
    examination.tls(report);
}

impl Examination<'_> {
    fn is_ours(&self, restriction: &Restriction) -> bool {
        self.channels.iter().any(|channel| channel.is_meant_by(restriction, &self.setup.queue))
    }

    /// Returns the same examination of another configuration.
    fn on<'b>(&'b self, setup: &'b Setup) -> Examination<'b> {
        Examination { setup, ..*self }
    }

    fn is_named(&self, channel: &Channel) -> bool {
        let names = |r: &Restriction| channel.is_meant_by(r, &self.setup.queue);
        self.setup.all_lists().any(|(_, _, list)| list.iter().any(names))
    }

    /// Reports which services query pop-before-smtp in time.
    fn services(&self, report: &mut Report) {
        let (special, plain): (Vec<&MasterEntry>, Vec<&MasterEntry>) =
            self.setup.master.smtpd.iter().partition(|service| Setup::is_special(service));
        let special: Vec<_> =
            special.into_iter().map(|s| (s, self.problem(Some(&s.name)))).collect();
        let overriding = special.iter().any(|(_, problem)| problem.is_none());
        let mut reported = None;
        if self.setup.master.smtpd.is_empty() {
            report.problem(
                "master.cf has no smtpd service",
                "This Postfix accepts no mail by SMTP.",
                "add to master.cf: smtp inet n - y - - smtpd",
            );
        } else if plain.is_empty() {
            if overriding {
                report.ok("master.cf overrides the restrictions of every smtpd service");
            }
        } else if let Some(problem) = self.problem(None) {
            report.problem(&problem.what, &problem.why, self.fix(None));
            reported = Some(problem);
        } else {
            report.ok(format!("main.cf queries pop-before-smtp before {RELAY} refuses anyone"));
        }
        let none_relays = plain.is_empty() && !overriding;
        let only_submission = special.iter().all(|(service, _)| is_submission(&service.name));
        for (service, problem) in special {
            let name = &service.name;
            let Some(problem) = problem else {
                report.ok(format!("{name} has its own restrictions, and queries pop-before-smtp"));
                continue;
            };
            // The fix of main.cf also fixes this service.
            let is_reported = reported.as_ref().is_some_and(|main| {
                main.what == problem.what && !service.overrides.contains_key(main.list)
            });
            if is_reported {
                continue;
            }
            let what = format!("{name} has its own restrictions in master.cf: {}", problem.what);
            let fix = self.fix(Some(name));
            if none_relays && (only_submission || !is_submission(name)) {
                let why = "They override main.cf, and no other service queries pop-before-smtp.";
                report.problem(what, format!("{} {why}", problem.why), fix);
            } else {
                let why = "No login authorises relaying through this service.";
                let fix = format!("leave it if its users use SMTP AUTH; otherwise: {fix}");
                report.note(what, format!("{} {why}", problem.why), fix);
            }
        }
    }

    fn problem(&self, service: Option<&str>) -> Option<Problem> {
        let list = |name| self.setup.list(service, name);
        let is_ours = |r: &Restriction| self.is_ours(r);
        let refuses = |list: &[Restriction]| {
            let decides = |r: &&Restriction| r.refuses() || r.name == "permit";
            list.iter().find(decides).is_some_and(Restriction::refuses)
        };
        let problem =
            |list, what: String, why: &str| Some(Problem { what, why: why.to_owned(), list });
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]) {
            let list = list(name);
            let faults = list.iter().filter_map(|r| Some((r, fault(r)?)));
            if let Some((restriction, fault)) = faults.into_iter().next() {
                return problem(
                    name,
                    format!("{name} has `{restriction}`: {fault}"),
                    "smtpd answers 451, Server configuration error, to every recipient for whom it gets \
                     that far, also in your own domains.",
                );
            }
        }
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
        let mut later = None;
        for name in LATER {
            if let Evaluation::Refused { by, .. } = evaluate(&list(name), is_ours) {
                let what = format!("{name} refuses every client with `{by}`");
                let why = "It is evaluated when the client sends the message, after its recipients were \
                           accepted.";
                later = problem(name, what, why);
                break;
            }
        }
        let (relay, recipient) = (list(RELAY), list(RECIPIENT));
        match (evaluate(&relay, is_ours), evaluate(&recipient, is_ours)) {
            (Evaluation::Asked { .. }, Evaluation::Refused { by, .. }) => problem(
                RECIPIENT,
                format!("{RECIPIENT} refuses clients that {RELAY} accepts: `{by}`"),
                "A client must pass both lists, and this one refuses before it queries pop-before-smtp.",
            ),
            (Evaluation::Asked { after, .. }, Evaluation::Open { .. } | Evaluation::Undecided)
                if !refuses(after) =>
            {
                problem(
                    RELAY,
                    format!("{RELAY} refuses no one after it queries pop-before-smtp"),
                    OPEN_RELAY,
                )
            }
            (Evaluation::Asked { .. }, _) => later,
            (Evaluation::Open { .. } | Evaluation::Undecided, Evaluation::Asked { after, .. })
                if refuses(after) =>
            {
                later
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
            (Evaluation::Open { by }, _) => {
                problem(RELAY, format!("{RELAY} accepts every client with `{by}`"), OPEN_RELAY)
            }
            _ => problem(
                RELAY,
                format!("neither {RELAY} nor {RECIPIENT} refuses unauthorised clients"),
                OPEN_RELAY,
            ),
        }
    }

    /// Reports channels that main.cf does not name while it names another.
    fn unused(&self, report: &mut Report) {
        let (named, unused): (Vec<&Channel>, Vec<&Channel>) =
            self.channels.iter().partition(|channel| self.is_named(channel));
        for channel in unused.into_iter().filter(|_| !named.is_empty()) {
            report.note(
                format!("main.cf does not name the {channel}"),
                "The daemon provides it, but no smtpd uses it.",
                "leave it, or remove it from the daemon's configuration",
            );
        }
    }

    /// Reports that devices without TLS are refused.
    fn tls(&self, report: &mut Report) {
        let services = self.setup.master.smtpd.iter();
        let own =
            |service: &MasterEntry| service.overrides.contains_key("smtpd_tls_security_level");
        if self.setup.tls_level != "encrypt" || services.clone().all(own) {
            return;
        }
        let name = "smtpd_tls_security_level";
        report.note(
            format!("Postfix takes mail over TLS only: {name} = encrypt"),
            "A device that cannot do STARTTLS gets `530 5.7.0 Must issue a STARTTLS command first`, even \
             after a login.",
            format!(
                "leave it if all devices can do STARTTLS; otherwise: {} && {}",
                self.setup.set(name, "may"),
                self.setup.reload()
            ),
        );
    }

    /// Reports lists that may refuse such clients before they query pop-before-smtp.
    fn dynamic_clients(&self, report: &mut Report) {
        let advice = self.advice(None);
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]) {
            let list = self.setup.list(None, name);
            let mut before = list.iter().take_while(|restriction| !self.is_ours(restriction));
            let judge =
                before.find_map(|restriction| Some((restriction, restriction.may_refuse()?)));
            let Some((judge, whom)) = judge else { continue };
            // After the changes that other findings advise, so that these commands keep them.
            let commands = advice.as_ref().and_then(|advice| {
                let now = self.on(&advice.setup);
                let list = now.setup.list(None, name);
                let is_ours = |r: &Restriction| self.is_ours(r);
                let value =
                    spared(&list, is_ours, Restriction::judges_clients, &self.restriction());
                let change = Change { service: None, list: name, value };
                let is_sound = now.on(&now.setup.with(&change)).problem(None).is_none();
                is_sound.then(|| self.setup.commands(&[change]))
            });
            report.note(
                format!("{name} has `{judge}` before it queries pop-before-smtp"),
                format!("It may refuse {whom} even after a login."),
                commands.unwrap_or_else(|| format!("edit {}", self.by_hand())),
            );
        }
    }
}

/// Returns whether a service of master.cf is for SMTP AUTH by its port (RFC 6409, RFC 8314).
fn is_submission(service: &str) -> bool {
    let address = service.split('/').next().unwrap_or_default();
    let port = address.rsplit(':').next().unwrap_or_default();
    matches!(port, "submission" | "submissions" | "smtps" | "587" | "465")
}
