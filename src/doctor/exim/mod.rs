//! Examines Exim: whether it asks pop-before-smtp before it refuses to relay, and whether it can.
//!
//! - **Source**: `exim -bP config` and `exim -be`, as Exim itself reads its configuration.
//! - **Layers**: [`acls`] reads the ACLs; here is what is wrong with them.

mod acls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::process::Command;

use super::channels::{Channel, is_same};
use super::findings::Report;
use super::host::{Host, service};
use super::map::describe;
use super::permissions::{Obstacle, Permission, UserAccount};
use super::sockets;
use crate::config::values::Serve;
use crate::sys::child;
use crate::sys::child::ChildError;
use crate::sys::programs;
use acls::{AclStep, Acls};

/// Exim answers in a few milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// What programs call to send mail; it belongs to the mail server of the host.
const SENDMAIL: &str = "/usr/sbin/sendmail";

/// The Exim of this host.
#[derive(Debug)]
pub struct Exim {
    program: PathBuf,
    /// Whether it, and not Postfix, is the mail server.
    pub is_mail_server: bool,
}

/// What doctor compares Exim with.
pub struct Surroundings<'a> {
    /// The host.
    pub host: &'a Host,
    /// How the daemon answers, or would answer.
    pub channels: &'a [Channel],
    /// Whether the daemon is running.
    pub runs: bool,
}

impl Exim {
    /// Finds it.
    pub fn find() -> Option<Self> {
        let program = programs::find("exim4").or_else(|| programs::find("exim"))?;
        let sendmail = std::fs::canonicalize(SENDMAIL).unwrap_or_default();
        let is_mail_server = programs::find("postconf").is_none() || is_exim(&sendmail);
        Some(Self { program, is_mail_server })
    }

    /// Examines it. If Postfix is the mail server, only what concerns pop-before-smtp already.
    pub async fn examine(&self, around: &Surroundings<'_>, report: &mut Report) {
        let config = match self.ask(&["-bP", "config"]).await {
            Ok(config) => config,
            Err(error) => {
                if self.is_mail_server {
                    report.problem(
                        format!("cannot read Exim's configuration: {error}"),
                        "Whether Exim asks pop-before-smtp could not be examined.",
                        format!("{} -bV", self.program.display()),
                    );
                }
                return;
            }
        };
        let acls = Acls::read(&config);
        if !self.is_mail_server && acls.sockets().is_empty() {
            return;
        }
        let policy = around.channels.iter().filter(|channel| matches!(channel, Channel::Policy(_)));
        let policy: Vec<&Channel> = policy.collect();
        if policy.is_empty() {
            report.problem(
                "there is no policy socket, which Exim could ask",
                "Exim reads neither the map nor the socketmap.",
                format!("set policy as {} says", around.host.shipped("exim/README.md")),
            );
        }
        for channel in policy {
            let Some(serve) = channel.serve() else { continue };
            report_order(&acls, serve, around.host, report);
            if !around.host.is_root {
                continue;
            }
            if let Serve::Unix(socket) = serve {
                self.check_access(&socket.path, report).await;
            }
            if around.runs {
                sockets::report_answer(channel, sockets::ask_policy(serve), "Exim", report);
            }
        }
    }

    /// Checks that Exim's user may connect to the socket.
    async fn check_access(&self, socket: &Path, report: &mut Report) {
        let Some(user) = self.user().await else { return };
        let place = socket.display();
        match user.obstacle(Path::new("/"), socket, Permission::Write) {
            None => report.ok(format!("{} can connect to {place}", user.name)),
            Some(Obstacle::Unseen(path, error)) if error.kind() == std::io::ErrorKind::NotFound => {
                report.problem(
                    format!("{} does not exist", path.display()),
                    "The daemon or systemd creates it. Until then Exim answers 451 to recipients elsewhere.",
                    if service::is_loaded() {
                        "systemctl restart pop-before-smtp-policy.socket".to_owned()
                    } else {
                        service::start()
                    },
                );
            }
            Some(obstacle) => report.problem(
                format!("{} cannot connect to {place}: {}", user.name, describe(&obstacle)),
                "Exim gets `Permission denied`, and answers 451 to recipients elsewhere.",
                match &obstacle {
                    Obstacle::Closed(directory, Permission::Pass) => {
                        format!("chgrp {0} {1} && chmod g+x {1}", user.name, directory.display())
                    }
                    _ => format!(
                        "with systemd: SocketGroup={0} in pop-before-smtp-policy.socket; otherwise \
                         config.toml: policy = \"unix:{place},group={0}\", and usermod -aG {0} \
                         pop-before-smtp; then restart the daemon",
                        user.name
                    ),
                },
            ),
        }
    }

