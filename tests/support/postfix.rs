//! A private Postfix with its own configuration, queue and data, and one smtpd in a chroot and one
//! not.
//!
//! - **Promise**: a client can have any address, by XCLIENT; accepted mail goes to `discard:`. The
//!   instance ends with the test, by the process id of its master.
//! - **Not here**: delivery, port 25, changes to /etc/postfix (read for the list of loadable
//!   tables).

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::wire::Port;
use super::{PATIENCE, directory, need, within};

/// The domain of the instance: mail to it needs no authorisation.
pub const OWN_DOMAIN: &str = "rig.test";

/// A reply of smtpd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The rest; lines are joined by a blank.
    pub text: String,
}

/// A Postfix instance, configured and possibly running.
pub struct Postfix {
    dir: TempDir,
    plain: Port,
    chrooted: Port,
}

impl Postfix {
    /// Configures an instance with these `smtpd_relay_restrictions`; `postmap` and `postconf`
    /// can already be used with [`Postfix::config`].
    pub fn configure(relay_restrictions: &str) -> Self {
        need("postfix", "postfix");
        let postfix = Self { dir: directory(), plain: Port::claim(), chrooted: Port::claim() };
        let at = |name: &str| postfix.dir.path().join(name);
        for name in ["etc", "queue", "data"] {
            fs::create_dir(at(name)).unwrap();
        }
        let owner = nix::unistd::User::from_name("postfix").ok().flatten();
        let owner = owner.expect("the package postfix makes a user postfix");
        std::os::unix::fs::chown(at("data"), Some(owner.uid.as_raw()), None).unwrap();
        postfix.add("main.cf", &main_cf(postfix.dir.path(), relay_restrictions));
        let [plain, chrooted] = [postfix.plain.number(), postfix.chrooted.number()];
        postfix.add("master.cf", &master_cf(plain, chrooted));
        postfix
    }

    /// Adds lines to a file of its configuration, before it is started.
    pub fn add(&self, file: &str, lines: &str) {
        let mut options = OpenOptions::new();
        let mut opened = options.create(true).append(true).open(self.config().join(file)).unwrap();
        opened.write_all(lines.as_bytes()).unwrap();
        self.make_old(file);
    }

    /// Sets a parameter in main.cf, and replaces its line: every Postfix program logs a warning
    /// about each overridden line, and postlogd blocks itself after ten (net.unix.max_dgram_qlen).
    pub fn set(&self, name: &str, value: &str) {
        let mut postconf = Command::new("postconf");
        postconf.arg("-c").arg(self.config()).arg("-e").arg(format!("{name} = {value}"));
        let done = postconf.output().expect("postconf can be started");
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        self.make_old("main.cf");
    }

    /// Backdates a changed configuration file: Postfix programs read one that is younger than a
    /// second again and again.
    pub fn make_old(&self, file: &str) {
        let file = OpenOptions::new().append(true).open(self.config().join(file)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    /// Starts it. Every table that the restrictions name must exist: an smtpd that does not find
    /// one answers 451 until it exits.
    pub fn start(&self) {
        let run = Command::new("postfix").arg("-c").arg(self.config()).arg("start").output();
        let run = run.expect("postfix can be started");
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "postfix start: {errors}\n{}", self.log());
        let up = within(PATIENCE, || {
            [&self.plain, &self.chrooted]
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", port.number())).is_ok())
        });
        assert!(up && self.master().is_some(), "postfix does not listen\n{}", self.log());
    }

    /// Returns the configuration directory, as for `postmap -c`.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    /// Returns the queue directory: the base of relative socket names, and the chroot.
    pub fn queue(&self) -> PathBuf {
        self.dir.path().join("queue")
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("maillog")).unwrap_or_default()
    }

    /// Sends one RCPT in a session of its own, as if from `client`.
    pub fn rcpt(&self, client: &str, recipient: &str) -> Reply {
        self.session(client).rcpt(recipient)
    }

    /// Returns the code of one RCPT to another domain: 250 if `client` may relay, 554 if not.
    pub fn relay(&self, client: &str) -> u16 {
        self.rcpt(client, "someone@elsewhere.example").code
    }

    /// Opens a session with the plain smtpd, as if from `client`.
    pub fn session(&self, client: &str) -> Session {
        Session::open(&self.plain, client)
    }

    /// Opens a session with the smtpd in the chroot, as if from `client`.
    pub fn chrooted_session(&self, client: &str) -> Session {
        Session::open(&self.chrooted, client)
    }

    /// The same, or the error if Postfix does not answer within a few seconds.
    pub fn try_session(&self, client: &str) -> io::Result<Session> {
        Session::try_open(&self.plain, client, PATIENCE / 10)
    }

    /// The same with the smtpd in the chroot.
    pub fn try_chrooted_session(&self, client: &str) -> io::Result<Session> {
        Session::try_open(&self.chrooted, client, PATIENCE / 10)
    }

    /// Returns the master's process id, if this instance is running.
    fn master(&self) -> Option<Pid> {
        let id =
            fs::read_to_string(self.queue().join("pid/master.pid")).ok()?.trim().parse().ok()?;
        let home = fs::read_link(format!("/proc/{id}/cwd")).ok()?;
        (home == self.queue().canonicalize().ok()?).then_some(Pid::from_raw(id))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let Some(master) = self.master() else { return };
            let _ = kill(master, signal);
            within(PATIENCE, || self.master().is_none());
        }
    }
}

