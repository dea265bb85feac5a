//! Where Postfix and monitoring ask, and what each passed socket is for.

use super::layer::Layer;
use super::values::Serve;
use crate::error::{Failure, Failures};

/// What a socket that systemd has passed is for; its name in the socket unit says it
/// (systemd.socket(5), FileDescriptorName=).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// It receives syslog frames: any other name.
    Frames,
    /// Postfix's socketmap protocol: `socketmap`.
    Socketmap,
    /// Postfix's policy protocol: `policy`.
    Policy,
    /// Monitoring, by HTTP: `metrics`.
    Metrics,
}

impl SocketRole {
    /// The role of a socket with this name.
    pub fn of(name: &str) -> Self {
        match name {
            "socketmap" => Self::Socketmap,
            "policy" => Self::Policy,
            "metrics" => Self::Metrics,
            _ => Self::Frames,
        }
    }
}

/// Where Postfix asks, beside sockets that systemd passes.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// Whether the socketmap protocol is spoken, on this socket or on a passed one.
    pub by_socketmap: bool,
    /// By the socketmap protocol.
    pub socketmap: Option<Serve>,
    /// By the policy protocol.
    pub policy: Option<Serve>,
}

impl Lookups {
    /// Checks what a layer says.
    pub fn of(layer: &Layer, by_socketmap: bool, faults: &mut Failures) -> Self {
        let both = layer.socketmap.as_ref().zip(layer.policy.as_ref());
        let same = |(a, b): &(&Serve, &Serve)| a.to_string() == b.to_string();
        if let Some((address, _)) = both.filter(same) {
            let what = format!("`{address}` cannot be both socketmap and policy");
            faults.push(Failure::config(what).hint("they are two protocols; give each its socket"));
        }
        Self { by_socketmap, socketmap: layer.socketmap.clone(), policy: layer.policy.clone() }
    }

    /// What should be known though it keeps nothing from running.
    pub fn remarks(&self) -> Vec<String> {
        let asked = [&self.socketmap, &self.policy].into_iter().flatten();
        let open = asked.filter(|serve| match serve {
            Serve::Unix(_) => false,
            Serve::Inet(address) => !address.ip().is_loopback(),
        });
        open.map(|serve| format!("`{serve}`: whoever can reach it can ask who is authorised"))
            .collect()
    }
}
