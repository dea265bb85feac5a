//! The door for monitoring: HTTP/1.1, one request a connection.
//!
//! Promise  `/metrics` for Prometheus; `/healthz` 200 if all is well, else 503 and the reason;
//!          `/livez` 200 as long as the daemon answers. Whoever comes to stay is shown out when
//!          others come: a crowd of idle or slow clients keeps nobody from asking. Nothing that a
//!          client sends is logged above debug level.
//! Limits   in one block below.

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

use super::{health, text};
use crate::daemon::connections::{Connections, Slot};
use crate::daemon::shared::Shared;
use crate::daemon::status::Describe;

/// Connections at once; one more, and an idle one is closed. A scrape takes milliseconds.
const MAX_CONNECTIONS: usize = 32;
/// A request's head; Prometheus sends some hundred bytes.
const MAX_HEAD: usize = 8192;
/// Its lines; likewise.
const MAX_HEADERS: usize = 64;
/// For a whole connection, from the first byte to the last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client has sent beyond its request is read so long and so far, so that a reset does not
/// take the answer from it.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 65_536);
/// The answer to a head with more bytes or more lines.
const TOO_LARGE: &str = "431 Request Header Fields Too Large";

/// A socket for monitoring.
#[derive(Debug)]
pub struct MetricsListener {
    /// What it listens on, for people.
    pub name: String,
    pub(super) listener: TcpListener,
}

/// Answers at all listeners until the task is dropped.
pub async fn serve(listeners: Vec<MetricsListener>, describe: Describe, shared: Arc<Shared>) {
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, describe.clone(), Arc::clone(&shared)));
    }
    while loops.join_next().await.is_some() {}
}

async fn accept(listener: MetricsListener, describe: Describe, shared: Arc<Shared>) {
    // Whoever is shown out leaves his page half written: only one is written at a time.
    let writer = Arc::new(Semaphore::new(1));
    // Dropped with this task, it ends its connections.
    let mut connections = Connections::new(MAX_CONNECTIONS);
    loop {
        match listener.listener.accept().await {
            Ok((stream, _)) => {
                let (describe, shared) = (describe.clone(), Arc::clone(&shared));
                let writer = Arc::clone(&writer);
                let converse = |slot: Arc<Slot>| async move {
                    let served = converse(stream, &slot, describe, shared, writer);
                    match timeout(REQUEST_TIMEOUT, served).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "metrics connection broke"),
                        Err(_) => debug!("metrics connection took too long"),
                    }
                };
                connections.serve(converse).await;
            }
            Err(error) => {
                warn!(listener = listener.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    slot: &Slot,
    describe: Describe,
    shared: Arc<Shared>,
    writer: Arc<Semaphore>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let asked = loop {
        match read(&head) {
            Some(asked) => break asked,
            None if head.len() == MAX_HEAD => break HttpRequest::Wrong(TOO_LARGE),
            None => {}
        }
        let room = (MAX_HEAD - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    slot.waiting();
    // It looks at every client; the threads that process frames have better things to do.
    let turn = writer.acquire_owned().await.map_err(io::Error::other)?;
    let answer = spawn_blocking(move || {
        let _turn = turn;
        answer(&asked, &describe, &shared)
    });
    let answer = answer.await.map_err(io::Error::other)?;
    slot.idle();
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER.1);
    // It has its answer; what becomes of the rest is its own affair.
    let _ = timeout(LINGER.0, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum HttpRequest {
    /// A page, with its body or without.
    Page { path: String, body: bool },
    /// What nobody may ask, and the status that says so.
    Wrong(&'static str),
}

/// The request, if its head is whole or wrong already.
fn read(head: &[u8]) -> Option<HttpRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let asked = match request.parse(head) {
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
    Some(asked)
}

fn answer(asked: &HttpRequest, describe: &Describe, shared: &Shared) -> String {
    match asked {
        HttpRequest::Wrong(status) => response(status, &format!("{status}\n"), true),
        HttpRequest::Page { path, body } => match path.as_str() {
            "/metrics" => response("200 OK", &text(describe, shared), *body),
            "/healthz" => match health(describe, shared) {
                Ok(()) => response("200 OK", "all is well\n", *body),
                Err(why) => response("503 Service Unavailable", &format!("{why}\n"), *body),
            },
            "/livez" => response("200 OK", "alive\n", *body),
            _ => response("404 Not Found", "there are /metrics, /healthz and /livez\n", *body),
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
        for (head, asked) in rows {
            assert_eq!(read(head.as_bytes()), *asked, "{head:?}");
        }
    }
}
