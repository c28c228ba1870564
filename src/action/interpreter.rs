//! Python interpreters of this machine: which one a version means, found without asking again what was asked before.
//!
//! Interpreters are looked for on the search path, and where pyenv keeps its own. Each that may be meant is started once to
//! say what it is. What was found holds while everything that was looked at on the way looks the same: each name that an
//! interpreter might have had, there or not, and the lock that says which versions are allowed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::program::Program;
use crate::fingerprint::evidence::Stat;
use crate::util::fs;

/// The newest Python 3 whose name is looked for where no version is asked for and `python3` will not do.
const NEWEST_MINOR: u32 = 30;
/// The oldest.
const OLDEST_MINOR: u32 = 8;

/// Says what an interpreter is. The path is that of the one it stands on, where it is a virtual environment's.
const QUESTION: &str = r#"
import json, os, platform, sys, sysconfig
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (AttributeError, OSError, ValueError):
    libc = "musl" if "musl" in (sysconfig.get_config_var("SOABI") or "") else ""
if sys.platform == "darwin":
    libc = "macOS " + platform.mac_ver()[0].split(".")[0]
path = getattr(sys, "_base_executable", None) or sys.executable
if sys.prefix != sys.base_prefix and path == sys.executable:
    path = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
parts = [platform.python_implementation() + " " + platform.python_version(), sysconfig.get_platform(), libc]
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    parts.append("free-threaded")
print(json.dumps({"version": list(sys.version_info[:3]), "words": [p for p in parts if p], "path": path}))
"#;

/// An interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Its version: major, minor, patch.
    pub version: [u32; 3],
    /// Implementation and version, platform, C library.
    pub words: Vec<String>,
    /// Where it is.
    pub path: PathBuf,
}

impl std::fmt::Display for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", self.words.join(", "), self.path.display())
    }
}

/// Which interpreter is meant.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// A version, or the beginning of one: `3`, `3.11`, `3.11.7`.
    pub version: &'a str,
    /// The project's `uv.lock`, which says which versions are allowed.
    pub lock: &'a Path,
}

/// What was found, and what proves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    search_path: OsString,
    looked_at: Vec<Looked>,
    found: Option<Interpreter>,
}

/// A path and what was there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Looked {
    #[serde(with = "crate::util::paths::one")]
    path: PathBuf,
    stat: Option<Stat>,
}

impl Seen {
    /// Looks for the interpreter that is meant.
    pub fn look(wish: Wish<'_>) -> Self {
        let search_path = crate::env::path();
        let mut search = Search {
            dir: wish.lock.parent().unwrap_or(Path::new("/")).to_owned(),
            looked_at: Vec::new(),
            asked: HashMap::new(),
        };
        search.see(wish.lock);
        let allowed = allowed(wish.lock);
        let dirs: Vec<PathBuf> = std::env::split_paths(&search_path).filter(|dir| dir.is_absolute()).collect();
        let found = search.find(&dirs, wish.version, allowed.as_deref());
        Self { search_path, looked_at: search.looked_at, found }
    }

    /// Whether another look would find the same, as far as can be seen without starting anything.
    pub fn holds(&self) -> bool {
        self.search_path == crate::env::path()
            && self.looked_at.iter().all(|looked| Stat::at(&looked.path) == looked.stat)
    }

    /// What was found.
    pub fn found(&self) -> Option<&Interpreter> {
        self.found.as_ref()
    }
}

/// What the lock says of the versions that are allowed: `>=3.10, <3.13`.
pub fn allowed(lock: &Path) -> Option<String> {
    let text = fs::read_text(lock).ok()?;
    let head = text.lines().take_while(|line| !line.starts_with('['));
    let value = head.filter_map(|line| line.strip_prefix("requires-python")?.trim_start().strip_prefix('=')).next()?;
    Some(value.trim().trim_matches('"').to_owned())
}

