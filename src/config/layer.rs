//! One layer of configuration: the options set on the command line, in the environment or in the
//! file.
//!
//! - **Promise**: the three layers have the same options and accept the same values; the first layer
//!   that sets an option wins (deploy/guide/configuration.md). Everything that is wrong is found at
//!   once, and the rest is read even so.
//! - **Layers**: [`super::file`] reads the text of the file, [`super::environment`] the variables.

use std::path::Path;

pub use super::options::Layer;
use super::options::OPTIONS;
use super::{environment, file};
use crate::error::{Failure, Failures};
use crate::sys::trusted_file;

/// The file that is read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/pop-before-smtp/config.toml";
/// Stands for no file: the default one is not read either.
const NO_FILE: &str = "/dev/null";
/// Largest configuration file, in bytes: a hundred times what all options need.
const MAX_FILE: u64 = 1 << 20;

impl Layer {
    /// Returns the layers below the command line: the environment over the file. What is wrong with
    /// them is in [`Layer::faults`].
    pub fn below_command_line(file: Option<&Path>) -> Self {
        let named = file.map(Path::to_owned);
        let named = named.or_else(|| Some(environment::variable("config")?.into()));
        let mut faults = Vec::new();
        let environment = environment::read(environment::variable, &mut faults);
        let remarks = environment::remarks(std::env::vars_os());
        Self { faults, remarks, ..environment }.over(Self::from_file(named.as_deref()))
    }

    /// Returns it if nothing is wrong with it.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the environment.
    pub fn sound(self) -> Result<Self, Failures> {
        if self.faults.is_empty() { Ok(self) } else { Err(self.faults) }
    }

    /// Says how to set an option to one value, where this configuration sets others: in its file, or
    /// on the command line.
    pub fn how_to_set(&self, name: &str, value: &str) -> String {
        let option = OPTIONS.iter().find(|option| option.name == name);
        let notation = option.and_then(|option| (option.notation)(&[value.to_owned()]));
        match (&self.file, notation) {
            (Some(file), Some(notation)) if !self.in_file.is_empty() || !self.faults.is_empty() => {
                format!("write {name} = {notation} in `{}`", file.display())
            }
            _ => format!("add --{name} {value}"),
        }
    }

    fn from_file(named: Option<&Path>) -> Self {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        if path == Path::new(NO_FILE) {
            return Self::default();
        }
        // It may set anything.
        let failed = |failure| Self {
            faults: vec![failure],
            unread: OPTIONS.iter().map(|option| option.name).collect(),
            ..Self::default()
        };
        let bytes = match trusted_file::read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(refusal) if named.is_none() && refusal.is_missing() => return Self::default(),
            Err(refusal) => {
                let hint = match refusal.is_missing() {
                    true => "--config names another file",
                    false => "the daemon's user must be able to read it",
                };
                return failed(refusal.failure(Failure::config, "configuration file", hint));
            }
        };
        let shown = path.display();
        let Ok(text) = String::from_utf8(bytes) else {
            let what = format!("configuration file `{shown}`: it is not UTF-8 text");
            return failed(Failure::config(what).hint("save it as UTF-8, or as ASCII"));
        };
        let (layer, faults) = file::read(&text);
        let failure = |fault: file::FileFault| {
            let what = format!("configuration file `{shown}`: line {}: {}", fault.line, fault.what);
            Failure::config(what).hint(fault.hint)
        };
        let faults = faults.into_iter().map(failure).collect();
        Self { file: Some(path.to_owned()), faults, ..layer }
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// A sentence for each fault.
    #[cfg(test)]
    pub fn from_toml(text: &str) -> Result<Self, Vec<String>> {
        let (layer, faults) = file::read(text);
        if faults.is_empty() {
            Ok(layer)
        } else {
            Err(faults.into_iter().map(|f| f.what).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn environment_and_file_accept_the_same_values() {
        let variables = |name: &str| match name {
            "listen" => Some("unix:/run/a.sock udp:127.0.0.1:514".into()),
            "map-value" => Some("OK a b".into()),
            "grace" => Some("1h 30m".into()),
            "dry-run" => Some("true".into()),
            _ => None,
        };
        let mut faults = Vec::new();
        let from_environment = environment::read(variables, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let from_file = Layer::from_toml(
            "listen = ['unix:/run/a.sock', 'udp:127.0.0.1:514']\nmap-value = 'OK a b'\n\
             grace = '1h 30m'\ndry-run = true\n",
        );
        let from_file = from_file.expect("a layer");
        let in_file = std::collections::BTreeSet::new();
        let from_file = Layer { in_file, ..from_file };
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
        let layer = Layer::default();
        assert_eq!(layer.grace().0.as_secs(), 1800);
        let _ = (layer.map_value(), layer.map_interval(), layer.map_inexact_ipv6(), layer.sender());
        let _ = (layer.sender_mismatch(), layer.allow_null_sender(), layer.remember_users());
        let _ = (layer.max_clients(), layer.state(), layer.control(), layer.dry_run());
        let _ = (layer.log_level(), layer.limit_action(), layer.cluster_name());
    }
}
