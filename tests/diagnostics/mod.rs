//! Each mistake gives one error with its line, exit code 2, and nothing half-made.

mod failures;

use crate::support::Project;

fn check(recipe: &str, expected: &[&str]) {
    let project = Project::new(recipe);
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    for text in expected {
        assert!(run.stderr.contains(text), "no {text:?} in:\n{}", run.stderr);
    }
    assert_eq!(run.stderr.matches('×').count(), 1, "one error:\n{}", run.stderr);
    assert!(!project.path("out").exists());
}

#[test]
fn a_misspelt_field() {
    check(
        "command \"a\" { run \"true\"; outptu \"x\"; }\n",
        &["kind `command` has no field `outptu`", "did you mean `output`?", "effai.kdl:1"],
    );
}

#[test]
fn a_misspelt_kind() {
    check("comand \"a\" { }\n", &["there is no kind `comand`", "did you mean `command`?"]);
}

#[test]
fn a_duplicate_label() {
    let one = "command \"a\" { run \"true\"; output \"x\"; }\n";
    check(&format!("{one}{one}"), &["there are two targets `a`", "again here", "first here"]);
}

#[test]
fn a_dependency_that_does_not_exist() {
    check(
        "command \"models/x\" { run \"true\"; output \"x\"; }\ncommand \"b\" { run \"true\"; needs \"models/y\"; output \"x\"; }\n",
        &["there is no target `models/y`", "did you mean \"models/x\"?"],
    );
}

#[test]
fn a_cycle() {
    let target = |a: &str, b: &str| format!("command \"{a}\" {{ run \"true\"; needs \"{b}\"; output \"x\"; }}\n");
    check(
        &[target("a", "b"), target("b", "c"), target("c", "a")].concat(),
        &["targets stand on one another: a -> b -> c -> a"],
    );
}

#[test]
fn a_bare_label() {
    check("command data/x { }\n", &["a bare word cannot hold a slash", "write it as \"data/x\""]);
}

const ADAPTER: &str = "adapter \"a\" { base \"b\"; method \"lora\" rank=RANK; target-modules \"*\"; train \"d\"; }\n";

#[test]
fn a_wrong_type() {
    check(&ADAPTER.replace("RANK", "\"eight\""), &["`rank` is a whole number from 1 to 1024, not the text \"eight\""]);
}

#[test]
fn a_rank_of_zero() {
    check(
        &ADAPTER.replace("RANK", "0"),
        &["`rank` is a whole number from 1 to 1024, not the number 0", "out of range"],
    );
}

#[test]
fn a_label_inside_another() {
    check(
        "command \"a/b\" { run \"true\"; output \"x\"; }\ncommand \"a\" { run \"true\"; output \"x\"; }\n",
        &["`a/b` would lie inside the output of `a`", "such as \"a-b\""],
    );
}
