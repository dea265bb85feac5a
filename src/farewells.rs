//! What is said of addresses that are no longer authorised.
//!
//! Promise  each has its line, but for those that had to make room: a flood of logins would have a
//!          line for each, so their number is said, seldom.

use tracing::{debug, info, warn};

use crate::engine::{Gone, WhyGone};
use crate::seldom::Seldom;

/// What has been said lately.
#[derive(Debug, Default)]
pub struct Farewells {
    evictions: Seldom,
}

impl Farewells {
    /// Says who has left. To be called now and then even if nobody has: what was held back may be
    /// due.
    pub fn say(&self, gone: &[Gone]) {
        let mut evicted = 0;
        for Gone { grant, why } in gone {
            let (address, logins, users) = (grant.address, grant.logins, grant.users.len());
            if *why == WhyGone::Evicted {
                evicted += 1;
                debug!(%address, logins, users, "{}", why.as_str());
            } else {
                info!(%address, logins, users, "{}", why.as_str());
            }
        }
        if let Some(evicted) = self.evictions.happened(evicted) {
            warn!(
                evicted,
                "max-clients is reached: the addresses that would have ended first made room"
            );
        }
    }
}
