//! Where syslog frames come in.
//!
//! Promise  a frame is parsed and matched where it arrives; nothing here waits for postmap, disk
//!          or a queue. What is lost or turned away is counted: by the kernel (`SO_RXQ_OVFL`),
//!          because the sender is not one that is heard, or because it is larger than any frame.
//!          An error that may pass ends nothing. Our own log, if it comes back, is not repeated.
//! Layers   `bind` makes the sockets, `sender_filter` says who is heard; here the loop that
//!          empties them.

pub mod bind;
pub mod sender_filter;

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, UnixCredentials, getsockopt, recvmsg, sockopt,
};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};
use tracing::{debug, info, warn};

use super::shared::Shared;
use crate::control::status::ListenerKind;
use crate::engine::correlation::streams::Source;
use crate::engine::grants::GrantOutcome;
use crate::engine::time::Time;
use crate::engine::verdict::{Outcome, Verdict};
use crate::sys::log_limit::LogLimiter;
use sender_filter::{Sender, SenderFilter};

/// A frame is never larger: the largest UDP datagram has 65,507 bytes, and no forwarder sends more
/// over a Unix socket. A larger one is dropped, for its end is unknown.
const MAX_FRAME: usize = 65_536;
/// After this many frames in a row the other tasks get their turn.
const BURST: usize = 256;
/// And after this time, whatever the frames cost.
const TURN: Duration = Duration::from_millis(2);
/// Characters of a frame that are shown at debug level, longer than nearly every login line. JSON may
/// double them, and logger(1) cuts lines at 1024: what is cut off must be shorter than this.
const MAX_SHOWN: usize = 600;
/// After an error that may pass, such as a kernel without memory: time for it to pass.
const PAUSE: Duration = Duration::from_millis(100);

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
pub struct ReceiverCounters {
    /// Frames handed to the engine.
    pub frames: AtomicU64,
    /// Frames of senders that are not heard.
    pub rejected: AtomicU64,
    /// Frames larger than any frame should be.
    pub oversized: AtomicU64,
    /// Frames that the kernel has dropped because the receive buffer was full.
    pub kernel_drops: AtomicU64,
    /// Errors of the socket that did not end it.
    pub errors: AtomicU64,
}

/// One socket that receives frames.
#[derive(Debug)]
pub struct Receiver {
    /// What it listens on, for people.
    pub name: String,
    /// What it has counted.
    pub counters: ReceiverCounters,
    number: u16,
    socket: DatagramSocket,
    filter: SenderFilter,
    troubles: LogLimiter,
}

impl Receiver {
    /// Wraps a bound, non-blocking datagram socket. To tell users, it has `SO_PASSCRED` set.
    pub fn new(number: u16, name: String, socket: DatagramSocket, filter: SenderFilter) -> Self {
        let (counters, troubles) = (ReceiverCounters::default(), LogLimiter::default());
        Self { name, counters, number, socket, filter, troubles }
    }

    /// Returns what kind of socket it is.
    pub fn kind(&self) -> ListenerKind {
        match self.socket {
            DatagramSocket::Unix(_) => ListenerKind::Unix,
            DatagramSocket::Udp(_) => ListenerKind::Udp,
        }
    }

    /// Returns the bytes that the receive buffer takes, as the kernel counts them.
    pub fn receive_buffer(&self) -> Option<usize> {
        match &self.socket {
            DatagramSocket::Unix(socket) => getsockopt(socket, sockopt::RcvBuf).ok(),
            DatagramSocket::Udp(socket) => getsockopt(socket, sockopt::RcvBuf).ok(),
        }
    }

