//! The service for OpenRC and the script for Slackware, installed as the guide says, with the real OpenRC
//! and the real daemon; the package of Arch Linux, as far as bash can show it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::systemd::files_below;
use crate::support::systemd::{Systemd, readme};
use crate::support::{PATIENCE, directory, eventually, within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OPENRC: &str = "<!-- openrc: tests/host/init_scripts.rs runs this -->";
const SLACKWARE: &str = "<!-- slackware: tests/host/init_scripts.rs runs this -->";

const ACCOUNT: &str = "useradd --system --user-group --home-dir /var/lib/pop-before-smtp \
                       --shell /usr/sbin/nologin pop-before-smtp";
/// What OpenRC does at boot.
const BOOTED_BY_OPENRC: &str = "mkdir -p /run/openrc/{exclusive,starting,started,stopping,inactive,\
                                wasinactive,failed,hotplugged,daemons,options,tmp,scheduled}; \
                                touch /run/openrc/softlevel";

/// Starts a Debian with OpenRC beside systemd, the program, its example configuration, and deploy/ in
/// /src.
fn host() -> Systemd {
    let root = Path::new(ROOT);
    let mut files: Vec<_> =
        files_below("deploy").iter().map(|path| (format!("src/{path}"), root.join(path))).collect();
    let program = env!("CARGO_BIN_EXE_pop-before-smtp").into();
    files.push(("usr/local/bin/pop-before-smtp".to_owned(), program));
    files.push(("etc/pop-before-smtp/config.toml".to_owned(), root.join("deploy/example.toml")));
    let files: Vec<_> = files.iter().map(|(path, source)| (&**path, &**source)).collect();
    let host = Systemd::start_debian_with(&files, "openrc");
    host.must(ACCOUNT);
    host
}

fn map(host: &Systemd) -> String {
    host.must("grep -v generation /var/lib/pop-before-smtp/clients || true")
}

/// Reloads, restarts and stops the service, which has been started, by these commands.
fn control(host: &Systemd, script: &str, log: &str) {
    let run = |what: &str| host.run(&format!("{script} {what}"));
    let must = |what: &str| {
        let output = run(what);
        assert!(output.status.success(), "{script} {what}: {output:?}\n{}", host.journal());
    };
    must("status");
    let process = "grep -lx pop-before-smtp /proc/[0-9]*/comm | cut -d / -f 3";
    let user = format!("stat -c %U /proc/$({process})");
    assert_eq!(host.must(&user), "pop-before-smtp");
    host.must("pop-before-smtp allow 192.0.2.7");
    eventually("it is published", PATIENCE, || map(host) == "192.0.2.7 OK");
    must("reload");
    let is_reloaded =
        || host.run(&format!("{log} | grep 'configuration reloaded'")).status.success();
    assert!(within(PATIENCE, is_reloaded), "{script} reload: {}", host.must(log));
    let old = host.must(process);
    must("restart");
    assert_ne!(host.must(process), old);
    host.must("pop-before-smtp query 192.0.2.7");
    must("stop");
    assert_eq!(map(host), "");
    assert_eq!(host.must(&format!("{process}; rm -r /run/pop-before-smtp")), "");
    assert!(!run("status").status.success());
    // With an error in the configuration it does not start.
    let config = "/etc/pop-before-smtp/config.toml";
    host.must(&format!("cp {config} /root/good; echo 'map = 7' >> {config}"));
    assert!(!run("start").status.success());
    host.must(&format!("mv /root/good {config}"));
}

#[test]
fn openrc_and_slackware() {
    let host = host();
    host.must(BOOTED_BY_OPENRC);
    host.must(&readme(OPENRC));
    control(&host, "rc-service pop-before-smtp", "cat /var/log/pop-before-smtp.log");
    host.must("mkdir -p /etc/rc.d");
    host.must(&readme(SLACKWARE));
    // As its sh, which is bash, runs it.
    control(&host, "bash --posix /etc/rc.d/rc.pop-before-smtp", "journalctl -t pop-before-smtp");
    // At boot and at shutdown; in between a crash empties the map until the daemon is back.
    host.must("sh -e /etc/rc.d/rc.local");
    eventually("it is published", PATIENCE, || map(&host) == "192.0.2.7 OK");
    host.must("kill -KILL $(grep -lx pop-before-smtp /proc/[0-9]*/comm | cut -d / -f 3)");
    eventually("the map is emptied", PATIENCE, || map(&host).is_empty());
    eventually("it is published again", PATIENCE, || map(&host) == "192.0.2.7 OK");
    host.must("sh -e /etc/rc.d/rc.local_shutdown");
    assert_eq!(map(&host), "");
}

/// The files that `package` stages are those that the script names; every package stops every socket.
#[test]
fn arch_package_is_complete() {
    let dir = directory();
    fs::create_dir(dir.path().join("release")).unwrap();
    let program = dir.path().join("release/pop-before-smtp");
    symlink(env!("CARGO_BIN_EXE_pop-before-smtp"), program).unwrap();
    let script = "startdir=$ROOT/deploy/package/arch pkgdir=$CARGO_TARGET_DIR/package
        cd $startdir; . ./PKGBUILD; sh -n $install; test -n \"$pkgver\"; mkdir $pkgdir; package
        cd $pkgdir; ls -d usr/bin/$pkgname usr/lib/systemd/system/$pkgname.service ${backup[@]}";
    let mut bash = Command::new("bash");
    bash.args(["-euc", script]).env("ROOT", ROOT).env("CARGO_TARGET_DIR", dir.path());
    let output = bash.output().expect("bash is there");
    assert!(output.status.success(), "{output:?}");

    let removals = ["arch/pop-before-smtp.install", "pop-before-smtp.spec", "debian/prerm"];
    for removal in removals {
        let text = fs::read_to_string(format!("{ROOT}/deploy/package/{removal}")).unwrap();
        for directory in ["deploy/systemd", "deploy/journald"] {
            let units = files_below(directory);
            for unit in units.iter().filter_map(|path| path.strip_prefix(&format!("{directory}/")))
            {
                let is_unit = unit.ends_with(".socket") || unit.ends_with(".service");
                assert!(!is_unit || text.contains(unit), "{removal} does not stop {unit}");
            }
        }
    }
}
