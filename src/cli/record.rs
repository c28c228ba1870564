//! What a build leaves for git: the lock, and a note at the commit.

use super::Output;
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::git::{Git, GitError, notes};
use crate::plan::Index;
use crate::ui::style;
use crate::util::text::count;

/// Labels of changed lines that are told one by one.
const TOLD_MAX: usize = 8;

/// Writes the lock for what was built, and notes the build at the commit that is checked out.
pub(super) fn run(engine: &mut Engine, chosen: &[Index], output: &Output) -> Result<(), EngineError> {
    let written = engine.write_lock(chosen)?;
    if !written.left_out.is_empty() {
        let text = format!("not in effai.lock, since an optional source is not in it: {}", written.left_out.join(", "));
        output.note(&format!("{}{text}", style::yellow("warning: ")));
    }
    if output.json {
        output.object(&serde_json::json!({"version": 1, "lock": written}));
    } else if written.is_change() {
        let targets: Vec<&String> = written.changed.iter().filter(|label| !label.contains(':')).collect();
        let parts = written.changed.len() - targets.len();
        let mut said: Vec<String> = targets.iter().take(TOLD_MAX).map(|label| (*label).clone()).collect();
        if targets.len() > TOLD_MAX {
            said.push(format!("{} more", targets.len() - TOLD_MAX));
        }
        if parts > 0 {
            said.push(count(parts, "part"));
        }
        if !written.dropped.is_empty() {
            said.push(format!("without {}", written.dropped.join(", ")));
        }
        output.note(&format!("effai.lock: {}", said.join(", ")));
    }
    match Git::of(&engine.root) {
        Ok(git) => {
            let note = engine.note(&git, chosen)?;
            notes::add(&git, &note)?;
            Ok(())
        }
        // A project without git has a lock all the same.
        Err(GitError::None(_)) => Ok(()),
        Err(error) => Err(Failure::from(error).into()),
    }
}
