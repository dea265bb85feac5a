//! How the values of options are written in the configuration file and in environment variables.
//!
//! - **Promise**: both accept the same values as the command line. A wrong value is answered with a
//!   right one, in the notation of the file.

use std::path::PathBuf;

use toml::de::DeValue;

use super::cluster::StoreUrl;
use super::values::{
    BeyondLimit, ExcludeWhat, Facilities, HostName, Inet, Listen, Mismatch, Network, SenderRule,
    Serve, Span, UserName,
};
use crate::postfix::map_spec::MapSpec;
use crate::sys::log::{LogFormat, LogLevel};
use crate::sys::unix_socket::UnixSocket;

/// Why a value of the file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is of another kind, such as a number where a text is expected.
    Kind,
    /// It is of the right kind; what is wrong with it.
    Value(String),
}

/// The type of an option's value.
pub trait OptionValue: Sized {
    /// What is expected in the file, for messages.
    const KIND: &'static str;

    /// Takes a value of the file.
    ///
    /// # Errors
    /// It is of another kind, or wrong.
    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong>;

    /// Parses the text of a variable; the items of a list are separated by spaces.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn from_variable(text: &str) -> Result<Self, String>;

    /// Returns a value in the notation of the file, if these texts make one.
    fn notation(texts: &[String]) -> Option<String>;
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Implements `OptionValue` for values that are written as one text.
macro_rules! text_value {
    ($($name:ty),+ $(,)?) => {$(
        impl OptionValue for $name {
            const KIND: &'static str = "one text in quotes";

            fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
                let text = value.as_str().ok_or(Wrong::Kind)?;
                Self::from_variable(text).map_err(Wrong::Value)
            }

            fn from_variable(text: &str) -> Result<Self, String> {
                text.parse().map_err(|why| format!("{why}"))
            }

            fn notation(texts: &[String]) -> Option<String> {
                let first = texts.first().filter(|text| text.parse::<Self>().is_ok())?;
                Some(quoted(first))
            }
        }
    )+};
}

text_value!(
    String,
    PathBuf,
    Span,
    Listen,
    Serve,
    Inet,
    Network,
    ExcludeWhat,
    HostName,
    Facilities,
    Mismatch,
    UnixSocket,
    MapSpec,
    SenderRule,
    UserName,
    BeyondLimit,
    LogLevel,
    LogFormat,
    StoreUrl,
);

impl<T: OptionValue> OptionValue for Vec<T> {
    const KIND: &'static str = "a list of texts, in brackets";

    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let items = value.as_array().ok_or(Wrong::Kind)?;
        let read = items.iter().map(|item| T::from_file(item.get_ref()));
        gather(read.collect())
    }

    fn from_variable(text: &str) -> Result<Self, String> {
        let read = text.split_whitespace().map(|item| T::from_variable(item).map_err(Wrong::Value));
        gather(read.collect()).map_err(|wrong| match wrong {
            Wrong::Value(why) => why,
            Wrong::Kind => String::new(),
        })
    }

    fn notation(texts: &[String]) -> Option<String> {
        let items = texts.iter().map(|text| T::notation(std::slice::from_ref(text)));
        let items: Vec<_> = items.collect::<Option<_>>()?;
        (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
    }
}

/// Returns the items, or all that is wrong with them.
fn gather<T>(items: Vec<Result<T, Wrong>>) -> Result<Vec<T>, Wrong> {
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(item) => good.push(item),
            Err(Wrong::Value(why)) => faults.push(why),
            Err(Wrong::Kind) => return Err(Wrong::Kind),
        }
    }
    if faults.is_empty() { Ok(good) } else { Err(Wrong::Value(faults.join("; "))) }
}

impl OptionValue for bool {
    const KIND: &'static str = "true or false, without quotes";

    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
        value.as_bool().ok_or(Wrong::Kind)
    }

    fn from_variable(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }

    fn notation(texts: &[String]) -> Option<String> {
        let is_true = match texts.first()?.as_str() {
            "true" | "yes" | "on" | "1" => true,
            "false" | "no" | "off" | "0" => false,
            _ => return None,
        };
        Some(is_true.to_string())
    }
}

impl OptionValue for usize {
    const KIND: &'static str = "a whole number, without quotes";

    fn from_file(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let number = value.as_integer().ok_or(Wrong::Kind)?;
        let read = Self::from_str_radix(number.as_str(), number.radix());
        read.map_err(|_| Wrong::Value(format!("`{number}` is not a number of things")))
    }

    fn from_variable(text: &str) -> Result<Self, String> {
        number(text)
    }

    fn notation(texts: &[String]) -> Option<String> {
        Some(number(texts.first()?).ok()?.to_string())
    }
}

/// Parses a count.
///
/// # Errors
/// It is not a whole number, or negative.
pub fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// Returns the texts of a value of any kind, to show how it should have been written.
pub fn texts(value: &DeValue<'_>) -> Vec<String> {
    match value {
        DeValue::String(text) => vec![text.to_string()],
        DeValue::Integer(number) => vec![number.to_string()],
        DeValue::Boolean(is_true) => vec![is_true.to_string()],
        DeValue::Array(items) => items.iter().flat_map(|item| texts(item.get_ref())).collect(),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Vec::new(),
    }
}
