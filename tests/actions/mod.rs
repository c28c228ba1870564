//! What an action may see and do, and what becomes of it when its build dies.

mod limits;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Project;

/// A target `a` that runs this in a shell.
fn shell(script: &str, fields: &str) -> Project {
    Project::new(&format!(
        "command \"a\" {{\n    run \"sh\" \"-c\" #\"{script}\"#\n    output \"o\"\n    {fields}\n}}\n"
    ))
}

/// Builds `a`, which fails; what is said of it.
#[track_caller]
fn fails(project: &Project) -> String {
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    run.stderr
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

#[test]
fn an_undeclared_file_is_named_with_the_line_to_add() {
    let project = shell("cat data/x.csv > o", "");
    project.write("data/x.csv", "1");
    let said = fails(&project);
    contains(&said, "`sh` failed (exit status: 1):\n  cat: data/x.csv: No such file or directory");
    contains(&said, "add to `a` in effai.kdl:1:\n        input \"data/x.csv\"");
    project.edit("effai.kdl", "output", "input \"data/x.csv\"; output");
    assert_eq!(project.builds(&[]), ["a"]);
    assert_eq!(project.read("out/a/o"), "1");
}

#[test]
#[cfg(target_os = "linux")]
fn files_beside_what_was_declared_cannot_be_read_by_any_path() {
    let project = shell("cat $SECRET > o", "env { SECRET \"PATH\"; }");
    project.write("secret.txt", "1");
    let path = project.path("secret.txt").display().to_string();
    project.edit("effai.kdl", "PATH", &path);
    let said = fails(&project);
    contains(&said, &format!("cat: {path}: Permission denied"));
    contains(&said, "input \"secret.txt\"");
    let outside = tempfile::NamedTempFile::new().expect("a file");
    let outside = outside.path().display().to_string();
    project.edit("effai.kdl", &path, &outside);
    contains(&fails(&project), &format!("reads \"{outside}\""));
    project.edit("effai.kdl", "output", &format!("reads \"{outside}\"; output"));
    assert_eq!(project.builds(&[]), ["a"]);
}

#[test]
#[cfg(target_os = "linux")]
fn inputs_cannot_be_written_and_nothing_lands_outside() {
    let project = shell("cat in/o; echo x >> in/o", "needs \"in\"");
    project.edit(
        "effai.kdl",
        "command \"a\"",
        "command \"in\" { run \"sh\" \"-c\" \"echo 1 > o\"; output \"o\"; }\ncommand \"a\"",
    );
    contains(&fails(&project), "cannot create in/o: Permission denied");
    let large = shell("echo x >> large", "input \"large\"");
    large.write("large", &"x".repeat(1 << 20));
    contains(&fails(&large), "cannot create large: Permission denied");
    assert_eq!(large.read("large").len(), 1 << 20);
    let outside = shell("echo x > $PLACE", "env { PLACE \"PATH\"; }");
    outside.edit("effai.kdl", "PATH", &outside.path("made").display().to_string());
    contains(&fails(&outside), "Permission denied");
    assert!(!outside.path("made").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn the_network_is_declared() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let script = format!("import socket; socket.create_connection(('127.0.0.1', {port})); open('o', 'w')");
    let project = Project::new(&format!("command \"a\" {{ run \"python3\" \"-c\" \"{script}\"; output \"o\"; }}\n"));
    contains(&fails(&project), "PermissionError");
    project.edit("effai.kdl", "output", "network; output");
    assert_eq!(project.builds(&[]), ["a"]);
}

#[test]
fn variables_are_few_and_home_and_tmp_can_be_written() {
    let project = shell("env | sort | sed s/=.*// > o; touch $HOME/x $TMPDIR/y", "env { MINE \"1\"; }");
    project.builds(&[]);
    assert_eq!(project.read("out/a/o"), "EFFAI_EVENTS\nHOME\nLANG\nMINE\nPATH\nPWD\nTMPDIR\nTZ\n");
}

#[test]
fn a_program_that_is_not_there() {
    let project = Project::new("command \"a\" { run \"no-such-program\"; output \"o\"; }\n");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    contains(&run.stderr, "`no-such-program` is not installed");
    contains(&run.stderr, "put it on the PATH");
}

#[test]
fn a_failed_action_can_be_run_again_where_it_failed() {
    let project = shell("cat in/o && exit 3", "needs \"in\"");
    project.edit(
        "effai.kdl",
        "command \"a\"",
        "command \"in\" { run \"sh\" \"-c\" \"echo 1 > o\"; output \"o\"; }\ncommand \"a\"",
    );
    let said = fails(&project);
    let kept = said.lines().find_map(|l| l.trim().strip_prefix("kept: ")).expect("it is kept").trim().to_owned();
    assert_eq!(project.read(&format!("{kept}/work/in/o")), "1\n", "its inputs are there");
    let left: Vec<_> = std::fs::read_dir(project.path(".effai/scratch")).expect("listed").collect();
    assert_eq!(left.len(), 1, "nothing else is left");
}

#[test]
fn a_program_may_tell_of_itself_and_what_it_leaves_running_ends() {
    let event = r#"{"event":"metric","name":"loss","value":0.5}"#;
    let project = shell(&format!("echo '{event}' >&$EFFAI_EVENTS; sleep 1000 & echo $! > o"), "");
    assert_eq!(project.builds(&[]), ["a"]);
    let pid = project.read("out/a/o");
    until(|| !is_alive(pid.trim()));
    contains(&project.effai(&["log", "a", "--json"]).stdout, "\"loss\"");
}

/// Killed without a chance to say so, a build leaves nothing running.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_builds_actions_end() {
    let project = shell("echo $$ > $PLACE; sleep 1000 & wait", "env { PLACE \"PATH\"; }; untracked \"PATH\"");
    project.write("pid", "");
    project.edit("effai.kdl", "PATH", &project.path("pid").display().to_string());
    let mut child = start(&project);
    until(|| !project.read("pid").trim().is_empty());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let pid = project.read("pid");
    until(|| !is_alive(pid.trim()));
    project.edit("effai.kdl", "sleep 1000 & wait", "echo 1 > o");
    assert_eq!(project.builds(&[]), ["a"]);
    let left: Vec<_> = std::fs::read_dir(project.path(".effai/scratch")).expect("listed").collect();
    assert_eq!(left.len(), 0, "what the killed build left is gone");
}

/// A build whose first action has begun.
fn start(project: &Project) -> std::process::Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_effai"))
        .arg("build")
        .current_dir(project.path("."))
        .env("EFFAI_CACHE_DIR", project.cache())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let begun = stderr.lines().map(|l| l.expect("text")).find(|l| l.starts_with("run "));
    begun.expect("it runs something");
    child
}

