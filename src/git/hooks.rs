//! Hooks: small shell stubs that call `effai hook NAME`, beside whatever else has hooks there.
//!
//! A stub goes where git looks: `core.hooksPath`, else `hooks/` of the directory that all worktrees share. What had that
//! name before is kept beside it as `NAME.before-effai` and called first, with the same arguments and input. husky (9) owns
//! its directory and makes it anew at every install; there a line between two marks is added to the file that husky calls.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Git, GitError, tried};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::util::fs;

/// Hooks there are, and what each does, for `effai hooks status`.
pub const HOOKS: &[(&str, &str)] = &[
    ("pre-commit", "checks recipes and effai.lock, and builds what is tagged `pre-commit`"),
    ("post-checkout", "puts what the lock says into out/"),
    ("post-merge", "the same after a merge or pull"),
    ("pre-push", "sends artifacts to the remote before the commits that name them"),
    ("prepare-commit-msg", "adds metrics that changed as trailers"),
];

/// Those that are installed where none is named.
pub const USUAL: &[&str] = &["pre-commit", "post-checkout", "post-merge", "pre-push"];

const STUB: &str = include_str!("../../hooks/stub.sh");

/// What tells a stub of any version.
const SIGN: &str = "# effai's hook, version ";

/// What was there before has this at its end.
const BEFORE: &str = "before-effai";

const MARKS: [&str; 2] = ["# effai's hook: begin", "# effai's hook: end"];

/// The driver that merges the lock, by its name in git's configuration.
const DRIVER: &str = "effai";

/// Where a hook stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// Not effai's.
    Absent,
    /// Somebody else's.
    Other,
    /// A stub.
    Installed,
    /// A stub that calls what was there before.
    Chained,
    /// A line in husky's.
    InHusky,
}

/// Where git looks for hooks.
enum Place {
    /// A directory of plain hooks.
    Plain(PathBuf),
    /// husky's own directory, whose hooks call files of this one.
    Husky(PathBuf),
}

impl Place {
    fn of(git: &Git) -> Result<Self, GitError> {
        let repository = &git.repository;
        let config = tried("read its configuration", repository.config())?;
        let tree = repository.workdir().unwrap_or(repository.path());
        let Ok(set) = config.get_path("core.hooksPath") else {
            return Ok(Self::Plain(repository.commondir().join("hooks")));
        };
        let dir = tree.join(set);
        match (dir.file_name(), dir.parent()) {
            (Some(name), Some(parent)) if name == "_" && parent.ends_with(".husky") => {
                Ok(Self::Husky(parent.to_owned()))
            }
            _ => Ok(Self::Plain(dir)),
        }
    }
}

/// Whether there is a hook of this name at all.
pub fn check_name(name: &str) -> Result<(), Failure> {
    if HOOKS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let names: Vec<&str> = HOOKS.iter().map(|(name, _)| *name).collect();
    Err(Failure::user(format!("effai has no hook `{name}`")).help(format!("there are: {}", names.join(", "))))
}

/// How each hook stands.
pub fn status(git: &Git) -> Result<Vec<(&'static str, &'static str, Stand)>, Failure> {
    let place = Place::of(git)?;
    HOOKS.iter().map(|(name, what)| Ok((*name, *what, stand(&place, name)?))).collect()
}

fn stand(place: &Place, name: &str) -> Result<Stand, Failure> {
    let (Place::Plain(dir) | Place::Husky(dir)) = place;
    let path = dir.join(name);
    let text = if path.exists() { fs::read_text(&path)? } else { return Ok(Stand::Absent) };
    Ok(match place {
        Place::Husky(_) if text.contains(MARKS[0]) => Stand::InHusky,
        Place::Plain(_) if text.contains(SIGN) => {
            if before(&path).exists() {
                Stand::Chained
            } else {
                Stand::Installed
            }
        }
        _ => Stand::Other,
    })
}

fn before(path: &Path) -> PathBuf {
    path.with_extension(BEFORE)
}