struct Search {
    /// Where interpreters are started: a shim may heed a file there.
    dir: PathBuf,
    looked_at: Vec<Looked>,
    /// By real path: several names lead to one interpreter.
    asked: HashMap<PathBuf, Option<Interpreter>>,
}

impl Search {
    fn find(&mut self, dirs: &[PathBuf], version: &str, allowed: Option<&str>) -> Option<Interpreter> {
        let fits = |found: &Interpreter| {
            begins_with(found.version, version) && allowed.is_none_or(|allowed| allows(allowed, found.version))
        };
        let minor = version.split('.').nth(1).is_some();
        let short: String = version.split('.').take(2).collect::<Vec<_>>().join(".");
        let named = if minor { vec![format!("python{short}")] } else { Vec::new() };
        let plain = ["python3".to_owned(), "python".to_owned()];
        let names: Vec<String> = named.into_iter().chain(plain).collect();
        if let Some(found) = self.among(dirs, &names, &fits) {
            return Some(found);
        }
        if !minor {
            let all: Vec<String> = (OLDEST_MINOR..=NEWEST_MINOR).rev().map(|n| format!("python3.{n}")).collect();
            if let Some(found) = self.among(dirs, &all, &fits) {
                return Some(found);
            }
        }
        // pyenv's programs on the search path only know the versions that are switched on.
        let shims = dirs.iter().filter(|dir| dir.ends_with("shims")).filter_map(|dir| dir.parent());
        let kept: Vec<PathBuf> = shims.map(|dir| dir.join("versions")).collect();
        kept.iter().find_map(|versions| {
            self.see(versions);
            let mut all: Vec<PathBuf> = fs::list(versions).ok()?;
            all.sort_by_key(|dir| std::cmp::Reverse(numbers(&dir.file_name().unwrap_or_default().to_string_lossy())));
            let meant = |dir: &PathBuf| {
                let numbers = numbers(&dir.file_name().unwrap_or_default().to_string_lossy());
                numbers.len() == 3 && begins_with([numbers[0], numbers[1], numbers[2]], version)
            };
            let bins: Vec<PathBuf> = all.into_iter().filter(meant).map(|dir| dir.join("bin")).collect();
            self.among(&bins, &["python3".to_owned()], &fits)
        })
    }

    /// The first that fits: in the order of directories, and in each of the names.
    fn among(
        &mut self,
        dirs: &[PathBuf],
        names: &[String],
        fits: &dyn Fn(&Interpreter) -> bool,
    ) -> Option<Interpreter> {
        for path in dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name))) {
            let is_there = self.see(&path);
            let Some(found) = is_there.then(|| self.ask(&path)).flatten() else { continue };
            if fits(&found) {
                self.see(&found.path);
                return Some(found);
            }
        }
        None
    }

    fn see(&mut self, path: &Path) -> bool {
        let stat = Stat::at(path);
        self.looked_at.push(Looked { path: path.to_owned(), stat });
        stat.is_some()
    }

    /// Starts an interpreter to say what it is; none if it is none.
    fn ask(&mut self, path: &Path) -> Option<Interpreter> {
        let real = path.canonicalize().ok()?;
        if let Some(known) = self.asked.get(&real) {
            return known.clone();
        }
        // A shim of pyenv: which interpreter it starts stands in a file.
        if path.parent().is_some_and(|dir| dir.ends_with("shims")) {
            let version = path.ancestors().nth(2).map(|root| root.join("version"));
            if let Some(version) = version {
                self.see(&version);
            }
        }
        let said = Program::new(path).args(["-I", "-c", QUESTION]).dir(&self.dir).ask();
        let found = said.and_then(|said| serde_json::from_str(said.trim()).ok());
        self.asked.insert(real, found.clone());
        found
    }
}

/// Whether a version is the one that is asked for, or one of those.
fn begins_with(version: [u32; 3], asked: &str) -> bool {
    let asked = asked.split('.').map(|part| part.parse::<u32>().ok());
    asked.zip(version).all(|(asked, number)| asked == Some(number))
}

