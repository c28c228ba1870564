//! A store that may grow to a size, and plans of profiles that are gone.

use crate::support::Project;

/// Each edit of `in.txt` leaves an artifact of 100,000 bytes that nothing stands on.
const LARGE: &str = r#"
cache size="250 kB"
command "a" { run "sh" "-c" "cat in.txt > x; head -c 100000 /dev/zero | tr '\\0' \"$(cat in.txt)\" >> x"; input "in.txt"; output "x"; }
"#;

#[test]
fn a_build_that_grows_the_store_past_its_size_prunes_it() {
    let project = Project::new(LARGE);
    for text in ["1", "2"] {
        project.write("in.txt", text);
        let run = project.effai(&["build"]);
        assert_eq!((run.code, run.stderr.contains("pruned")), (0, false), "{}", run.stderr);
    }
    project.write("in.txt", "3");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("pruned the store: 97.7 KiB in 2 blobs deleted"), "{}", run.stderr);
    let size = project.effai(&["cache", "size", "--json"]);
    let size: serde_json::Value = serde_json::from_str(&size.stdout).expect("JSON");
    assert!(size["bytes"].as_u64().expect("a number") < 256_000, "{size}");
    assert_eq!(project.effai(&["cache", "verify"]).code, 0);
    project.write("in.txt", "2");
    assert!(project.builds(&[]).is_empty(), "the least recently used went first");
    project.write("in.txt", "1");
    assert_eq!(project.builds(&[]), ["a"]);
}

#[test]
fn what_is_stood_on_stays_and_it_is_said() {
    let project = Project::new(&LARGE.replace("250 kB", "1 KiB"));
    project.write("in.txt", "1");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("left of 1.0 KiB; projects stand on the rest"), "{}", run.stderr);
    project.remove("out");
    assert!(project.builds(&[]).is_empty());
}

#[test]
fn while_another_uses_the_store_it_is_let_be() {
    let project = Project::new(&LARGE.replace("250 kB", "1 KiB"));
    project.write("in.txt", "1");
    project.builds(&[]);
    let gate = std::fs::File::open(project.cache().join("v1/gate")).expect("the gate");
    gate.lock_shared().expect("held");
    project.write("in.txt", "2");
    let run = project.effai(&["build"]);
    assert_eq!((run.code, run.stderr.contains("pruned")), (0, false), "{}", run.stderr);
    drop(gate);
    project.write("in.txt", "3");
    assert!(project.effai(&["build"]).stderr.contains("pruned the store"));
}
