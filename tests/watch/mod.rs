//! `effai watch`, driven by its JSON lines. Nothing here waits for time to pass: each step waits for a line that says it
//! happened, and what must not happen is known not to have by what comes next.

mod asked;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Project;

const TWO: &str = r#"
project "two"
command "a" { run "sh" "-c" "tr a-z A-Z < a.txt > o"; input "a.txt"; output "o"; }
command "b" { run "sh" "-c" "cat src/*.txt > o"; input "src/*.txt"; output "o"; }
"#;

/// A watch under way.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Starts a watch and waits for the end of its first build.
    fn start(project: &Project, args: &[&str]) -> Self {
        let mut watching = Self::begin(project, args);
        watching.until("ended");
        watching
    }

    fn begin(project: &Project, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_effai"))
            .args(["watch", "--json"])
            .args(args)
            .current_dir(project.path("."))
            .env("EFFAI_CACHE_DIR", project.cache())
            .env("HOME", project.path(".."))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("the watch goes on").expect("text");
        serde_json::from_str(&line).expect("an object")
    }

    /// The events up to the first of this name, which is the last of them.
    fn until(&mut self, name: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if events.last().expect("pushed")["event"] == name {
                return events;
            }
        }
    }

    /// The next thing that changed, and the labels that ran for it.
    fn round(&mut self) -> (String, Vec<String>) {
        let mut changed = self.until("changed");
        changed.retain(|event| event["event"] != "asked");
        assert_eq!(changed.len(), 1, "something happened before anything changed: {changed:?}");
        let events = self.until("ended");
        (text(&changed[0]["file"]), ran(&events))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it still runs");
    }

    /// Ends the watch and gives its exit code.
    fn end(mut self) -> i32 {
        self.signal(Signal::INT);
        self.lines.by_ref().for_each(|line| drop(line.expect("text")));
        self.child.wait().expect("it ends").code().unwrap_or(-1)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ran(events: &[Value]) -> Vec<String> {
    let mut ran: Vec<String> = labels(events, "started").collect();
    ran.sort();
    ran
}

fn labels<'a>(events: &'a [Value], name: &'a str) -> impl Iterator<Item = String> + 'a {
    events.iter().filter(move |e| e["event"] == name).map(|e| text(&e["label"]))
}

/// As many editors save: beside it, then renamed into place.
fn save_by_rename(path: &Path, content: &str) {
    let beside = path.with_extension("tmp~");
    std::fs::write(&beside, content).expect("written");
    std::fs::rename(&beside, path).expect("renamed");
}

fn two() -> Project {
    let project = Project::new(TWO);
    project.write("a.txt", "a");
    project.write("src/1.txt", "1");
    project
}

#[test]
fn an_edit_builds_what_reads_it_and_nothing_else() {
    let project = two();
    let mut watching = Watching::begin(&project, &[]);
    let begun = watching.until("ended");
    assert_eq!(ran(&begun), ["a", "b"]);
    let told = begun.iter().find(|e| e["event"] == "watching").expect("told what is watched");
    assert_eq!((told["files"].as_u64(), told["targets"].as_u64()), (Some(2), Some(2)), "{told}");
    project.write("a.txt", "other");
    assert_eq!(watching.round(), ("a.txt".into(), vec!["a".into()]));
    assert_eq!(project.read("out/a/o"), "OTHER");
    save_by_rename(&project.path("src/1.txt"), "one");
    assert_eq!(watching.round(), ("src/1.txt".into(), vec!["b".into()]));
    assert_eq!(project.read("out/b/o"), "one");
    assert_eq!(watching.end(), 0);
    let run = project.effai(&["build"]);
    assert!(run.stderr.contains("2 fresh"), "what was known is written down at the end: {}", run.stderr);
}

#[test]
fn what_builds_write_and_what_nobody_reads_begins_nothing() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    project.write("a.txt", "other");
    watching.round();
    // All of these come before the sentinel's, in the same directories.
    project.write("unread.txt", "x");
    project.write("src/unread.md", "x");
    project.write("out/a/o", "mine");
    project.write(".effai/x", "x");
    let same = project.read("a.txt");
    project.write("a.txt", &same);
    project.write("src/1.txt", "sentinel");
    assert_eq!(watching.round(), ("src/1.txt".into(), vec!["b".into()]));
}

