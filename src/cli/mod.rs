//! Words -> command -> exit status.
//!
//! Promise  data goes to stdout, talk to stderr. Exit status as in deploy/guide/commands.md: 0 yes
//!          or done, 1 no, 2 usage, 69 daemon not reached, 70 our bug, 74 input or output,
//!          78 configuration.

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
use crate::daemon::passed::Passed;
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

/// For work on the disk that was given up, when everything else has ended.
const TO_FINISH: Duration = Duration::from_secs(1);

/// Yes or no, for the exit status.
type CommandResult = Result<bool, Failures>;

impl Cli {
    /// Carries out the command and says what went wrong.
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

fn exit_code(outcome: CommandResult, say: impl Fn(&Failure)) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failures) => {
            failures.iter().for_each(say);
            failures.first().map_or(ExitCode::FAILURE, Failure::exit_code)
        }
    }
}

/// A reader that has gone away, such as `head`, is no failure of ours.
fn written(outcome: io::Result<()>) -> CommandResult {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io(format!("cannot write the answer: {error}")).into())
        }
        _ => Ok(true),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failures> {
    tokio::runtime::Builder::new_multi_thread()
        // A second one would only be woken for what the first does better in a row.
        .worker_threads(1)
        // The thread that waits for the disk stays: where no new one can be made, work for it would
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
    let config = Config::of(&args.layer()?, passed.roles())?;
    let log = Log::start(config.log_level, config.log_format)?;
    Ok((config, passed, log))
}

/// From here on only the log writes to stderr, for it never waits.
fn run(args: &RunArgs, (config, passed, log): (Config, Passed, Log)) -> ExitCode {
    let run = daemon::run(config, passed, log.clone(), || args.layer());
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(run);
        // Not for ever: a thread may wait for a disk that is stuck.
        runtime.shutdown_timeout(TO_FINISH);
        outcome
    });
    let code = exit_code(outcome.map(|()| true), |failure| error!("{failure}"));
    log.flush();
    code
}

fn wipe(args: &RunArgs) -> CommandResult {
    let layer = args.layer()?;
    match runtime()?.block_on(daemon::wipe(&layer))? {
        Some(table) => println!("the map {table} lists nobody now"),
        None => println!("there is no map to wipe: the configuration names none"),
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
        println!("no fault found");
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
    let matching = Matching::of(&layer);
    let table = rules::load(&matching)?;
    // `run` would refuse them; here they are what a person is working on.
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
        .map_err(|error| Failure::io(format!("input or output: {error}")).into())
}

fn daemons(args: &DaemonsArgs) -> CommandResult {
    let upper = Layer { daemons_dir: args.daemons_dir.clone(), ..Layer::default() };
    let layer = upper.over(Layer::below_command_line(args.config.as_deref())?);
    let (daemons, faults) = rules::all_daemons(&Matching::of(&layer).daemons_dir);
    // A fault in one file is no reason to hide the others.
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
    /// The control socket and, unless that one is named, the reading socket.
    fn sockets(&self) -> Result<(PathBuf, Option<PathBuf>), Failures> {
        if let Some(control) = &self.control {
            return Ok((control.clone(), None));
        }
        let layer = Layer::below_command_line(self.config.as_deref())?;
        let control = layer.control().path;
        Ok((control, layer.control_read.map(|socket| socket.path)))
    }

    fn ask(&self, request: &Request) -> Result<Answer, Failures> {
        let (control, reading) = self.sockets()?;
        Ok(client::ask(&control, reading.as_deref(), request)?)
    }
}

fn list(args: &ListArgs) -> CommandResult {
    let (control, reading) = args.control.sockets()?;
    let slices = client::list(&control, reading.as_deref())?;
    let manner = OutputStyle::of(&stdout());
    let out = BufWriter::new(stdout().lock());
    if args.json {
        // As it comes: it may be long, and memory short where the daemon runs.
        let mut array = output::Array::new(out);
        for slice in slices {
            if let Err(error) = array.add(&slice?) {
                return written(Err(error));
            }
        }
        return written(array.end());
    }
    let slices = slices.collect::<Result<Vec<_>, _>>()?;
    let entries: Vec<_> = slices.into_iter().flatten().collect();
    written(output::entries(&entries, manner, out))
}

fn query(args: &QueryArgs) -> CommandResult {
    match args.control.ask(&Request::Query { address: args.address })? {
        Answer::Query(Some(entry)) => written(output::entry(&entry, stdout().lock())),
        Answer::Query(None) => {
            println!("{} is not authorised", args.address.to_canonical());
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
                    "pop-before-smtp: the map does not say so yet; `status` tells whether it can be \
                     published"
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
                    "pop-before-smtp: the map can neither be published nor emptied, and the daemon's \
                     log says why: Postfix may read the address in the old one for as long as it stays"
                );
            } else if !published {
                eprintln!(
                    "pop-before-smtp: the map is not published yet; `status` tells whether it can be: \
                     Postfix may read the address in the old one for a minute more"
                );
            }
            if !saved {
                eprintln!(
                    "pop-before-smtp: the daemon cannot write that down yet, and `status` says why: \
                     should it end suddenly before it can, that would be undone"
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
            let manner = OutputStyle::of(&stdout());
            written(output::status(&status, args.json, manner, BufWriter::new(stdout().lock())))
        }
        other => Err(client::unexpected_answer(&other).into()),
    }
}

fn doctor(args: &DoctorArgs) -> CommandResult {
    let layer = args.run.layer()?;
    let report = runtime()?.block_on(doctor::examine(&layer, &args.log_socket));
    written(report.print(args.json, BufWriter::new(stdout().lock())))?;
    Ok(report.is_sound())
}
