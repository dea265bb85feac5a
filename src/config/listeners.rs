//! The options that restrict senders and hosts, checked.

use nix::unistd::User;

use super::Config;
use super::options::Layer;
use super::values::Listen;
use crate::engine::message::hosts::Hosts;
use crate::error::{Failure, Failures};
use crate::sys::trusted_file::NOBODY;
use crate::sys::unix_socket::UnixSocket;

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

/// Returns warnings about settings that do not restrict what they seem to, or nothing.
pub fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    for listen in &config.listen {
        match listen {
            Listen::Udp(udp) if config.allow_uid.is_some() => remarks.push(format!(
                "allow-uid: `udp:{udp}` accepts every local user; only Unix sockets identify users"
            )),
            Listen::Unix(socket) if is_open(socket, config.allow_uid.as_deref()) => {
                remarks.push(format!(
                    "listen: with mode {:04o} every local user can write to `{}` and authorise any \
                     address; write mode=0660,group=NAME, or name the sender's user in allow-uid",
                    socket.mode.0,
                    socket.path.display()
                ));
            }
            _ => {}
        }
    }
    for network in config.allow_from.iter().filter(|network| network.0.prefix_len() == 0) {
        remarks.push(format!(
            "allow-from: `{}` accepts UDP frames of every host, and whoever can send one can \
             authorise any address; name the hosts that forward logs",
            network.0
        ));
    }
    remarks
}

fn is_open(socket: &UnixSocket, users: Option<&[u32]>) -> bool {
    socket.mode.0 & 0o002 != 0 && users.is_none()
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
    fn what_does_not_restrict_is_remarked() {
        let rows = [
            ("listen = ['unix:/run/a', 'udp:127.0.0.1:5514']", None),
            ("listen = ['unix:/run/a']\nallow-uid = ['0']", None),
            (
                "listen = ['unix:/run/a', 'udp:127.0.0.1:5514']\nallow-uid = ['0']",
                Some("allow-uid"),
            ),
            ("listen = ['unix:/run/a,mode=0666']", Some("mode 0666 every local user")),
            ("listen = ['unix:/run/a,mode=0666']\nallow-uid = ['0']", None),
            ("listen = ['udp:127.0.0.1:5514']\nallow-from = ['0.0.0.0/0']", Some("`0.0.0.0/0`")),
            (
                "listen = ['udp:127.0.0.1:5514']\nallow-from = ['::/0', '192.0.2.0/24']",
                Some("::/0"),
            ),
            ("listen = ['unix:/run/a']\nexclude = ['none']", Some("exclude: with `none`")),
        ];
        for (text, expected) in rows {
            let layer = Layer::from_toml(&format!("{text}\ndry-run = true")).expect(text);
            let remarks = Config::from_layer(&layer, &[]).expect(text).remarks();
            assert_eq!(remarks.len(), usize::from(expected.is_some()), "{text}: {remarks:?}");
            let said = remarks.concat();
            assert!(expected.is_none_or(|part| said.contains(part)), "{text}: {said}");
        }
    }
}
