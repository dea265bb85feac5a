//! Runs the command that the command line names and returns the exit status.
//!
//! - **Promise**: data goes to stdout, messages to stderr. Exit status as in
//!   deploy/guide/commands.md: 0 yes or done, 1 no, 2 usage, 69 daemon not reached, 70 bug, 74 input
//!   or output, 78 configuration.

mod args;
mod control;
mod examples;
mod live;
mod output;
mod test;
mod watch;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write as _, stdin, stdout};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::error;

use crate::config::layer::Layer;
use crate::config::lookups::SocketRole;
use crate::config::{Config, Matching};
use crate::daemon::passed_sockets::Passed;
use crate::daemon::{hardening, installation};
use crate::engine::time::Time;
use crate::engine::{Engine, Rules};
use crate::error::{Failure, Failures, end_after_panic};
use crate::sys::log::Log;
use crate::sys::terminal::OutputStyle;
use crate::{daemon, doctor, rules};

pub use args::Cli;
use args::{CheckArgs, Command, DaemonsArgs, DoctorArgs, RunArgs, TestArgs};

/// Time limit for threads that still wait for the disk when everything else has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Yes or no, for the exit status.
type CommandResult = Result<bool, Failures>;

impl Cli {
    /// Runs the command and reports its failures on stderr.
    pub fn run(self) -> ExitCode {
        hardening::narrow_umask();
        panic::set_hook(Box::new(|panic| {
            say(&format!("bug: {panic}"));
            end_after_panic()
        }));
        let outcome = match self.command {
            Command::Run(args) => match prepare(&args) {
                Ok(prepared) => return run(&args, prepared),
                Err(failures) => Err(failures),
            },
            Command::Test(args) => test(args),
            Command::Check(args) => check(args),
            Command::Daemons(args) => daemons(&args),
            Command::List(args) if args.watch => live::list(&args.control),
            Command::List(args) => control::list(&args),
            Command::Query(args) => control::query(&args),
            Command::Allow(args) => control::allow(args),
            Command::Revoke(args) => control::revoke(&args),
            Command::Status(args) if args.watch => live::status(&args.control),
            Command::Status(args) => control::status(&args),
            Command::Watch(args) => watch::watch(&args),
            Command::Doctor(args) => doctor(&args),
            Command::Wipe(args) => wipe(&args),
        };
        exit_code(outcome, |failure| say(&failure.to_string()))
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

/// Prints a sentence for people.
fn say(text: &str) {
    // Nobody reads it if stderr is closed.
    let _ = writeln!(io::stderr(), "pop-before-smtp: {text}");
}

/// Prints a warning, which changes no exit status.
fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Prints a line of data.
fn print(line: &str) -> CommandResult {
    written(writeln!(stdout(), "{line}"))
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
    fn layer(&self) -> Layer {
        self.layer.clone().over(Layer::below_command_line(self.config.as_deref()))
    }
}

fn prepare(args: &RunArgs) -> Result<(Config, Passed, Log), Failures> {
    let passed = Passed::from_env();
    let layer = args.layer();
    let config = Config::from_layer(&layer, passed.roles()).inspect_err(|_| {
        layer.remarks.iter().for_each(|remark| warn(remark));
    })?;
    let paths = installation::passed_paths(passed.roles().len());
    let faults = installation::sockets_named_twice(&config, &paths);
    if !faults.is_empty() {
        return Err(faults);
    }
    let log = Log::start(config.log_level, config.log_format)?;
    if let Some(remark) = installation::run_as_root(&config) {
        tracing::warn!("{remark}");
    }
    if let Some(fault) = installation::hidden_unit(Path::new("/")) {
        tracing::warn!("{fault}");
    }
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
    let mut layer = args.layer();
    if layer.map.is_none() && layer.unread.contains("map") {
        return Err(layer.faults);
    }
    // Faults in other options must not prevent it.
    std::mem::take(&mut layer.faults).iter().for_each(|fault| warn(fault.what()));
    match runtime()?.block_on(daemon::wipe(&layer))? {
        Some(table) => print(&format!("the map {table} is empty now")),
        None => print("no map to wipe: the configuration names none"),
    }
}

fn check(args: CheckArgs) -> CommandResult {
    let layer = args.run.layer();
    // Whether systemd will pass a receiving socket is not known here.
    let found = runtime()?.block_on(daemon::examine(&layer, &[SocketRole::Frames]));
    let (mut remarks, faults) = match found {
        Ok(remarks) => (remarks, Vec::new()),
        Err(faults) => (layer.remarks.clone(), faults),
    };
    let is_passed = !installation::paths_of_unit(Path::new("/")).is_empty();
    if !is_passed
        && layer.listen.as_ref().is_none_or(Vec::is_empty)
        && !layer.unread.contains("listen")
    {
        remarks.push(
            "listen: no socket is named, so the daemon starts only if systemd passes one \
             (pop-before-smtp.socket)"
                .into(),
        );
    }
    let logins = rules::login_rules::describe(&layer);
    let hidden = installation::hidden_unit(Path::new("/"));
    remarks.extend(hidden.map(|fault| fault.to_string()));
    if args.json {
        written(output::faults(&faults, &remarks, &logins, stdout().lock()))?;
    }
    remarks.iter().for_each(|remark| warn(remark));
    if !args.json && faults.is_empty() {
        for line in &logins {
            print(line)?;
        }
        print("no errors found")?;
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
    let layer = upper.over(Layer::below_command_line(file.as_deref()).sound()?);
    let matching = Matching::from_layer(&layer);
    let table = rules::load(&matching)?;
    // `run` would refuse these; here a person may be working on them.
    for failure in rules::false_examples(&table) {
        warn(&failure.to_string());
    }
    let (exclude, _) = runtime()?.block_on(rules::exclude(&matching))?;
    let grace = layer.grace().0;
    let logins = rules::login_rules::login_rules(&layer);
    let config = Rules { table, hosts: matching.hosts, exclude, grace, logins, ..Rules::default() };
    let (name, mut input): (String, Box<dyn BufRead>) =
        match args.file.as_deref().filter(|p| *p != Path::new("-")) {
            Some(path) => {
                let name = format!("`{}`", path.display());
                let file = File::open(path)
                    .map_err(|error| Failure::io(format!("cannot read {name}: {error}")))?;
                (name, Box::new(BufReader::new(file)))
            }
            None => ("standard input".into(), Box::new(stdin().lock())),
        };
    let unread = |error: io::Error| Failure::io(format!("cannot read {name}: {error}"));
    if let Some(program) = test::input::decompressor(&mut input).map_err(unread)? {
        let file = args.file.as_deref().unwrap_or(Path::new("FILE")).display();
        return Err(Failure::io(format!("{name} is compressed"))
            .hint(format!("{program} {file} | pop-before-smtp test"))
            .into());
    }
    let format = test::Format {
        end: if args.null { 0 } else { b'\n' },
        json: args.json,
        only_summary: args.summary,
        only: args.only,
    };
    let output = BufWriter::new(stdout().lock());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Time::default() + since_1970;
    match test::run(&mut Engine::new(config), input, output, &format, now) {
        Ok(found) => {
            found.sum_up(&format);
            Ok(found.login)
        }
        // The reader of the results, such as `head`, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => {
            Err(Failure::io(format!("cannot read {name}, or write to stdout: {error}")).into())
        }
    }
}

fn daemons(args: &DaemonsArgs) -> CommandResult {
    let upper = Layer { daemons_dir: args.daemons_dir.clone(), ..Layer::default() };
    let layer = upper.over(Layer::below_command_line(args.config.as_deref()).sound()?);
    let (daemons, faults) = rules::all_daemons(&Matching::from_layer(&layer).daemons_dir);
    // A fault in one file must not hide the others.
    for fault in &faults {
        warn(&fault.to_string());
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

fn doctor(args: &DoctorArgs) -> CommandResult {
    let layer = args.run.layer();
    let report = runtime()?.block_on(doctor::examine(&layer, &args.log_socket));
    let style = OutputStyle::of(&stdout());
    written(report.print(args.json, style, BufWriter::new(stdout().lock())))?;
    Ok(report.is_sound())
}
