//! Creates the control sockets.
//!
//! - **Promise**: their mode and group are those of the configuration; by default owner and group may
//!   open them.

use tokio::net::UnixListener;

use crate::config::Config;
use crate::control::protocol::Access;
use crate::error::Failure;
use crate::sys::unix_socket;
use crate::sys::unix_socket::SocketFile;

/// Listeners, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct ControlSockets {
    /// The listeners, each with the access that it grants.
    pub listeners: Vec<(UnixListener, Access)>,
    /// Their files.
    pub files: Vec<SocketFile>,
}

/// Creates the control socket, and the read-only one if configured.
///
/// # Errors
/// A socket cannot be created, or its group cannot be set.
pub fn all(config: &Config) -> Result<ControlSockets, Failure> {
    let control = &config.control;
    let read_only = control.read.as_ref().map(|socket| (socket, Access::Read));
    let mut bound = ControlSockets::default();
    for (socket, access) in [(&control.change, Access::Change)].into_iter().chain(read_only) {
        let path = &socket.path;
        let (listener, file) = unix_socket::bind_stream(path)?;
        let listen = || {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(|error| {
            Failure::io(format!("cannot listen on `{}`: {error}", path.display()))
        })?;
        file.give_to(socket)?;
        bound.listeners.push((listener, access));
        bound.files.push(file);
    }
    Ok(bound)
}
