//! Runs a mail daemon's examples through the engine itself.
//!
//! - **Promise**: an example is processed exactly as by the running daemon, by an engine with only
//!   this mail daemon, as described in its file, and without exclusions.

use crate::engine::correlation::streams::Source;
use crate::engine::maildaemons::{
    DaemonTable, DescriptionFault, Example, ExpectedVerdict, MailDaemon,
};
use crate::engine::time::Time;
use crate::engine::verdict::{Outcome, Verdict};
use crate::engine::{Engine, Rules};

/// Processes every example of a daemon and returns those with another outcome than expected.
pub fn prove(daemon: &MailDaemon) -> Vec<DescriptionFault> {
    daemon.examples.iter().filter_map(|example| fault(daemon, example)).collect()
}

fn fault(daemon: &MailDaemon, example: &Example) -> Option<DescriptionFault> {
    let table = DaemonTable::of(vec![daemon.as_described()]);
    let mut engine = Engine::new(Rules { table, ..Rules::default() });
    let outcome = example
        .lines
        .iter()
        .map(|line| engine.process(Time::default(), Source::default(), line.as_bytes()))
        .last()?;
    let what = difference(example, &outcome)?;
    Some(DescriptionFault {
        origin: daemon.origin.clone().unwrap_or_else(|| daemon.name.to_string()),
        line: Some(example.file_line),
        what: format!("the example fails: {what}"),
    })
}

