//! `effai fmt`

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::{Global, Output, directory};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::recipe::format::formatted;
use crate::recipe::load;
use crate::recipe::roots;
use crate::recipe::source::Sources;
use crate::recipe::texts::Text;
use crate::util::fs;
use crate::util::text::count;

/// Lay recipes out in one way: blanks, empty lines and semicolons; comments stay
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recipes; `-` is standard input, laid out on standard output; without any, all of the project
    files: Vec<PathBuf>,
    /// Change nothing, list the files that would change, and end with 1 if there are any
    #[arg(long)]
    check: bool,
}

/// How one file fared.
enum Fared {
    Kept,
    Changed,
    /// It is not KDL, and was told to be so.
    Refused,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let dir = directory(global)?;
    let files = if args.files.is_empty() { of_project(&dir)? } else { args.files.clone() };
    let (mut changed, mut refused) = (0, 0);
    for file in &files {
        let fared = if file.as_os_str() == "-" { stdin(args, output)? } else { one(&dir, file, args, output)? };
        match fared {
            Fared::Kept => continue,
            Fared::Refused => refused += 1,
            Fared::Changed => {
                changed += 1;
                let name = file.display().to_string();
                let laid_out = !args.check;
                match (output.json, args.check) {
                    (true, _) => {
                        output.object(&serde_json::json!({"version": 1, "file": name, "written": laid_out}));
                    }
                    (false, true) => output.line(&name),
                    (false, false) if file.as_os_str() == "-" => {}
                    (false, false) => output.note(&format!("laid out {name}")),
                }
            }
        }
    }
    if args.check {
        output.note(&format!("{} of {} would change", changed, count(files.len(), "recipe")));
    }
    Ok(if refused > 0 { 2 } else { u8::from(args.check && changed > 0) })
}

/// The recipes below the project's root, as seen from `dir`. That some have mistakes is no matter.
fn of_project(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let root = roots::find_root(dir)?;
    let up = dir.strip_prefix(&root).map_or(0, |below| below.components().count());
    let recipes = load::recipes_of(&root)?;
    let below = recipes.into_iter().filter(|path| !matches!(path.components().next(), Some(Component::ParentDir)));
    Ok(below.map(|path| std::iter::repeat_n(Path::new(".."), up).collect::<PathBuf>().join(path)).collect())
}

fn one(dir: &Path, file: &Path, args: &Args, output: &Output) -> Result<Fared, EngineError> {
    let path = dir.join(file);
    if path.is_dir() {
        return Err(Failure::user(format!("{} is a directory", file.display()))
            .help("name recipes, or nothing for all of the project")
            .into());
    }
    let bytes = fs::read(&path)?;
    let Some((text, new)) = laid_out(file, bytes, output) else { return Ok(Fared::Refused) };
    if new == text {
        return Ok(Fared::Kept);
    }
    if !args.check {
        fs::replace(&path, new.as_bytes())?;
    }
    Ok(Fared::Changed)
}

fn stdin(args: &Args, output: &Output) -> Result<Fared, EngineError> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::environment(format!("cannot read standard input: {e}")))?;
    let Some((text, new)) = laid_out(Path::new("standard input"), bytes, output) else { return Ok(Fared::Refused) };
    if !args.check && !output.json {
        output.raw(new.as_bytes());
    }
    Ok(if new == text { Fared::Kept } else { Fared::Changed })
}

/// The old and the new text; none where the old one is no KDL, whose mistakes are told.
fn laid_out(name: &Path, bytes: Vec<u8>, output: &Output) -> Option<(String, String)> {
    let mut sources = Sources::default();
    let text = Text::of(bytes);
    let file = sources.add(name.to_owned(), text.text.clone());
    let new = match text.complaint(file, &sources) {
        Some(mistake) => Err(vec![mistake]),
        None => formatted(&text.text, file, &sources),
    };
    new.map_err(|mistakes| mistakes.iter().for_each(|m| output.diagnostic(m))).ok().map(|new| (text.text, new))
}
