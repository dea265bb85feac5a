//! Tells events over a control connection, as they happen.
//!
//! - **Promise**: nothing waits for a reader. One that is so slow that the engine has forgotten events
//!   before it could read them gets a last line that says how many it misses, and is cut off. With the
//!   set first, what is told afterwards happened after the reader was told about that address.
//! - **Limits**: [`MAX_WATCHERS`] at a time, over all control sockets; over the read-only one at most
//!   [`MAX_READ_ONLY`], so that its clients leave places for the others. Each holds one piece of text,
//!   and the addresses that it was told first until it has caught up.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::time::sleep;

use crate::control::events::{StreamMark, write_event, write_mark};
use crate::control::protocol::Access;
use crate::daemon::shared::Shared;
use crate::engine::Engine;
use crate::engine::events::{EventKind, WatchEvent};
use crate::engine::grants::Cursor;
use crate::engine::grants::grant::Grant;
use crate::engine::time::Time;
use crate::sys::blocking::blocking;

/// Most watchers: half the connections of one socket, so that the other commands find a place.
pub(super) const MAX_WATCHERS: usize = 16;
/// Most of them over the read-only socket.
pub(super) const MAX_READ_ONLY: usize = MAX_WATCHERS / 2;
/// Events in a piece of text; they are copied while the engine is locked.
const PIECE: usize = 512;
/// Pause after a piece, so that a flood of events wakes a watcher 50 times a second and not more.
const PAUSE: Duration = Duration::from_millis(20);
/// Send buffer of the connection, in bytes, as setsockopt(2) takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// The same for the last line of a reader that has not read the rest. At most the default of
/// `net.core.wmem_max` (socket(7)).
const LAST_SEND_BUFFER: usize = 128 * 1024;

/// What was told of each address: the events before this number.
type Told = HashMap<IpAddr, u64>;

/// Lines that are written together.
#[derive(Default)]
struct Piece {
    text: Vec<u8>,
    /// The number of its first event.
    first: u64,
    /// Where the text of each event ends.
    ends: Vec<usize>,
}

impl Piece {
    fn add(&mut self, event: Option<&WatchEvent>) -> io::Result<()> {
        event.map_or(Ok(()), |event| write_event(event, &mut self.text))?;
        self.ends.push(self.text.len());
        Ok(())
    }

    /// Returns where the line ends of which a part is written already.
    fn end_of_line(&self, written: usize) -> usize {
        match self.text[..written].last() {
            None | Some(b'\n') => written,
            _ => memchr::memchr(b'\n', &self.text[written..])
                .map_or(self.text.len(), |end| written + end + 1),
        }
    }
}

/// One watcher.
struct Watcher<'w> {
    shared: Arc<Shared>,
    write: &'w mut OwnedWriteHalf,
    /// The number of the next event to be taken.
    next: u64,
    numbers: Receiver<(u64, u64)>,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.shared.with(|engine, _| engine.unwatch());
    }
}

/// Returns the places for the watchers of one socket.
pub(super) fn places(access: Access) -> Semaphore {
    Semaphore::new(match access {
        Access::Change => MAX_WATCHERS,
        Access::Read => MAX_READ_ONLY,
    })
}

/// Says why a client is not admitted.
pub(super) fn refusal(access: Access) -> String {
    match access {
        Access::Change => format!(
            "{MAX_WATCHERS} clients watch already, and more are not admitted; end a `watch` that is \
             no longer needed"
        ),
        Access::Read => format!(
            "too many clients watch already: at most {MAX_READ_ONLY} may over the read-only socket, \
             and {MAX_WATCHERS} in all; end a `watch` that is no longer needed, or use the control \
             socket"
        ),
    }
}

/// Begins to watch and tells events until the connection ends; with `initial`, the authorised
/// addresses first. Returns whether it was admitted: not if too many watch already, or if none of the
/// `places` of its socket is free.
///
/// # Errors
/// The connection fails, or the reader is too slow: `TimedOut`.
pub(super) async fn tell(
    write: &mut OwnedWriteHalf,
    shared: &Arc<Shared>,
    places: &Semaphore,
    initial: bool,
) -> io::Result<bool> {
    let Ok(_place) = places.try_acquire() else { return Ok(false) };
    let numbers = shared.event_numbers();
    let begin = |engine: &mut Engine, _| {
        (engine.events().watchers() < MAX_WATCHERS).then(|| engine.watch())
    };
    let Some(next) = shared.with(begin) else { return Ok(false) };
    set_send_buffer(write.as_ref(), SEND_BUFFER)?;
    let mut watcher = Watcher { shared: Arc::clone(shared), write, next, numbers };
    let told = if initial { watcher.tell_set().await? } else { Told::new() };
    watcher.tell_events(told).await?;
    Ok(true)
}

