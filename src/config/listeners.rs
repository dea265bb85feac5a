//! The options that restrict senders and hosts, checked.

use nix::unistd::User;

use super::layer::Layer;
use super::values::Listen;
use crate::engine::message::hosts::Hosts;
use crate::error::{Failure, Failures};
use crate::sys::trusted_file::NOBODY;

/// Returns the users whose processes may send over Unix sockets; `None` accepts all.
pub fn users(layer: &Layer, faults: &mut Failures) -> Option<Vec<u32>> {
    let names = layer.allow_uid.as_ref()?;
    let mut users = Vec::new();
    for name in names {
        match user(name) {
            Ok(uid) => users.push(uid),
            Err(failure) => faults.push(failure),
        }
    }
    if names.is_empty() {
        let what = "allow-uid: the list is empty, so no frame would be accepted";
        faults
            .push(Failure::config(what).hint("name the user of your syslog daemon: root, syslog"));
    }
    Some(users)
}

fn user(name: &str) -> Result<u32, Failure> {
    let uid = match name.parse() {
        Ok(uid) => uid,
        Err(_) => {
            let found = User::from_name(name).map_err(|error| {
                Failure::config(format!("allow-uid: cannot look up the user `{name}`: {error}"))
            })?;
            let user = found.ok_or_else(|| {
                Failure::config(format!("allow-uid: there is no user `{name}`")).hint(
                    "`ps -eo user,comm` shows the user of your syslog daemon; a numeric id also \
                     works",
                )
            })?;
            user.uid.as_raw()
        }
    };
    if uid == NOBODY {
        let what = format!("allow-uid: the kernel uses `{name}` for all users that it cannot map");
        return Err(Failure::config(what).hint("run your syslog daemon as a user of its own"));
    }
    Ok(uid)
}

/// Returns the hosts whose messages are accepted.
pub fn hosts(layer: &Layer) -> Hosts {
    let names = layer.allow_host.as_ref();
    names
        .map_or(Hosts::All, |names| Hosts::Named(names.iter().map(|name| name.0.clone()).collect()))
}

/// Returns warnings about settings that do not restrict what they seem to.
pub fn remarks(listen: &[Listen], users: Option<&Vec<u32>>) -> Vec<String> {
    let udp = listen.iter().filter(|listen| matches!(listen, Listen::Udp(_)) && users.is_some());
    udp.map(|udp| {
        format!("allow-uid: `{udp}` accepts every local user; only Unix sockets identify users")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_number_and_name() {
        let rows = [
            ("", Ok(None)),
            ("allow-uid = ['0', '4711']", Ok(Some(vec![0, 4711]))),
            ("allow-uid = ['root']", Ok(Some(vec![0]))),
            ("allow-uid = []", Err("no frame would be accepted")),
            ("allow-uid = ['nobodys-user']", Err("no user `nobodys-user`")),
            ("allow-uid = ['65534']", Err("cannot map")),
            ("allow-uid = ['-1']", Err("no user `-1`")),
        ];
        for (text, expected) in rows {
            let mut faults = Vec::new();
            let users = users(&Layer::from_toml(text).expect(text), &mut faults);
            match expected {
                Ok(expected) => assert_eq!((users, faults.len()), (expected, 0), "{text}"),
                Err(part) => assert!(
                    faults.len() == 1 && faults[0].what().contains(part),
                    "{text}: {faults:?}"
                ),
            }
        }
    }

    #[test]
    fn allow_uid_does_not_restrict_udp() {
        let listen =
            ["unix:/run/a.sock", "udp:127.0.0.1:5514"].map(|text| text.parse().expect(text));
        assert_eq!(remarks(&listen, None).len(), 0);
        assert_eq!(remarks(&listen, Some(&vec![0])).len(), 1);
        assert_eq!(remarks(&listen[..1], Some(&vec![0])).len(), 0);
    }
}
