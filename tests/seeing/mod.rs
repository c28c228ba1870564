//! What the commands that explain and draw print: whole outputs, with times, sizes and digests made alike.

use crate::support::{Project, Run, redacted};

const CHAIN: &str = r#"
project "chain"
command "data/a" { run "sh" "-c" "tr a-z A-Z < in.txt > a.txt; echo said $(cat in.txt)"; input "in.txt"; output "a.txt"; }
command "b" { run "sh" "-c" "cat data/a/a.txt > b.txt"; needs "data/a"; output "b.txt"; }
command "c" { run "sh" "-c" "cat b/b.txt > c.txt"; needs "b"; output "c.txt"; }
"#;

fn chain() -> Project {
    let project = Project::new(CHAIN);
    project.write("in.txt", "hello");
    project
}

fn check(run: &Run, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(redacted(&run.stdout), stdout.trim_matches('\n'), "\nstderr: {}", run.stderr);
    assert_eq!(redacted(&run.stderr), stderr.trim_matches('\n'));
    assert_eq!(run.code, code);
}

#[test]
fn status_is_short_and_complete_on_request() {
    let project = chain();
    let never = "stale data/a never built\nwaits b stands on data/a\nwaits c stands on b";
    check(&project.effai(&["status"]), 0, never, "3 targets: 1 stale, 2 waits");
    project.builds(&[]);
    check(&project.effai(&["status"]), 0, "", "3 targets: 3 fresh");
    check(&project.effai(&["status", "b"]), 0, "fresh b", "2 targets: 2 fresh");
    check(&project.effai(&["status", "-v", "--check"]), 0, "fresh data/a\nfresh b\nfresh c", "3 targets: 3 fresh");
    project.write("in.txt", "other");
    let stale = "stale data/a file.in.txt: content KEY -> content KEY\nwaits b stands on data/a\nwaits c stands on b";
    let counts = "3 targets: 1 stale, 2 waits; their last runs took COST in all";
    check(&project.effai(&["status", "--check"]), 1, stale, counts);
}

#[test]
fn status_of_many_lists_some() {
    let numbers: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let project = Project::new(&format!(
        "command \"m-{{n}}\" {{ matrix {{ n {}; }}; run \"true\"; output \"x\"; }}\n",
        numbers.join(" ")
    ));
    let run = project.effai(&["status"]);
    assert_eq!(run.stdout.lines().count(), 41, "{}", run.stdout);
    assert!(run.stdout.ends_with("stale   and 20 more (-v lists all)\n"), "{}", run.stdout);
    assert_eq!(project.effai(&["status", "-v"]).stdout.lines().count(), 60);
    assert_eq!(project.effai(&["status", "--json"]).stdout.lines().count(), 60);
}

#[test]
fn explain_follows_a_change_to_the_file() {
    let project = chain();
    project.builds(&[]);
    project.write("in.txt", "other");
    let waits = r#"
c waits for what it stands on (declared in effai.kdl:5)
  data/a must run
    because in.txt changed
  last run DATE CLOCK in build 1, COST, COST at its peak
  because never built
"#;
    check(&project.effai(&["explain", "c"]), 0, waits, "");
    project.builds(&[]);
    let fresh = r#"
c is fresh (declared in effai.kdl:5)
  key KEY
  artifact KEY
  last run DATE CLOCK in build 2, COST, COST at its peak
  because b gave other bytes: artifact KEY -> KEY
      b ran because data/a gave other bytes: artifact KEY -> KEY
        data/a ran because in.txt changed
  facts:
    command.needs.0 artifact KEY
    command.needs.0.label "b"
    command.output.0 "c.txt"
    command.run.0 "sh"
    command.run.1 "-c"
    command.run.2 "cat b/b.txt > c.txt"
    kind "command"
    kind.version 2
"#;
    check(&project.effai(&["explain", "c"]), 0, fresh, "");
    let object: serde_json::Value =
        serde_json::from_str(&project.effai(&["explain", "c", "--json"]).stdout).expect("an object");
    assert_eq!(object["verdict"], "fresh");
    assert!(object["last-run"]["because"][0].as_str().expect("text").starts_with("b gave other bytes"));
}

