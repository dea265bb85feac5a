//! Creates the sockets on which Postfix sends requests.
//!
//! - **Promise**: sockets passed by systemd are distinguished by their names; the files of sockets
//!   created here are removed at the end. The backlog is long enough for a Postfix that starts all
//!   its processes at once.

use std::io;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::relay_log::RelayLog;
use super::{LookupCounters, LookupListener, LookupService, Protocol};
use crate::config::Config;
use crate::config::lookups::SocketRole;
use crate::config::values::Serve;
use crate::daemon::passed_sockets::Passed;
use crate::error::Failure;
use crate::sys::unix_socket;
use crate::sys::unix_socket::SocketFile;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 1024;

/// Services, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct LookupSockets {
    /// The services.
    pub services: Vec<LookupService>,
    /// The files of Unix sockets that were created here.
    pub files: Vec<SocketFile>,
}

/// Takes over the sockets that systemd has passed, and creates the configured ones.
///
/// # Errors
/// A socket cannot be created, or a passed one is of the wrong kind.
pub fn all(config: &Config, passed: &mut Passed) -> Result<LookupSockets, Failure> {
    let mut bound = LookupSockets::default();
    let lookups = &config.lookups;
    for (role, serve) in
        [(SocketRole::Socketmap, &lookups.socketmap), (SocketRole::Policy, &lookups.policy)]
    {
        let protocol = match role {
            SocketRole::Socketmap => Protocol::Socketmap(config.map_value.clone()),
            _ => Protocol::Policy,
        };
        while let Some(listener) = take_passed(passed, role)? {
            let address = listener.address().unwrap_or_else(|| "systemd".to_owned());
            bound.add(protocol.clone(), address, listener);
        }
        let Some(serve) = serve else { continue };
        let cannot_listen = |error: io::Error| cannot_listen(serve, &error);
        let listener = match serve {
            Serve::Unix(socket) => {
                let (listener, file) = unix_socket::bind_stream(&socket.path)?;
                file.give_to(socket)?;
                bound.files.push(file);
                async_unix(listener).map_err(cannot_listen)?
            }
            Serve::Inet(address) => LookupListener::Inet(inet(*address).map_err(cannot_listen)?),
        };
        bound.add(protocol, serve.to_string(), listener);
    }
    Ok(bound)
}

impl LookupListener {
    /// Returns its address as the configuration writes it, if it has one.
    fn address(&self) -> Option<String> {
        match self {
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                Some(format!("unix:{}", address.as_pathname()?.display()))
            }
            Self::Inet(listener) => Some(format!("inet:{}", listener.local_addr().ok()?)),
        }
    }
}

impl LookupSockets {
    fn add(&mut self, protocol: Protocol, address: String, listener: LookupListener) {
        let (counters, relay_log) = (LookupCounters::default(), RelayLog::default());
        self.services.push(LookupService { protocol, address, counters, relay_log, listener });
    }
}

fn cannot_listen(serve: &Serve, error: &io::Error) -> Failure {
    Failure::io(format!("cannot answer Postfix on `{serve}`: {error}")).hint(match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses this port; `ss -ltnp` shows which, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address",
        _ => "choose another address",
    })
}

fn take_passed(passed: &mut Passed, role: SocketRole) -> Result<Option<LookupListener>, Failure> {
    let wrong = |error: io::Error| {
        let what = format!("cannot use the {role:?} socket that systemd has passed: {error}");
        Failure::config(what).hint("use ListenStream= in the socket unit")
    };
    let Some(index) = passed.next_of(role) else { return Ok(None) };
    let listener = match passed.sockets().take_unix_listener(index) {
        Ok(listener) => listener.map(async_unix),
        Err(_) => passed.sockets().take_tcp_listener(index).map_err(wrong)?.map(async_inet),
    };
    listener.transpose().map_err(wrong)
}

fn async_unix(listener: std::os::unix::net::UnixListener) -> io::Result<LookupListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(LookupListener::Unix)
}

fn async_inet(listener: std::net::TcpListener) -> io::Result<LookupListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(LookupListener::Inet)
}

/// Creates a TCP socket that listens on an address.
///
/// # Errors
/// The kernel refuses.
pub fn inet(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the previous daemon's connections.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
