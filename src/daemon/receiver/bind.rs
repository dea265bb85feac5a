//! Creates the sockets that receive frames.
//!
//! - **Promise**: an old socket file is replaced only if it is a socket and nobody answers on it. If
//!   the kernel grants a smaller receive buffer than asked for, the log says so, with the fix.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use listenfd::ListenFd;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use super::sender_filter::SenderFilter;
use super::{DatagramSocket, Receiver};
use crate::config::Config;
use crate::config::lookups::SocketRole;
use crate::config::values::Listen;
use crate::daemon::passed_sockets::Passed;
use crate::error::Failure;
use crate::sys::unix_socket;
use crate::sys::unix_socket::SocketFile;

/// Requested size: one second at 20,000 messages of 160 bytes a second, for each of which the kernel
/// counts 830 bytes.
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// The kernel grants twice what it is asked for; with less than this, bursts may be lost.
pub const MIN_RECEIVE_BUFFER: usize = 4 << 20;

/// Receivers, and the socket files to remove at the end.
#[derive(Debug, Default)]
pub struct ReceiverSockets {
    /// The receivers, numbered in order.
    pub receivers: Vec<Receiver>,
    /// The files of Unix sockets that were created here.
    pub files: Vec<SocketFile>,
}

/// Creates all sockets that the configuration names, after those that systemd has passed.
///
/// # Errors
/// A socket cannot be created, or a passed one is of the wrong kind.
pub fn all(config: &Config, passed: &mut Passed) -> Result<ReceiverSockets, Failure> {
    let mut bound = ReceiverSockets::default();
    while let Some(index) = passed.next_of(SocketRole::Frames) {
        if let Some(socket) = take_passed(passed.sockets(), index)? {
            let name = socket.address().unwrap_or_else(|| format!("systemd:{index}"));
            bound.add(config, name, socket)?;
        }
    }
    for listen in &config.listen {
        match listen {
            Listen::Unix(address) => {
                let (socket, file) = unix_socket::bind_datagram(&address.path)?;
                // Before others may write: their first frames shall carry their credentials.
                bound.add(config, listen.to_string(), Raw::Unix(socket))?;
                file.give_to(address)?;
                bound.files.push(file);
            }
            Listen::Udp(address) => {
                let socket = udp(*address).map_err(|error| {
                    let what = format!("cannot receive on `{listen}`: {error}");
                    Failure::io(what).hint(hint_for_udp(&error))
                })?;
                bound.add(config, listen.to_string(), Raw::Udp(socket))?;
            }
        }
    }
    Ok(bound)
}

impl ReceiverSockets {
    fn add(&mut self, config: &Config, name: String, socket: Raw) -> Result<(), Failure> {
        let filter = match (&socket, &config.allow_uid) {
            (Raw::Udp(_), _) => {
                SenderFilter::Networks(config.allow_from.iter().map(|net| net.0).collect())
            }
            (Raw::Unix(_), Some(users)) => SenderFilter::Users(users.clone()),
            (Raw::Unix(_), None) => SenderFilter::Everybody,
        };
        let socket = socket
            .prepare(&name, &filter)
            .map_err(|error| Failure::io(format!("cannot set up the socket `{name}`: {error}")))?;
        let number = u16::try_from(self.receivers.len()).unwrap_or(u16::MAX);
        self.receivers.push(Receiver::new(number, name, socket, filter));
        Ok(())
    }
}

/// A socket before it is watched.
enum Raw {
    Unix(UnixDatagram),
    Udp(Socket),
}

impl Raw {
    /// Returns where it listens, in the form of the configuration, if it has a name.
    fn address(&self) -> Option<String> {
        match self {
            Self::Unix(socket) => {
                let address = socket.local_addr().ok()?;
                Some(format!("unix:{}", address.as_pathname()?.display()))
            }
            Self::Udp(socket) => Some(format!("udp:{}", socket.local_addr().ok()?.as_socket()?)),
        }
    }

    fn prepare(self, name: &str, filter: &SenderFilter) -> io::Result<DatagramSocket> {
        match self {
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                if let SenderFilter::Users(_) = filter {
                    setsockopt(&socket, sockopt::PassCred, &true)?;
                }
                tokio::net::UnixDatagram::from_std(socket).map(DatagramSocket::Unix)
            }
            Self::Udp(socket) => {
                socket.set_nonblocking(true)?;
                setsockopt(&socket, sockopt::RxqOvfl, &1)?;
                enlarge(name, &socket)?;
                tokio::net::UdpSocket::from_std(socket.into()).map(DatagramSocket::Udp)
            }
        }
    }
}

/// A socket that systemd has passed.
fn take_passed(passed: &mut ListenFd, index: usize) -> Result<Option<Raw>, Failure> {
    if let Ok(socket) = passed.take_unix_datagram(index) {
        return Ok(socket.map(Raw::Unix));
    }
    match passed.take_udp_socket(index) {
        Ok(socket) => Ok(socket.map(|socket| Raw::Udp(socket.into()))),
        Err(error) => Err(Failure::config(format!(
            "socket {index} that systemd has passed is not a datagram socket: {error}"
        ))
        .hint(
            "use ListenDatagram= in the socket unit; a stream socket for Postfix needs \
               FileDescriptorName=socketmap or policy",
        )),
    }
}

fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn hint_for_udp(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses this port; `ss -lunp` shows which, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or let systemd pass \
             the socket"
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address",
        _ => "name another address with --listen",
    }
}

/// Asks for a large receive buffer and warns if the kernel grants a small one.
fn enlarge(name: &str, socket: &Socket) -> io::Result<()> {
    let before = socket.recv_buffer_size()?;
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err()
        && before < MIN_RECEIVE_BUFFER
    {
        // A large one that systemd has granted would be made smaller by this.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    let granted = socket.recv_buffer_size()?;
    if granted < MIN_RECEIVE_BUFFER {
        warn!(
            receiver = name,
            granted,
            "small receive buffer, bursts may be lost; set net.core.rmem_max={RECEIVE_BUFFER} \
             with sysctl"
        );
    }
    Ok(())
}
