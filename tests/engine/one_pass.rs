//! Which login patterns are read in one pass. Groups of the others are found by backtracking, which
//! takes 5 to 20 times as long, so each of them is known and has a reason.

use std::collections::BTreeMap;

use pop_before_smtp::engine::maildaemons;
use regex_automata::dfa::onepass;

/// The largest table that the regex crate builds, in bytes.
const MAX_TABLE: usize = 1 << 20;

/// The login patterns that are not one-pass: the daemon, how many, and why.
const NOT_ONE_PASS: &[(&str, usize, &str)] = &[
    ("courier", 3, "names with a comma, and versions that log no port; tried last"),
    ("cyrus", 1, "audit log: a key that may be missing begins like the next"),
    ("dbmail", 1, "address and port are separated by a colon"),
    ("dovecot", 1, "proxy: a name may contain the text that ends it"),
    ("imapproxy", 1, "address and port are separated by a colon"),
    ("nginx", 1, "a server's address may contain colons"),
    ("perdition", 1, "address and port are separated by a colon"),
    ("solid-pop3d", 2, "names contain blanks"),
    ("tpop3d", 1, "names contain parentheses"),
];

#[test]
fn login_patterns_that_are_not_one_pass_are_known() {
    let (daemons, faults) = maildaemons::all(&[]);
    assert!(faults.is_empty(), "{faults:?}");
    let config = onepass::Config::new().size_limit(Some(MAX_TABLE));
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut one_pass = 0;
    for daemon in &daemons {
        for pattern in daemon.logins() {
            let built = onepass::Builder::new().configure(config.clone()).build(pattern.as_str());
            match built {
                Ok(_) => one_pass += 1,
                Err(_) => *found.entry(&daemon.name).or_default() += 1,
            }
        }
    }
    let found: Vec<_> = found.into_iter().collect();
    let stated: Vec<_> = NOT_ONE_PASS.iter().map(|&(name, count, _)| (name, count)).collect();
    assert_eq!(found, stated);
    assert!(one_pass > found.len(), "only {one_pass}");
}
