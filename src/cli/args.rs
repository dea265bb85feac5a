//! The words of the command line (clap).
//!
//! Not here what they do (`cli`), and the options that the configuration file shares
//!          (`config::layer`).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    Run(RunArgs),
    /// Say what the daemon would make of log lines or syslog frames
    Test(TestArgs),
    /// Validate configuration and mail daemon tables; say every fault at once
    Check(CheckArgs),
    /// The mail daemons that are known; with NAME, its description to start your own from
    Daemons(DaemonsArgs),
    /// Who is authorised now
    List(ListArgs),
    /// Is this address authorised? Exit status 0: yes, 1: no
    Query(QueryArgs),
    /// Authorise an address by hand
    Allow(AllowArgs),
    /// End an authorisation now
    Revoke(RevokeArgs),
    /// How the daemon is
    Status(ListArgs),
    /// Examine Postfix, the log's way and the daemon, and print what to fix; exit status 0: nothing, 1: something
    Doctor(DoctorArgs),
    /// Publish an empty map while no daemon runs
    Wipe(RunArgs),
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it is there]
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
    /// Inputs end with NUL instead of newline, so that a frame may hold newlines
    #[arg(short = '0', long)]
    pub(super) null: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) matching: MatchingArgs,
}

/// The options of `run` that decide what is matched.
#[derive(Args, Debug)]
pub(super) struct MatchingArgs {
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Mail daemons that are believed [default: all that are verified]
    #[arg(long, value_name = "NAME")]
    pub(super) daemon: Option<Vec<String>>,
    /// Believe a mail daemon's logins from these facilities only [default: any facility]
    #[arg(long, value_name = "DAEMON=FACILITY[,FACILITY...]")]
    pub(super) facility: Option<Vec<Facilities>>,
    /// Host names in frames that are believed; - for frames without one [default: every host]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(super) allow_host: Option<Vec<HostName>>,
    /// Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]
    #[arg(long, value_name = "DIR")]
    pub(super) daemons_dir: Option<PathBuf>,
    /// Never authorised, as for `run`
    #[arg(long, value_name = "WHAT")]
    pub(super) exclude: Option<Vec<ExcludeWhat>>,
    /// Postfix's configuration directory
    #[arg(long, value_name = "DIR")]
    pub(super) postfix_config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct DaemonsArgs {
    /// Print the description of this one
    pub(super) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]
    #[arg(long, value_name = "DIR")]
    pub(super) daemons_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/pop-before-smtp/config.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// How the running daemon is reached.
#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// Control socket [default: that of the configuration, else
    /// /run/pop-before-smtp/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Configuration file that names the control socket
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) control: ControlArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct QueryArgs {
    /// The client: an IPv4 or IPv6 address, no host name and no network
    pub(super) address: IpAddr,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct AllowArgs {
    /// The client: an IPv4 or IPv6 address, no host name and no network
    pub(super) address: IpAddr,
    /// For how long, at most 7 days [default: the grace period]
    #[arg(long = "for", value_name = "DURATION", value_parser = manual)]
    pub(super) span: Option<Span>,
    /// Why; shown by `list`
    #[arg(long, value_name = "TEXT", value_parser = note)]
    pub(super) note: Option<String>,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The client: an IPv4 or IPv6 address, no host name and no network
    pub(super) address: IpAddr,
    /// Refuse new authorisations for so long, at most 7 days
    #[arg(long, value_name = "DURATION", value_parser = manual)]
    pub(super) block: Option<Span>,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

/// A span that the operator may give.
fn manual(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0 > MAX_MANUAL {
        return Err(format!("at most {}", humantime::format_duration(MAX_MANUAL)));
    }
    Ok(span)
}

/// Longest note, in bytes: with it, a request to the daemon fits its limit.
const MAX_NOTE: usize = 3500;

/// What the operator writes about it.
fn note(text: &str) -> Result<String, String> {
    match text.len() {
        0..=MAX_NOTE => Ok(text.to_owned()),
        _ => Err(format!("longer than {MAX_NOTE} bytes")),
    }
}
