//! What we ask Postfix: its parameters, services and map types, and where its programs are.
//!
//! Promise  answers come from `postconf` within a time limit, with the configuration directory
//!          that the operator named; a failure says what to do.
//! Not here building maps, and what the value of a parameter means.

pub mod access_map;
pub mod map_spec;
pub mod mynetworks;

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::error::Failure;
use crate::sys::child;
use crate::sys::child::ChildError;
use map_spec::MapType;

/// postconf answers in a few milliseconds; ten seconds means that the host is in trouble.
const LIMIT: Duration = Duration::from_secs(10);
/// Where Postfix's programs are, besides PATH: a daemon's PATH may lack sbin.
const USUAL: &str = "/usr/sbin:/usr/bin:/usr/local/sbin";

/// Map types that postmap can build, as one file that one rename can replace.
pub const BUILDABLE: [&str; 4] = ["hash", "btree", "lmdb", "cdb"];

/// The Postfix of this host.
#[derive(Clone, Debug)]
pub struct Postfix {
    /// The directory of main.cf, if it is not Postfix's own.
    pub config_dir: Option<PathBuf>,
    /// The program that tells parameters, postconf(1).
    pub postconf: PathBuf,
    /// The program that builds maps, postmap(1).
    pub postmap: PathBuf,
}

impl Postfix {
    /// Finds the programs of Postfix.
    ///
    /// # Errors
    /// A program that is not there is a mistake of configuration.
    pub fn locate(config_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = |name: &str| {
            find(name, &path).or_else(|| find(name, OsStr::new(USUAL))).ok_or_else(|| {
                Failure::config(format!("{name} is neither in PATH nor in {USUAL}"))
                    .hint("install Postfix, or add the directory of its programs to PATH")
            })
        };
        Ok(Self { config_dir, postconf: program("postconf")?, postmap: program("postmap")? })
    }

    /// The value of a parameter of main.cf or its default, with all `$name` expanded.
    ///
    /// # Errors
    /// postconf failed, or this Postfix has no such parameter.
    pub async fn parameter(&self, name: &str) -> Result<String, Failure> {
        let answer = self.ask(&["-xh", name]).await?;
        match answer.strip_suffix('\n') {
            Some(value) => Ok(value.to_owned()),
            // For a name it does not know postconf prints no line, and ends with status 0.
            None => Err(Failure::config(format!("Postfix has no parameter {name}"))),
        }
    }

    /// What a table says of a key, if anything.
    ///
    /// # Errors
    /// The table cannot be asked.
    pub async fn lookup(&self, table: &str, key: &str) -> Result<Option<String>, ChildError> {
        match child::run(self.postmap_command().args(["-q", key, table]), LIMIT).await {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            // The status of a key that is not there is that of an error. Warnings may be of main.cf.
            Err(ChildError::Failed(status, said))
                if status.code() == Some(1) && !said.contains("fatal: ") =>
            {
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// The map types that this Postfix supports, as its own list has them.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn map_types(&self) -> Result<Vec<String>, Failure> {
        Ok(self.ask(&["-m"]).await?.split_whitespace().map(str::to_owned).collect())
    }

    /// The map type that Postfix uses where none is named.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn default_map_type(&self) -> Result<String, Failure> {
        self.parameter("default_database_type").await
    }

    /// The map type to publish in: resolves `auto`, and refuses what cannot work.
    ///
    /// # Errors
    /// Postfix has no such type, or postmap cannot build it.
    pub async fn map_type(&self, wanted: &MapType) -> Result<String, Failure> {
        let kind = match wanted {
            MapType::Auto => self.default_map_type().await?,
            MapType::Named(name) => name.clone(),
        };
        let types = self.map_types().await?;
        let usable: Vec<&str> =
            BUILDABLE.into_iter().filter(|name| types.iter().any(|known| known == name)).collect();
        if usable.contains(&kind.as_str()) {
            return Ok(kind);
        }
        let what = if BUILDABLE.contains(&kind.as_str()) {
            format!("this Postfix has no map type {kind}")
        } else {
            format!("{kind} is no map type that postmap can build and one rename can replace")
        };
        let what = match wanted {
            MapType::Auto => format!("{what} (it is Postfix's default_database_type)"),
            MapType::Named(_) => what,
        };
        let failure = match usable.as_slice() {
            [] => Failure::config(format!("{what}, nor any other that would do")),
            some => Failure::config(format!("{what}; these would do: {}", some.join(", "))),
        };
        Err(match kind.as_str() {
            "lmdb" | "cdb" => failure.hint(format!(
                "install the package postfix-{kind} (apt-get install postfix-{kind}), or change --map"
            )),
            _ => {
                failure.hint("name one of hash, btree, lmdb and cdb that `postconf -m` lists in --map")
            }
        })
    }

    /// The command that begins every call of postmap.
    pub fn postmap_command(&self) -> Command {
        self.command(&self.postmap)
    }

    /// What postconf says to these words.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn ask(&self, words: &[&str]) -> Result<String, Failure> {
        child::run(self.command(&self.postconf).args(words), LIMIT).await.map_err(|trouble| {
            let what = format!("{} {}: {trouble}", self.postconf.display(), words.join(" "));
            match trouble {
                ChildError::Failed(_, said) if said.contains("main.cf") => Failure::config(what)
                    .hint("name the directory of main.cf with --postfix-config"),
                ChildError::Failed(..) | ChildError::NotStarted(_) => Failure::config(what),
                ChildError::Slow(_) | ChildError::Flood | ChildError::Lost(_) => Failure::io(what),
            }
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(dir) = &self.config_dir {
            command.arg("-c").arg(dir);
        }
        command
    }
}

/// Finds a program in directories separated by colons; relative ones are passed over.
fn find(name: &str, directories: &OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(directories)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn programs_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for (directory, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(directory).expect("a directory");
            let program = directory.join("postmap");
            fs::write(&program, "").expect("a file");
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("mode");
        }
        let path = env::join_paths([Path::new("."), &first, &second]).expect("a path");
        assert_eq!(find("postmap", &path), Some(second.join("postmap")));
        assert_eq!(find("postconf", &path), None);
        assert_eq!(find("postmap", OsStr::new("")), None);
    }
}
