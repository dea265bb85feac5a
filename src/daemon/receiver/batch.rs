//! Takes frames from a socket, many with one system call (recvmmsg(2)).
//!
//! - **Limits**: in the block below. File descriptors that somebody sends along do not come to us:
//!   there is room for the expected control message only.

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::RawFd;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, UnixCredentials, recvmmsg,
};

use super::sender_filter::{Sender, SenderFilter};

/// The largest UDP datagram has 65,507 bytes, and no forwarder sends more over a Unix socket. A larger
/// frame is dropped, for its end is unknown.
const MAX_FRAME: usize = 65_536;
/// Most frames of one batch; the worst ones keep others from the engine for some milliseconds.
pub const BATCH: usize = 32;
/// Frames of a batch while they come one by one, since each has a price also when it stays empty.
pub const FEW: usize = 4;

/// Buffers for a batch, and what the last call has put into them. Only pages that a frame has needed
/// take memory.
pub struct Batch {
    /// One after the other, so that the kernel maps its pages only when they are used.
    buffers: Vec<u8>,
    /// Bytes of the control message that a frame may have.
    control: usize,
    /// How many frames the next call may take.
    size: usize,
    received: Vec<(Option<usize>, Sender)>,
    /// Frames that the kernel has dropped since the socket was made, if the last call told.
    pub kernel_drops: Option<u32>,
}

impl Batch {
    /// Makes buffers for a socket with this filter.
    pub fn new(filter: &SenderFilter) -> Self {
        let control = match filter {
            SenderFilter::Everybody => 0,
            SenderFilter::Networks(_) => nix::cmsg_space!(u32).capacity(),
            SenderFilter::Users(_) => nix::cmsg_space!(UnixCredentials).capacity(),
        };
        Self {
            buffers: vec![0; BATCH * MAX_FRAME],
            control,
            size: FEW,
            received: Vec::with_capacity(BATCH),
            kernel_drops: None,
        }
    }

    /// Takes the frames that are there, without waiting.
    ///
    /// # Errors
    /// As recvmmsg(2); `EAGAIN` if there is none.
    pub fn receive(&mut self, socket: RawFd) -> nix::Result<()> {
        let size = std::mem::replace(&mut self.size, FEW);
        self.received.clear();
        self.kernel_drops = None;
        // Made for each call: the kernel writes the lengths that it has used into them.
        let control = (self.control > 0).then(|| Vec::with_capacity(self.control));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(size, control);
        let buffers = self.buffers.chunks_exact_mut(MAX_FRAME).take(size);
        let mut slices: Vec<_> = buffers.map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let messages =
            recvmmsg(socket, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        for message in messages {
            let mut sender = Sender { address: message.address.and_then(address_of), uid: None };
            // An error: there was more than there is room for. The kernel has closed file descriptors
            // that were sent along, and a sender that must be named remains unnamed.
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
        if self.received.len() == size {
            self.size = BATCH;
        }
        Ok(())
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
