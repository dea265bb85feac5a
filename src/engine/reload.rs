//! New rules for a set that exists already.
//!
//! - **Promise**: what the new rules would not authorise does not stay authorised, as far as it is
//!   known who logged in. The operator's grants stay, except those of excluded addresses.

use std::net::IpAddr;

use super::events::EventKind;
use super::grants::exclude::Exclude;
use super::grants::grant::Grant;
use super::grants::stored::StoredGrant;
use super::time::Time;
use super::{Engine, RemovalReason, Rules};

impl Engine {
    /// Replaces the rules and keeps the set, except addresses that are now excluded, refused, or
    /// shared by too many users. A grant keeps its deadline if only the grace has changed. If sessions
    /// no longer count, the open ones end now.
    pub fn reload(&mut self, now: Time, rules: Rules) {
        while self.grants.first_expired(now).is_some() {
            self.sweep(now);
        }
        let inexact_changed = self.rules.publish_inexact != rules.publish_inexact;
        let old_max_users = self.rules.max_users;
        let are_other_logins = self.rules.logins != rules.logins;
        self.rules = rules;
        self.stats.reloaded = Some(now);
        let Rules { logins, grace, max_users, .. } = &self.rules;
        let (logins, grace, max_users) = (logins.clone(), *grace, *max_users);
        if !self.rules.remember_users {
            self.grants.forget_users();
        }
        if self.rules.session_ceiling.is_none() {
            for address in std::mem::take(&mut self.sessions).addresses() {
                let end = |grant: &mut Grant| {
                    logins.apply(grant, grace, |grace| Some(now + grace));
                    // With the old limit: `settle_all` below applies the new one and reports it.
                    grant.settle(old_max_users);
                };
                if self.cluster.is_some() {
                    self.change_own(now, address, end);
                    continue;
                }
                self.grants.work_on(address, end);
                self.changed(address);
                self.tell_grant(now, address, EventKind::Renewed);
            }
        }
        if are_other_logins {
            let grants =
                |address, user: Option<&str>| logins.ruling(address, user).grace(grace).is_ok();
            self.sessions.retain(grants);
        }
        let remembers = self.rules.remember_users;
        let apply = |grant: &mut Grant| {
            if are_other_logins {
                logins.apply(grant, grace, |_| None);
            }
        };
        self.reload_shared(now, |grant| {
            if !remembers {
                grant.users.clear();
            }
            apply(grant);
            grant.settle(max_users);
        });
        for before in self.grants.settle_all(max_users, apply) {
            self.changed(before.address);
            match self.grants.get(before.address) {
                // Nothing of it is left.
                Some(grant) if grant.until <= now => {
                    self.grants.remove(before.address);
                    self.removed(now, before, RemovalReason::Refused);
                }
                Some(grant) if grant.shared => self.removed(now, before, RemovalReason::Shared),
                Some(grant) if before.shared => {
                    self.tell_grant(now, grant.address, EventKind::Granted);
                    if self.is_listed(grant.address, grant.shared) {
                        self.publication.change();
                    }
                }
                _ => self.tell_grant(now, before.address, EventKind::Renewed),
            }
        }
        self.drop_excluded(now);
        self.shrink(now);
        self.grants.reserve(self.rules.max_clients);
        if inexact_changed {
            self.publication.change();
        }
    }

    /// Replaces the lists of addresses that are never authorised.
    pub fn exclude(&mut self, now: Time, exclude: Exclude) {
        self.rules.exclude = exclude;
        self.drop_excluded(now);
        // What others have told of an address that was excluded counts now.
        self.read_again();
    }

    fn drop_excluded(&mut self, now: Time) {
        let addresses = self.grants.iter().map(StoredGrant::address);
        let excluded = addresses.filter(|address| self.rules.exclude.reason(*address).is_some());
        let mut addresses: Vec<IpAddr> = excluded.collect();
        addresses.sort_unstable();
        for address in addresses {
            if let Some(grant) = self.grants.remove(address) {
                self.removed(now, grant, RemovalReason::Excluded);
            }
        }
    }
}
