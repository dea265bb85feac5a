//! The load generator: sends frames at a given rate, or as fast as the receiver takes them.
//!
//! One core cannot send 400,000 separate datagrams a second over loopback, because it also does the
//! kernel's share of their delivery. Where `segments` is more than one, that many frames of one
//! length leave with one system call (`UDP_SEGMENT`, udp(7)); the receiver gets separate datagrams.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, UnixAddr, sendmmsg, sendmsg,
};

use super::frames::Frame;
use super::random::Random;

/// Most frames that one call sends to a Unix socket.
const UNIX_BATCH: usize = 64;

/// How fast frames are sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames per second.
    pub rate: u32,
    /// Frames that are due at the same time and follow each other without a pause.
    pub together: u64,
    /// Frames that one system call sends.
    pub segments: usize,
}

/// What has been sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// Logins among them.
    pub logins: u64,
    /// How long that took.
    pub took: Duration,
}

/// Frames of one length.
struct Burst {
    bytes: Vec<u8>,
    length: u16,
    frames: u64,
    logins: u64,
}

/// Groups frames by length, `size` together, and shuffles the groups.
fn bursts(frames: &[Frame], size: usize) -> Vec<Burst> {
    let mut by_length = BTreeMap::<usize, Vec<&Frame>>::new();
    for frame in frames {
        by_length.entry(frame.bytes.len()).or_default().push(frame);
    }
    let burst = |frames: &[&Frame]| Burst {
        bytes: frames.iter().flat_map(|frame| &frame.bytes).copied().collect(),
        length: u16::try_from(frames[0].bytes.len()).expect("a datagram"),
        frames: frames.len() as u64,
        logins: frames.iter().filter(|frame| frame.is_login).count() as u64,
    };
    let mut all: Vec<Burst> =
        by_length.values().flat_map(|frames| frames.chunks(size).map(burst)).collect();
    let mut random = Random::new(99);
    for last in (1..all.len()).rev() {
        all.swap(last, random.index(last + 1));
    }
    all
}

/// Sends at least `count` frames to a UDP port of this host.
pub fn to_udp(port: u16, frames: &[Frame], count: u64, pace: Pace) -> Sent {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(("127.0.0.1", port)).expect("the receiver's port");
    let bursts = bursts(frames, pace.segments);
    let mut sent = Sent::default();
    let begun = Instant::now();
    for burst in bursts.iter().cycle() {
        let earlier = sent.frames / pace.together * pace.together;
        let due = Duration::from_secs_f64(earlier as f64 / f64::from(pace.rate));
        // Sleeps too long now and then; the frames that are due by then follow at once.
        thread::sleep(due.saturating_sub(begun.elapsed()));
        if burst.frames == 1 {
            socket.send(&burst.bytes).expect("a datagram leaves");
        } else {
            let segments = [ControlMessage::UdpGsoSegments(&burst.length)];
            let data = [IoSlice::new(&burst.bytes)];
            let to = None::<&SockaddrIn>;
            sendmsg(socket.as_raw_fd(), &data, &segments, MsgFlags::empty(), to)
                .expect("a kernel with UDP_SEGMENT, Linux 4.18 or later");
        }
        sent.frames += burst.frames;
        sent.logins += burst.logins;
        if sent.frames >= count {
            break;
        }
    }
    Sent { took: begun.elapsed(), ..sent }
}

/// Sends at least `count` frames to a Unix socket, and waits whenever its queue is full.
pub fn to_unix(path: &Path, frames: &[Frame], count: u64) -> Sent {
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.connect(path).expect("the receiver's socket");
    let slices: Vec<[IoSlice<'_>; 1]> =
        frames.iter().map(|frame| [IoSlice::new(&frame.bytes)]).collect();
    let mut headers = MultiHeaders::<UnixAddr>::preallocate(UNIX_BATCH, None);
    let mut sent = Sent::default();
    let begun = Instant::now();
    let mut at = 0;
    while sent.frames < count {
        let batch = &slices[at..(at + UNIX_BATCH).min(slices.len())];
        let to = [None; UNIX_BATCH];
        let results = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            batch,
            &to[..batch.len()],
            [],
            MsgFlags::empty(),
        );
        let done = results.expect("the receiver is there").count();
        sent.frames += done as u64;
        sent.logins += frames[at..at + done].iter().filter(|frame| frame.is_login).count() as u64;
        at = (at + done) % slices.len();
    }
    Sent { took: begun.elapsed(), ..sent }
}
