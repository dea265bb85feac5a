//! Which envelope senders a client may use, given the users who logged in from its address.
//!
//! - **Promise**: a sender that a login map of Postfix lists belongs only to the logins listed there.
//!   Otherwise users may use their own login name as the address, and what the table lists for them,
//!   with any address extension; in all other cases the answer is no. Case is ignored, as in
//!   Postfix's lookups.
//! - **Not here**: who is logged in ([`crate::engine::grants`]), and where the table comes from.

use std::collections::HashMap;

use super::login_maps::LoginMaps;
use super::policy::Action;
use super::table;
use super::table::TableRow;

/// What the envelope sender must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Nothing: any sender.
    #[default]
    Any,
    /// The address of a user who has logged in.
    User,
    /// The domain of a user who has logged in.
    Domain,
}

/// Which users may use which envelope senders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Senders {
    /// What the sender must match.
    pub binding: Binding,
    /// The domains of login names without a domain, in lower case.
    pub domains: Vec<String>,
    /// Additional senders of some users.
    pub table: SenderTable,
    /// The owners of senders; they override the binding and the table.
    pub login_maps: LoginMaps,
    /// The characters each of which may begin an extension (postconf(5), recipient_delimiter).
    pub delimiters: String,
    /// Whether every user may use the null sender.
    pub allow_null: bool,
    /// The action when the sender does not match.
    pub mismatch: Action,
}

/// Whose sender an envelope sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderOwner<'a> {
    /// Nobody's who has logged in: it is not admitted.
    Stranger,
    /// Every sender is admitted.
    Anyone,
    /// This user's.
    User(&'a str),
}

impl Senders {
    /// Returns which of the users owns a sender. If several do, that is the one whose login name the
    /// sender is, or else the first by name: the same one each time.
    pub fn owner<'a>(
        &self,
        users: impl Iterator<Item = &'a str>,
        sender: Option<&str>,
    ) -> SenderOwner<'a> {
        let owner = match (self.binding, sender) {
            (Binding::Any, _) => return SenderOwner::Anyone,
            (_, None) => None,
            (_, Some("")) => users.filter(|_| self.allow_null).min(),
            (_, Some(sender)) => {
                let sender = sender.to_lowercase();
                let Some((local, domain)) = sender.rsplit_once('@') else {
                    return SenderOwner::Stranger;
                };
                if local.is_empty() || domain.is_empty() {
                    return SenderOwner::Stranger;
                }
                let bare = self.without_extension(local);
                let forms = [&*sender, &format!("{bare}@{domain}"), &format!("@{domain}")];
                let owners = self.login_maps.owners(&forms);
                let may_send = |user: &&str| match owners {
                    Some(owners) => owners.contains(&user.to_lowercase()),
                    None => self.may_send(user, [local, bare], domain),
                };
                let is_other = |user: &&str| {
                    let user = user.to_lowercase();
                    ![&*sender, forms[1], local, bare].contains(&&*user)
                };
                users.filter(may_send).min_by_key(|user| (is_other(user), *user))
            }
        };
        owner.map_or(SenderOwner::Stranger, SenderOwner::User)
    }

    /// Returns whether a user may use an address with either form of the local part.
    fn may_send(&self, user: &str, local: [&str; 2], domain: &str) -> bool {
        let user = user.to_lowercase();
        let (name, own_domain) = match user.rsplit_once('@') {
            Some((name, domain)) => (name, Some(domain)),
            None => (user.as_str(), None),
        };
        let in_domain = match own_domain {
            Some(own) => own == domain,
            None => self.domains.iter().any(|own| own == domain),
        };
        let is_own = match self.binding {
            Binding::User => !name.is_empty() && local.contains(&name),
            Binding::Any | Binding::Domain => true,
        };
        let listed = || {
            let mut list = self.table.0.get(&user).into_iter().flatten();
            list.any(|address| match address.rsplit_once('@') {
                Some((name, listed)) => {
                    listed == domain && (name.is_empty() || local.contains(&name))
                }
                None => false,
            })
        };
        in_domain && is_own || listed()
    }

    /// Returns the local part without its extension, as split by Postfix: at the first delimiter
    /// that is not the first character, and never in names of list owners if `-` is a delimiter.
    fn without_extension<'a>(&self, local: &'a str) -> &'a str {
        let of_a_list = local.starts_with("owner-") || local.ends_with("-request");
        if of_a_list && self.delimiters.contains('-') {
            return local;
        }
        match local.find(|letter| self.delimiters.contains(letter)) {
            Some(at @ 1..) => &local[..at],
            _ => local,
        }
    }
}

/// Additional senders of some users: login name to addresses, all in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderTable(HashMap<String, Vec<String>>);

