//! What a change does to metrics, and the workflow that says so.

use super::{NONE, built, commit, contains, git, repository};

#[test]
fn a_metric_that_crosses_its_guard_is_told_in_every_form() {
    let project = repository();
    let root = project.path(".");
    project.edit("effai.kdl", "output \"counts\"", "output \"counts\"\n    guard \"distinct\" min=2 drop=1");
    assert_eq!(built(&project, &root, &["--lock"]), NONE, "a guard is no fact");
    commit(&project, "Guarded");
    let fine = project.effai(&["ci", "report", "--base", "HEAD"]);
    assert_eq!(fine.code, 0, "{}", fine.stderr);
    contains(&fine.stdout, "0 of 3 targets differ from HEAD.");

    project.write("words.txt", "one\ntwo\n");
    built(&project, &root, &["--lock"]);
    assert_eq!(project.effai(&["ci", "report"]).code, 0, "it fell by 1, and not by more");
    project.write("words.txt", "one\n");
    built(&project, &root, &["--lock"]);
    let files = ["--markdown", "a.md", "--junit", "a.xml", "--sarif", "a.sarif"];
    let crossed = project.effai(&[&["ci", "report"][..], &files].concat());
    assert_eq!(crossed.code, 1);
    contains(&crossed.stderr, "error: models/counts: `distinct` is 1, at least 2 is asked");
    contains(&crossed.stderr, "error: models/counts: `distinct` fell from 3 to 1, by more than 1");
    let md = project.read("a.md");
    contains(&md, "**2 of the declared limits crossed**, compared with HEAD.");
    contains(&md, "distinct 3.0000 → 1.0000 |");
    let suites = effai::format::junit::read(&project.read("a.xml")).expect("JUnit");
    let failed = suites[0].test_cases.iter().filter(|case| effai::format::junit::has_failed(case)).count();
    assert_eq!((suites[0].test_cases.len(), failed), (2, 2));
    let sarif: serde_json::Value = serde_json::from_str(&project.read("a.sarif")).expect("JSON");
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!((&place["artifactLocation"]["uri"], &place["region"]["startLine"]), (&"effai.kdl".into(), &8.into()));

    project.edit("effai.kdl", " min=2 drop=1", "");
    let nothing = project.effai(&["check"]);
    assert_eq!(nothing.code, 2);
    contains(&nothing.stderr, "`guard \"distinct\"` does not say what must not be crossed");
}

#[test]
fn the_workflow_is_written_once() {
    let project = repository();
    assert_eq!(project.effai(&["ci", "init", "github"]).code, 0);
    let text = project.read(".github/workflows/effai.yml");
    contains(&text, "run: effai build --locked --progress none\n");
    project.write(".github/workflows/effai.yml", "mine");
    let run = project.effai(&["ci", "init", "github"]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "`--force` writes over it");
    assert_eq!(project.read(".github/workflows/effai.yml"), "mine");
}

#[test]
fn what_a_branch_or_tag_names_is_kept_until_asked_otherwise() {
    let project = repository();
    let root = project.path(".");
    git(&root, &["tag", "v1"]);
    project.write("words.txt", "one\n");
    built(&project, &root, &["--lock"]);
    commit(&project, "One word");
    let left = |flags: &[&str]| {
        let run = project.effai(&[&["cache", "prune", "--to", "0B"], flags].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        project.effai(&["restore", "v1", "--all"]).code
    };
    assert_eq!(left(&[]), 0);
    assert_eq!(project.effai(&["restore"]).code, 0);
    assert_eq!(left(&["--locked"]), 3);
    // What the project itself stands on is there all the same.
    assert_eq!(project.effai(&["restore"]).code, 0);
}
