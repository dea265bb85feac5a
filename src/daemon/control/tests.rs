//! Tests of one connection.

use std::net::Ipv4Addr;

use super::*;
use crate::engine::Rules;
use crate::sys::log::Log;

/// More grants than fit into the buffers of a socket.
const MANY: u32 = 20_000;

fn source() -> status::StatusSource {
    status::StatusSource {
        receivers: Arc::default(),
        services: Arc::default(),
        map: None,
        state: None,
        log: Log::default(),
        started: Time::default(),
    }
}

fn many() -> Arc<Shared> {
    let shared = Arc::new(Shared::new(Engine::new(Rules::default())));
    shared.with(|engine, now| {
        for number in 0..MANY {
            let address = Ipv4Addr::from(0xc612_0000 + number).into();
            engine.allow(now, address, None, None).expect("nobody is excluded");
        }
    });
    shared
}

#[tokio::test]
async fn a_list_is_sent_in_slices() {
    let (mut peer, stream) = UnixStream::pair().expect("a pair");
    peer.write_all(b"{\"command\":\"list\"}\n").await.expect("there is room");
    let (slot, shared) = (Slot::default(), many());
    let served = handle(stream, &slot, Access::Read, Arc::clone(&shared), source());
    let read = async {
        let (mut listed, mut longest) = (Vec::new(), 0);
        let mut lines = BufReader::new(peer).lines();
        while let Some(line) = lines.next_line().await.expect("a line") {
            longest = longest.max(line.len());
            match serde_json::from_str(&line).expect("an answer") {
                Answer::List(entries) => listed.push(entries),
                other => panic!("{other:?}"),
            }
            // A slow reader blocks nobody: grants can change meanwhile.
            shared.with(|engine, now| {
                let last = Ipv4Addr::from(0xc612_0000 + MANY - 1).into();
                engine.revoke(now, last, None)
            });
        }
        (listed, longest)
    };
    let (served, (mut listed, longest)) = tokio::join!(served, read);
    served.expect("it is read");
    assert!(longest < 1 << 19, "{longest} bytes at once");
    assert!(listed.pop().expect("its end").is_empty());
    assert!(listed.iter().all(|slice| !slice.is_empty()));
    let addresses: Vec<_> = listed.iter().flatten().map(|entry| entry.address).collect();
    let expected = (0..MANY - 1).map(|number| Ipv4Addr::from(0xc612_0000 + number).into());
    assert_eq!(addresses, expected.collect::<Vec<IpAddr>>());
}

/// Each row: what a client sends that reads nothing, and after how many seconds it times out.
#[tokio::test(start_paused = true)]
async fn slow_clients_time_out() {
    let shared = many();
    let query = "{\"command\":\"query\",\"address\":\"192.0.2.7\"}\n";
    let rows = [
        ("", Some(2)),
        ("{\"command\":\"list\"", Some(2)),
        ("{\"command\":\"list\"}\n", Some(10)),
        (query, None),
    ];
    for (sent, seconds) in rows {
        let (mut peer, stream) = UnixStream::pair().expect("a pair");
        peer.write_all(sent.as_bytes()).await.expect("there is room");
        let begin = tokio::time::Instant::now();
        let (slot, shared) = (Slot::default(), Arc::clone(&shared));
        let handled = handle(stream, &slot, Access::Read, shared, source()).await;
        let outcome = handled.map_err(|error| error.kind());
        let expected = if seconds.is_some() { Err(io::ErrorKind::TimedOut) } else { Ok(()) };
        assert_eq!(outcome, expected, "{sent}");
        let expected = Duration::from_secs(seconds.unwrap_or_default());
        let took = begin.elapsed().saturating_sub(expected);
        assert!(took < Duration::from_millis(100), "{sent}: {took:?} longer");
    }
}
