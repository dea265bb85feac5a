//! A directory for the daemon with one map, one Unix socket, and the real postmap, which a script
//! can replace.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::postfix::Postfix;
use super::wire::Wire;
use super::{PATIENCE, directory, eventually, install};

/// The daemon's home.
pub struct Home {
    dir: TempDir,
    map_type: &'static str,
    map: &'static str,
    /// The Postfix that reads the map; not started.
    pub postfix: Postfix,
    /// Where the daemon listens.
    pub wire: Wire,
}

impl Home {
    /// Creates an empty one.
    pub fn new() -> Self {
        Self::with_map("lmdb")
    }

    /// The same with a map of another type.
    pub fn with_map(map_type: &'static str) -> Self {
        Self::with_map_at(map_type, "clients")
    }

    /// The same with the map in a subdirectory `maps`; there is another one, `states`.
    pub fn with_directories(map_type: &'static str) -> Self {
        let home = Self::with_map_at(map_type, "maps/clients");
        for name in ["maps", "states"] {
            fs::create_dir(home.at(name)).unwrap();
        }
        home
    }

    fn with_map_at(map_type: &'static str, map: &'static str) -> Self {
        let dir = directory();
        let table = format!("{map_type}:{}", dir.path().join(map).display());
        let restrictions = format!("check_client_access {table}, reject_unauth_destination");
        let wire = Wire::unix(dir.path().join("log.sock"));
        Self { postfix: Postfix::configure(&restrictions), dir, map_type, map, wire }
    }

    /// Returns the path of a file in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the options of every start, and more.
    pub fn options(&self, more: &[&str]) -> Vec<String> {
        let mut options = vec!["--listen".to_owned(), self.wire.to_string()];
        options.extend(["--map".to_owned(), self.table()]);
        options
            .extend(["--postfix-config".to_owned(), self.postfix.config().display().to_string()]);
        options.extend(more.iter().map(|&option| option.to_owned()));
        options
    }

    /// Starts the daemon, with `access` after the path of the socket that receives frames.
    pub fn start_for(&self, access: &str, more: &[&str]) -> Daemon {
        let mut options = self.options(more);
        options[1].push_str(access);
        Daemon::start(self.dir.path(), &options)
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&self, more: &[&str]) -> Daemon {
        Daemon::start(self.dir.path(), &self.options(more))
    }

    /// Starts the daemon.
    pub fn spawn(&self, more: &[&str]) -> Daemon {
        Daemon::spawn(self.dir.path(), &self.options(more))
    }

    /// Starts the daemon as this user and group and waits until it is ready.
    pub fn start_as(&self, user: (u32, u32), more: &[&str]) -> Daemon {
        let mut daemon = Daemon::spawn_as(user, self.dir.path(), &self.options(more));
        daemon.wait_until_ready();
        daemon
    }

    /// Starts the daemon with a prepared command and waits until it is ready.
    pub fn start_prepared(&self, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Daemon {
        let mut daemon = Daemon::spawn_with(self.dir.path(), &self.options(more), prepare);
        daemon.wait_until_ready();
        daemon
    }

    /// Returns the name of the map for Postfix.
    pub fn table(&self) -> String {
        format!("{}:{}", self.map_type, self.at(self.map).display())
    }

    /// Returns the value of a key in the map, by the real postmap; `None` without a map or an
    /// entry.
    pub fn map_value(&self, key: &str) -> Option<String> {
        let mut postmap = Command::new("postmap");
        postmap.arg("-c").arg(self.postfix.config()).args(["-q", key]).arg(self.table());
        let output = postmap.output().expect("postmap can be started");
        let found = output.status.success();
        found.then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Waits until the map has an address.
    pub fn wait_until_mapped(&self, address: &str, daemon: &Daemon) {
        let mapped = super::within(PATIENCE, || self.map_value(address).is_some());
        assert!(mapped, "{address} is not in the map: {}", daemon.log());
    }

    /// Waits until the state file has an address.
    pub fn wait_until_saved(&self, address: &str, daemon: &Daemon) {
        let state = if self.at("states").exists() { "states/state" } else { "state" };
        let grant = format!("grant\t{address}\t");
        let state = || fs::read_to_string(self.at(state)).unwrap_or_default();
        let saved = super::within(PATIENCE, || state().contains(&grant));
        assert!(saved, "{address} is not in the state file: {}", daemon.log());
    }

    /// Replaces postmap with a script. In it, `real` runs the real one, and `$home` is this
    /// directory.
    pub fn play_postmap(&self, script: &str) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let real = std::env::split_paths(&path).map(|dir| dir.join("postmap"));
        let real = real.into_iter().find(|path| path.is_file()).expect("postmap is in PATH");
        let text = format!(
            "#!/bin/sh\nhome={}\nreal() {{ {} \"$@\"; }}\n{script}\n",
            self.dir.path().display(),
            real.display()
        );
        let bin = self.at("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("text"), text).unwrap();
        install(bin.join("text"), bin.join("new"));
        // The old script may be running.
        fs::rename(bin.join("new"), bin.join("postmap")).unwrap();
    }

    /// Replaces postmap with one that [`Self::hang_postmap`] can block, for a daemon that is
    /// started afterwards.
    pub fn make_postmap_blockable(&self) {
        self.play_postmap(
            "while [ -e $home/hang ]; do : > $home/hanging; sleep 0.02; done\nreal \"$@\"",
        );
    }

    /// Makes postmap hang.
    pub fn hang_postmap(&self) {
        let _ = fs::remove_file(self.at("hanging"));
        fs::write(self.at("hang"), "").unwrap();
    }

    /// Waits until a postmap hangs.
    pub fn wait_until_hanging(&self) {
        eventually("postmap hangs", PATIENCE, || self.at("hanging").exists());
    }

    /// Lets postmap continue.
    pub fn release_postmap(&self) {
        fs::remove_file(self.at("hang")).unwrap();
    }

    /// Returns the names of the sockets in it, except for the service manager's.
    pub fn sockets(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".sock") && name != "notify.sock")
            .collect();
        names.sort();
        names
    }
}
