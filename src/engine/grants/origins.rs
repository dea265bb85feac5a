//! Where logins come from: a mail daemon and the host that logged it, held once for all the
//! addresses that share them.
//!
//! Limits   `MOST` are held at a time. Host names are foreign text: when there are more, those
//!          that nobody shares are forgotten, and if that is not enough, all; an address keeps its
//!          own.

use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::maildaemons::Name;

/// A site has a few hosts with a few mail daemons each.
const MOST: usize = 1024;

/// Where a login comes from.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The mail daemon.
    pub daemon: Name,
    /// The host that logged it, if the frame named one.
    pub host: Option<String>,
}

/// Those that are held.
#[derive(Debug, Default)]
pub struct Origins {
    held: HashSet<Arc<Origin>>,
    /// Most often the next login comes from the same one.
    last: Option<Arc<Origin>>,
}

impl Origins {
    /// The one that all share.
    pub fn share(&mut self, daemon: &str, host: Option<&str>) -> Arc<Origin> {
        let is_it = |last: &&Arc<Origin>| *last.daemon == *daemon && last.host.as_deref() == host;
        if let Some(last) = self.last.as_ref().filter(is_it) {
            return Arc::clone(last);
        }
        let origin = self.hold(Origin { daemon: daemon.into(), host: host.map(str::to_owned) });
        self.last = Some(Arc::clone(&origin));
        origin
    }

    fn hold(&mut self, origin: Origin) -> Arc<Origin> {
        if let Some(held) = self.held.get(&origin) {
            return Arc::clone(held);
        }
        if self.held.len() >= MOST {
            self.held.retain(|held| Arc::strong_count(held) > 1);
        }
        if self.held.len() >= MOST {
            self.held.clear();
        }
        let origin = Arc::new(origin);
        self.held.insert(Arc::clone(&origin));
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_and_floods_are_forgotten() {
        let mut origins = Origins::default();
        let share = |origins: &mut Origins, host: &str| origins.share("dovecot", Some(host));
        let mx1 = share(&mut origins, "mx1");
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")));
        assert!(!Arc::ptr_eq(&mx1, &share(&mut origins, "mx2")));
        for number in 0..2 * MOST {
            share(&mut origins, &format!("flood{number}"));
            assert!(origins.held.len() <= MOST);
        }
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")), "one in use stays");
        let used: Vec<_> =
            (0..2 * MOST).map(|n| share(&mut origins, &format!("used{n}"))).collect();
        assert!(origins.held.len() <= MOST);
        assert_eq!(used[0].host.as_deref(), Some("used0"));
    }
}
