//! What the kernel knows of a process or a socket.

use std::fs;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::support::{PATIENCE, within};

/// Time in which an idle process uses less than [`QUIET`].
const SETTLED: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_millis(1);

/// Returns the CPU time that a process has used so far, user and system, with all its threads.
pub fn cpu_time(process: u32) -> Duration {
    let process = Pid::from_raw(i32::try_from(process).expect("process ids are below 2^22"));
    let clock = clock_getcpuclockid(process).expect("the process runs");
    Duration::from(clock.now().expect("its clock"))
}

/// Waits until a process has nothing more to do.
pub fn wait_until_idle(process: u32) {
    let idle = within(PATIENCE, || {
        let before = cpu_time(process);
        std::thread::sleep(SETTLED);
        cpu_time(process) - before < QUIET
    });
    assert!(idle, "process {process} is still busy after {PATIENCE:?}");
}

/// Returns how often the threads of a process have been switched in so far.
pub fn switches(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let counts = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        counts.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>()
    };
    tasks.flatten().map(of_task).sum()
}

/// Returns the most memory that a process has had so far, in MiB.
pub fn peak_memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a Linux process");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024.0
}

/// Returns how many datagrams the kernel has dropped because the buffer of this UDP port was full;
/// `None` if nobody listens.
pub fn drops(port: u16) -> Option<u64> {
    let sockets = fs::read_to_string("/proc/net/udp").expect("a Linux with IPv4");
    let local = format!(":{port:04X}");
    let mut found = None;
    for line in sockets.lines().skip(1) {
        let mut fields = line.split_whitespace();
        if fields.nth(1).is_some_and(|address| address.ends_with(&local)) {
            let drops: u64 = fields.last().and_then(|n| n.parse().ok()).expect("a number");
            found = Some(found.unwrap_or(0) + drops);
        }
    }
    found
}