impl Watcher<'_> {
    /// Tells the authorised addresses, slice by slice.
    async fn tell_set(&mut self) -> io::Result<Told> {
        let mut told = Told::new();
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let shared = Arc::clone(&self.shared);
            let slice = blocking(move || {
                let list = |engine: &mut Engine, now| {
                    (engine.list(now, from, |grant| granted(grant, now)), engine.events().end())
                };
                let (slice, number) = shared.with(list);
                let mut text = Vec::new();
                slice.items.iter().try_for_each(|event| write_event(event, &mut text))?;
                let told: Vec<_> = slice.items.iter().map(|e| (e.address, number)).collect();
                Ok::<_, io::Error>((text, told, slice.next))
            });
            let (text, addresses, rest) = slice.await?;
            self.write(Piece { text, first: self.next, ends: Vec::new() }).await?;
            told.extend(addresses);
            next = rest;
        }
        let mut text = Vec::new();
        write_mark(StreamMark::Ready, &mut text)?;
        self.write(Piece { text, first: self.next, ends: Vec::new() }).await?;
        Ok(told)
    }

    /// Tells events as they happen, except what was told with the set.
    async fn tell_events(&mut self, told: Told) -> io::Result<()> {
        let caught_up = told.values().max().copied().unwrap_or_default();
        let mut told = Arc::new(told);
        loop {
            let next = self.next;
            wait_until(&mut self.numbers, |(_, end)| next < end).await;
            let (shared, known) = (Arc::clone(&self.shared), Arc::clone(&told));
            match blocking(move || take(&shared, next, &known)).await? {
                None => return self.cut_off(&Piece { first: next, ..Piece::default() }, 0),
                Some(piece) => {
                    let events = piece.ends.len();
                    self.next += events as u64;
                    self.write(piece).await?;
                    if events < PIECE {
                        sleep(PAUSE).await;
                    }
                }
            }
            if self.next >= caught_up {
                told = Arc::default();
            }
        }
    }

    /// Writes a piece, unless the reader turns out to be too slow.
    async fn write(&mut self, piece: Piece) -> io::Result<()> {
        let (next, mut written) = (self.next, 0);
        while written < piece.text.len() {
            let bytes = tokio::select! {
                bytes = self.write.write(&piece.text[written..]) => Some(bytes?),
                () = wait_until(&mut self.numbers, |(first, _)| next < first) => None,
            };
            match bytes {
                Some(bytes) => written += bytes,
                None => return self.cut_off(&piece, written),
            }
        }
        Ok(())
    }

    /// Ends the line that is written in part and writes the last one.
    fn cut_off(&mut self, piece: &Piece, written: usize) -> io::Result<()> {
        let end = piece.end_of_line(written);
        let told = piece.ends.partition_point(|event_end| *event_end <= end) as u64;
        let happened = self.shared.with(|engine, _| engine.events().end());
        let mut last = piece.text[written..end].to_vec();
        let missed = happened - (piece.first + told);
        write_mark(StreamMark::CutOff { missed }, &mut last)?;
        // There is room now, but epoll(7) does not report it, so the runtime would wait.
        let stream: &UnixStream = self.write.as_ref();
        set_send_buffer(stream, LAST_SEND_BUFFER)?;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut rest = &last[..];
        while !rest.is_empty() {
            rest = &rest[send(stream.as_raw_fd(), rest, flags)?..];
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Waits for numbers of the first event that is kept and of the next one.
async fn wait_until(numbers: &mut Receiver<(u64, u64)>, mut are: impl FnMut((u64, u64)) -> bool) {
    // The sender lives as long as `Shared`, so this cannot fail.
    let _ = numbers.wait_for(|numbers| are(*numbers)).await;
}

/// Takes the next events; `None`: some of them have been forgotten.
fn take(shared: &Shared, next: u64, told: &Told) -> io::Result<Option<Piece>> {
    let copy = |engine: &mut Engine, _| {
        engine.events().since(next).map(|events| events.take(PIECE).cloned().collect())
    };
    let Some(events): Option<Vec<WatchEvent>> = shared.with(copy) else { return Ok(None) };
    let mut piece = Piece { first: next, ..Piece::default() };
    for (number, event) in (next..).zip(&events) {
        let is_new = told.get(&event.address).is_none_or(|told| *told <= number);
        piece.add(Some(event).filter(|_| is_new))?;
    }
    Ok(Some(piece))
}

/// Returns the event by which an address of the set is told: that of the time when it was authorised.
fn granted(grant: &Grant, now: Time) -> WatchEvent {
    WatchEvent { time: grant.since, ..WatchEvent::of(grant, now, EventKind::Granted) }
}

fn set_send_buffer(stream: &UnixStream, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(stream, sockopt::SndBuf, &bytes)?)
}
