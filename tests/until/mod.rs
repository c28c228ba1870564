//! `effai build --until`: what is begun, what is not, and what is said of it. Nothing here waits for a time to come: it is
//! over already, or the record says that an action takes a year.

use crate::support::{Project, redacted};

const THREE: &str = r#"
command "a" { run "sh" "-c" "cat a.txt > o"; input "a.txt"; output "o"; }
command "b" { run "sh" "-c" "cat a/o b.txt > o"; needs "a"; input "b.txt"; output "o"; }
command "c" { run "sh" "-c" "cat c.txt > o"; input "c.txt"; output "o"; }
"#;

fn three() -> Project {
    let project = Project::new(THREE);
    ["a.txt", "b.txt", "c.txt"].iter().for_each(|name| project.write(name, "1"));
    project
}

/// Lets the record say that the target's runs took a year.
fn take_a_year(project: &Project, label: &str) {
    let db = rusqlite::Connection::open(project.path(".effai/effai.db")).expect("opened");
    let changed = db.execute("UPDATE actions SET wall_ms = 31536000000 WHERE label = ?1", [label]).expect("written");
    assert!(changed > 0, "{label} is on record");
}

#[test]
fn nothing_is_begun_when_the_time_is_over_and_the_next_build_goes_on() {
    let project = three();
    project.builds(&["c"]);
    let run = project.effai(&["build", "--until", "0s"]);
    let expected = "skipped a not begun before CLOCK\nskipped b not begun before CLOCK\n1 fresh, 2 skipped in COST\n\
                    2 not begun before CLOCK; `effai build` goes on";
    assert_eq!((redacted(&run.stderr).as_str(), run.code), (expected, 1));
    assert_eq!(project.builds(&[]), ["a", "b"]);
    let run = project.effai(&["build", "--until", "0s"]);
    assert_eq!((redacted(&run.stderr).as_str(), run.code), ("3 fresh in COST", 0), "nothing had to be begun");
}

#[test]
fn what_would_end_later_going_by_its_last_run_is_not_begun() {
    let project = three();
    project.builds(&[]);
    take_a_year(&project, "a");
    ["a.txt", "b.txt", "c.txt"].iter().for_each(|name| project.write(name, "2"));
    let run = project.effai(&["build", "--until", "10h", "--json"]);
    assert_eq!(run.code, 1);
    let events: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let outcome = |label: &str| {
        let finished = events.iter().find(|e| e["event"] == "finished" && e["label"] == label).expect("told");
        (finished["outcome"]["outcome"].as_str().expect("text"), finished["outcome"]["last_ms"].as_u64())
    };
    assert_eq!(outcome("a"), ("late", Some(31_536_000_000)));
    assert_eq!(outcome("b").0, "late", "it stands on one");
    assert_eq!(outcome("c").0, "built");
    let ended = events.last().expect("ended");
    assert_eq!(
        (ended["late"].as_u64(), ended["skipped"].as_u64(), ended["built"].as_u64()),
        (Some(2), Some(2), Some(1))
    );
    assert_eq!(project.builds(&[]), ["a", "b"], "without a time both run");
}

#[test]
fn what_is_in_the_store_is_restored_at_any_time() {
    let project = three();
    project.builds(&[]);
    ["out", ".effai"].iter().for_each(|name| project.remove(name));
    let run = project.effai(&["build", "--until", "0s"]);
    assert!(run.code == 0 && run.stderr.contains("3 restored"), "{}", run.stderr);
}

#[test]
fn a_time_that_is_none_is_refused() {
    let run = three().effai(&["build", "--until", "soon"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`soon` is neither a time of day such as 18:30 nor a time from now"), "{}", run.stderr);
}