#[test]
fn files_of_a_glob_that_appear_and_vanish_are_named() {
    let project =
        Project::new("command \"all\" { run \"sh\" \"-c\" \"cat d/* > x\"; input \"d/*.txt\"; output \"x\"; }\n");
    project.write("d/old.txt", "1");
    project.write("d/same.txt", "1");
    project.builds(&[]);
    project.remove("d/old.txt");
    for i in 0..30 {
        project.write(&format!("d/new-{i:02}.txt"), "1");
    }
    let run = project.effai(&["explain", "all"]);
    let shown: Vec<String> = (0..10).map(|i| format!("d/new-{i:02}.txt")).collect();
    let expected =
        format!("  because 30 files appeared: {} and 20 more\n  because d/old.txt vanished\n", shown.join(", "));
    assert!(run.stdout.contains(&expected), "{}", run.stdout);
}

#[test]
fn diff_takes_labels_runs_and_digits() {
    let project = chain();
    project.builds(&[]);
    project.write("in.txt", "other");
    project.edit("effai.kdl", "cat b/b.txt >", "cat b/b.txt b/b.txt >");
    project.builds(&[]);
    let expected = r#"
was KEY c
now KEY c
  b gave other bytes: artifact KEY -> KEY
    b ran because data/a gave other bytes: artifact KEY -> KEY
      data/a ran because in.txt changed
  command.run.2: "cat b/b.txt > c.txt" -> "cat b/b.txt b/b.txt > c.txt"
"#;
    let run = project.effai(&["diff", "c~1", "c"]);
    check(&run, 0, expected, "");
    let key = |line: usize| run.stdout.lines().nth(line).expect("a line")[4..12].to_owned();
    check(&project.effai(&["diff", &key(0), &key(1)]), 0, expected, "");
    check(&project.effai(&["diff", "c", &key(1)]), 0, "was KEY c\nnow KEY c\n  no fact differs", "");
    let past = "error: c has 2 keys, so there is no c~2\nhelp: `effai log c` lists its runs";
    check(&project.effai(&["diff", "c~2", "c"]), 2, "", past);
    let short = "error: `abc` is too short for a key, 4 digits are the least";
    check(&project.effai(&["diff", "abc", "c"]), 2, "", short);
    let unknown = "error: no key begins with ffffffffffff\nhelp: `effai log LABEL` shows keys";
    check(&project.effai(&["diff", "ffffffffffff", "c"]), 2, "", unknown);
    let near = "error: there is no target `data/b`\nhelp: did you mean `data/a`?";
    check(&project.effai(&["diff", "data/b", "c"]), 2, "", near);
}

#[test]
fn log_lists_builds_and_runs_and_prints_kept_output() {
    let project = chain();
    check(&project.effai(&["log"]), 0, "", "no build has done anything here yet");
    project.builds(&["b"]);
    project.builds(&["b"]);
    project.edit("effai.kdl", "cat b/b.txt >", "echo oh >&2; false; cat b/b.txt >");
    project.edit("effai.kdl", "\"sh\" \"-c\" \"echo oh", "\"sh\" \"-ec\" \"echo oh");
    assert_eq!(project.effai(&["build", "-k", "c"]).code, 1);
    project.remove("out");
    project.builds(&["b"]);
    let builds =
        "    3 DATE CLOCK 1 restored COST b\n    2 DATE CLOCK 1 failed COST c\n    1 DATE CLOCK 2 built COST b";
    check(&project.effai(&["log"]), 0, builds, "");
    assert_eq!(project.effai(&["log", "-n", "1", "--json"]).stdout.lines().count(), 1);
    let runs = "DATE CLOCK built COST COST KEY\n    because never built";
    check(&project.effai(&["log", "data/a"]), 0, runs, "");
    let failed = project.effai(&["log", "c"]);
    assert!(
        redacted(&failed.stdout).starts_with("DATE CLOCK failed COST COST KEY\n    `sh` failed"),
        "{}",
        failed.stdout
    );
    check(&project.effai(&["log", "data/a", "--output"]), 0, "said hello", "");
    check(&project.effai(&["log", "c", "--output"]), 0, "oh", "");
    let near = "error: there is no target `data/z`\nhelp: did you mean `data/a`?";
    check(&project.effai(&["log", "data/z"]), 2, "", near);
}