/// Installs a hook; one that is installed is brought up to date.
pub fn install(git: &Git, name: &str) -> Result<Stand, Failure> {
    check_name(name)?;
    let place = Place::of(git)?;
    let stand = stand(&place, name)?;
    match &place {
        Place::Husky(dir) => {
            let path = dir.join(name);
            if stand == Stand::InHusky {
                return Ok(stand);
            }
            let text = if path.exists() { fs::read_text(&path)? } else { String::new() };
            let line = format!("if command -v effai > /dev/null 2>&1; then effai hook {name} \"$@\" || exit $?; fi");
            let text = format!("{text}{}\n{line}\n{}\n", MARKS[0], MARKS[1]);
            write(&path, &text)?;
            Ok(Stand::InHusky)
        }
        Place::Plain(dir) => {
            let path = dir.join(name);
            fs::create_dir_all(dir)?;
            if stand == Stand::Other {
                fs::rename(&path, &before(&path))?;
            }
            write(&path, STUB)?;
            Ok(if before(&path).exists() { Stand::Chained } else { Stand::Installed })
        }
    }
}

/// Takes a hook away and puts back what was there before. Says whether there was one of effai's.
pub fn remove(git: &Git, name: &str) -> Result<bool, Failure> {
    check_name(name)?;
    let place = Place::of(git)?;
    let stand = stand(&place, name)?;
    match &place {
        Place::Husky(dir) if stand == Stand::InHusky => {
            let path = dir.join(name);
            let text = fs::read_text(&path)?;
            let (head, rest) = text.split_once(MARKS[0]).expect("found above");
            let tail = rest.split_once(MARKS[1]).map_or("", |(_, tail)| tail.strip_prefix('\n').unwrap_or(tail));
            let text = format!("{head}{tail}");
            if text.is_empty() {
                fs::remove_file(&path)?
            } else {
                fs::replace(&path, text.as_bytes())?
            }
            Ok(true)
        }
        Place::Plain(dir) if matches!(stand, Stand::Installed | Stand::Chained) => {
            let path = dir.join(name);
            if stand == Stand::Chained {
                fs::rename(&before(&path), &path)?
            } else {
                fs::remove_file(&path)?
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write_atomic(path, text.as_bytes())?;
    fs::at("set the mode of", path, std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))?;
    Ok(())
}

/// Says where the project lies, for hooks, and who merges its file `lock`: in git's own configuration and attributes, not in files
/// that are committed.
pub fn configure(git: &Git, lock: &str) -> Result<(), Failure> {
    let mut config = tried("read its configuration", git.repository.config())?;
    let below = if git.below.as_os_str().is_empty() { Path::new(".") } else { &git.below };
    let mut set = |name: &str, value: &str| tried("write its configuration", config.set_str(name, value));
    set("effai.project", &below.to_string_lossy())?;
    set(&format!("merge.{DRIVER}.name"), &format!("{lock}, label by label"))?;
    set(&format!("merge.{DRIVER}.driver"), "effai merge-lock %O %A %B")?;
    let (path, line) = attributes(git, lock);
    let text = if path.exists() { fs::read_text(&path)? } else { String::new() };
    if !text.lines().any(|other| other == line) {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write_atomic(&path, format!("{text}{line}\n").as_bytes())?;
    }
    Ok(())
}

/// Takes that back.
pub fn forget(git: &Git, lock: &str) -> Result<(), Failure> {
    // libgit2 takes keys away and leaves their section's heading.
    for section in ["effai".into(), format!("merge.{DRIVER}")] {
        let remove = ["config", "--local", "--remove-section", &section];
        Program::new("git").args(remove).dir(git.repository.path()).ask();
    }
    let (path, line) = attributes(git, lock);
    if path.exists() {
        let text = fs::read_text(&path)?;
        let rest: String = text.split_inclusive('\n').filter(|other| other.trim_end() != line).collect();
        if rest.is_empty() {
            fs::remove_file(&path)?;
        } else if rest != text {
            fs::write_atomic(&path, rest.as_bytes())?;
        }
    }
    Ok(())
}

/// The repository's own attributes, and the line that has the lock merged by effai.
fn attributes(git: &Git, lock: &str) -> (PathBuf, String) {
    let lock = git.below.join(lock);
    (git.repository.commondir().join("info/attributes"), format!("/{} merge={DRIVER}", lock.display()))
}
