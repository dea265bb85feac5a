//! Diagnoses the host: what keeps a login from letting its client relay, and how to fix it.
//!
//! - **Promise**: changes nothing; it only logs test messages, and queries Postfix's tables and the
//!   daemon. Examines everything that it can; each finding says what to do.
//! - **Layers**: `setup` reads Postfix's configuration, `postfix` its restrictions; `channels` are
//!   how the daemon answers Postfix; `relay` checks the order of restrictions; `map` and `sockets`
//!   whether the channels work; `instance` Postfix's processes; `networks` who may relay without a login; `running` and `forwarder`
//!   the daemon and what reaches it; `permissions` what another user may access; `findings` is the
//!   report.

mod channels;
mod families;
mod findings;
mod forwarder;
mod instance;
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

/// Examines the host. `layer` is the daemon's configuration, `log_socket` the socket to which mail
/// daemons log.
pub async fn examine(layer: &Layer, log_socket: &Path) -> Report {
    let mut report = Report::default();
    if !nix::unistd::geteuid().is_root() {
        report.note(
            "not run as root",
            "Files of other users cannot be examined, so some findings may be wrong.",
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
        test_forwarder(layer, control, log_socket, status, &mut report);
    }
    match postfix(layer).await {
        Ok(setup) => {
            let configured = configured(&setup, layer, &passed).await;
            examine_postfix(&setup, &configured, status.as_ref(), &mut report).await;
        }
        Err(failure) => report.problem(
            format!("cannot read Postfix's configuration: {}", failure.what()),
            "Whether Postfix queries pop-before-smtp could not be examined.",
            failure.hint_text().unwrap_or("postfix check"),
        ),
    }
    report
}

/// Returns the sockets that systemd may pass: frames, and the lookup sockets that the running daemon
/// reports.
fn passed(answer: Option<&Answer>) -> Vec<SocketRole> {
    let Some(Answer::Status(status)) = answer else { return vec![SocketRole::Frames] };
    let asks = |protocol: &str| status.lookups.iter().any(|lookup| lookup.protocol == protocol);
    let roles = [(SocketRole::Socketmap, "socketmap"), (SocketRole::Policy, "policy")].into_iter();
    let roles = roles.filter(|(_, protocol)| asks(protocol)).map(|(role, _)| role);
    std::iter::once(SocketRole::Frames).chain(roles).collect()
}

/// Reports the findings of `check`.
async fn configuration(layer: &Layer, passed: &[SocketRole], report: &mut Report) {
    match daemon::examine(layer, passed).await {
        Ok(remarks) => {
            report.ok("the configuration is valid");
            for remark in remarks {
                report.note(remark, "", "see pop-before-smtp.toml(5), or leave it");
            }
        }
        Err(faults) => {
            for fault in faults {
                report.problem(
                    format!("configuration: {}", fault.what()),
                    "The daemon does not start with this configuration. (If it is started with \
                     command-line options, pass the same options to doctor.)",
                    fault.hint_text().unwrap_or("pop-before-smtp check"),
                );
            }
        }
    }
}

/// Examines the running daemon and returns its status.
fn running(control: &Path, answer: Result<Answer, Failure>, report: &mut Report) -> Option<Status> {
    match answer {
        Ok(Answer::Status(status)) => {
            running::examine(&status, report);
            if let Ok(clients) = client::list(control, None) {
                running::examine_clients(&clients, report);
            }
            Some(*status)
        }
        Ok(other) => {
            let what = format!("unexpected answer from the daemon: {other:?}");
            report.problem(what, "It may be of another version.", "restart the daemon");
            None
        }
        Err(failure) => {
            report.problem(
                format!("the daemon does not answer: {}", failure.what()),
                "While it is down no login counts. After a crash the map keeps its entries, and these \
                 clients can relay until `wipe` empties it; lookups by socket get 451 or \
                 default_action.",
                "systemctl start pop-before-smtp (or pop-before-smtp run), and check its log if it exits; \
                 if it uses another control socket, pass --control",
            );
            None
        }
    }
}

fn test_forwarder(
    layer: &Layer,
    control: &Path,
    log_socket: &Path,
    before: &Status,
    report: &mut Report,
) {
    let matching = Matching::from_layer(layer);
    // Faults of the table are reported with the configuration.
    let Ok(table) = rules::load(&matching) else { return };
    ForwarderTest { log_socket, control, daemons: table.daemons() }.run(before, report);
}

async fn postfix(layer: &Layer) -> Result<Setup, Failure> {
    Setup::read(Postfix::locate(layer.postfix_config.clone())?).await
}

async fn examine_postfix(
    setup: &Setup,
    configured: &[Channel],
    status: Option<&Status>,
    report: &mut Report,
) {
    let channels = status.map_or_else(|| configured.to_vec(), Channel::running);
    // Compares names only: the daemon does not report the mode and group of its sockets.
    let runs = |channel: &Channel| {
        channels.iter().any(|running| running.to_string() == channel.to_string())
    };
    for channel in configured.iter().filter(|channel| status.is_some() && !runs(channel)) {
        report.problem(
            format!("the configuration has the {channel}, but the running daemon does not"),
            "It was started with another configuration.",
            "restart the daemon",
        );
    }
    if channels.is_empty() {
        report.note(
            "there is no map, socketmap or policy service to examine",
            "The daemon is in dry-run mode, systemd passes its sockets, or its configuration is invalid.",
            "unless systemd passes the sockets, set map, policy or socketmap in the configuration",
        );
    } else {
        relay::examine(setup, &channels, report).await;
    }
    for channel in &channels {
        match channel {
            Channel::Map(table) => {
                // The fallback map has another number.
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
    families::examine(setup, report);
    instance::examine(setup, &channels, report);
}

/// Returns the configured channels, if the configuration is valid.
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
