//! Making the sockets that receive frames.
//!
//! Promise  an old socket file is replaced only if it is a socket and nobody answers on it. The
//!          receive buffer asked for is read back, and a small one is said with its cure.

use std::os::unix::net::UnixDatagram;

use listenfd::ListenFd;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use super::Receiver;
use crate::config::Config;
use crate::config::values::Listen;
use crate::error::Failure;
use crate::unix_socket::{self, SocketFile};

/// Asked for: a second of 20,000 messages of 160 bytes; the kernel counts 830 bytes for each.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The kernel grants twice what it is asked for; with less than this, bursts may be lost.
const ENOUGH: usize = 4 << 20;

/// Receivers, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct Bound {
    /// The receivers, numbered in order.
    pub receivers: Vec<Receiver>,
    /// The files of Unix sockets that were made here.
    pub files: Vec<SocketFile>,
}

/// Makes all sockets that the configuration names, after those that systemd has passed.
///
/// # Errors
/// A socket cannot be made, or a passed one is of the wrong kind.
pub fn all(config: &Config, passed: &mut ListenFd) -> Result<Bound, Failure> {
    let mut bound = Bound::default();
    for index in 0..passed.len() {
        if let Some((name, socket, is_udp)) = take_passed(passed, index)? {
            bound.add(config, name, socket, is_udp)?;
        }
    }
    for listen in &config.listen {
        match listen {
            Listen::Unix(path) => {
                let (socket, file) = unix_socket::bind_datagram(path)?;
                file.give_to(config.listen_mode, config.listen_group.as_deref())?;
                bound.files.push(file);
                bound.add(config, listen.to_string(), socket.into(), false)?;
            }
            Listen::Udp(address) => {
                let socket = udp(*address).map_err(|error| {
                    let what = format!("cannot receive on `{listen}`: {error}");
                    Failure::io(what).hint(hint_for_udp(&error))
                })?;
                bound.add(config, listen.to_string(), socket, true)?;
            }
        }
    }
    Ok(bound)
}

impl Bound {
    fn add(
        &mut self,
        config: &Config,
        name: String,
        socket: Socket,
        is_udp: bool,
    ) -> Result<(), Failure> {
        let prepare = || -> std::io::Result<()> {
            socket.set_nonblocking(true)?;
            if is_udp {
                setsockopt(&socket, sockopt::RxqOvfl, &1)?;
                enlarge(&name, &socket)?;
            }
            Ok(())
        };
        prepare().map_err(|error| Failure::io(format!("cannot set up `{name}`: {error}")))?;
        let number = u16::try_from(self.receivers.len()).unwrap_or(u16::MAX);
        let heard_from = is_udp.then(|| config.allow_from.iter().map(|net| net.0).collect());
        self.receivers.push(Receiver::new(number, name, socket, heard_from));
        Ok(())
    }
}

/// A socket that systemd has passed, if it is one for frames: its name and whether it is UDP.
fn take_passed(
    passed: &mut ListenFd,
    index: usize,
) -> Result<Option<(String, Socket, bool)>, Failure> {
    let name = format!("systemd:{index}");
    if let Ok(socket) = passed.take_unix_datagram(index) {
        return Ok(socket.map(|socket: UnixDatagram| (name, socket.into(), false)));
    }
    match passed.take_udp_socket(index) {
        Ok(socket) => Ok(socket.map(|socket| (name, socket.into(), true))),
        Err(error) => Err(Failure::config(format!(
            "socket {index} that systemd has passed is no datagram socket: {error}"
        ))
        .hint("use ListenDatagram= in the socket unit")),
    }
}

fn udp(address: std::net::SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn hint_for_udp(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program has this port; `ss -lunp` shows which, or choose another port"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or let systemd pass \
             the socket"
        }
        std::io::ErrorKind::AddrNotAvailable => "this host does not have that address",
        _ => "name another address with --listen",
    }
}

/// Asks for a large receive buffer and warns if the kernel grants a small one.
fn enlarge(name: &str, socket: &Socket) -> std::io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    let granted = socket.recv_buffer_size()?;
    if granted < ENOUGH {
        warn!(
            receiver = name,
            granted,
            "small receive buffer, bursts may be lost; set net.core.rmem_max={RECEIVE_BUFFER} \
             with sysctl"
        );
    }
    Ok(())
}
