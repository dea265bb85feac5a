//! Making the operators' sockets.
//!
//! Promise  root, the daemon's user and one group for each may open them, nobody else.

use tokio::net::UnixListener;

use super::Rights;
use crate::config::Config;
use crate::config::values::Mode;
use crate::error::Failure;
use crate::unix_socket::{self, SocketFile};

/// Owner and group: neither reading nor changing is for everybody.
const MODE: Mode = Mode(0o660);

/// Listeners, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct Bound {
    /// The listeners, each with what may be done over it.
    pub listeners: Vec<(UnixListener, Rights)>,
    /// Their files.
    pub files: Vec<SocketFile>,
}

/// Makes the control socket, and the reading socket if there shall be one.
///
/// # Errors
/// A socket cannot be made, or not given to its group.
pub fn all(config: &Config) -> Result<Bound, Failure> {
    let control = (&config.control, config.control_group.as_deref(), Rights::Change);
    let reading = config.reading.as_ref();
    let reading = reading.map(|it| (&it.path, it.group.as_deref(), Rights::Read));
    let mut bound = Bound::default();
    for (path, group, rights) in [control].into_iter().chain(reading) {
        let (listener, file) = unix_socket::bind_stream(path)?;
        let listen = || {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(|error| {
            Failure::io(format!("cannot listen on `{}`: {error}", path.display()))
        })?;
        file.give_to(MODE, group)?;
        bound.listeners.push((listener, rights));
        bound.files.push(file);
    }
    Ok(bound)
}
