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
        cluster: None,
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
    let socket = ControlSocket::new(Access::Read);
    let served = handle(stream, &slot, &socket, Arc::clone(&shared), source());
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
        let socket = ControlSocket::new(Access::Read);
        let handled = handle(stream, &slot, &socket, shared, source()).await;
        let outcome = handled.map_err(|error| error.kind());
        let expected = if seconds.is_some() { Err(io::ErrorKind::TimedOut) } else { Ok(()) };
        assert_eq!(outcome, expected, "{sent}");
        let expected = Duration::from_secs(seconds.unwrap_or_default());
        let took = begin.elapsed().saturating_sub(expected);
        assert!(took < Duration::from_millis(100), "{sent}: {took:?} longer");
    }
}

/// A client that watches a set, and the task that serves it.
struct Watching {
    lines: tokio::io::Lines<BufReader<UnixStream>>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

impl Watching {
    /// Begins to watch, and waits until `watchers` do.
    async fn begin(shared: &Arc<Shared>, initial: bool, watchers: usize) -> Self {
        let socket = Arc::new(ControlSocket::new(Access::Read));
        Self::begin_over(&socket, shared, initial, watchers).await
    }

    /// The same over a certain socket.
    async fn begin_over(
        socket: &Arc<ControlSocket>,
        shared: &Arc<Shared>,
        initial: bool,
        watchers: usize,
    ) -> Self {
        let (mut peer, stream) = UnixStream::pair().expect("a pair");
        let request = format!("{{\"command\":\"watch\",\"initial\":{initial}}}\n");
        peer.write_all(request.as_bytes()).await.expect("there is room");
        let (socket, of_task) = (Arc::clone(socket), Arc::clone(shared));
        let served = tokio::spawn(async move {
            handle(stream, &Slot::default(), &socket, of_task, source()).await
        });
        while shared.with(|engine, _| engine.events().watchers()) != watchers {
            tokio::task::yield_now().await;
        }
        Self { lines: BufReader::new(peer).lines(), served }
    }

    async fn next(&mut self) -> Option<serde_json::Value> {
        let line = self.lines.next_line().await.expect("a line");
        line.map(|line| serde_json::from_str(&line).expect("JSON"))
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_told_what_it_has_missed() {
    let shared = Arc::new(Shared::new(Engine::new(Rules::default())));
    let mut watching = Watching::begin(&shared, false, 1).await;
    let address = |number| IpAddr::from(Ipv4Addr::from(0xc612_0000 + number % MANY));
    for number in 0..5 * MANY {
        shared.with(|engine, now| engine.allow(now, address(number), None, None)).expect("allowed");
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let outcome = watching.served.await.expect("no panic").map_err(|error| error.kind());
    assert_eq!(outcome, Err(io::ErrorKind::TimedOut), "it ends although nobody reads");
    assert_eq!(shared.with(|engine, _| engine.events().watchers()), 0);
    let (mut told, mut last) = (0, None);
    while let Some(line) = watching.lines.next_line().await.expect("a line") {
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if line["event"] != "cut_off" {
            assert_eq!(line["address"], address(told).to_string(), "without a gap");
            told += 1;
        }
        last = Some(line);
    }
    assert!(told > 0 && told < 5 * MANY, "{told}");
    let missed = last.expect("a line")["missed"].as_u64();
    // What happened after it was cut off is not counted.
    assert!(missed.is_some_and(|missed| missed > 65_536), "{missed:?}");
    assert!(missed.is_some_and(|missed| u64::from(told) + missed <= u64::from(5 * MANY)));
}

#[tokio::test]
async fn the_set_and_what_happens_meanwhile_do_not_contradict_each_other() {
    let shared = many();
    let mut watching = Watching::begin(&shared, true, 1).await;
    let (mut mirror, mut is_ready, mut lines) = (std::collections::BTreeSet::new(), false, 0u32);
    let mut changes = 0u32;
    loop {
        // In a part of the set that was told already, or not yet, or is being told; some addresses are
        // new, others return in another slot.
        if changes < 20_000 {
            changes += 1;
            let number = changes.wrapping_mul(7919) % (MANY + 2000);
            let address = Ipv4Addr::from(0xc612_0000 + number).into();
            shared.with(|engine, now| match changes % 3 {
                0 => engine.allow(now, address, None, None).is_ok(),
                _ => engine.revoke(now, address, None),
            });
        }
        let line = timeout(Duration::from_secs(2), watching.next()).await;
        let Ok(Some(line)) = line else { break };
        lines += 1;
        let address: Option<IpAddr> = line["address"].as_str().map(|a| a.parse().expect("one"));
        match (line["event"].as_str(), address) {
            (Some("ready"), None) => is_ready = true,
            (Some("granted"), Some(address)) => {
                assert!(mirror.insert(address) || !is_ready, "{address} twice");
            }
            (Some("renewed"), Some(address)) => assert!(is_ready && mirror.contains(&address)),
            (Some("ended"), Some(address)) => {
                assert!(is_ready);
                mirror.remove(&address);
            }
            _ => panic!("{line}"),
        }
    }
    assert!(is_ready && lines > MANY, "{lines}");
    let mut listed: Vec<IpAddr> = Vec::new();
    for slice in shared.slices(|engine, now, from| engine.list(now, from, |grant| grant.address)) {
        listed.extend(slice);
    }
    listed.sort_unstable();
    assert_eq!(mirror.into_iter().collect::<Vec<_>>(), listed);
}

/// Each socket has a limit, and who leaves makes room.
#[tokio::test]
async fn few_may_watch_and_the_read_only_socket_leaves_places() {
    let shared = many();
    let socket = |access| Arc::new(ControlSocket::new(access));
    let (change, read) = (socket(Access::Change), socket(Access::Read));
    let half = watch::MAX_READ_ONLY;
    let mut all = Vec::new();
    for (socket, numbers, why) in [
        (&read, 1..=half, "at most 8 may over the read-only socket"),
        (&change, half + 1..=watch::MAX_WATCHERS, "16 clients watch already"),
    ] {
        for number in numbers.clone() {
            all.push(Watching::begin_over(socket, &shared, false, number).await);
        }
        let mut refused = Watching::begin_over(socket, &shared, false, *numbers.end()).await;
        let answer = refused.next().await.expect("an answer");
        assert!(answer["refused"].as_str().is_some_and(|text| text.contains(why)), "{answer}");
    }
    // The last one has watched over the control socket, the first one over the read-only one.
    for (socket, place) in [(&change, watch::MAX_WATCHERS - 1), (&read, 0)] {
        let Watching { lines, served } = all.remove(place);
        drop(lines);
        served.await.expect("no panic").expect("it is over");
        all.push(Watching::begin_over(socket, &shared, true, watch::MAX_WATCHERS).await);
    }
}