#[test]
fn files_that_come_and_go_count_for_globs_and_new_directories_too() {
    let project = Project::new(
        "command \"c\" { run \"sh\" \"-c\" \"find src -type f | sort > o\"; input \"src/**\"; output \"o\"; }\n",
    );
    project.write("src/1.txt", "1");
    let mut watching = Watching::start(&project, &[]);
    project.write("src/2.txt", "2");
    assert_eq!(watching.round(), ("src/2.txt".into(), vec!["c".into()]));
    project.remove("src/1.txt");
    assert_eq!(watching.round(), ("src/1.txt".into(), vec!["c".into()]));
    project.write("src/deep/er/3.txt", "3");
    watching.round();
    while project.read("out/c/o") != "src/2.txt\nsrc/deep/er/3.txt\n" {
        watching.round();
    }
    // The new directory is watched as well, and a directory that takes another's place.
    project.write("src/deep/er/4.txt", "4");
    assert_eq!(watching.round().0, "src/deep/er/4.txt");
    project.write("other/9.txt", "9");
    std::fs::rename(project.path("src"), project.path("old")).expect("renamed");
    std::fs::rename(project.path("other"), project.path("src")).expect("renamed");
    watching.until("ended");
    while project.read("out/c/o") != "src/9.txt\n" {
        watching.until("ended");
    }
    project.write("src/10.txt", "10");
    watching.until("ended");
    assert_eq!(project.read("out/c/o"), "src/10.txt\nsrc/9.txt\n");
}

#[test]
fn a_file_that_goes_fails_its_readers_until_it_is_back() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    project.remove("a.txt");
    let events = watching.until("ended");
    let failed = events.iter().find(|e| e["outcome"]["outcome"] == "failed").expect("a fails");
    assert_eq!(failed["label"], "a");
    assert_eq!(failed["outcome"]["failure"]["message"], "there is no file `a.txt`");
    project.write("a.txt", "back");
    assert_eq!(watching.round(), ("a.txt".into(), vec!["a".into()]));
    assert_eq!(project.read("out/a/o"), "BACK");
}

#[test]
fn a_thousand_files_are_few_builds() {
    let project = two();
    let mut watching = Watching::start(&project, &["b"]);
    for i in 0..1000 {
        project.write(&format!("src/{i:04}.txt"), "x");
    }
    let mut builds = 0;
    while project.read("out/b/o").matches('x').count() < 1000 {
        watching.until("ended");
        builds += 1;
    }
    // One each half second for as long as the writing takes, and one after it; but for a machine that stands still.
    assert!(builds <= 20, "{builds} builds");
}

#[test]
fn a_branch_and_back_gives_what_was_there() {
    let project = two();
    (0..200).for_each(|i| project.write(&format!("src/f{i}.txt"), "main;"));
    let mut watching = Watching::start(&project, &["b"]);
    let before = project.read("out/b/o");
    let switch = |content: &str| {
        for i in 0..200 {
            let path = project.path(&format!("src/f{i}.txt"));
            if i % 3 == 0 && content == "side;" {
                std::fs::remove_file(path).expect("removed");
            } else {
                save_by_rename(&path, content);
            }
        }
    };
    switch("side;");
    while project.read("out/b/o").contains("main") || project.read("out/b/o").matches("side").count() != 133 {
        watching.until("ended");
    }
    switch("main;");
    while project.read("out/b/o") != before {
        watching.until("ended");
    }
}

#[test]
fn a_recipe_with_a_mistake_is_told_and_mended() {
    let project = two();
    let mut watching = Watching::start(&project, &["a"]);
    project.edit("effai.kdl", "input \"a.txt\"", "inputs \"a.txt\"");
    let stuck = watching.until("stuck").pop().expect("told");
    assert_eq!(stuck["message"], "1 mistake in the recipes");
    project.write("a.txt", "while stuck");
    project.edit("effai.kdl", "inputs \"a.txt\"", "input \"a.txt\"");
    assert_eq!(ran(&watching.until("ended")), ["a"]);
    assert_eq!(project.read("out/a/o"), "WHILE STUCK");
    project.edit("effai.kdl", "tr a-z A-Z < a.txt", "cat a.txt");
    assert_eq!(ran(&watching.until("ended")), ["a"]);
    assert_eq!(project.read("out/a/o"), "while stuck");
}

