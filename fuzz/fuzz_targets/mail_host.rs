//! A whole host under attack: only the addresses of clients that really logged in are authorised.
#![no_main]

use std::cell::RefCell;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use pop_before_smtp::engine::Engine;
use pop_before_smtp::engine::correlation::streams::Source;
use pop_before_smtp::engine::grants::Cursor;
use pop_before_smtp::engine::time::Time;
use pop_before_smtp_fuzz::engine;
use pop_before_smtp_fuzz::host::{Host, Script};

/// Hosts for one engine; its bounded tables would fill up with more.
const HOSTS: u64 = 4096;

thread_local! {
    static STATE: RefCell<(u64, Engine)> = RefCell::new((0, engine()));
}

fuzz_target!(|data: &[u8]| {
    STATE.with_borrow_mut(|(number, engine)| {
        *number += 1;
        if *number % HOSTS == 0 {
            *engine = pop_before_smtp_fuzz::engine();
        }
        let mut host = Host::new(*number);
        let mut script = Script::new(data);
        let now = Time::from_millis(1);
        // libc's frames name no host; another sender keeps the hosts apart.
        let sender = IpAddr::from(u128::from(*number).to_be_bytes());
        let source = Source { receiver: 0, sender: Some(sender) };
        while let Some(frame) = host.next(&mut script) {
            let outcome = engine.process(now, source, &frame);
            if outcome.granted().is_some() {
                let address = outcome.address.expect("a login has an address");
                let text = String::from_utf8_lossy(&frame);
                assert!(host.has_logged_in(address), "{address} did not log in: {text:?}");
            }
        }
        for address in engine.list(now, Cursor::default(), |grant| grant.address).items {
            engine.revoke(now, address, None);
        }
        engine.tick(now);
        engine.journal();
    });
});
