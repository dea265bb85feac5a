//! HTTP/1.1 for metrics and health checks, one request per connection.
//!
//! - **Promise**: `/metrics` for Prometheus; `/healthz` returns 200 if the daemon is healthy,
//!   otherwise 503 and the reason; `/livez` returns 200 as long as the daemon answers. Idle and slow
//!   clients lose their connections to new ones, so they block nobody. Nothing that a client sends is
//!   logged above debug level.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::text;
use crate::daemon::connections::{Connections, Slot};
use crate::daemon::shared::Shared;
use crate::daemon::status::StatusSource;

/// Connections at once; a scrape takes milliseconds.
const MAX_CONNECTIONS: usize = 32;
/// Largest head of a request, in bytes; Prometheus sends a few hundred.
const MAX_HEAD: usize = 8192;
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;
/// Time limit for a whole connection, from the first byte to the last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time and bytes for reading what a client sends after its request: otherwise a reset could discard
/// the answer.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 65_536);
/// The status for a head with too many bytes or lines.
const TOO_LARGE: &str = "431 Request Header Fields Too Large";

/// A socket for metrics and health checks.
#[derive(Debug)]
pub struct MetricsListener {
    /// Its address, for the log.
    pub name: String,
    pub(super) listener: TcpListener,
}

/// Serves all listeners until the task is dropped.
pub async fn serve(listeners: Vec<MetricsListener>, source: StatusSource, shared: Arc<Shared>) {
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, source.clone(), Arc::clone(&shared)));
    }
    while loops.join_next().await.is_some() {}
}

async fn accept(listener: MetricsListener, source: StatusSource, shared: Arc<Shared>) {
    // An evicted connection leaves its page half written, so only one page is written at a time.
    let writer = Arc::new(Semaphore::new(1));
    // Dropped with this task, which closes the connections.
    let mut connections = Connections::new(MAX_CONNECTIONS);
    loop {
        match listener.listener.accept().await {
            Ok((stream, _)) => {
                let (source, shared) = (source.clone(), Arc::clone(&shared));
                let writer = Arc::clone(&writer);
                let handle = |slot: Arc<Slot>| async move {
                    let handled = handle(stream, &slot, source, shared, writer);
                    match timeout(REQUEST_TIMEOUT, handled).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "metrics connection failed"),
                        Err(_) => debug!("metrics connection timed out"),
                    }
                };
                connections.serve(handle).await;
            }
            Err(error) => {
                warn!(listener = listener.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn handle(
    mut stream: TcpStream,
    slot: &Slot,
    source: StatusSource,
    shared: Arc<Shared>,
    writer: Arc<Semaphore>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let request = loop {
        match parse(&head) {
            Some(request) => break request,
            None if head.len() == MAX_HEAD => break HttpRequest::Wrong(TOO_LARGE),
            None => {}
        }
        let room = (MAX_HEAD - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    slot.waiting();
    // A page visits every grant: not on the threads that process frames.
    let permit = writer.acquire_owned().await.map_err(io::Error::other)?;
    let answer = spawn_blocking(move || {
        let _permit = permit;
        answer(&request, &source, &shared)
    });
    let answer = answer.await.map_err(io::Error::other)?;
    slot.idle();
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER.1);
    // The client has its answer; an error no longer matters.
    let _ = timeout(LINGER.0, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
enum HttpRequest {
    /// For a page, with or without its body.
    Page { path: String, body: bool },
    /// A wrong request, with the status of the answer.
    Wrong(&'static str),
}

/// Parses a request; returns `None` while its head is incomplete.
fn parse(head: &[u8]) -> Option<HttpRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(target)) => {
                let path = target.split('?').next().unwrap_or_default();
                HttpRequest::Page { path: path.to_owned(), body: method == "GET" }
            }
            _ => HttpRequest::Wrong("405 Method Not Allowed"),
        },
        Err(httparse::Error::TooManyHeaders) => HttpRequest::Wrong(TOO_LARGE),
        Err(_) => HttpRequest::Wrong("400 Bad Request"),
    };
    Some(parsed)
}

fn answer(request: &HttpRequest, source: &StatusSource, shared: &Shared) -> String {
    match request {
        HttpRequest::Wrong(status) => response(status, &format!("{status}\n"), true),
        HttpRequest::Page { path, body } => match path.as_str() {
            "/metrics" => response("200 OK", &text(source, shared), *body),
            "/healthz" => match source.snapshot(shared).health() {
                Ok(()) => response("200 OK", "healthy\n", *body),
                Err(why) => response("503 Service Unavailable", &format!("{why}\n"), *body),
            },
            "/livez" => response("200 OK", "alive\n", *body),
            _ => response("404 Not Found", "use /metrics, /healthz or /livez\n", *body),
        },
    }
}

fn response(status: &str, body: &str, with_body: bool) -> String {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    if status.starts_with("405") {
        text.push_str("Allow: GET, HEAD\r\n");
    }
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        text.push_str(body);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let page = |path: &str, body| Some(HttpRequest::Page { path: path.into(), body });
        let wrong = |status| Some(HttpRequest::Wrong(status));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        let rows: &[(&str, Option<HttpRequest>)] = &[
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", page("/metrics", true)),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", page("/metrics", true)),
            ("HEAD /healthz HTTP/1.1\r\n\r\nmore", page("/healthz", false)),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("", None),
            ("POST /metrics HTTP/1.1\r\n\r\n", wrong("405 Method Not Allowed")),
            ("GET /metrics\r\n\r\n", wrong("400 Bad Request")),
            ("\x16\x03\x01\x02", wrong("400 Bad Request")),
            (&many, wrong(TOO_LARGE)),
        ];
        for (head, expected) in rows {
            assert_eq!(parse(head.as_bytes()), *expected, "{head:?}");
        }
    }
}
