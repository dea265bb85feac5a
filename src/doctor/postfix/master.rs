//! The smtpd services of master.cf: which are chrooted, and which override settings.
//!
//! - **Source**: postconf(1) `-F` and `-P`, both since Postfix 2.11; master(5).
//! - **Not here**: what the settings mean.

use crate::error::Failure;
use crate::postfix::Postfix;
use std::collections::BTreeMap;

/// A service of master.cf that runs smtpd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasterEntry {
    /// `NAME/TYPE`, as postconf(1) names it.
    pub name: String,
    /// Whether it is chrooted to the queue directory.
    pub chrooted: bool,
    /// Its own settings (`-o NAME=VALUE`).
    pub overrides: BTreeMap<String, String>,
}

/// The services of master.cf that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// The services that run smtpd.
    pub smtpd: Vec<MasterEntry>,
    /// Whether proxymap(8), which opens `proxy:` tables for the others, runs in the chroot.
    pub proxymap_chrooted: bool,
}

impl Master {
    /// Reads the services of master.cf.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn of(postfix: &Postfix) -> Result<Self, Failure> {
        let fields = postfix.ask(&["-F", "*/*/chroot", "*/*/command"]).await?;
        let overrides = postfix.ask(&["-Px"]).await?;
        // Before 3.0, and unless the administrator has changed it since (COMPATIBILITY_README).
        let level = postfix.parameter("compatibility_level").await.unwrap_or_default();
        Ok(Self::read(&fields, &overrides, matches!(level.trim(), "" | "0")))
    }

    /// Parses the output of `postconf -F */*/chroot */*/command` and `postconf -Px`. A `-` in the chroot
    /// column means `default_chroot`.
    pub fn read(fields: &str, overrides: &str, default_chroot: bool) -> Self {
        let mut services: Vec<(MasterEntry, &str)> = Vec::new();
        for (name, field, value) in fields.lines().filter_map(entry) {
            let place = services.iter().position(|(service, _)| service.name == name);
            let place = place.unwrap_or_else(|| {
                services
                    .push((MasterEntry { name: name.to_owned(), ..MasterEntry::default() }, ""));
                services.len() - 1
            });
            let (service, command) = &mut services[place];
            match field {
                "chroot" => {
                    service.chrooted = if value == "-" { default_chroot } else { value == "y" }
                }
                "command" => *command = value.split_whitespace().next().unwrap_or_default(),
                _ => {}
            }
        }
        for (name, parameter, value) in overrides.lines().filter_map(entry) {
            if let Some((service, _)) =
                services.iter_mut().find(|(service, _)| service.name == name)
            {
                service.overrides.insert(parameter.to_owned(), value.to_owned());
            }
        }
        let proxymap = services.iter().find(|(_, command)| *command == "proxymap");
        Self {
            proxymap_chrooted: proxymap.is_some_and(|(service, _)| service.chrooted),
            smtpd: services
                .into_iter()
                .filter_map(|(service, command)| (command == "smtpd").then_some(service))
                .collect(),
        }
    }
}

/// Parses `NAME/TYPE/FIELD = VALUE`; a name may be a path.
fn entry(line: &str) -> Option<(&str, &str, &str)> {
    let (key, value) = line.split_once(" =")?;
    let (service, field) = key.rsplit_once('/')?;
    Some((service, field, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let fields = "smtp/inet/chroot = y\nsmtp/inet/command = smtpd\n\
            submission/inet/chroot = -\nsubmission/inet/command = smtpd -o a=b\n\
            127.0.0.1:25/inet/chroot = n\n127.0.0.1:25/inet/command = smtpd\n\
            pickup/unix/chroot = y\npickup/unix/command = pickup\n\
            proxymap/unix/chroot = n\nproxymap/unix/command = proxymap\n";
        let overrides = "submission/inet/smtpd_relay_restrictions = permit_mynetworks, x = y\n\
            submission/inet/empty =\npickup/unix/x = y\n";
        let master = Master::read(fields, overrides, true);
        let names: Vec<_> = master.smtpd.iter().map(|s| (&*s.name, s.chrooted)).collect();
        assert_eq!(
            names,
            [("smtp/inet", true), ("submission/inet", true), ("127.0.0.1:25/inet", false)]
        );
        assert!(!master.proxymap_chrooted);
        let own = &master.smtpd[1].overrides;
        assert_eq!(own["smtpd_relay_restrictions"], "permit_mynetworks, x = y");
        assert_eq!(own["empty"], "");
        assert!(!Master::read(fields, overrides, false).smtpd[1].chrooted);
    }
}