#[test]
fn a_build_shows_the_output_that_is_asked_for() {
    let project = chain();
    assert!(project.effai(&["build", "b", "--output", "new"]).stderr.contains("data/a: said hello\n"));
    assert!(!project.effai(&["build", "b", "--output", "new"]).stderr.contains("said"));
    assert!(project.effai(&["build", "b", "--output", "all"]).stderr.contains("data/a: said hello\n"));
    let refused = "error: `--progress bar` needs a terminal on standard error\n\
                   help: `--progress counter` says a line every ten seconds";
    check(&project.effai(&["build", "--progress", "bar"]), 2, "", refused);
}

#[test]
fn trace_tells_the_critical_path_and_writes_events() {
    let project = chain();
    let none = "error: no build has run anything here yet\nhelp: `effai build` first";
    check(&project.effai(&["trace"]), 2, "", none);
    project.builds(&["c", "-j", "2"]);
    let run = project.effai(&["trace", "-o", "trace.json"]);
    // On a busy machine the first may wait longer for its turn than is passed over.
    let told = redacted(&run.stdout).replace(" after COST in line", "");
    let begin = "build 1, DATE CLOCK, c: 3 actions in COST, 2 jobs at once\ncritical path: COST, SHARE of the time";
    assert!(told.starts_with(begin), "{told}");
    for label in ["data/a", "b", "c"] {
        // Where the machine is busy it also says how long one waited for its turn.
        assert!(told.lines().any(|l| l.trim().starts_with(&format!("COST SHARE {label}"))), "{told}");
    }
    assert!(told.contains("what would make it shorter:\n  more jobs would "), "{told}");
    let trace: serde_json::Value = serde_json::from_str(&project.read("trace.json")).expect("JSON");
    let all = trace["traceEvents"].as_array().expect("a list");
    let names = |pid: u64| -> Vec<&str> {
        all.iter().filter(|e| e["ph"] == "X" && e["pid"] == pid).map(|e| e["name"].as_str().expect("text")).collect()
    };
    assert_eq!((names(0), names(1)), (vec!["data/a", "b", "c"], vec!["data/a", "b", "c"]));
    assert_eq!(all.iter().filter(|e| e["ph"] == "s").count(), 2);
    let missing = "error: there is no build 7\nhelp: `effai log` lists the builds there were";
    check(&project.effai(&["trace", "--build", "7"]), 2, "", missing);
}

#[test]
fn graph_in_every_form() {
    let project = chain();
    let tree = "c (command)\n  <- b\nb (command)\n  <- data/a\ndata/a (command)";
    check(&project.effai(&["graph", "c"]), 0, tree, "");
    let mermaid = "flowchart LR\n  t0[\"data/a\"]\n  t1[\"b\"]\n  t0 --> t1";
    check(&project.effai(&["graph", "b", "--format", "mermaid"]), 0, mermaid, "");
    let first = project.effai(&["graph", "--json"]).stdout.lines().next().expect("a line").to_owned();
    let expected = r#"{"kind":"command","label":"data/a","place":"effai.kdl:3","stands-on":[],"version":1}"#;
    assert_eq!(first, expected);
    check(&project.effai(&["graph", "--format", "svg", "-o", "g.svg"]), 0, "", "3 targets in g.svg");
    let svg = project.read("g.svg");
    assert!(svg.contains("command · stale") && svg.contains("command · waits"), "{svg}");
    check(&project.effai(&["graph", "--format", "html", "-o", "g.html"]), 0, "", "3 targets in g.html");
    assert!(project.read("g.html").contains("<title>chain: 3 targets</title>"));
    project.remove("in.txt");
    let run = project.effai(&["graph", "--format", "svg", "-o", "g.svg"]);
    assert!(run.stderr.starts_with("drawn without states: data/a: there is no file `in.txt`"), "{}", run.stderr);
}

#[test]
fn a_graph_too_large_for_a_picture_says_what_to_do() {
    let numbers: Vec<String> = (0..601).map(|n| n.to_string()).collect();
    let project = Project::new(&format!(
        "command \"m-{{n}}\" {{ matrix {{ n {}; }}; run \"true\"; output \"x\"; }}\n",
        numbers.join(" ")
    ));
    let run = project.effai(&["graph", "--format", "svg"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("601 targets are too many for a picture, 600 is the most"), "{}", run.stderr);
    assert!(run.stderr.contains("`--format html` has zoom and search"), "{}", run.stderr);
    assert_eq!(project.effai(&["graph", "--format", "svg", "m-1*"]).code, 0);
}
