//! Killed at instants nobody chose: the build, an action, or all of it; alone and with others on the same store.

use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};

use super::case::{Case, ended, files, names, until};
use super::each_seed;
use crate::engine::graphs::Rng;

/// Killed builds, unless asked for more.
const CASES: u64 = 16;

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Kills a build, or what it runs, in one of four ways.
fn kill(rng: &mut Rng, case: &Case, build: &Child) {
    let action = case.alive().into_iter().find(|p| *p != pid(build).as_raw_nonzero().get()).and_then(Pid::from_raw);
    let group = action.and_then(|action| getpgid(Some(action)).ok());
    let way = rng.below(4);
    if way != 0 {
        if let Some(group) = group.filter(|_| way != 1) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if way != 2 {
            let _ = kill_process_group(pid(build), Signal::KILL);
        }
    } else {
        let _ = kill_process(pid(build), Signal::KILL);
    }
}

/// Waits for one of the things a build does, or for so many looks.
fn wait_for_something(rng: &mut Rng, case: &Case, build: &mut Child) {
    let project = case.project();
    let label = case.labels()[rng.below(case.labels().len())].replace('/', "~");
    let (way, count) = (rng.below(4), rng.below(12));
    let mut looks = rng.below(3000);
    until("something happens", || {
        let happened = match way {
            0 => names(&project.join(".effai/scratch")).iter().any(|n| n.starts_with(&label)),
            1 => files(&case.cache().join("v1/blobs")).len() >= count,
            2 => project.join(format!(".effai/logs/{label}.log")).exists(),
            _ => {
                looks = looks.saturating_sub(1);
                looks == 0
            }
        };
        happened || build.try_wait().expect("asked").is_some()
    });
}

#[test]
fn at_any_instant_alone_or_with_its_actions() {
    each_seed(CASES, |seed| {
        let mut rng = Rng::new(seed ^ 0x0_6b11);
        let mut case = Case::generate(seed);
        for round in 0..2 {
            case.edit(["a.txt", "b.txt"][rng.below(2)], format!("{seed} {round}"));
            if rng.below(3) == 0 {
                let _ = std::fs::remove_dir_all(case.project().join(["out", ".effai"][rng.below(2)]));
            }
            let expected = case.clean();
            let mut build = case.start(&["build", "-j", ["1", "2", "4"][rng.below(3)]]);
            wait_for_something(&mut rng, &case, &mut build);
            kill(&mut rng, &case, &build);
            build.wait().expect("it ends");
            case.is_mended(&expected);
        }
    });
}

/// A pipe with a name: who reads from it waits until somebody writes.
fn pipe(path: &Path) {
    ended(std::process::Command::new("mkfifo").arg(path));
    assert!(path.exists(), "mkfifo made a pipe");
}

/// `quick`, and `slow` on it, which says that it runs and goes on when it is told to.
fn held(case_dir: &Path, what: &str) -> Case {
    let (said, go) = (case_dir.join("said"), case_dir.join("go"));
    pipe(&said);
    pipe(&go);
    let run = format!("(echo runs > {}; cat {}; {what}) ; echo done > o", said.display(), go.display());
    let recipe = format!(
        "command \"quick\" {{ run \"sh\" \"-c\" \"cat a.txt > o\"; input \"a.txt\"; output \"o\"; }}\n\
         command \"slow\" {{ run \"sh\" \"-c\" \"{run}\"; needs \"quick\"; output \"o\"; \
         untracked \"{dir}\"; }}\n",
        dir = case_dir.display()
    );
    Case::with(vec!["quick".into(), "slow".into()], recipe)
}

#[test]
fn what_its_actions_started_ends_with_a_killed_build() {
    let dir = tempfile::tempdir().expect("made");
    let mark = dir.path().join("mark");
    let case = held(dir.path(), &format!("echo on > {}", mark.display()));
    let mut build = case.start(&["build"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("said")).expect("said"), "runs\n");
    assert!(case.alive().len() > 1);
    kill_process(pid(&build), Signal::KILL).expect("it runs");
    build.wait().expect("it ends");
    case.is_quiet();
    assert!(!mark.exists(), "the action went on");
}

#[test]
fn what_was_told_a_second_ago_is_not_run_again() {
    let dir = tempfile::tempdir().expect("made");
    let case = held(dir.path(), "true");
    let mut build = case.start(&["build"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("said")).expect("said"), "runs\n");
    let begin = std::time::Instant::now();
    until("the first target is written down", || {
        case.effai(&["cache", "size", "--json"]).stdout.contains("\"keys\":1")
    });
    assert!(begin.elapsed().as_secs() < 10, "it is written down within a second or so");
    kill_process(pid(&build), Signal::KILL).expect("it runs");
    build.wait().expect("it ends");
    case.is_quiet();
    let mut next = case.start(&["build"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("said")).expect("said"), "runs\n");
    std::fs::write(dir.path().join("go"), "go").expect("told");
    assert!(next.wait().expect("it ends").success());
    let log = case.effai(&["log", "quick", "--json"]);
    assert_eq!(log.stdout.matches("\"outcome\":\"built\"").count(), 1, "{}", log.stdout);
}

