//! `watch`: the events of the running daemon, as JSON lines.
//!
//! - **Promise**: each line is passed on as soon as it arrives. It ends only if the daemon closes the
//!   connection, or nobody reads its output any more.

use std::io::{self, Write as _, stdout};

use super::args::WatchArgs;
use super::{CommandResult, written};
use crate::control::client;
use crate::control::events::StreamMark;
use crate::error::Failure;

/// Prints events until the daemon or the reader of the output ends it.
pub(super) fn watch(args: &WatchArgs) -> CommandResult {
    let (control, read_only) = args.control.sockets();
    let mut events = client::watch(&control, read_only.as_deref(), args.initial)?;
    let mut output = stdout().lock();
    loop {
        let line = events.next_line()?;
        match output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            outcome => written(outcome)?,
        };
        if let Ok(StreamMark::CutOff { missed }) = serde_json::from_str(&line) {
            return Err(Failure::io(format!(
                "these events were not read fast enough: {missed} are missing, and no more follow"
            ))
            .hint("start `watch --initial` again for what is authorised now")
            .into());
        }
    }
}
