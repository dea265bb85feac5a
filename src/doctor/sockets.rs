//! Checks the sockets that Postfix queries: whether each smtpd finds them and may connect, and
//! whether the daemon answers.
//!
//! - **Source**: socketmap_table(5), SMTPD_POLICY_README. smtpd(8) connects as mail_owner, inside
//!   the chroot, at the time of the request.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::channels::{Channel, below, is_same, seen_by_smtpd};
use super::findings::Report;
use super::host::service;
use super::map::describe;
use super::permissions::{Obstacle, Permission};
use super::postfix::restrictions::{Restriction, policy_call};
use super::setup::{RECIPIENT, RELAY, Setup};
use crate::config::values::Serve;
use crate::sys::unix_socket::UnixSocket;

/// The daemon answers in less than a millisecond.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// A policy request whose answer is always DUNNO.
const REQUEST: &[u8] = b"request=smtpd_access_policy\nprotocol_state=RCPT\n\
    client_address=127.0.0.1\nsender=\n\n";

/// Examines a socket and the restrictions that use it.
pub async fn examine(setup: &Setup, channel: &Channel, runs: bool, report: &mut Report) {
    let Some(serve) = channel.serve() else { return };
    if let Serve::Unix(socket) = serve {
        check_paths(setup, channel, &socket.path, report);
    }
    check_fallback(setup, channel, report);
    if !runs {
        return;
    }
    report_answer(channel, ask(setup, channel, serve).await, "Postfix", report);
}

/// Reports whether the daemon answers on the socket, which `program` asks.
pub fn report_answer(
    channel: &Channel,
    answer: Result<(), String>,
    program: &str,
    report: &mut Report,
) {
    match answer {
        Ok(()) => report.ok(format!("{channel} answers")),
        Err(error) => report.problem(
            format!("{channel} does not answer: {error}"),
            format!("{program} gets no answer there either."),
            "restart the daemon, and check its log",
        ),
    }
}

/// Checks that each service finds the socket and may connect to it.
fn check_paths(setup: &Setup, channel: &Channel, ours: &Path, report: &mut Report) {
    let queue = &setup.queue;
    for (service, _, list) in setup.all_lists() {
        for restriction in list.iter().filter(|r| channel.is_meant_by(r, queue)) {
            let Some(endpoint) = channel.endpoint(restriction) else { continue };
            let Some(("unix", path)) = endpoint.name.split_once(':') else { continue };
            let (service_name, chrooted) = match endpoint.proxied {
                true => ("proxymap", setup.master.proxymap_chrooted),
                false => (&*service.name, service.chrooted),
            };
            let resolved = seen_by_smtpd(path, queue, chrooted);
            if is_same(&resolved, ours) {
                check_access(setup, service_name, chrooted || !path.starts_with('/'), ours, report);
                continue;
            }
            let root = if chrooted { ", which is chrooted," } else { "" };
            report.problem(
                format!("{service_name}{root} does not find the {channel}"),
                format!(
                    "`{restriction}` leads it to {}, where the daemon does not answer. Every recipient \
                     gets 451, or what default_action specifies.",
                    resolved.display()
                ),
                how_to_name(channel, ours, queue),
            );
        }
    }
}

/// Returns where the socket should be, and how main.cf should name it.
fn how_to_name(channel: &Channel, ours: &Path, queue: &Path) -> String {
    if below(ours, queue).is_some() {
        return format!(
            "in main.cf, use a path relative to the queue directory: {}",
            channel.restriction(queue)
        );
    }
    let option = if matches!(channel, Channel::Policy(_)) { "policy" } else { "socketmap" };
    let place = queue.join("pop-before-smtp").join(option);
    let socket = Serve::Unix(UnixSocket::at(place.clone()));
    let moved =
        if option == "policy" { Channel::Policy(socket) } else { Channel::Socketmap(socket) };
    let restriction = moved.restriction(queue).replace(&format!("{}/", queue.display()), "");
    format!(
        "install -d -o pop-before-smtp -g postfix -m 750 {}\n\
         config.toml: {option} = \"unix:{}\"\n\
         main.cf: {restriction}",
        queue.join("pop-before-smtp").display(),
        place.display()
    )
}

