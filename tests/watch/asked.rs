//! A build beside a watch is told by it that nothing is to be done, or looks for itself; it is never told so wrongly.

use super::{TWO, Watching, save_by_rename, two};
use crate::support::{Project, Run, redacted};

impl Watching {
    /// Builds until the watch answers; what that build says.
    fn answers(&mut self, project: &Project, args: &[&str]) -> Run {
        loop {
            let run = project.effai(&[&["build"], args].concat());
            if self.until("asked").last().expect("told")["fresh"] == true {
                return run;
            }
        }
    }

    /// A build that the watch must not answer.
    fn is_silent(&mut self, project: &Project, args: &[&str]) -> Run {
        let run = project.effai(&[&["build"], args].concat());
        assert_eq!(self.until("asked").last().expect("told")["fresh"], false, "{}", run.stderr);
        run
    }
}

#[test]
fn a_build_with_nothing_to_do_is_told_so_and_says_the_same() {
    let project = two();
    project.outlast_the_grain("effai.kdl");
    let ways: [&[&str]; 6] = [&[], &["a"], &["-v"], &["--json"], &["-q"], &["out/b", "--output", "all"]];
    project.builds(&[]);
    let alone: Vec<Run> = ways.iter().map(|args| project.effai(&[&["build"], *args].concat())).collect();
    let mut watching = Watching::start(&project, &[]);
    for (args, alone) in ways.iter().zip(alone) {
        let told = watching.answers(&project, args);
        assert_eq!((redacted(&told.stderr), told.code), (redacted(&alone.stderr), 0), "{args:?}");
        let without_time = |text: &str| text.split("\"wall_ms\"").next().map(str::to_owned);
        assert_eq!(without_time(&told.stdout), without_time(&alone.stdout), "{args:?}");
    }
    assert_eq!(watching.end(), 0);
    assert!(!project.path(".effai/watch/socket").exists(), "it goes with the watch");
}

#[test]
fn what_does_more_than_look_asks_nobody() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    watching.answers(&project, &[]);
    let ways: [&[&str]; 6] =
        [&["-n"], &["--explain"], &["--no-cache"], &["--until", "1h"], &["--exclude", "a"], &["--force", "a"]];
    for args in ways {
        assert_eq!(project.effai(&[&["build"], args].concat()).code, 0, "{args:?}");
    }
    // The next that is told of is this one's: no other asked.
    let run = project.effai(&["build", "nothing-of-that-name"]);
    assert_eq!((run.code, watching.until("asked").len()), (2, 1), "{}", run.stderr);
}

#[test]
fn another_profile_and_what_is_not_watched_are_no_matter_of_the_watch() {
    let project = two();
    project.builds(&[]);
    let mut watching = Watching::start(&project, &["a"]);
    watching.answers(&project, &["a"]);
    watching.is_silent(&project, &["b"]);
    let profile = "command \"c\" { run \"sh\" \"-c\" \"echo 1 > o\"; output \"o\"; profile \"ci\" { network; }; }\n";
    project.write("effai.kdl", &format!("{TWO}{profile}"));
    watching.until("ended");
    watching.answers(&project, &["a"]);
    watching.is_silent(&project, &["a", "--profile", "ci"]);
}

#[test]
fn an_output_that_was_edited_or_deleted_is_seen() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    watching.answers(&project, &[]);
    project.write("out/a/o", "mine");
    assert!(watching.is_silent(&project, &[]).stderr.contains("edited by hand: out/a/o"));
    project.remove("out/a/o");
    assert!(watching.is_silent(&project, &[]).stderr.contains("1 restored, 1 fresh"));
    watching.answers(&project, &[]);
    assert_eq!(project.read("out/a/o"), "A");
    project.remove("out/b");
    assert!(watching.is_silent(&project, &[]).stderr.contains("1 restored, 1 fresh"));
    watching.answers(&project, &[]);
    project.remove("out");
    assert!(watching.is_silent(&project, &[]).stderr.contains("2 restored"));
    watching.answers(&project, &[]);
    let second = project.path("second-name");
    std::fs::hard_link(project.path("out/a/o"), &second).expect("linked");
    project.write("out/unread", "x");
    watching.answers(&project, &[]);
    std::fs::write(&second, "through another name").expect("written");
    assert!(watching.is_silent(&project, &[]).stderr.contains("edited by hand: out/a/o"));
}

#[test]
fn an_output_of_what_the_watch_builds_but_does_not_deliver_is_old() {
    let project = two();
    let on_a = "command \"d\" { run \"sh\" \"-c\" \"cat a/o > o\"; needs \"a\"; output \"o\"; }\n";
    project.write("effai.kdl", &format!("{TWO}{on_a}"));
    project.builds(&[]);
    let mut watching = Watching::start(&project, &["d"]);
    watching.answers(&project, &["a"]);
    project.write("a.txt", "b");
    assert_eq!(watching.round().1, ["a", "d"]);
    watching.is_silent(&project, &["a"]);
    assert_eq!(project.read("out/a/o"), "B");
    assert_eq!(watching.end(), 0);
    // What a target reads in `out/` is nobody's but its own.
    project.edit("effai.kdl", "cat src/*.txt > o\"; input \"src/*.txt\"", "cat out/x/* > o\"; input \"out/x/*\"");
    project.write("out/x/1", "1");
    project.builds(&["b"]);
    let mut watching = Watching::start(&project, &["b"]);
    project.outlast_the_grain("out/x/1");
    watching.answers(&project, &["b"]);
    project.write("out/x/2", "2");
    project.effai(&["build", "b"]);
    assert_eq!(project.read("out/b/o"), "12");
}

