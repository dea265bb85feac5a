//! Postfix's configuration, read once.

use std::collections::HashMap;
use std::path::PathBuf;

use super::permissions::UserAccount;
use super::postfix::master::{Master, MasterEntry};
use super::postfix::restrictions;
use super::postfix::restrictions::Restriction;
use crate::engine::publication::GENERATION_KEY;
use crate::error::Failure;
use crate::postfix::Postfix;

/// The list that decides on relaying.
pub const RELAY: &str = "smtpd_relay_restrictions";
/// The list that decides on recipients, and before Postfix 2.10 also on relaying.
pub const RECIPIENT: &str = "smtpd_recipient_restrictions";
/// The lists evaluated before them, each of which can refuse a client.
pub const EARLIER: [&str; 3] =
    ["smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions"];

/// The lists evaluated after them, when all recipients were accepted.
pub const LATER: [&str; 2] = ["smtpd_data_restrictions", "smtpd_end_of_data_restrictions"];

/// A change of a restriction list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service of master.cf whose own list it is; none: main.cf's.
    pub service: Option<String>,
    /// The list.
    pub list: &'static str,
    /// Its new value.
    pub value: String,
}

/// Postfix's configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its programs.
    pub postfix: Postfix,
    /// Its version.
    pub version: String,
    /// The map types that it supports.
    pub types: Vec<String>,
    /// The directory of main.cf and master.cf.
    pub directory: PathBuf,
    /// The queue directory: relative socket paths start here, and chrooted services have it as root.
    pub queue: PathBuf,
    /// The user that runs its services, mail_owner.
    pub owner: Option<UserAccount>,
    /// Its smtpd services.
    pub master: Master,
    /// The networks that may relay without a login.
    pub mynetworks: String,
    /// The address families that Postfix uses, inet_protocols.
    pub protocols: String,
    /// The addresses on which it listens, inet_interfaces.
    pub interfaces: String,
    /// Whether Postfix requires TLS of its clients, smtpd_tls_security_level.
    pub tls_level: String,
    /// The default action while a policy service does not answer.
    pub default_action: String,
    lists: HashMap<&'static str, String>,
    classes: HashMap<String, Vec<Restriction>>,
}

impl Setup {
    /// Reads the configuration.
    ///
    /// # Errors
    /// postconf failed.
    pub async fn read(postfix: Postfix) -> Result<Self, Failure> {
        let version = postfix.parameter("mail_version").await?;
        let mut lists = HashMap::new();
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]).chain(LATER) {
            // Older versions lack some of the lists.
            lists.insert(name, postfix.parameter(name).await.unwrap_or_default());
        }
        let mut classes = HashMap::new();
        let names = postfix.parameter("smtpd_restriction_classes").await.unwrap_or_default();
        for class in restrictions::read(&names) {
            let value = postfix.parameter(&class.name).await.unwrap_or_default();
            classes.insert(class.name, restrictions::read(&value));
        }
        let owner = postfix.parameter("mail_owner").await?;
        let default_action = postfix.parameter("smtpd_policy_service_default_action").await;
        Ok(Self {
            types: postfix.map_types().await?,
            directory: postfix.parameter("config_directory").await?.into(),
            queue: postfix.parameter("queue_directory").await?.into(),
            owner: UserAccount::named(&owner),
            master: Master::of(&postfix).await?,
            mynetworks: postfix.parameter("mynetworks").await?,
            protocols: postfix.parameter("inet_protocols").await?,
            interfaces: postfix.parameter("inet_interfaces").await?,
            tls_level: postfix.parameter("smtpd_tls_security_level").await.unwrap_or_default(),
            default_action: default_action.unwrap_or_default(),
            version,
            postfix,
            lists,
            classes,
        })
    }

    /// Returns the command that sets a parameter in main.cf.
    pub fn set(&self, name: &str, value: &str) -> String {
        format!("{} -e {}", self.command("postconf"), quoted(&format!("{name} = {value}")))
    }

    /// Returns the commands that carry out these changes.
    pub fn commands(&self, changes: &[Change]) -> String {
        let command = |Change { service, list, value }: &Change| match service {
            None => self.set(list, value),
            Some(service) => {
                let setting = quoted(&format!("{service}/{list}={}", compact(value)));
                format!("{} -P {setting}", self.command("postconf"))
            }
        };
        let commands = changes.iter().map(command).chain([self.reload()]);
        commands.collect::<Vec<_>>().join(" && ")
    }

    /// Returns the command that succeeds if the daemon has published this table.
    pub fn lookup_own(&self, table: &str) -> String {
        format!("{} -q {GENERATION_KEY} {}", self.command("postmap"), quoted(table))
    }

    /// Returns the configuration after a change.
    pub fn with(&self, change: &Change) -> Self {
        let mut changed = self.clone();
        let value = change.value.clone();
        match &change.service {
            None => {
                changed.lists.insert(change.list, value);
            }
            Some(name) => {
                let services = changed.master.smtpd.iter_mut();
                for service in services.filter(|service| service.name == *name) {
                    service.overrides.insert(change.list.to_owned(), value.clone());
                }
            }
        }
        changed
    }

    /// Returns the command that makes Postfix read its configuration.
    pub fn reload(&self) -> String {
        self.postfix_command("reload")
    }

    /// Returns a command of postfix(1), such as `reload`.
    pub fn postfix_command(&self, action: &str) -> String {
        format!("{} {action}", self.command("postfix"))
    }

    fn command(&self, name: &str) -> String {
        let dir = self.postfix.config_dir.iter();
        dir.fold(name.to_owned(), |command, dir| format!("{command} -c {}", dir.display()))
    }

    /// Returns a list as it applies to the service of this name, or to services without own settings.
    pub fn list(&self, service: Option<&str>, name: &str) -> Vec<Restriction> {
        let service = self.master.smtpd.iter().find(|entry| Some(&*entry.name) == service);
        let own = service.and_then(|service| service.overrides.get(name));
        let value = own.or_else(|| self.lists.get(name));
        let list = restrictions::read(value.map_or("", String::as_str));
        restrictions::resolve(&list, &self.classes)
    }

    /// Returns whether a service overrides one of the lists.
    pub fn is_special(service: &MasterEntry) -> bool {
        let names = EARLIER.into_iter().chain([RELAY, RECIPIENT]);
        names.into_iter().any(|name| service.overrides.contains_key(name))
    }

    /// Returns every list of every service.
    pub fn all_lists(
        &self,
    ) -> impl Iterator<Item = (&MasterEntry, &'static str, Vec<Restriction>)> {
        self.master.smtpd.iter().flat_map(move |service| {
            let names = EARLIER.into_iter().chain([RELAY, RECIPIENT]);
            names.map(move |name| (service, name, self.list(Some(&service.name), name)))
        })
    }
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns a list without blanks, which `postconf -P` refuses.
fn compact(list: &str) -> String {
    let words: Vec<&str> = list.split_whitespace().collect();
    words.join(",").replace(",,", ",").replace("{,", "{").replace(",}", "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_without_blanks() {
        for (list, expected) in [
            (
                "permit_mynetworks, check_client_access hash:/a, reject",
                "permit_mynetworks,check_client_access,hash:/a,reject",
            ),
            (
                "check_policy_service { unix:a/b, timeout=3s }, reject",
                "check_policy_service,{unix:a/b,timeout=3s},reject",
            ),
        ] {
            assert_eq!(compact(list), expected);
        }
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
