//! Everything that can happen in a build, as two closed enums.
//!
//! [`ActionEvent`] is what a running action says, one JSON object a line on a descriptor of its own
//! (`EFFAI_EVENTS` holds the descriptor's number). [`Event`] is what the engine says to whoever watches:
//! the live display, the plain one, `--json` and the recorder all read the same stream.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Label;

/// What an action tells the engine while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ActionEvent {
    /// How far the action is.
    Progress {
        /// What is being done, in two or three words: `epoch 3`, `encode pictures`.
        #[serde(default)]
        what: String,
        /// Units done.
        done: u64,
        /// Units in all, if known.
        total: Option<u64>,
        /// The unit's plural: `steps`, `rows`, `bytes`.
        unit: String,
    },
    /// One measured number; with a step it is a point of a curve.
    Metric {
        /// Dotted, kebab-case: `train.loss`.
        name: String,
        /// Step of the curve.
        #[serde(default)]
        step: Option<u64>,
        /// The number.
        value: f64,
    },
    /// A line for the log.
    Log {
        /// The line, without its end.
        text: String,
    },
    /// Something the user should know although the action goes on.
    Warning {
        /// What.
        text: String,
        /// The next step.
        #[serde(default)]
        help: Option<String>,
    },
    /// What computes, found to work.
    Backend {
        /// `candle` or `mlx`.
        name: String,
    },
    /// An optional source could not be had; the artifact says so and holds nothing else.
    LeftOut {
        /// Why.
        reason: String,
    },
    /// It failed in a way that its target wants it tried again after (`retry`); what it told until now is of no account.
    Again {
        /// How often it has failed.
        times: u32,
        /// How often it may.
        times_max: u32,
        /// How it failed.
        failure: String,
        /// How long the wait is.
        wait_ms: u64,
    },
    /// The action failed; the last event.
    Failed(Failure),
}

/// What the engine tells its watchers.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The graph is known; `targets` of them are in question.
    Planned {
        /// Targets reachable from what was asked for.
        targets: usize,
    },
    /// A verdict on one target, before anything of it runs.
    Verdict {
        /// The target.
        label: Label,
        /// Fresh, cached or stale.
        verdict: Verdict,
        /// For a stale one, why: one line a changed fact.
        reasons: Vec<String>,
    },
    /// An action began.
    Started {
        /// The target.
        label: Label,
    },
    /// An action said something.
    Said {
        /// The target.
        label: Label,
        /// What it said.
        what: ActionEvent,
    },
    /// How far a build is that takes longer than a second; told about once a second.
    Outlook {
        /// Actions that ended.
        done: usize,
        /// Actions in all, as far as is known: some may turn out to have nothing to do.
        to_run: usize,
        /// Actions that run now.
        running: usize,
        /// Time left, going by past runs; none where too little is known.
        left_ms: Option<u64>,
    },
    /// What is watched; nothing happens until something changes.
    Watching {
        /// Files that the targets read.
        files: usize,
        /// Targets that are kept up to date.
        targets: usize,
    },
    /// Files changed, and a build begins.
    Changed {
        /// The first of them.
        file: String,
        /// How many besides.
        more: usize,
    },
    /// A build asked the watch whether there is anything to do.
    Asked {
        /// There is nothing, and the build was told so; else it looks for itself.
        fresh: bool,
    },
    /// The recipes cannot be used; the next edit may mend that.
    Stuck {
        /// Why.
        message: String,
    },
    /// An `on-change` of the recipes takes its turn.
    Reacting {
        /// Its name.
        name: String,
    },
    /// It ended.
    Reacted {
        /// Its name.
        name: String,
        /// How its command failed, if it did.
        failure: Option<Failure>,
    },
    /// Another process runs the same key; this one waits for it.
    Waiting {
        /// The target.
        label: Label,
        /// For whom: a process id and what it builds.
        holder: String,
    },
    /// A remote has a target's key, and its artifact is coming.
    Fetching {
        /// The target.
        label: Label,
        /// The remote.
        remote: String,
    },
    /// A remote does not answer or says no: this build does without it from now on.
    RemoteLeftOut {
        /// The remote.
        remote: String,
        /// Why.
        why: String,
    },
    /// What was built is being sent to remotes; the build waits for that.
    Sending {
        /// Artifacts that are still to be sent.
        artifacts: usize,
    },
    /// A target is done.
    Finished {
        /// The target.
        label: Label,
        /// How it ended.
        outcome: Outcome,
    },
    /// The build is over.
    Ended(Summary),
    /// All tests that were asked for have ended, or were not begun.
    Tested(Tally),
    /// The store had grown past the size the project gives it, and was pruned.
    Pruned {
        /// Blobs deleted.
        blobs: usize,
        /// Bytes deleted.
        bytes: u64,
        /// Bytes that stay.
        bytes_left: u64,
        /// The size it may have.
        bytes_max: u64,
    },
    /// The store has grown past its size and could not be pruned.
    NotPruned(Failure),
    /// A target that is up to date is made again, to be compared.
    Checking {
        /// The target.
        label: Label,
    },
    /// A target was made again and compared, or passed over.
    Checked {
        /// The target.
        label: Label,
        /// What was found.
        #[serde(flatten)]
        found: Repeat,
    },
    /// All was compared.
    AllChecked {
        /// Targets that gave the same bytes.
        same: usize,
        /// Targets that gave others.
        differ: usize,
        /// Targets that failed the second time.
        failed: usize,
        /// Targets that are not repeatable by declaration.
        passed_over: usize,
    },
}

