//! Which logins authorise, and for how long: the administrator's list of users and rules.
//!
//! - **Promise**: the first rule that matches a login decides, and only about that login: another
//!   login from the same address has its own rule. A login that the list of users does not name never
//!   authorises, whatever the rules say. A login without a user name meets no condition on users.
//! - **Names**: case is ignored. A name without a domain stands for itself and for the user of that
//!   name in each of the domains that are assumed, in logins as well as in rules.
//! - **Not here**: addresses that are never authorised ([`super::grants::exclude`]).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use smol_str::SmolStr;

use super::grants::grant::Grant;
use super::grants::stored::StoredGrant;
use super::limits::Limit;
use super::time::Time;
use super::user_name::fold;
use super::verdict::Reason;
use super::{Engine, RemovalReason};

/// A set of users and domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSet {
    /// Login names in lower case, in all forms in which they may be logged.
    names: HashSet<SmolStr>,
    /// Domains in lower case.
    domains: HashSet<SmolStr>,
    /// Whether names without a domain belong to one of these domains.
    has_bare_names: bool,
}

impl UserSet {
    /// Creates a set of names, and of domains that are written `@example.org`. `assumed` are the
    /// domains of names without one, in lower case.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>, assumed: &[String]) -> Self {
        let mut set = Self::default();
        for name in names {
            let name = fold(name);
            let is_assumed = |domain: &str| assumed.iter().any(|own| own == domain);
            match name.rsplit_once('@') {
                Some(("", domain)) => {
                    set.has_bare_names |= is_assumed(domain);
                    set.domains.insert(domain.into());
                    continue;
                }
                Some((local, domain)) if is_assumed(domain) => drop(set.names.insert(local.into())),
                Some(_) => {}
                None => set.names.extend(assumed.iter().map(|d| format!("{name}@{d}").into())),
            }
            set.names.insert(name);
        }
        set
    }

    /// Returns whether it contains a user, whose name is in lower case.
    fn contains(&self, user: &str) -> bool {
        self.names.contains(user)
            || match user.rsplit_once('@') {
                Some((_, domain)) => self.domains.contains(domain),
                None => self.has_bare_names,
            }
    }

    /// Returns whether it contains all that another set contains.
    pub fn includes(&self, other: &Self) -> bool {
        other.names.iter().all(|name| self.contains(name)) && other.domains.is_subset(&self.domains)
    }

    /// Returns whether some user may be in both sets.
    pub fn meets(&self, other: &Self) -> bool {
        self.names.iter().any(|name| other.contains(name))
            || other.names.iter().any(|name| self.contains(name))
            || !self.domains.is_disjoint(&other.domains)
    }
}

/// What a rule says to the logins that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They authorise for the usual grace.
    Usual,
    /// They authorise for this time.
    Grace(Duration),
    /// They never authorise.
    Never,
}

/// One rule: conditions, and what follows if all of them hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRule {
    /// How people find it: `rule 2 (config.toml line 14)`.
    pub label: Arc<str>,
    /// The networks from which the client must come; empty: any.
    pub from: Vec<IpNet>,
    /// The users, one of whom must have logged in; `None`: anybody, known or not.
    pub users: Option<UserSet>,
    /// What follows.
    pub effect: Effect,
    /// How much may be relayed after such a login, where that differs from the general limit.
    pub limit: Limit,
}

impl LoginRule {
    fn is_for(&self, address: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|network| network.contains(&address))
    }

    fn matches(&self, address: IpAddr, user: Option<&str>) -> bool {
        let has_user =
            |users: &UserSet| user.is_some_and(|user| !user.is_empty() && users.contains(user));
        self.is_for(address) && self.users.as_ref().is_none_or(has_user)
    }

    /// Returns whether it matches every login that another rule matches.
    pub fn covers(&self, other: &Self) -> bool {
        let is_inside = |net: &IpNet| self.from.iter().any(|own| own.contains(net));
        let networks =
            self.from.is_empty() || !other.from.is_empty() && other.from.iter().all(is_inside);
        networks
            && match (&self.users, &other.users) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(others)) => own.includes(others),
            }
    }
}

/// The list of users and the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRules {
    /// The users whose logins authorise; `None`: everybody's.
    pub users: Option<UserSet>,
    /// The rules; the first that matches decides.
    pub rules: Vec<LoginRule>,
}

/// What is decided about a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling<'r> {
    /// No rule matches: it authorises for the usual grace.
    Usual,
    /// This rule decides.
    Rule(&'r LoginRule),
    /// The list of users does not name its user.
    OtherUser,
    /// There is a list of users, and the mail daemon has not logged who it is.
    UnknownUser,
}

