//! Where logins come from: a mail daemon and the host that logged it, held once for all the
//! addresses that share them.
//!
//! Limits   `MOST` are held at a time. Host names are foreign text: when there are more, those
//!          that nobody shares are forgotten, and if that is not enough, all; an address keeps its
//!          own.

use std::collections::HashSet;
use std::sync::Arc;

use super::daemons::Name;

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
pub struct Origins(HashSet<Arc<Origin>>);

impl Origins {
    /// The one that all share.
    pub fn share(&mut self, daemon: Name, host: Option<String>) -> Arc<Origin> {
        let origin = Origin { daemon, host };
        if let Some(held) = self.0.get(&origin) {
            return Arc::clone(held);
        }
        if self.0.len() >= MOST {
            self.0.retain(|held| Arc::strong_count(held) > 1);
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let origin = Arc::new(origin);
        self.0.insert(Arc::clone(&origin));
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_and_floods_are_forgotten() {
        let mut origins = Origins::default();
        let share = |origins: &mut Origins, host: &str| {
            origins.share("dovecot".into(), Some(host.to_owned()))
        };
        let mx1 = share(&mut origins, "mx1");
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")));
        assert!(!Arc::ptr_eq(&mx1, &share(&mut origins, "mx2")));
        for number in 0..2 * MOST {
            share(&mut origins, &format!("flood{number}"));
            assert!(origins.0.len() <= MOST);
        }
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")), "one in use stays");
        let used: Vec<_> =
            (0..2 * MOST).map(|n| share(&mut origins, &format!("used{n}"))).collect();
        assert!(origins.0.len() <= MOST);
        assert_eq!(used[0].host.as_deref(), Some("used0"));
    }
}
