//! A run that failed in a passing way, and the one after it.

use std::path::Path;
use std::time::Duration;

use super::{Ended, Job, Ran, limits};
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::recipe::terms::{Limit, Retry};
use crate::util::fs::{self, FsError};

/// What programs and libraries say where the network failed: libc, curl, Python, OpenSSL, uv, Node, Rust.
const NETWORK_SAID: &[&str] = &[
    "connection refused",
    "connection reset",
    "connection timed out",
    "connection aborted",
    "connection closed",
    "could not resolve host",
    "dns error",
    "error sending request",
    "failed to lookup address",
    "getaddrinfo",
    "gateway time-out",
    "gateway timeout",
    "max retries exceeded",
    "name or service not known",
    "network is unreachable",
    "no route to host",
    "operation timed out",
    "read timed out",
    "remote end closed connection",
    "service unavailable",
    "temporary failure in name resolution",
    "tls handshake",
    "too many requests",
];

/// Whether a run failed in one of the ways after which its target wants to be tried again.
pub(super) fn is_passing(retry: &Retry, ended: &Ended, ran: Option<&Ran>, log: &Path) -> bool {
    let failure = match ended {
        Ended::Failed(failure) | Ended::Undeclared { failure, .. } => failure,
        Ended::Done | Ended::Cancelled => return false,
    };
    let words = format!("{}\n{}", last(log), failure.message);
    let says_network = || {
        let words = words.to_lowercase();
        NETWORK_SAID.iter().any(|said| words.contains(said))
    };
    let is_on = |name: &String| match name.as_str() {
        "network" => says_network(),
        "memory" => ran.is_some_and(|ran| limits::is_memory(ran, &words)),
        _ => ran.is_some_and(|ran| ran.stopped == Some(Limit::Time)),
    };
    retry.on.iter().any(is_on)
        || ran.and_then(|ran| ran.status.code()).is_some_and(|code| retry.code.contains(&code))
        || retry.says.iter().any(|text| words.contains(text))
}

/// The log of the last run.
fn last(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    match text.rfind("\nagain, ") {
        Some(at) => text[at + 1..].to_owned(),
        None => text.into_owned(),
    }
}

/// Says that it failed and is run again.
pub(super) fn told(ended: &Ended, times: u32, times_max: u32, wait: Duration) -> ActionEvent {
    let failure = match ended {
        Ended::Failed(Failure { message, .. }) | Ended::Undeclared { failure: Failure { message, .. }, .. } => message,
        Ended::Done | Ended::Cancelled => unreachable!("only what failed is run again"),
    };
    ActionEvent::Again { times, times_max, failure: failure.clone(), wait_ms: wait.as_millis() as u64 }
}

/// Takes away what a run left where it ran.
pub(super) fn clear(job: &Job) -> Result<(), FsError> {
    let own = job.scratch.parent().unwrap_or(&job.scratch);
    for part in fs::list(own)?.into_iter().filter(|part| part.is_dir()) {
        fs::empty_dir(&part)?;
    }
    Ok(())
}