impl Ruling<'_> {
    /// Returns for how long the login authorises, or why it does not.
    ///
    /// # Errors
    /// The reason, which names the rule.
    pub fn grace(&self, usual: Duration) -> Result<Duration, Reason> {
        match self {
            Self::Usual => Ok(usual),
            Self::Rule(rule) => match rule.effect {
                Effect::Usual => Ok(usual),
                Effect::Grace(grace) => Ok(grace),
                Effect::Never => Err(Reason::RefusedByRule(Arc::clone(&rule.label))),
            },
            Self::OtherUser => Err(Reason::OtherUser),
            Self::UnknownUser => Err(Reason::UnknownUser),
        }
    }

    /// Returns the label of the rule that decides.
    pub fn label(&self) -> Option<Arc<str>> {
        match self {
            Self::Rule(rule) => Some(Arc::clone(&rule.label)),
            _ => None,
        }
    }
}

impl LoginRules {
    /// Returns whether every login authorises for the usual grace.
    pub fn is_empty(&self) -> bool {
        self.users.is_none() && self.rules.is_empty()
    }

    /// Decides about a login from an address, which is canonical.
    pub fn ruling(&self, address: IpAddr, user: Option<&str>) -> Ruling<'_> {
        if self.is_empty() {
            return Ruling::Usual;
        }
        let user = user.filter(|user| !user.is_empty()).map(fold);
        match (&self.users, &user) {
            (Some(_), None) => return Ruling::UnknownUser,
            (Some(users), Some(user)) if !users.contains(user) => return Ruling::OtherUser,
            _ => {}
        }
        let mut rules = self.rules.iter();
        rules
            .find(|rule| rule.matches(address, user.as_deref()))
            .map_or(Ruling::Usual, Ruling::Rule)
    }

    /// Returns how much a user may relay from an address, where `general` is the general limit.
    pub fn limit(&self, address: IpAddr, user: Option<&str>, general: Limit) -> Limit {
        match self.ruling(address, user) {
            Ruling::Rule(rule) => rule.limit.over(general),
            _ => general,
        }
    }

    /// Returns how much an address may relay when it is not known for whom: of several users the
    /// lowest limit counts.
    pub fn limit_of_address(&self, now: Time, grant: &Grant, general: Limit) -> Limit {
        let of = |user| self.limit(grant.address, user, general);
        let limits = grant.users(now).map(|user| of(Some(user)));
        limits.reduce(Limit::min).unwrap_or_else(|| of(None))
    }

    /// Returns the label of the rule by which no login from an address can authorise, if there is one.
    pub fn refuses_all_from(&self, address: IpAddr) -> Option<&str> {
        let mut rules = self.rules.iter().filter(|rule| rule.is_for(address));
        let decisive = rules.find(|rule| rule.users.is_none() || rule.effect != Effect::Never)?;
        (decisive.effect == Effect::Never).then_some(&decisive.label)
    }

    /// Applies these rules to a grant that others have made: a user whom they refuse no longer has
    /// part in it, and what only that user's login has granted ends. `cap` returns when the grace of a
    /// login ends at the latest, if that is limited.
    pub fn apply(
        &self,
        grant: &mut Grant,
        usual: Duration,
        cap: impl Fn(Duration) -> Option<Time>,
    ) {
        let address = grant.address;
        let of_unknown = self.ruling(address, None).grace(usual).ok();
        // What the users' own deadlines explain, no login without a name has granted.
        let named = grant.users.iter().map(|user| user.until).max();
        let mut longest = of_unknown.filter(|_| grant.by_login > named);
        let mut is_reduced = of_unknown.is_none();
        for user in &mut grant.users {
            let grace = self.ruling(address, Some(&user.name)).grace(usual).ok();
            is_reduced |= grace.is_none() && !user.refused;
            user.refused = grace.is_none();
            longest = longest.max(grace);
            let latest = cap(grace.unwrap_or(usual));
            user.until = latest.map_or(user.until, |latest| user.until.min(latest));
        }
        if let Some(latest) = longest.and_then(&cap) {
            grant.by_login = grant.by_login.map(|until| until.min(latest));
        }
        if is_reduced {
            grant.by_login = grant.by_login.and_then(|until| Some(until.min(grant.users_until()?)));
        }
    }
}

