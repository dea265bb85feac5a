//! Runs the command that the command line names and returns the exit status.
//!
//! - **Promise**: data goes to stdout, messages to stderr. Exit status as in
//!   deploy/guide/commands.md: 0 yes or done, 1 no, 2 usage, 69 daemon not reached, 70 bug, 74 input
//!   or output, 78 configuration.

mod args;
mod output;
mod test;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::error;

use crate::config::layer::Layer;
use crate::config::lookups::SocketRole;
use crate::config::{Config, Matching};
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::daemon::hardening;
use crate::daemon::passed_sockets::Passed;
use crate::engine::time::Time;
use crate::engine::{Engine, Rules};
use crate::error::{Failure, Failures};
use crate::sys::log::Log;
use crate::sys::terminal::OutputStyle;
use crate::{daemon, doctor, rules};

pub use args::Cli;
use args::{
    AllowArgs, CheckArgs, Command, ControlArgs, DaemonsArgs, DoctorArgs, ListArgs, QueryArgs,
    RevokeArgs, RunArgs, TestArgs,
};

/// Time limit for threads that still wait for the disk when everything else has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Yes or no, for the exit status.
type CommandResult = Result<bool, Failures>;

impl Cli {
    /// Runs the command and reports its failures on stderr.
    pub fn run(self) -> ExitCode {
        hardening::narrow_umask();
        let outcome = match self.command {
            Command::Run(args) => match prepare(&args) {
                Ok(prepared) => return run(&args, prepared),
                Err(failures) => Err(failures),
            },
            Command::Test(args) => test(args),
            Command::Check(args) => check(args),
            Command::Daemons(args) => daemons(&args),
            Command::List(args) => list(&args),
            Command::Query(args) => query(&args),
            Command::Allow(args) => allow(args),
            Command::Revoke(args) => revoke(&args),
            Command::Status(args) => status(&args),
            Command::Doctor(args) => doctor(&args),
            Command::Wipe(args) => wipe(&args),
        };
        exit_code(outcome, |failure| eprintln!("pop-before-smtp: {failure}"))
    }
}

fn exit_code(outcome: CommandResult, report: impl Fn(&Failure)) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failures) => {
            failures.iter().for_each(report);
            failures.first().map_or(ExitCode::FAILURE, Failure::exit_code)
        }
    }
}

/// A reader that closes the pipe early, such as `head`, is not a failure.
fn written(outcome: io::Result<()>) -> CommandResult {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io(format!("cannot write to stdout: {error}")).into())
        }
        _ => Ok(true),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failures> {
    tokio::runtime::Builder::new_multi_thread()
        // One worker: a second one only adds wake-ups.
        .worker_threads(1)
        // Keep the thread that waits for the disk: if a new one could not be started, its work would
        // otherwise end the daemon.
        .thread_keep_alive(Duration::MAX)
        .enable_all()
        .build()
        .map_err(|error| Failure::io(format!("cannot start threads: {error}")).into())
}

impl RunArgs {
    fn layer(&self) -> Result<Layer, Failures> {
        Ok(self.layer.clone().over(Layer::below_command_line(self.config.as_deref())?))
    }
}

fn prepare(args: &RunArgs) -> Result<(Config, Passed, Log), Failures> {
    let passed = Passed::from_env();
    let config = Config::from_layer(&args.layer()?, passed.roles())?;
    let log = Log::start(config.log_level, config.log_format)?;
    Ok((config, passed, log))
}

/// From here on only the log writes to stderr, because it never blocks.
fn run(args: &RunArgs, (config, passed, log): (Config, Passed, Log)) -> ExitCode {
    let run = daemon::run(config, passed, log.clone(), || args.layer());
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(run);
        // Limited, because a thread may wait for a disk that is stuck.
        runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        outcome
    });
    let code = exit_code(outcome.map(|()| true), |failure| error!("{failure}"));
    log.flush();
    code
}

fn wipe(args: &RunArgs) -> CommandResult {
    let layer = args.layer()?;
    match runtime()?.block_on(daemon::wipe(&layer))? {
        Some(table) => println!("the map {table} is empty now"),
        None => println!("no map to wipe: the configuration names none"),
    }
    Ok(true)
}

fn check(args: CheckArgs) -> CommandResult {
    let found = runtime()?.block_on(async {
        let layer = args.run.layer()?;
        // Whether systemd will pass a receiving socket is not known here.
        daemon::examine(&layer, &[SocketRole::Frames]).await
    });
    let faults = match found {
        Ok(remarks) => {
            for remark in remarks {
                eprintln!("pop-before-smtp: {remark}");
            }
            Vec::new()
        }
        Err(faults) => faults,
    };
    if args.json {
        written(output::faults(&faults, stdout().lock()))?;
    } else if faults.is_empty() {
        println!("no errors found");
    }
    if faults.is_empty() { Ok(true) } else { Err(faults) }
}

fn test(args: TestArgs) -> CommandResult {
    let file = args.matching.config.clone();
    let upper = Layer {
        daemon: args.matching.daemon,
        facility: args.matching.facility,
        allow_host: args.matching.allow_host,
        daemons_dir: args.matching.daemons_dir,
        exclude: args.matching.exclude,
        postfix_config: args.matching.postfix_config,
        ..Layer::default()
    };
    let layer = upper.over(Layer::below_command_line(file.as_deref())?);
    let matching = Matching::from_layer(&layer);
    let table = rules::load(&matching)?;
    // `run` would refuse these; here a person may be working on them.
    for failure in rules::false_examples(&table) {
        eprintln!("pop-before-smtp: {failure}");
    }
    let (exclude, _) = runtime()?.block_on(rules::exclude(&matching))?;
    let grace = layer.grace().0;
    let config = Rules { table, hosts: matching.hosts, exclude, grace, ..Rules::default() };
    let input: Box<dyn BufRead> =
        match args.file.as_deref().filter(|p| *p != Path::new("-")) {
            Some(path) => Box::new(BufReader::new(File::open(path).map_err(|error| {
                Failure::io(format!("cannot read `{}`: {error}", path.display()))
            })?)),
            None => Box::new(stdin().lock()),
        };
    let format = test::Format { end: if args.null { 0 } else { b'\n' }, json: args.json };
    let output = BufWriter::new(stdout().lock());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Time::default() + since_1970;
    test::run(&mut Engine::new(config), input, output, format, now)
        .map_err(|error| Failure::io(format!("cannot read input or write output: {error}")).into())
}

