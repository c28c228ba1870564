//! Which files a program opens, by `strace`: what its target would have to declare.
//!
//! The program runs where its declared files are, and beside them links to all else of the project, so that it does not
//! end at the first file it lacks. It may read everything, and write where it may otherwise.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::program::Program;
use crate::util::fs::{self, FsError};

/// The calls that open files; a `?` is for machines that do not have it.
const CALLS: &str = "trace=?open,openat,openat2,execve";

/// What is not laid out beside the declared files.
const NOT_LAID: [&str; 2] = [".effai", ".git"];

/// What a program opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Files that were read, links followed. Directories are not among them.
    pub read: BTreeSet<PathBuf>,
}

/// The program that runs another and writes to files beginning with `to` what it opens.
pub(super) fn watched(program: &Program, to: &Path) -> Program {
    let args = ["-ff", "-qq", "-y", "-z", "-s", "4096", "-e", CALLS, "-e", "signal=none", "-o"].map(OsString::from);
    program
        .run_by("strace", args.into_iter().chain([to.into(), "--".into()]))
        .install("effai looks on by `strace`, on Linux: install it (`apt install strace`, `dnf install strace`)")
        .uses(to.parent().unwrap_or(to))
        .reads("/")
}

/// Lays links to all of the project beside what lies in `work`. Where `outputs` are to be made there is none.
pub(super) fn lay_out_all(project: &Path, work: &Path, outputs: &[PathBuf]) -> Result<(), FsError> {
    beside(project, work, Path::new(""), outputs)
}

fn beside(project: &Path, work: &Path, below: &Path, outputs: &[PathBuf]) -> Result<(), FsError> {
    for from in fs::list(&project.join(below))? {
        let path = below.join(from.file_name().unwrap_or_default());
        if NOT_LAID.iter().any(|name| path == Path::new(name)) || outputs.contains(&path) {
            continue;
        }
        let to = work.join(&path);
        let is_on_the_way = || outputs.iter().any(|output| output.starts_with(&path));
        if from.is_dir() && !to.is_symlink() && (to.is_dir() || is_on_the_way()) {
            beside(project, work, &path, outputs)?;
        } else if to.symlink_metadata().is_err() {
            fs::create_dir_all(to.parent().unwrap_or(work))?;
            fs::at("link", &to, std::os::unix::fs::symlink(&from, &to))?;
        }
    }
    Ok(())
}

impl Opened {
    /// What was written to files beginning with `to`; a program's path that is not absolute is one from `dir`.
    pub fn of(to: &Path, dir: &Path) -> Result<Self, FsError> {
        let mut all = Self::default();
        let name = to.file_name().unwrap_or_default().as_encoded_bytes();
        for file in fs::list(to.parent().unwrap_or(to))? {
            if file.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(name)) {
                let bytes = fs::read(&file)?;
                all.read.extend(String::from_utf8_lossy(&bytes).lines().filter_map(|line| read(line, dir)));
            }
        }
        all.read.retain(|path| path.is_file());
        Ok(all)
    }
}

/// The file that a line of `strace` says was opened to be read.
fn read(line: &str, dir: &Path) -> Option<PathBuf> {
    if let Some(rest) = line.strip_prefix("execve(\"") {
        let path = dir.join(plain(rest.split_once("\", [")?.0));
        return path.canonicalize().ok();
    }
    if line.contains("O_WRONLY") || line.contains("O_DIRECTORY") {
        return None;
    }
    // `= 3</path/of/it>`; what is no file has another form, `pipe:[1]`.
    let path = line.rsplit_once(" = ")?.1.split_once("<")?.1.strip_suffix('>')?;
    path.starts_with('/').then(|| plain(path).into())
}

/// Without the escapes of C that it writes for what is not ASCII.
fn plain(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes().peekable());
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let mut octal = None;
        while let Some(digit) = rest.next_if(|b| (b'0'..=b'7').contains(b)) {
            octal = Some(octal.unwrap_or(0) * 8 + u32::from(digit - b'0'));
        }
        match octal {
            Some(byte) => bytes.push(byte as u8),
            None => bytes.push(match rest.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(other) => other,
                None => b'\\',
            }),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace_give_files_that_were_read() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(read(line, "/".as_ref()), expected.map(PathBuf::from));
        check(r#"openat(AT_FDCWD</w>, "x.csv", O_RDONLY|O_CLOEXEC) = 3</p/x.csv>"#, Some("/p/x.csv"));
        check(r#"openat(AT_FDCWD</w>, "a b", O_RDWR) = 3</p/\303\244 b>"#, Some("/p/ä b"));
        check(r#"openat(AT_FDCWD</w>, "o", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</w/o>"#, None);
        check(r#"openat(AT_FDCWD</w>, ".", O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY) = 3</w>"#, None);
        check(r#"openat(AT_FDCWD</w>, "/dev/fd/3", O_RDONLY) = 3<pipe:[12]>"#, None);
        check("+++ exited with 0 +++", None);
        check(
            r#"execve("/proc/self/exe", ["a", "b"], 0x7ff /* 9 vars */) = 0"#,
            std::env::current_exe().ok().as_deref().and_then(Path::to_str),
        );
    }
}
