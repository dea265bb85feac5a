//! Receives syslog frames and passes them to the engine.
//!
//! - **Promise**: a frame is processed where it arrives; nothing here waits for postmap, a disk or a
//!   queue. Frames of one batch share one lock and one reading of the clock. What is lost or rejected
//!   is counted: dropped by the kernel (`SO_RXQ_OVFL`), of a sender that is not accepted, or oversized.
//!   A transient error ends nothing. The daemon's own log, if it comes back, is not logged again.
//! - **Layers**: `bind` makes the sockets, `batch` takes frames from one, [`sender_filter`] decides
//!   which senders are accepted; this file has the loop.

mod batch;
pub mod bind;
pub mod sender_filter;

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};
use tracing::{debug, info, warn};

use super::lost_logins::meaning;
use super::shared::Shared;
use crate::control::status::ListenerKind;
use crate::engine::correlation::streams::Source;
use crate::engine::grants::GrantOutcome;
use crate::engine::verdict::{Outcome, Verdict};
use crate::sys::log_limit::LogLimiter;
use batch::{BATCH, Batch};
use sender_filter::{Sender, SenderFilter};

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

    /// Runs a non-blocking operation; on `WouldBlock`, clears the socket's readiness.
    fn try_io<R>(&self, work: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Unix(socket) => socket.try_io(Interest::READABLE, work),
            Self::Udp(socket) => socket.try_io(Interest::READABLE, work),
        }
    }
}

/// What one receiver has counted.
#[derive(Debug, Default)]
pub struct ReceiverCounters {
    /// Frames passed to the engine.
    pub frames: AtomicU64,
    /// Frames of senders that are not accepted.
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
    /// Its address, for the log and `status`.
    pub name: String,
    /// What it has counted.
    pub counters: ReceiverCounters,
    number: u16,
    socket: DatagramSocket,
    filter: SenderFilter,
    errors: LogLimiter,
}