fn is_alive(pid: &str) -> bool {
    // A process that ended and is not waited for yet has no memory any more.
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    status.contains("VmRSS")
}

/// Looks again and again, for at most a minute.
fn until(condition: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed().as_secs() < 60, "it never came to be");
        std::thread::yield_now();
    }
}

#[test]
fn a_pool_decides_who_runs_beside_whom_and_no_byte() {
    let project = Project::new("command \"a\" { run \"sh\" \"-c\" \"echo 1 > o\"; output \"o\"; }\n");
    project.builds(&[]);
    project.edit("effai.kdl", "output \"o\"", "output \"o\"; pool \"gpu\"");
    assert!(project.builds(&[]).is_empty(), "it is no fact");
    project.edit("effai.kdl", "echo 1", "echo 2");
    assert_eq!(project.builds(&[]), ["a"]);
    let db = rusqlite::Connection::open(project.path(".effai/effai.db")).expect("opened");
    let pool = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let pool = db.query_row("SELECT pool FROM actions ORDER BY id DESC LIMIT 1", [], pool).expect("on record");
    assert_eq!(pool, "gpu");
    project.edit("effai.kdl", "pool \"gpu\"", "pool \"gpu\"; network");
    let run = project.effai(&["build"]);
    assert!(run.code == 2 && run.stderr.contains("uses the network waits in a pool of its own"), "{}", run.stderr);
    project.edit("effai.kdl", "pool \"gpu\"; network", "pool \"cuda\"");
    assert!(project.effai(&["build"]).stderr.contains("\"cpu\", \"gpu\" or \"machine\""));
}

#[test]
fn a_copied_input_is_a_file_of_the_artifact_whatever_it_was_laid_out_as() {
    let project = Project::new(
        r#"
command "made" { run "sh" "-c" "mkdir d; echo 1 > d/f; ln -s f d/l"; output "d"; }
command "a" { run "sh" "-c" "cp -r large o; cp -r made m; ln -s large l"; input "large"; needs "made"; output "o"; output "m"; output "l"; }
"#,
    );
    project.write("large", &"x".repeat(2 << 20));
    assert_eq!(project.builds(&[]), ["made", "a"]);
    let is_link = |path: &str| project.path(path).symlink_metadata().expect("there").is_symlink();
    for (path, content) in [("out/a/o", "x"), ("out/a/l", "x"), ("out/a/m/d/f", "1\n"), ("out/a/m/d/l", "1\n")] {
        assert!(project.read(path).starts_with(content), "{path}");
        assert_eq!(is_link(path), path == "out/a/m/d/l", "{path}: its own link stays one, what it was given is a file");
    }
}

#[test]
fn a_command_has_its_input_and_its_place() {
    let project = shell("tr a-z A-Z > ../o; basename $PWD >> ../o; ls -d ../data/x.txt >> ../o", "");
    project.edit("effai.kdl", "output", "stdin \"data/x.txt\"; dir \"sub/there\"; output");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    project.write("data/x.txt", "word\n");
    let said = fails(&project);
    contains(&said, "cannot access '../data/x.txt'");
    project.edit("effai.kdl", "sub/there", "sub");
    project.edit("effai.kdl", "output", "input \"data/x.txt\"; output");
    assert_eq!(project.builds(&[]), ["a"]);
    assert_eq!(project.read("out/a/o"), "WORD\nsub\n../data/x.txt\n");
    project.write("data/x.txt", "other\n");
    assert_eq!(project.builds(&[]), ["a"]);
    project.edit("effai.kdl", "dir \"sub\"", "dir \"../sub\"");
    contains(&project.effai(&["build"]).stderr, "`../sub` leads out of the program's directory");
}

