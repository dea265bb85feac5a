//! The files of deploy/cluster for containers: what they configure goes through `check`.

use std::fs;
use std::path::Path;

use super::{Cluster, ROOT, file, replaced, succeeds};
use crate::support::daemon::program;
use crate::support::directory;
use crate::support::postfix::Postfix;

/// The configurations for containers are valid.
#[test]
fn configurations_are_valid() {
    let dir = directory();
    // postmap wants a main.cf, as the image has one.
    let postfix = Postfix::configure("reject");
    let check = |config: &Path, variables: &[(String, String)]| {
        let mut check = program();
        check.arg("check").arg("--config").arg(config).envs(variables.iter().cloned());
        check.arg("--postfix-config").arg(postfix.config());
        succeeds(&mut check)
    };
    let config = dir.path().join("config.toml");
    let manifest = file("kubernetes.yaml");
    let (_, block) = manifest.split_once("config.toml: |\n").expect("a ConfigMap");
    let lines = block.lines().map_while(|line| line.strip_prefix("    "));
    let text = lines.collect::<Vec<_>>().join("\n");
    // `check` reads the files of the secrets.
    let site = Cluster::new();
    let [files, tls] = [site.at(""), site.at("tls/")].map(|path| path.display().to_string());
    succeeds(&mut site.certify("pod"));
    fs::copy(site.at("password-of-pbs"), site.at("store-password")).expect("a copy");
    let text = replaced(
        text,
        &[("/store/store-password", &format!("{files}store-password")), ("/store/", &tls)],
    );
    fs::write(&config, &text).expect("a file");
    let variable = "POP_BEFORE_SMTP_CLUSTER_HOST";
    assert!(manifest.contains(variable));
    check(&config, &[(variable.into(), "mail-0".into())]);

    let map = fs::read_to_string(format!("{ROOT}/deploy/container/map.toml")).expect("a file");
    fs::write(&config, map).expect("a file");
    let postfix_volume = dir.path().display().to_string();
    let compose =
        replaced(file("compose.yaml"), &[("lmdb:/postfix", &format!("lmdb:{postfix_volume}"))]);
    let variables: Vec<(String, String)> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("POP_BEFORE_SMTP_")?.split_once(": "))
        .map(|(name, value)| {
            let value = value.replace("/etc/pop-before-smtp/", &files);
            (format!("POP_BEFORE_SMTP_{name}"), value)
        })
        .collect();
    assert_eq!(variables.len(), 10, "{variables:?}");
    check(&config, &variables);
}
