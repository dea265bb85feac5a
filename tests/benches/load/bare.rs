//! The bare receiver: takes datagrams with recvmmsg(2) and does nothing with them. No receiver can
//! cost less.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};

/// Bytes of the receive buffer that are asked for, as by the daemon.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Most datagrams of one call, as in the daemon.
const BATCH: usize = 32;
/// More than any frame of the load.
const MAX_FRAME: usize = 2048;

/// Receives until it is killed. `arguments` are `udp PORT` or `unix PATH`.
pub fn run(arguments: &[String]) -> ! {
    match arguments {
        [link, port] if link == "udp" => {
            let port: u16 = port.parse().expect("a port");
            let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a free port");
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root");
            receive(&socket)
        }
        [link, path] if link == "unix" => receive(&UnixDatagram::bind(path).expect("a free path")),
        _ => panic!("not `udp PORT` or `unix PATH`: {arguments:?}"),
    }
}

fn receive(socket: &impl AsFd) -> ! {
    let socket = socket.as_fd().as_raw_fd();
    let mut buffers = vec![0; BATCH * MAX_FRAME];
    loop {
        let buffers = buffers.chunks_exact_mut(MAX_FRAME);
        let mut slices: Vec<_> = buffers.map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        recvmmsg(socket, &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)
            .expect("datagrams arrive");
    }
}
