//! The lock, notes, history and hooks, with git itself on real repositories.

mod ci;
mod hooks;
mod revisions;
pub(crate) mod signed;
mod story;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Project, Run};

/// Counts the words of a text: a dataset, a model and a report, whose numbers follow from the text.
const RECIPE: &str = r##"
command "data/words" {
    run "sort" "words.txt" "-o" "words"
    input "words.txt"
    output "words"
}

command "models/counts" {
    run "sh" "-c" #"""
        uniq -c data/words/words > counts
        printf '{"event":"metric","name":"distinct","value":%d}\n' "$(wc -l < counts)" >&"$EFFAI_EVENTS"
        """#
    needs "data/words"
    output "counts"
}

command "reports/top" {
    run "sh" "-c" "sort -rn models/counts/counts | head -n 3 > top"
    needs "models/counts"
    output "top"
}

default "reports/top"
"##;

/// A project in a repository, with one commit and its lock.
fn repository() -> Project {
    let project = Project::new(RECIPE);
    project.write(".gitignore", "out/\n");
    project.write("words.txt", "tree\nnode\nleaf\nnode\n");
    let root = project.path(".");
    git(&root, &["init", "--quiet", "--initial-branch", "main"]);
    let run = project.effai(&["build", "--lock"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    commit(&project, "Words of a tree");
    project
}

/// git in a directory, with nothing of the user's configuration; its standard output.
#[track_caller]
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let run = try_git(dir, args);
    assert_eq!(run.code, 0, "git {}: {}{}", args.join(" "), run.stdout, run.stderr);
    run.stdout.trim_end().to_owned()
}

fn try_git(dir: &Path, args: &[&str]) -> Run {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir);
    Run::of(alone(&mut command, dir).output().expect("git starts"))
}

/// With a name for commits, effai on the search path, and no configuration but the repository's.
fn alone<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_effai")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a search path"));
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    for (name, value) in [("GIT_AUTHOR_NAME", "A"), ("GIT_COMMITTER_NAME", "A")] {
        command.env(name, value);
    }
    command
        .env("GIT_AUTHOR_EMAIL", "a@example.com")
        .env("GIT_COMMITTER_EMAIL", "a@example.com")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", home)
        .env("EFFAI_CACHE_DIR", home.join("../cache"))
        .env("PATH", path)
}

/// Commits everything that is not ignored.
#[track_caller]
fn commit(project: &Project, title: &str) -> String {
    let root = project.path(".");
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "--allow-empty", "-m", title]);
    git(&root, &["rev-parse", "HEAD"])
}

/// A clone of the project's repository beside it.
fn clone(project: &Project, name: &str, more: &[&str]) -> PathBuf {
    let to = project.path("..").join(name);
    let from = format!("file://{}", project.path(".").canonicalize().expect("there").display());
    git(&project.path("."), &[&["clone", "--quiet"], more, &[&from, to.to_str().expect("text")]].concat());
    to
}

/// effai in another directory than the project's, with the same store.
fn effai_at(project: &Project, dir: &Path, args: &[&str]) -> Run {
    project.effai(&[&["-C", dir.to_str().expect("text")], args].concat())
}

/// What ran, of a build's lines.
fn ran(run: &Run) -> Vec<String> {
    run.stderr.lines().filter_map(|line| line.strip_prefix("run ")).map(|label| label.trim().to_owned()).collect()
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

/// A build that ends well; what ran.
#[track_caller]
fn built(project: &Project, dir: &Path, args: &[&str]) -> Vec<String> {
    let run = effai_at(project, dir, &[&["build"], args].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    ran(&run)
}

const NONE: [&str; 0] = [];
