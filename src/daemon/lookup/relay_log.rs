//! The record of relayed mail: a line for each message.
//!
//! - **Promise**: a message is logged when its first recipient is accepted, and again when it has
//!   been received, if Postfix asks then. Messages beyond a limit are a warning, at most once a
//!   minute. The formats of the log escape what a client sends.

use tracing::{info, warn};

use crate::control::protocol::rfc3339;
use crate::engine::grants::grant::GrantedBy;
use crate::engine::relay::{RelayRecord, RelayStep};
use crate::sys::log_limit::LogLimiter;

/// Logs records.
#[derive(Debug, Default)]
pub(super) struct RelayLog {
    limited: LogLimiter,
}

impl RelayLog {
    /// Logs a record.
    pub(super) fn log(&self, record: &RelayRecord) {
        let RelayRecord { step, address, user, sender, instance, queue_id, granted } = record;
        let (user, queue_id) = (user.as_deref(), Some(queue_id).filter(|id| !id.is_empty()));
        let daemon = granted.as_ref().map(|(by, _)| match by {
            GrantedBy::Login(origin) => origin.daemon.to_string(),
            GrantedBy::Operator => "manual".into(),
        });
        let since = granted.as_ref().map(|(_, since)| rfc3339(*since));
        match step {
            RelayStep::Begun => {
                info!(%address, user, sender, queue_id, instance, daemon, since, "relaying a message");
            }
            RelayStep::Received { recipients, size } => info!(
                %address, user, sender, queue_id, instance, daemon, since, recipients, size,
                "relayed a message"
            ),
            RelayStep::Limited(reached) => {
                if let Some(times) = self.limited.record(1) {
                    warn!(
                        %address, user, sender, daemon, since, times,
                        "a client is beyond a limit: {reached}"
                    );
                }
            }
        }
    }
}
