//! A private network: only loopback, where every port is free and clients have addresses of the
//! documentation ranges.
//!
//! - **Promise**: it is not connected to the host's network, and ends with the last process in it.
//! - **Limits**: it belongs to the calling thread, and to the threads and processes that it starts.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, need};

/// The addresses of the mail host, in both families.
pub const MAIL_HOST: [&str; 2] = ["198.51.100.1", "2001:db8::1"];

/// The last IPv6 client, from 2001:db8::2. IPv4 clients have any address of 198.51.100.0/24.
const LAST_IPV6_CLIENT: u16 = 0x2f;

/// Moves the calling thread into a new network.
pub fn enter() {
    need("ip", "iproute2");
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("a network namespace can be made: the test needs CAP_SYS_ADMIN and net namespaces");
    ip("link set lo up");
    ip("address add 198.51.100.1/24 dev lo");
    for last in 1..=LAST_IPV6_CLIENT {
        ip(&format!("-6 address add 2001:db8::{last:x}/128 dev lo nodad"));
    }
}

/// Moves the calling thread into a new network, with the addresses of these clients, connected to
/// the network of another process, which becomes the mail host.
pub fn enter_connected_to(process: &str, clients: &[&str]) {
    need("ip", "iproute2");
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can be made");
    ip(&format!("link add cable type veth peer name eth0 netns {process}"));
    ip("link set cable up");
    for client in clients {
        ip(&format!("address add {client}/24 dev cable"));
    }
    for arguments in [&format!("address add {}/24 dev eth0", MAIL_HOST[0]), "link set eth0 up"] {
        let mut command = Command::new("nsenter");
        run(command.args(["--target", process, "--net", "ip"]).args(arguments.split(' ')));
    }
}

/// Runs `ip` with these arguments, in the network of the calling thread.
pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let run = command.output().expect("it can be started");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{command:?}: {errors}");
}

/// Connects from this client to a port of the mail host.
pub fn connect(client: &str, port: u16) -> std::io::Result<TcpStream> {
    let client: IpAddr = client.parse().expect("an address");
    let [ipv4, ipv6] = MAIL_HOST.map(|host| host.parse::<IpAddr>().expect("an address"));
    let host = if client.is_ipv4() { ipv4 } else { ipv6 };
    let socket = Socket::new(Domain::for_address(SocketAddr::new(host, port)), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.connect(&SocketAddr::new(host, port).into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
