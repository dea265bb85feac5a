//! The control sockets, checked: anyone who may open `control` can change who may relay.

use super::options::Layer;
use crate::error::{Failure, Failures};
use crate::sys::unix_socket::UnixSocket;

/// The control sockets.
#[derive(Clone, Debug)]
pub struct Control {
    /// Accepts every request.
    pub change: UnixSocket,
    /// Accepts only requests that change nothing.
    pub read: Option<UnixSocket>,
}

impl Control {
    /// Takes the options from a layer and adds what is wrong with them to `faults`.
    pub fn from_layer(layer: &Layer, faults: &mut Failures) -> Self {
        let change = layer.control();
        let read = layer.control_read.clone();
        let path = change.path.display();
        if change.mode.0 & 0o007 != 0 {
            let what = format!(
                "control: with mode {:04o} anybody could authorise addresses",
                change.mode.0
            );
            faults.push(Failure::config(what).hint("give it to a group: ,mode=0660,group=NAME"));
        }
        if read.as_ref().is_some_and(|read| read.path == change.path) {
            let what = format!("`{path}` cannot be both control and control-read");
            faults.push(Failure::config(what).hint("give control-read another path"));
        }
        Self { change, read }
    }
}
