//! What is chosen by words of the command line, tags, profiles; variables that are handed through.

use crate::support::Project;

const TAGGED: &str = r#"
command "a" { tags "slow" "gpu"; run "sh" "-c" "echo a > x"; output "x"; }
command "models/b" { tags "slow"; run "sh" "-c" "echo b > x"; output "x"; profile "ci" { tags "quick"; }; }
command "models/c-{n}" { matrix { n 1 2; }; tags "n{n}"; run "sh" "-c" "echo c > x{n}"; needs "a"; output "x{n}"; }
"#;

#[test]
fn tags_choose_and_change_no_key() {
    let project = Project::new(TAGGED);
    assert_eq!(project.builds(&["tag:slow", "-j", "1"]), ["a", "models/b"]);
    assert_eq!(project.builds(&["tag:n2", "-j", "1"]), ["models/c-2"]);
    project.edit("effai.kdl", "tags \"slow\" \"gpu\"", "tags \"other\"");
    assert!(project.builds(&["tag:other"]).is_empty(), "a tag is no fact");
    let run = project.effai(&["build", "tag:slwo"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("no target has the tag `slwo`") && run.stderr.contains("did you mean `tag:slow`?"),
        "{}",
        run.stderr
    );
    let run = project.effai(&["status", "tag:quick", "--profile", "ci"]);
    assert!(run.code == 0 && run.stdout.contains("models/b"), "{}{}", run.stdout, run.stderr);
}

#[test]
fn what_is_excluded_is_not_asked_for_but_made_where_it_is_needed() {
    let project = Project::new(TAGGED);
    assert_eq!(
        project.builds(&["--exclude", "models/b", "--exclude", "tag:gpu", "-j", "1"]),
        ["a", "models/c-1", "models/c-2"]
    );
    assert!(!project.path("out/a").exists(), "needed, not asked for");
    let listed = |args: &[&str]| {
        let run = project.effai(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    assert!(!listed(&["graph", "--exclude", "models/*"]).contains("models"));
    assert!(!listed(&["status", "-v", "--exclude", "models/*"]).contains("models"));
    for (args, expected) in [
        (["build", "--exclude", "**"], "--exclude takes out everything that was named"),
        (["build", "--exclude", "modls/*"], "no target is matched by `modls/*`"),
        (["build", "--exclude", "tag:gpus"], "did you mean `tag:gpu`?"),
    ] {
        let run = project.effai(&args);
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(expected), "no {expected:?} in:\n{}", run.stderr);
    }
}

#[test]
fn a_tag_is_a_word() {
    for (tags, expected) in [
        ("\"a b\"", "`a b` cannot be a tag"),
        ("1", "`tags` takes text, not the number 1"),
        ("\"x\" y=1", "`tags` takes no property"),
    ] {
        let project = Project::new(&format!("command \"a\" {{ tags {tags}; run \"true\"; output \"x\"; }}\n"));
        let run = project.effai(&["check"]);
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(expected), "no {expected:?} in:\n{}", run.stderr);
    }
}

#[test]
fn a_profile_reaches_into_included_recipes() {
    let project = Project::new("include \"r/*.kdl\"\n");
    project.write("r/a.kdl", "command \"a\" { run \"sh\" \"-c\" \"echo all > x\"; output \"x\"; profile \"ci\" { run \"sh\" \"-c\" \"echo ci > x\"; tags \"t\"; }; }\n");
    assert_eq!(project.builds(&["a"]), ["a"]);
    assert_eq!(project.builds(&["tag:t", "--profile", "ci"]), ["a"]);
    assert_eq!(project.read("out/a/x"), "ci\n");
    assert!(project.builds(&["a"]).is_empty());
    assert_eq!(project.read("out/a/x"), "all\n");
}

#[test]
fn variables_reach_a_program_only_where_the_recipe_says_so() {
    let recipe = "command \"a\" { run \"sh\" \"-c\" \"echo [$SECRET] [$OTHER] [$FIXED] > x\"; output \"x\"; env { FIXED \"1\"; }; pass \"SECRET\"; }\n";
    let project = Project::new(recipe);
    let build = |secret: Option<&str>, other: &str| {
        let mut variables = vec![("OTHER", other)];
        variables.extend(secret.map(|s| ("SECRET", s)));
        let run = project.effai_told(&["build", "a", "--explain"], &variables);
        assert_eq!(run.code, 0, "{}", run.stderr);
        (run.stderr.contains("run     a"), run.stderr)
    };
    assert!(build(Some("hunter2"), "x").0);
    assert_eq!(project.read("out/a/x"), "[hunter2] [] [1]\n");
    assert!(!build(Some("hunter2"), "y").0, "what is not handed through is no fact");
    let (ran, said) = build(Some("hunter3"), "y");
    assert!(ran && said.contains("variable.SECRET: value with digest") && !said.contains("hunter"), "{said}");
    let (ran, said) = build(None, "y");
    assert!(ran && said.contains("-> missing"), "{said}");
    assert_eq!(project.read("out/a/x"), "[] [] [1]\n");
    assert!(!build(Some("hunter2"), "y").0, "taken back");
    let explained = project.effai_told(&["explain", "a"], &[("SECRET", "hunter2")]);
    assert!(
        explained.stdout.contains("variable.SECRET") && !explained.stdout.contains("hunter"),
        "{}",
        explained.stdout
    );
    for (pass, expected) in [
        ("\"EFFAI_LOG\"", "effai's own variables are not handed through"),
        ("\"a=b\"", "a variable has letters, digits and _"),
        ("\"FIXED\"", "`FIXED` is given a value and handed through"),
    ] {
        project.write("effai.kdl", &recipe.replace("\"SECRET\"", pass));
        let run = project.effai(&["check"]);
        assert!(run.code == 2 && run.stderr.contains(expected), "no {expected:?} in:\n{}", run.stderr);
    }
}