fn check_access(setup: &Setup, service: &str, from_queue: bool, ours: &Path, report: &mut Report) {
    let Some(owner) = &setup.owner else { return };
    let from = if from_queue { &*setup.queue } else { Path::new("/") };
    match owner.obstacle(from, ours, Permission::Write) {
        None => {
            report.ok(format!("{service} finds {}, and {} can connect", ours.display(), owner.name))
        }
        // Whether the daemon is running is reported separately.
        Some(Obstacle::Unseen(path, error)) if error.kind() == io::ErrorKind::NotFound => {
            report.problem(
                format!("{} does not exist", path.display()),
                "The daemon creates it at start. Until then every recipient gets 451, or what \
                 default_action specifies.",
                service::start(),
            );
        }
        Some(obstacle) => report.problem(
            format!("{} cannot connect to {}: {}", owner.name, ours.display(), describe(&obstacle)),
            format!("{service} connects as {} and gets `Permission denied`: 451.", owner.name),
            match &obstacle {
                Obstacle::Closed(directory, Permission::Pass) => {
                    format!("chgrp {0} {1} && chmod g+x {1}", owner.name, directory.display())
                }
                _ => format!(
                    "config.toml: add ,group=postfix after unix:{}; add the daemon's user to that group \
                     (usermod -aG postfix pop-before-smtp); then restart the daemon",
                    ours.display()
                ),
            },
        ),
    }
}

/// Checks what happens to mail while the daemon does not answer.
fn check_fallback(setup: &Setup, channel: &Channel, report: &mut Report) {
    for name in [RELAY, RECIPIENT] {
        for service in setup.master.smtpd.iter() {
            let list = setup.list(Some(&service.name), name);
            let Some(place) = list.iter().position(|r| channel.is_meant_by(r, &setup.queue)) else {
                continue;
            };
            let early = |r: &Restriction| r.name == "permit_auth_destination";
            let spared = list[..place].iter().any(early);
            let affected = if spared {
                "recipients in other domains get 451"
            } else {
                "all recipients get 451, also in your own domains, because \
                 permit_auth_destination is not before it"
            };
            let argument = list[place].argument.as_deref().unwrap_or_default();
            let action = match channel {
                Channel::Policy(_) => policy_call(argument, "default_action").1,
                _ => None,
            };
            let action = action.unwrap_or_else(|| setup.default_action.clone());
            let is_policy = matches!(channel, Channel::Policy(_));
            if is_policy && action.to_ascii_uppercase().starts_with("DUNNO") {
                continue;
            }
            let what = format!("{name}: 451 while the {channel} does not answer");
            let why = format!("While the daemon is down, {affected}.");
            let fix = format!(
                "in main.cf: {}{}",
                if spared { "" } else { "permit_auth_destination, " },
                channel.restriction(&setup.queue)
            );
            if is_policy && !spared {
                report.problem(what, format!("default_action is not DUNNO. {why}"), fix);
            } else if is_policy || !spared {
                report.note(what, why, fix);
            }
        }
    }
}

/// Sends a request as Postfix does.
async fn ask(setup: &Setup, channel: &Channel, serve: &Serve) -> Result<(), String> {
    if matches!(channel, Channel::Policy(_)) {
        return ask_policy(serve);
    }
    // No client has this name, so the reply must be NOTFOUND.
    match setup.postfix.lookup(&format!("socketmap:{serve}:clients"), "unknown").await {
        Ok(None) => Ok(()),
        Ok(Some(value)) => Err(format!("it returned {value:?} for a key that does not exist")),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends a policy request.
pub fn ask_policy(serve: &Serve) -> Result<(), String> {
    let answer = match serve {
        Serve::Unix(socket) => UnixStream::connect(&socket.path).and_then(|stream| {
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            policy_answer(stream)
        }),
        Serve::Inet(address) => {
            TcpStream::connect_timeout(address, REPLY_TIMEOUT).and_then(|stream| {
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                policy_answer(stream)
            })
        }
    };
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.trim_end() {
        "action=DUNNO" => Ok(()),
        other => Err(format!("the reply is {other:?}, expected \"action=DUNNO\"")),
    }
}

fn policy_answer(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut line = String::new();
    BufReader::new(stream.take(1024)).read_line(&mut line)?;
    Ok(line)
}