/// A pipe in the project that an action waits at.
fn gate(project: &Project, name: &str) -> String {
    let path = project.path(name);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");
    path.to_str().expect("text").to_owned()
}

/// Returns when an action waits at the gate, which lets it through when what is returned is dropped.
fn waits_at(project: &Project, name: &str) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open(project.path(name)).expect("opened")
}

#[test]
fn an_edit_while_actions_run_stops_only_those_that_read_it() {
    let project = two();
    let (one, two) = (gate(&project, "one"), gate(&project, "two"));
    let recipe = format!(
        "command \"slow\" {{ run \"sh\" \"-c\" \"read x < {one}; cat a.txt > o\"; input \"a.txt\"; output \"o\"; untracked \"{one}\"; }}\n\
         command \"other\" {{ run \"sh\" \"-c\" \"read x < {two}; cat src/1.txt > o\"; input \"src/1.txt\"; output \"o\"; untracked \"{two}\"; }}\n\
         command \"on-slow\" {{ run \"sh\" \"-c\" \"cat slow/o > o\"; needs \"slow\"; output \"o\"; }}\n"
    );
    project.write("effai.kdl", &recipe);
    let mut watching = Watching::begin(&project, &["-j", "2"]);
    let (first, other) = (waits_at(&project, "one"), waits_at(&project, "two"));
    project.write("a.txt", "edited");
    let mut events = Vec::new();
    while !events.iter().any(|e: &Value| e["outcome"]["outcome"] == "outdated") {
        events.push(watching.next());
    }
    // Whoever comes to the gate from now on is let through.
    let mut open = std::fs::OpenOptions::new().read(true).write(true).open(project.path("one")).expect("opened");
    open.write_all(b"go\n").expect("written");
    drop((first, other));
    events.extend(watching.until("ended"));
    let outdated: Vec<&Value> = events.iter().filter(|e| e["outcome"]["outcome"] == "outdated").collect();
    assert_eq!(outdated.len(), 1, "{outdated:?}");
    assert_eq!(outdated[0]["label"], "slow");
    assert_eq!(ran(&events), ["on-slow", "other", "slow", "slow"]);
    assert_eq!(project.read("out/on-slow/o"), "edited");
    assert_eq!(project.read("out/other/o"), "1");
    let summary = events.last().expect("ended");
    assert_eq!((summary["built"].as_u64(), summary["failed"].as_u64()), (Some(3), Some(0)), "{summary}");
}

#[test]
fn a_file_that_came_during_a_build_is_watched_after_it() {
    let project = two();
    let one = gate(&project, "one");
    let slow = format!(
        "command \"slow\" {{ run \"sh\" \"-c\" \"read x < {one}; cat src/*.txt > o\"; input \"src/*.txt\"; output \"o\"; untracked \"{one}\"; }}\n"
    );
    project.write("effai.kdl", &slow);
    let mut watching = Watching::begin(&project, &[]);
    let first = waits_at(&project, "one");
    project.write("src/2.txt", "2");
    let mut events = Vec::new();
    while !events.iter().any(|e: &Value| e["outcome"]["outcome"] == "outdated") {
        events.push(watching.next());
    }
    let mut open = std::fs::OpenOptions::new().read(true).write(true).open(project.path("one")).expect("opened");
    open.write_all(b"go\ngo\n").expect("written");
    drop(first);
    watching.until("ended");
    assert_eq!(project.read("out/slow/o"), "12");
    project.write("src/2.txt", "two");
    assert_eq!(watching.round(), ("src/2.txt".into(), vec!["slow".into()]));
}

#[test]
fn a_glob_that_a_recipe_begins_to_read_is_watched() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    project.edit("effai.kdl", "cat src/*.txt > o\"; input \"src/*.txt\"", "cat src/* > o\"; input \"src/*\"");
    assert_eq!(ran(&watching.until("ended")), ["b"]);
    project.write("src/1.txt", "other");
    assert_eq!(watching.round(), ("src/1.txt".into(), vec!["b".into()]));
}

