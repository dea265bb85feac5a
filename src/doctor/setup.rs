//! What Postfix says of itself, asked once.

use std::collections::HashMap;
use std::path::PathBuf;

use super::permissions::UserAccount;
use super::postfix::master::{Master, MasterEntry};
use super::postfix::restrictions;
use super::postfix::restrictions::Restriction;
use crate::error::Failure;
use crate::postfix::Postfix;

/// The list that decides about relaying.
pub const RELAY: &str = "smtpd_relay_restrictions";
/// The list that decides about recipients, and decided about relaying before Postfix 2.10.
pub const RECIPIENT: &str = "smtpd_recipient_restrictions";
/// The lists before them, each of which can refuse a client as well.
pub const EARLIER: [&str; 3] =
    ["smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions"];

/// Postfix as it is set up.
#[derive(Debug)]
pub struct Setup {
    /// Its programs.
    pub postfix: Postfix,
    /// Its version.
    pub version: String,
    /// The map types that it supports.
    pub types: Vec<String>,
    /// Where relative names of sockets begin, and the root of services that are chrooted.
    pub queue: PathBuf,
    /// The user as whom its services run.
    pub owner: Option<UserAccount>,
    /// Its smtpd services.
    pub master: Master,
    /// UserAccount may relay without any login.
    pub mynetworks: String,
    /// What it does if a policy service cannot be asked.
    pub default_action: String,
    lists: HashMap<&'static str, String>,
    classes: HashMap<String, Vec<Restriction>>,
}

impl Setup {
    /// Asks it.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn learn(postfix: Postfix) -> Result<Self, Failure> {
        let version = postfix.parameter("mail_version").await?;
        let mut lists = HashMap::new();
        for name in EARLIER.into_iter().chain([RELAY, RECIPIENT]) {
            // An older Postfix has not every list.
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
            queue: postfix.parameter("queue_directory").await?.into(),
            owner: UserAccount::named(&owner),
            master: Master::of(&postfix).await?,
            mynetworks: postfix.parameter("mynetworks").await?,
            default_action: default_action.unwrap_or_default(),
            version,
            postfix,
            lists,
            classes,
        })
    }

    /// The command that changes its configuration.
    pub fn postconf(&self) -> String {
        self.command("postconf")
    }

    /// The command that makes it read its configuration.
    pub fn reload(&self) -> String {
        self.command("postfix") + " reload"
    }

    fn command(&self, name: &str) -> String {
        let dir = self.postfix.config_dir.iter();
        dir.fold(name.to_owned(), |command, dir| format!("{command} -c {}", dir.display()))
    }

    /// A list as it is in force for a service, or for those without settings of their own.
    pub fn list(&self, service: Option<&MasterEntry>, name: &str) -> Vec<Restriction> {
        let own = service.and_then(|service| service.overrides.get(name));
        let value = own.or_else(|| self.lists.get(name));
        let list = restrictions::read(value.map_or("", String::as_str));
        restrictions::resolve(&list, &self.classes)
    }

    /// Whether a service has one of the lists for itself.
    pub fn is_special(service: &MasterEntry) -> bool {
        let names = EARLIER.into_iter().chain([RELAY, RECIPIENT]);
        names.into_iter().any(|name| service.overrides.contains_key(name))
    }

    /// Every list of every service, with the services that it is for.
    pub fn all_lists(
        &self,
    ) -> impl Iterator<Item = (&MasterEntry, &'static str, Vec<Restriction>)> {
        self.master.smtpd.iter().flat_map(move |service| {
            let names = EARLIER.into_iter().chain([RELAY, RECIPIENT]);
            names.map(move |name| (service, name, self.list(Some(service), name)))
        })
    }
}
