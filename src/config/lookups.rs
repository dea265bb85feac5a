//! The sockets on which Postfix sends requests, and the roles of passed sockets.

use super::options::Layer;
use super::values::Serve;
use crate::error::{Failure, Failures};

/// The role of a socket passed by systemd, from its name in the socket unit (systemd.socket(5),
/// FileDescriptorName=).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Receives syslog frames: any other name.
    Frames,
    /// Postfix's socketmap protocol: `socketmap`.
    Socketmap,
    /// Postfix's policy protocol: `policy`.
    Policy,
    /// Metrics and health checks over HTTP: `metrics`.
    Metrics,
}

impl SocketRole {
    /// Returns the role of a socket with this name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "socketmap" => Self::Socketmap,
            "policy" => Self::Policy,
            "metrics" => Self::Metrics,
            _ => Self::Frames,
        }
    }
}

/// The sockets for Postfix's requests, without those that systemd passes.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// Whether the socketmap protocol is served, on this socket or on a passed one.
    pub by_socketmap: bool,
    /// The socket for the socketmap protocol.
    pub socketmap: Option<Serve>,
    /// The socket for the policy protocol.
    pub policy: Option<Serve>,
}

impl Lookups {
    /// Takes the options from a layer and adds what is wrong with them to `faults`.
    pub fn from_layer(layer: &Layer, by_socketmap: bool, faults: &mut Failures) -> Self {
        let both = layer.socketmap.as_ref().zip(layer.policy.as_ref());
        let same = |(a, b): &(&Serve, &Serve)| a.to_string() == b.to_string();
        if let Some((address, _)) = both.filter(same) {
            let what = format!("`{address}` cannot be both socketmap and policy");
            let hint = "they are different protocols; give each its own socket";
            faults.push(Failure::config(what).hint(hint));
        }
        Self { by_socketmap, socketmap: layer.socketmap.clone(), policy: layer.policy.clone() }
    }

    /// Returns warnings that do not prevent the start.
    pub fn remarks(&self) -> Vec<String> {
        let asked = [&self.socketmap, &self.policy].into_iter().flatten();
        let open = asked.filter(|serve| match serve {
            Serve::Unix(_) => false,
            Serve::Inet(address) => !address.ip().is_loopback(),
        });
        open.map(|serve| {
            format!("`{serve}`: anyone who can reach this address can ask who is authorised")
        })
        .collect()
    }
}
