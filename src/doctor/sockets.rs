//! The sockets on which Postfix asks: as each smtpd sees them, whether it may, and whether
//! somebody answers.
//!
//! Source  socketmap_table(5), SMTPD_POLICY_README; smtpd(8) goes to them as mail_owner, from
//!         within the chroot, at the moment of the question.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::channels::{Channel, below, is_same, seen_by_smtpd};
use super::findings::Report;
use super::map::told;
use super::permissions::{Access, Obstacle};
use super::postfix::restrictions::{Restriction, policy_call};
use super::setup::{RECIPIENT, RELAY, Setup};
use crate::config::values::Serve;
use crate::sys::unix_socket::UnixSocket;

/// The daemon answers in less than a millisecond.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that nobody is authorised by.
const REQUEST: &[u8] = b"request=smtpd_access_policy\nprotocol_state=RCPT\n\
    client_address=127.0.0.1\nsender=\n\n";

/// Examines a socket and the lines that name it.
pub async fn examine(setup: &Setup, channel: &Channel, runs: bool, report: &mut Report) {
    let Some(serve) = channel.serve() else { return };
    if let Serve::Unix(socket) = serve {
        seen(setup, channel, &socket.path, report);
    }
    fallback(setup, channel, report);
    if !runs {
        return;
    }
    match ask(setup, channel, serve).await {
        Ok(()) => report.ok(format!("{channel} answers")),
        Err(error) => report.problem(
            format!("{channel} does not answer: {error}"),
            "Postfix asks there, and gets no answer either.",
            "see the daemon's log for `answering Postfix`; restart the daemon",
        ),
    }
}

/// Whether each service finds the socket and may connect to it.
fn seen(setup: &Setup, channel: &Channel, ours: &Path, report: &mut Report) {
    let queue = &setup.queue;
    for (service, _, list) in setup.all_lists() {
        for restriction in list.iter().filter(|r| channel.is_meant_by(r, queue)) {
            let Some(endpoint) = channel.endpoint(restriction) else { continue };
            let Some(("unix", path)) = endpoint.name.split_once(':') else { continue };
            let (who, chrooted) = match endpoint.proxied {
                true => ("proxymap", setup.master.proxymap_chrooted),
                false => (&*service.name, service.chrooted),
            };
            let there = seen_by_smtpd(path, queue, chrooted);
            if is_same(&there, ours) {
                may_connect(setup, who, chrooted || !path.starts_with('/'), ours, report);
                continue;
            }
            let root = if chrooted { ", which is chrooted," } else { "" };
            report.problem(
                format!("{who}{root} does not find the {channel}"),
                format!(
                    "`{restriction}` sends it to {}. Then 451 is the answer to every recipient, or \
                     what default_action says.",
                    there.display()
                ),
                elsewhere(channel, ours, queue),
            );
        }
    }
}

/// Where the socket should be, and how main.cf should name it.
fn elsewhere(channel: &Channel, ours: &Path, queue: &Path) -> String {
    if below(ours, queue).is_some() {
        return format!("name it in main.cf from the queue directory on: {}", channel.words(queue));
    }
    let option = if matches!(channel, Channel::Policy(_)) { "policy" } else { "socketmap" };
    let place = queue.join("pop-before-smtp").join(option);
    let there = Serve::Unix(UnixSocket::at(place.clone()));
    let moved = if option == "policy" { Channel::Policy(there) } else { Channel::Socketmap(there) };
    let words = moved.words(queue).replace(&format!("{}/", queue.display()), "");
    format!(
        "install -d -o pop-before-smtp -g postfix -m 750 {}\n\
         config.toml: {option} = \"unix:{}\"\n\
         main.cf: {words}",
        queue.join("pop-before-smtp").display(),
        place.display()
    )
}

fn may_connect(setup: &Setup, who: &str, from_queue: bool, ours: &Path, report: &mut Report) {
    let Some(owner) = &setup.owner else { return };
    let from = if from_queue { &*setup.queue } else { Path::new("/") };
    match owner.obstacle(from, ours, Access::Write) {
        None => {
            report.ok(format!("{who} finds {}, and {} may connect", ours.display(), owner.name))
        }
        // The running daemon has been found missing already, or its absence is told next.
        Some(Obstacle::Unseen(path, error)) if error.kind() == io::ErrorKind::NotFound => {
            report.problem(
                format!("{} is not there", path.display()),
                "The daemon makes it when it starts. Until then 451 is the answer to every \
                 recipient, or what default_action says.",
                "start the daemon: pop-before-smtp run, or its unit",
            );
        }
        Some(obstacle) => report.problem(
            format!("{} cannot connect to {}: {}", owner.name, ours.display(), told(&obstacle)),
            format!("{who} asks as {}, and gets `Permission denied`: 451.", owner.name),
            match &obstacle {
                Obstacle::Closed(directory, Access::Pass) => {
                    format!("chgrp {0} {1} && chmod g+x {1}", owner.name, directory.display())
                }
                _ => format!(
                    "config.toml: add ,group=postfix behind unix:{}, with the daemon's user in that \
                     group: usermod -aG postfix pop-before-smtp; then restart the daemon",
                    ours.display()
                ),
            },
        ),
    }
}

/// What becomes of mail while nobody answers.
fn fallback(setup: &Setup, channel: &Channel, report: &mut Report) {
    for name in [RELAY, RECIPIENT] {
        for service in setup.master.smtpd.iter() {
            let list = setup.list(Some(service), name);
            let Some(place) = list.iter().position(|r| channel.is_meant_by(r, &setup.queue)) else {
                continue;
            };
            let early = |r: &Restriction| r.name == "permit_auth_destination";
            let spared = list[..place].iter().any(early);
            let whose = if spared {
                "of clients that want to relay"
            } else {
                "also for your own domains, for permit_auth_destination does not stand before it"
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
            let why = format!("Every recipient gets it, {whose}, while the daemon is down.");
            let mend = format!(
                "in main.cf: {}{}",
                if spared { "" } else { "permit_auth_destination, " },
                channel.words(&setup.queue)
            );
            if is_policy && !spared {
                report.problem(what, format!("default_action is not DUNNO. {why}"), mend);
            } else if is_policy || !spared {
                report.note(what, why, mend);
            }
        }
    }
}

/// Asks as Postfix does.
async fn ask(setup: &Setup, channel: &Channel, serve: &Serve) -> Result<(), String> {
    if matches!(channel, Channel::Policy(_)) {
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
        return match answer.trim_end() {
            "action=DUNNO" => Ok(()),
            other => Err(format!("it says {other:?} and not action=DUNNO")),
        };
    }
    // A name that no client has: the answer is that it is not there.
    match setup.postfix.lookup(&format!("socketmap:{serve}:clients"), "unknown").await {
        Ok(None) => Ok(()),
        Ok(Some(value)) => Err(format!("it finds what is not there: {value:?}")),
        Err(trouble) => Err(trouble.to_string()),
    }
}

fn policy_answer(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut line = String::new();
    BufReader::new(stream.take(1024)).read_line(&mut line)?;
    Ok(line)
}