/// An open SMTP session.
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Opens one at this port of the instance, as if from `client`.
    pub fn open(port: &Port, client: &str) -> Self {
        Self::try_open(port, client, 3 * PATIENCE).expect("postfix answers")
    }

    fn try_open(port: &Port, client: &str, limit: Duration) -> io::Result<Self> {
        let client: IpAddr = client.parse().expect("an address");
        let family = if client.is_ipv6() { "IPV6:" } else { "" };
        let stream = TcpStream::connect(("127.0.0.1", port.number()))?;
        let mut session = Self::over(stream, limit)?;
        session.must(&format!("XCLIENT NAME=[UNAVAILABLE] ADDR={family}{client}"), 220);
        session.must("EHLO client.test", 250);
        Ok(session)
    }

    /// Opens one over a connection, with this limit for each reply.
    pub fn over(stream: TcpStream, limit: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(limit))?;
        let mut session = Self { stream: BufReader::new(stream) };
        assert_eq!(session.try_reply()?.code, 220, "the greeting");
        session.must("EHLO client.test", 250);
        Ok(session)
    }

    /// Greets again, with this name.
    pub fn greet(&mut self, name: &str) {
        self.must(&format!("EHLO {name}"), 250);
    }

    /// Continues as if this user had authenticated.
    pub fn log_in(&mut self, user: &str) {
        self.must(&format!("XCLIENT LOGIN={user}"), 220);
        self.must("EHLO client.test", 250);
    }

    /// Sends one RCPT in a transaction of its own; the session stays open.
    pub fn rcpt(&mut self, recipient: &str) -> Reply {
        self.rcpt_from(&format!("user@{OWN_DOMAIN}"), recipient)
    }

    /// Sends one RCPT likewise, but fails if no reply comes in time.
    pub fn rcpt_within(&mut self, limit: Duration, recipient: &str) -> io::Result<Reply> {
        self.begin(&format!("user@{OWN_DOMAIN}"));
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        self.send(&format!("RCPT TO:<{recipient}>"));
        self.try_reply()
    }

    /// Sends one RCPT with an envelope sender.
    pub fn rcpt_from(&mut self, sender: &str, recipient: &str) -> Reply {
        self.begin(sender);
        self.add(recipient)
    }

    /// Begins a transaction.
    pub fn begin(&mut self, sender: &str) {
        self.must("RSET", 250);
        self.must(&format!("MAIL FROM:<{sender}>"), 250);
    }

    /// Names a recipient of the transaction.
    pub fn add(&mut self, recipient: &str) -> Reply {
        self.command(&format!("RCPT TO:<{recipient}>"))
    }

    /// Names a recipient of the transaction, with an original recipient (RFC 3461 section 4.2).
    pub fn add_for(&mut self, recipient: &str, original: &str) -> Reply {
        self.command(&format!("RCPT TO:<{recipient}> ORCPT=rfc822;{original}"))
    }

    /// Sends a text to the recipients of the transaction.
    pub fn finish(&mut self) -> Reply {
        self.must("DATA", 354);
        self.command("Subject: test\r\n\r\ntest\r\n.")
    }

    fn must(&mut self, command: &str, code: u16) {
        let reply = self.command(command);
        assert_eq!(reply.code, code, "{command}: {}", reply.text);
    }

    fn command(&mut self, command: &str) -> Reply {
        self.send(command);
        self.reply()
    }

    fn send(&mut self, command: &str) {
        // In one write: the rest of a line would wait for the peer's delayed acknowledgement.
        let line = format!("{command}\r\n");
        self.stream.get_mut().write_all(line.as_bytes()).expect("smtpd listens");
    }

    fn reply(&mut self) -> Reply {
        self.try_reply().expect("smtpd answers")
    }

    fn try_reply(&mut self) -> io::Result<Reply> {
        let mut text = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (code, rest) = line.split_at_checked(4).expect("smtpd answers in lines");
            text.push(rest.trim_end().to_owned());
            if !code.ends_with('-') {
                let code = code.trim_end().parse().expect("a reply begins with its code");
                return Ok(Reply { code, text: text.join(" ") });
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.stream.get_mut().write_all(b"QUIT\r\n");
    }
}

fn main_cf(dir: &Path, relay_restrictions: &str) -> String {
    let dir = dir.display();
    format!(
        "compatibility_level = 3.6
# If an smtpd fails on a half-written configuration, the next one starts soon.
service_throttle_time = 1s
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file_prefixes = {dir}
maillog_file = {dir}/maillog
myhostname = mail.{OWN_DOMAIN}
mydestination = {OWN_DOMAIN}
# No client of a test has this address.
mynetworks = 192.0.2.255/32
inet_interfaces = 127.0.0.1
inet_protocols = all
alias_maps =
alias_database =
local_recipient_maps =
default_transport = discard:
local_transport = discard:
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_client_connection_count_limit = 0
# A session with many refusals stays open and fast.
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
# Transactions end after RCPT: they must not be delayed as if the queue were growing.
in_flow_delay = 0
smtpd_relay_restrictions = {relay_restrictions}
smtpd_recipient_restrictions =
"
    )
}

fn master_cf(plain: u16, chrooted: u16) -> String {
    format!(
        "127.0.0.1:{plain} inet n - n - - smtpd
127.0.0.1:{chrooted} inet n - y - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"
    )
}
