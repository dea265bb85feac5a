//! Examples at the end of each command's `--help`.
//!
//! - **Promise**: the commands accept them; tests/command/commands.rs tries.

pub(super) const RUN: &str = "\
Examples:
  pop-before-smtp run
  pop-before-smtp run --listen udp:127.0.0.1:5514 --policy inet:127.0.0.1:10031
  pop-before-smtp run --dry-run --listen unix:/tmp/log.sock";

pub(super) const TEST: &str = "\
Examples:
  pop-before-smtp test /var/log/mail.log
  journalctl -u dovecot | pop-before-smtp test --summary
  zcat /var/log/mail.log.2.gz | pop-before-smtp test --only login";

pub(super) const CHECK: &str = "\
Examples:
  pop-before-smtp check
  pop-before-smtp check --config /root/new.toml";

pub(super) const DAEMONS: &str = "\
Examples:
  pop-before-smtp daemons
  pop-before-smtp daemons dovecot > /etc/pop-before-smtp/daemons/own.toml";

pub(super) const LIST: &str = "\
Examples:
  pop-before-smtp list
  pop-before-smtp list --watch
  pop-before-smtp list --blocked";

pub(super) const QUERY: &str = "\
Examples:
  pop-before-smtp query 192.0.2.7";

pub(super) const ALLOW: &str = "\
Examples:
  pop-before-smtp allow 192.0.2.7 --for 2h --note \"scanner, until it is repaired\"
  pop-before-smtp allow 2001:db8::7";

pub(super) const REVOKE: &str = "\
Examples:
  pop-before-smtp revoke 192.0.2.7
  pop-before-smtp revoke 192.0.2.7 --block 1h";

pub(super) const STATUS: &str = "\
Examples:
  pop-before-smtp status
  pop-before-smtp status --check";

pub(super) const WATCH: &str = "\
Examples:
  pop-before-smtp watch
  pop-before-smtp watch --initial | jq .address";

pub(super) const DOCTOR: &str = "\
Examples:
  pop-before-smtp doctor
  pop-before-smtp doctor --config /root/new.toml";