    /// Returns the user as whom Exim receives mail.
    async fn user(&self) -> Option<UserAccount> {
        let number = self.ask(&["-be", "$exim_uid"]).await.ok()?;
        let uid = Uid::from_raw(number.trim().parse().ok()?);
        UserAccount::named(&User::from_uid(uid).ok()??.name)
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String, ChildError> {
        child::run(Command::new(&self.program).args(arguments), LIMIT).await
    }
}

/// Returns whether the resolved path of sendmail is Exim, or its own name for it.
fn is_exim(sendmail: &Path) -> bool {
    let name = sendmail.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("exim") || name == "sendmail.exim"
}

/// Reports whether Exim asks at the socket before it refuses recipients in other domains.
fn report_order(acls: &Acls, serve: &Serve, host: &Host, report: &mut Report) {
    let steps = acls.steps();
    let is_ours =
        |step: &AclStep| matches!(step, AclStep::Asks(socket) if is_socket(socket, serve));
    let guide = || format!("see {}", host.shipped("exim/README.md"));
    let name = acls.rcpt.as_deref().unwrap_or_default();
    let refusal = steps.iter().find_map(|step| match step {
        AclStep::Refuses(by) => Some(by),
        AclStep::Asks(_) => None,
    });
    let first = steps.iter().find(|step| is_ours(step) || matches!(step, AclStep::Refuses(_)));
    if first.is_some_and(is_ours) {
        report.ok(format!("Exim asks {serve} in {name}, before it refuses to relay"));
    } else if let Some(by) = refusal.filter(|_| steps.iter().any(is_ours)) {
        report.problem(
            format!("Exim asks pop-before-smtp too late: after `{by}`"),
            "Exim follows an ACL in order, and this refuses every recipient in another domain.",
            format!("in {name}, move what asks before it; {}", guide()),
        );
    } else if let Some(other) = acls.sockets().iter().find(|socket| !is_socket(socket, serve)) {
        report.problem(
            format!("Exim asks at {other}, where the daemon does not answer"),
            format!("The daemon answers at {serve}. Until then Exim answers 451 to recipients elsewhere."),
            format!("in the ACL, after readsocket: {{{}}}", named(serve)),
        );
    } else if !acls.sockets().is_empty() {
        report.problem(
            format!("Exim asks pop-before-smtp in an ACL that acl_smtp_rcpt = {name} does not use"),
            "No login lets its client relay.",
            guide(),
        );
    } else if acls.rcpt.is_some() && !acls.is_known() {
        report.note(
            format!("Exim chooses its ACL for each recipient: acl_smtp_rcpt = {name}"),
            "Whether it asks pop-before-smtp could not be examined.",
            guide(),
        );
    } else {
        let list = acls.rcpt.as_ref().map_or("there is no acl_smtp_rcpt".into(), |name| {
            format!("the ACL {name} has no ${{readsocket{{{}}}...}}", named(serve))
        });
        report.problem(
            "Exim does not ask pop-before-smtp",
            format!("{list}. No login lets its client relay."),
            guide(),
        );
    }
}

/// Returns the socket as `readsocket` names it.
fn named(serve: &Serve) -> String {
    match serve {
        Serve::Unix(socket) => socket.path.display().to_string(),
        Serve::Inet(_) => serve.to_string(),
    }
}

/// Returns whether `readsocket` connects to this socket under that name.
fn is_socket(name: &str, serve: &Serve) -> bool {
    match serve {
        Serve::Unix(socket) => is_same(Path::new(name), &socket.path),
        Serve::Inet(address) => {
            name.starts_with("inet:") && name.ends_with(&format!(":{}", address.port()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sendmail_tells_the_mail_server() {
        for (path, expected) in [
            ("/usr/sbin/exim4", true),
            ("/usr/sbin/exim", true),
            ("/usr/sbin/sendmail.exim", true),
            ("/usr/sbin/sendmail", false),
            ("/usr/sbin/sendmail.postfix", false),
            ("", false),
        ] {
            assert_eq!(is_exim(Path::new(path)), expected, "{path}");
        }
    }
}
