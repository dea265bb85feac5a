//! Postfix's smtpd_sender_login_maps (postconf(5)): the logins that own a sender.
//!
//! - **Promise**: a sender is looked up as by Postfix (mail_addr_find(3)): each form of the address
//!   is searched in all maps in their order before the next form, and the first entry found decides.
//! - **Not here**: keys without `@`. They are for senders in domains that are local to Postfix, which
//!   only Postfix knows; they are ignored.

use std::collections::HashMap;

/// The maps, in their order. All text is in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginMaps(Vec<HashMap<String, Vec<String>>>);

impl LoginMaps {
    /// Adds a map after the others, in the format of `postmap -s`: a sender, a tab, and the logins
    /// that may use it. Of entries with the same key, the first counts.
    pub fn add(&mut self, entries: &str) {
        let mut map = HashMap::new();
        for (sender, logins) in entries.lines().filter_map(|line| line.split_once('\t')) {
            let domain = sender.rsplit_once('@').map(|(_, domain)| domain);
            if domain.is_none_or(str::is_empty) {
                continue;
            }
            let logins = logins.split([' ', '\t', ',']).filter(|login| !login.is_empty());
            map.entry(sender.to_lowercase())
                .or_insert_with(|| logins.map(str::to_lowercase).collect());
        }
        self.0.push(map);
    }

    /// Returns the owners of a sender, given the forms of its address in the order of lookup; `None`
    /// if no map lists it. An entry without logins has no owners.
    pub fn owners(&self, forms: &[&str]) -> Option<&[String]> {
        let entries = forms.iter().flat_map(|form| self.0.iter().map(move |map| map.get(*form)));
        entries.flatten().next().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_decides() {
        let mut maps = LoginMaps::default();
        maps.add(
            "info@example.org\tann, Joe@Example.com\n@Lists.example\tann\nlocal\tann\n@\tann\n\
             nothing@example.org\t\nno tab\ninfo@example.org\teve\n",
        );
        maps.add("@example.org\tbob\nany@lists.example\tbob\ninfo@example.org\tbob\n");
        for (forms, owners) in [
            (&["info@example.org", "@example.org"][..], Some(&["ann", "joe@example.com"][..])),
            (&["info+x@example.org", "info@example.org"], Some(&["ann", "joe@example.com"])),
            (&["any@lists.example", "@lists.example"], Some(&["bob"])),
            (&["other@lists.example", "@lists.example"], Some(&["ann"])),
            (&["nothing@example.org", "@example.org"], Some(&[])),
            (&["local@example.org", "@example.org"], Some(&["bob"])),
            (&["local@example.com", "@example.com"], None),
            (&["@"], None),
            (&["local"], None),
        ] {
            let found = maps.owners(forms);
            let found = found.map(|found| found.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), owners, "{forms:?}");
        }
    }
}