impl SenderTable {
    /// Parses lines of `login address[, address...]` ([`table`]); `@domain` is every address of a
    /// domain.
    ///
    /// # Errors
    /// The number of the first wrong line, and what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for TableRow { number, key, words } in table::rows(text)? {
            let wrong = |why: &str| Err(format!("line {number}: {why}"));
            if words.is_empty() {
                return wrong("there is no address after the login name");
            }
            let list = table.0.entry(key.to_lowercase()).or_default();
            for address in words {
                let domain = address.rsplit_once('@').map(|(_, domain)| domain);
                if domain.is_none_or(str::is_empty) {
                    return wrong(&format!(
                        "`{}` is not an address; write user@example.org or @example.org",
                        address.escape_debug()
                    ));
                }
                list.push(address.to_lowercase());
            }
        }
        Ok(table)
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Senders {
        fn admit<'a>(&self, users: impl Iterator<Item = &'a str>, sender: Option<&str>) -> bool {
            self.owner(users, sender) != SenderOwner::Stranger
        }
    }

    fn senders(binding: Binding) -> Senders {
        Senders {
            binding,
            domains: vec!["example.org".into(), "example.net".into()],
            table: SenderTable::read(
                "# who may send as what\n\
                 ann sales@example.org,\n\t  Info@Example.ORG\n\n\
                 joe@example.com @lists.example\n",
            )
            .expect("a table"),
            login_maps: LoginMaps::default(),
            delimiters: "+".into(),
            allow_null: false,
            mismatch: Action::Dunno,
        }
    }

    #[test]
    fn users_may_use_their_own_address() {
        let users = senders(Binding::User);
        let rows: &[(&str, &str, bool)] = &[
            ("joe@example.com", "joe@example.com", true),
            ("joe@example.com", "Joe@EXAMPLE.com", true),
            ("Joe@Example.com", "joe@example.com", true),
            ("joe@example.com", "joe+shop@example.com", true),
            ("joe+shop@example.com", "joe+shop@example.com", true),
            ("joe+shop@example.com", "joe@example.com", false),
            ("joe@example.com", "joe@example.org", false),
            ("joe@example.com", "joey@example.com", false),
            ("joe@example.com", "ann@example.com", false),
            ("joe@example.com", "joe@sub.example.com", false),
            ("joe@example.com", "joe", false),
            ("joe@example.com", "@example.com", false),
            ("joe@example.com", "joe@example.com@evil.example", false),
            ("joe@example.com", "any@lists.example", true),
            ("joe@example.com", "any@sub.lists.example", false),
            ("joe", "joe@example.org", true),
            ("joe", "joe@example.net", true),
            ("joe", "+joe@example.org", false),
            ("joe", "joe@example.com", false),
            ("joe", "joe@", false),
            ("ann", "ann@example.org", true),
            ("ANN", "sales@example.org", true),
            ("ann", "sales+eu@example.org", true),
            ("ann", "info@example.org", true),
            ("ann", "info@example.net", false),
            ("jörg", "JÖRG@example.org", true),
            ("@example.com", "@example.com", false),
            ("", "@example.org", false),
            ("", "+x@example.org", false),
        ];
        for (user, sender, expected) in rows {
            let admitted = users.admit([*user].into_iter(), Some(sender));
            assert_eq!(admitted, *expected, "{user} as {sender}");
        }
    }

    #[test]
    fn login_maps_override_binding_and_table() {
        let mut login_maps = LoginMaps::default();
        login_maps.add(
            "info@example.org\tann, Joe@Example.com\n@example.org\tbob\ncarl@example.net\tann\n\
             dora+x@example.net\tbob\nlocal\tann\nnothing@example.net\t\n",
        );
        let of = |binding| Senders { login_maps: login_maps.clone(), ..senders(binding) };
        let rows: &[(&str, &str, bool)] = &[
            ("ann", "Info@example.org", true),
            ("ann", "info+x@example.org", true),
            ("joe@example.com", "info@example.org", true),
            ("bob", "info@example.org", false),
            ("bob", "info+x@example.org", false),
            ("info", "info@example.org", false),
            ("BOB", "any@example.org", true),
            // Their own address, and what the table lists, where Postfix lists another owner.
            ("ann", "ann@example.org", false),
            ("ann", "sales@example.org", false),
            ("carl", "carl@example.net", false),
            ("carl", "carl+x@example.net", false),
            ("ann", "carl@example.net", true),
            ("nothing", "nothing@example.net", false),
            // Only the address with this extension is bob's.
            ("dora", "dora@example.net", true),
            ("dora", "dora+x@example.net", false),
            ("bob", "dora+x@example.net", true),
            // Senders that Postfix does not list.
            ("ann", "ann@example.net", true),
            ("joe@example.com", "joe@example.com", true),
            ("joe@example.com", "any@lists.example", true),
            ("ann", "local@example.com", false),
            ("bob", "@example.org", false),
        ];
        for (user, sender, expected) in rows {
            let admitted = of(Binding::User).admit([*user].into_iter(), Some(sender));
            assert_eq!(admitted, *expected, "{user} as {sender}");
        }
        let domain = of(Binding::Domain);
        assert!(!domain.admit(["carl"].into_iter(), Some("info@example.org")));
        assert!(domain.admit(["carl"].into_iter(), Some("any@example.net")));
        let shared = of(Binding::User);
        assert!(shared.admit(["carl", "ann"].into_iter(), Some("carl@example.net")));
    }

    #[test]
    fn any_address_of_the_own_domain_may_be_used() {
        let domain = senders(Binding::Domain);
        let rows: &[(&str, &str, bool)] = &[
            ("joe@example.com", "ann@example.com", true),
            ("joe@example.com", "ann@EXAMPLE.COM", true),
            ("joe@example.com", "joe@example.org", false),
            ("joe@example.com", "any@lists.example", true),
            ("joe", "ann@example.net", true),
            ("joe", "ann@example.com", false),
            ("joe", "@example.org", false),
        ];
        for (user, sender, expected) in rows {
            let admitted = domain.admit([*user].into_iter(), Some(sender));
            assert_eq!(admitted, *expected, "{user} as {sender}");
        }
    }

    #[test]
    fn several_users_and_none() {
        let users = senders(Binding::User);
        let both = || ["joe", "ann"].into_iter();
        assert!(users.admit(both(), Some("joe@example.org")));
        assert!(users.admit(both(), Some("ann@example.org")));
        assert!(!users.admit(both(), Some("eve@example.org")));
        assert!(!users.admit(both(), Some("")), "the null sender");
        assert!(!users.admit(both(), None), "a sender that is not UTF-8");
        let null = Senders { allow_null: true, ..users };
        assert!(null.admit(both(), Some("")));
        assert!(!null.admit([].into_iter(), Some("")), "nobody has logged in");
        assert!(senders(Binding::Any).admit([].into_iter(), Some("eve@example.com")));
    }

    #[test]
    fn one_of_several_users_owns_a_sender() {
        let rows: &[(Binding, &[&str], &str, &str)] = &[
            (Binding::User, &["joe", "ann"], "joe@example.org", "joe"),
            (Binding::User, &["Joe@Example.org", "joe"], "joe@example.org", "Joe@Example.org"),
            (Binding::Domain, &["joe", "ann"], "joe@example.org", "joe"),
            (Binding::Domain, &["joe", "ann"], "joe+shop@example.org", "joe"),
            (Binding::Domain, &["joe", "bob", "ann"], "info@example.org", "ann"),
            (Binding::Domain, &["ann", "joe", "bob"], "info@example.org", "ann"),
        ];
        for (binding, users, sender, expected) in rows {
            let owner = senders(*binding).owner(users.iter().copied(), Some(sender));
            assert_eq!(owner, SenderOwner::User(expected), "{users:?} as {sender}");
        }
        let any = senders(Binding::Any).owner(["joe"].into_iter(), Some("joe@example.org"));
        assert_eq!(any, SenderOwner::Anyone);
    }

    #[test]
    fn extensions_are_split_as_by_postfix() {
        let split = |delimiters: &str, local: &str| {
            let senders = Senders { delimiters: delimiters.into(), ..Senders::default() };
            senders.without_extension(local).to_owned()
        };
        for (delimiters, local, expected) in [
            ("+", "joe+a+b", "joe"),
            ("+", "joe", "joe"),
            ("+", "joe+", "joe"),
            ("+", "+joe", "+joe"),
            ("+-", "joe-a+b", "joe"),
            ("", "joe+a", "joe+a"),
            ("-", "owner-joe", "owner-joe"),
            ("-", "joe-request", "joe-request"),
            ("+", "owner-joe+a", "owner-joe"),
        ] {
            assert_eq!(split(delimiters, local), expected, "{local} at {delimiters}");
        }
    }

    #[test]
    fn table_errors() {
        for (text, fault) in [
            (" joe@example.org\n", "line 1: there is no line before it to continue"),
            ("joe joe@example.org\nann\n", "line 2: there is no address"),
            ("joe example.org\n", "line 1: `example.org` is not an address"),
            ("joe joe@\n", "line 1: `joe@` is not an address"),
        ] {
            let why = SenderTable::read(text).expect_err(text);
            assert!(why.starts_with(fault), "{why}");
        }
        assert!(SenderTable::read("# nothing\n\n").expect("a table").is_empty());
    }
}
