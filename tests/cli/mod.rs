//! What a build does, seen from the command line.

use crate::support::Project;

const CHAIN: &str = r#"
project "chain"
command "a" { run "sh" "-c" "tr a-z A-Z < in.txt > a.txt"; input "in.txt"; output "a.txt"; }
command "b" { run "sh" "-c" "head -c 1 a/a.txt > b.txt"; needs "a"; output "b.txt"; }
command "c" { run "sh" "-c" "cat b/b.txt b/b.txt > c.txt"; needs "b"; output "c.txt"; }
"#;

fn chain() -> Project {
    let project = Project::new(CHAIN);
    project.write("in.txt", "hello");
    project
}

#[test]
fn nothing_runs_the_second_time() {
    let project = chain();
    assert_eq!(project.builds(&["c"]), ["a", "b", "c"]);
    assert_eq!(project.read("out/c/c.txt"), "HH");
    assert!(project.builds(&["c"]).is_empty());
    assert!(!project.path("out/a").exists(), "only what was asked for lies in out/");
}

#[test]
fn comments_and_white_space_run_nothing() {
    let project = chain();
    project.builds(&["c"]);
    project.edit("effai.kdl", "command \"b\" {", "// a comment\ncommand   \"b\" {");
    assert!(project.builds(&["c"]).is_empty());
}

#[test]
fn equal_bytes_stop_the_wave() {
    let project = chain();
    project.builds(&["c"]);
    project.write("in.txt", "hullo");
    assert_eq!(project.builds(&["c"]), ["a", "b"], "b gives the same byte, so c is fresh");
}

#[test]
fn a_file_that_two_targets_name_differently_changes_for_both() {
    let project = Project::new(
        "command \"one\" { run \"cp\" \"in.txt\" \"o\"; input \"in.txt\"; output \"o\"; }\n\
         command \"all\" { run \"sh\" \"-c\" \"cat *.txt > o\"; input \"*.txt\"; output \"o\"; }\n",
    );
    project.write("in.txt", "a");
    project.builds(&[]);
    project.write("in.txt", "b");
    // Older than the clock's grain: else the file is read again anyway.
    project.outlast_the_grain("in.txt");
    assert_eq!(project.builds(&["one"]), ["one"]);
    assert_eq!(project.builds(&["all"]), ["all"], "that the file was read again for `one` does not make `all` fresh");
    assert_eq!(project.read("out/all/o"), "b");
}

#[test]
fn a_change_taken_back_runs_nothing() {
    let project = chain();
    project.builds(&["c"]);
    project.write("in.txt", "other");
    project.builds(&["c"]);
    project.write("in.txt", "hello");
    assert!(project.builds(&["c"]).is_empty());
    assert_eq!(project.read("out/c/c.txt"), "HH");
}

#[test]
fn the_store_restores_what_was_thrown_away() {
    let project = chain();
    project.builds(&["c"]);
    project.remove("out");
    project.remove(".effai");
    assert!(project.builds(&["c"]).is_empty());
    assert_eq!(project.read("out/c/c.txt"), "HH");
}

#[test]
fn explain_names_the_fact() {
    let project = chain();
    project.builds(&["c"]);
    project.edit("effai.kdl", "head -c 1", "head -c 2");
    let run = project.effai(&["build", "c", "--explain"]);
    assert!(run.stderr.contains("command.run.2: \"head -c 1 a/a.txt > b.txt\" -> \"head -c 2"), "{}", run.stderr);
}

#[test]
fn a_blob_that_was_damaged_is_made_again() {
    let project = chain();
    project.builds(&["c"]);
    let blobs = project.cache().join("v1/blobs");
    for dir in std::fs::read_dir(&blobs).expect("blobs") {
        for blob in std::fs::read_dir(dir.expect("a directory").path()).expect("listed") {
            let path = blob.expect("a blob").path();
            if std::fs::read(&path).expect("read") == b"HH" {
                std::fs::remove_file(&path).expect("removed");
                std::fs::write(&path, "H").expect("written");
            }
        }
    }
    project.remove("out");
    assert_eq!(project.builds(&["c"]), ["c"]);
    assert_eq!(project.read("out/c/c.txt"), "HH");
}

