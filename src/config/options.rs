//! The table of all options of `run`: help, type, default, and whether a reload changes the option.
//!
//! - **Promise**: the struct [`Layer`], the precedence of layers, the help texts, the defaults and
//!   the list of options that need a restart are generated from this one table.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use toml::de::DeValue;

use super::cluster::StoreUrl;
use super::daemon_names::DaemonNames;
use super::rule_entry::RuleEntry;
use super::values::{
    BeyondLimit, ExcludeWhat, Facilities, HostName, Inet, Listen, Mismatch, Network, SenderRule,
    Serve, Span, UserName,
};
use super::written::{self, OptionValue, Wrong};
use super::{DEFAULT_CONTROL, DEFAULT_DAEMONS_DIR, DEFAULT_STATE};
use crate::error::Failures;
use crate::postfix::map_spec::MapSpec;
use crate::sys::log::{LogFormat, LogLevel};
use crate::sys::unix_socket::UnixSocket;

/// Facts about an option.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its name on the command line and in the configuration file.
    pub name: &'static str,
    /// A right value, or one item of a list; not always the default.
    pub example: &'static str,
    /// Returns a value in the notation of the file, if these texts make one.
    pub notation: fn(&[String]) -> Option<String>,
    /// Its default: a value, or a description of what applies without one.
    pub default: Option<&'static str>,
    /// Whether a change needs a restart; for others a reload suffices.
    pub needs_restart: bool,
}

/// A value of an option, as it is written.
#[derive(Clone, Copy, Debug)]
pub enum Setting<'a> {
    /// In the configuration file.
    File(&'a DeValue<'a>),
    /// In an environment variable.
    Variable(&'a str),
}

impl Setting<'_> {
    /// Takes the value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read<T: OptionValue>(self) -> Result<T, String> {
        match self {
            Self::Variable(text) => T::from_variable(text),
            Self::File(value) => T::from_file(value).map_err(|wrong| match wrong {
                Wrong::Value(why) => why,
                Wrong::Kind => format!("expected {}", T::KIND),
            }),
        }
    }
}

macro_rules! default {
    () => {
        None
    };
    ($default:expr) => {
        Some($default)
    };
}

macro_rules! needs_restart {
    (restart) => {
        true
    };
    (reload) => {
        false
    };
}

