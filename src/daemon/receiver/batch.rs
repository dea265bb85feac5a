//! Receives frames from a socket, many with one system call (recvmmsg(2)).
//!
//! - **Limits**: see the constants. File descriptors that a sender attaches are discarded: there is
//!   room for the expected control message only.

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage, UnixCredentials,
    recvmmsg,
};

use super::DatagramSocket;
use super::sender_filter::{Sender, SenderFilter};

/// The largest UDP datagram has 65,507 bytes, and no forwarder sends more over a Unix socket. A larger
/// frame is dropped, for its end is unknown.
const MAX_FRAME: usize = 65_536;
/// Most frames of one batch: the most expensive ones hold the engine's lock for two milliseconds.
pub const BATCH: usize = 32;
/// Size of a batch after one that was not full: every buffer costs time even if it stays empty.
pub const SMALL_BATCH: usize = 4;

/// Buffers for a batch, and the frames of the last call.
pub struct Batch {
    /// In one piece, so that the kernel maps only the pages that are used.
    buffers: Vec<u8>,
    /// Bytes of the control message that a frame may have.
    control: usize,
    /// How many frames the next call may receive.
    size: usize,
    received: Vec<(Option<usize>, Sender)>,
    /// Frames that the kernel has dropped since the socket was created, if the last call reported it.
    pub kernel_drops: Option<u32>,
}

impl Batch {
    /// Creates buffers for a socket with this filter.
    pub fn new(filter: &SenderFilter) -> Self {
        let control = match filter {
            SenderFilter::Everybody => 0,
            SenderFilter::Networks(_) => nix::cmsg_space!(u32).capacity(),
            SenderFilter::Users(_) => nix::cmsg_space!(UnixCredentials).capacity(),
        };
        Self {
            buffers: vec![0; BATCH * MAX_FRAME],
            control,
            size: SMALL_BATCH,
            received: Vec::with_capacity(BATCH),
            kernel_drops: None,
        }
    }

    /// Receives the frames that are there, without waiting. Returns whether the batch is full, so that
    /// there may be more.
    ///
    /// # Errors
    /// As recvmmsg(2); `EAGAIN` if there is none.
    pub fn receive(&mut self, socket: &DatagramSocket) -> nix::Result<bool> {
        match socket {
            // The kernel writes no address for senders without a name, so none may be read.
            DatagramSocket::Unix(socket) => self.receive_from(socket.as_raw_fd(), |()| None),
            DatagramSocket::Udp(socket) => self.receive_from(socket.as_raw_fd(), address_of),
        }
    }

    fn receive_from<A: SockaddrLike + Copy>(
        &mut self,
        socket: RawFd,
        address_of: fn(A) -> Option<IpAddr>,
    ) -> nix::Result<bool> {
        let size = std::mem::replace(&mut self.size, SMALL_BATCH);
        self.received.clear();
        self.kernel_drops = None;
        // Created for each call: the kernel writes the lengths that it has used into them.
        let control = (self.control > 0).then(|| Vec::with_capacity(self.control));
        let mut headers = MultiHeaders::<A>::preallocate(size, control);
        let buffers = self.buffers.chunks_exact_mut(MAX_FRAME).take(size);
        let mut slices: Vec<_> = buffers.map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let messages =
            recvmmsg(socket, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        for message in messages {
            let mut sender = Sender { address: message.address.and_then(address_of), uid: None };
            // Truncated control data is an error: the kernel has closed file descriptors that were
            // attached, and the sender stays unknown.
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::RxqOvfl(drops) => self.kernel_drops = Some(drops),
                    ControlMessageOwned::ScmCredentials(credentials) => {
                        sender.uid = Some(credentials.uid());
                    }
                    _ => {}
                }
            }
            let is_whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
            self.received.push((is_whole.then_some(message.bytes), sender));
        }
        let is_full = self.received.len() == size;
        if is_full {
            self.size = BATCH;
        }
        Ok(is_full)
    }

    /// Returns the frames of the last call with their senders; no frame if it is oversized.
    pub fn frames(&self) -> impl Iterator<Item = (Option<&[u8]>, Sender)> {
        let received = self.received.iter().zip(self.buffers.chunks_exact(MAX_FRAME));
        received.map(|((length, sender), buffer)| (length.map(|length| &buffer[..length]), *sender))
    }
}

fn address_of(storage: SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().to_canonical()))
}
