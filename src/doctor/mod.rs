//! Diagnoses the host: what keeps a login from letting its client relay, and how to fix it.
//!
//! - **Promise**: changes nothing; it only logs test messages, and queries Postfix's tables and the
//!   daemon. Examines everything that it can; each finding says what to do.
//! - **Layers**: `setup` reads Postfix's configuration, `postfix` its restrictions; `channels` are
//!   how the daemon answers Postfix; `relay` checks the order of restrictions; `map` and `sockets`
//!   whether the channels work; `instance` Postfix's processes and `families` its address families;
//!   `exim` whether Exim asks; `networks` who may relay without a login; `running` and `forwarder` the
//!   daemon and what reaches it; `cluster` the exchange with other hosts; `maildaemons` how the mail
//!   daemons here log; `host` its services and syslog daemon; `permissions` what another user may
//!   access; `findings` is the report.

mod channels;
mod cluster;
mod exim;
mod families;
mod findings;
mod forwarder;
mod host;
mod instance;
mod maildaemons;
mod map;
mod networks;
mod permissions;
mod postfix;
mod relay;
mod running;
mod setup;
mod sockets;

use std::path::{Path, PathBuf};

use crate::config::DEFAULT_CONTROL;
use crate::config::layer::{DEFAULT_FILE, Layer};
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
use exim::{Exim, Surroundings};
use findings::Report;
use forwarder::ForwarderTest;
use host::Host;
use setup::Setup;

/// The log socket of a host without special arrangements.
const LOG_SOCKET: &str = "/dev/log";

/// Examines the host. `layer` is the daemon's configuration, `log_socket` the socket to which mail
/// daemons log.
pub async fn examine(layer: &Layer, log_socket: &Path) -> Report {
    let mut report = Report::default();
    let host = Host::look();
    report_limits(&host, &mut report);
    let default_control = PathBuf::from(DEFAULT_CONTROL);
    let control = layer.control.as_ref().map_or(&default_control, |socket| &socket.path);
    let answer = client::ask(control, None, &Request::Status);
    let passed = passed(answer.as_ref().ok());
    configuration(&host, layer, &passed, &mut report).await;
    let status = running(control, answer, &mut report);
    if let Some(status) = &status {
        running::examine_configuration(status, layer.file.as_deref(), &mut report);
    }
    cluster::examine(layer, status.as_ref(), &mut report).await;
    if host.is_root && host.has_systemd && *control == default_control {
        host::service::examine(layer, &mut report);
    }
    // A container has no log socket unless it shares the host's.
    let is_log_here = !host.is_container || log_socket.exists();
    if let Some(status) = status.as_ref().filter(|_| is_log_here) {
        test_forwarder(&host, layer, control, log_socket, status, &mut report).await;
    }
    if host.is_container {
        return report;
    }
    let exim = Exim::find();
    if let Some(exim) = &exim {
        let channels = match &status {
            Some(status) => Channel::running(status),
            None => Config::from_layer(layer, &passed)
                .map_or_else(|_| Vec::new(), |config| Channel::configured(&config, None)),
        };
        let around = Surroundings { host: &host, channels: &channels, runs: status.is_some() };
        exim.examine(&around, &mut report).await;
    }
    if exim.is_some_and(|exim| exim.is_mail_server) {
        return report;
    }
    match postfix(layer).await {
        Ok(setup) => {
            let configured = configured(&setup, layer, &passed).await;
            examine_postfix(&host, &setup, &configured, status.as_ref(), &mut report).await;
        }
        Err(failure) => report.problem(
            format!("cannot read Postfix's configuration: {}", failure.what()),
            "Whether Postfix queries pop-before-smtp could not be examined.",
            failure.hint_text().unwrap_or("postfix check"),
        ),
    }
    report
}

/// Reports first what cannot be examined.
fn report_limits(host: &Host, report: &mut Report) {
    if !host.is_root {
        report.limit(
            "not run as root",
            "Only what every user may see was examined: not the daemon's sockets and files, nor the \
             configurations of the mail daemons.",
            "sudo pop-before-smtp doctor",
        );
        report.ignore_denials();
    }
    if host.is_container {
        report.limit(
            "run in a container",
            "Postfix, the mail daemons and the syslog daemon are elsewhere and were not examined.",
            "on the mail host: pop-before-smtp doctor --config FILE --control PATH, with the container's \
             configuration and control socket",
        );
    }
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
async fn configuration(host: &Host, layer: &Layer, passed: &[SocketRole], report: &mut Report) {
    match daemon::examine(layer, passed).await {
        Ok(remarks) => {
            report.ok("the configuration is valid");
            for remark in remarks {
                report.note(remark, "", "see pop-before-smtp.toml(5), or leave it");
            }
        }
        // Nothing is configured yet.
        Err(faults) if layer.file.is_none() && layer.map.is_none() && layer.listen.is_none() => {
            let faults: Vec<String> = faults.iter().map(|fault| fault.what().into()).collect();
            report.problem(
                format!("configuration: {}", faults.join("; ")),
                format!(
                    "There is no {DEFAULT_FILE}. If the daemon is started with command-line \
                     options, or with --config, pass the same options to doctor."
                ),
                host.install_configuration(),
            );
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
                 default_action. If it exits, its log says why; if it uses another control socket, pass \
                 --control.",
                host::service::start(),
            );
            None
        }
    }
}

async fn test_forwarder(
    host: &Host,
    layer: &Layer,
    control: &Path,
    log_socket: &Path,
    before: &Status,
    report: &mut Report,
) {
    let matching = Matching::from_layer(layer);
    // Faults of the table are reported with the configuration.
    let Ok(table) = rules::load(&matching) else { return };
    let is_the_hosts = log_socket == Path::new(LOG_SOCKET);
    let found = maildaemons::examine(host, &table, &matching, before, is_the_hosts, report).await;
    let daemons = table.daemons();
    let (likely, logs_as) = (&found.likely, &*found.logs_as);
    ForwarderTest { host, log_socket, control, daemons, likely, logs_as }.run(before, report);
}

async fn postfix(layer: &Layer) -> Result<Setup, Failure> {
    Setup::read(Postfix::locate(layer.postfix_config.clone())?).await
}

async fn examine_postfix(
    host: &Host,
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
    // Without root, only the restrictions can be judged.
    for channel in channels.iter().filter(|_| host.is_root) {
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
