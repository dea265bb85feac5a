//! Child processes with a time limit and a limit on their output.
//!
//! - **Promise**: the child is gone when [`run`] returns or is dropped. Its output is always read,
//!   so it never blocks on us, and only the beginning is kept.
//! - **Not here**: which programs there are, and what their output means.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

/// Kept bytes of stdout; the longest output is a `mynetworks` with thousands of networks.
const MAX_STDOUT: usize = 1024 * 1024;
/// Kept bytes of stderr: postmap prints hundreds of lines about a file that is not a map.
const MAX_STDERR: usize = 16 * 1024;
/// Characters of one stderr line that are worth repeating.
const MAX_LINE: usize = 200;
/// How long a killed child may take to exit; longer only if the kernel itself is stuck.
const REAPING: Duration = Duration::from_secs(5);

/// Why a child returned no output.
#[derive(Debug)]
pub enum ChildError {
    /// It could not be started.
    NotStarted(io::Error),
    /// It did not finish within this time and was killed.
    Slow(Duration),
    /// It printed more than the limit.
    Flood,
    /// It did not exit with status 0; with a summary of its stderr.
    Failed(ExitStatus, String),
    /// Its exit status could not be read.
    Lost(io::Error),
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
            Self::Slow(limit) => {
                write!(f, "did not finish within {} s and was killed", limit.as_secs())
            }
            Self::Flood => write!(f, "printed more than {MAX_STDOUT} bytes"),
            Self::Failed(status, said) if said.is_empty() => write!(f, "{status}"),
            Self::Failed(status, said) => write!(f, "{status}: {said}"),
            Self::Lost(error) => write!(f, "its exit status could not be read: {error}"),
        }
    }
}

/// Runs a program to its end and returns its stdout.
///
/// # Errors
/// Anything but exit status 0 within the limit.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String, ChildError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own: Ctrl-C at a terminal must not interrupt a half-built map.
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
                tracing::debug!(program = ?command.as_std().get_program(), stderr = said, "child process printed warnings");
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

/// Reads a stream to its end and keeps the first `limit` bytes.
async fn head(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Captured {
    let mut head = Captured { kept: Vec::new(), cut: false };
    let Some(mut stream) = stream else { return head };
    let mut buffer = [0; 4096];
    // A read error counts as the end of the stream: the exit status decides.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limit - head.kept.len();
        head.kept.extend_from_slice(&buffer[..count.min(room)]);
        head.cut |= count > room;
    }
    head
}

/// Returns the first line, and the last if it is another one: Postfix programs log their reason
/// last.
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
    async fn output_and_failures() {
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
                (Err(error), Err(expected)) => {
                    let text = error.to_string();
                    assert!(text.contains(expected), "{script}: {text}");
                    assert!(text.len() < 500, "{script}: {text}");
                }
                (answer, _) => panic!("{script}: {answer:?}"),
            }
        }
        let missing = run(&mut Command::new("/nowhere/postmap"), Duration::from_secs(20)).await;
        assert!(matches!(missing, Err(ChildError::NotStarted(_))), "{missing:?}");
    }

    /// Waits in real time, for what the kernel does.
    fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{what} did not happen within ten seconds")
    }

    // Paused time stands still while a blocking task runs, and then jumps to the limit.
    #[tokio::test(start_paused = true)]
    async fn hanging_child_is_killed() {
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
