//! Postfix's programs: its parameters, services and map types from postconf, and access maps.
//!
//! - **Promise**: postconf answers within a time limit and for the configuration directory that the
//!   administrator set; a failure says what to do.
//! - **Layers**: [`access_map`] publishes maps; [`map_spec`] and [`mynetworks`] parse values.
//! - **Not here**: what the values of other parameters mean.

pub mod access_map;
pub mod map_spec;
pub mod mynetworks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::error::Failure;
use crate::sys::child;
use crate::sys::child::ChildError;
use crate::sys::programs;
use crate::sys::programs::FALLBACK_PATH;
use map_spec::MapType;

/// postconf answers in a few milliseconds; after ten seconds the host must be stuck.
const LIMIT: Duration = Duration::from_secs(10);

/// Map types that postmap builds as a single file, which a rename can replace.
pub const BUILDABLE: [&str; 4] = ["hash", "btree", "lmdb", "cdb"];

/// The Postfix of this host.
#[derive(Clone, Debug)]
pub struct Postfix {
    /// The directory of main.cf, if not Postfix's default.
    pub config_dir: Option<PathBuf>,
    /// The path of postconf(1).
    pub postconf: PathBuf,
    /// The path of postmap(1).
    pub postmap: PathBuf,
}

impl Postfix {
    /// Finds the programs of Postfix.
    ///
    /// # Errors
    /// A program is missing.
    pub fn locate(config_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let program = |name: &str| {
            programs::find(name).ok_or_else(|| {
                Failure::config(format!("{name} is neither in PATH nor in {FALLBACK_PATH}"))
                    .hint(
                        "install Postfix, or add the directory of its programs to PATH; without Postfix, set \
                         policy instead of map",
                    )
            })
        };
        Ok(Self { config_dir, postconf: program("postconf")?, postmap: program("postmap")? })
    }

    /// Returns the value of a main.cf parameter or its default, with all `$name` expanded.
    ///
    /// # Errors
    /// postconf failed, or this Postfix has no such parameter.
    pub async fn parameter(&self, name: &str) -> Result<String, Failure> {
        let answer = self.ask(&["-xh", name]).await?;
        match answer.strip_suffix('\n') {
            Some(value) => Ok(value.to_owned()),
            // For an unknown name postconf prints no line and exits with status 0.
            None => Err(Failure::config(format!("Postfix has no parameter {name}"))),
        }
    }

    /// Looks up a key in a table.
    ///
    /// # Errors
    /// The table cannot be queried.
    pub async fn lookup(&self, table: &str, key: &str) -> Result<Option<String>, ChildError> {
        match child::run(self.postmap_command().args(["-q", key, table]), LIMIT).await {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            // postmap exits with 1 for a missing key and for errors. Warnings may be about main.cf.
            Err(ChildError::Failed(status, stderr))
                if status.code() == Some(1) && !stderr.contains("fatal: ") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the map types that this Postfix supports.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn map_types(&self) -> Result<Vec<String>, Failure> {
        Ok(self.ask(&["-m"]).await?.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns the map type that Postfix uses by default.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn default_map_type(&self) -> Result<String, Failure> {
        self.parameter("default_database_type").await
    }

    /// Returns the map type to publish: resolves `auto`, and refuses types that cannot work.
    ///
    /// # Errors
    /// Postfix does not support the type, or postmap cannot build it.
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
            format!("this Postfix does not support the map type {kind}")
        } else {
            format!(
                "the map type {kind} cannot be published: postmap must build it as a single file"
            )
        };
        let what = match wanted {
            MapType::Auto => format!("{what} ({kind} is Postfix's default_database_type)"),
            MapType::Named(_) => what,
        };
        let failure = match usable.as_slice() {
            [] => Failure::config(format!(
                "{what}, nor does it support any of {}",
                BUILDABLE.join(", ")
            )),
            some => Failure::config(format!("{what}; available: {}", some.join(", "))),
        };
        Err(match kind.as_str() {
            "lmdb" | "cdb" => failure.hint(format!(
                "install the package postfix-{kind} (apt-get install postfix-{kind}), or change --map"
            )),
            _ => {
                failure.hint("use one of hash, btree, lmdb and cdb in `map` that `postconf -m` lists")
            }
        })
    }

    /// Returns a command that runs postmap.
    pub fn postmap_command(&self) -> Command {
        self.command(&self.postmap)
    }

    /// Runs postconf with these arguments and returns its output.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        child::run(self.command(&self.postconf).args(arguments), LIMIT).await.map_err(|error| {
            let what = format!("{} {}: {error}", self.postconf.display(), arguments.join(" "));
            match error {
                ChildError::Failed(_, stderr) if stderr.contains("main.cf") => {
                    Failure::config(what).hint("set postfix-config to the directory of main.cf")
                }
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
