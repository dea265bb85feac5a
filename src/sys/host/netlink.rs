//! Reads kernel tables by rtnetlink (rtnetlink(7), netlink(7)).
//!
//! - **Promise**: only reads, and accepts replies from the kernel alone. Needs no privilege.
//! - **Not here**: what the messages mean ([`super::routes`]).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, sendto,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// One datagram of a dump; the kernel fills at most 32 KiB (`netlink_recvmsg`).
const BUFFER: usize = 64 << 10;
/// The kernel answers a dump request at once.
const TIMEOUT: TimeVal = TimeVal::new(10, 0);
/// Attempts to dump a table that changes meanwhile. Their results are merged: it is unlikely that all
/// of them miss an entry that stays.
const ATTEMPTS: u32 = 3;
/// nlmsghdr of netlink(7): length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `linux/netlink.h`: the table changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Requests all objects of a kind (`RTM_GETROUTE` and the like), with the header of that kind, and
/// calls `each` with every message of the reply, without its netlink header. It may see a message
/// more than once if the table changes meanwhile.
///
/// # Errors
/// There is no netlink, or the kernel does not know such objects.
pub fn dump(kind: u16, head: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let route = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
    setsockopt(&socket, ReceiveTimeout, &TIMEOUT)?;
    for attempt in 1..=ATTEMPTS {
        if attempt_dump(&socket, attempt, kind, head, &mut each)? {
            break;
        }
    }
    Ok(())
}

/// Returns whether the table stayed the same meanwhile.
fn attempt_dump(
    socket: &OwnedFd,
    number: u32,
    kind: u16,
    head: &[u8],
    each: &mut impl FnMut(&[u8]),
) -> io::Result<bool> {
    let kernel = NetlinkAddr::new(0, 0);
    let request = request(number, kind, head);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut consistent = true;
    loop {
        let (length, sender) = match recvfrom::<NetlinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        if sender != Some(kernel) {
            continue;
        }
        for message in records(&buffer[..length], HEADER, |bytes| u32_at(bytes, 0)) {
            if u32_at(message, 8) != Some(number) {
                continue;
            }
            let (kind, flags) = (u16_at(message, 4), u16_at(message, 6));
            consistent &= flags.is_some_and(|flags| flags & NLM_F_DUMP_INTR == 0);
            let body = &message[HEADER..];
            match kind.map(i32::from) {
                Some(libc::NLMSG_DONE | libc::NLMSG_ERROR) => {
                    let code = u32_at(body, 0).map_or(0, u32::cast_signed);
                    return if code < 0 {
                        Err(io::Error::from_raw_os_error(code.saturating_neg()))
                    } else {
                        Ok(consistent)
                    };
                }
                Some(libc::NLMSG_NOOP) => {}
                _ => each(body),
            }
        }
    }
}

fn request(number: u32, kind: u16, head: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + head.len()).unwrap_or(u32::MAX);
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = Vec::with_capacity(HEADER + head.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(number.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(head);
    request
}

/// Splits a sequence of netlink messages, attributes or next hops. Each begins with a header of at
/// least `head` bytes, which `length` reads, and is padded to a multiple of four bytes. Stops at a
/// wrong length.
pub fn records<'a>(
    bytes: &'a [u8],
    head: usize,
    length: impl Fn(&'a [u8]) -> Option<u32>,
) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(length(rest)?).ok()?;
        let record = rest.get(..length).filter(|_| length >= head)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(record)
    })
}

/// Returns the 16-bit number at an offset.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// Returns the 32-bit number at an offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_lengths_end_a_list() {
        let of = |bytes: &[u8]| {
            records(bytes, 4, |b| u16_at(b, 0).map(u32::from)).map(<[u8]>::len).collect::<Vec<_>>()
        };
        let number = |n: u16| n.to_ne_bytes();
        let list =
            [&number(5)[..], &[0; 3], &[0; 3], &number(4), &[0; 2], &number(9), &[0; 2]].concat();
        assert_eq!(of(&list), [5, 4], "the last one is truncated");
        assert_eq!(of(&number(3)), [] as [usize; 0]);
        assert_eq!(of(&[&number(0)[..], &[0; 8]].concat()), [] as [usize; 0], "would never end");
        assert_eq!(of(&[]), [] as [usize; 0]);
    }

    #[test]
    fn unknown_kind_is_an_error() {
        let refused = dump(0x7fff, &[0; 12], |_| {});
        assert!(refused.is_err(), "{refused:?}");
    }
}
