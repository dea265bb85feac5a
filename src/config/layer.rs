//! One layer of configuration: what the command line, the environment or the file says.
//!
//! Promise  the three layers have the same options with the same texts; the first layer that says
//!          something about an option wins (deploy/guide/configuration.md). Unknown keys of the file
//!          are refused. Unknown variables are not: Kubernetes sets some of the same prefix.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use serde::Deserialize;
use toml::Spanned;

use super::sending::{Mismatch, SenderRule};
use super::values::{ExcludeWhat, Facilities, HostName, Inet, Listen, Network, Serve, Span};
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::MapSpec;
use crate::sys::log::{LogFormat, LogLevel};
use crate::sys::trusted_file;
use crate::sys::unix_socket::UnixSocket;

/// What environment variables begin with.
const PREFIX: &str = "POP_BEFORE_SMTP_";
/// The file that is read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "/etc/pop-before-smtp/config.toml";
/// Names no file, so that the default one is not read.
const NO_FILE: &str = "/dev/null";
/// A hundred times what all options take.
const MAX_FILE: u64 = 1 << 20;

/// One layer; every option may be missing.
#[allow(rustdoc::broken_intra_doc_links, reason = "brackets are for --help")]
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Layer {
    /// The file of which it is.
    #[arg(skip)]
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Vec<Listen>>,
    /// UDP senders that are heard [default: loopback]
    #[arg(long, value_name = "NET")]
    pub allow_from: Option<Vec<Network>>,
    /// Users whose processes are heard over Unix sockets [default: all who can open them]
    #[arg(long, value_name = "USER")]
    pub allow_uid: Option<Vec<String>>,
    /// Host names in frames that are believed; - for frames without one [default: every host]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub allow_host: Option<Vec<HostName>>,
    /// Access map to publish; TYPE may be `auto`
    #[arg(long, value_name = "TYPE:PATH")]
    pub map: Option<MapSpec>,
    /// The value of each entry [default: OK]
    #[arg(long, value_name = "TEXT")]
    pub map_value: Option<String>,
    /// Least time between two publications of the map [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub map_interval: Option<Span>,
    /// Publish IPv6 addresses even where their key would admit other hosts too [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true)]
    pub map_inexact_ipv6: Option<bool>,
    /// Answer Postfix's socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub socketmap: Option<Serve>,
    /// Answer Postfix's policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub policy: Option<Serve>,
    /// Envelope sender that policy requests need: any, user (who logged in), domain (of that user)
    /// [default: any]
    #[arg(long, value_name = "WHAT", hide_possible_values = true)]
    pub sender: Option<SenderRule>,
    /// Domains in which users send whose login name has none
    #[arg(long, value_name = "DOMAIN")]
    pub sender_domains: Option<Vec<String>>,
    /// File of lines `login address[, address...]`: what users may send as besides
    #[arg(long, value_name = "FILE")]
    pub sender_table: Option<PathBuf>,
    /// Map of Postfix, as in smtpd_sender_login_maps: senders, and the logins that may use them
    #[arg(long, value_name = "TYPE:PATH")]
    pub sender_login_map: Option<Vec<MapSpec>>,
    /// Characters that begin an address extension [default: Postfix's recipient_delimiter]
    #[arg(long, value_name = "CHARS")]
    pub sender_delimiter: Option<String>,
    /// What another sender gets: dunno (as a stranger), reject, or `reject TEXT` (550 5.7.1 and the
    /// text) [default: dunno]
    #[arg(long, value_name = "WHAT")]
    pub sender_mismatch: Option<Mismatch>,
    /// Let users send as the null sender <> too [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true)]
    pub allow_null_sender: Option<bool>,
    /// Remember who has logged in [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true)]
    pub remember_users: Option<bool>,
    /// Do not authorise an address from which more different users than this have logged in
    #[arg(long, value_name = "N")]
    pub max_users_per_address: Option<usize>,
    /// Postfix's configuration directory [default: Postfix's own]
    #[arg(long, value_name = "DIR")]
    pub postfix_config: Option<PathBuf>,
    /// How long a login authorises [default: 30m]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Span>,
    /// A client that stays connected stays authorised, and the grace counts from the log-out; a
    /// log-out that is never seen counts after this time [default: off]
    #[arg(long, value_name = "DURATION")]
    pub extend_while_connected: Option<Span>,
    /// Most addresses held; the one that would end first makes room [default: 65536]
    #[arg(long, value_name = "N")]
    pub max_clients: Option<usize>,
    /// Mail daemons that are believed [default: all that are verified]
    #[arg(long, value_name = "NAME")]
    pub daemon: Option<Vec<String>>,
    /// Believe a mail daemon's logins from these facilities only [default: any facility]
    #[arg(long, value_name = "DAEMON=FACILITY[,FACILITY...]")]
    pub facility: Option<Vec<Facilities>>,
    /// Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]
    #[arg(long, value_name = "DIR")]
    pub daemons_dir: Option<PathBuf>,
    /// Never authorised: loopback, link-local, own, gateway, mynetworks, a network, or none
    /// [default: the first five]
    #[arg(long, value_name = "WHAT")]
    pub exclude: Option<Vec<ExcludeWhat>>,
    /// Authorisations that survive a restart [default: /var/lib/pop-before-smtp/state]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Control socket: PATH[,mode=0660][,group=NAME] [default: /run/pop-before-smtp/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<UnixSocket>,
    /// A second control socket, on which nothing can be changed: PATH[,mode=0660][,group=NAME]
    #[arg(long, value_name = "PATH")]
    pub control_read: Option<UnixSocket>,
    /// Say what would be authorised and published; write no map and no state [default: false]
    #[arg(short = 'n', long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true)]
    pub dry_run: Option<bool>,
    /// Answer monitoring here, by HTTP: inet:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Inet>,
    /// How much is logged to stderr: error, warn, info, debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// What the log looks like: text, json, journald [default: journald in the journal, else text]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
}

