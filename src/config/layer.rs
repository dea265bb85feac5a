//! One layer of configuration: the options set on the command line, in the environment or in the
//! file.
//!
//! - **Promise**: the three layers have the same options and accept the same values; the first layer
//!   that sets an option wins (deploy/guide/configuration.md). Unknown keys of the file are refused.
//!   Unknown variables are not: Kubernetes sets some with the same prefix.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use toml::Spanned;

pub use super::options::Layer;
use crate::error::{Failure, Failures};
use crate::sys::trusted_file;

/// The prefix of environment variables.
const PREFIX: &str = "POP_BEFORE_SMTP_";
/// The file that is read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/pop-before-smtp/config.toml";
/// Stands for no file: the default one is not read either.
const NO_FILE: &str = "/dev/null";
/// Largest configuration file, in bytes: a hundred times what all options need.
const MAX_FILE: u64 = 1 << 20;

impl Layer {
    /// Returns the layers below the command line: the environment over the file.
    ///
    /// # Errors
    /// Every wrong variable and key, or a named file that cannot be read.
    pub fn below_command_line(file: Option<&Path>) -> Result<Self, Failures> {
        let named = file.map(Path::to_owned).or_else(|| Some(variable("config")?.into()));
        match (Self::from_environment(variable), Self::from_file(named.as_deref())) {
            (Ok(environment), Ok(file)) => Ok(environment.over(file)),
            (environment, file) => {
                Err([environment.err(), file.err()].into_iter().flatten().flatten().collect())
            }
        }
    }

    fn from_file(named: Option<&Path>) -> Result<Self, Failures> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        if path == Path::new(NO_FILE) {
            return Ok(Self::default());
        }
        let bytes = match trusted_file::read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(refusal) if named.is_none() && refusal.is_missing() => return Ok(Self::default()),
            Err(refusal) => {
                let hint = match refusal.is_missing() {
                    true => "--config names another file",
                    false => "the daemon's user must be able to read it",
                };
                return Err(vec![refusal.failure(Failure::config, "configuration file", hint)]);
            }
        };
        let layer = String::from_utf8(bytes)
            .map_err(|_| vec!["it is not UTF-8 text".to_owned()])
            .and_then(|text| Self::from_toml(&text));
        let failure = |what: String| {
            Failure::config(format!("configuration file `{}`: {what}", path.display()))
        };
        let layer = layer.map_err(|faults| faults.into_iter().map(failure).collect::<Vec<_>>())?;
        Ok(Self { file: Some(path.to_owned()), ..layer })
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// A sentence with the line for each key that is unknown or has a wrong value; only one
    /// sentence if the text is not TOML or contains tables.
    pub fn from_toml(text: &str) -> Result<Self, Vec<String>> {
        let whole = match parse_toml(text) {
            Ok(layer) => return Ok(layer),
            Err(fault) => fault,
        };
        // The parser stops at the first fault, so each key is parsed separately.
        let keys = toml::from_str::<BTreeMap<Spanned<String>, Spanned<toml::Value>>>(text);
        let mut keys: Vec<_> = keys.unwrap_or_default().into_iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let alone = keys.iter().filter_map(|(key, value)| {
            let (start, end) = (key.span().start, value.span().end);
            let lines_before = "\n".repeat(text[..start].matches('\n').count());
            parse_toml(&(lines_before + text.get(start..end)?)).err()
        });
        let faults: Vec<_> = alone.collect();
        Err(if faults.contains(&whole) { faults } else { vec![whole] })
    }

    /// Parses the environment with the command line's own parser, so that both accept the same
    /// values. The items of a list are separated by spaces.
    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failures> {
        /// The options without a command.
        #[derive(Parser)]
        #[command(no_binary_name = true, disable_help_flag = true)]
        struct Options {
            #[command(flatten)]
            layer: Layer,
        }
        let (mut layer, mut faults) = (Self::default(), Vec::new());
        for argument in Options::command().get_arguments() {
            let Some(option) = argument.get_long() else { continue };
            let Some(value) = variable(option) else { continue };
            let items = match (argument.get_action(), value.to_str()) {
                (ArgAction::Append, Some(list)) => {
                    list.split_whitespace().map(Into::into).collect()
                }
                _ => vec![value],
            };
            let arguments = items.into_iter().map(|item| {
                let mut argument = OsString::from(format!("--{option}="));
                argument.push(item);
                argument
            });
            // One variable at a time, so that the error names it.
            let parsed = Options::command()
                .try_get_matches_from(arguments)
                .and_then(|matches| Options::from_arg_matches(&matches));
            match parsed {
                Ok(parsed) => layer = parsed.layer.over(layer),
                Err(error) => {
                    let text = error.to_string();
                    let first = text.lines().next().unwrap_or_default();
                    let first = first.strip_prefix("error: ").unwrap_or(first);
                    let name = variable_name(option);
                    faults.push(Failure::config(format!("environment variable {name}: {first}")));
                }
            }
        }
        if faults.is_empty() { Ok(layer) } else { Err(faults) }
    }
}

