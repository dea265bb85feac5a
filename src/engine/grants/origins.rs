//! Where logins come from: a mail daemon and the host that logged the login, kept once for all the
//! addresses that share them.
//!
//! - **Limits**: at most `MAX_ORIGINS` at a time. Host names are foreign text: when there are more,
//!   unused ones are forgotten, and if that is not enough, all. An address keeps its own.

use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::maildaemons::Name;

/// Most origins; a site has a few hosts with a few mail daemons each.
const MAX_ORIGINS: usize = 1024;

/// The origin of a login.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The mail daemon.
    pub daemon: Name,
    /// The host that logged it, if the frame named one.
    pub host: Option<String>,
}

/// The known origins.
#[derive(Debug, Default)]
pub struct Origins {
    held: HashSet<Arc<Origin>>,
    /// The next login most often has the same origin.
    last: Option<Arc<Origin>>,
}

impl Origins {
    /// Returns the shared copy of an origin.
    pub fn share(&mut self, daemon: &str, host: Option<&str>) -> Arc<Origin> {
        let is_same = |last: &&Arc<Origin>| *last.daemon == *daemon && last.host.as_deref() == host;
        if let Some(last) = self.last.as_ref().filter(is_same) {
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
        if self.held.len() >= MAX_ORIGINS {
            self.held.retain(|held| Arc::strong_count(held) > 1);
        }
        if self.held.len() >= MAX_ORIGINS {
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
    fn origins_are_shared_and_bounded() {
        let mut origins = Origins::default();
        let share = |origins: &mut Origins, host: &str| origins.share("dovecot", Some(host));
        let mx1 = share(&mut origins, "mx1");
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")));
        assert!(!Arc::ptr_eq(&mx1, &share(&mut origins, "mx2")));
        for number in 0..2 * MAX_ORIGINS {
            share(&mut origins, &format!("flood{number}"));
            assert!(origins.held.len() <= MAX_ORIGINS);
        }
        assert!(Arc::ptr_eq(&mx1, &share(&mut origins, "mx1")), "an origin in use stays");
        let used: Vec<_> =
            (0..2 * MAX_ORIGINS).map(|n| share(&mut origins, &format!("used{n}"))).collect();
        assert!(origins.held.len() <= MAX_ORIGINS);
        assert_eq!(used[0].host.as_deref(), Some("used0"));
    }
}
