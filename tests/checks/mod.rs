//! `effai test`: tests that ran are not run again until something changes, and how they end is told.

use roxmltree::Document;

use crate::support::{Project, Run, redacted};

/// Three tests and something that is none. Each test passes while its file says so, and counts its runs outside of the
/// project.
const RECIPE: &str = r##"
project "app"
test "checks/lint" {
    tags "quick"
    run "sh" "-c" #"echo lint >> "$CALLS"; cat lint.txt; grep -q good lint.txt"#
    input "lint.txt"
    env { CALLS "@"; }
    untracked "@"
}
test "checks/unit" {
    run "sh" "-c" #"echo unit >> "$CALLS"; sed "s|HERE|$PWD|" cases.xml > report.xml; grep -q good unit.txt"#
    input "unit.txt"
    input "cases.xml"
    junit "report.xml"
    env { CALLS "@"; }
    untracked "@"
}
test "checks/model" { run "grep" "-q" "good" "model/o"; needs "model"; }
command "model" { run "cp" "model.txt" "o"; input "model.txt"; output "o"; }
"##;

/// As pytest writes it.
const CASES: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="0" failures="0" skipped="1" tests="2" time="0.027" timestamp="2026-11-29T10:00:00"
 hostname="box"><testcase classname="tests.test_a" name="test_good" time="0.012"/><testcase classname="tests.test_a"
 name="test_later" time="0.000"><skipped type="pytest.skip" message="later">HERE/test_a.py:9: later</skipped></testcase>
</testsuite></testsuites>"#;

struct Checks {
    project: Project,
}

impl Checks {
    fn new() -> Self {
        let project = Project::new("");
        let calls = project.path("../calls").display().to_string();
        std::fs::write(&calls, "").expect("written");
        project.write("effai.kdl", &RECIPE.replace('@', &calls));
        project.write("cases.xml", CASES);
        for name in ["lint.txt", "unit.txt", "model.txt"] {
            project.write(name, "good\n");
        }
        Self { project }
    }

    /// How often programs ran that count themselves.
    fn calls(&self) -> usize {
        self.project.read("../calls").lines().count()
    }