/// Parses a layer, or returns the first fault with its line.
fn parse_toml(text: &str) -> Result<Layer, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.message())
    })
}

/// Returns the name of an option's environment variable.
fn variable_name(option: &str) -> String {
    format!("{PREFIX}{}", option.to_uppercase().replace('-', "_"))
}

fn variable(option: &str) -> Option<OsString> {
    std::env::var_os(variable_name(option)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::options::OPTIONS;

    #[test]
    fn environment_and_file_accept_the_same_values() {
        let variables = |name: &str| match name {
            "listen" => Some("unix:/run/a.sock udp:127.0.0.1:514".into()),
            "map-value" => Some("OK a b".into()),
            "grace" => Some("1h 30m".into()),
            "dry-run" => Some("true".into()),
            _ => None,
        };
        let from_environment = Layer::from_environment(variables).expect("a layer");
        let from_file = Layer::from_toml(
            "listen = ['unix:/run/a.sock', 'udp:127.0.0.1:514']\nmap-value = 'OK a b'\n\
             grace = '1h 30m'\ndry-run = true\n",
        );
        let from_file = from_file.expect("a layer");
        assert_eq!(format!("{from_environment:?}"), format!("{from_file:?}"));
        assert_eq!(from_file.listen.map(|list| list.len()), Some(2));
    }

    #[test]
    fn the_upper_layer_wins() {
        let upper = Layer { max_clients: Some(1), ..Layer::default() };
        let lower = Layer { max_clients: Some(2), dry_run: Some(true), ..Layer::default() };
        let both = upper.over(lower);
        assert_eq!((both.max_clients, both.dry_run), (Some(1), Some(true)));
    }

    #[test]
    fn only_some_options_need_a_restart() {
        let layer = |text: &str| Layer::from_toml(text).expect(text);
        let same = [("", "map-value = 'OK'\nstate = '/var/lib/pop-before-smtp/state'")];
        let changed = [
            ("map-value = 'permit'", "", vec!["map-value"]),
            ("grace = '1h'", "grace = '2h'\nlisten = ['udp:127.0.0.1:1']", vec!["listen"]),
            ("dry-run = true\nlog-level = 'warn'", "", vec!["dry-run", "log-level"]),
        ];
        let same = same.map(|(one, two)| (one, two, Vec::new()));
        for (one, two, expected) in same.into_iter().chain(changed) {
            assert_eq!(layer(one).restart_differences(&layer(two)), expected, "{one} / {two}");
            assert_eq!(layer(two).restart_differences(&layer(one)), expected, "{two} / {one}");
        }
    }

    #[test]
    fn every_option_has_a_row() {
        let command = Layer::augment_args(clap::Command::new("x"));
        let names: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let rows: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
        assert_eq!(names, rows);
        for option in OPTIONS {
            let key = format!("{} = []", option.name);
            let fault = Layer::from_toml(&key).err().unwrap_or_default().concat();
            assert!(!fault.contains("unknown field"), "{key}: {fault}");
        }
        let layer = Layer::default();
        assert_eq!(layer.grace().0.as_secs(), 1800);
        let _ = (layer.map_value(), layer.map_interval(), layer.map_inexact_ipv6(), layer.sender());
        let _ = (layer.sender_mismatch(), layer.allow_null_sender(), layer.remember_users());
        let _ = (layer.max_clients(), layer.state(), layer.control(), layer.dry_run());
        let _ = layer.log_level();
    }

    #[test]
    fn faults_name_their_place() {
        let rows: [(&str, &[&str]); 6] = [
            ("grace = '1m'\ngrase = '1m'", &["line 2: unknown field `grase`"]),
            ("grace = 'soon'", &["line 1: `soon` is not a duration"]),
            (
                "state = 'é'\ngrase = 1\n# é\ngrace = 'soon'\nlisten = [\n 'x',\n]\ndry-run = 1\n",
                &["line 2: unknown", "line 4: `soon`", "line 5: `x`:", "line 8: invalid type"],
            ),
            ("grase = 1\n[grace]\nx = 1\n", &["line 2: invalid type"]),
            ("grase = 1\ngrace = [", &["line 2: "]),
            ("grase = 1\ngrase = 2", &["line 2: duplicate key"]),
        ];
        for (text, expected) in rows {
            let wrong = Layer::from_toml(text).expect_err("a fault");
            let begins = |(fault, begin): (&String, &&str)| fault.starts_with(*begin);
            assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
            assert!(wrong.iter().zip(expected).all(begins), "{wrong:?}");
        }
        let wrong = Layer::from_environment(|name| {
            ["grace", "listen"].contains(&name).then(|| "soon".into())
        });
        let wrong = wrong.expect_err("two faults");
        let [listen, grace] = wrong.as_slice() else { panic!("{wrong:?}") };
        for (fault, name) in [(listen, "LISTEN"), (grace, "GRACE")] {
            let text = fault.to_string();
            assert!(text.contains(&format!("POP_BEFORE_SMTP_{name}:")) && text.contains("`soon`"));
        }
    }
}