fn difference(example: &Example, outcome: &Outcome) -> Option<String> {
    let expected = match example.verdict {
        ExpectedVerdict::Login => Verdict::Login,
        ExpectedVerdict::Logout => Verdict::Logout,
        ExpectedVerdict::Partial => Verdict::Partial,
        ExpectedVerdict::None => Verdict::None,
    };
    if outcome.verdict != expected {
        let (wanted, got) = (expected.as_str(), outcome.verdict.as_str());
        return Some(format!("expected verdict `{wanted}`, got `{got}` ({})", outcome.reason));
    }
    let address = outcome.address.map(|address| address.to_string());
    let fields = [("address", &example.address, &address), ("user", &example.user, &outcome.user)];
    fields.into_iter().find_map(|(name, wanted, got)| match wanted {
        Some(wanted) if got.as_ref() != Some(wanted) => {
            let got = got.as_deref().map_or("none".into(), |got| format!("`{got}`"));
            Some(format!("expected {name} `{wanted}`, got {got}"))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::maildaemons;
    use crate::engine::maildaemons::DaemonFile;

    #[test]
    fn every_built_in_example_holds() {
        let (daemons, mut faults) = maildaemons::all(&[]);
        faults.extend(daemons.iter().flat_map(prove));
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    const FILE: &str = r#"
name = "sample"
title = "Sample"
programs = ["sampled"]
facilities = ["mail"]

[[connect]]
pattern = '^from (?<address>[0-9.]+)$'

[[login]]
pattern = '^in (?<user>\S*)$'

[[end]]
pattern = '^out$'

[[example]]
lines = ["sampled[1]: from 192.0.2.7", "sampled[1]: in joe"]
verdict = "login"
address = "192.0.2.7"
user = "joe"

[[example]]
lines = ["sampled[1]: from 192.0.2.7", "sampled[1]: out", "sampled[1]: in joe"]
verdict = "partial"

[[example]]
lines = ["<14>sampled[1]: from 192.0.2.7", "sampled[1]: in joe"]
verdict = "partial"
"#;

    fn faults(text: &str) -> Vec<String> {
        let file = DaemonFile { origin: Some("own.toml".into()), text: text.to_owned() };
        let found = match file.compile() {
            Ok(daemon) => prove(&daemon),
            Err(faults) => faults,
        };
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_name_file_line_and_cause() {
        assert_eq!(faults(FILE), [""; 0]);
        let rows = [
            (
                "user = \"joe\"",
                "user = \"jim\"",
                "own.toml:18: the example fails: expected user `jim`, got `joe`",
            ),
            (
                "'^in ",
                "'in ",
                "own.toml:11: the pattern is not anchored at the start: begin it with ^",
            ),
            ("\"mail\"", "\"male\"", "own.toml: `male` is not a syslog facility"),
            ("title", "titel", "own.toml:3: unknown field `titel`"),
            ("<address>", "<client>", "own.toml: a [[login]] pattern without the group `address`"),
            ("name = \"sample\"", "name = \"Sample\"", "own.toml: `name` must consist of"),
            ("(?<user>", "(?=<user>", "own.toml:11: regex parse error"),
            (r"\S*", r"\S*\w{9000}", "own.toml:11: Compiled regex exceeds size limit"),
            ("[\"sampled\"]", "[]", "own.toml: `programs` must name at least one syslog program"),
            ("[[login]]", "[[end]]", "own.toml: there is no [[login]] pattern"),
            (
                "facilities = [\"mail\"]",
                "max-length = 1025\nfacilities = [\"mail\"]",
                "own.toml: `max-length` must be at most 1024",
            ),
            (
                "[[login]]",
                "[[cut]]\npattern = '^x'\nlength = 505\ntails = 0\n[[login]]",
                "own.toml:11: `length` of a [[cut]] must be at least 1, and so must `tails` or `seconds`",
            ),
            (
                "verdict = \"login\"",
                "verdict = \"none\"",
                "own.toml: there is no [[example]] of a login",
            ),
            (
                "'^out$'",
                "'^out$'\nprograms = [\"others\"]",
                "own.toml:14: `others` is not one of the daemon's `programs`",
            ),
            (
                "'^in (?<user>\\S*)$'",
                "'^in (?<user>\\S*)$'\nsame = [\"user\", \"again\"]",
                "own.toml:11: `same` names the group `again`, which the pattern does not have",
            ),
            (
                "facilities = [\"mail\"]",
                "severities = [\"warn\"]",
                "own.toml: `warn` is not a syslog severity (one of emerg, alert, crit, err, ",
            ),
            (
                "[[end]]",
                "[[shape]]\ncause = \"stranger\"\npattern = '(x'\n[[end]]",
                "own.toml:15: regex parse error",
            ),
            (
                "[[end]]",
                "[[shape]]\ncause = \"stranger\"\nseverities = [\"debug\"]\npattern = 'x'\n[[end]]",
                "own.toml:16: a [[shape]] with `severities` needs a [[distrust]] pattern, for \
                 messages that arrive without a severity",
            ),
            (
                "lines = [\"sampled[1]: from 192.0.2.7\", \"sampled[1]: in joe\"]",
                "lines = []",
                "own.toml:18: an example needs either `line` or `lines`",
            ),
            (
                "lines = [\"sampled[1]: from 192.0.2.7\", \"sampled[1]: in joe\"]",
                "line = \"sampled[1]: in joe\"\nlines = [\"sampled[1]: in joe\"]",
                "own.toml:19: an example needs either `line` or `lines`",
            ),
            (
                "verdict = \"partial\"",
                "verdict = \"partial\"\naddress = \"192.0.2.7\"",
                "own.toml:24: the example fails: expected address `192.0.2.7`, got none",
            ),
        ];
        for (old, new, expected) in rows {
            let found = faults(&FILE.replace(old, new));
            assert!(found.iter().any(|fault| fault.starts_with(expected)), "{new}: {found:?}");
        }
    }

    const STRICT: &str = r#"
name = "strict"
title = "Strict"
programs = ["strictd"]
facilities = ["mail"]
severities = ["info"]
max-length = 600

[[login]]
pattern = '^in (?<user>[^,]*), as (?<again>[^,]*), from (?<address>[^,]*)(?:, .*)?$'
once = [", from "]
never = ["forged"]
same = ["user", "again"]

[[example]]
verdict = "login"
line = "LINE"
"#;

    #[test]
    fn a_refused_login_has_a_reason() {
        let faults_of = |priority: &str, text: &str| {
            faults(&STRICT.replace("LINE", &format!("{priority}strictd[7]: {text}")))
        };
        let genuine = "in joe, as joe, from 192.0.2.7";
        assert_eq!(faults_of("<22>", &format!("{genuine}, tls")), [""; 0]);
        let long = "x".repeat(256);
        let rows = [
            (
                "<14>",
                genuine,
                "the mail daemon's logins are not accepted from this facility; see `facility`",
            ),
            ("<19>", genuine, "the severity is not that of a genuine login"),
            (
                "<22>",
                &format!("{genuine}, {}", "x".repeat(600)),
                "the message is longer than a genuine login can be",
            ),
            (
                "<22>",
                &format!("{genuine}, from home"),
                "ambiguous: `, from ` must occur exactly once",
            ),
            ("<22>", &format!("{genuine}, forged"), "`forged` must not occur in the message"),
            ("<22>", "in joe, as jim, from 192.0.2.7", "two fields that must be equal differ"),
            (
                "<22>",
                "in joe, as joe, from 192.0.2",
                "the address field does not contain exactly one IP address",
            ),
            (
                "<22>",
                "in joe, as joe, from 0.0.0.0",
                "the address is unspecified (the daemon did not know it)",
            ),
            (
                "<22>",
                "in joe, as joe, from 224.0.0.1",
                "the address is a multicast or broadcast address",
            ),
            (
                "<22>",
                "in joe, as joe, from 240.0.0.1",
                "the address is in a reserved range (0.0.0.0/8 or 240.0.0.0/4)",
            ),
            (
                "<22>",
                "in joe, as joe, from ::192.0.2.7",
                "the address is in the obsolete IPv4-compatible form",
            ),
            ("<22>", "in , as , from 192.0.2.7", "the user name is empty"),
            (
                "<22>",
                "in Anonymous, as Anonymous, from 192.0.2.7",
                "an anonymous login does not count",
            ),
            (
                "<22>",
                &format!("in {long}, as {long}, from 192.0.2.7"),
                "the user name is longer than 255 bytes",
            ),
            (
                "<22>",
                r"in j\toe, as j\toe, from 192.0.2.7",
                "the user name contains control characters",
            ),
        ];
        for (priority, text, why) in rows {
            let expected = format!(
                "own.toml:16: the example fails: expected verdict `login`, got `none` (refused: \
                 {why})"
            );
            assert_eq!(faults_of(priority, text), [expected], "{text}");
        }
    }
}
