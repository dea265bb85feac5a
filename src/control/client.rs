//! Sends requests to the running daemon over its control socket or its read-only one.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Display, Path, PathBuf};
use std::time::Duration;

use super::protocol::{Access, Answer, Entry, Request};
use crate::error::Failure;

/// Time limit for an answer: the daemon answers in milliseconds, and changes take seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends a request to the daemon and returns its answer. If `control` may not be opened, a request
/// that changes nothing is sent over `read_only`.
///
/// # Errors
/// The daemon cannot be reached, does not answer, or refuses the request.
pub fn ask(control: &Path, read_only: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    Answers::to(control, read_only, request)?.next()
}

/// Requests the list of authorised addresses, by address.
///
/// # Errors
/// As for [`ask`], also in the middle of the list.
pub fn list(control: &Path, read_only: Option<&Path>) -> Result<Vec<Entry>, Failure> {
    let mut answers = Answers::to(control, read_only, &Request::List)?;
    let mut list = Vec::new();
    loop {
        match answers.next()? {
            Answer::List(entries) if entries.is_empty() => break,
            Answer::List(mut entries) => list.append(&mut entries),
            other => return Err(unexpected_answer(&other)),
        }
    }
    list.sort_by_key(|entry| entry.address);
    // An address that was removed and returned meanwhile may be listed twice.
    list.dedup_by_key(|entry| entry.address);
    Ok(list)
}

/// Begins to watch; with `initial`, the authorised addresses are told first.
///
/// # Errors
/// The daemon cannot be reached.
pub fn watch(
    control: &Path,
    read_only: Option<&Path>,
    initial: bool,
) -> Result<EventStream, Failure> {
    let answers = Answers::to(control, read_only, &Request::Watch { initial })?;
    // Hours may pass between two events.
    let limit = answers.lines.get_ref().set_read_timeout(None);
    limit.map_err(|error| Failure::io(format!("cannot wait for events: {error}")))?;
    Ok(EventStream(answers))
}

/// The events of the daemon.
pub struct EventStream(Answers);

impl EventStream {
    /// Waits for the next event and returns its line.
    ///
    /// # Errors
    /// The daemon closes the connection, or refuses the request.
    pub fn next_line(&mut self) -> Result<String, Failure> {
        let line = self.0.line(|path| {
            Failure::unavailable(format!("the daemon at `{path}` closed the connection"))
                .hint("it was stopped or restarted; start `watch --initial` again")
        })?;
        if line.starts_with("{\"event\":") {
            return Ok(line);
        }
        Err(unexpected_answer(&self.0.parse(&line)?))
    }
}

/// Returns the failure for an answer of the wrong kind.
pub fn unexpected_answer(answer: &Answer) -> Failure {
    Failure::bug(format!("unexpected answer from the daemon: {answer:?}"))
}

/// The daemon's answers to a request, line by line.
struct Answers {
    path: PathBuf,
    needs: Access,
    lines: BufReader<UnixStream>,
}

impl Answers {
    fn to(control: &Path, read_only: Option<&Path>, request: &Request) -> Result<Self, Failure> {
        let needs = request.needs();
        let read_only = read_only.filter(|_| needs == Access::Read);
        let (path, connected) = match (UnixStream::connect(control), read_only) {
            (Err(error), Some(read_only)) if error.kind() == io::ErrorKind::PermissionDenied => {
                (read_only, UnixStream::connect(read_only))
            }
            (connected, _) => (control, connected),
        };
        let sent = connected.and_then(|stream| send(stream, request));
        let stream = sent.map_err(|error| unreachable(path, &error, needs))?;
        Ok(Self { path: path.to_owned(), needs, lines: BufReader::new(stream) })
    }

    fn next(&mut self) -> Result<Answer, Failure> {
        let line = self.line(|path| {
            let what = format!("the daemon at `{path}` closed the connection before it answered");
            Failure::unavailable(what).hint(
                "if it was restarted, see `list` for what is authorised now; a list that is not \
                 read for 10 s is cut off: write a long one to a file",
            )
        })?;
        self.parse(&line)
    }

    /// Reads a line, or fails with `ended` for the daemon's path.
    fn line(&mut self, ended: impl FnOnce(Display<'_>) -> Failure) -> Result<String, Failure> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        read.map_err(|error| unreachable(&self.path, &error, self.needs))?;
        if line.ends_with('\n') { Ok(line) } else { Err(ended(self.path.display())) }
    }

    fn parse(&self, line: &str) -> Result<Answer, Failure> {
        let mismatch = |why: String| {
            let shown = self.path.display();
            let what = format!("the daemon at `{shown}` does not understand this command: {why}");
            Failure::unavailable(what).hint("they may be of different versions; restart the daemon")
        };
        match serde_json::from_str(line) {
            Ok(Answer::Refused(why)) => Err(Failure::refused(why)),
            Ok(Answer::Unknown(why)) => Err(mismatch(why)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(mismatch(error.to_string())),
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

fn unreachable(path: &Path, error: &io::Error, needed: Access) -> Failure {
    let what = format!("cannot reach the daemon over `{}`: {error}", path.display());
    Failure::unavailable(what).hint(match (error.kind(), needed) {
        (io::ErrorKind::PermissionDenied, Access::Read) => {
            "run this as root or as a member of the group of `control` or `control-read`"
        }
        (io::ErrorKind::PermissionDenied, Access::Change) => {
            "run this as root or as a member of the group of `control`"
        }
        _ => "is it running? --control names another control socket",
    })
}
