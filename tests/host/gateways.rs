//! Gateways are never authorised: every next hop of every default route, as the real kernel reports
//! them.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::daemon::program;
use crate::support::network;

/// Next hops of default routes, in the order of the commands below.
const GATEWAYS: &[&str] = &[
    "192.0.2.11",
    "192.0.2.12",
    "192.0.2.13",
    "192.0.2.14",
    "2001:db8:1::15",
    "192.0.2.16",
    "192.0.2.17",
    "2001:db8:1::21",
    "2001:db8:1::22",
    "2001:db8:1::23",
    "2001:db8:1::24",
    "192.0.2.31",
    "192.0.2.32",
    "2001:db8:1::33",
];
/// Next hops of other routes, and other addresses.
const OTHERS: &[&str] =
    &["192.0.2.41", "192.0.2.42", "192.0.2.43", "2001:db8:1::44", "2001:db8:1::45", "192.0.2.2"];

const ROUTES: &[&str] = &[
    "link add eth0 type veth peer name eth1",
    "link set eth0 up",
    "link set eth1 up",
    "address add 192.0.2.2/24 dev eth0",
    "-6 address add 2001:db8:1::2/64 dev eth0 nodad",
    "route add default nexthop via 192.0.2.11 nexthop via 192.0.2.12",
    "route add default via 192.0.2.13 metric 500",
    "route add default via 192.0.2.14 table 100",
    "-4 route add default via inet6 2001:db8:1::15 dev eth0 table 101",
    "route add 0.0.0.0/1 via 192.0.2.16",
    "route add 128.0.0.0/1 via 192.0.2.17",
    "-6 route add default nexthop via 2001:db8:1::21 nexthop via 2001:db8:1::22",
    "-6 route add default via 2001:db8:1::23 table 100",
    "-6 route add ::/1 via 2001:db8:1::24",
    "nexthop add id 1 via 192.0.2.31 dev eth0",
    "nexthop add id 2 via 192.0.2.32 dev eth0",
    "nexthop add id 3 group 1/2",
    "route add default nhid 3 table 102",
    "nexthop add id 4 via 2001:db8:1::33 dev eth0",
    "-6 route add default nhid 4 table 103",
    // Not these.
    "route add 10.0.0.0/8 via 192.0.2.41",
    "nexthop add id 5 via 192.0.2.42 dev eth0",
    "route add 172.16.0.0/12 nhid 5",
    "nexthop add id 6 via 192.0.2.43 dev eth0",
    "-6 route add 2001:db8:2::/48 via 2001:db8:1::44",
];

/// Returns the verdicts of `test` on a login from each address.
fn verdicts(addresses: &[&str]) -> Vec<String> {
    let mut command = program();
    command.args(["test", "--json", "--exclude", "gateway"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut test = command.spawn().expect("the program can be started");
    let mut input = test.stdin.take().expect("it is piped");
    for address in addresses {
        let line = format!(
            "Nov 22 07:31:24 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, \
             rip={address}, lip=198.51.100.1, mpid=22, session=<a>\n"
        );
        input.write_all(line.as_bytes()).expect("it reads");
    }
    drop(input);
    let output = test.wait_with_output().expect("it ends");
    let lines = String::from_utf8(output.stdout).expect("JSON");
    let verdicts = lines.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        format!("{} {}", row["address"].as_str().unwrap_or("-"), row["verdict"])
    });
    verdicts.collect()
}

#[test]
fn next_hops_of_default_routes_are_excluded() {
    network::enter();
    ROUTES.iter().for_each(|command| network::ip(command));
    // In compatibility mode the kernel also reports the next hops of objects with each route.
    for compatible in ["1", "0"] {
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", compatible).expect("it is ours");
        let expect = |addresses: &[&str], verdict: &str| -> Vec<String> {
            addresses.iter().map(|address| format!("{address} \"{verdict}\"")).collect()
        };
        assert_eq!(verdicts(GATEWAYS), expect(GATEWAYS, "excluded"), "{compatible}");
        assert_eq!(verdicts(OTHERS), expect(OTHERS, "login"), "{compatible}");
    }
}
