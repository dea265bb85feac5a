//! A grant as the set stores it: small, because there may be millions.
//!
//! - **Promise**: nothing is lost: a grant that is stored and taken out again is the same. What few
//!   grants have, several users or a grant by the operator, is stored apart.
//! - **Limits**: `SIZE` bytes, and the name of a user if it is longer than 23 bytes. Logins are
//!   counted up to `u32::MAX`.

use std::mem;
use std::net::{IpAddr, Ipv6Addr};

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::GrantRequest;
use super::grant::{Grant, GrantedBy, ManualGrant, User};
use crate::engine::time::Time;

/// Bytes of a stored grant.
const SIZE: usize = 72;
const _: () = assert!(mem::size_of::<Option<StoredGrant>>() == SIZE);

/// The grant of one address.
#[derive(Clone, Debug)]
pub struct StoredGrant {
    /// IPv4 addresses are mapped: one type without a tag is smaller.
    address: Ipv6Addr,
    since: Time,
    until: Time,
    by: GrantedBy,
    rest: Rest,
    logins: u32,
    /// Tells grants with the same deadline apart: the lower one got it earlier.
    pub(super) order: u32,
}

/// What else belongs to a grant.
#[derive(Clone, Debug)]
enum Rest {
    /// Its deadline is that of the logins and of the user.
    Usual(Option<SmolStr>),
    /// Anything else.
    Unusual(Box<Unusual>),
}

#[derive(Clone, Debug)]
struct Unusual {
    by_login: Option<Time>,
    manual: Option<Box<ManualGrant>>,
    shared: bool,
    users: SmallVec<[User; 1]>,
}

/// Returns an address as a grant stores it.
pub(super) fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

impl StoredGrant {
    /// Returns the client, canonical.
    pub fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    pub(super) fn key(&self) -> Ipv6Addr {
        self.address
    }

    /// Returns since when the address has been authorised without interruption.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Returns when the grant ends.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Returns the user, if it is known, of a grant that ends with the last login of one user;
    /// `None`: it is another one.
    pub fn only_user(&self) -> Option<Option<&str>> {
        match &self.rest {
            Rest::Usual(user) => Some(user.as_deref()),
            Rest::Unusual(_) => None,
        }
    }

    /// Returns whether too many users share the address.
    pub fn is_shared(&self) -> bool {
        matches!(&self.rest, Rest::Unusual(unusual) if unusual.shared)
    }

    /// Returns whether the address may relay at a moment.
    pub fn lasts(&self, now: Time) -> bool {
        now < self.until && !self.is_shared()
    }

    /// Renews a usual grant by a login of the same user, or returns `false`. The later deadline wins.
    pub(super) fn renew(&mut self, request: &GrantRequest, now: Time) -> bool {
        let Rest::Usual(user) = &self.rest else { return false };
        let same = request.by != GrantedBy::Operator && request.user.as_deref() == user.as_deref();
        // An expired grant is not renewed.
        if !same || self.until <= now {
            return false;
        }
        self.until = self.until.max(now + request.span);
        self.by.clone_from(&request.by);
        self.logins = self.logins.saturating_add(1);
        true
    }

    /// Forgets the users.
    pub(super) fn forget_users(&mut self) {
        match &mut self.rest {
            Rest::Usual(user) => *user = None,
            Rest::Unusual(unusual) => unusual.users.clear(),
        }
    }

    /// Returns the grant.
    pub fn grant(&self) -> Grant {
        self.clone().into()
    }
}

impl From<Grant> for StoredGrant {
    fn from(grant: Grant) -> Self {
        let Grant { address, by, since, until, logins, by_login, manual, shared, users } = grant;
        let is_usual = by_login == Some(until)
            && manual.is_none()
            && !shared
            && users.len() <= 1
            && users.iter().all(|user| user.until == until && !user.refused);
        let rest = if is_usual {
            Rest::Usual(users.into_iter().next().map(|user| user.name))
        } else {
            Rest::Unusual(Box::new(Unusual { by_login, manual, shared, users }))
        };
        Self { address: mapped(address), since, until, by, rest, logins, order: 0 }
    }
}

impl From<StoredGrant> for Grant {
    fn from(stored: StoredGrant) -> Self {
        let StoredGrant { address, since, until, by, rest, logins, order: _ } = stored;
        let address = address.to_canonical();
        match rest {
            Rest::Usual(name) => Self {
                address,
                by,
                since,
                until,
                logins,
                by_login: Some(until),
                manual: None,
                shared: false,
                users: name.into_iter().map(|name| User { name, until, refused: false }).collect(),
            },
            Rest::Unusual(unusual) => {
                let Unusual { by_login, manual, shared, users } = *unusual;
                Self { address, by, since, until, logins, by_login, manual, shared, users }
            }
        }
    }
}