fn daemons(args: &DaemonsArgs) -> CommandResult {
    let upper = Layer { daemons_dir: args.daemons_dir.clone(), ..Layer::default() };
    let layer = upper.over(Layer::below_command_line(args.config.as_deref())?);
    let (daemons, faults) = rules::all_daemons(&Matching::from_layer(&layer).daemons_dir);
    // A fault in one file must not hide the others.
    for fault in &faults {
        eprintln!("pop-before-smtp: {fault}");
    }
    match &args.name {
        None => written(output::daemons(&daemons, args.json, stdout().lock())),
        Some(name) => match daemons.iter().find(|daemon| *daemon.name == **name) {
            Some(daemon) => written(output::daemon(daemon, args.json, stdout().lock())),
            None => Err(Failure::config(format!("there is no mail daemon `{name}`"))
                .hint("`pop-before-smtp daemons` lists them")
                .into()),
        },
    }
}

impl ControlArgs {
    /// Returns the control socket and, unless the command line names that, the read-only one.
    fn sockets(&self) -> Result<(PathBuf, Option<PathBuf>), Failures> {
        if let Some(control) = &self.control {
            return Ok((control.clone(), None));
        }
        let layer = Layer::below_command_line(self.config.as_deref())?;
        let control = layer.control().path;
        Ok((control, layer.control_read.map(|socket| socket.path)))
    }

    fn ask(&self, request: &Request) -> Result<Answer, Failures> {
        let (control, read_only) = self.sockets()?;
        Ok(client::ask(&control, read_only.as_deref(), request)?)
    }
}

fn list(args: &ListArgs) -> CommandResult {
    let (control, read_only) = args.control.sockets()?;
    let entries = client::list(&control, read_only.as_deref())?;
    let style = OutputStyle::of(&stdout());
    let out = BufWriter::new(stdout().lock());
    if args.json {
        return written(output::json_line(&entries, out));
    }
    written(output::entries(&entries, style, out))
}

fn query(args: &QueryArgs) -> CommandResult {
    match args.control.ask(&Request::Query { address: args.address })? {
        Answer::Query(Some(entry)) => written(output::entry(&entry, stdout().lock())),
        Answer::Query(None) => {
            println!("{} is not authorised", args.address.to_canonical());
            Ok(false)
        }
        Answer::Blocked(until) => {
            let address = args.address.to_canonical();
            println!("{address} is not authorised: blocked until {until} (`allow` ends the block)");
            Ok(false)
        }
        other => Err(client::unexpected_answer(&other).into()),
    }
}

fn allow(args: AllowArgs) -> CommandResult {
    let seconds = args.span.map(|span| span.0.as_secs());
    match args.control.ask(&Request::Allow { address: args.address, seconds, note: args.note })? {
        Answer::Allowed { entry, published } => {
            if !published {
                eprintln!(
                    "pop-before-smtp: the map does not contain the address yet; see `status` for why \
                     it is not published"
                );
            }
            written(output::entry(&entry, stdout().lock()))
        }
        other => Err(client::unexpected_answer(&other).into()),
    }
}

fn revoke(args: &RevokeArgs) -> CommandResult {
    let block = args.block.map(|span| span.0.as_secs());
    match args.control.ask(&Request::Revoke { address: args.address, block })? {
        Answer::Revoked { was_authorised, saved, published, stuck } => {
            if stuck {
                eprintln!(
                    "pop-before-smtp: the map can neither be published nor emptied, and may still \
                     contain the address; the daemon's log says why"
                );
            } else if !published {
                eprintln!(
                    "pop-before-smtp: the map is not published yet, and may contain the address for \
                     another minute; see `status` for why"
                );
            }
            if !saved {
                eprintln!(
                    "pop-before-smtp: the change is not saved to disk yet, so a crash would undo it; \
                     see `status` for why"
                );
            }
            let address = args.address.to_canonical();
            let state =
                if was_authorised { "is no longer authorised" } else { "was not authorised" };
            match args.block {
                Some(span) => {
                    let span = humantime::format_duration(span.0);
                    println!("{address} {state}; new logins do not count for {span}");
                }
                None => println!("{address} {state}"),
            }
            Ok(true)
        }
        other => Err(client::unexpected_answer(&other).into()),
    }
}

fn status(args: &ListArgs) -> CommandResult {
    match args.control.ask(&Request::Status)? {
        Answer::Status(status) => {
            let style = OutputStyle::of(&stdout());
            written(output::status(&status, args.json, style, BufWriter::new(stdout().lock())))
        }
        other => Err(client::unexpected_answer(&other).into()),
    }
}

fn doctor(args: &DoctorArgs) -> CommandResult {
    let layer = args.run.layer()?;
    let report = runtime()?.block_on(doctor::examine(&layer, &args.log_socket));
    let style = OutputStyle::of(&stdout());
    written(report.print(args.json, style, BufWriter::new(stdout().lock())))?;
    Ok(report.is_sound())
}
