//! Asking the running daemon over its control socket, or its reading socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::daemon::control::{Answer, Request, Rights};
use crate::error::Failure;

/// The daemon answers in milliseconds; a list of a million addresses takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon that listens on a control socket. Where that may not be opened, what only reads
/// is asked over `reading`.
///
/// # Errors
/// The daemon cannot be reached, or does not answer; what it refuses is a failure as well.
pub fn ask(control: &Path, reading: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    let reading = reading.filter(|_| request.needs() == Rights::Read);
    let (path, connected) = match (UnixStream::connect(control), reading) {
        (Err(error), Some(reading)) if error.kind() == io::ErrorKind::PermissionDenied => {
            (reading, UnixStream::connect(reading))
        }
        (connected, _) => (control, connected),
    };
    let answer = connected.and_then(|stream| exchange(stream, request));
    let answer = answer.map_err(|error| unreachable(path, &error, request.needs()))?;
    let unlike = |why: String| {
        let shown = path.display();
        let what = format!(
            "the daemon behind `{shown}` and this command do not understand each other: {why}"
        );
        Failure::unavailable(what)
            .hint("daemon and command are perhaps of different versions; restart the daemon")
    };
    if answer.is_empty() {
        let what = format!("the daemon behind `{}` ended before it answered", path.display());
        return Err(Failure::unavailable(what).hint("once it runs again, `list` shows what holds"));
    }
    match serde_json::from_str(&answer) {
        Ok(Answer::Refused(why)) => Err(Failure::refused(why)),
        Ok(Answer::Unknown(why)) => Err(unlike(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(unlike(error.to_string())),
    }
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

fn unreachable(path: &Path, error: &io::Error, needed: Rights) -> Failure {
    let what = format!("cannot reach the daemon over `{}`: {error}", path.display());
    Failure::unavailable(what).hint(match (error.kind(), needed) {
        (io::ErrorKind::PermissionDenied, Rights::Read) => {
            "run this as root or as a member of the group of `control` or `control-read`"
        }
        (io::ErrorKind::PermissionDenied, Rights::Change) => {
            "run this as root or as a member of the group of `control`"
        }
        _ => "is it running? another control socket is named with --control",
    })
}