#[test]
fn an_interrupted_build_ends_with_130() {
    let project = two();
    let one = gate(&project, "one");
    project.write(
        "effai.kdl",
        &format!("command \"s\" {{ run \"sh\" \"-c\" \"read x < {one}\"; output \"o\"; untracked \"{one}\"; }}\n"),
    );
    let watching = Watching::begin(&project, &[]);
    let _waits = waits_at(&project, "one");
    assert_eq!(watching.end(), 130);
}

#[test]
fn on_change_runs_commands_and_builds_targets() {
    let project = two();
    let on_change = r#"
    command "tests" { run "sh" "-c" "cat b/o > o"; needs "b"; output "o"; }
    on-change "when a" { targets "a"; run "sh" "-c" "cat out/a/o >> log"; }
    on-change "when code" { paths "code/*.py"; build "tests"; run "sh" "-c" "exit 3"; }
    "#;
    project.write("effai.kdl", &format!("{TWO}{on_change}default \"a\"\n"));
    project.write("code/x.py", "1");
    let mut watching = Watching::begin(&project, &[]);
    assert_eq!(watching.until("reacted").last().expect("it ran")["name"], "when a", "its first artifact is new");
    project.write("a.txt", "b");
    let events = watching.until("reacted");
    assert_eq!((ran(&events), text(&events.last().expect("told")["name"])), (vec!["a".into()], "when a".into()));
    assert_eq!(project.read("log"), "AB");
    project.write("code/x.py", "2");
    let events = watching.until("reacted");
    assert_eq!(ran(&events), ["b", "tests"]);
    let reacted = events.last().expect("told");
    assert_eq!(reacted["name"], "when code");
    assert_eq!(reacted["failure"]["message"], "`sh` ended with code 3");
    // A failed command is no end of the watch, and a new artifact that is none does not begin anything.
    project.write("a.txt", "c");
    watching.until("reacted");
    assert_eq!(project.read("log"), "ABC");
    assert_eq!(watching.end(), 0);
    // Nor is one that was there before the watch.
    project.remove(".effai/plan");
    let mut watching = Watching::start(&project, &[]);
    project.write("a.txt", "d");
    watching.until("reacted");
    assert_eq!(project.read("log"), "ABCD");
}

#[test]
fn on_change_is_checked() {
    let project = two();
    let bad = "on-change \"x\" { targets \"aa\"; path \"src\"; run \"true\"; }\non-change \"y\" { run \"true\"; }\n";
    project.write("effai.kdl", &format!("{TWO}{bad}"));
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`on-change` has no field `path`"), "{}", run.stderr);
    assert!(run.stderr.contains("`on-change` needs `targets` or `paths`"), "{}", run.stderr);
    let bad =
        "on-change \"x\" { targets \"aa\" \"b*\"; run \"true\"; }\non-change \"x\" { paths \"src\"; build \"z/*\"; }\n";
    project.write("effai.kdl", &format!("{TWO}{bad}"));
    let run = project.effai(&["check"]);
    assert!(run.stderr.contains("there is no target `aa`"), "{}", run.stderr);
    assert!(run.stderr.contains("did you mean \"a\"?"), "{}", run.stderr);
    assert!(run.stderr.contains("there is no target `z/*`"), "{}", run.stderr);
    assert!(run.stderr.contains("there are two `on-change \"x\"`"), "{}", run.stderr);
}

#[test]
fn another_build_beside_a_watch_is_taken_up() {
    let project = two();
    let mut watching = Watching::start(&project, &["a"]);
    assert_eq!(project.builds(&["b"]), ["b"]);
    project.write("a.txt", "x");
    // It may find the other build by itself before it hears of the edit, and open the project anew for that.
    let ran = std::iter::repeat_with(|| ran(&watching.until("ended"))).find(|ran| !ran.is_empty());
    assert_eq!(ran, Some(vec!["a".into()]));
    assert_eq!(watching.end(), 0);
    assert!(project.builds(&[]).is_empty(), "both know what the other did");
}

#[test]
fn a_killed_watch_leaves_a_project_that_builds() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    project.write("a.txt", "x");
    watching.round();
    watching.signal(Signal::KILL);
    watching.child.wait().expect("it ends");
    assert!(project.builds(&[]).is_empty(), "what ran is on record");
    assert_eq!(project.read("out/a/o"), "X");
}
