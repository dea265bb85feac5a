//! Asking the running daemon over its control socket, or its reading socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Answer, Entry, Request, Rights};
use crate::error::Failure;

/// The daemon answers in milliseconds, a change within seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the daemon that listens on a control socket. Where that may not be opened, what only reads
/// is asked over `reading`.
///
/// # Errors
/// The daemon cannot be reached, or does not answer; what it refuses is a failure as well.
pub fn ask(control: &Path, reading: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    Answers::to(control, reading, request)?.next()
}

/// Asks for all who are authorised, by address: a slice after the other, none of them empty.
///
/// # Errors
/// As [`ask`], also in the middle of the list.
pub fn list(
    control: &Path,
    reading: Option<&Path>,
) -> Result<impl Iterator<Item = Result<Vec<Entry>, Failure>>, Failure> {
    let mut answers = Answers::to(control, reading, &Request::List)?;
    let slice = move || match answers.next() {
        Ok(Answer::List(entries)) if entries.is_empty() => None,
        Ok(Answer::List(entries)) => Some(Ok(entries)),
        Ok(other) => Some(Err(unexpected_answer(&other))),
        Err(failure) => Some(Err(failure)),
    };
    Ok(std::iter::from_fn(slice))
}

/// The daemon answered another question.
pub fn unexpected_answer(answer: &Answer) -> Failure {
    Failure::bug(format!("the daemon's answer does not fit the question: {answer:?}"))
}

/// What the daemon answers to a request, line by line.
struct Answers {
    path: PathBuf,
    needs: Rights,
    lines: BufReader<UnixStream>,
}

impl Answers {
    fn to(control: &Path, reading: Option<&Path>, request: &Request) -> Result<Self, Failure> {
        let needs = request.needs();
        let reading = reading.filter(|_| needs == Rights::Read);
        let (path, connected) = match (UnixStream::connect(control), reading) {
            (Err(error), Some(reading)) if error.kind() == io::ErrorKind::PermissionDenied => {
                (reading, UnixStream::connect(reading))
            }
            (connected, _) => (control, connected),
        };
        let asked = connected.and_then(|stream| send(stream, request));
        let stream = asked.map_err(|error| unreachable(path, &error, needs))?;
        Ok(Self { path: path.to_owned(), needs, lines: BufReader::new(stream) })
    }

    fn next(&mut self) -> Result<Answer, Failure> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        read.map_err(|error| unreachable(&self.path, &error, self.needs))?;
        let unlike = |why: String| {
            let shown = self.path.display();
            let what = format!(
                "the daemon behind `{shown}` and this command do not understand each other: {why}"
            );
            Failure::unavailable(what)
                .hint("daemon and command are perhaps of different versions; restart the daemon")
        };
        if !line.ends_with('\n') {
            let shown = self.path.display();
            let what = format!("the daemon behind `{shown}` ended before it had answered");
            return Err(Failure::unavailable(what).hint(
                "once it runs again, `list` shows what holds; a list that nobody reads for 10 s is \
                 broken off: write a long one to a file",
            ));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Refused(why)) => Err(Failure::refused(why)),
            Ok(Answer::Unknown(why)) => Err(unlike(why)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(unlike(error.to_string())),
        }
    }
}

fn send(mut stream: UnixStream, request: &Request) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
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
