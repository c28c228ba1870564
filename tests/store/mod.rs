//! The store's upkeep, and many builds at once on one store.

mod check;
mod packs;
mod quota;

use std::path::{Path, PathBuf};

use crate::support::Project;

const PAIR: &str = r#"
command "a" { run "sh" "-c" "tr a-z A-Z < in.txt > a.txt"; input "in.txt"; output "a.txt"; }
command "b" { run "sh" "-c" "cat a/a.txt a/a.txt > b.txt"; needs "a"; output "b.txt"; }
"#;

fn pair() -> Project {
    let project = Project::new(PAIR);
    project.write("in.txt", "hello");
    assert_eq!(project.builds(&["b"]), ["a", "b"]);
    project
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("listed").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

/// The blob that begins so.
fn blob(project: &Project, begin: &str) -> PathBuf {
    let mut blobs = files(&project.cache().join("v1/blobs"));
    blobs.retain(|p| std::fs::read(p).expect("read").starts_with(begin.as_bytes()));
    assert_eq!(blobs.len(), 1, "{begin}");
    blobs.remove(0)
}

fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("removed");
    std::fs::write(path, bytes).expect("written");
}

#[track_caller]
fn is_clean(project: &Project) {
    let run = project.effai(&["cache", "verify"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
}

/// One problem, told once; repaired; made again; clean.
#[track_caller]
fn found_and_repaired(project: &Project, kind: &str, path: &Path, labels: &[&str], runs: &[&str]) {
    let run = project.effai(&["cache", "verify", "--json"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let expected = serde_json::json!({
        "version": 1, "problem": kind, "path": path.display().to_string(), "labels": labels, "repaired": false,
    });
    assert_eq!(lines, [expected]);
    assert_eq!(project.effai(&["cache", "verify", "--repair"]).code, 1);
    is_clean(project);
    assert_eq!(project.builds(&["b"]), runs);
    assert_eq!(project.read("out/b/b.txt"), "HELLOHELLO");
    is_clean(project);
}

#[test]
fn a_flipped_cut_or_removed_blob_is_found_and_made_again() {
    let project = pair();
    is_clean(&project);
    let path = blob(&project, "HELLOHELLO");
    overwrite(&path, b"HELLOHELLP");
    found_and_repaired(&project, "changed", &path, &["b"], &["b"]);
    overwrite(&path, b"HELL");
    found_and_repaired(&project, "changed", &path, &["b"], &["b"]);
    std::fs::remove_file(&path).expect("removed");
    found_and_repaired(&project, "missing", &path, &["b"], &["b"]);
}

#[test]
fn a_damaged_tree_is_found_and_made_again() {
    let project = pair();
    let trees = files(&project.cache().join("v1/blobs"));
    let tree = |name: &str| {
        let names = |p: &&PathBuf| {
            let text = std::fs::read_to_string(p).expect("text");
            text.starts_with("effai tree") && text.contains(name)
        };
        trees.iter().find(names).expect("a tree").clone()
    };
    let path = tree("b.txt");
    overwrite(&path, b"effai tree 1\n");
    found_and_repaired(&project, "changed", &path, &["b"], &["b"]);
    let path = tree("a.txt");
    overwrite(&path, b"");
    found_and_repaired(&project, "changed", &path, &["a"], &["a"]);
}

#[test]
fn leftovers_are_found_and_taken_away() {
    let project = pair();
    let path = project.cache().join("v1/incoming/.tmpABC");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(&path, "half").expect("written");
    found_and_repaired(&project, "leftover", &path, &[], &[]);
    assert!(!path.exists());
    // Of a build that was killed: nobody has the lock any more.
    let path = project.cache().join("v1/locks/dead");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(&path, "a build").expect("written");
    found_and_repaired(&project, "leftover", &path, &[], &[]);
}

#[test]
fn a_blob_that_the_index_does_not_remember_is_not_believed() {
    let project = pair();
    // As after a power cut: the name was written, the bytes and the row were not.
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(project.cache().join("v1").join(name));
    }
    project.remove(".effai");
    project.remove("out");
    for path in files(&project.cache().join("v1/blobs")) {
        overwrite(&path, b"");
    }
    let run = project.effai(&["build", "b"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("built   ").count(), 2, "each once: {}", run.stderr);
    assert_eq!(project.read("out/b/b.txt"), "HELLOHELLO");
    is_clean(&project);
}

#[test]
fn verify_says_when_it_does_not_look_for_leftovers() {
    let project = pair();
    let gate = std::fs::File::open(project.cache().join("v1/gate")).expect("opened");
    gate.lock_shared().expect("held as by a build");
    let stray = project.cache().join("v1/incoming/.tmpABC");
    std::fs::create_dir_all(stray.parent().expect("a parent")).expect("made");
    std::fs::write(&stray, "half").expect("written");
    let run = project.effai(&["cache", "verify"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    assert!(run.stderr.contains("leftovers and rows without a blob are not looked for"), "{}", run.stderr);
}

#[test]
fn without_its_index_the_store_is_clean_and_loses_nothing_that_is_stood_on() {
    let project = pair();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(project.cache().join("v1").join(name));
    }
    is_clean(&project);
    assert_eq!(project.effai(&["cache", "prune", "--to", "0"]).code, 0);
    project.remove("out");
    assert!(project.builds(&["b"]).is_empty());
    assert_eq!(project.read("out/b/b.txt"), "HELLOHELLO");
    is_clean(&project);
}

#[test]
fn prune_keeps_what_the_current_state_stands_on() {
    let project = pair();
    project.write("in.txt", "other");
    assert_eq!(project.builds(&["b"]), ["a", "b"]);
    let before = files(&project.cache().join("v1/blobs"));
    let dry = project.effai(&["cache", "prune", "--to", "0", "--dry-run", "--json"]);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    let last: serde_json::Value = serde_json::from_str(dry.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["keys"], &last["blobs"]), (&2.into(), &4.into()), "the two keys of the old text");
    assert_eq!(files(&project.cache().join("v1/blobs")), before);
    assert_eq!(project.effai(&["cache", "prune", "--older-than", "1d", "--json"]).code, 0);
    assert_eq!(files(&project.cache().join("v1/blobs")), before, "nothing is so old");

    assert_eq!(project.effai(&["cache", "prune", "--to", "0"]).code, 0);
    assert_eq!(files(&project.cache().join("v1/blobs")).len(), 4);
    is_clean(&project);
    project.remove("out");
    assert!(project.builds(&["b"]).is_empty(), "what it stands on is there");
    project.write("in.txt", "hello");
    assert_eq!(project.builds(&["b"]), ["a", "b"], "the old text's artifacts went");

    assert_eq!(project.effai(&["cache", "prune", "--to", "0", "--all"]).code, 0);
    assert_eq!(files(&project.cache().join("v1/blobs")), Vec::<PathBuf>::new());
    is_clean(&project);
    project.remove("out");
    project.builds(&["b"]);
    assert_eq!(project.read("out/b/b.txt"), "HELLOHELLO");
}

#[test]
fn prune_keeps_what_another_project_stands_on_until_it_is_gone() {
    let (one, other) = (pair(), Project::new(PAIR));
    other.write("in.txt", "other");
    let run = other.effai_with(&["build", "b"], &one.cache());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(one.effai(&["cache", "prune", "--to", "0"]).code, 0);
    assert_eq!(files(&one.cache().join("v1/blobs")).len(), 8);
    drop(other);
    assert_eq!(one.effai(&["cache", "prune", "--to", "0"]).code, 0);
    assert_eq!(files(&one.cache().join("v1/blobs")).len(), 4);
    is_clean(&one);
}

#[test]
fn a_prune_that_was_killed_after_any_deletion_leaves_a_clean_store() {
    let project = pair();
    project.write("in.txt", "other");
    project.builds(&["b"]);
    let blobs = files(&project.cache().join("v1/blobs"));
    let copies: Vec<(PathBuf, Vec<u8>)> = blobs.iter().map(|p| (p.clone(), std::fs::read(p).expect("read"))).collect();
    assert_eq!(project.effai(&["cache", "prune", "--to", "0"]).code, 0);
    // The index is written before the first deletion: any part of the deletions may be missing.
    let deleted: Vec<_> = copies.iter().filter(|(p, _)| !p.exists()).collect();
    assert_eq!(deleted.len(), 4);
    for n in 0..deleted.len() {
        for (path, bytes) in &deleted[n..] {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            let _ = std::fs::remove_file(path);
            std::fs::write(path, bytes).expect("written");
        }
        is_clean(&project);
        assert_eq!(project.effai(&["cache", "prune"]).code, 0, "what nothing needs goes without a limit");
        assert_eq!(files(&project.cache().join("v1/blobs")).len(), 4);
    }
}

#[test]
fn a_size_that_is_none_is_refused() {
    let run = pair().effai(&["cache", "prune", "--to", "lots"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`lots` is not a size"), "{}", run.stderr);
}

#[test]
fn eight_builds_at_once_run_each_key_once_and_leave_no_locks() {
    let shared = tempfile::tempdir().expect("a directory");
    let ran = shared.path().join("ran").display().to_string();
    std::fs::write(&ran, "").expect("made");
    let mut recipe = String::new();
    for n in 0..6 {
        let needs = if n == 0 { String::new() } else { format!("needs \"t{}\"; ", n - 1) };
        let run = format!("echo t{n} >> {ran}; echo {n} > x");
        recipe.push_str(&format!(
            "command \"t{n}\" {{ run \"sh\" \"-c\" \"{run}\"; {needs}output \"x\"; untracked \"{ran}\"; }}\n"
        ));
        let run = format!("echo u{n} >> {ran}; echo u{n} > x");
        recipe.push_str(&format!(
            "command \"u{n}\" {{ run \"sh\" \"-c\" \"{run}\"; output \"x\"; untracked \"{ran}\"; }}\n"
        ));
    }
    let projects: Vec<Project> = (0..4).map(|_| Project::new(&recipe)).collect();
    let cache = shared.path().join("cache");
    std::thread::scope(|scope| {
        for project in &projects {
            // One of the two of a project takes the store from there as a user of another directory would.
            scope.spawn(|| {
                let run = project.effai_with(&["build", "-j", "2"], &cache);
                assert_eq!(run.code, 0, "{}", run.stderr);
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let project = Project::new(&recipe);
                let run = project.effai_with(&["build", "-j", "2"], &cache);
                assert_eq!(run.code, 0, "{}", run.stderr);
                assert_eq!(project.read("out/t5/x"), "5\n");
            });
        }
    });
    let text = std::fs::read_to_string(&ran).expect("read");
    let mut labels: Vec<&str> = text.lines().collect();
    labels.sort_unstable();
    assert_eq!(labels, ["t0", "t1", "t2", "t3", "t4", "t5", "u0", "u1", "u2", "u3", "u4", "u5"]);
    assert_eq!(files(&cache.join("v1/locks")), Vec::<PathBuf>::new());
    let run = projects[0].effai_with(&["cache", "verify"], &cache);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}
