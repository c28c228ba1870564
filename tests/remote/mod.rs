//! Remotes: what goes there comes back elsewhere, and nothing that happens to them breaks a build.

mod broken;
mod server;

use std::path::{Path, PathBuf};

use crate::support::{Project, Run};
use server::{Fault, KEYS, Server};

/// A target with a large file, small ones, a program and a link, and one that stands on it.
const TARGETS: &str = r#"
command "big" {
    run "sh" "-c" "seq 100000 > large; mkdir sub; echo small > sub/small; echo small > again; printf '#!/bin/sh\n' > tool; chmod +x tool; ln -s sub/small link"
    output "large"; output "sub"; output "again"; output "tool"; output "link"
}
command "on-it" { run "sh" "-c" "wc -l < big/large > n"; needs "big"; output "n"; }
"#;

/// A project with these targets whose remote is the directory `remote` beside it.
fn beside(targets: &str, access: &str) -> Project {
    Project::new(&format!("remote \"team\" {{ url \"../remote\"; access \"{access}\"; }}\n{targets}"))
}

fn remote(project: &Project) -> PathBuf {
    project.path("../remote")
}

/// As on a machine that has never built: without store, record and outputs.
fn forget_all(project: &Project) {
    for dir in [project.cache(), project.path(".effai"), project.path("out")] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(dir) = queue.pop() {
        for path in std::fs::read_dir(&dir).into_iter().flatten().map(|e| e.expect("an entry").path()) {
            if path.is_dir() { queue.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The one object of a sort that holds this.
fn object(dir: &Path, holds: &str) -> PathBuf {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("read");
        bytes.windows(holds.len()).any(|window| window == holds.as_bytes())
    };
    files(dir).into_iter().find(holds).expect("an object")
}

fn good(run: &Run) -> &str {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    &run.stderr
}

/// Whether something ran.
fn runs(run: &Run) -> bool {
    run.stderr.lines().any(|line| line.starts_with("run "))
}

fn is_as_built(project: &Project) {
    use std::os::unix::fs::PermissionsExt;
    let lines = project.read("out/big/large");
    assert_eq!((lines.lines().count(), lines.lines().last()), (100_000, Some("100000")));
    assert_eq!(
        (project.read("out/big/sub/small"), project.read("out/big/again")),
        ("small\n".into(), "small\n".into())
    );
    assert_eq!(project.path("out/big/link").read_link().expect("a link"), Path::new("sub/small"));
    let mode = project.path("out/big/tool").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o100, 0o100);
    assert_eq!(project.read("out/on-it/n").trim(), "100000");
}

#[test]
fn what_was_pushed_is_pulled_elsewhere_and_nothing_runs() {
    let project = beside(TARGETS, "read-write");
    project.builds(&[]);
    let run = project.effai(&["push"]);
    assert!(good(&run).contains("2 sent to team"), "{}", run.stderr);
    let run = project.effai(&["push"]);
    assert!(good(&run).contains("0 sent to team (0 B), 2 there already"), "{}", run.stderr);
    assert_eq!(files(&remote(&project).join("v1/blobs")).len(), 1, "small files come with their tree");
    forget_all(&project);
    let run = project.effai(&["pull"]);
    let said = good(&run);
    assert!(said.contains("fetch   big") && said.contains("fetch   on-it") && !runs(&run), "{said}");
    assert!(!project.path("out").exists(), "it comes into the store");
    std::fs::rename(remote(&project), project.path("../away")).expect("renamed");
    let run = project.effai(&["build"]);
    assert!(!runs(&run) && good(&run).contains("2 restored"), "{}", run.stderr);
    is_as_built(&project);
    let verified = project.effai(&["cache", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
}

#[test]
fn a_build_fetches_by_itself_and_nothing_to_do_asks_nobody() {
    let project = beside(TARGETS, "read-write");
    project.builds(&["--cache", "local:rw,remote:rw"]);
    forget_all(&project);
    let run = project.effai(&["build", "--cache", "local:rw"]);
    assert!(runs(&run), "{}", run.stderr);
    forget_all(&project);
    let run = project.effai(&["build"]);
    assert!(!runs(&run) && good(&run).contains("fetch   big"), "{}", run.stderr);
    is_as_built(&project);
    std::fs::rename(remote(&project), project.path("../away")).expect("renamed");
    let run = project.effai(&["build"]);
    assert!(!good(&run).contains("warning"), "{}", run.stderr);
    // What the store has lost is brought, too.
    std::fs::rename(project.path("../away"), remote(&project)).expect("renamed");
    std::fs::remove_dir_all(project.cache()).expect("removed");
    project.remove("out");
    let run = project.effai(&["build"]);
    assert!(!runs(&run), "{}", run.stderr);
    is_as_built(&project);
}

#[test]
fn a_project_says_what_its_builds_do() {
    let policy = format!("cache policy=\"local:rw,remote:w\"\n{TARGETS}");
    let project = beside(&policy, "read-write");
    project.builds(&[]);
    assert_eq!(files(&remote(&project).join("v1/keys")).len(), 2);
    forget_all(&project);
    assert!(runs(&project.effai(&["build"])), "it only writes");
    forget_all(&project);
    assert!(!runs(&project.effai(&["build", "--cache", "remote:r"])));
    project.edit("effai.kdl", "remote:w", "remote:x");
    let run = project.effai(&["build"]);
    assert!(run.code == 2 && run.stderr.contains("`x` is none of `r`, `w` and `rw`"), "{}", run.stderr);
}

#[test]
fn wrong_bytes_are_refused_and_named_and_count_as_missing() {
    let project = beside(TARGETS, "read-write");
    project.builds(&[]);
    good(&project.effai(&["push"]));
    // A large file, a link's target behind the tree, and the tree itself.
    for (sort, holds, is_first) in
        [("blobs", "100000", false), ("artifacts", "small", false), ("artifacts", "small", true)]
    {
        forget_all(&project);
        let path = object(&remote(&project).join("v1").join(sort), holds);
        let before = std::fs::read(&path).expect("read");
        let mut changed = before.clone();
        let mut places = (0..before.len()).filter(|at| before[*at..].starts_with(holds.as_bytes()));
        let at = if is_first { places.next() } else { places.next_back() }.expect("there");
        changed[at] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        let run = project.effai(&["pull"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        let name = path.strip_prefix(remote(&project)).expect("below").display().to_string();
        let wrong = format!("warning big: the remote `team` has wrong bytes in {name}: they should be ");
        assert!(run.stderr.contains(&wrong) && run.stderr.contains("missing big"), "{}", run.stderr);
        let changed = blake3(&changed);
        assert!(!files(&project.cache()).iter().any(|p| p.ends_with(&changed[2..])), "it did not come in");
        assert_eq!(project.effai(&["cache", "verify"]).code, 0);
        let run = project.effai(&["build"]);
        assert!(runs(&run) && good(&run).contains("has wrong bytes"), "{}", run.stderr);
        is_as_built(&project);
        assert!(good(&project.effai(&["push"])).contains("0 sent"), "its key is there");
        good(&project.effai(&["push", "--again"]));
        assert_eq!(std::fs::read(&path).expect("read"), before, "it is whole again");
    }
    // Cut off, and gone.
    let path = object(&remote(&project).join("v1/blobs"), "100000");
    std::fs::write(&path, "1\n2\n").expect("written");
    forget_all(&project);
    assert!(project.effai(&["pull"]).stderr.contains("has wrong bytes in v1/blobs/"));
    std::fs::remove_file(&path).expect("removed");
    let run = project.effai(&["pull"]);
    assert!(run.stderr.contains("the remote `team` lacks v1/blobs/"), "{}", run.stderr);
}

/// Whether every blob of the store is what its name says.
fn are_whole(project: &Project) -> bool {
    let blobs = project.cache().join("v1/blobs");
    let name = |path: &Path| path.strip_prefix(&blobs).expect("below").display().to_string().replace('/', "");
    files(&blobs).iter().all(|path| name(path) == blake3(&std::fs::read(path).expect("read")))
}

fn blake3(bytes: &[u8]) -> String {
    effai::fingerprint::Digest::of(bytes).to_string()
}

#[test]
fn the_next_remote_is_asked_for_what_the_first_has_not_or_has_wrong() {
    let project = beside(TARGETS, "read-write");
    project.builds(&[]);
    good(&project.effai(&["push"]));
    project.edit("effai.kdl", "remote \"team\"", "remote \"near\" { url \"../near\"; }\nremote \"team\"");
    forget_all(&project);
    copy_dir(&remote(&project), &project.path("../near"));
    let path = object(&project.path("../near/v1/blobs"), "100000");
    std::fs::write(&path, "1\n2\n").expect("written");
    let run = project.effai(&["build"]);
    assert!(!runs(&run), "{}", run.stderr);
    let said = good(&run);
    assert!(said.contains("the remote `near` has wrong bytes") && said.contains("from team"), "{said}");
    is_as_built(&project);
}

fn copy_dir(from: &Path, to: &Path) {
    for path in files(from) {
        let to = to.join(path.strip_prefix(from).expect("below"));
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("made");
        std::fs::copy(path, to).expect("copied");
    }
}

#[test]
fn what_may_not_be_written_to_is_refused() {
    let project = beside(TARGETS, "read");
    project.builds(&["--cache", "remote:rw"]);
    assert!(!remote(&project).exists(), "builds pass it over");
    let run = project.effai(&["push", "--remote", "team"]);
    assert!(run.code == 2 && run.stderr.contains("the remote `team` is only read from"), "{}", run.stderr);
    let run = project.effai(&["push"]);
    assert!(run.code == 2 && run.stderr.contains("no remote of the project can be written to"), "{}", run.stderr);
    let run = project.effai(&["pull", "--remote", "teem"]);
    assert!(run.code == 2 && run.stderr.contains("did you mean `team`?"), "{}", run.stderr);
}

#[test]
fn two_projects_push_at_once() {
    let shared = tempfile::tempdir().expect("a directory");
    let url = shared.path().join("remote");
    let recipe = format!("remote \"team\" {{ url \"{}\"; access \"read-write\"; }}\n{TARGETS}", url.display());
    let projects: Vec<Project> = (0..3).map(|_| Project::new(&recipe)).collect();
    let pushing = &projects[..2];
    pushing.iter().for_each(|project| drop(project.builds(&["--cache", "local:rw"])));
    std::thread::scope(|scope| {
        for project in pushing {
            scope.spawn(move || good(&project.effai(&["push"])).to_owned());
        }
    });
    let run = projects[2].effai(&["build"]);
    assert!(!runs(&run), "{}", run.stderr);
    is_as_built(&projects[2]);
    let left: Vec<_> = files(&url).into_iter().filter(|path| path.to_string_lossy().contains('#')).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing half-written stays");
}

#[test]
fn a_key_that_is_there_keeps_its_artifact() {
    let targets = "command \"time\" { run \"sh\" \"-c\" \"date +%s%N > t\"; output \"t\"; }\n";
    let project = beside(targets, "read-write");
    project.builds(&[]);
    good(&project.effai(&["push"]));
    let first = project.read("out/time/t");
    project.builds(&["--no-cache", "--force"]);
    let second = project.read("out/time/t");
    assert_ne!(first, second);
    let run = project.effai(&["push"]);
    assert!(good(&run).contains("under its key and keeps that"), "{}", run.stderr);
    assert_eq!(files(&remote(&project).join("v1/artifacts")).len(), 2, "whoever knows its digest can have it");
    forget_all(&project);
    project.builds(&[]);
    assert_eq!(project.read("out/time/t"), first);
}

#[test]
fn what_no_remote_has_is_told_and_nothing_runs() {
    let project = beside(TARGETS, "read-write");
    std::fs::create_dir(remote(&project)).expect("made");
    let run = project.effai(&["pull"]);
    assert_eq!(run.code, 1);
    let said = &run.stderr;
    assert!(said.contains("missing big  no remote has it"), "{said}");
    assert!(said.contains("missing on-it  its key is not known without big"), "{said}");
    assert!(!runs(&run) && said.contains("2 missing"), "{said}");
    let run = project.effai(&["push"]);
    assert!(run.code == 1 && run.stderr.contains("not sent big"), "{}", run.stderr);
    let run = Project::new(TARGETS).effai(&["push"]);
    assert!(run.code == 2 && run.stderr.contains("the project has no remotes"), "{}", run.stderr);
}

#[test]
fn all_of_the_store_can_be_pushed() {
    let project = beside(TARGETS, "read-write");
    project.builds(&[]);
    project.edit("effai.kdl", "seq 100000", "seq 100001");
    project.builds(&[]);
    let run = project.effai(&["push", "--all", "--json"]);
    good(&run);
    let objects: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert!(objects.iter().all(|object| object["version"] == 1));
    assert_eq!(objects.last().expect("objects")["sent"], 4);
    assert_eq!(objects.iter().filter(|object| object["new"] == true).count(), 4);
}

#[test]
fn a_remote_that_is_not_there_is_told_once_and_done_without() {
    let targets: String =
        (0..5).map(|n| format!("command \"t{n}\" {{ run \"sh\" \"-c\" \"echo {n} > o\"; output \"o\"; }}\n")).collect();
    let project = beside(&targets, "read");
    let run = project.effai(&["build"]);
    let said = good(&run);
    assert_eq!(said.matches("warning the remote `team` is left out: ").count(), 1, "{said}");
    assert!(said.contains("5 built"), "{said}");
    let run = project.effai(&["doctor"]);
    assert!(run.stdout.contains("team"), "{}", run.stdout);
}