#[test]
#[cfg(target_os = "linux")]
fn what_may_be_read_besides_cannot_be_written() {
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("x"), "1").expect("written");
    let place = outside.path().display().to_string();
    let project = shell("cat $PLACE/x > o", &format!("reads \"{place}\"; env {{ PLACE \"{place}\"; }}"));
    assert_eq!(project.builds(&[]), ["a"]);
    contains(&project.effai(&["explain", "a"]).stdout, "reads");
    project.edit("effai.kdl", "cat $PLACE/x", "cat $PLACE/x > $PLACE/y && cat $PLACE/x");
    contains(&fails(&project), "Permission denied");
}

#[test]
#[cfg(target_os = "linux")]
fn what_ran_without_the_sandbox_is_on_record() {
    let project = shell("cat $PLACE > o", "env { PLACE \"PATH\"; }");
    project.write("secret.txt", "1");
    project.edit("effai.kdl", "PATH", &project.path("secret.txt").display().to_string());
    contains(&fails(&project), "Permission denied");
    assert_eq!(project.builds(&["--sandbox", "off"]), ["a"]);
    let log = project.effai(&["log", "a"]).stdout;
    contains(&log, "without the sandbox (--sandbox off)");
    let log = project.effai(&["log", "a", "--json"]).stdout;
    contains(&log, "\"sandbox\":\"off\"");
    contains(&log, "\"sandbox\":\"landlock\"");
}

#[test]
fn what_a_program_opens_is_told_as_fields() {
    let project = Project::new("");
    for file in
        ["data/a.csv", "data/b.csv", "data/c.csv", "more/one.txt", "more/other.txt", "declared.txt", "unread.txt"]
    {
        project.write(file, "1\n");
    }
    let outside = tempfile::tempdir().expect("a directory");
    let place = outside.path().canonicalize().expect("there").join("x");
    std::fs::write(&place, "1").expect("written");
    let script = format!("cat data/*.csv more/one.txt declared.txt out/b/o {} > o; cat o", place.display());
    project.write("go.sh", &script);
    project.write(
        "effai.kdl",
        "command \"a\" { run \"sh\" \"go.sh\"; input \"declared.txt\"; input \"unread.txt\"; output \"o\"; }\n\
         command \"b\" { run \"sh\" \"-c\" \"echo 1 > o\"; output \"o\"; }\n",
    );
    assert_eq!(project.builds(&["b"]), ["b"]);
    let run = project.effai(&["trace-inputs", "a"]);
    if !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join("strace").exists()) {
        assert_eq!(run.code, 3, "{}", run.stderr);
        return contains(&run.stderr, "`strace` is not installed");
    }
    assert_eq!(run.code, 0, "{}", run.stderr);
    let expected = format!(
        "input \"data/*.csv\"\ninput \"go.sh\"\ninput \"more/one.txt\"\nneeds \"b\"\nreads \"{}\"\n",
        place.display()
    );
    assert_eq!(run.stdout, expected);
    contains(&run.stderr, "declared and not opened this time: unread.txt");
    assert!(!project.path("o").exists() && !project.path("out/a").exists(), "nothing is kept");
    let run = project.effai(&["trace-inputs", "a", "--json"]);
    contains(&run.stdout, "{\"field\":\"needs\",\"value\":\"b\",\"version\":1}");
    // With what it said, the target can be built, and nothing is left to say.
    project.edit(
        "effai.kdl",
        "input \"declared.txt\"",
        &format!("{}input \"declared.txt\"", expected.replace('\n', "; ")),
    );
    project.edit("go.sh", "out/b/o", "b/o");
    project.edit("effai.kdl", "input \"more/one.txt\"", "input \"more/*\"");
    assert_eq!(project.builds(&["a"]), ["a"]);
    let run = project.effai(&["trace-inputs", "a"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    contains(&run.stderr, "a opens nothing that it does not declare");
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_may_have_a_tmp_of_its_own() {
    let own = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
    let name = format!("{}-too", own.path().display());
    let project = Project::elsewhere("");
    let recipe = |field: &str| {
        format!(
            "command \"a\" {{ run \"sh\" \"-c\" \"echo 1 > {name}; ls -A /tmp > o; rm {name}\"; output \"o\"; {field}; }}\n"
        )
    };
    project.write("effai.kdl", &recipe("env { A \"1\"; }"));
    contains(&fails(&project), "private-tmp // or write to $TMPDIR");
    project.write("effai.kdl", &recipe("private-tmp"));
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        return contains(&fails(&project), "Permission denied");
    }
    assert_eq!(project.builds(&[]), ["a"]);
    let base = std::path::Path::new(&name).file_name().expect("a name").to_str().expect("text");
    assert_eq!(project.read("out/a/o"), format!("{base}\n"));
    assert!(!Path::new(&name).exists());
}
