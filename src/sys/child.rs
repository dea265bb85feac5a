//! A child process that ends in time and cannot flood us.
//!
//! Promise  the child is gone when `run` returns or is dropped; what it prints is always read, so
//!          it never waits for us, and only the first part is kept.
//! Not here which programs there are, and what their answers mean.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

/// What is kept of an answer; the longest one is a `mynetworks` with thousands of networks.
const MAX_STDOUT: usize = 1024 * 1024;
/// What is kept of complaints: postmap prints hundreds of lines over a file that is no map.
const MAX_STDERR: usize = 16 * 1024;
/// Characters of one line of a complaint that are worth repeating.
const MAX_LINE: usize = 200;
/// How long a killed child may take to vanish; longer only if the kernel itself is stuck.
const REAPING: Duration = Duration::from_secs(5);

/// Why a child gave no answer.
#[derive(Debug)]
pub enum ChildError {
    /// It could not be started.
    NotStarted(io::Error),
    /// It did not end within this time, and was killed.
    Slow(Duration),
    /// It printed more than any answer needs.
    Flood,
    /// It ended otherwise than with exit status 0, and said this on stderr.
    Failed(ExitStatus, String),
    /// The operating system lost track of it.
    Lost(io::Error),
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "it could not be started: {error}"),
            Self::Slow(limit) => {
                write!(f, "it did not end within {} s and was killed", limit.as_secs())
            }
            Self::Flood => write!(f, "it printed more than {MAX_STDOUT} bytes"),
            Self::Failed(status, said) if said.is_empty() => write!(f, "{status}"),
            Self::Failed(status, said) => write!(f, "{status}: {said}"),
            Self::Lost(error) => write!(f, "it cannot be waited for: {error}"),
        }
    }
}

/// Runs a program to its end and returns what it printed on stdout.
///
/// # Errors
/// Everything but exit status 0 within the limit is trouble.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String, ChildError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C at a terminal is for the daemon, not for a half-built map.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(ChildError::NotStarted)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(limit, async {
        tokio::join!(child.wait(), head(stdout, MAX_STDOUT), head(stderr, MAX_STDERR))
    });
    let Ok((status, stdout, stderr)) = ended.await else {
        // If it cannot be killed there is nothing more to do; it is reaped in the background.
        let _ = child.start_kill();
        let _ = timeout(REAPING, child.wait()).await;
        return Err(ChildError::Slow(limit));
    };
    let said = said(&stderr.kept);
    match status.map_err(ChildError::Lost)? {
        status if !status.success() => Err(ChildError::Failed(status, said)),
        _ if stdout.cut => Err(ChildError::Flood),
        _ => {
            if !said.is_empty() {
                tracing::debug!(program = ?command.as_std().get_program(), said, "a child warned");
            }
            Ok(String::from_utf8_lossy(&stdout.kept).into_owned())
        }
    }
}

/// The beginning of a stream.
struct Captured {
    kept: Vec<u8>,
    cut: bool,
}

/// Reads a stream to its end and keeps at most `limit` bytes.
async fn head(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Captured {
    let mut head = Captured { kept: Vec::new(), cut: false };
    let Some(mut stream) = stream else { return head };
    let mut buffer = [0; 4096];
    // An error ends the stream as its end does: the exit status is what decides.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limit - head.kept.len();
        head.kept.extend_from_slice(&buffer[..count.min(room)]);
        head.cut |= count > room;
    }
    head
}

/// The first line, and the last if it is another one: a Postfix program ends with its reason.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(clean);
    match (lines.next(), lines.next_back()) {
        (None, _) => String::new(),
        (Some(first), None) => first,
        (Some(first), Some(last)) => format!("{first} ... {last}"),
    }
}

fn clean(line: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    line.chars().take(MAX_LINE).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<String, ChildError> {
        run(Command::new("/bin/sh").args(["-c", script]), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn answers_and_complaints() {
        let rows = [
            ("echo yes; echo warning >&2", Ok("yes\n")),
            (
                "printf 'one\\ntwo\\n\\033[1mthree\\n' >&2; exit 3",
                Err("status: 3: one ... ?[1mthree"),
            ),
            ("exit 1", Err("status: 1")),
            ("kill -9 $$", Err("signal: 9")),
            ("head -c 3000000 /dev/zero", Err("more than 1048576 bytes")),
            ("yes complaint | head -c 3000000 >&2; exit 1", Err("complaint")),
        ];
        for (script, expected) in rows {
            match (sh(script).await, expected) {
                (Ok(answer), Ok(expected)) => assert_eq!(answer, expected, "{script}"),
                (Err(trouble), Err(expected)) => {
                    let sentence = trouble.to_string();
                    assert!(sentence.contains(expected), "{script}: {sentence}");
                    assert!(sentence.len() < 500, "{script}: {sentence}");
                }
                (answer, _) => panic!("{script}: {answer:?}"),
            }
        }
        let missing = run(&mut Command::new("/nowhere/postmap"), Duration::from_secs(20)).await;
        assert!(matches!(missing, Err(ChildError::NotStarted(_))), "{missing:?}");
    }

    /// Real time, for what the kernel does by itself.
    fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{what} did not happen within ten seconds")
    }

    // The clock stands still while a blocking task runs, and then jumps to the limit.
    #[tokio::test(start_paused = true)]
    async fn a_child_that_hangs_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", file.display());
        let mut command = Command::new("/bin/sh");
        let running = run(command.args(["-c", &script]), Duration::from_secs(3600));
        let begun = {
            let file = file.clone();
            let begun = move || std::fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'));
            tokio::task::spawn_blocking(move || eventually("the start of the script", begun))
        };
        let (ended, begun) = tokio::join!(running, begun);
        begun.expect("the script began");
        assert!(matches!(ended, Err(ChildError::Slow(_))), "{ended:?}");
        let pid = std::fs::read_to_string(&file).expect("the number of the process");
        let stat = std::path::Path::new("/proc").join(pid.trim()).join("stat");
        eventually("its end", || {
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        });
    }
}