#[test]
fn an_emptied_store_changes_nothing_until_its_bytes_are_needed() {
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    watching.answers(&project, &[]);
    std::fs::remove_dir_all(project.cache()).expect("removed");
    assert!(watching.answers(&project, &[]).stderr.contains("2 fresh"));
    project.remove("out");
    // The watch may find out too, and make one of them meanwhile.
    let said = watching.is_silent(&project, &[]).stderr;
    assert!(said.contains("it is made again") && !said.contains("fresh"), "{said}");
    assert_eq!((project.read("out/a/o"), project.read("out/b/o")), ("A".into(), "1".into()));
}

#[test]
fn what_changes_without_an_event_is_looked_at() {
    let project = two();
    project.write("elsewhere", "e");
    std::fs::hard_link(project.path("elsewhere"), project.path("src/2.txt")).expect("linked");
    std::fs::create_dir_all(project.path("far/inner")).expect("made");
    project.write("far/inner/3.txt", "3");
    std::os::unix::fs::symlink("../far/inner/3.txt", project.path("src/3.txt")).expect("linked");
    let mut watching = Watching::start(&project, &[]);
    project.outlast_the_grain("far/inner/3.txt");
    watching.answers(&project, &[]);
    assert_eq!(project.read("out/b/o"), "1e3");
    // Neither of these lies in a directory that is watched.
    std::fs::rename(project.path("far"), project.path("near")).expect("renamed");
    project.write("far/inner/3.txt", "4");
    project.effai(&["build"]);
    assert_eq!(project.read("out/b/o"), "1e4");
    project.outlast_the_grain("far/inner/3.txt");
    watching.answers(&project, &[]);
    project.write("elsewhere", "f");
    project.effai(&["build"]);
    assert_eq!(project.read("out/b/o"), "1f4");
}

#[test]
fn surroundings_of_another_process_are_not_those_of_the_watch() {
    let project = Project::new("command \"a\" { run \"sh\" \"-c\" \"echo $X > o\"; pass \"X\"; output \"o\"; }\n");
    let mut watching = Watching::start(&project, &[]);
    watching.answers(&project, &[]);
    let run = project.effai_told(&["build"], &[("X", "1")]);
    assert_eq!((run.code, project.read("out/a/o")), (0, "1\n".into()), "{}", run.stderr);
}

#[test]
fn a_second_watch_and_what_a_killed_one_left_do_no_harm() {
    let project = two();
    let mut first = Watching::start(&project, &[]);
    let second = Watching::start(&project, &[]);
    first.answers(&project, &[]);
    assert_eq!(second.end(), 0);
    first.answers(&project, &[]);
    first.signal(rustix::process::Signal::KILL);
    first.child.wait().expect("it ends");
    assert!(project.path(".effai/watch/socket").exists(), "it had no time");
    assert!(project.effai(&["build"]).stderr.contains("2 fresh"));
    let mut third = Watching::start(&project, &[]);
    third.answers(&project, &[]);
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| project.path(name).symlink_metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(".effai/watch"), mode(".effai/watch/socket")), (0o700, 0o600));
}

/// What the project's files say must be in `out/` when a build has ended well, whoever else builds.
#[test]
fn no_edit_from_before_the_question_is_missed() {
    let cases = std::env::var("EFFAI_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40_u64);
    let seed = std::env::var("EFFAI_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1_u64);
    let project = two();
    let mut watching = Watching::start(&project, &[]);
    let mut state = seed;
    let mut dice = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut last = String::new();
    for case in 0..cases {
        // As it is ready to say that there is nothing to do.
        watching.answers(&project, &[]);
        let text = format!("{case};");
        let file = format!("src/{}.txt", dice(4));
        let op = match dice(9) {
            0 => {
                project.write("a.txt", &text);
                "write a"
            }
            1 => {
                save_by_rename(&project.path("a.txt"), &text);
                "rename onto a"
            }
            2 => {
                project.write(&file, &text);
                "write in the glob"
            }
            3 => {
                let _ = std::fs::remove_file(project.path(&file));
                project.write("src/keep.txt", "");
                "remove from the glob"
            }
            4 => {
                let _ = std::fs::rename(project.path(&file), project.path("src/moved.txt"));
                project.write("src/keep.txt", "");
                "rename in the glob"
            }
            5 => {
                project.write("effai.kdl", &TWO.replace("tr a-z", &format!("true {case}; tr a-z")));
                "recipe"
            }
            6 => {
                let _ = std::fs::remove_dir_all(project.path("out/b"));
                "out/b is gone"
            }
            7 => {
                let _ = std::fs::remove_file(project.path("out/a/o"));
                "out/a/o is gone"
            }
            _ => "nothing",
        };
        last = format!("{last}\n{op}");
        let run = project.effai(&["build"]);
        watching.until("asked");
        let said = format!("EFFAI_TEST_SEED={seed}, case {case}: {}{last}", run.stderr);
        assert_eq!(run.code, 0, "{said}");
        assert_eq!(project.read("out/a/o"), project.read("a.txt").to_uppercase(), "{said}");
        assert_eq!(project.read("out/b/o"), glob(&project), "{said}");
    }
}

fn glob(project: &Project) -> String {
    let list = std::fs::read_dir(project.path("src")).expect("listed").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> = list.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).expect("read")).collect()
}
