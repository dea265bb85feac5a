//! Notifications to systemd: ready, reloading, stopping, alive (sd_notify(3)).
//!
//! - **Promise**: without systemd nothing happens; a notification that cannot be sent is not an
//!   error.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Notifies systemd that the daemon is serving.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies systemd of a reload; [`ready`] must follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "cannot notify systemd of the reload: no monotonic clock"),
    }
}

/// Notifies systemd that the daemon is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Notifies systemd's watchdog that the daemon is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Returns the interval for [`alive`], half of systemd's limit, if systemd has a watchdog on us.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify systemd");
    }
}
