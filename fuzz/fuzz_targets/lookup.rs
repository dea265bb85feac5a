//! Arbitrary bytes in both of Postfix's protocols: each answer is one well-formed reply, and only
//! the one known address is admitted.
#![no_main]

use std::cell::RefCell;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use pop_before_smtp::engine::protocol::decoded::Decoded;
use pop_before_smtp::engine::protocol::policy::{self, Action};
use pop_before_smtp::engine::protocol::{netstring, socketmap};
use pop_before_smtp::engine::time::Time;
use pop_before_smtp::engine::{Engine, Rules};

const NOW: Time = Time::from_millis(1);
const CLIENT: &str = "192.0.2.7";

fuzz_target!(|input: &[u8]| {
    thread_local! {
        static ENGINE: RefCell<Engine> = RefCell::new(engine());
    }
    ENGINE.with_borrow_mut(|engine| {
        let mut rest = input;
        while let Decoded::Whole { request, used } = socketmap::read(rest) {
            let admitted = request.is_some_and(|address| engine.admits(NOW, address).is_some());
            assert!(!admitted || names_the_client(&rest[..used]));
            let mut reply = Vec::new();
            socketmap::write(admitted.then_some("OK"), &mut reply);
            let whole = matches!(netstring::read(&reply, 100), Decoded::Whole { used, .. } if used == reply.len());
            assert!(whole);
            rest = &rest[used..];
        }
        let mut rest = input;
        while let Decoded::Whole { request, used } = policy::read(rest) {
            let action = engine.decide(NOW, &request).action;
            assert!(action != Action::Ok || names_the_client(&rest[..used]));
            let mut reply = Vec::new();
            action.write(&mut reply);
            assert!(reply == b"action=OK\n\n" || reply == b"action=DUNNO\n\n");
            rest = &rest[used..];
        }
    });
});

/// Returns whether a request contains the client, also in the IPv4-mapped form with hexadecimal
/// digits.
fn names_the_client(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    text.contains(CLIENT) || text.contains("c000:0207") || text.contains("c000:207")
}

fn engine() -> Engine {
    let mut engine = Engine::new(Rules::default());
    let client: IpAddr = CLIENT.parse().expect("an address");
    engine.allow(NOW, client, None, None).expect("nobody is excluded");
    engine
}