/// How a second run compares with what is recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Repeat {
    /// The same bytes.
    Same,
    /// Other bytes.
    Differs {
        /// The first file that differs, from the artifact's root.
        path: String,
        /// The first place in it: a tensor and an element, a line, a byte; none where one is no file.
        place: Option<String>,
        /// What is recorded there.
        before: String,
        /// What the second run gave there.
        after: String,
        /// Where the second result is kept, from the project's root.
        kept: String,
    },
    /// Its kind says that two runs need not give the same bytes; it was not run.
    NotRepeatable,
}

/// What the engine found out about a target before running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing to do.
    Fresh,
    /// Some earlier run has the key: its artifact is used.
    Cached,
    /// Must run.
    Stale,
    /// Stands on something stale, so its key is not known yet.
    Waits,
}

/// How a target ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was up to date.
    Fresh,
    /// Its artifact was taken from the store.
    Restored {
        /// The artifact.
        artifact: Digest,
    },
    /// Its artifact came from a remote.
    Fetched {
        /// The artifact.
        artifact: Digest,
        /// The remote.
        remote: String,
        /// Bytes that came.
        bytes: u64,
    },
    /// Nothing was to run, and neither the store nor a remote has its artifact.
    Missing {
        /// A target below it of which that is so; its own key is not known then.
        because: Option<Label>,
    },
    /// It ran.
    Built {
        /// The artifact.
        artifact: Digest,
        /// The same bytes as before, so what stands on it need not run.
        unchanged: bool,
        /// Wall time.
        wall_ms: u64,
        /// User and system time of the action's processes.
        cpu_ms: u64,
        /// Peak resident memory.
        peak_bytes: u64,
        /// Set where an optional source was left out.
        left_out: Option<String>,
    },
    /// It failed.
    Failed {
        /// How.
        failure: Failure,
        /// The kept log of the action.
        log: Option<String>,
        /// The kept scratch directory.
        scratch: Option<String>,
    },
    /// It was not tried, because something under it failed.
    Skipped {
        /// The target that failed.
        because: Label,
    },
    /// It was not begun, because the time that the build was given was over or too short.
    Late {
        /// When it is or was over.
        until: String,
        /// How long the last run took, if there was one.
        last_ms: Option<u64>,
    },
    /// It was stopped by the user.
    Cancelled,
    /// A file it reads changed while it ran: it is judged again.
    Outdated {
        /// The file or glob; none where an edit stopped it.
        file: Option<String>,
    },
}

/// A build in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Actions run.
    pub built: usize,
    /// Taken from the store, or brought from a remote.
    pub restored: usize,
    /// Up to date.
    pub fresh: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped, after a failure or for the time.
    pub skipped: usize,
    /// Those of them that were not begun for the time.
    pub late: usize,
    /// Neither in the store nor on a remote, where nothing was to run.
    #[serde(skip_serializing_if = "is_none")]
    pub missing: usize,
    /// When that was over, if it held up any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Wall time of the whole build.
    pub wall_ms: u64,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

/// Tests in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Passed, now or before.
    pub passed: usize,
    /// Those of them that passed before and did not run.
    pub cached: usize,
    /// Failed.
    pub failed: usize,
    /// Not begun or not ended: after a failure, for the time, or stopped.
    pub skipped: usize,
}
