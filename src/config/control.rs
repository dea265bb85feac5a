//! The control sockets, checked: who may open the one changes who may relay.

use super::layer::Layer;
use crate::error::{Failure, Failures};
use crate::sys::unix_socket::UnixSocket;

/// Where the control socket is unless the administrator says otherwise.
pub const DEFAULT_CONTROL: &str = "/run/pop-before-smtp/control.sock";

/// The control sockets.
#[derive(Clone, Debug)]
pub struct Control {
    /// The one on which everything can be asked and changed.
    pub change: UnixSocket,
    /// The one on which nothing can be changed.
    pub read: Option<UnixSocket>,
}

impl Control {
    /// Checks what a layer says.
    pub fn of(layer: &Layer, faults: &mut Failures) -> Self {
        let change = layer.control();
        let read = layer.control_read.clone();
        let path = change.path.display();
        if change.mode.0 & 0o007 != 0 {
            let what = format!("control: with mode {:04o} anybody could authorise", change.mode.0);
            faults.push(Failure::config(what).hint("give it to a group: ,mode=0660,group=NAME"));
        }
        if read.as_ref().is_some_and(|read| read.path == change.path) {
            let what = format!("`{path}` cannot be both control and control-read");
            faults.push(Failure::config(what).hint("who may only read needs a socket of its own"));
        }
        Self { change, read }
    }
}
