//! The files of deploy/suites, unchanged, with the logs and the restrictions that mail suites configure,
//! and the real Dovecot, rsyslog, syslog-ng and Postfix.
//!
//! The configurations of the suites are rebuilt here: what decides about logins and relaying, as they were
//! in 2026. Tables in SQL are replaced by `static:`, and what asks the DNS is left out.

mod logs;
mod restrictions;

use std::fs;
use std::path::Path;

use crate::support::daemon::program;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";

fn deployed(path: &str) -> String {
    fs::read_to_string(Path::new(DEPLOY).join(path)).expect("a file of deploy/")
}

/// Compose files: where a volume is mounted, a socket below it, and the file that names the socket.
const COMPOSE: &[(&str, &[[&str; 3]])] = &[
    (
        "suites/mailcow/docker-compose.override.yml",
        &[
            [
                "log:/run/pop-before-smtp:ro",
                "/run/pop-before-smtp/socket",
                "suites/mailcow/pop-before-smtp.sh",
            ],
            ["postfix:/pop-before-smtp:ro", "/pop-before-smtp/policy", "suites/mailcow/extra.cf"],
            [
                "postfix:/pop-before-smtp:ro",
                "/pop-before-smtp/socketmap",
                "suites/mailcow/extra.cf",
            ],
        ],
    ),
    (
        "suites/docker-mailserver/compose.override.yaml",
        &[
            [
                "log:/run/pop-before-smtp:ro",
                "/run/pop-before-smtp/log.sock",
                "rsyslog/pop-before-smtp.conf",
            ],
            [
                "postfix:/pop-before-smtp:ro",
                "/pop-before-smtp/policy",
                "suites/docker-mailserver/user-patches.sh",
            ],
        ],
    ),
    (
        "suites/mailu/docker-compose.override.yml",
        &[
            ["log:/syslog:ro", "/syslog/socket", "suites/mailu/docker-compose.override.yml"],
            ["postfix:/pop-before-smtp:ro", "/pop-before-smtp/policy", "suites/mailu/postfix.cf"],
        ],
    ),
];

/// The image listens in the volumes where the suites look, and knows the variables.
#[test]
fn compose_files_agree_with_the_image_and_the_recipes() {
    let image = deployed("container/live.toml");
    for (file, sockets) in COMPOSE {
        let compose = deployed(file);
        let variables: Vec<_> = compose
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .filter(|(name, _)| name.starts_with("POP_BEFORE_SMTP_"))
            .collect();
        assert!(!variables.is_empty(), "{file}");
        let mut check = program();
        check.arg("check").arg("--config").arg(Path::new(DEPLOY).join("container/live.toml"));
        let done = check.envs(variables.iter().copied()).output().expect("it can be started");
        assert!(done.status.success() && done.stderr.is_empty(), "{file}: {done:?}");
        let values = variables.iter().map(|(_, value)| *value).collect::<String>();
        for [mount, socket, named] in *sockets {
            assert!(compose.contains(&format!("- pop-before-smtp-{mount}\n")), "{file}: {mount}");
            assert!(deployed(named).contains(socket), "{named}: {socket}");
            let (_, name) = socket.rsplit_once('/').expect("a path");
            let volume = if mount.starts_with("log") { "syslog" } else { "postfix" };
            let listens = format!("unix:/{volume}/{name}");
            assert!(image.contains(&listens) || values.contains(&listens), "{file}: {listens}");
        }
    }
}
