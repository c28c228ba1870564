//! What is said of signatures.

use super::Book;
use crate::git::git;
use crate::git::signed::{forged, keys, with_model};
use crate::support::Project;

/// Writes down what is said; a commit's name follows from the time.
fn say(book: &mut Book, about: &str, project: &Project, args: &[&str]) {
    let mut run = project.effai(args);
    let head = git(&project.path("."), &["rev-parse", "HEAD"]);
    for text in [&mut run.stdout, &mut run.stderr] {
        *text = text.replace(&head[..10], "COMMIT");
    }
    let (store, home) = (project.cache(), project.path("..").canonicalize().expect("there"));
    let (store, home) = (store.display().to_string(), format!("{}/", home.display()));
    for text in [&mut run.stdout, &mut run.stderr] {
        *text =
            text.replace(&store, "CACHE").replace(&home, "").replace(&project.path("../").display().to_string(), "");
    }
    let args: Vec<&str> =
        args.iter().map(|arg| arg.rsplit('/').next().filter(|_| arg.starts_with('/')).unwrap_or(arg)).collect();
    book.write(about, project, &args, &run);
}

pub(super) fn signatures(book: &mut Book) {
    book.chapter("Signatures");
    let project = with_model();
    let root = project.path(".");
    let (secret, public) = keys(&project, "id", 8);
    let (_, other) = keys(&project, "other", 9);
    let target = "models/counts";
    say(book, "no key to sign with", &project, &["sign", target]);
    say(book, "a public key to sign with, and no agent", &project, &["sign", target, "--key", &public]);
    say(book, "nobody to believe", &project, &["verify-provenance", target]);
    say(book, "a private key to believe", &project, &["verify-provenance", target, "--key", &secret]);
    say(book, "nothing signed", &project, &["verify-provenance", target, "--key", &public]);
    project.write("new.txt", "");
    say(book, "a signature", &project, &["sign", target, "--key", &secret]);
    say(book, "what is verified", &project, &["verify-provenance", target, "--key", &public]);
    say(book, "a stranger's signature", &project, &["verify-provenance", target, "--key", &other]);
    let note = |text: &str| git(&root, &["notes", "--ref", "refs/notes/effai-signed", "add", "--force", "-m", text]);
    let line = git(&root, &["notes", "--ref", "refs/notes/effai-signed", "show"]);
    note(&forged(&line, |text| text.replace("\"backend\":\"none\"", "\"backend\":\"mlx\"")));
    say(book, "a statement that was changed", &project, &["verify-provenance", target, "--key", &public]);
    note(&line[..line.len() - 20]);
    say(book, "a statement that was cut off", &project, &["verify-provenance", target, "--key", &public]);
    note(&line);
    let lock = project.read("effai.lock");
    let claim = lock.lines().find(|line| line.starts_with(target)).expect("a line");
    project.write("effai.lock", &lock.replace(claim.split(' ').nth(1).expect("a key"), &"0".repeat(64)));
    say(book, "a lock that was changed", &project, &["verify-provenance", target, "--key", &public]);
    project.write("effai.lock", &lock);
    std::fs::remove_file(project.path("out/models/counts/counts")).expect("removed");
    project.write("out/models/counts/counts", "1 word\n");
    project.write("out/models/counts/more", "");
    say(book, "an artifact that was changed", &project, &["verify-provenance", target, "--key", &public]);
    say(
        book,
        "a model's signature by a key that cannot",
        &project,
        &["sign", "data/words", "--key", &secret, "--model"],
    );
    project.write("words.txt", "other\n");
    say(book, "a signature of what is not built", &project, &["sign", target, "--key", &secret]);
}
