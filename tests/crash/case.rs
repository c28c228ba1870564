//! A generated project of real programs, the program run in it and killed, and what must hold afterwards.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::engine::graphs::Rng;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything below a directory: for each file its content, executable bit and where a link leads.
pub(crate) type Files = BTreeMap<PathBuf, (Vec<u8>, bool, Option<PathBuf>)>;

/// A project and a store of its own.
pub(crate) struct Case {
    dir: tempfile::TempDir,
    labels: Vec<String>,
    recipe: String,
    inputs: BTreeMap<&'static str, String>,
}

pub(crate) struct Ended {
    /// None if it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The labels that ran.
    pub(crate) fn ran(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|l| l.strip_prefix("run ")).map(str::trim).collect()
    }
}

impl Case {
    /// A graph of a few targets: one file, several, one of more than a mebibyte, executables, directories, links.
    pub(crate) fn generate(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut labels: Vec<String> = Vec::new();
        let mut recipe = String::new();
        for n in 0..3 + rng.below(4) {
            let label = if rng.below(2) == 0 { format!("t{n}") } else { format!("d/t{n}") };
            let mut needs: Vec<String> = (0..rng.below(3).min(n)).map(|_| labels[rng.below(n)].clone()).collect();
            needs.sort();
            needs.dedup();
            let input = ["a.txt", "b.txt"][rng.below(2)];
            let read = format!("cat {input} $(find -L {} -type f | sort)", needs.join(" "));
            let read = if needs.is_empty() { format!("cat {input}") } else { read };
            let (run, outputs) = match if n == 0 { 1 } else { rng.below(5) } {
                0 => (format!("{read} | sort > o"), "output \"o\""),
                1 => (format!("{read} > o; seq 200000 >> o; echo small > p"), "output \"o\"; output \"p\""),
                2 => (
                    format!("{read} | cksum > x; chmod +x x; mkdir -p y/z; cp x y/z/plain; chmod 644 y/z/plain"),
                    "output \"x\"; output \"y\"",
                ),
                3 => (format!("mkdir e; {read} | tail -n 3 > e/o; ln -s o e/l; ln -s gone e/m"), "output \"e\""),
                _ => (format!("{read} | wc -l > o"), "output \"o\""),
            };
            let needs: String = needs.iter().map(|label| format!("needs \"{label}\"; ")).collect();
            recipe += &format!(
                "command \"{label}\" {{ run \"sh\" \"-c\" \"{run}\"; input \"{input}\"; {needs}{outputs}; }}\n"
            );
            labels.push(label);
        }
        Self::with(labels, recipe)
    }

    /// Two targets, for going through every step.
    pub(crate) fn small() -> Self {
        let recipe = "command \"a\" { run \"sh\" \"-c\" \"cat a.txt b.txt > o; ln -s o l; seq 200000 > p\"; \
                      input \"?.txt\"; output \"o\"; output \"l\"; output \"p\"; }\n\
                      command \"b\" { run \"sh\" \"-c\" \"sort a/o > s; chmod +x s; echo hello > t\"; \
                      needs \"a\"; output \"s\"; output \"t\"; }\n";
        Self::with(vec!["a".into(), "b".into()], recipe.into())
    }

    /// Two files that share most of their bytes, and what needs them: a prune to 2 MiB packs one.
    pub(crate) fn models() -> Self {
        let recipe = "default \"c\"\n\
                      command \"a\" { run \"sh\" \"-c\" \"(cat b.txt; seq 200000) > m\"; input \"b.txt\"; output \"m\"; }\n\
                      command \"b\" { run \"sh\" \"-c\" \"(cat b.txt; seq 180000; seq 50000) > m\"; input \"b.txt\"; \
                      output \"m\"; }\n\
                      command \"c\" { run \"sh\" \"-c\" \"cat a/m b/m | cksum > o\"; needs \"a\"; needs \"b\"; output \"o\"; }\n";
        Self::with(vec!["c".into()], recipe.into())
    }