impl Receiver {
    /// Wraps a bound, non-blocking datagram socket. If the filter names users, it must have
    /// `SO_PASSCRED` set.
    pub fn new(number: u16, name: String, socket: DatagramSocket, filter: SenderFilter) -> Self {
        let (counters, errors) = (ReceiverCounters::default(), LogLimiter::default());
        Self { name, counters, number, socket, filter, errors }
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

    /// Passes frames to the engine until the task is dropped.
    ///
    /// # Errors
    /// The socket cannot be watched, or will never be read again.
    pub async fn run(&self, shared: &Shared) -> io::Result<Infallible> {
        let mut batch = Batch::new(&self.filter);
        loop {
            self.socket.readable().await?;
            loop {
                match self.socket.try_io(|| self.take_some(&mut batch, shared)) {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_permanent(&error) => return Err(error),
                    Err(error) => {
                        self.counters.errors.fetch_add(1, Ordering::Relaxed);
                        if let Some(times) = self.errors.record(1) {
                            warn!(receiver = self.name, times, %error, "cannot receive; trying again");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Passes on what the kernel still holds, about `limit` frames.
    pub fn drain(&self, limit: usize, shared: &Shared) {
        let mut batch = Batch::new(&self.filter);
        for _ in 0..limit.div_ceil(BATCH) {
            // Otherwise the queue is most likely empty.
            if !matches!(self.take(&mut batch, shared), Ok(true)) {
                return;
            }
        }
    }

    /// The same as [`Self::take`]; `WouldBlock` after a batch that is not full, too: then the queue was
    /// empty, and asking for that once more would cost as much as a frame. (Or an error followed, which
    /// recvmmsg(2) reports by the next call: then what is left waits for the next frame.)
    fn take_some(&self, batch: &mut Batch, shared: &Shared) -> io::Result<()> {
        let is_full = self.take(batch, shared)?;
        is_full.then_some(()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Receives a batch of frames and passes it to the engine under one lock. Returns whether there may
    /// be more.
    fn take(&self, batch: &mut Batch, shared: &Shared) -> io::Result<bool> {
        let is_full = match batch.receive(&self.socket) {
            Ok(is_full) => is_full,
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if let Some(drops) = batch.kernel_drops {
            self.counters.kernel_drops.store(drops.into(), Ordering::Relaxed);
        }
        let (mut accepted, mut oversized) = (0, 0);
        let mut reports = Vec::new();
        let logs_all = tracing::enabled!(tracing::Level::DEBUG);
        shared.with(|engine, now| {
            for (frame, sender) in batch.frames() {
                let Some(frame) = frame else {
                    oversized += 1;
                    continue;
                };
                if !self.filter.admit(sender) {
                    reports.push(FrameReport::Rejected(frame, sender));
                    continue;
                }
                accepted += 1;
                let source = Source { receiver: self.number, sender: sender.address };
                let outcome = engine.process(now, source, frame);
                let is_new = outcome.granted() == Some(GrantOutcome::New);
                if shared.lost_logins().is_first(&outcome) {
                    reports.push(FrameReport::Lost(frame, outcome.clone()));
                }
                if is_new || logs_all {
                    let kept_out = outcome.address.filter(|a| is_new && !engine.is_published(*a));
                    reports.push(FrameReport::Processed(frame, outcome, kept_out));
                }
            }
        });
        self.counters.frames.fetch_add(accepted, Ordering::Relaxed);
        self.counters.oversized.fetch_add(oversized, Ordering::Relaxed);
        reports.iter().for_each(|report| self.report(report));
        Ok(is_full)
    }

    /// Logs what became of a frame. What a sender can provoke is logged at debug level only, except
    /// the first login of each kind that authorises nobody.
    fn report(&self, report: &FrameReport<'_>) {
        let (frame, outcome, kept_out) = match report {
            FrameReport::Rejected(frame, sender) => return self.reject(frame, *sender),
            FrameReport::Lost(_, outcome) if outcome.reason.exclusion().is_some() => {
                return warn!(
                    address = outcome.address.map(tracing::field::display),
                    user = outcome.user,
                    daemon = outcome.daemon.as_deref(),
                    reason = %outcome.reason,
                    "a login does not authorise its address: {}; further ones are summed up once an \
                     hour",
                    meaning(&outcome.reason)
                );
            }
            FrameReport::Lost(frame, outcome) => {
                return warn!(
                    address = outcome.address.map(tracing::field::display),
                    daemon = outcome.daemon.as_deref(),
                    reason = %outcome.reason,
                    frame = %Shown(frame),
                    "a login has authorised nobody; try this line with `pop-before-smtp test`; further \
                     ones are summed up once an hour"
                );
            }
            FrameReport::Processed(frame, outcome, kept_out) => (frame, outcome, kept_out),
        };
        match (outcome.verdict, outcome.granted()) {
            (_, Some(GrantOutcome::New)) => info!(
                address = outcome.address.map(tracing::field::display),
                user = outcome.user,
                daemon = outcome.daemon.as_deref(),
                "authorised"
            ),
            (Verdict::None, _) if self.is_own_log(frame) => {}
            _ => debug!(
                receiver = self.name,
                verdict = outcome.verdict.as_str(),
                address = outcome.address.map(tracing::field::display),
                user = outcome.user,
                daemon = outcome.daemon.as_deref(),
                reason = %outcome.reason,
                frame = %Shown(frame),
                "processed"
            ),
        }
        if let Some(address) = kept_out {
            warn!(
                %address,
                "authorised, but left out of the map: its key would also admit other hosts of its \
                 network; map-inexact-ipv6 = true publishes it anyway"
            );
        }
    }

    fn reject(&self, frame: &[u8], Sender { address, uid }: Sender) {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        if tracing::enabled!(tracing::Level::DEBUG) && !self.is_own_log(frame) {
            let option = self.filter.option();
            debug!(
                receiver = self.name,
                address = address.map(tracing::field::display),
                uid,
                "frame dropped: {option} does not name its sender"
            );
        }
    }

    /// Returns whether a frame names this receiver: then it is most likely our own debug message,
    /// returned by a syslog daemon, and logging it again would loop.
    fn is_own_log(&self, frame: &[u8]) -> bool {
        frame.windows(self.name.len()).any(|part| part == self.name.as_bytes())
    }
}

/// What may have to be logged of one frame.
enum FrameReport<'f> {
    /// Its sender is not accepted.
    Rejected(&'f [u8], Sender),
    /// It is the first login of its kind that authorised nobody.
    Lost(&'f [u8], Outcome),
    /// What became of it, and its address if that is kept out of the map.
    Processed(&'f [u8], Outcome, Option<IpAddr>),
}

/// A frame as the debug log shows it: escaped, and truncated to [`MAX_SHOWN`], so that a returned log
/// does not grow.
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

/// Returns whether an error is permanent: the socket itself is broken.
fn is_permanent(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EFAULT | Errno::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::batch::SMALL_BATCH;
    use super::*;
    use crate::engine::{Engine, Rules};

    #[tokio::test]
    async fn a_batch_has_an_end() {
        let (sender, socket) = UnixDatagram::pair().expect("a pair");
        let socket = DatagramSocket::Unix(socket);
        let receiver = Receiver::new(0, "unix:x".into(), socket, SenderFilter::Everybody);
        let shared = Shared::new(Engine::new(Rules::default()));
        let mut batch = Batch::new(&receiver.filter);
        let mut taken = Vec::new();
        for sent in [1, SMALL_BATCH, SMALL_BATCH + BATCH + 1] {
            for _ in 0..sent {
                sender.try_send(b"<22>dovecot: x").expect("there is room");
            }
            while let Ok(is_full) = receiver.take(&mut batch, &shared) {
                taken.push((receiver.counters.frames.load(Ordering::Relaxed), is_full));
            }
        }
        let expected = [(1, false), (5, true), (5 + 4, true), (5 + 4 + 32, true), (42, false)];
        assert_eq!(taken, expected);
    }
}
