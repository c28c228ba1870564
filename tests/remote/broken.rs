//! An S3 server: that it serves, and what it breaks when it breaks.

use super::{Fault, KEYS, Project, Run, Server, are_whole, files, forget_all, good, is_as_built, object, runs};

/// Files of some 23 and 6.6 MB: the larger goes and comes in parts.
const LARGE: &str = "command \"l\" { run \"sh\" \"-c\" \"seq 3000000 > a; seq 2000000 2900000 > b; echo c > c\"; \
                     output \"a\"; output \"b\"; output \"c\"; }\n";

fn project(server: &Server, timeout: &str, targets: &str) -> Project {
    Project::new(&[&server.remote(timeout), targets].concat())
}

fn effai(project: &Project, args: &[&str]) -> Run {
    project.effai_told(args, &KEYS)
}

/// Another timeout, of a remote that is as it was.
fn set_timeout(project: &Project, before: &str, now: &str) {
    project.edit("effai.kdl", &format!("timeout \"{before}\""), &format!("timeout \"{now}\""));
}

#[test]
fn an_object_store_gives_back_what_it_got() {
    let server = Server::new();
    let project = project(&server, "1 min", &[super::TARGETS, LARGE].concat());
    good(&effai(&project, &["build", "--cache", "local:rw,remote:rw"]));
    assert_eq!(files(&server.objects("keys")).len(), 3);
    let large = project.read_bytes("out/l/a");
    forget_all(&project);
    let run = effai(&project, &["build"]);
    assert!(!runs(&run) && good(&run).contains("3 restored"), "{}", run.stderr);
    is_as_built(&project);
    assert!(project.read_bytes("out/l/a") == large, "the bytes that came in parts");
    server.set(Fault::None);
    good(&effai(&project, &["build"]));
    assert_eq!(server.requests(), Vec::<String>::new(), "nothing to do asks nobody");
    server.set(Fault::None);
    good(&effai(&project, &["push"]));
    let asked = server.requests();
    assert!(asked.len() == 3 && asked.iter().all(|line| line.starts_with("GET /effai/p/v1/keys/")), "{asked:?}");
    let run = effai(&project, &["doctor"]);
    assert!(run.stdout.contains("s3: answers: s3://effai/p"), "{}", run.stdout);
}

#[test]
fn wrong_keys_are_no_access() {
    let server = Server::new();
    let project = project(&server, "1 min", super::TARGETS);
    let run = project.effai_told(&["build"], &[KEYS[0], ("AWS_SECRET_ACCESS_KEY", "another")]);
    let said = good(&run);
    assert!(said.contains("the remote `s3` is left out: it refuses access (403)") && runs(&run), "{said}");
}

