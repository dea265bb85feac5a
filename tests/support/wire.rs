//! Channels for frames: loopback UDP ports that no other test uses, and Unix datagram sockets.

use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use super::PATIENCE;

/// Below the range from which the kernel assigns client ports.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The largest datagram that a forwarder could send.
const FRAME: usize = 65_536;

/// A port on 127.0.0.1, free for TCP and UDP, that belongs to this test until it is dropped.
///
/// Postfix listens with SO_REUSEPORT: two of its instances on one port would silently share the
/// connections. So a port is claimed before it is used, by an abstract socket with its number.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixDatagram,
}

impl Port {
    /// Claims a free port.
    pub fn claim() -> Self {
        // Processes start at different ports, to avoid failed attempts.
        let start = usize::try_from(std::process::id()).unwrap_or(0) * 50;
        PORTS
            .cycle()
            .skip(start % PORTS.len())
            .take(PORTS.len())
            .find_map(Self::try_claim)
            .unwrap_or_else(|| panic!("no free port among {PORTS:?}"))
    }

    fn try_claim(number: u16) -> Option<Self> {
        let name = format!("pop-before-smtp-test-port-{number}");
        let claim = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).ok()?).ok()?;
        let free = TcpListener::bind(("127.0.0.1", number)).is_ok()
            && UdpSocket::bind(("127.0.0.1", number)).is_ok();
        free.then_some(Self { number, _claim: claim })
    }

    /// Returns its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A channel for frames, displayed as a value of `--listen`.
#[derive(Debug)]
pub enum Wire {
    /// Datagrams to a port of 127.0.0.1.
    Udp(Port),
    /// Datagrams to a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(port) => write!(f, "udp:127.0.0.1:{}", port.number()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Wire {
    /// UDP on a port of its own.
    pub fn udp() -> Self {
        Self::Udp(Port::claim())
    }

    /// A Unix datagram socket with this path.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }

    /// Sends one frame as it is.
    pub fn send(&self, frame: &[u8]) {
        let sent = match self {
            Self::Udp(port) => UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(frame, ("127.0.0.1", port.number()))),
            Self::Unix(path) => {
                UnixDatagram::unbound().and_then(|socket| socket.send_to(frame, path))
            }
        };
        let sent = sent.unwrap_or_else(|why| panic!("cannot send to {self}: {why}"));
        assert_eq!(sent, frame.len(), "{self} accepted only a part of the frame");
    }

    /// Listens on it instead of the daemon.
    pub fn bind(&self) -> TestReceiver {
        let receiver = match self {
            Self::Udp(port) => UdpSocket::bind(("127.0.0.1", port.number())).map(TestReceiver::Udp),
            Self::Unix(path) => UnixDatagram::bind(path).map(TestReceiver::Unix),
        };
        receiver.unwrap_or_else(|why| panic!("cannot listen on {self}: {why}"))
    }
}

/// A test's own receiver.
#[derive(Debug)]
pub enum TestReceiver {
    /// Bound to a UDP port.
    Udp(UdpSocket),
    /// Bound to a path.
    Unix(UnixDatagram),
}

impl TestReceiver {
    /// Waits for the next frame and returns it.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; FRAME];
        let received = match self {
            Self::Udp(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.recv(&mut frame))
            }
            Self::Unix(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.recv(&mut frame))
            }
        };
        frame.truncate(received.expect("a frame arrives"));
        frame
    }

    /// Returns the next frame that contains `mark`, as text; skips the forwarder's own messages.
    pub fn frame_with(&self, mark: &str) -> String {
        (0..100)
            .map(|_| String::from_utf8_lossy(&self.frame()).into_owned())
            .find(|frame| frame.contains(mark))
            .unwrap_or_else(|| panic!("no frame with {mark} among the first hundred"))
    }
}
