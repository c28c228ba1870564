//! What an action may use up, what it leaves behind, and when it is tried again.

use super::{contains, fails, is_alive, shell, start, until};
use crate::support::Project;

/// A number that a failed action's script wrote into its directory.
fn kept(project: &Project, label: &str, file: &str) -> String {
    let scratch = std::fs::read_dir(project.path(".effai/scratch")).expect("listed");
    let of_label = |name: &str| name.starts_with(&format!("{label}-"));
    let dir = scratch.flatten().find(|entry| of_label(&entry.file_name().to_string_lossy())).expect("it is kept");
    std::fs::read_to_string(dir.path().join("work").join(file)).expect("read").trim().to_owned()
}

/// Eight scripts that do what they should not, each ended as said, and one that has nothing to do with them.
#[test]
#[cfg(target_os = "linux")]
fn each_misbehaving_script_ends_as_said_and_the_build_goes_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let project = Project::new("");
    project.write("secret.txt", "1");
    let root = project.path(".").canonicalize().expect("there").display().to_string();
    let scripts = [
        ("reads", format!("open('{root}/secret.txt')"), ""),
        ("writes", format!("open('{root}/made.txt', 'w')"), ""),
        ("connects", format!("import socket; socket.create_connection(('127.0.0.1', {port}))"), ""),
        (
            "daemon",
            "import os, time\nif os.fork():\n    while not os.path.exists('pid'): time.sleep(.001)\n    open('o', \
             'w').write(open('pid').read())\n    os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nopen('tmp', \
             'w').write(str(os.getpid())); os.rename('tmp', 'pid'); time.sleep(1000)"
                .into(),
            "",
        ),
        (
            "stubborn",
            "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('pid', \
             'w').write(str(os.getpid())); time.sleep(1000)"
                .into(),
            "at-most time=\"4 s\"",
        ),
        ("file", "open('o', 'wb').write(bytes(3 << 20))".into(), "at-most disk=\"2 MiB\""),
        (
            "files",
            "import itertools\nfor i in itertools.count(): open(str(i), 'wb').write(bytes(1 << 19))".into(),
            "at-most disk=\"4 MiB\"",
        ),
        (
            "memory",
            "import time; x = bytearray(b'x' * (200 << 20)); time.sleep(1000)".into(),
            "at-most memory=\"100 MiB\"",
        ),
        ("good", "open('o', 'w')".into(), ""),
    ];
    let mut recipe = String::new();
    for (label, script, fields) in &scripts {
        project.write(&format!("{label}.py"), script);
        recipe += &format!(
            "command \"{label}\" {{ run \"python3\" \"{label}.py\"; input \"{label}.py\"; output \"o\"; {fields} }}\n"
        );
    }
    project.write("effai.kdl", &recipe);
    let run = project.effai(&["build", "-k", "-j", "3"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    for said in [
        "reads: `python3` failed (exit status: 1)",
        "input \"secret.txt\"",
        "writes: `python3` failed (exit status: 1)",
        "output \"made.txt\"",
        "connects: `python3` failed (exit status: 1)",
        "PermissionError",
        "stubborn: it ran for longer than 4.0 s, which is all its `at-most` gives it",
        "file: it wrote more than 2.0 MiB",
        "files: it wrote more than 4.0 MiB",
        "memory: it held more memory than 100.0 MiB",
        "raise memory= after `at-most`",
        "2 built, 7 failed",
    ] {
        contains(&run.stderr, said);
    }
    assert!(!project.path("made.txt").exists());
    assert!(project.path("out/good/o").exists());
    let daemon = project.read("out/daemon/o");
    assert!(!is_alive(&daemon), "what had ended when its build ended left nothing");
    assert!(!is_alive(&kept(&project, "stubborn", "pid")));
}

#[test]
#[cfg(target_os = "linux")]
fn a_daemon_without_variables_ends_too() {
    let script = "setsid env -i sh -c 'echo $$ > pid; exec sleep 1000' & while ! [ -s pid ]; do :; done; cat pid > o";
    let project = shell(script, "");
    assert_eq!(project.builds(&[]), ["a"]);
    assert!(!is_alive(project.read("out/a/o").trim()));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_processes_share_counts_once() {
    let script = "import os, time\nx = bytearray(120 << 20); x[::4096] = b'x' * len(x[::4096])\nif os.fork(): os.wait()\nelse: time.sleep(.5)\nopen('o', 'w')";
    let project = Project::new(
        "command \"a\" { run \"python3\" \"a.py\"; input \"a.py\"; output \"o\"; at-most memory=\"200 MiB\"; }\n",
    );
    project.write("a.py", script);
    assert_eq!(project.builds(&[]), ["a"]);
    project.edit("a.py", "else: time.sleep(.5)", "else: x[::4096] = b'y' * len(x[::4096]); time.sleep(1000)");
    contains(&fails(&project), "it held more memory than 200.0 MiB");
}

#[test]
fn limits_are_no_facts_and_are_checked() {
    let project = shell("echo 1 > o", "at-most time=\"1 h\" memory=\"1 GiB\" disk=\"1 GiB\"");
    assert_eq!(project.builds(&[]), ["a"]);
    project.edit("effai.kdl", "1 h", "2 h");
    assert!(project.builds(&[]).is_empty());
    let refused = |from: &str, to: &str, said: &str| {
        let project = shell("echo 1 > o", "at-most time=\"1 h\"; retry 3 { code 7; }");
        project.edit("effai.kdl", from, to);
        let run = project.effai(&["build"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        contains(&run.stderr, said);
    };
    refused("\"1 h\"", "60", "`time` is a span of time such as \"10 min\", not the number 60");
    refused("\"1 h\"", "\"1 moon\"", "has no unit of s, min, h, d or w");
    refused("time=", "memory=", "has no unit of K, M, G or T");
    refused("time=", "cpu=", "`at-most` has no property `cpu`");
    refused("{ code 7; }", "", "`retry` does not say after which failures");
    refused("code 7", "on \"weather\"", "\"network\", \"memory\" or \"time\"");
    refused("retry 3", "retry 0", "a whole number from 1 to 100");
}

/// Fails until it was run a third time.
const THIRD: &str = "test ! -e left && touch left; echo x >> $EFFAI_CHECKPOINT/runs; \
                     echo '{\"event\":\"metric\",\"name\":\"run\",\"value\":1}' >&$EFFAI_EVENTS; \
                     if [ $(wc -l < $EFFAI_CHECKPOINT/runs) -lt 3 ]; then echo Connection reset by peer; exit 75; fi; echo 1 > o";

#[test]
fn what_fails_in_a_passing_way_is_run_again() {
    let built = |retry: &str| {
        let project = shell(THIRD, &format!("checkpoint; retry 2 {{ {retry}; wait \"0.01 s\"; }}"));
        let run = project.effai(&["build"]);
        assert_eq!(run.code, 0, "{retry}: {}", run.stderr);
        contains(&run.stderr, "warning a: `sh` failed (exit status: 75):\n  Connection reset by peer");
        contains(&run.stderr, "again in 10 ms, 1 of 2");
        contains(&run.stderr, "again in 20 ms, 2 of 2");
        project
    };
    let project = built("code 3 75");
    contains(&project.effai(&["log", "a", "--output"]).stdout, "Connection reset by peer\n\nagain, 2:\n");
    let db = rusqlite::Connection::open(project.path(".effai/effai.db")).expect("opened");
    let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let metrics = db.query_row("SELECT count(*) FROM metrics", [], count).expect("on record");
    assert_eq!(metrics, 1, "what a failed run told is of no account");
    let left = std::fs::read_dir(project.path(".effai/checkpoints")).expect("listed").count();
    assert_eq!(left, 0, "what was kept goes with the artifact");
    built("says \"reset by\"");
    built("on \"memory\" \"network\"");

    let fails_at_once = |retry: &str| {
        let project = shell(THIRD, &format!("checkpoint; retry 2 {{ {retry}; wait \"0.01 s\"; }}"));
        assert!(!fails(&project).contains("again in"), "{retry}");
    };
    fails_at_once("code 1");
    fails_at_once("says \"reset by nobody\"");
    fails_at_once("on \"memory\" \"time\"");
    let once = shell(THIRD, "checkpoint; retry 1 { code 75; wait \"0.01 s\"; }");
    contains(&fails(&once), "again in 10 ms, 1 of 1");
    assert_eq!(once.builds(&[]), ["a"], "the third run");
}

#[test]
fn what_took_too_long_may_be_run_again() {
    let script = "test -e $EFFAI_CHECKPOINT/x && echo 1 > o && exit; touch $EFFAI_CHECKPOINT/x; exec sleep 1000";
    let project = shell(script, "checkpoint; at-most time=\"0.2 s\"; retry 1 { on \"time\"; wait \"0 s\"; }");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, "warning a: it ran for longer than 200 ms");
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_script_goes_on_from_what_it_kept() {
    let script = "if [ -e $EFFAI_CHECKPOINT/half ]; then cat $EFFAI_CHECKPOINT/half > o; else echo 41 > tmp; mv tmp \
                  $EFFAI_CHECKPOINT/half; exec sleep 1000; fi";
    let project = shell(script, "checkpoint");
    let half = || {
        let checkpoints = std::fs::read_dir(project.path(".effai/checkpoints")).into_iter().flatten().flatten();
        checkpoints.map(|dir| dir.path().join("half")).find(|half| half.exists())
    };
    let mut child = start(&project);
    until(|| half().is_some());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(project.builds(&[]), ["a"]);
    assert_eq!(project.read("out/a/o"), "41\n");
    assert!(half().is_none(), "it has gone");

    // Whoever wants it run anew does not want half of the last time.
    project.edit("effai.kdl", "echo 41", "echo 42");
    let mut child = start(&project);
    until(|| half().is_some());
    child.kill().expect("killed");
    child.wait().expect("ended");
    std::fs::write(half().expect("kept"), "x").expect("written");
    project.edit("effai.kdl", "checkpoint", "checkpoint; at-most time=\"0.1 s\"");
    let run = project.effai(&["build", "-f"]);
    contains(&run.stderr, "it ran for longer than 100 ms");
    assert_eq!(std::fs::read_to_string(half().expect("kept")).expect("read"), "42\n");
}
