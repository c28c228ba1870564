//! `effai init`

use super::{Global, Output, directory};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::recipe::load::PROJECT_FILE;
use crate::util::fs;

/// Make this directory a project
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, _args: &Args, output: &Output) -> Result<u8, EngineError> {
    let dir = directory(global)?;
    let file = dir.join(PROJECT_FILE);
    if file.exists() {
        return Err(Failure::user(format!("{} is there already", file.display())).into());
    }
    let name = dir.file_name().map_or_else(|| "project".into(), |n| n.to_string_lossy().into_owned());
    let text = format!(
        "project {name:?}\nrecipes \"recipes/*.kdl\"\n\n\
         // A target is a kind, a label and fields. docs/kinds/ has a page for each kind.\n\
         command \"hello\" {{\n    run \"sh\" \"-c\" \"echo hello > hello.txt\"\n    output \"hello.txt\"\n}}\n"
    );
    fs::write_atomic_mode(&file, text.as_bytes(), 0o644)?;
    output.note(&format!("made {PROJECT_FILE}; try `effai build hello`"));
    Ok(0)
}
