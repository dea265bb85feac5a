//! What arrives at a mail host among the logins.

/// Messages that are no login.
pub const NOISE: [&str; 9] = [
    "<22>Nov 22 07:31:23 mx1 postfix/smtpd[211]: connect from unknown[203.0.113.9]",
    "<22>Nov 22 07:31:23 mx1 postfix/smtpd[211]: disconnect from unknown[203.0.113.9] ehlo=1 quit=1 commands=2",
    "<22>Nov 22 07:31:23 mx1 postfix/qmgr[99]: 4XyZ1a2b3c: from=<ann@example.org>, size=2314, nrcpt=1 (queue active)",
    "<22>Nov 22 07:31:23 mx1 postfix/smtp[317]: 4XyZ1a2b3c: to=<bob@example.net>, relay=mx.example.net[198.51.100.9]:25, delay=0.4, dsn=2.0.0, status=sent (250 ok)",
    "<22>Nov 22 07:31:23 mx1 dovecot: imap-login: Disconnected (no auth attempts in 0 secs): user=<>, rip=203.0.113.9, lip=192.0.2.1, session=<x>",
    "<22>Nov 22 07:31:23 mx1 dovecot: imap(ann)<71><x>: Disconnected: Logged out in=93 out=713 deleted=0 expunged=0",
    "<22>Nov 22 07:31:23 mx1 amavis[71]: (00071-01) Passed CLEAN {RelayedInbound}, [203.0.113.9]:4711 <ann@example.org> -> <bob@example.net>",
    "<30>Nov 22 07:31:23 mx1 systemd[1]: Started Session 71 of User root.",
    "<86>Nov 22 07:31:23 mx1 sshd[4711]: Accepted publickey for root from 192.0.2.3 port 50000 ssh2",
];
