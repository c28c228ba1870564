//! Globs over the project's files.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

/// A glob that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// Its text is wrong.
    #[error("not a glob: {0}")]
    Bad(#[from] globset::Error),
    /// A directory could not be read.
    #[error("while looking for files: {0}")]
    Walk(#[from] walkdir::Error),
}

/// Whether a text has glob characters at all.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Compiles a glob: `*` stays within a directory, `**` crosses them.
pub fn compile(glob: &str) -> Result<GlobMatcher, GlobError> {
    Ok(GlobBuilder::new(glob).literal_separator(true).build()?.compile_matcher())
}

/// The files below `root` that a glob matches, relative to it and sorted. A directory's path means all
/// files below it. effai's own directories and `.git` are passed over.
pub fn expand(root: &Path, glob: &str) -> Result<Vec<PathBuf>, GlobError> {
    let glob = glob.trim_start_matches("./").trim_end_matches('/');
    if !is_glob(glob) && root.join(glob).is_file() {
        return Ok(vec![PathBuf::from(glob)]);
    }
    let matcher = compile(glob)?;
    let fixed: PathBuf =
        Path::new(glob).components().take_while(|c| !is_glob(&c.as_os_str().to_string_lossy())).collect();
    let start = root.join(&fixed);
    if !start.exists() {
        return Ok(Vec::new());
    }
    let whole_directory = !is_glob(glob);
    let mut found = Vec::new();
    let walk = WalkDir::new(&start).sort_by_file_name().into_iter().filter_entry(|e| {
        e.depth() == 0 || !matches!(e.file_name().to_str(), Some(".git" | ".effai" | "out" | "target"))
    });
    for entry in walk {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        if whole_directory || matcher.is_match(relative) {
            found.push(relative.to_owned());
        }
    }
    found.sort();
    Ok(found)
}