    /// Runs tests; the exit code and the last line are these.
    #[track_caller]
    fn ends(&self, args: &[&str], code: i32, last: &str) -> Run {
        let run = self.project.effai(&[&["test", "-j", "1"], args].concat());
        assert_eq!(run.stderr.lines().last(), Some(last), "{}", run.stderr);
        assert_eq!(run.code, code, "{}", run.stderr);
        run
    }
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

#[test]
fn what_passed_is_not_run_again_until_something_changes() {
    let checks = Checks::new();
    checks.ends(&[], 0, "3 passed");
    assert_eq!(checks.calls(), 2);
    let run = checks.ends(&[], 0, "3 passed (all of them cached)");
    assert!(!run.stderr.contains("run "), "{}", run.stderr);
    assert_eq!(checks.calls(), 2, "no process was started");
    checks.project.write("lint.txt", "good too\n");
    checks.ends(&[], 0, "3 passed (2 of them cached)");
    assert_eq!(checks.calls(), 3);
    checks.project.write("model.txt", "good model\n");
    let run = checks.ends(&[], 0, "3 passed (2 of them cached)");
    contains(&run.stderr, &["run     model", "run     checks/model"]);
    checks.project.write("lint.txt", "good\n");
    checks.project.remove(".effai");
    checks.ends(&[], 0, "3 passed (all of them cached)");
    assert_eq!(checks.calls(), 3, "the store remembers");
    checks.ends(&["-f", "checks/lint"], 0, "1 passed");
    assert_eq!(checks.calls(), 4);
}

#[test]
fn a_test_that_fails_is_told_and_run_again_and_the_others_run() {
    let checks = Checks::new();
    checks.project.write("lint.txt", "line 7 is too long\n");
    let run = checks.ends(&[], 1, "2 passed, 1 failed");
    contains(&run.stderr, &["failed  checks/lint", "built   checks/unit", "built   checks/model"]);
    contains(&run.stderr, &["error: checks/lint: `sh` failed (exit status: 1):\n  line 7 is too long\n"]);
    assert_eq!(checks.calls(), 2);
    checks.ends(&[], 1, "2 passed (all of them cached), 1 failed");
    assert_eq!(checks.calls(), 3, "a failure is not kept");
    checks.project.write("model.txt", "bad\n");
    checks.project.edit("effai.kdl", "run \"cp\" \"model.txt\" \"o\"", "run \"cp\" \"no-model.txt\" \"o\"");
    let run = checks.ends(&["-k"], 1, "1 passed (cached), 1 failed, 1 skipped");
    contains(&run.stderr, &["skipped checks/model  because model failed"]);
    checks.project.write("lint.txt", "good\n");
    checks.ends(&["checks/lint"], 0, "1 passed");
}

#[test]
fn fail_fast_begins_nothing_after_a_failure() {
    let checks = Checks::new();
    for name in ["lint.txt", "unit.txt"] {
        checks.project.write(name, "bad\n");
    }
    checks.ends(&["--fail-fast", "checks/lint", "checks/unit"], 1, "0 passed, 1 failed, 1 skipped");
    assert_eq!(checks.calls(), 1);
    let run = checks.project.effai(&["test", "--fail-fast", "-k"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn words_choose_tests_as_they_choose_targets() {
    let checks = Checks::new();
    checks.ends(&["tag:quick"], 0, "1 passed");
    checks.ends(&["**", "--exclude", "checks/model"], 0, "2 passed (1 of them cached)");
    let said = |args: &[&str]| {
        let run = checks.project.effai(&[&["test"], args].concat());
        (run.code, run.stderr)
    };
    let (code, stderr) = said(&["model"]);
    assert_eq!(code, 2, "{stderr}");
    contains(&stderr, &["model is a `command`, not a test", "`effai build model` makes it"]);
    let (code, stderr) = said(&["checks/linr"]);
    assert_eq!(code, 2, "{stderr}");
    contains(&stderr, &["did you mean `checks/lint`?"]);
    assert_eq!(said(&["--exclude", "checks/*"]).0, 2);
    let dry = checks.project.effai(&["test", "-n"]);
    assert_eq!(
        (dry.code, redacted(&dry.stdout)),
        (0, "run model never built\nmaybe checks/model stands on model".into())
    );
}

#[test]
fn a_project_without_tests_says_so() {
    let project = Project::new("project \"bare\"\ncommand \"a\" { run \"touch\" \"o\"; output \"o\"; }\n");
    let run = project.effai(&["test", "--junit", "r.xml"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    contains(&run.stderr, &["the project has no tests"]);
    let text = project.read("r.xml");
    assert_eq!(Document::parse(&text).expect("XML").root_element().attribute("tests"), Some("0"));
    assert_eq!(project.effai(&["test", "*"]).code, 2);
}

/// Suites by name: how many cases, and how they ended.
fn suites(text: &str) -> Vec<String> {
    let document = Document::parse(text).expect("XML");
    let suites = document.root_element().children().filter(|node| node.has_tag_name("testsuite"));
    let told = suites.map(|suite| {
        let of = |name: &str| suite.attribute(name).expect("counted");
        let cached =
            if suite.descendants().any(|node| node.attribute("name") == Some("cached")) { " cached" } else { "" };
        let cases =
            suite.children().filter(|node| node.has_tag_name("testcase")).filter_map(|node| node.attribute("name"));
        let cases: Vec<&str> = cases.collect();
        format!("{} {}/{}/{}{cached}: {}", of("name"), of("tests"), of("failures"), of("skipped"), cases.join(" "))
    });
    told.collect()
}

#[test]
fn junit_has_a_suite_for_each_test_and_the_programs_own_cases() {
    let checks = Checks::new();
    checks.project.write("lint.txt", "a < b\n");
    checks.ends(&["--junit", "reports/all.xml"], 1, "2 passed, 1 failed");
    let text = checks.project.read("reports/all.xml");
    let unit = "checks/unit 2/0/1: test_good test_later";
    assert_eq!(suites(&text), ["checks/lint 1/1/0: checks/lint", "checks/model 1/0/0: checks/model", unit]);
    contains(&text, &["<testsuites name=\"app\" tests=\"4\"", "`sh` failed (exit status: 1):\n  a &lt; b</failure>"]);
    let kept = checks.project.read("out/checks/unit/junit.xml");
    contains(&kept, &["test_good", "message=\"later\"", ">test_a.py:9: later<"]);
    assert!(!kept.contains("time") && !kept.contains("box"), "{kept}");
    contains(&checks.project.read("out/checks/model/junit.xml"), &["<testcase name=\"grep -q good model/o\"/>"]);

    // A program that took longer gave the same cases: what stands on the test does not run.
    checks.project.edit("cases.xml", "time=\"0.012\"", "time=\"7.5\"");
    let run = checks.project.effai(&["test", "checks/unit"]);
    contains(&run.stderr, &["same bytes as before", "1 passed"]);

    checks.project.remove("out");
    checks.project.write("model.txt", "bad\n");
    let failing =
        CASES.replace("time=\"0.012\"/>", "><failure message=\"assert 1 == 2\">test_a.py:3</failure></testcase>");
    checks.project.write("cases.xml", &failing);
    checks.project.write("unit.txt", "bad\n");
    checks.project.write("lint.txt", "good\n");
    checks.ends(&["--junit", "all.xml"], 1, "1 passed, 2 failed");
    let text = checks.project.read("all.xml");
    let unit = "checks/unit 2/1/1: test_good test_later";
    assert_eq!(suites(&text), ["checks/lint 1/0/0: checks/lint", "checks/model 1/1/0: checks/model", unit]);
    contains(&text, &["assert 1 == 2"]);
    checks.project.write("cases.xml", CASES);
    checks.ends(&["--junit", "all.xml", "checks/unit", "checks/lint"], 1, "1 passed (cached), 1 failed");
    let text = checks.project.read("all.xml");
    let unit = "checks/unit 3/1/1: test_good test_later checks/unit";
    assert_eq!(suites(&text), ["checks/lint 1/0/0 cached: checks/lint", unit], "a failure without a failed case");
}

#[test]
fn json_ends_with_the_counts() {
    let checks = Checks::new();
    checks.ends(&[], 0, "3 passed");
    let run = checks.project.effai(&["test", "--json"]);
    let last: serde_json::Value = serde_json::from_str(run.stdout.lines().last().expect("a line")).expect("JSON");
    let expected =
        serde_json::json!({ "version": 1, "event": "tested", "passed": 3, "cached": 3, "failed": 0, "skipped": 0 });
    assert_eq!(last, expected);
    assert_eq!(checks.project.effai(&["test", "-q"]).stderr, "");
}

#[test]
fn a_file_of_cases_that_is_missing_or_none_fails_the_test() {
    let checks = Checks::new();
    checks.project.edit("effai.kdl", "junit \"report.xml\"", "junit \"other.xml\"");
    let run = checks.ends(&["checks/unit"], 1, "0 passed, 1 failed");
    contains(&run.stderr, &["the test ended well but did not make `other.xml`", "check the path after `junit`"]);
    checks.project.edit("effai.kdl", "junit \"other.xml\"", "junit \"report.xml\"");
    checks.project.write("cases.xml", "[]");
    let run = checks.ends(&["checks/unit"], 1, "0 passed, 1 failed");
    contains(&run.stderr, &["its `report.xml` cannot be read: not XML", "--junitxml=PATH"]);
}

#[test]
fn what_contradicts_itself_is_shown_in_the_recipe() {
    let check = |fields: &str, expected: &[&str]| {
        let recipe = "environment \"env\"\ncommand \"c\" { run \"true\"; output \"o\"; }\n";
        let project = Project::new(&format!("test \"t\" {{ {fields} }}\n{recipe}"));
        let run = project.effai(&["check"]);
        assert_eq!(run.code, 2, "{fields}: {}", run.stderr);
        contains(&run.stderr, expected);
        contains(&run.stderr, &["effai.kdl:1"]);
    };
    check("input \"a\"", &["it says nothing of what to run", "an `environment` with a `script` or a `module`"]);
    check("run \"true\"; environment \"env\"; script \"a\"", &["it runs a program and Python"]);
    check("run \"true\"; args \"-q\"", &["`args` is of Python, and `run` of any program"]);
    check("environment \"env\"", &["give it a `script` or a `module`"]);
    check("run \"true\"; output \"./junit.xml\"", &["`./junit.xml` would lie where effai writes `junit.xml`"]);
    check("run \"true\"; metrics \"../m.json\"", &["`../m.json` is no file of an artifact"]);
    check("run \"true\"; output \"d\"; metrics \"d/m.json\"", &["`d` would lie where effai writes `d/m.json`"]);
}