#[test]
fn another_store_gets_what_it_lacks() {
    let project = chain();
    project.builds(&["c"]);
    project.edit("effai.kdl", "cat b/b.txt b/b.txt", "cat b/b.txt b/b.txt b/b.txt");
    let run = project.effai_with(&["build", "c"], &project.path("../empty"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(project.read("out/c/c.txt"), "HHH", "{}", run.stderr);
    assert!(run.stderr.contains("3 built in"), "{}", run.stderr);
}

#[test]
fn what_a_user_edited_is_kept() {
    let project = chain();
    project.builds(&["c"]);
    project.write("out/c/c.txt", "mine, longer");
    let run = project.effai(&["build", "c"]);
    assert!(run.stderr.contains("edited by hand: out/c/c.txt"), "{}", run.stderr);
    assert_eq!(project.read("out/c/c.txt"), "mine, longer");
    project.write("in.txt", "xyz");
    project.builds(&["c"]);
    assert_eq!(project.read("out/c/c.txt"), "XX");
    let kept = project.path(".effai/edited/c");
    assert!(kept.exists(), "the edited file was moved aside");
}

#[test]
fn a_failure_skips_what_stands_on_it_and_k_runs_the_rest() {
    let project = Project::new(
        "command \"bad\" { run \"sh\" \"-c\" \"echo oh >&2; exit 3\"; output \"x\"; }\n\
         command \"on-bad\" { run \"true\"; needs \"bad\"; output \"x\"; }\n\
         command \"good\" { run \"sh\" \"-c\" \"echo > g\"; output \"g\"; }\n",
    );
    let run = project.effai(&["build", "-k", "-j", "1"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("skipped on-bad  because bad failed"), "{}", run.stderr);
    assert!(run.stderr.contains("oh"), "{}", run.stderr);
    assert!(project.path("out/good/g").exists());
}

#[test]
fn json_is_one_object_a_line() {
    let project = chain();
    let run = project.effai(&["build", "c", "--json"]);
    let events: Vec<serde_json::Value> =
        run.stdout.lines().map(|l| serde_json::from_str(l).expect("an object")).collect();
    assert_eq!(events.last().expect("events")["event"], "ended");
    assert!(events.iter().all(|e| e["version"] == 1));
}

#[test]
fn what_is_kept_of_a_profile_goes_once_its_recipes_have_changed() {
    let project = Project::new(
        "command \"a\" { run \"sh\" \"-c\" \"echo a > x\"; output \"x\"; \
         profile \"ci\" { run \"sh\" \"-c\" \"echo ci > x\"; }; }\n",
    );
    // A recipe read within the clock's grain of its last write is read again anyway.
    project.outlast_the_grain("effai.kdl");
    project.builds(&["--profile", "ci"]);
    project.builds(&[]);
    assert!(project.path(".effai/plan/@ci.plan").exists(), "the recipes are the same");
    project.edit("effai.kdl", "echo a", "echo b");
    project.builds(&[]);
    for name in ["plan", "decls", "state"] {
        assert!(!project.path(&format!(".effai/plan/@ci.{name}")).exists(), "{name}");
        assert!(project.path(&format!(".effai/plan/default.{name}")).exists(), "{name}");
    }
}

#[test]
fn a_matrix_makes_targets_and_a_profile_changes_them() {
    let project = Project::new(
        "command \"m-{n}\" { matrix { n 1 2; }; run \"sh\" \"-c\" \"echo {n} > x\"; output \"x\"; \
         profile \"ci\" { run \"sh\" \"-c\" \"echo ci > x\"; }; }\n",
    );
    assert_eq!(project.builds(&["m-*", "-j", "1"]), ["m-1", "m-2"]);
    assert_eq!(project.read("out/m-2/x"), "2\n");
    project.builds(&["m-2", "--profile", "ci"]);
    assert_eq!(project.read("out/m-2/x"), "ci\n");
}

#[test]
fn the_shelf_of_recipes_has_no_mistakes() {
    let root = env!("CARGO_MANIFEST_DIR");
    let project = Project::new("");
    let run = project.effai(&["-C", root, "check", "--profile", "quick"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn ctrl_c_ends_the_actions_and_breaks_nothing() {
    let project = Project::new(
        r#"
command "quick" { run "sh" "-c" "echo quick > q.txt"; output "q.txt"; }
command "slow" { run "sh" "slow.sh"; input "slow.sh"; needs "quick"; output "s.txt"; }
"#,
    );
    project.write("slow.sh", "echo half > s.txt\nsleep 600\n");
    let run = project.interrupted(&["build"], "run     slow");
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(!project.path("out/slow").exists(), "half an artifact in out/");
    project.write("slow.sh", "echo whole > s.txt\n");
    assert_eq!(project.builds(&[]), ["slow"], "what was finished before is kept");
    assert_eq!(project.read("out/slow/s.txt"), "whole\n");
}

#[test]
fn what_is_fresh_runs_when_it_is_forced() {
    let project = chain();
    project.outlast_the_grain("effai.kdl");
    project.builds(&["c"]);
    assert!(project.builds(&["c"]).is_empty());
    assert_eq!(project.builds(&["c", "--force"]), ["c"]);
    assert!(project.builds(&["c"]).is_empty());
    assert_eq!(project.builds(&["c", "--force=all"]), ["a", "b", "c"]);
}
