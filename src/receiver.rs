//! Where syslog frames come in.
//!
//! Promise  a frame is parsed and matched where it arrives; nothing here waits for postmap, disk
//!          or a queue. What is lost or turned away is counted: by the kernel (`SO_RXQ_OVFL`),
//!          because the sender is not one that is heard, or because it is larger than any frame.
//! Layers   `bind` makes the sockets; here the loop that empties them.

pub mod bind;

use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};
use tracing::{debug, info, warn};

use crate::engine::grants::Granted;
use crate::engine::heard::{Heard, Verdict};
use crate::engine::streams::Source;
use crate::shared::Shared;

/// A frame is never larger: the largest UDP datagram has 65,507 bytes, and no forwarder sends more
/// over a Unix socket. A larger one is dropped, for its end is unknown.
const MAX_FRAME: usize = 65_536;
/// After this many frames in a row the other tasks get their turn.
const BURST: usize = 256;

/// A bound socket of either kind.
#[derive(Debug)]
pub enum DatagramSocket {
    /// A Unix datagram socket.
    Unix(UnixDatagram),
    /// A UDP socket.
    Udp(UdpSocket),
}

impl DatagramSocket {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.readable().await,
            Self::Udp(socket) => socket.readable().await,
        }
    }

    /// Does without waiting what may find that it would have to wait.
    fn try_io<R>(&self, work: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Unix(socket) => socket.try_io(Interest::READABLE, work),
            Self::Udp(socket) => socket.try_io(Interest::READABLE, work),
        }
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(socket) => socket.as_raw_fd(),
            Self::Udp(socket) => socket.as_raw_fd(),
        }
    }
}

/// What one receiver has counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames handed to the engine.
    pub frames: AtomicU64,
    /// Frames of senders that are not heard.
    pub strangers: AtomicU64,
    /// Frames larger than any frame should be.
    pub oversized: AtomicU64,
    /// Frames that the kernel has dropped because the receive buffer was full.
    pub kernel_drops: AtomicU64,
}

/// One socket that receives frames.
#[derive(Debug)]
pub struct Receiver {
    /// What it listens on, for people.
    pub name: String,
    /// What it has counted.
    pub counters: Counters,
    number: u16,
    socket: DatagramSocket,
    heard_from: Option<Vec<IpNet>>,
}

impl Receiver {
    /// Wraps a bound, non-blocking datagram socket. `heard_from` are the networks of the senders
    /// that are heard; nothing for a Unix socket, whose file mode decides.
    pub fn new(
        number: u16,
        name: String,
        socket: DatagramSocket,
        heard_from: Option<Vec<IpNet>>,
    ) -> Self {
        Self { name, counters: Counters::default(), number, socket, heard_from }
    }

    /// Hands frames to the engine until the task is dropped.
    ///
    /// # Errors
    /// The socket cannot be watched or read.
    pub async fn run(&self, shared: &Shared) -> io::Result<Infallible> {
        let mut room = Room::new();
        loop {
            self.socket.readable().await?;
            loop {
                let taken = self.socket.try_io(|| self.take(&mut room, BURST, shared));
                match taken {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Hands over what the kernel still holds, at most `limit` frames.
    pub fn drain(&self, limit: usize, shared: &Shared) {
        // An error here is most likely the end of the queue; nothing more can be had in any case.
        let _ = self.take(&mut Room::new(), limit, shared);
    }

    /// Takes frames until there are none (an error: it would block) or there were `limit`.
    fn take(&self, room: &mut Room, limit: usize, shared: &Shared) -> io::Result<()> {
        for _ in 0..limit {
            match self.receive(room) {
                Ok(Some((length, sender))) => self.hear(&room.frame[..length], sender, shared),
                Ok(None) => {}
                // An earlier reply of the peer, or a signal: says nothing about the next frame.
                Err(nix::Error::EINTR | nix::Error::ECONNREFUSED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One frame and its sender, or nothing if it must not be heard.
    fn receive(&self, room: &mut Room) -> nix::Result<Option<(usize, Option<IpAddr>)>> {
        let mut slices = [IoSliceMut::new(&mut room.frame)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut room.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::RxqOvfl(drops) = control {
                self.counters.kernel_drops.store(drops.into(), Ordering::Relaxed);
            }
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            self.counters.oversized.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let sender = message.address.and_then(address_of);
        Ok(self.is_heard(sender).then_some((message.bytes, sender)))
    }

    fn is_heard(&self, sender: Option<IpAddr>) -> bool {
        let Some(networks) = &self.heard_from else { return true };
        let heard = sender.is_some_and(|sender| networks.iter().any(|net| net.contains(&sender)));
        if !heard {
            self.counters.strangers.fetch_add(1, Ordering::Relaxed);
            debug!(
                receiver = self.name,
                ?sender,
                "frame dropped: allow-from does not name the sender"
            );
        }
        heard
    }

    fn hear(&self, frame: &[u8], sender: Option<IpAddr>, shared: &Shared) {
        self.counters.frames.fetch_add(1, Ordering::Relaxed);
        let source = Source { receiver: self.number, sender };
        let (heard, kept_out) = shared.with(|engine, now| {
            let heard = engine.hear(now, source, frame);
            let kept_out = heard.address.filter(|address| !engine.is_published(*address));
            (heard, kept_out)
        });
        report(&self.name, frame, &heard);
        if let (Some(Granted::New), Some(address)) = (heard.granted(), kept_out) {
            warn!(
                %address,
                "authorised, but kept out of the map: as a key it would admit other hosts of its \
                 network; --map-inexact-ipv6 publishes it all the same"
            );
        }
    }
}

/// Room for one frame and what the kernel says about it.
struct Room {
    frame: Vec<u8>,
    control: Vec<u8>,
}

impl Room {
    fn new() -> Self {
        Self { frame: vec![0; MAX_FRAME], control: nix::cmsg_space!(u32) }
    }
}

/// What a stranger can provoke is said at debug level only.
fn report(receiver: &str, frame: &[u8], heard: &Heard) {
    match (heard.verdict, heard.granted()) {
        (_, Some(Granted::New)) => info!(
            address = heard.address.map(tracing::field::display),
            user = heard.user,
            daemon = heard.daemon.as_deref(),
            "authorised"
        ),
        (Verdict::None, _) if !tracing::enabled!(tracing::Level::DEBUG) => {}
        _ => debug!(
            receiver,
            verdict = heard.verdict.as_str(),
            address = heard.address.map(tracing::field::display),
            user = heard.user,
            daemon = heard.daemon.as_deref(),
            reason = %heard.reason,
            frame = %frame.escape_ascii(),
            "heard"
        ),
    }
}

fn address_of(storage: SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().to_canonical()))
}
