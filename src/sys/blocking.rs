//! Work that may wait for a disk, on a thread where nobody else waits for it.

use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on a thread for blocking work.
///
/// # Errors
/// Those of `work`, or that it has panicked.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<JoinError> + Send + 'static,
{
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.into()))
}