#[test]
fn a_push_that_was_stopped_goes_on() {
    let server = Server::new();
    let project = project(&server, "0.3 s", LARGE);
    good(&effai(&project, &["build", "--cache", "local:rw"]));
    // The smaller file goes in one request, the larger in three.
    server.set(Fault::DiesAfter(3, "PUT "));
    let run = effai(&project, &["push"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("error: the remote `s3`: "), "{}", run.stderr);
    assert_eq!(files(&server.objects("keys")).len(), 0, "no key before all of its bytes are there");
    let asked = server.requests();
    let went: Vec<&String> = asked.iter().filter(|line| line.starts_with("PUT ")).take(3).collect();
    assert!(went.iter().any(|line| line.contains("partNumber=")), "{went:?}");
    let whole: Vec<_> = files(&server.objects("blobs"));
    let whole: Vec<&str> = whole.iter().map(|path| path.file_name().expect("a name").to_str().expect("text")).collect();
    set_timeout(&project, "0.3 s", "1 min");
    server.set(Fault::None);
    good(&effai(&project, &["push"]));
    let sent: Vec<String> = server.requests().into_iter().filter(|line| !line.starts_with("HEAD")).collect();
    assert!(!sent.iter().any(|line| whole.iter().any(|name| line.contains(name))), "{whole:?} was there: {sent:?}");
    assert!(!sent.iter().any(|line| went.contains(&line)), "{went:?} were there: {sent:?}");
    assert!(!sent.iter().any(|line| line.contains("?uploads")), "it goes on with the upload that was begun: {sent:?}");
    assert_eq!(files(&project.cache().join("v1/uploads")), Vec::<std::path::PathBuf>::new());
    forget_all(&project);
    let run = effai(&project, &["build"]);
    assert!(!runs(&run), "{}", run.stderr);
}

#[test]
fn an_upload_that_the_server_has_ended_begins_anew() {
    let server = Server::new();
    let project = project(&server, "0.3 s", LARGE);
    good(&effai(&project, &["build", "--cache", "local:rw"]));
    server.set(Fault::DiesAfter(3, "PUT "));
    assert_eq!(effai(&project, &["push"]).code, 3);
    assert_eq!(files(&project.cache().join("v1/uploads")).len(), 1);
    server.end_uploads();
    set_timeout(&project, "0.3 s", "1 min");
    server.set(Fault::None);
    good(&effai(&project, &["push"]));
    assert!(server.requests().iter().any(|line| line.contains("?uploads")));
    forget_all(&project);
    assert!(!runs(&effai(&project, &["build"])));
}

#[test]
fn a_pull_that_was_stopped_goes_on_from_where_it_was() {
    let server = Server::new();
    let project = project(&server, "1 min", LARGE);
    good(&effai(&project, &["build", "--cache", "local:rw,remote:rw"]));
    let large = project.read_bytes("out/l/a");
    forget_all(&project);
    set_timeout(&project, "1 min", "0.3 s");
    server.set(Fault::DiesAfter(2, "/blobs/"));
    let run = effai(&project, &["pull"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("is left out: ") && run.stderr.contains("missing l"), "{}", run.stderr);
    assert!(are_whole(&project));
    let begun: Vec<String> = files(&project.cache().join("v1/incoming"))
        .iter()
        .filter(|path| path.metadata().expect("there").len() > 0)
        .map(|path| path.file_name().expect("a name").to_str().expect("text")["from-..".len()..].to_owned())
        .collect();
    set_timeout(&project, "0.3 s", "1 min");
    server.set(Fault::None);
    let run = effai(&project, &["build"]);
    assert!(!runs(&run), "{}", run.stderr);
    assert!(project.read_bytes("out/l/a") == large, "the bytes that came in two goes");
    let is_again = |line: &String| line.contains("bytes=0-") && begun.iter().any(|name| line.contains(name));
    assert!(!server.requests().iter().any(is_again), "{begun:?} had begun: {:?}", server.requests());
}

#[test]
fn an_answer_that_breaks_off_is_gone_on_with() {
    let server = Server::new();
    let project = project(&server, "1 min", LARGE);
    good(&effai(&project, &["build", "--cache", "local:rw,remote:rw"]));
    let large = project.read_bytes("out/l/a");
    forget_all(&project);
    server.set(Fault::GivesHalf("bytes=8388608-"));
    let run = effai(&project, &["build"]);
    assert!(!runs(&run), "{}", run.stderr);
    assert!(project.read_bytes("out/l/a") == large);
}

#[test]
fn a_server_that_says_nothing_holds_a_build_up_once() {
    let server = Server::new();
    let targets: String =
        (0..5).map(|n| format!("command \"t{n}\" {{ run \"sh\" \"-c\" \"echo {n} > o\"; output \"o\"; }}\n")).collect();
    let project = project(&server, "0.3 s", &targets);
    server.set(Fault::Stalls("/keys/"));
    let run = effai(&project, &["build"]);
    let said = good(&run);
    let warning = "warning the remote `s3` is left out: no answer within 300 ms";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(said.contains("5 built"), "{said}");
    let run = effai(&project, &["pull", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn a_server_that_says_nothing_while_it_is_sent_to_fails_no_build() {
    let server = Server::new();
    let project = project(&server, "0.2 s", super::TARGETS);
    server.set(Fault::Stalls("PUT "));
    let run = effai(&project, &["build", "--cache", "local:rw,remote:rw"]);
    let said = good(&run);
    assert_eq!(said.matches("warning the remote `s3` is left out: no answer within ").count(), 1, "{said}");
    is_as_built(&project);
    let run = effai(&project, &["push"]);
    assert!(run.code == 3 && run.stderr.contains("no answer within "), "{}", run.stderr);
    assert_eq!(files(&server.objects("keys")).len(), 0);
}

#[test]
fn wrong_bytes_of_a_server_are_refused() {
    let server = Server::new();
    let project = project(&server, "1 min", LARGE);
    good(&effai(&project, &["build", "--cache", "local:rw,remote:rw"]));
    let path = object(&server.objects("blobs"), "2999999\n3000000");
    let mut bytes = std::fs::read(&path).expect("read");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&path, bytes).expect("written");
    forget_all(&project);
    let run = effai(&project, &["pull"]);
    assert!(run.code == 1 && run.stderr.contains("has wrong bytes in v1/blobs/"), "{}", run.stderr);
    let run = effai(&project, &["build"]);
    assert!(runs(&run), "{}", run.stderr);
    assert!(project.read("out/l/a").ends_with("\n3000000\n"));
}
