//! Making the operators' sockets.
//!
//! Promise  who may open them is what the configuration says: owner and group, unless it says more.

use tokio::net::UnixListener;

use crate::config::Config;
use crate::control::protocol::Rights;
use crate::error::Failure;
use crate::sys::unix_socket;
use crate::sys::unix_socket::SocketFile;

/// Listeners, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct ControlSockets {
    /// The listeners, each with what may be done over it.
    pub listeners: Vec<(UnixListener, Rights)>,
    /// Their files.
    pub files: Vec<SocketFile>,
}

/// Makes the control socket, and the reading socket if there shall be one.
///
/// # Errors
/// A socket cannot be made, or not given to its group.
pub fn all(config: &Config) -> Result<ControlSockets, Failure> {
    let control = &config.control;
    let reading = control.read.as_ref().map(|socket| (socket, Rights::Read));
    let mut bound = ControlSockets::default();
    for (socket, rights) in [(&control.change, Rights::Change)].into_iter().chain(reading) {
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
        bound.listeners.push((listener, rights));
        bound.files.push(file);
    }
    Ok(bound)
}
