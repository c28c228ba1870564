//! Which directory is the project one stands in, and which larger one it belongs to.
//!
//! A project is a directory with an `effai.kdl`. Another one above it that names it in `projects` is its outer project;
//! the outermost has the plan, the record and the outputs of all. Cloned alone, a project is its own outermost.

use std::path::{Component, Path, PathBuf};

use super::glob;
use super::load::{LoadError, PROJECT_FILE};
use super::outline::Outline;
use crate::util::fs;

/// Where somebody stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The outermost project's directory.
    pub root: PathBuf,
    /// The directory below it of the project one stands in; empty for the outermost itself.
    pub base: String,
}

/// The project that a directory lies in, within the largest that it belongs to.
pub fn find(start: &Path) -> Result<Stand, LoadError> {
    let own = find_root(&plain(start))?;
    let mut root = own.as_path();
    for above in own.ancestors().skip(1) {
        let file = above.join(PROJECT_FILE);
        let claims = |text: String| root.strip_prefix(above).is_ok_and(|below| names(&text, below));
        if file.is_file() && fs::read_text(&file).is_ok_and(claims) {
            root = above;
        }
    }
    let base = own.strip_prefix(root).expect("above it").to_string_lossy().into_owned();
    Ok(Stand { root: root.to_owned(), base })
}

/// Whether a project's `effai.kdl`, as it is saved, leads to a directory below as one of its own.
pub fn claims(root: &Path, dir: &Path) -> bool {
    find(dir).is_ok_and(|stand| stand.root == root && root.join(stand.base) == dir)
}

/// The nearest directory with an `effai.kdl`, from `start` upwards.
pub fn find_root(start: &Path) -> Result<PathBuf, LoadError> {
    start
        .ancestors()
        .find(|dir| dir.join(PROJECT_FILE).is_file())
        .map(Path::to_owned)
        .ok_or_else(|| LoadError::NoProject(start.to_owned()))
}

/// Whether a recipe names a directory among its `projects`. A recipe with mistakes is read as far as it goes.
fn names(text: &str, below: &Path) -> bool {
    let outline = Outline::read(text, &[]);
    let projects = outline.items.iter().filter(|item| !item.ignored && item.name.text == "projects");
    projects.into_iter().flat_map(|item| item.args()).any(|word| {
        let pattern = word.text.trim_start_matches("./").trim_end_matches('/');
        glob::compile(pattern).is_ok_and(|matcher| matcher.is_match(below))
    })
}

/// A path without `.` and, where a name stands before it, `..`.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths() {
        let check = |path: &str, expected: &str| assert_eq!(plain(Path::new(path)), Path::new(expected));
        check("a/../b", "b");
        check("../../a/./b/..", "../../a");
        check("a/b/../../../c", "../c");
    }

    #[test]
    fn a_member_is_found_within_what_names_it() {
        let dir = tempfile::tempdir().expect("made");
        let write = |name: &str, text: &str| fs::write(&dir.path().join(name), text.as_bytes()).expect("written");
        write("effai.kdl", "projects \"packages/*\" \"x\"\n");
        write("packages/a/effai.kdl", "projects \"inner\"\n");
        write("packages/a/inner/effai.kdl", "");
        write("packages/a/other/effai.kdl", "");
        let stand = |below: &str| {
            let found = find(&dir.path().join(below)).expect("found");
            (found.root.strip_prefix(dir.path()).expect("below").display().to_string(), found.base)
        };
        let at = |root: &str, base: &str| (root.to_owned(), base.to_owned());
        assert_eq!(stand(""), at("", ""));
        assert_eq!(stand("packages/a"), at("", "packages/a"));
        assert_eq!(stand("packages/a/inner"), at("", "packages/a/inner"));
        assert_eq!(stand("packages/a/other/../inner/."), at("", "packages/a/inner"));
        assert_eq!(stand("packages/a/other"), at("packages/a/other", ""));
    }
}
