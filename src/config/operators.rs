//! Where operators may only ask, checked.

use std::path::{Path, PathBuf};

use super::layer::Layer;
use crate::error::Failure;

/// The socket on which nothing can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its path.
    pub path: PathBuf,
    /// The group that may use it, beside root and the daemon's own user.
    pub group: Option<String>,
}

impl Reading {
    /// Checks what a layer says. `control` is the socket that changes.
    pub fn of(layer: &Layer, control: &Path, faults: &mut Vec<Failure>) -> Option<Self> {
        let mut fault = |what: String, hint: &str| faults.push(Failure::config(what).hint(hint));
        let group = layer.control_read_group.clone();
        let Some(path) = layer.control_read.clone() else {
            if group.is_some() {
                fault(
                    "control-read-group: there is no reading socket".into(),
                    "add --control-read /run/pop-before-smtp/read.sock, or leave the group out",
                );
            }
            return None;
        };
        if !path.is_absolute() {
            let what = format!("control-read: `{}` is not an absolute path", path.display());
            fault(what, "begin it with /");
        }
        if path == control {
            let what = format!("`{}` cannot be both control and control-read", path.display());
            fault(what, "who may only read needs a socket of its own");
        }
        Some(Self { path, group })
    }
}
