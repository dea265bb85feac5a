//! Misconfigurations of a running Postfix, one at a time: mail is tried, `doctor` says what is wrong,
//! its commands are carried out as printed, and mail is tried again.
//!
//! - **Promise**: every row is refused, or open to all, before, and relays for the client that has
//!   logged in, and for no other, afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::SystemTime;

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::postfix::{OWN_DOMAIN, Session};
use crate::support::site::{By, CLIENT, Findings, OTHER, Site};
use crate::support::{PATIENCE, eventually, within};

const RELAY: &str = "smtpd_relay_restrictions";
const RECIPIENT: &str = "smtpd_recipient_restrictions";
const USUAL: &str = "permit_mynetworks, CHECK, reject_unauth_destination";

/// The codes of Postfix's replies: to the client that has logged in and to another, each for a
/// recipient elsewhere, and to the other for a recipient of our own domain. 0: there is none.
type Replies = [u16; 3];

/// One misconfiguration.
struct Row {
    /// What the administrator has done, on a sound host.
    make: fn(&mut Rig),
    /// What clients get then.
    broken: Replies,
    /// The severity of the finding, and parts of it.
    finding: [&'static str; 3],
    /// A part of its commands.
    fix: &'static str,
    /// What clients get after the commands.
    mended: Replies,
}

/// A host whose configuration can be restored.
struct Rig {
    site: Site,
    files: [(&'static str, String); 2],
}

impl Rig {
    fn start() -> Self {
        let site = Site::start(By::Map, USUAL);
        // As on a real host, an smtpd serves many sessions. One for each service, which answers all:
        // another, started meanwhile, has read other files.
        let master = site.postfix.config().join("master.cf");
        let text = fs::read_to_string(&master).expect("master.cf");
        fs::write(&master, text.replace(" - smtpd -o max_use=1", " 1 smtpd")).expect("written");
        site.postfix.make_old("master.cf");
        site.log_in();
        let published = || fs::read_to_string(site.at("clients")).is_ok_and(|s| s.contains(CLIENT));
        eventually("it is published", PATIENCE, published);
        site.postfix.start();
        let files = ["main.cf", "master.cf"].map(|name| {
            (name, fs::read_to_string(site.postfix.config().join(name)).expect("a file"))
        });
        Self { site, files }
    }

    /// Makes the host sound again, from the next reload or start on.
    fn restore(&self) {
        for (name, text) in &self.files {
            fs::write(self.site.postfix.config().join(name), text).expect("written");
            self.site.postfix.make_old(name);
        }
    }

    /// Makes the host wrong, and mends it.
    fn try_out(&mut self, row: &Row) {
        let [level, what, why] = row.finding;
        self.restore();
        (row.make)(self);
        self.wait_for(row.broken, "before");
        // An smtpd that has just started may not have opened its tables.
        let found = self.wait_for_doctor(|findings| findings.has(level, what, why, row.fix));
        for finding in found.all().filter(|finding| finding["level"] == "problem") {
            self.site.carry_out(finding);
        }
        self.wait_for(row.mended, "afterwards");
        self.wait_for_doctor(|findings| findings.code == 0);
    }

    /// Runs `doctor` until its findings are as expected.
    fn wait_for_doctor(&self, expected: impl Fn(&Findings) -> bool) -> Findings {
        let mut findings = self.site.doctor(&[]);
        let as_expected = within(PATIENCE, || {
            let as_expected = expected(&findings);
            if !as_expected {
                findings = self.site.doctor(&[]);
            }
            as_expected
        });
        assert!(as_expected, "{:#}", findings.list);
        findings
    }

    /// Sets lists in main.cf, and reloads. `MAP` stands for the table, `PATH` for its path.
    fn lists(&self, lists: &[(&str, &str)]) {
        self.set(lists);
        self.postfix("reload");
    }

    fn set(&self, lists: &[(&str, &str)]) {
        let path = self.site.at("clients").display().to_string();
        for (name, value) in lists {
            let value = value.replace("MAP", &self.site.table()).replace("PATH", &path);
            self.site.set(name, &value);
        }
    }

    /// Gives every smtpd of master.cf an option.
    fn override_services(&self, option: &str) {
        let (name, text) = &self.files[1];
        let text = text.replace(" smtpd\n", &format!(" smtpd\n  -o {option}\n"));
        fs::write(self.site.postfix.config().join(name), text).expect("written");
        self.site.postfix.make_old(name);
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.site.daemon.as_mut().expect("it runs")
    }

    fn postfix(&self, action: &str) {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(self.site.postfix.config()).arg(action);
        let output = command.output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "postfix {action}: {said}");
    }

    /// A file that was edited a moment ago, after what runs has started.
    fn edited_now(&self, name: &str) {
        let file = self.site.postfix.config().join(name);
        let file = fs::OpenOptions::new().append(true).open(file).expect("a file");
        file.set_modified(SystemTime::now()).expect("a time");
    }

    /// Returns the replies of both smtpd services, which must agree.
    fn replies(&self) -> Option<Replies> {
        let elsewhere = "someone@elsewhere.example";
        let own = format!("someone@{OWN_DOMAIN}");
        let ask = |chrooted: bool, client: &str, recipient: &str| {
            let session = match chrooted {
                true => self.site.postfix.try_chrooted_session(client),
                false => self.site.postfix.try_session(client),
            };
            let ask = |mut session: Session| session.rcpt_within(PATIENCE / 2, recipient);
            session.and_then(ask).map_or(0, |reply| reply.code)
        };
        // One that does not start lets every client wait.
        if self.site.postfix.try_session(CLIENT).is_err() {
            return Some(SILENT);
        }
        let [plain, chrooted] = [false, true].map(|chrooted| {
            [(CLIENT, elsewhere), (OTHER, elsewhere), (OTHER, &own)]
                .map(|(client, recipient)| ask(chrooted, client, recipient))
        });
        (plain == chrooted).then_some(plain)
    }

    fn wait_for(&self, expected: Replies, when: &str) {
        let mut last = None;
        let as_expected = within(PATIENCE / 2, || {
            last = self.replies();
            last == Some(expected)
        });
        let log = self.site.postfix.log();
        assert!(as_expected, "{when}: {last:?}, not {expected:?}\n{log}");
    }
}

const DENIED: Replies = [554, 554, 250];
const DEFERRED: Replies = [454, 454, 250];
const CONFUSED: Replies = [451, 451, 451];
const OPEN: Replies = [250, 250, 250];
const GOOD: Replies = [250, 554, 250];
const GOOD_DEFERRING: Replies = [250, 454, 250];
/// Among others: without any working refusal in the two lists, smtpd does not start.
const SILENT: Replies = [0, 0, 0];

const ROWS: &[Row] = &[
    Row {
        make: |rig| rig.lists(&[(RELAY, "permit_mynetworks, reject_unauth_destination")]),
        broken: DENIED,
        finding: ["problem", "does not query pop-before-smtp", "Relay access denied"],
        fix: "check_client_access",
        mended: GOOD,
    },
    // Debian's own list.
    Row {
        make: |rig| {
            rig.lists(&[(
                RELAY,
                "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
            )]);
        },
        broken: DEFERRED,
        finding: ["problem", "does not query pop-before-smtp", "Relay access denied"],
        fix: ", defer_unauth_destination'",
        mended: GOOD_DEFERRING,
    },
    Row {
        make: |rig| {
            rig.lists(&[
                (RELAY, "permit_mynetworks, defer_unauth_destination"),
                (RECIPIENT, "check_client_access MAP, reject_unauth_destination"),
            ]);
        },
        broken: DEFERRED,
        finding: ["problem", "only smtpd_recipient_restrictions queries", "before Postfix 2.10"],
        fix: ", defer_unauth_destination'",
        mended: GOOD_DEFERRING,
    },
    Row {
        make: |rig| rig.lists(&[(RELAY, "reject_unauth_destination, check_client_access MAP")]),
        broken: DENIED,
        finding: ["problem", "too late: after `reject_unauth_destination`", "never reached"],
        fix: "check_client_access",
        mended: GOOD,
    },
    // Another type, which has no such file.
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "check_client_access lmdb:PATH, reject_unauth_destination")]);
        },
        broken: CONFUSED,
        finding: ["problem", "another type", "451"],
        fix: "check_client_access hash:",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "check_client_access MAP.typo, reject_unauth_destination")]);
        },
        broken: CONFUSED,
        finding: ["problem", "another path", "451"],
        fix: "check_client_access hash:",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[
                (RELAY, "reject_unauth_destination"),
                ("smtpd_client_restrictions", "check_client_access MAP"),
            ]);
        },
        broken: DENIED,
        finding: ["problem", "only smtpd_client_restrictions queries", "lets no one relay"],
        fix: "check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "check_recipient_access MAP, reject_unauth_destination")]);
        },
        broken: DENIED,
        finding: ["problem", "does not look up the client address", "Only check_client_access"],
        fix: "check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| rig.lists(&[(RECIPIENT, "permit_mynetworks, reject_unauth_destination")]),
        broken: DENIED,
        finding: ["problem", "smtpd_recipient_restrictions refuses clients", "both lists"],
        fix: "smtpd_recipient_restrictions = ",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[
                ("smtpd_restriction_classes", "pops"),
                ("pops", "reject, check_client_access MAP"),
                (RELAY, "permit_mynetworks, permit_auth_destination, pops"),
            ]);
        },
        broken: DENIED,
        finding: ["problem", "too late: after `reject`", "in order"],
        fix: "check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "check_client_access PATH, reject_unauth_destination")]);
        },
        broken: CONFUSED,
        finding: ["problem", "the table has no type", "451"],
        fix: "check_client_access hash:",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(
                RELAY,
                "permit_mynetwork, check_client_access MAP, reject_unauth_destination",
            )]);
        },
        broken: CONFUSED,
        finding: ["problem", "Postfix has no such restriction (it has permit_mynetworks)", "451"],
        fix: "= permit_mynetworks, check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| rig.lists(&[(RELAY, "pop_before_smtp, defer_unauth_destination")]),
        broken: CONFUSED,
        finding: ["problem", "`pop_before_smtp`: Postfix has no such restriction", "451"],
        fix: "= check_client_access",
        mended: GOOD_DEFERRING,
    },
    Row {
        make: |rig| rig.lists(&[("smtpd_sender_restrictions", "reject_unknown_sender_domains")]),
        broken: CONFUSED,
        finding: [
            "problem",
            "smtpd_sender_restrictions has `reject_unknown_sender_domains`",
            "451",
        ],
        fix: "reject_unknown_sender_domain'",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "permit, check_client_access MAP, reject_unauth_destination")]);
        },
        broken: SILENT,
        finding: ["problem", "accepts every client with `permit`", "open relay"],
        fix: "= check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "check_client_access MAP, permit, reject_unauth_destination")]);
        },
        broken: SILENT,
        finding: ["problem", "refuses no one after it queries", "open relay"],
        fix: "= check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.lists(&[(
                RELAY,
                "check_client_access MAP, warn_if_reject reject_unauth_destination",
            )]);
        },
        broken: SILENT,
        finding: ["problem", "refuses no one after it queries", "open relay"],
        fix: ", reject_unauth_destination'",
        mended: GOOD,
    },
    Row {
        make: |rig| rig.lists(&[(RELAY, "permit_mynetworks")]),
        broken: SILENT,
        finding: ["problem", "neither smtpd_relay_restrictions nor", "open relay"],
        fix: ", defer_unauth_destination'",
        mended: GOOD_DEFERRING,
    },
    Row {
        make: |rig| {
            rig.lists(&[("smtpd_client_restrictions", "permit_mynetworks, reject")]);
        },
        broken: [554, 554, 554],
        finding: ["problem", "smtpd_client_restrictions refuses every client", "before the lists"],
        fix: "smtpd_client_restrictions = permit_mynetworks, check_client_access",
        mended: [250, 554, 554],
    },
    // Two lists are wrong; the commands mend both.
    Row {
        make: |rig| {
            rig.lists(&[
                (RELAY, "reject_unauth_destination, check_client_access MAP"),
                (RECIPIENT, "nonsense, reject_unauth_destination"),
            ]);
        },
        broken: [554, 554, 451],
        finding: ["problem", "`nonsense`: Postfix has no such restriction", "451"],
        fix: "smtpd_recipient_restrictions = check_client_access",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.override_services(
                "smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination",
            );
            rig.postfix("reload");
        },
        broken: DENIED,
        finding: ["problem", "has its own restrictions in master.cf", "no other service queries"],
        fix: " -P '",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.set(&[("mynetworks", "127.0.0.0/8 0.0.0.0/0 192.0.2.255/32")]);
            rig.postfix("reload");
        },
        broken: OPEN,
        finding: ["problem", "mynetworks contains 0.0.0.0/0: anyone can relay", "open relay"],
        fix: "mynetworks = [::1]/128 127.0.0.0/8 192.0.2.255/32'",
        mended: GOOD,
    },
    // Edited, but not reloaded.
    Row {
        make: |rig| {
            rig.lists(&[(RELAY, "reject_unauth_destination")]);
            rig.wait_for(DENIED, "without our restriction");
            rig.site.finds("problem", "does not query", "", "");
            rig.set(&[(RELAY, "check_client_access MAP, reject_unauth_destination")]);
            rig.edited_now("main.cf");
        },
        broken: DENIED,
        finding: ["problem", "main.cf was changed after Postfix had read it", "still use"],
        fix: " reload",
        mended: GOOD,
    },
    Row {
        make: |rig| {
            rig.override_services("smtpd_relay_restrictions=reject_unauth_destination");
            rig.postfix("reload");
            rig.wait_for(DENIED, "without our restriction");
            rig.site.finds("problem", "has its own restrictions", "", "");
            let (name, text) = &rig.files[1];
            fs::write(rig.site.postfix.config().join(name), text).expect("written");
        },
        broken: DENIED,
        finding: ["problem", "master.cf was changed after Postfix had read it", "no effect yet"],
        fix: " reload",
        mended: GOOD,
    },
    // Postfix was started before the map was published for the first time.
    Row {
        make: |rig| {
            let files = ["clients", "clients.db"].map(|name| rig.site.at(name));
            let away = ["away", "away.db"].map(|name| rig.site.at(name));
            // It would publish a map that is missing again.
            rig.daemon().halt();
            rig.postfix("stop");
            for (file, away) in files.iter().zip(&away) {
                fs::rename(file, away).expect("renamed");
            }
            rig.postfix("start");
            rig.wait_for(CONFUSED, "without the map");
            for (file, away) in files.iter().zip(&away) {
                fs::rename(away, file).expect("renamed");
            }
            rig.daemon().signal(Signal::SIGCONT);
        },
        broken: CONFUSED,
        finding: ["problem", "have not opened", "451"],
        fix: " reload",
        mended: GOOD,
    },
    Row {
        make: |rig| rig.postfix("stop"),
        broken: SILENT,
        finding: ["problem", "Postfix is not running", "no mail"],
        fix: " start",
        mended: GOOD,
    },
];

fn each_is_found_and_mended(rows: &[Row]) {
    let mut rig = Rig::start();
    rig.wait_for(GOOD, "at first");
    rig.site.is_sound();
    let failed = rows.iter().filter_map(|row| {
        let done = catch_unwind(AssertUnwindSafe(|| rig.try_out(row)));
        done.err().map(|_| row.finding[1])
    });
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Side by side: most of their time they wait for Postfix.
#[test]
fn first_half() {
    each_is_found_and_mended(&ROWS[..ROWS.len() / 2]);
}

#[test]
fn second_half() {
    each_is_found_and_mended(&ROWS[ROWS.len() / 2..]);
}