    /// Hands frames to the engine until the task is dropped.
    ///
    /// # Errors
    /// The socket cannot be watched, or will never be read again.
    pub async fn run(&self, shared: &Shared) -> io::Result<Infallible> {
        let mut room = Buffers::new(&self.filter);
        loop {
            self.socket.readable().await?;
            loop {
                let taken = self.socket.try_io(|| self.take(&mut room, BURST, TURN, shared));
                match taken {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if never_heals(&error) => return Err(error),
                    Err(error) => {
                        self.counters.errors.fetch_add(1, Ordering::Relaxed);
                        if let Some(times) = self.troubles.record(1) {
                            warn!(receiver = self.name, times, %error, "cannot receive; going on");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Hands over what the kernel still holds, at most `limit` frames.
    pub fn drain(&self, limit: usize, shared: &Shared) {
        // An error here is most likely the end of the queue; nothing more can be had in any case.
        let _ = self.take(&mut Buffers::new(&self.filter), limit, Duration::MAX, shared);
    }

    /// Takes frames until there are none (an error: it would block), there were `limit`, or the last
    /// one was heard so much later than the first.
    fn take(
        &self,
        room: &mut Buffers,
        limit: usize,
        turn: Duration,
        shared: &Shared,
    ) -> io::Result<()> {
        let mut begin = None;
        for _ in 0..limit {
            match self.receive(room) {
                Ok(Some((length, sender))) => {
                    let frame = &room.frame[..length];
                    if self.filter.admit(sender) {
                        let now = self.process(frame, sender.address, shared);
                        if now.since(*begin.get_or_insert(now)) >= turn {
                            return Ok(());
                        }
                    } else {
                        self.reject(frame, sender);
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One frame and its sender, or nothing if it is not whole.
    fn receive(&self, room: &mut Buffers) -> nix::Result<Option<(usize, Sender)>> {
        let mut slices = [IoSliceMut::new(&mut room.frame)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut room.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let mut sender = Sender { address: message.address.and_then(address_of), uid: None };
        // An error: there was more than there is room for, such as file descriptors that somebody
        // has sent along. The kernel has closed them, and whoever must be named remains unnamed.
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::RxqOvfl(drops) => {
                    self.counters.kernel_drops.store(drops.into(), Ordering::Relaxed);
                }
                ControlMessageOwned::ScmCredentials(credentials) => {
                    sender.uid = Some(credentials.uid());
                }
                _ => {}
            }
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            self.counters.oversized.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        Ok(Some((message.bytes, sender)))
    }

    fn reject(&self, frame: &[u8], Sender { address, uid }: Sender) {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        if tracing::enabled!(tracing::Level::DEBUG) && !self.is_named_in(frame) {
            let option = self.filter.option();
            debug!(
                receiver = self.name,
                address = address.map(tracing::field::display),
                uid,
                "frame dropped: {option} does not name its sender"
            );
        }
    }

    /// Hears a frame, and tells when.
    fn process(&self, frame: &[u8], sender: Option<IpAddr>, shared: &Shared) -> Time {
        self.counters.frames.fetch_add(1, Ordering::Relaxed);
        let source = Source { receiver: self.number, sender };
        let (outcome, kept_out, now) = shared.with(|engine, now| {
            let outcome = engine.process(now, source, frame);
            let kept_out = outcome.address.filter(|address| !engine.is_published(*address));
            (outcome, kept_out, now)
        });
        self.report(frame, &outcome);
        if let (Some(GrantOutcome::New), Some(address)) = (outcome.granted(), kept_out) {
            warn!(
                %address,
                "authorised, but kept out of the map: as a key it would admit other hosts of its \
                 network; --map-inexact-ipv6 publishes it all the same"
            );
        }
        now
    }

    /// What a stranger can provoke is said at debug level only.
    fn report(&self, frame: &[u8], outcome: &Outcome) {
        match (outcome.verdict, outcome.granted()) {
            (_, Some(GrantOutcome::New)) => info!(
                address = outcome.address.map(tracing::field::display),
                user = outcome.user,
                daemon = outcome.daemon.as_deref(),
                "authorised"
            ),
            (Verdict::None, _)
                if !tracing::enabled!(tracing::Level::DEBUG) || self.is_named_in(frame) => {}
            _ => debug!(
                receiver = self.name,
                verdict = outcome.verdict.as_str(),
                address = outcome.address.map(tracing::field::display),
                user = outcome.user,
                daemon = outcome.daemon.as_deref(),
                reason = %outcome.reason,
                frame = %Shown(frame),
                "heard"
            ),
        }
    }

    /// Whether a frame names this receiver: then it is most likely what was said here at debug
    /// level, sent back to us by a syslog daemon, and to say that again would go on for ever.
    fn is_named_in(&self, frame: &[u8]) -> bool {
        frame.windows(self.name.len()).any(|part| part == self.name.as_bytes())
    }
}

/// Buffers for one frame and what the kernel says about it, and not for more: file descriptors that
/// somebody sends along must not come to us.
struct Buffers {
    frame: Vec<u8>,
    control: Vec<u8>,
}

impl Buffers {
    fn new(filter: &SenderFilter) -> Self {
        let control = match filter {
            SenderFilter::Everybody => Vec::new(),
            SenderFilter::Networks(_) => nix::cmsg_space!(u32),
            SenderFilter::Users(_) => nix::cmsg_space!(UnixCredentials),
        };
        Self { frame: vec![0; MAX_FRAME], control }
    }
}

/// A frame for people's eyes. What can be printed stays as it is, backslashes too, and a long one
/// is cut: of a log that comes back in pieces, each piece must not be longer than the one before.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = MAX_SHOWN;
        for byte in self.0 {
            let is_plain = matches!(byte, b' '..=b'~');
            left = match left.checked_sub(if is_plain { 1 } else { 4 }) {
                Some(left) => left,
                None => return write!(f, "... ({} bytes)", self.0.len()),
            };
            if is_plain {
                f.write_char(char::from(*byte))?;
            } else {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether an error will be there at the next attempt too: the socket itself is not what it was.
fn never_heals(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EFAULT | Errno::EOPNOTSUPP)
    )
}

fn address_of(storage: SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Rules};

    #[tokio::test]
    async fn a_turn_ends_with_its_time() {
        let (sender, socket) = UnixDatagram::pair().expect("a pair");
        let socket = DatagramSocket::Unix(socket);
        let receiver = Receiver::new(0, "unix:x".into(), socket, SenderFilter::Everybody);
        let shared = Shared::new(Engine::new(Rules::default()));
        for _ in 0..5 {
            sender.send(b"<22>dovecot: x").await.expect("there is room");
        }
        let mut room = Buffers::new(&receiver.filter);
        let mut take = |turn| {
            let taken = receiver.take(&mut room, BURST, turn, &shared).map_err(|e| e.kind());
            (taken, receiver.counters.frames.load(Ordering::Relaxed))
        };
        assert_eq!(take(Duration::ZERO), (Ok(()), 1));
        assert_eq!(take(Duration::MAX), (Err(io::ErrorKind::WouldBlock), 5));
    }
}
