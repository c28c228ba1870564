//! What a failed program wanted to read and was not given, by what it said.
//!
//! It runs where only its declared files are: one that is missing in its recipe is not found, or refused by the
//! sandbox. The system tells nobody which, so the program's last words are searched for it.

use std::path::{Component, Path};

/// How programs say that they could not open a file.
const COMPLAINTS: &[&str] = &["no such file", "not found", "permission denied", "cannot open", "can't open"];

/// The lines that a declaration may lack: `input "data/x.csv"`.
pub(super) fn lines(said: &[&str], project: &Path, work: &Path) -> Vec<String> {
    let complains = |line: &&&str| {
        let line = line.to_lowercase();
        COMPLAINTS.iter().any(|c| line.contains(c))
    };
    let mut lines = Vec::new();
    for word in said.iter().filter(complains).flat_map(|line| words(line)) {
        let Some(line) = line(Path::new(word), project, work) else { continue };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What may be a path.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || "'\"`:,;()[]<>=".contains(c) || "\u{2018}\u{2019}".contains(c);
    line.split(ends).map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty())
}

fn line(path: &Path, project: &Path, work: &Path) -> Option<String> {
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
    let inside = match path.is_absolute() {
        true => path.strip_prefix(project).ok(),
        false => Some(path.strip_prefix(".").unwrap_or(path)),
    };
    match inside {
        Some(inside) => {
            let ours = [".effai", "out", ".git"].iter().any(|dir| inside.starts_with(dir));
            if inside.as_os_str().is_empty() || !plain(inside) || ours || work.join(inside).exists() {
                return None;
            }
            let real = project.join(inside);
            match real.exists() {
                true => Some(format!("input \"{}\"", inside.display())),
                // It was to be written there, and not where the program runs.
                false => (path.is_absolute() && real.parent().is_some_and(Path::is_dir))
                    .then(|| format!("output \"{}\" // and write it where it runs", inside.display())),
            }
        }
        None if !plain(path) || super::sandbox::is_open(path) => None,
        None if path.exists() => Some(format!("reads \"{}\"", path.display())),
        None => {
            let dir = path.parent().filter(|dir| dir.is_dir() && !super::sandbox::is_open(dir))?;
            match dir.starts_with("/tmp") {
                true => Some("private-tmp // or write to $TMPDIR".into()),
                false => Some(format!("untracked \"{}\" // or write to $TMPDIR", dir.display())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_project_and_not_in_the_scratch_directory_is_undeclared() {
        let dir = tempfile::tempdir().expect("a directory");
        let (project, work) = (dir.path().join("project"), dir.path().join("work"));
        for file in ["data/x.csv", "helper.py", "given.txt"] {
            crate::util::fs::write(&project.join(file), b"").expect("written");
        }
        crate::util::fs::write(&work.join("given.txt"), b"").expect("written");
        let absolute = format!("cat: {}: Permission denied", project.join("helper.py").display());
        let said = [
            "Traceback given.txt helper.py",
            "FileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'",
            "cat: given.txt: No such file or directory",
            "cat: nowhere.txt: No such file or directory",
            "sh: 1: cannot open ./data/x.csv: No such file",
            &absolute,
        ];
        assert_eq!(lines(&said, &project, &work), ["input \"data/x.csv\"", "input \"helper.py\""]);
    }
}
