//! Creates the sockets for metrics and health checks.

use std::io;

use tokio::net::TcpListener;

use super::http::MetricsListener;
use crate::config::Config;
use crate::config::lookups::SocketRole;
use crate::daemon::lookup::bind::inet;
use crate::daemon::passed_sockets::Passed;
use crate::error::Failure;

/// Takes over the sockets that systemd has passed, and creates the configured one.
///
/// # Errors
/// The socket cannot be created, or a passed one is of the wrong kind.
pub fn all(config: &Config, passed: &mut Passed) -> Result<Vec<MetricsListener>, Failure> {
    let mut listeners = Vec::new();
    while let Some(index) = passed.next_of(SocketRole::Metrics) {
        let taken = passed.sockets().take_tcp_listener(index).and_then(|listener| {
            let watch = |listener: std::net::TcpListener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            };
            listener.map(watch).transpose()
        });
        let listener = taken.map_err(|error| {
            let what = format!("the metrics socket that systemd has passed is not TCP: {error}");
            Failure::config(what).hint("use ListenStream=HOST:PORT in the socket unit")
        })?;
        listeners.extend(
            listener.map(|listener| MetricsListener { name: format!("systemd:{index}"), listener }),
        );
    }
    if let Some(address) = &config.metrics {
        let listener = inet(address.0).map_err(|error| {
            let what = format!("cannot serve metrics on `{address}`: {error}");
            Failure::io(what).hint(match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program uses this port; `ss -ltnp` shows which, or choose another port"
                }
                io::ErrorKind::AddrNotAvailable => "this host does not have that address",
                _ => "choose another address",
            })
        })?;
        listeners.push(MetricsListener { name: address.to_string(), listener });
    }
    Ok(listeners)
}
