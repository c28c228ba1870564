//! Globs over the project's files, and the evidence that a listing still holds.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::fingerprint::evidence::{Place, Stat};

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

/// The files a glob stood for, and how what was walked looked then.
///
/// A directory's times change when a name in it appears or goes, so a listing holds for as long as every directory
/// that was walked looks the same and had not been written to just before it was read (see [`Stat::proves`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// Relative to the root, sorted.
    #[serde(with = "crate::util::paths::many")]
    pub files: Vec<PathBuf>,
    /// Every directory that was walked, or the path that was not there.
    pub walked: Vec<Walked>,
    /// When the walk began, ns since the epoch.
    pub at_ns: i64,
}

/// A directory and how it looked, or that it was not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Walked {
    /// Relative to the root.
    #[serde(with = "crate::util::paths::one")]
    path: PathBuf,
    stat: Option<Stat>,
}

impl Walked {
    /// The directory, or the path that was not there; relative to the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn holds(&self, root: &Place<'_>, at_ns: i64) -> bool {
        match (&self.stat, root.look(&self.path)) {
            (Some(then), Some(now)) => now.proves(then, at_ns),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Whether all that was walked at a time looks the same and was not written to just then.
pub fn holds(walked: &[Walked], at_ns: i64, root: &Place<'_>) -> bool {
    walked.iter().all(|w| w.holds(root, at_ns))
}

impl Listing {
    /// Whether a walk now would find the same names.
    pub fn holds(&self, root: &Path) -> bool {
        holds(&self.walked, self.at_ns, &Place::open(root))
    }

    /// Whether it is of a path that leads to a file, and so to nothing else.
    pub fn is_plain_file(&self) -> bool {
        matches!((&self.files[..], &self.walked[..]), ([file], [Walked { path, stat: Some(_) }]) if file == path)
    }
}

/// Whether a text has glob characters at all.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Compiles a glob: `*` stays within a directory, `**` crosses them.
pub fn compile(glob: &str) -> Result<GlobMatcher, GlobError> {
    Ok(GlobBuilder::new(glob).literal_separator(true).build()?.compile_matcher())
}

/// The files below `root` that a glob matches. A directory's path means all files below it.
///
/// Passed over: `.git`, `.effai`, the project's own `out`, and directories that say by a `CACHEDIR.TAG` that they
/// are caches. A symbolic link is listed and not walked into.
pub fn list(root: &Path, glob: &str) -> Result<Listing, GlobError> {
    list_below(root, Path::new(""), glob)
}

/// The files below a directory of `root` that a glob from there matches, relative to `root`; see [`list`].
pub fn list_below(root: &Path, base: &Path, glob: &str) -> Result<Listing, GlobError> {
    let mut listing = list_in(&root.join(base), glob)?;
    if base != Path::new("") {
        listing.files.iter_mut().for_each(|path| *path = base.join(&*path));
        listing.walked.iter_mut().for_each(|walked| walked.path = base.join(&walked.path));
    }
    Ok(listing)
}

fn list_in(root: &Path, glob: &str) -> Result<Listing, GlobError> {
    let at_ns = now_ns();
    let glob = glob.trim_start_matches("./").trim_end_matches('/');
    let whole = !is_glob(glob);
    let fixed: PathBuf =
        Path::new(glob).components().take_while(|c| !is_glob(&c.as_os_str().to_string_lossy())).collect();
    let start = root.join(&fixed);
    let Ok(metadata) = start.metadata() else {
        let dangling = start.is_symlink().then(|| fixed.clone());
        return Ok(Listing {
            files: dangling.into_iter().collect(),
            walked: vec![Walked { path: fixed, stat: None }],
            at_ns,
        });
    };
    if !metadata.is_dir() {
        let files = if whole { vec![fixed.clone()] } else { Vec::new() };
        return Ok(Listing { files, walked: vec![Walked { path: fixed, stat: Some(Stat::of(&metadata)) }], at_ns });
    }
    let matcher = compile(glob)?;
    let depth_max = match whole || glob.contains("**") {
        true => usize::MAX,
        false => Path::new(glob).components().count() - fixed.components().count(),
    };
    let walk = WalkDir::new(&start).sort_by_file_name().max_depth(depth_max);
    let mut listing = Listing { at_ns, ..Listing::default() };
    let mut entries = walk.into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // It went while the walk was under way; the directory it was in does not hold as evidence then.
            Err(e) if e.depth() > 0 && e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {
                continue;
            }
            other => other?,
        };
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        if entry.file_type().is_dir() || entry.depth() == 0 {
            let ours = relative == Path::new("out") || entry.file_name() == ".effai" || entry.file_name() == ".git";
            if ours && entry.depth() > 0 {
                entries.skip_current_dir();
                continue;
            }
            if entry.depth() >= depth_max {
                continue;
            }
            listing.walked.push(Walked { path: relative.to_owned(), stat: Stat::at(entry.path()) });
            if entry.depth() > 0 && entry.path().join("CACHEDIR.TAG").exists() {
                entries.skip_current_dir();
            }
            continue;
        }
        if whole || matcher.is_match(relative) {
            listing.files.push(relative.to_owned());
        }
    }
    listing.files.sort();
    Ok(listing)
}

/// The files below `root` that a glob matches, relative to it and sorted; see [`list`].
pub fn expand(root: &Path, glob: &str) -> Result<Vec<PathBuf>, GlobError> {
    Ok(list(root, glob)?.files)
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, glob: &str) -> Vec<String> {
        expand(root, glob).expect("listed").iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn a_directory_is_all_below_it_but_caches_and_our_own() {
        let dir = tempfile::tempdir().expect("made");
        for file in ["a/x.txt", "a/out/y.txt", "a/.git/z", "out/o", ".effai/e", "t/CACHEDIR.TAG", "t/u", "a/b/w.md"] {
            crate::util::fs::write(&dir.path().join(file), b"").expect("written");
        }
        assert_eq!(names(dir.path(), "a"), ["a/b/w.md", "a/out/y.txt", "a/x.txt"]);
        assert_eq!(names(dir.path(), "a/*.txt"), ["a/x.txt"]);
        assert_eq!(names(dir.path(), "**/*.txt"), ["a/out/y.txt", "a/x.txt"]);
        assert_eq!(names(dir.path(), "**"), ["a/b/w.md", "a/out/y.txt", "a/x.txt"]);
        assert_eq!(names(dir.path(), "nothing/*.txt"), [""; 0]);
    }

    #[test]
    fn a_listing_holds_until_a_name_appears_or_goes() {
        let dir = tempfile::tempdir().expect("made");
        let root = dir.path();
        crate::util::fs::write(&root.join("a/b/x"), b"").expect("written");
        let later = |mut listing: Listing| {
            listing.at_ns += 1_000_000_000;
            listing
        };
        let listing = later(list(root, "a/**").expect("listed"));
        assert!(listing.holds(root));
        crate::util::fs::write(&root.join("a/b/x"), b"other content").expect("written");
        assert!(listing.holds(root), "content is not the listing's business");
        crate::util::fs::write(&root.join("a/b/y"), b"").expect("written");
        assert!(!listing.holds(root));
        let none = later(list(root, "z").expect("listed"));
        assert!(none.holds(root));
        crate::util::fs::write(&root.join("z"), b"").expect("written");
        assert!(!none.holds(root));
    }
}
