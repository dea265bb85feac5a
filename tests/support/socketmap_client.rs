//! A client of the socketmap that reconnects by itself.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// A connection to the socketmap.
#[derive(Default)]
pub struct SocketmapClient(Option<UnixStream>);

impl SocketmapClient {
    /// Returns whether an address is admitted, or `None` if there is no reply.
    pub fn admits(&mut self, socket: &Path, address: IpAddr) -> Option<bool> {
        let reply = self.request(socket, address).ok();
        if reply.is_none() {
            self.0 = None;
        }
        reply
    }

    fn request(&mut self, socket: &Path, address: IpAddr) -> io::Result<bool> {
        if self.0.is_none() {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            self.0 = Some(stream);
        }
        let stream = self.0.as_mut().expect("it has been connected");
        let request = format!("clients {address}");
        stream.write_all(format!("{}:{request},", request.len()).as_bytes())?;
        let mut reply = [0; 12];
        // Both replies are netstrings with a length of one digit.
        stream.read_exact(&mut reply[..2])?;
        let length = usize::from(reply[0] - b'0') + 1;
        stream.read_exact(&mut reply[..length])?;
        Ok(reply.starts_with(b"OK OK,"))
    }
}