impl Engine {
    /// Counts a user whose login a rule refuses among those who share the address, if it is
    /// authorised: a limit on sharing is about who is there, not about who may relay.
    pub(super) fn count_refused(&mut self, now: Time, address: IpAddr, user: Option<String>) {
        let (Some(user), Some(_)) = (user, self.rules.max_users) else { return };
        self.expire(now, address);
        let Some(before) = self.grants.get(address) else { return };
        let (end, max_users) = (now + self.rules.grace, self.rules.max_users);
        let refuse = |grant: &mut Grant| grant.refuse(&user, now, end, max_users);
        if self.cluster.is_some() {
            self.change_own(now, address, refuse);
            return;
        }
        self.grants.work_on(address, refuse);
        self.changed(address);
        if !before.shared && self.grants.find(address).is_some_and(StoredGrant::is_shared) {
            self.stats.shared += 1;
            self.removed(now, before, RemovalReason::Shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> UserSet {
        UserSet::new(names.iter().copied(), &["example.org".into()])
    }

    fn rule(from: &[&str], users: Option<&[&str]>, effect: Effect) -> LoginRule {
        LoginRule {
            label: "rule".into(),
            from: from.iter().map(|net| net.parse().expect("a network")).collect(),
            users: users.map(set),
            effect,
            limit: Limit::default(),
        }
    }

    #[test]
    fn names_and_domains() {
        let rows = [
            ("joe@example.com", "joe@example.com", true),
            ("Joe@Example.COM", "jOE@example.com", true),
            ("joe@example.com", "joe@example.net", false),
            ("joe@example.com", "joe", false),
            ("joe@example.org", "joe", true),
            ("joe@example.org", "joe@example.org", true),
            ("joe", "joe", true),
            ("joe", "joe@example.org", true),
            ("joe", "joe@example.com", false),
            ("joe", "joey", false),
            ("@example.com", "joe@example.com", true),
            ("@example.com", "joe@sub.example.com", false),
            ("@example.com", "joe", false),
            ("@example.org", "joe", true),
            ("@example.org", "", false),
            ("jörg@example.com", "JÖRG@example.com", true),
        ];
        for (name, login, expected) in rows {
            let rules = LoginRules { users: Some(set(&[name])), rules: Vec::new() };
            let ruling = rules.ruling(IpAddr::from([192, 0, 2, 7]), Some(login));
            assert_eq!(ruling == Ruling::Usual, expected, "{login} as {name}");
        }
    }

    #[test]
    fn a_rule_covers_what_it_leaves_nothing_of() {
        let usual = Effect::Usual;
        let all = || rule(&[], None, usual);
        let home = || rule(&["192.0.2.0/24", "2001:db8::/32"], None, usual);
        let joe = || rule(&[], Some(&["joe", "ann@example.com"]), usual);
        let com = || rule(&[], Some(&["@example.com"]), usual);
        let rows = [
            (all(), home(), true),
            (home(), all(), false),
            (home(), rule(&["192.0.2.8/30"], None, Effect::Never), true),
            (home(), rule(&["192.0.2.8/30", "198.51.100.1/32"], None, usual), false),
            (all(), joe(), true),
            (joe(), all(), false),
            (joe(), rule(&["192.0.2.8/30"], Some(&["JOE@example.org"]), usual), true),
            (joe(), com(), false),
            (com(), rule(&[], Some(&["ann@example.com"]), usual), true),
            (com(), joe(), false),
        ];
        for (first, second, expected) in rows {
            assert_eq!(first.covers(&second), expected, "{first:?} {second:?}");
        }
        assert!(set(&["@example.com"]).meets(&set(&["joe@example.com"])));
        assert!(set(&["joe@example.com"]).meets(&set(&["@example.com"])));
        assert!(!set(&["joe@example.com"]).meets(&set(&["@example.net", "joe"])));
    }

    #[test]
    fn addresses_from_which_no_login_authorises() {
        let (never, usual) = (Effect::Never, Effect::Usual);
        let home = "192.0.2.0/24";
        let rows: [(Vec<LoginRule>, bool); 5] = [
            (vec![rule(&[home], None, never)], true),
            (vec![rule(&[home], Some(&["joe"]), never)], false),
            (vec![rule(&[], Some(&["joe"]), usual), rule(&[home], None, never)], false),
            (vec![rule(&[], Some(&["joe"]), never), rule(&[], None, never)], true),
            (vec![rule(&["198.51.100.0/24"], None, never)], false),
        ];
        for (rules, expected) in rows {
            let rules = LoginRules { users: None, rules };
            let refusing = rules.refuses_all_from(IpAddr::from([192, 0, 2, 7]));
            assert_eq!(refusing.is_some(), expected, "{rules:?}");
        }
    }
}