/// Two and eight builds at once, of one project and of several, some of them killed.
fn share(seed: u64, builds: usize) {
    let mut rng = Rng::new(seed ^ 0x0_54a3);
    let shared = tempfile::tempdir().expect("made");
    let said = shared.path().join("said");
    let mut recipe = String::new();
    let labels: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    for (n, label) in labels.iter().enumerate() {
        let needs = if n < 2 { String::new() } else { format!("needs \"t{}\"; ", rng.below(n)) };
        let lock = shared.path().join(format!("{label}.lock"));
        // The kernel lets go of this lock with the last process that has it.
        let run = format!(
            "exec 9> {lock}; flock -n 9 || echo twice {label} >> {said}; seq {n} 20000 | sort > x; echo ran {label} >> {said}",
            lock = lock.display(),
            said = said.display()
        );
        recipe += &format!(
            "command \"{label}\" {{ run \"sh\" \"-c\" \"{run}\"; {needs}output \"x\"; untracked \"{dir}\"; }}\n",
            dir = shared.path().display()
        );
    }
    let cases: Vec<Case> = (0..builds.div_ceil(2)).map(|_| Case::with(labels.clone(), recipe.clone())).collect();
    let cache = shared.path().join("cache");
    let mut running: Vec<(Child, bool)> = (0..builds)
        .map(|n| {
            use std::os::unix::process::CommandExt;
            let case = &cases[n / 2];
            let mut command = case.command(&["build", "-j", "2"], &case.project(), &cache);
            let log = std::fs::File::create(shared.path().join(format!("{n}.log"))).expect("created");
            (command.process_group(0).stderr(log).spawn().expect("it starts"), false)
        })
        .collect();
    let mut kills = 0;
    for _ in 0..builds / 2 {
        let victim = rng.below(builds);
        let mut looks = rng.below(2000);
        let seen = files(&cache.join("v1/blobs")).len() + rng.below(3);
        until("something happens", || {
            looks = looks.saturating_sub(1);
            looks == 0 || files(&cache.join("v1/blobs")).len() > seen
        });
        if rng.below(2) == 0 {
            let _ = kill_process(pid(&running[victim].0), Signal::KILL);
            (running[victim].1, kills) = (true, kills + 1);
        }
    }
    for (n, (child, was_killed)) in running.iter_mut().enumerate() {
        let status = child.wait().expect("it ends");
        let log = std::fs::read_to_string(shared.path().join(format!("{n}.log"))).expect("read");
        assert!(*was_killed || status.success(), "{status}: {log}");
    }
    let said = std::fs::read_to_string(&said).unwrap_or_default();
    assert!(!said.contains("twice"), "a key's action ran twice at the same time: {said}");
    for label in &labels {
        let ran = said.matches(&format!("ran {label}\n")).count();
        assert!(ran <= 1 + kills, "{label} ran {ran} times, with {kills} kills");
    }
    let expected = cases[0].clean();
    for case in &cases {
        case.is_quiet();
        let next = ended(case.command(&["build"], &case.project(), &cache));
        assert_eq!(next.code, Some(0), "{}", next.stderr);
        assert_eq!(case.outputs(), expected);
    }
    let verify = ended(cases[0].command(&["cache", "verify", "--repair", "--json"], &cases[0].project(), &cache));
    assert!(verify.stdout.lines().all(|l| l.contains("\"leftover\"")), "{}", verify.stdout);
    let verify = ended(cases[0].command(&["cache", "verify"], &cases[0].project(), &cache));
    assert_eq!(verify.code, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn two_builds_share_a_store() {
    each_seed(6, |seed| share(seed, 2));
}

#[test]
fn eight_builds_share_a_store() {
    each_seed(3, |seed| share(seed, 8));
}

#[test]
fn a_prune_beside_builds() {
    each_seed(4, |seed| {
        let mut rng = Rng::new(seed ^ 0x94_34e);
        let mut case = Case::generate(seed);
        case.is_mended(&case.clean());
        case.edit("a.txt", seed);
        let expected = case.clean();
        let mut build = case.start(&["build"]);
        let mut prune = case.start(&["cache", "prune", "--to", "0"]);
        wait_for_something(&mut rng, &case, &mut build);
        let (first, second) = if rng.below(2) == 0 { (&mut build, &mut prune) } else { (&mut prune, &mut build) };
        let _ = kill_process(pid(first), Signal::KILL);
        first.wait().expect("it ends");
        let status = second.wait().expect("it ends");
        assert!(status.success(), "the survivor: {status}");
        case.is_mended(&expected);
    });
}
