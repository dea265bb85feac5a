//! The running processes of a Postfix instance: master(8), and the services that it has started.
//!
//! - **Promise**: only processes of this instance: master is found by its pid file and its working
//!   directory, services by their parent.
//! - **Source**: proc_pid_stat(5). `postfix reload` makes every service end and start again; qmgr(8)
//!   ends at no other time, so its start is the time of the last reload. While there is none (master
//!   waits for a minute if it did not start), nothing is known to be older than the reload.
//! - **Limits**: root only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};

/// Clock ticks per second in /proc; Linux reports the same to all programs (USER_HZ).
const TICKS: u64 = 100;

/// Whether an instance is running.
#[derive(Debug)]
pub enum Instance {
    /// It is.
    Running(Processes),
    /// It is, but its processes cannot be seen: they are in another container.
    Hidden,
    /// It is not.
    Stopped,
}

/// The processes of an instance.
#[derive(Clone, Debug)]
pub struct Processes {
    /// The process id of master.
    pub master: u32,
    /// When it read its configuration: at its start, or at the last reload.
    pub loaded: SystemTime,
    /// The services that run smtpd.
    pub smtpd: Vec<Smtpd>,
}

/// A process that runs smtpd.
#[derive(Clone, Debug)]
pub struct Smtpd {
    /// Its process id.
    pub id: u32,
    /// The service of master.cf that it belongs to, `NAME/TYPE`.
    pub service: String,
    /// When it started and read its configuration.
    pub started: SystemTime,
}

/// A line of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    program: &'a str,
    parent: u32,
    /// Since the host has booted.
    started: Duration,
}

impl Instance {
    /// Finds the processes of the instance with this queue directory.
    pub fn find(queue: &Path) -> Self {
        let file = queue.join("pid/master.pid");
        let Ok(text) = fs::read_to_string(&file) else { return Self::Stopped };
        let master = text.trim().parse().ok().filter(|id| is_in(*id, queue));
        match master.and_then(Processes::of) {
            Some(processes) => Self::Running(processes),
            None if is_locked(&file) => Self::Hidden,
            None => Self::Stopped,
        }
    }
}

impl Processes {
    fn of(master: u32) -> Option<Self> {
        let now = (SystemTime::now(), uptime()?);
        let at = |started: Duration| now.0 - now.1.saturating_sub(started);
        let text = stat(master)?;
        let own = Stat::read(&text).filter(|stat| stat.program == "master")?;
        let (mut queue_manager, mut smtpd) = (None, Vec::new());
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may end meanwhile.
            let Some(text) = stat(id) else { continue };
            let Some(stat) = Stat::read(&text).filter(|stat| stat.parent == master) else {
                continue;
            };
            match stat.program {
                "qmgr" => queue_manager = queue_manager.max(Some(stat.started)),
                "smtpd" => {
                    let line =
                        fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
                    let service = service(&line);
                    smtpd.extend(service.map(|service| (id, service, stat.started)));
                }
                _ => {}
            }
        }
        let smtpd = smtpd
            .into_iter()
            .map(|(id, service, started)| Smtpd { id, service, started: at(started) })
            .collect();
        let loaded = queue_manager.map_or(now.0, |started| at(started.max(own.started)));
        Some(Self { master, loaded, smtpd })
    }
}

impl Smtpd {
    /// Returns the files that it has open; one that was replaced meanwhile has its old name. None if
    /// they cannot be seen.
    pub fn open_files(&self) -> Option<Vec<PathBuf>> {
        let links = fs::read_dir(format!("/proc/{}/fd", self.id)).ok()?;
        let path = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
        Some(links.flatten().filter_map(path).collect())
    }
}

impl<'a> Stat<'a> {
    fn read(line: &'a str) -> Option<Self> {
        // The name may contain blanks and parentheses.
        let (name, rest) = line.rsplit_once(") ")?;
        let (_, program) = name.split_once(" (")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks: u64 = fields.get(19)?.parse().ok()?;
        Some(Self {
            program,
            parent: fields.get(1)?.parse().ok()?,
            started: Duration::from_millis(ticks.saturating_mul(1000 / TICKS)),
        })
    }
}

fn stat(id: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{id}/stat")).ok()
}

/// Returns whether this is the working directory of a process.
fn is_in(id: u32, directory: &Path) -> bool {
    let home = fs::read_link(format!("/proc/{id}/cwd"));
    home.is_ok_and(|home| fs::canonicalize(directory).is_ok_and(|directory| directory == home))
}

/// Returns whether master locks its pid file: it does as long as it runs, in whatever container.
fn is_locked(file: &Path) -> bool {
    let Ok(file) = File::open(file) else { return false };
    // Shared and for a moment only, as `postfix status` tests it.
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

fn uptime() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// Returns the service that master(8) names in the arguments of a process: `-n NAME -t TYPE`.
fn service(arguments: &str) -> Option<String> {
    let words: Vec<&str> = arguments.split('\0').collect();
    let after = |option: &str| {
        let place = words.iter().position(|word| *word == option)?;
        words.get(place + 1).copied()
    };
    Some(format!("{}/{}", after("-n")?, after("-t")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let rest = "S 7 1 1 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 250 9 3 18446744073709551615";
        let expected = |program| Stat { program, parent: 7, started: Duration::from_millis(2500) };
        for program in ["smtpd", "a) (b", ""] {
            let line = format!("42 ({program}) {rest}");
            assert_eq!(Stat::read(&line), Some(expected(program)));
        }
        assert_eq!(Stat::read("42 (smtpd) S 7"), None);
    }

    #[test]
    fn service_names() {
        let line = "smtpd\0-n\x00127.0.0.1:25\0-t\0inet\0-u\0-o\0stress=\0";
        assert_eq!(service(line).as_deref(), Some("127.0.0.1:25/inet"));
        assert_eq!(service("smtpd\0-n\0smtp"), None);
    }

    /// This process itself, as the kernel describes it.
    #[test]
    fn own_start() {
        let text = stat(std::process::id()).expect("it runs");
        let stat = Stat::read(&text).expect("a line");
        let age = uptime().expect("a clock").checked_sub(stat.started).expect("it has started");
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
    }
}