/// Whether a version is one of those that a project allows: conditions with commas between, as Python has them.
fn allows(conditions: &str, version: [u32; 3]) -> bool {
    conditions.split(',').map(str::trim).filter(|one| !one.is_empty()).all(|one| {
        let at = one.find(|c: char| c.is_ascii_digit()).unwrap_or(one.len());
        let (sign, text) = (one[..at].trim(), one[at..].trim());
        let is_wild = text.ends_with(".*");
        let asked = numbers(text.trim_end_matches(".*"));
        let begins = asked.iter().zip(version).all(|(asked, number)| *asked == number);
        let whole = [0, 1, 2].map(|i| asked.get(i).copied().unwrap_or(0));
        match sign {
            ">=" => version >= whole,
            "<=" => version <= whole,
            ">" => version > whole,
            "<" => version < whole,
            "!=" => {
                if is_wild {
                    !begins
                } else {
                    version != whole
                }
            }
            "==" if is_wild => begins,
            "==" | "===" => version == whole,
            // The last number may grow, those before it stay.
            "~=" => version >= whole && asked.iter().zip(version).rev().skip(1).all(|(asked, n)| *asked == n),
            // uv judges what is not known here.
            _ => true,
        }
    })
}

/// The numbers of a version; what follows them is left out: `3.13.0rc1` is 3, 13, 0.
fn numbers(version: &str) -> Vec<u32> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    version.split('.').map_while(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_for_whole_or_by_its_beginning() {
        for (asked, fits) in [("3", true), ("3.11", true), ("3.11.7", true), ("3.1", false), ("3.11.8", false)] {
            assert_eq!(begins_with([3, 11, 7], asked), fits, "{asked}");
        }
    }

    #[test]
    fn a_project_allows_versions_by_conditions() {
        for (conditions, fits) in [
            ("", true),
            (">=3.10", true),
            (">=3.10, <3.13", true),
            (">=3.12", false),
            ("<3.11", false),
            (">3.11.7", false),
            ("==3.11.*", true),
            ("!=3.11.*", false),
            ("!=3.11.6", true),
            ("==3.11", false),
            ("~=3.11", true),
            ("~=3.10", true),
            ("~=3.11.5", true),
            ("~=3.10.5", false),
        ] {
            assert_eq!(allows(conditions, [3, 11, 7]), fits, "{conditions}");
        }
    }

    #[test]
    fn the_lock_says_what_is_allowed() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = dir.path().join("uv.lock");
        assert_eq!(allowed(&lock), None);
        fs::write(&lock, b"version = 1\nrequires-python = \">=3.10\"\n\n[[package]]\nname = \"a\"\n").expect("written");
        assert_eq!(allowed(&lock).as_deref(), Some(">=3.10"));
        fs::write(&lock, b"version = 1\n[[package]]\nrequires-python = \"x\"\n").expect("written");
        assert_eq!(allowed(&lock), None);
    }

    #[test]
    fn what_was_found_holds_while_all_that_was_looked_at_looks_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let seen = |names: &[(&str, bool)]| Seen {
            search_path: crate::env::path(),
            looked_at: names
                .iter()
                .map(|(name, is_there)| {
                    let path = dir.path().join(name);
                    Looked { stat: is_there.then(|| Stat::at(&path).expect("there")), path }
                })
                .collect(),
            found: None,
        };
        fs::write(&dir.path().join("python3"), b"1").expect("written");
        let first = seen(&[("python3", true), ("python", false)]);
        assert!(first.holds());
        fs::write(&dir.path().join("python"), b"1").expect("written");
        assert!(!first.holds(), "another name may be meant now");
        let second = seen(&[("python3", true), ("python", true)]);
        fs::write(&dir.path().join("python3"), b"22").expect("written");
        assert!(!second.holds(), "it is another one");
    }
}
