//! Asking the running daemon over its control socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::control::{Answer, Request};
use crate::error::Failure;

/// The daemon answers in milliseconds; a list of a million addresses takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon that listens on a control socket.
///
/// # Errors
/// The daemon cannot be reached, or does not answer; what it refuses is a failure as well.
pub fn ask(control: &Path, request: &Request) -> Result<Answer, Failure> {
    let failure = |error: io::Error| unreachable(control, &error);
    let mut stream = UnixStream::connect(control).map_err(failure)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failure)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failure)?;
    let mut line = serde_json::to_vec(request).map_err(|e| Failure::bug(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failure)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failure)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Refused(why)) => Err(Failure::io(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(Failure::unavailable(format!(
            "the daemon behind `{}` gave no answer that is understood: {error}",
            control.display()
        ))
        .hint("daemon and command are perhaps of different versions; restart the daemon")),
    }
}

fn unreachable(control: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot reach the daemon over `{}`: {error}", control.display());
    Failure::unavailable(what).hint(match error.kind() {
        io::ErrorKind::PermissionDenied => "run this as root or as a member of the control group",
        _ => "is it running? another control socket is named with --control",
    })
}
