//! The command line (clap).
//!
//! - **Not here**: what the commands do ([`super`]), and the options that the configuration file
//!   shares ([`crate::config::options`]).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, Args, Parser, Subcommand};

use super::examples;
use crate::config::daemon_names::DaemonNames;
use crate::config::layer::Layer;
use crate::config::values::{ExcludeWhat, Facilities, HostName, Span};
use crate::engine::MAX_MANUAL;

/// Lets the address of a recent POP3 or IMAP login relay mail through Postfix for a while.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon, in the foreground; log to stderr
    #[command(after_help = examples::RUN)]
    Run(RunArgs),
    /// Show what the daemon would do with log lines or syslog frames
    #[command(after_help = examples::TEST)]
    Test(TestArgs),
    /// Validate the configuration and the descriptions of mail daemons; print all errors at once
    #[command(after_help = examples::CHECK)]
    Check(CheckArgs),
    /// List the known mail daemons; with NAME, print its description as a template for your own
    #[command(after_help = examples::DAEMONS)]
    Daemons(DaemonsArgs),
    /// List the authorised addresses
    #[command(after_help = examples::LIST)]
    List(ListArgs),
    /// Test whether an address is authorised; exit status 0: yes, 1: no
    #[command(after_help = examples::QUERY)]
    Query(QueryArgs),
    /// Authorise an address manually
    #[command(after_help = examples::ALLOW)]
    Allow(AllowArgs),
    /// End an authorisation now
    #[command(after_help = examples::REVOKE)]
    Revoke(RevokeArgs),
    /// Show the daemon's status
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Print what happens to authorisations, as it happens: one JSON object per line
    #[command(after_help = examples::WATCH)]
    Watch(WatchArgs),
    /// Diagnose Postfix or Exim, log forwarding and the daemon; exit status 0: nothing to fix, 1: something
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Publish an empty map while no daemon runs
    #[command(mut_args = only_of_wipe)]
    Wipe(RunArgs),
}

/// Hides the options that `wipe` accepts only because `run` has them.
fn only_of_wipe(option: Arg) -> Arg {
    let is_used = ["config", "map", "postfix_config", "help"].contains(&option.get_id().as_str());
    option.hide(!is_used)
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) layer: Layer,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Socket to which mail daemons log
    #[arg(long, value_name = "PATH", default_value = "/dev/log")]
    pub(super) log_socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// File with log lines or frames [default: standard input]
    pub(super) file: Option<PathBuf>,
    /// Expect inputs to end with NUL instead of newline, so that a frame may contain newlines
    #[arg(short = '0', long)]
    pub(super) null: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub(super) json: bool,
    /// Print only the summary
    #[arg(long, conflicts_with = "json")]
    pub(super) summary: bool,
    /// Print only results with this verdict: login, logout, partial, excluded, none
    #[arg(long, value_name = "VERDICT", hide_possible_values = true,
        value_parser = ["login", "logout", "partial", "excluded", "none"])]
    pub(super) only: Vec<String>,
    #[command(flatten)]
    pub(super) matching: MatchingArgs,
}

/// The options of `run` that decide what is matched.
#[derive(Args, Debug)]
pub(super) struct MatchingArgs {
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Mail daemons whose logins count [default: all verified ones]
    #[arg(long, value_name = "NAME", value_parser = DaemonNames, hide_possible_values = true)]
    pub(super) daemon: Option<Vec<String>>,
    /// Accept a mail daemon's logins only from these facilities [default: any facility]
    #[arg(long, value_name = "DAEMON=FACILITY[,FACILITY...]")]
    pub(super) facility: Option<Vec<Facilities>>,
    /// Accept only messages of these host names; - stands for messages without one [default: every
    /// host]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(super) allow_host: Option<Vec<HostName>>,
    /// Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]
    #[arg(long, value_name = "DIR")]
    pub(super) daemons_dir: Option<PathBuf>,
    /// Never authorise, as for `run`
    #[arg(long, value_name = "WHAT")]
    pub(super) exclude: Option<Vec<ExcludeWhat>>,
    /// Postfix's configuration directory
    #[arg(long, value_name = "DIR")]
    pub(super) postfix_config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct DaemonsArgs {
    /// Print the description of this mail daemon
    #[arg(value_parser = DaemonNames, hide_possible_values = true)]
    pub(super) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]
    #[arg(long, value_name = "DIR")]
    pub(super) daemons_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// The options for reaching the running daemon.
#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// Control socket [default: as configured, or /run/pop-before-smtp/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Configuration file that names the control socket
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Show the list until Ctrl-C: new (+) and ended (-) addresses are marked; needs a terminal
    #[arg(long, conflicts_with_all = ["blocked", "json"])]
    pub(super) watch: bool,
    /// List the addresses that are blocked instead
    #[arg(long)]
    pub(super) blocked: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Show the status until Ctrl-C; needs a terminal
    #[arg(long, conflicts_with_all = ["check", "json"])]
    pub(super) watch: bool,
    /// Print only what affects mail; exit status 0: nothing, 1: something
    #[arg(long)]
    pub(super) check: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// First print the authorised addresses, then {"event":"ready"}
    #[arg(long)]
    pub(super) initial: bool,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct QueryArgs {
    /// IPv4 or IPv6 address of the client; neither a host name nor a network
    pub(super) address: IpAddr,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct AllowArgs {
    /// IPv4 or IPv6 address of the client; neither a host name nor a network
    pub(super) address: IpAddr,
    /// Authorise for this time, at most 7 days [default: the grace]
    #[arg(long = "for", value_name = "DURATION", value_parser = manual)]
    pub(super) span: Option<Span>,
    /// Note for other operators, shown by `list`
    #[arg(long, value_name = "TEXT", value_parser = note)]
    pub(super) note: Option<String>,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// IPv4 or IPv6 address of the client; neither a host name nor a network
    pub(super) address: IpAddr,
    /// Refuse new authorisations for this time, at most 7 days
    #[arg(long, value_name = "DURATION", value_parser = manual)]
    pub(super) block: Option<Span>,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

/// Parses a duration of `allow` or `revoke`.
fn manual(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0 > MAX_MANUAL {
        return Err(format!("at most {} days", MAX_MANUAL.as_secs() / 86_400));
    }
    Ok(span)
}

/// Longest note, in bytes: a request with it stays below the daemon's limit.
const MAX_NOTE: usize = 3500;

/// Checks the length of a note.
fn note(text: &str) -> Result<String, String> {
    match text.len() {
        0..=MAX_NOTE => Ok(text.to_owned()),
        _ => Err(format!("longer than {MAX_NOTE} bytes")),
    }
}
