//! What a commit claims, through everything that git does with commits.

use super::{NONE, RECIPE, built, clone, commit, contains, effai_at, git, ran, repository, try_git};
use crate::support::Project;

#[test]
fn two_branches_with_other_data_go_their_way_and_meet() {
    let project = repository();
    let root = project.path(".");
    let lock = project.read("effai.lock");
    assert_eq!(lock.lines().count(), 4, "{lock}");
    contains(&lock, "distinct=3");
    assert_eq!(built(&project, &root, &["--locked"]), NONE);

    // Another branch has other words, and another model and report of them.
    git(&root, &["switch", "--quiet", "-c", "animals"]);
    project.write("words.txt", "cat\ndog\ncat\nowl\nfox\n");
    let stale = project.effai(&["build", "--locked"]);
    assert_eq!(stale.code, 1, "{}", stale.stderr);
    contains(&stale.stderr, "effai.lock is not of these recipes and files:\n  data/words: ");
    contains(&stale.stderr, "words.txt");
    assert_eq!(built(&project, &root, &["--lock"]), ["data/words", "models/counts", "reports/top"]);
    commit(&project, "Words of animals");
    contains(&project.read("effai.lock"), "distinct=4");

    // Meanwhile main has another report: a recipe changed and no data.
    git(&root, &["switch", "--quiet", "main"]);
    assert_eq!(built(&project, &root, &["--locked"]), NONE);
    project.edit("effai.kdl", "head -n 3", "head -n 2");
    assert_eq!(built(&project, &root, &["--lock"]), ["reports/top"]);
    commit(&project, "A shorter report");

    // Both changed the line of reports/top; that of models/counts is one side's.
    let merge = try_git(&root, &["merge", "--quiet", "animals"]);
    assert_eq!(merge.code, 1, "{}{}", merge.stdout, merge.stderr);
    contains(&project.read("effai.lock"), "<<<<<<<");
    let run = project.effai(&["build", "--lock"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(ran(&run), ["reports/top"], "the rest is in the store");
    let merged = project.read("effai.lock");
    assert!(!merged.contains("<<<<<<<"), "{merged}");
    contains(&merged, "distinct=4");
    commit(&project, "Merge animals");
    assert_eq!(built(&project, &root, &["--locked"]), NONE);
    assert_eq!(project.read("out/reports/top/top").lines().count(), 2);

    // A rebase of a branch that changes something else: its lock lines go with it, label by label.
    assert_eq!(project.effai(&["hooks", "install"]).code, 0);
    git(&root, &["switch", "--quiet", "-c", "later", "main~1"]);
    project.edit("effai.kdl", "default", "command \"reports/bytes\" { run \"sh\" \"-c\" \"wc -c < data/words/words > n\"; needs \"data/words\"; output \"n\"; }\n\ndefault");
    assert_eq!(built(&project, &root, &["reports/bytes", "--lock"]), ["reports/bytes"]);
    commit(&project, "Bytes");
    git(&root, &["rebase", "--quiet", "main"]);
    let moved = project.effai(&["build", "--locked", "reports/bytes"]);
    contains(&moved.stderr, "reports/bytes");
    assert_eq!(built(&project, &root, &["reports/bytes", "reports/top", "--lock"]), ["reports/bytes"]);
    commit(&project, "Bytes of animals");
    git(&root, &["tag", "v1"]);

    // Elsewhere, with the same store: everything is there and nothing runs.
    let there = clone(&project, "there", &[]);
    git(&there, &["switch", "--quiet", "--detach", "v1"]);
    assert_eq!(built(&project, &there, &["--frozen", "reports/top", "reports/bytes"]), NONE);
    assert_eq!(std::fs::read_to_string(there.join("out/reports/bytes/n")).expect("restored").trim(), "20");
    // And each commit's own artifacts come back.
    for (commit, n) in [("main~2", 3), ("main", 2)] {
        git(&root, &["switch", "--quiet", "--detach", commit]);
        let run = project.effai(&["restore"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(project.read("out/reports/top/top").lines().count(), n, "{commit}");
    }
}

#[test]
fn a_shallow_clone_a_worktree_a_submodule_and_a_dirty_tree_know_what_they_claim() {
    let project = repository();
    let root = project.path(".");
    project.write("words.txt", "one\ntwo\n");
    built(&project, &root, &["--lock"]);
    commit(&project, "Two words");

    let shallow = clone(&project, "shallow", &["--depth", "1"]);
    assert_eq!(built(&project, &shallow, &["--frozen"]), NONE);
    let log = effai_at(&project, &shallow, &["log", "models/counts"]);
    assert_eq!(log.stdout.lines().filter(|line| line.contains("Two words")).count(), 1, "{}", log.stdout);
    let older = effai_at(&project, &shallow, &["restore", "HEAD~1"]);
    assert_eq!(older.code, 2);
    contains(&older.stderr, "there is no revision `HEAD~1`");
    contains(&older.stderr, "a shallow clone lacks older ones");

    let tree = project.path("../tree");
    git(&root, &["worktree", "add", "--quiet", "--detach", tree.to_str().expect("text"), "HEAD~1"]);
    assert_eq!(built(&project, &tree, &["--frozen"]), NONE);
    assert_eq!(std::fs::read_to_string(tree.join("out/reports/top/top")).expect("restored").lines().count(), 3);

    let outer = project.path("../outer");
    std::fs::create_dir(&outer).expect("made");
    git(&outer, &["init", "--quiet"]);
    let from = format!("file://{}", root.canonicalize().expect("there").display());
    git(&outer, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &from, "inner"]);
    assert_eq!(built(&project, &outer.join("inner"), &["--frozen"]), NONE);
    assert_eq!(built(&project, &outer.join("inner"), &["--lock"]), NONE);
    assert_eq!(git(&outer.join("inner"), &["status", "--short"]), "");

    // A dirty tree is in the note of the build, with its paths.
    project.write("words.txt", "one\ntwo\nthree\n");
    project.write("new.txt", "");
    built(&project, &root, &["--lock"]);
    let notes = project.effai(&["notes", "show", "--json"]);
    let last: serde_json::Value = serde_json::from_str(notes.stdout.lines().last().expect("a note")).expect("JSON");
    assert_eq!(last["changed"], serde_json::json!(["new.txt", "words.txt"]));
    assert_eq!(last["branch"], "main");
    assert_eq!(last["targets"].as_array().expect("targets").len(), 3);
    assert_eq!(last["targets"][1]["metrics"]["distinct"], 3.0);
}

#[test]
fn notes_of_two_clones_are_joined() {
    let project = repository();
    let root = project.path(".");
    let here = clone(&project, "here", &[]);
    let there = clone(&project, "there", &[]);
    git(&root, &["config", "receive.denyCurrentBranch", "ignore"]);
    git(&root, &["update-ref", "-d", "refs/notes/effai"]);
    for (dir, word) in [(&here, "x\n"), (&there, "y\n")] {
        std::fs::write(dir.join("words.txt"), word).expect("written");
        built(&project, dir, &["--lock"]);
        let run = effai_at(&project, dir, &["notes", "push"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    let run = effai_at(&project, &here, &["notes", "fetch"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let show = |dir| effai_at(&project, dir, &["notes", "show", "--json"]).stdout.lines().count();
    assert_eq!((show(&here), show(&there)), (2, 2));
    // Nobody to ask is an error that says so.
    let run = effai_at(&project, &here, &["notes", "fetch", "nobody"]);
    assert_eq!(run.code, 3);
    contains(&run.stderr, "git cannot fetch notes: ");
}

#[test]
fn history_is_listed_and_blamed() {
    let project = repository();
    let root = project.path(".");
    project.write("words.txt", "one\ntwo\n");
    built(&project, &root, &["--lock"]);
    let second = commit(&project, "Two words");
    project.write("other.txt", "");
    commit(&project, "Something else");

    let log = project.effai(&["log", "models/counts", "--json"]).stdout;
    let steps: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(steps.len(), 2);
    assert_eq!(
        (&steps[0]["commit"]["title"], &steps[1]["commit"]["title"]),
        (&"Two words".into(), &"Words of a tree".into())
    );
    assert_eq!((&steps[0]["metrics"]["distinct"], &steps[1]["metrics"]["distinct"]), (&2.0.into(), &3.0.into()));

    assert_eq!(steps[0]["backend"], "none", "as the build before the commit noted it");

    let blame = project.effai(&["blame", "reports/top"]);
    assert_eq!(blame.code, 0, "{}", blame.stderr);
    contains(&blame.stdout, &second[..10]);
    contains(&blame.stdout, "Two words");
    contains(&blame.stdout, "models/counts");
    project.write("words.txt", "three\n");
    let diff = project.effai(&["diff", "HEAD~2..HEAD"]);
    assert_eq!(diff.code, 0, "{}", diff.stderr);
    contains(&diff.stdout, "models/counts  ");
    contains(&diff.stdout, "    distinct 3.0000 -> 2.0000");
    contains(&diff.stdout, "    files changed: counts");
    contains(&project.effai(&["diff", "HEAD~1.."]).stderr, "no target differs");
    let keys = project.effai(&["diff", "data/words@HEAD~2", "data/words"]);
    contains(&keys.stdout, "words.txt");
    let alone = project.effai(&["diff", "data/words"]);
    assert_eq!(alone.code, 2);
    contains(&alone.stderr, "`effai diff data/words~1 data/words`, or two revisions: `effai diff HEAD~1..`");
    let blame = project.effai(&["blame", "data/words"]);
    contains(&blame.stdout, "not committed yet:\n    ");
    contains(&blame.stdout, "words.txt");
    let none = project.effai(&["blame", "reports/top", "HEAD~2"]);
    assert_eq!(none.code, 0, "{}", none.stderr);
    contains(&none.stdout, "its first version");
}

/// The commit's words are that many.
fn with_words(project: &Project, n: usize) {
    let words: String = (0..n).map(|i| format!("word{i}\n")).collect();
    project.write("words.txt", &words);
}

#[test]
fn bisect_finds_the_planted_commit_and_runs_at_most_what_is_missing() {
    let project = Project::new(RECIPE);
    project.write(".gitignore", "out/\n");
    let root = project.path(".");
    git(&root, &["init", "--quiet", "--initial-branch", "main"]);
    let mut commits = Vec::new();
    for i in 0..64 {
        with_words(&project, if i < 41 { 20 } else { 7 });
        project.write("notes.txt", &i.to_string());
        // Each third commit was built; its neighbours differ in nothing but what nobody reads, or in the text's order.
        if i % 3 == 0 {
            project.write("words.txt", &format!("{}word0\n", project.read("words.txt")));
        }
        if i == 0 || i == 63 {
            built(&project, &root, &["--lock"]);
        } else if root.join("effai.lock").exists() {
            std::fs::remove_file(root.join("effai.lock")).expect("removed");
        }
        commits.push(commit(&project, &format!("Commit {i}")));
    }
    let run = project.effai(&["bisect", "distinct", "--good", &commits[0], "--bad", "main", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let found: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(found["first-bad"]["title"], "Commit 41");
    assert_eq!((&found["before"], &found["value"]), (&20.0.into(), &7.0.into()));
    // Both texts of twenty words and both of seven: the first and the last are in the store, of the others each data set and
    // model is made once.
    assert!(found["judged"].as_u64() <= Some(9), "{found}");
    assert!(found["ran"].as_u64() <= Some(4), "{found}");
    let again = project.effai(&["bisect", "distinct", "--good", &commits[0], "--bad", "main", "--json"]);
    let again: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["ran"], 0);

    let wrong = project.effai(&["bisect", "accuracy", "--good", &commits[0]]);
    assert_eq!(wrong.code, 2);
    contains(&wrong.stderr, "has a metric `accuracy`");
    contains(&wrong.stderr, "there are: distinct");
    let not_worse = project.effai(&["bisect", "distinct", "--good", "main", "--bad", "main"]);
    assert_eq!(not_worse.code, 2, "{}", not_worse.stdout);
}

#[test]
fn what_was_tampered_with_is_refused() {
    let project = repository();
    let lock = project.read("effai.lock");
    // A line cut off.
    project.write("effai.lock", lock[..lock.len() - 40].trim_end().rsplit_once(' ').expect("words").0);
    let run = project.effai(&["build", "--locked"]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "effai.lock:4: there is no ");
    contains(&run.stderr, "git checkout HEAD -- effai.lock");
    // Another artifact for a key: what is made of that key is something else.
    let line = lock.lines().find(|line| line.starts_with("data/words ")).expect("a line");
    let artifact = line.split(' ').nth(2).expect("a digest");
    project.write("effai.lock", &lock.replace(artifact, &"0".repeat(64)));
    let run = project.effai(&["build", "--frozen", "data/words"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    contains(&run.stderr, "the store does not have its artifact 00000000");
    let run = project.effai(&["build", "--locked", "data/words"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "its artifact is ");
    contains(&run.stderr, "effai.lock says that this key is 00000000");
}

#[test]
fn a_clone_with_an_empty_store_has_from_the_remote_what_the_commit_claims() {
    let project = repository();
    let root = project.path(".");
    let remote = project.path("../remote");
    let place = format!("remote \"team\" {{ url \"{}\"; access \"read-write\"; }}\n", remote.display());
    project.write("effai.kdl", &format!("{place}{}", project.read("effai.kdl")));
    commit(&project, "A remote");
    assert_eq!(project.effai(&["hooks", "install"]).code, 0);
    let bare = project.path("../bare");
    git(&root, &["init", "--quiet", "--bare", bare.to_str().expect("text")]);
    // The hook sends artifacts before the commits that name them.
    git(&root, &["tag", "v1"]);
    git(&root, &["push", "--quiet", bare.to_str().expect("text"), "main", "v1"]);

    // The tag on another machine: what `pull` brought is enough, whatever becomes of the remote and of main.
    project.write("words.txt", "one\n");
    assert_eq!(built(&project, &root, &["--lock"]).len(), 3);
    commit(&project, "One word");
    let tagged = clone(&project, "tagged", &["--branch", "v1"]);
    let at_tag = |args: &[&str]| {
        let own = project.path("../tagged-store");
        project.effai_with(&[&["-C", tagged.to_str().expect("text")], args].concat(), &own)
    };
    let run = at_tag(&["pull"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    std::fs::rename(&remote, project.path("../remote-away")).expect("moved");
    let run = at_tag(&["build", "--frozen"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(ran(&run), NONE);
    assert_eq!(std::fs::read_to_string(tagged.join("out/reports/top/top")).expect("there").lines().count(), 3);
    std::fs::rename(project.path("../remote-away"), &remote).expect("moved back");
    git(&root, &["reset", "--quiet", "--hard", "v1"]);
    assert_eq!(built(&project, &root, &["--frozen"]), NONE);

    let there = clone(&project, "there", &[]);
    let elsewhere = |args: &[&str]| {
        let own = project.path("../another-store");
        project.effai_with(&[&["-C", there.to_str().expect("text")], args].concat(), &own)
    };
    let run = elsewhere(&["build", "--frozen"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(ran(&run), NONE);
    assert_eq!(
        std::fs::read(there.join("out/reports/top/top")).expect("there"),
        project.read_bytes("out/reports/top/top")
    );

    // The lock is believed before the remote: what has another artifact for its key is refused.
    let lock = std::fs::read_to_string(there.join("effai.lock")).expect("read");
    let line = lock.lines().find(|line| line.starts_with("data/words ")).expect("a line");
    let artifact = line.split(' ').nth(2).expect("a digest");
    std::fs::write(there.join("effai.lock"), lock.replace(artifact, &"0".repeat(64))).expect("written");
    std::fs::remove_dir_all(project.path("../another-store")).expect("removed");
    std::fs::remove_dir_all(there.join(".effai")).expect("removed");
    let run = elsewhere(&["build", "--frozen", "data/words"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "the remote `team`: its artifact is ");
    contains(&run.stderr, "effai.lock says that this key is 00000000");
}