impl Layer {
    /// What this layer says, and where it says nothing, what the other one does.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            file: self.file.or(under.file),
            listen: self.listen.or(under.listen),
            allow_from: self.allow_from.or(under.allow_from),
            allow_uid: self.allow_uid.or(under.allow_uid),
            allow_host: self.allow_host.or(under.allow_host),
            map: self.map.or(under.map),
            map_value: self.map_value.or(under.map_value),
            map_interval: self.map_interval.or(under.map_interval),
            map_inexact_ipv6: self.map_inexact_ipv6.or(under.map_inexact_ipv6),
            socketmap: self.socketmap.or(under.socketmap),
            policy: self.policy.or(under.policy),
            sender: self.sender.or(under.sender),
            sender_domains: self.sender_domains.or(under.sender_domains),
            sender_table: self.sender_table.or(under.sender_table),
            sender_login_map: self.sender_login_map.or(under.sender_login_map),
            sender_delimiter: self.sender_delimiter.or(under.sender_delimiter),
            sender_mismatch: self.sender_mismatch.or(under.sender_mismatch),
            allow_null_sender: self.allow_null_sender.or(under.allow_null_sender),
            remember_users: self.remember_users.or(under.remember_users),
            max_users_per_address: self.max_users_per_address.or(under.max_users_per_address),
            postfix_config: self.postfix_config.or(under.postfix_config),
            grace: self.grace.or(under.grace),
            extend_while_connected: self.extend_while_connected.or(under.extend_while_connected),
            max_clients: self.max_clients.or(under.max_clients),
            daemon: self.daemon.or(under.daemon),
            facility: self.facility.or(under.facility),
            daemons_dir: self.daemons_dir.or(under.daemons_dir),
            exclude: self.exclude.or(under.exclude),
            state: self.state.or(under.state),
            control: self.control.or(under.control),
            control_read: self.control_read.or(under.control_read),
            dry_run: self.dry_run.or(under.dry_run),
            metrics: self.metrics.or(under.metrics),
            log_level: self.log_level.or(under.log_level),
            log_format: self.log_format.or(under.log_format),
        }
    }

    /// The layers below the command line: environment over file.
    ///
    /// # Errors
    /// Each variable and each key that makes no sense, or a named file that cannot be read.
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
                let hint = "the daemon's user must be able to read it; --config names another";
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

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// For each key that is unknown or makes no sense, a sentence with its line; only one if the
    /// text is no TOML or has tables, which no option is.
    pub fn from_toml(text: &str) -> Result<Self, Vec<String>> {
        let whole = match read_toml(text) {
            Ok(layer) => return Ok(layer),
            Err(fault) => fault,
        };
        // The first fault ends the reading of a text, so each key is read by itself.
        let keys = toml::from_str::<BTreeMap<Spanned<String>, Spanned<toml::Value>>>(text);
        let mut keys: Vec<_> = keys.unwrap_or_default().into_iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let alone = keys.iter().filter_map(|(key, value)| {
            let (start, end) = (key.span().start, value.span().end);
            let lines_before = "\n".repeat(text[..start].matches('\n').count());
            read_toml(&(lines_before + text.get(start..end)?)).err()
        });
        let faults: Vec<_> = alone.collect();
        Err(if faults.contains(&whole) { faults } else { vec![whole] })
    }

    /// Reads the environment through the command line's own parser, so that both say the same.
    /// The items of a list are separated by blanks.
    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failures> {
        /// The options alone, without a command.
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
            let words = items.into_iter().map(|item| {
                let mut word = OsString::from(format!("--{option}="));
                word.push(item);
                word
            });
            // One variable at a time, so that a fault names it.
            let read = Options::command()
                .try_get_matches_from(words)
                .and_then(|matches| Options::from_arg_matches(&matches));
            match read {
                Ok(said) => layer = said.layer.over(layer),
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

/// Reads the text of a layer, or says what is wrong first.
fn read_toml(text: &str) -> Result<Layer, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.message())
    })
}

/// The environment variable of an option.
fn variable_name(option: &str) -> String {
    format!("{PREFIX}{}", option.to_uppercase().replace('-', "_"))
}

fn variable(option: &str) -> Option<OsString> {
    std::env::var_os(variable_name(option)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_say_the_same_in_the_same_words() {
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
    fn faults_name_their_place() {
        let rows: [(&str, &[&str]); 6] = [
            ("grace = '1m'\ngrase = '1m'", &["line 2: unknown field `grase`"]),
            ("grace = 'soon'", &["line 1: `soon` is no duration"]),
            (
                "state = 'é'\ngrase = 1\n# é\ngrace = 'soon'\nlisten = [\n 'x',\n]\ndry-run = 1\n",
                &["line 2: unknown", "line 4: `soon`", "line 5: `x` is", "line 8: invalid type"],
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
            let said = fault.to_string();
            assert!(said.contains(&format!("POP_BEFORE_SMTP_{name}:")) && said.contains("`soon`"));
        }
    }
}
