//! Diagnoses the host as it is: what keeps a login from letting its client relay, and what to do.
//!
//! - **Promise**: nothing is changed, but for test messages in the log and questions to Postfix's
//!   tables and to the daemon. All is examined that can be; each finding says what to do.
//! - **Parts**: `setup` is what Postfix says of itself, `postfix` reads its restrictions; `channels`
//!   how the daemon answers it; `relay` who is refused before whom; `map` and `sockets` whether what
//!   is asked answers; `networks` who may relay anyway; `running` and `forwarder` the daemon and what
//!   reaches it; `permissions` what another user may do; `findings` the report.

mod channels;
mod findings;
mod forwarder;
mod map;
mod networks;
mod permissions;
mod postfix;
mod relay;
mod running;
mod setup;
mod sockets;

use std::path::{Path, PathBuf};

use crate::config::control::DEFAULT_CONTROL;
use crate::config::layer::Layer;
use crate::config::lookups::SocketRole;
use crate::config::{Config, Matching};
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::control::status::Status;
use crate::daemon;
use crate::error::Failure;
use crate::postfix::Postfix;
use crate::postfix::map_spec::MapSpec;
use crate::rules;
use channels::Channel;
use findings::Report;
use forwarder::ForwarderTest;
use setup::Setup;

/// Examines the host. `layer` is the daemon's configuration, `log_socket` where mail daemons log.
pub async fn examine(layer: &Layer, log_socket: &Path) -> Report {
    let mut report = Report::default();
    if !nix::unistd::geteuid().is_root() {
        report.note(
            "not run as root",
            "What belongs to others cannot be looked at, and is perhaps found wrong.",
            "sudo pop-before-smtp doctor",
        );
    }
    let default_control = PathBuf::from(DEFAULT_CONTROL);
    let control = layer.control.as_ref().map_or(&default_control, |socket| &socket.path);
    let answer = client::ask(control, None, &Request::Status);
    let passed = passed(answer.as_ref().ok());
    configuration(layer, &passed, &mut report).await;
    let status = running(control, answer, &mut report);
    if let Some(status) = &status {
        trial(layer, control, log_socket, status, &mut report);
    }
    match postfix(layer).await {
        Ok(setup) => {
            let configured = configured(&setup, layer, &passed).await;
            examine_postfix(&setup, &configured, status.as_ref(), &mut report).await;
        }
        Err(failure) => report.problem(
            format!("Postfix does not tell how it is set up: {}", failure.what()),
            "Whether it asks pop-before-smtp cannot be examined.",
            failure.hint_text().unwrap_or("postfix check"),
        ),
    }
    report
}

/// What systemd may pass, as far as the running daemon tells: where Postfix asks, if not by the
/// configuration.
fn passed(answer: Option<&Answer>) -> Vec<SocketRole> {
    let Some(Answer::Status(status)) = answer else { return vec![SocketRole::Frames] };
    let asks = |protocol: &str| status.lookups.iter().any(|lookup| lookup.protocol == protocol);
    let roles = [(SocketRole::Socketmap, "socketmap"), (SocketRole::Policy, "policy")].into_iter();
    let roles = roles.filter(|(_, protocol)| asks(protocol)).map(|(role, _)| role);
    std::iter::once(SocketRole::Frames).chain(roles).collect()
}

/// What `check` says.
async fn configuration(layer: &Layer, passed: &[SocketRole], report: &mut Report) {
    match daemon::examine(layer, passed).await {
        Ok(remarks) => {
            report.ok("the configuration has no fault");
            for remark in remarks {
                report.note(
                    remark,
                    "",
                    "see the guide (deploy/guide/configuration.md), or leave it",
                );
            }
        }
        Err(faults) => {
            for fault in faults {
                report.problem(
                    format!("configuration: {}", fault.what()),
                    "The daemon does not start with it. (If it has its options on its command line, \
                     give doctor the same.)",
                    fault.hint_text().unwrap_or("pop-before-smtp check"),
                );
            }
        }
    }
}

/// The running daemon, if it answers.
fn running(control: &Path, answer: Result<Answer, Failure>, report: &mut Report) -> Option<Status> {
    match answer {
        Ok(Answer::Status(status)) => {
            running::examine(&status, report);
            let list = client::list(control, None).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            if let Ok(slices) = list {
                let clients: Vec<_> = slices.into_iter().flatten().collect();
                running::examine_clients(&clients, report);
            }
            Some(*status)
        }
        Ok(other) => {
            let what = format!("the daemon's answer does not fit the question: {other:?}");
            report.problem(what, "It is perhaps of another version.", "restart the daemon");
            None
        }
        Err(failure) => {
            report.problem(
                format!("the daemon does not run: {}", failure.what()),
                "No login is heard. The map stays as it was, and whoever is in it may go on to relay \
                 (`wipe` empties it); a socket gives 451 or what default_action says.",
                "start it (pop-before-smtp run, or its unit), and see its log if it ends; another \
                 control socket is named with --control",
            );
            None
        }
    }
}

fn trial(layer: &Layer, control: &Path, log_socket: &Path, before: &Status, report: &mut Report) {
    let matching = Matching::from_layer(layer);
    // What is wrong with a table has been told with the configuration.
    let Ok(table) = rules::load(&matching) else { return };
    ForwarderTest { log_socket, control, daemons: table.daemons() }.run(before, report);
}

async fn postfix(layer: &Layer) -> Result<Setup, Failure> {
    Setup::learn(Postfix::locate(layer.postfix_config.clone())?).await
}

async fn examine_postfix(
    setup: &Setup,
    configured: &[Channel],
    status: Option<&Status>,
    report: &mut Report,
) {
    let channels = status.map_or_else(|| configured.to_vec(), Channel::running);
    // UserAccount may open its socket is nothing that the running daemon tells.
    let runs = |channel: &Channel| {
        channels.iter().any(|running| running.to_string() == channel.to_string())
    };
    for channel in configured.iter().filter(|channel| status.is_some() && !runs(channel)) {
        report.problem(
            format!("the configuration has the {channel}, the daemon that runs has not"),
            "It was started with another configuration.",
            "restart the daemon",
        );
    }
    if channels.is_empty() {
        report.note(
            "the daemon tells Postfix nothing that can be examined",
            "It is a dry run, or systemd has passed the sockets, or the configuration has a fault.",
            "set map, policy or socketmap in the configuration, if systemd passes no socket",
        );
    } else {
        relay::examine(setup, &channels, report).await;
    }
    for channel in &channels {
        match channel {
            Channel::Map(table) => {
                // One that was emptied is another one.
                let map = status.map(|status| &status.map).filter(|map| !map.emptied);
                let published = map.map(|map| map.published);
                map::examine(setup, table, published, report).await;
            }
            Channel::Socketmap(_) | Channel::Policy(_) => {
                sockets::examine(setup, channel, status.is_some(), report).await;
            }
        }
    }
    networks::examine(setup, &channels, report);
}

/// The channels that the configuration names, as far as it is sound.
async fn configured(setup: &Setup, layer: &Layer, passed: &[SocketRole]) -> Vec<Channel> {
    let Ok(config) = Config::from_layer(layer, passed) else { return Vec::new() };
    let table = match &config.map {
        Some(MapSpec { kind, path }) => {
            setup.postfix.map_type(kind).await.ok().map(|kind| format!("{kind}:{}", path.display()))
        }
        None => None,
    };
    Channel::configured(&config, table)
}