    pub(crate) fn with(labels: Vec<String>, recipe: String) -> Self {
        let dir = tempfile::tempdir().expect("made");
        let case =
            Self { dir, labels, recipe, inputs: BTreeMap::from([("a.txt", "1\n".into()), ("b.txt", "2\n".into())]) };
        case.write(&case.project());
        case
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub(crate) fn labels(&self) -> &[String] {
        &self.labels
    }

    fn write(&self, project: &Path) {
        std::fs::create_dir_all(project).expect("made");
        let now = std::fs::read_to_string(project.join("effai.kdl")).unwrap_or_default();
        if now != self.recipe {
            std::fs::write(project.join("effai.kdl"), &self.recipe).expect("written");
        }
        for (name, text) in &self.inputs {
            std::fs::write(project.join(name), text).expect("written");
        }
    }

    /// Other content in an input.
    pub(crate) fn edit(&mut self, name: &'static str, text: impl std::fmt::Display) {
        self.inputs.insert(name, format!("{text}\n"));
        self.write(&self.project());
    }

    pub(crate) fn command(&self, args: &[&str], project: &Path, cache: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_effai"));
        command.args(args).current_dir(project).env("EFFAI_CACHE_DIR", cache).env("HOME", self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn effai(&self, args: &[&str]) -> Ended {
        ended(self.command(args, &self.project(), &self.cache()))
    }

    /// Runs it until its Nth step; says whether it came to its own end before.
    pub(crate) fn crashed_at(&self, step: u64, args: &[&str]) -> bool {
        let mut command = self.command(args, &self.project(), &self.cache());
        let end = ended(
            command.env("EFFAI_CRASH_AT", step.to_string()).args(["-j", "1"].iter().filter(|_| args[0] == "build")),
        );
        if let Some(code) = end.code {
            assert!(code <= 1, "step {step}: {}", end.stderr);
        }
        end.code.is_some()
    }

    /// Starts it, with a process group of its own.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(args, &self.project(), &self.cache());
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// What lies in `out/`.
    pub(crate) fn outputs(&self) -> Files {
        files(&self.project().join("out"))
    }

    /// What a build with an empty store gives in `out/`.
    pub(crate) fn clean(&self) -> Files {
        let (project, cache) = (self.dir.path().join("clean/project"), self.dir.path().join("clean/cache"));
        self.write(&project);
        let end = ended(&mut self.command(&["build"], &project, &cache));
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        let files = files(&project.join("out"));
        std::fs::remove_dir_all(self.dir.path().join("clean")).expect("removed");
        files
    }

    /// What must hold after whatever happened: no action goes on, the next build gives what a clean one gives, the one
    /// after that runs nothing, the store is whole, the record can be read, nothing of the user's was moved.
    pub(crate) fn is_mended(&self, expected: &Files) -> Ended {
        self.is_quiet();
        let next = self.effai(&["build"]);
        assert_eq!(next.code, Some(0), "the next build: {}", next.stderr);
        assert!(!next.stderr.contains("warning"), "{}", next.stderr);
        self.is_right(expected);
        next
    }

    /// As [`Case::is_mended`], once the build that mends has run.
    pub(crate) fn is_right(&self, expected: &Files) {
        let got = self.outputs();
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (path, file) in expected {
            assert!(got[path] == *file, "out/{} is not what a clean build gives", path.display());
        }
        let third = self.effai(&["build"]);
        assert_eq!(third.code, Some(0), "{}", third.stderr);
        assert!(third.ran().is_empty() && !third.stderr.contains("restored"), "not still: {}", third.stderr);
        self.verifies();
        let log = self.effai(&["log"]);
        assert_eq!(log.code, Some(0), "{}", log.stderr);
        assert_eq!(names(&self.project().join(".effai/scratch")), Vec::<String>::new(), "scratch directories stay");
        assert!(!self.project().join(".effai/edited").exists(), "files were taken for the user's");
    }

    /// The store is whole, but for what the dead left; and is clean after a repair.
    pub(crate) fn verifies(&self) {
        let verify = self.effai(&["cache", "verify", "--json"]);
        for line in verify.stdout.lines() {
            let problem: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(matches!(problem["problem"].as_str(), Some("leftover" | "stale-row")), "{line}");
        }
        if verify.code != Some(0) {
            assert!(!verify.stdout.is_empty(), "{}", verify.stderr);
            assert_eq!(self.effai(&["cache", "verify", "--repair"]).code, Some(1));
            let again = self.effai(&["cache", "verify"]);
            assert_eq!((again.code, again.stdout.as_str()), (Some(0), ""), "{}", again.stderr);
        }
    }

    /// Waits until no process has anything to do with this case's directory.
    pub(crate) fn is_quiet(&self) {
        until("the actions of the dead build end", || self.alive().is_empty());
    }

    /// Processes that work in this case's directory.
    pub(crate) fn alive(&self) -> Vec<i32> {
        let dir = self.dir.path();
        let mut alive = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if std::fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|cwd| cwd.as_os_str().as_bytes().starts_with(dir.as_os_str().as_bytes()))
            {
                alive.push(pid);
            }
        }
        alive
    }
}

pub(crate) fn ended(command: impl std::borrow::BorrowMut<Command>) -> Ended {
    let mut command = command;
    let output = command.borrow_mut().output().expect("it starts");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks again and again until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// All files below a directory, by path.
pub(crate) fn files(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(below) = dirs.pop() {
        for name in names(&dir.join(&below)) {
            let path = below.join(name);
            let full = dir.join(&path);
            if full.is_dir() && !full.is_symlink() {
                dirs.push(path);
                continue;
            }
            let link = full.read_link().ok();
            let executable = full.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
            files.insert(path, (std::fs::read(&full).unwrap_or_default(), executable, link));
        }
    }
    files
}
