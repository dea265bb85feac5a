//! The stores themselves, asked with the daemon's password and certificate.

use std::time::Duration;

use crate::config::cluster::{ClusterOptions, StoreAddress, StoreUrl};
use crate::daemon::cluster::probe::{self, StoreAnswers};
use crate::doctor::findings::Report;

/// How far two clocks may be apart.
const MAX_DIFFERENCE: Duration = Duration::from_secs(10);

/// Reports what is wrong with them.
pub async fn examine(config: &ClusterOptions, report: &mut Report) {
    let examined = match probe::examine(config).await {
        Ok(examined) => examined,
        Err(failure) => {
            return report.problem(
                failure.what(),
                "The daemon does not start without it.",
                failure.hint_text().unwrap_or("pop-before-smtp check"),
            );
        }
    };
    let primaries: Vec<_> = examined
        .iter()
        .filter(|(_, result)| result.as_ref().is_ok_and(|answers| answers.is_primary))
        .map(|(name, _)| name.as_str())
        .collect();
    match &*primaries {
        [] => report.problem(
            "no store of the cluster can be used as the primary one",
            "The hosts cannot tell each other anything.",
            "start one; or make a replica the primary one: redis-cli REPLICAOF NO ONE",
        ),
        [_] => {}
        several => report.problem(
            format!("several stores are primary: {}", several.join(", ")),
            "Hosts that use different ones do not hear of each other.",
            "make all but one a replica of it: redis-cli REPLICAOF HOST PORT",
        ),
    }
    for (url, (name, result)) in config.stores.iter().zip(&examined) {
        match result {
            Ok(answers) => store(config, url, answers, report),
            Err(error) => report.problem(
                format!("{name} cannot be used: {error}"),
                "The daemon cannot use it either.",
                "start it, or correct the URL, the password or the certificates (cluster-...)",
            ),
        }
    }
}

fn store(config: &ClusterOptions, url: &StoreUrl, answers: &StoreAnswers, report: &mut Report) {
    let role = if answers.is_primary { "primary" } else { "a replica" };
    let way = match &url.address {
        StoreAddress::Unix(_) => "a Unix socket",
        StoreAddress::Tcp { tls: true, .. } => "TLS",
        StoreAddress::Tcp { .. } => "TCP without TLS",
    };
    report.ok(format!("{url} answers over {way} and is {role}"));
    permissions(config, url, answers, report);
    match answers.eviction.as_deref() {
        None => report.ok(format!(
            "{url} does not say what it does when its memory is full: maxmemory-policy should be \
             noeviction or begin with volatile"
        )),
        Some(policy) if policy.starts_with("allkeys") => report.note(
            format!("{url}: maxmemory-policy is {policy}"),
            "When its memory is full it may delete the whole stream. The hosts then tell each other \
             everything again, which fills it again.",
            "maxmemory-policy noeviction, or volatile-lru: the stream never expires",
        ),
        Some(policy) => report.ok(format!("{url}: maxmemory-policy {policy} spares the stream")),
    }
    if answers.clock_difference > MAX_DIFFERENCE {
        report.note(
            format!(
                "the clocks of {url} and of this host are {} s apart",
                answers.clock_difference.as_secs()
            ),
            "No authorisation becomes longer by that: the hosts follow the latest time that they have \
             seen in the stream. But one of the two clocks is wrong.",
            "timedatectl, on both",
        );
    }
}

fn permissions(
    config: &ClusterOptions,
    url: &StoreUrl,
    answers: &StoreAnswers,
    report: &mut Report,
) {
    for (command, why) in &answers.refused {
        report.problem(
            format!("{url} refuses {command}: {why}"),
            "Without it the hosts cannot share their clients.",
            "set the user's rule as in deploy/cluster/users.acl",
        );
    }
    if config.password_file.is_none() {
        report.note(
            format!("{url} asks for no password"),
            "Whoever can connect to it can authorise any address.",
            "turn its default user off, and set a password and cluster-password-file",
        );
    }
    if !answers.excess.is_empty() {
        report.note(
            format!("at {url} this host may also {}", answers.excess.join(", and ")),
            "Whoever gets its password could take over the store, and all that is in it.",
            "set the user's rule as in deploy/cluster/users.acl",
        );
    } else if answers.refused.is_empty() {
        report.ok(format!("{url} permits what is needed, and no more"));
    }
}