/// Generates [`Layer`] and [`OPTIONS`] from the table. A row: help, further attributes for clap,
/// name, a right value, type, a default value (`=`) or what applies without a value (`, or`), and what changes it.
macro_rules! options {
    ($(
        $(#[doc = $help:literal])+
        #[arg($($attribute:tt)*)]
        $field:ident ($name:literal, $example:literal): $type:ty $(= $default:expr)? $(, or $otherwise:expr)?
            => $change:ident;
    )+) => {
        /// The options set on the command line, in the environment or in the file; each may be missing.
        #[allow(rustdoc::broken_intra_doc_links, reason = "brackets are for --help")]
        #[derive(Args, Clone, Debug, Default)]
        pub struct Layer {
            /// The file it was read from.
            #[arg(skip)]
            pub file: Option<PathBuf>,
            /// The options that the file sets.
            #[arg(skip)]
            pub in_file: BTreeSet<&'static str>,
            /// What is wrong with the file and the environment.
            #[arg(skip)]
            pub faults: Failures,
            /// The options that are missing here because of these faults.
            #[arg(skip)]
            pub unread: BTreeSet<&'static str>,
            /// The tables `[[rule]]` of the file.
            #[arg(skip)]
            pub rules: Vec<RuleEntry>,
            /// Warnings about the environment.
            #[arg(skip)]
            pub remarks: Vec<String>,
            $(
                $(#[doc = $help])+
                #[arg(long, help = help(&[$($help),+], default!($($default)? $($otherwise)?)), $($attribute)*)]
                pub $field: Option<$type>,
            )+
        }

        impl Layer {
            /// Returns the options of this layer, and those of `under` where they are not set here.
            #[must_use]
            pub fn over(mut self, under: Self) -> Self {
                self.in_file.extend(under.in_file);
                self.faults.extend(under.faults);
                self.unread.extend(under.unread);
                self.remarks.extend(under.remarks);
                Self {
                    file: self.file.or(under.file),
                    in_file: self.in_file,
                    faults: self.faults,
                    unread: self.unread,
                    rules: if self.rules.is_empty() { under.rules } else { self.rules },
                    remarks: self.remarks,
                    $($field: self.$field.or(under.$field),)+
                }
            }

            /// Sets the option of this name, if there is one.
            ///
            /// # Errors
            /// What is wrong with the value.
            pub(super) fn set(&mut self, name: &str, value: Setting<'_>) -> Result<(), String> {
                match name {
                    $($name => self.$field = Some(value.read()?),)+
                    _ => {}
                }
                Ok(())
            }

            /// Returns the options that differ from another layer and need a restart.
            pub fn restart_differences(&self, other: &Self) -> Vec<&'static str> {
                let mut options = Vec::new();
                $(
                    let is_default = |value: &Option<$type>| {
                        value.is_none() $(|| *value == Some(default_value($default)))?
                    };
                    let (one, two) = (&self.$field, &other.$field);
                    let differs = one != two && !(is_default(one) && is_default(two));
                    if differs && needs_restart!($change) {
                        options.push($name);
                    }
                )+
                options
            }

            $($(
                #[doc = concat!("Returns `", $name, "`, or its default.")]
                pub fn $field(&self) -> $type {
                    self.$field.clone().unwrap_or_else(|| default_value($default))
                }
            )?)+
        }

        /// All options, in the order of the help.
        pub const OPTIONS: &[OptionInfo] = &[$(OptionInfo {
            name: $name,
            example: $example,
            notation: <$type as OptionValue>::notation,
            default: default!($($default)? $($otherwise)?),
            needs_restart: needs_restart!($change),
        }),+];
    };
}

/// Returns the help of an option, with its default.
fn help(lines: &[&str], default: Option<&str>) -> String {
    let help = lines.concat();
    let help = help.trim_start();
    default.map_or_else(|| help.to_owned(), |default| format!("{help} [default: {default}]"))
}

/// Parses a default value like a value that a user writes.
fn default_value<T: FromStr>(text: &str) -> T {
    text.parse().ok().expect("a test parses every default")
}

options! {
    /// Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT
    #[arg(value_name = "ADDR", help_heading = "Receive")]
    listen ("listen", "unix:/run/pop-before-smtp/log.sock"): Vec<Listen> => restart;
    /// Accept UDP frames only from these networks
    #[arg(value_name = "NET", help_heading = "Receive")]
    allow_from ("allow-from", "192.0.2.0/24"): Vec<Network>, or "loopback" => restart;
    /// Accept Unix-socket frames only from processes of these users
    #[arg(value_name = "USER", help_heading = "Receive")]
    allow_uid ("allow-uid", "root"): Vec<String>, or "everyone who can open the socket" => restart;
    /// Accept only messages of these host names; - stands for messages without one
    #[arg(value_name = "NAME", allow_hyphen_values = true, help_heading = "Receive")]
    allow_host ("allow-host", "mx1"): Vec<HostName>, or "every host" => reload;
    /// Access map to publish; TYPE may be `auto`
    #[arg(value_name = "TYPE:PATH", help_heading = "Inform Postfix")]
    map ("map", "auto:/var/lib/pop-before-smtp/clients"): MapSpec => restart;
    /// Value of each entry of the map, and of positive socketmap answers
    #[arg(value_name = "TEXT", help_heading = "Inform Postfix")]
    map_value ("map-value", "OK"): String = "OK" => restart;
    /// Longest pause after a publication of the map; it is shorter if that took little time
    #[arg(value_name = "DURATION", help_heading = "Inform Postfix")]
    map_interval ("map-interval", "1s"): Span = "1s" => reload;
    /// Publish IPv6 addresses even where their key would admit other hosts too
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true, help_heading = "Inform Postfix")]
    map_inexact_ipv6 ("map-inexact-ipv6", "false"): bool = "false" => reload;
    /// Answer Postfix's socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT
    #[arg(value_name = "ADDR", help_heading = "Inform Postfix")]
    socketmap ("socketmap", "unix:/var/spool/postfix/pop-before-smtp/socketmap"): Serve => restart;
    /// Answer Postfix's policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT
    #[arg(value_name = "ADDR", help_heading = "Inform Postfix")]
    policy ("policy", "unix:/var/spool/postfix/pop-before-smtp/policy"): Serve => restart;
    /// Envelope senders admitted by policy requests: any, user (the logged-in user), domain (that
    /// user's domain)
    #[arg(value_name = "WHAT", hide_possible_values = true, help_heading = "Restrict senders")]
    sender ("sender", "user"): SenderRule = "any" => reload;
    /// Domains of users whose login name has none
    #[arg(value_name = "DOMAIN", help_heading = "Restrict senders")]
    sender_domains ("sender-domains", "example.org"): Vec<String> => reload;
    /// File of lines `login address[, address...]`: further senders that users may use
    #[arg(value_name = "FILE", help_heading = "Restrict senders")]
    sender_table ("sender-table", "/etc/pop-before-smtp/senders"): PathBuf => reload;
    /// Postfix map as in smtpd_sender_login_maps: senders, and the logins that may use them
    #[arg(value_name = "TYPE:PATH", help_heading = "Restrict senders")]
    sender_login_map ("sender-login-map", "hash:/etc/postfix/sender-logins"): Vec<MapSpec> => reload;
    /// Characters that begin an address extension
    #[arg(value_name = "CHARS", help_heading = "Restrict senders")]
    sender_delimiter ("sender-delimiter", "+"): String, or "Postfix's recipient_delimiter" => reload;
    /// Answer to any other sender: dunno (as if not authorised), reject, or `reject TEXT` (550 5.7.1
    /// and the text)
    #[arg(value_name = "WHAT", help_heading = "Restrict senders")]
    sender_mismatch ("sender-mismatch", "dunno"): Mismatch = "dunno" => reload;
    /// Let users also send as the null sender <>
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true, help_heading = "Restrict senders")]
    allow_null_sender ("allow-null-sender", "false"): bool = "false" => reload;
    /// Messages that an authorised address may relay within an hour; with `sender`, each user
    #[arg(value_name = "N", value_parser = written::number, help_heading = "Limit mail")]
    messages_per_hour ("messages-per-hour", "100"): usize => reload;
    /// Recipients to whom an authorised address may relay within an hour; with `sender`, each user
    #[arg(value_name = "N", value_parser = written::number, help_heading = "Limit mail")]
    recipients_per_hour ("recipients-per-hour", "500"): usize => reload;
    /// Beyond a limit: defer (450, try again later), or revoke (also end the authorisation, and block
    /// the address for the rest of the hour)
    #[arg(value_name = "WHAT", hide_possible_values = true, help_heading = "Limit mail")]
    limit_action ("limit-action", "revoke"): BeyondLimit = "defer" => reload;
    /// File of lines `WHO messages-per-hour=N recipients-per-hour=N`: limits of some addresses, networks
    /// and users
    #[arg(value_name = "FILE", help_heading = "Limit mail")]
    limits ("limits", "/etc/pop-before-smtp/limits"): PathBuf => reload;
    /// Remember who has logged in
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true, help_heading = "Authorise")]
    remember_users ("remember-users", "true"): bool = "true" => reload;
    /// Do not authorise an address from which more than this many users have logged in
    #[arg(value_name = "N", value_parser = written::number, help_heading = "Authorise")]
    max_users_per_address ("max-users-per-address", "5"): usize => reload;
    /// Let only the logins of these users authorise; @DOMAIN stands for all its users
    #[arg(value_name = "USER", help_heading = "Authorise")]
    users ("users", "joe@example.org"): Vec<UserName>, or "every user" => reload;
    /// Postfix's configuration directory
    #[arg(value_name = "DIR", help_heading = "Inform Postfix")]
    postfix_config ("postfix-config", "/etc/postfix"): PathBuf, or "Postfix's own" => restart;
    /// How long a login authorises
    #[arg(value_name = "DURATION", help_heading = "Authorise")]
    grace ("grace", "30m"): Span = "30m" => reload;
    /// Keep clients authorised while they are connected, and count the grace from the log-out; if none
    /// is seen, assume it after this time
    #[arg(value_name = "DURATION", help_heading = "Authorise")]
    extend_while_connected ("extend-while-connected", "24h"): Span, or "off" => reload;
    /// Maximum number of addresses; when it is reached, the entry closest to expiry is evicted
    #[arg(value_name = "N", value_parser = written::number, help_heading = "Authorise")]
    max_clients ("max-clients", "65536"): usize = "65536" => reload;
    /// Mail daemons whose logins count
    #[arg(value_name = "NAME", value_parser = DaemonNames, hide_possible_values = true, help_heading = "Recognise logins")]
    daemon ("daemon", "dovecot"): Vec<String>, or "all verified ones" => reload;
    /// Accept a mail daemon's logins only from these facilities
    #[arg(value_name = "DAEMON=FACILITY[,FACILITY...]", help_heading = "Recognise logins")]
    facility ("facility", "qpopper=local0,mail"): Vec<Facilities>, or "any facility" => reload;
    /// Directory with your own mail daemons
    #[arg(value_name = "DIR", help_heading = "Recognise logins")]
    daemons_dir ("daemons-dir", "/etc/pop-before-smtp/daemons"): PathBuf, or DEFAULT_DAEMONS_DIR => reload;
    /// Never authorise: loopback, link-local, own, gateway, mynetworks, a network, those in file:/PATH, or none
    #[arg(value_name = "WHAT", help_heading = "Authorise")]
    exclude ("exclude", "own"): Vec<ExcludeWhat>, or "loopback link-local own gateway mynetworks" => reload;
    /// File that keeps the authorised clients across restarts
    #[arg(value_name = "FILE", help_heading = "Operate")]
    state ("state", "/var/lib/pop-before-smtp/state"): PathBuf = DEFAULT_STATE => restart;
    /// Control socket: PATH[,mode=0660][,group=NAME]
    #[arg(value_name = "PATH", help_heading = "Operate")]
    control ("control", "/run/pop-before-smtp/control.sock"): UnixSocket = DEFAULT_CONTROL => restart;
    /// Second, read-only control socket: PATH[,mode=0660][,group=NAME]
    #[arg(value_name = "PATH", help_heading = "Operate")]
    control_read ("control-read", "/run/pop-before-smtp/control-read.sock"): UnixSocket => restart;
    /// Share the clients with other hosts, over a store: redis://[USER@]HOST:PORT[/DB], rediss://...
    /// (TLS) or redis+unix:///PATH; of several the one that is primary
    #[arg(value_name = "URL", help_heading = "Share clients")]
    cluster ("cluster", "redis://store.example.org:6379"): Vec<StoreUrl> => restart;
    /// Which hosts share: those with the same name
    #[arg(value_name = "NAME", help_heading = "Share clients")]
    cluster_name ("cluster-name", "default"): String = "default" => restart;
    /// How the other hosts call this one; each needs its own
    #[arg(value_name = "NAME", help_heading = "Share clients")]
    cluster_host ("cluster-host", "mx1"): String, or "the host's name" => restart;
    /// File with the store's password
    #[arg(value_name = "FILE", help_heading = "Share clients")]
    cluster_password_file ("cluster-password-file", "/etc/pop-before-smtp/store-password"): PathBuf => restart;
    /// File with the certificates of authorities that may certify the store
    #[arg(value_name = "FILE", help_heading = "Share clients")]
    cluster_ca ("cluster-ca", "/etc/pop-before-smtp/ca.pem"): PathBuf, or "the system's" => restart;
    /// File with this host's certificate
    #[arg(value_name = "FILE", help_heading = "Share clients")]
    cluster_cert ("cluster-cert", "/etc/pop-before-smtp/cert.pem"): PathBuf => restart;
    /// File with the key of this host's certificate
    #[arg(value_name = "FILE", help_heading = "Share clients")]
    cluster_key ("cluster-key", "/etc/pop-before-smtp/key.pem"): PathBuf => restart;
    /// Log what would be authorised and published; write no map and no state
    #[arg(short = 'n', num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, hide_possible_values = true, help_heading = "Operate")]
    dry_run ("dry-run", "false"): bool = "false" => restart;
    /// Serve metrics and health checks over HTTP here: inet:HOST:PORT
    #[arg(value_name = "ADDR", help_heading = "Operate")]
    metrics ("metrics", "inet:127.0.0.1:9416"): Inet => restart;
    /// Log messages of this and higher levels to stderr: error, warn, info, debug
    #[arg(value_name = "LEVEL", help_heading = "Operate")]
    log_level ("log-level", "info"): LogLevel = "info" => restart;
    /// Format of the log: text, json, journald
    #[arg(value_name = "FORMAT", hide_possible_values = true, help_heading = "Operate")]
    log_format ("log-format", "json"): LogFormat, or "journald if stderr is the journal, else text" => restart;
}
