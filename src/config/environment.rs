//! The environment variables that set options.
//!
//! - **Promise**: a variable with the prefix that sets no option is named, except those that Kubernetes
//!   sets in every pod for a service of this name.

use std::ffi::{OsStr, OsString};

use super::file::nearest;
use super::options::Layer;
use super::options::{OPTIONS, Setting};
use crate::error::{Failure, Failures};

/// The prefix of environment variables.
const PREFIX: &str = "POP_BEFORE_SMTP_";

/// Returns the name of an option's environment variable.
pub fn variable_name(option: &str) -> String {
    format!("{PREFIX}{}", option.to_uppercase().replace('-', "_"))
}

/// Returns the value of an option's variable; an empty one counts as missing.
pub fn variable(option: &str) -> Option<OsString> {
    std::env::var_os(variable_name(option)).filter(|value| !value.is_empty())
}

/// Reads the variables of all options, and adds what is wrong with them to `faults`.
pub fn read(variable: impl Fn(&str) -> Option<OsString>, faults: &mut Failures) -> Layer {
    let mut layer = Layer::default();
    for option in OPTIONS {
        let Some(value) = variable(option.name) else { continue };
        let set = match value.to_str() {
            Some(text) => layer.set(option.name, Setting::Variable(text)),
            None => Err("it is not UTF-8 text".to_owned()),
        };
        if let Err(why) = set {
            let name = variable_name(option.name);
            layer.unread.insert(option.name);
            let hint = format!("write {name}='{}'", option.example);
            faults.push(Failure::config(format!("environment variable {name}: {why}")).hint(hint));
        }
    }
    layer
}

/// Returns warnings about variables that set no option.
pub fn remarks(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let mut remarks: Vec<String> =
        variables.filter_map(|(name, value)| remark(name.to_str()?, &value)).collect();
    remarks.sort();
    remarks
}

fn remark(name: &str, value: &OsStr) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let is_known = OPTIONS.iter().any(|option| variable_name(option.name) == name);
    if is_known || rest == "CONFIG" || value.is_empty() || is_of_kubernetes(rest, value) {
        return None;
    }
    let shown = name.escape_debug();
    let near = nearest(rest).map(|option| variable_name(option.name));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Some(format!("environment variable {shown} sets no option, and is ignored{near}"))
}

/// Returns whether Kubernetes sets a variable for a service whose name begins with ours:
/// `SERVICE_HOST`, `SERVICE_PORT[_NAME]`, `PORT` and `PORT_514_UDP[_ADDR]`.
fn is_of_kubernetes(rest: &str, value: &OsStr) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let is_service = words.windows(2).any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]));
    let is_port = words.windows(3).any(|three| {
        matches!(three, ["PORT", number, "TCP" | "UDP" | "SCTP"] if number.parse::<u16>().is_ok())
    });
    let is_url = words.last() == Some(&"PORT") && value.to_str().is_some_and(|v| v.contains("://"));
    is_service || is_port || is_url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_variables_are_named_with_a_right_value() {
        let variables = |name: &str| match name {
            "grace" | "listen" => Some("soon".into()),
            "max-clients" => Some("many".into()),
            "sender" => Some("users".into()),
            _ => None,
        };
        let mut faults = Vec::new();
        let layer = read(variables, &mut faults);
        let said: Vec<String> = faults.iter().map(Failure::to_string).collect();
        let expected = [
            ("LISTEN: `soon`: write unix:", "LISTEN='unix:/run/pop-before-smtp/log.sock'"),
            ("SENDER: `users` is none of any, user, domain", "SENDER='user'"),
            ("GRACE: `soon` is not a duration", "GRACE='30m'"),
            ("MAX_CLIENTS: `many` is not a whole number", "MAX_CLIENTS='65536'"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, (what, hint)) in said.iter().zip(expected) {
            assert!(said.contains(what) && said.ends_with(hint), "{said}");
        }
        assert_eq!(layer.unread, ["grace", "listen", "max-clients", "sender"].into());
    }

    #[test]
    fn variables_without_an_option_are_named() {
        let rows = [
            ("POP_BEFORE_SMTP_GRACE", "30m", None),
            ("POP_BEFORE_SMTP_CONFIG", "/x", None),
            ("POP_BEFORE_SMTP_LISTN", "x", Some("did you mean POP_BEFORE_SMTP_LISTEN?")),
            ("POP_BEFORE_SMTP_GRACE_PERIOD_OF_ALL", "x", Some("is ignored")),
            ("POP_BEFORE_SMTP_SERVICE_HOST", "10.0.0.1", None),
            ("POP_BEFORE_SMTP_SERVICE_PORT", "514", None),
            ("POP_BEFORE_SMTP_SERVICE_PORT_SYSLOG", "514", None),
            ("POP_BEFORE_SMTP_PORT", "udp://10.0.0.1:514", None),
            ("POP_BEFORE_SMTP_PORT", "514", Some("is ignored")),
            ("POP_BEFORE_SMTP_PORT_514_UDP_ADDR", "10.0.0.1", None),
            ("POP_BEFORE_SMTP_METRICS_PORT_9100_TCP", "tcp://10.0.0.1:9100", None),
            ("POP_BEFORE", "x", None),
        ];
        for (name, value, expected) in rows {
            let found = remarks([(name.into(), value.into())].into_iter()).concat();
            match expected {
                Some(part) => assert!(found.contains(part) && found.contains(name), "{found}"),
                None => assert_eq!(found, "", "{name}"),
            }
        }
    }
}
