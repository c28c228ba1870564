//! Hooks as git itself runs them: alone, and beside those of others.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{commit, contains, effai_at, git, repository, try_git};
use crate::support::Project;

fn installed() -> Project {
    let project = repository();
    let run = project.effai(&["hooks", "install"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    project
}

#[test]
fn a_commit_is_checked_and_a_checkout_is_restored() {
    let project = installed();
    let root = project.path(".");
    project.edit("effai.kdl", "head -n 3", "head -n 1");
    project.effai(&["build", "--lock"]);
    commit(&project, "One word");
    assert_eq!(project.read("out/reports/top/top").lines().count(), 1);
    let run = try_git(&root, &["checkout", "HEAD~1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(project.read("out/reports/top/top").lines().count(), 3, "{}", run.stderr);
    contains(&run.stderr, "1 restored");
    git(&root, &["checkout", "--quiet", "main"]);
    assert_eq!(project.read("out/reports/top/top").lines().count(), 1);

    // A recipe with a mistake is no commit; git's own way around is, and so is the variable.
    project.edit("effai.kdl", "needs \"models/counts\"", "needs \"models/count\"");
    git(&root, &["add", "--all"]);
    let run = try_git(&root, &["commit", "-m", "A mistake"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "models/count");
    git(&root, &["commit", "--quiet", "--no-verify", "-m", "A mistake"]);
    // What git has done already stands, whatever the recipes are.
    git(&root, &["checkout", "--quiet", "HEAD~1"]);
    git(&root, &["checkout", "--quiet", "main"]);
}

/// The lock that whoever restores holds, held by this test.
fn restores_are_held(project: &Project) -> std::fs::File {
    let turn = std::fs::File::create(project.path(".effai/checkout.lock")).expect("created");
    turn.lock().expect("locked");
    turn
}

#[test]
fn what_takes_longer_is_restored_behind_a_checkout_and_the_last_checkout_counts() {
    let project = installed();
    let root = project.path(".");
    for lines in [1, 2] {
        project.edit("effai.kdl", &format!("head -n {}", if lines == 1 { 3 } else { 1 }), &format!("head -n {lines}"));
        project.effai(&["build", "--lock"]);
        commit(&project, "Another");
    }
    let top = || project.read("out/reports/top/top").lines().count();
    git(&root, &["config", "effai.checkout", "background"]);
    // Nobody restores while this is held, and git does not wait.
    let held = restores_are_held(&project);
    for rev in ["main~2", "main~1"] {
        let run = try_git(&root, &["checkout", rev]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        contains(&run.stderr, "restoring 1 target (");
        contains(&run.stderr, "`effai restore` waits for it");
        assert_eq!(top(), 2);
    }
    contains(&project.effai(&["hooks", "status"]).stderr, "a checkout's restore goes on");
    drop(held);
    let run = project.effai(&["restore"]);
    assert_eq!((run.code, top()), (0, 1), "{}", run.stderr);
    // Those that waited find it done, whichever came first.
    drop(restores_are_held(&project));
    assert_eq!(top(), 1);

    git(&root, &["config", "effai.checkout", "off"]);
    contains(&try_git(&root, &["checkout", "main"]).stderr, "1 target in out/ not of this commit: `effai restore`");
    assert_eq!(top(), 1);
    git(&root, &["config", "effai.checkout", "foreground"]);
    contains(&try_git(&root, &["checkout", "main~2"]).stderr, "1 restored");
    assert_eq!(top(), 3);
    git(&root, &["config", "--unset", "effai.checkout"]);
    contains(&try_git(&root, &["checkout", "main"]).stderr, "1 restored");
    assert_eq!(top(), 2);

    // Many files are more than a moment's work.
    let recipe = "command \"many\" { run \"sh\" \"-c\" \"mkdir m; for i in $(seq 120); do echo A > m/$i; done\"; output \"m\"; }\n";
    for letter in ["A", "B"] {
        let base = project.read("effai.kdl");
        let base = base.split("command \"many\"").next().expect("a part");
        project.write("effai.kdl", &format!("{base}{}", recipe.replace('A', letter)));
        let run = project.effai(&["build", "many", "--lock"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        commit(&project, letter);
    }
    contains(&try_git(&root, &["checkout", "HEAD~1"]).stderr, "restoring 1 target (240 B) behind this");
    assert_eq!(project.effai(&["restore"]).code, 0);
    assert_eq!(project.read("out/many/m/120"), "A\n");
}

#[test]
fn a_lock_that_is_behind_is_told_and_stops_a_commit_where_every_build_writes_it() {
    let project = installed();
    let root = project.path(".");
    project.write("words.txt", "other\n");
    git(&root, &["add", "--all"]);
    let run = try_git(&root, &["commit", "-m", "Other words"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(
        &run.stderr,
        "effai: effai.lock is not of these recipes and files: data/words, models/counts, reports/top",
    );
    project.write("effai.kdl", &format!("lock \"always\"\n{}", project.read("effai.kdl")));
    git(&root, &["add", "--all"]);
    let run = try_git(&root, &["commit", "-m", "Always"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "`effai build --lock`, then `git add effai.lock`");
    let run = project.effai(&["build"]);
    contains(&run.stderr, "effai.lock: data/words, models/counts, reports/top");
    commit(&project, "Always");
}

#[test]
fn what_is_tagged_is_built_before_the_commit() {
    let project = installed();
    project.edit("effai.kdl", "needs \"models/counts\"", "needs \"models/counts\"; tags \"pre-commit\"");
    project.write("words.txt", "b\na\n");
    let root = project.path(".");
    git(&root, &["add", "--all"]);
    let run = try_git(&root, &["commit", "-m", "Tagged"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(project.read("out/reports/top/top").lines().count(), 2);
    project.edit("effai.kdl", "head -n 3 > top", "false");
    git(&root, &["add", "--all"]);
    let run = try_git(&root, &["commit", "-m", "It fails"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "reports/top");
}

#[test]
fn metrics_that_changed_become_trailers() {
    let project = installed();
    let root = project.path(".");
    assert_eq!(project.effai(&["hooks", "install", "prepare-commit-msg"]).code, 0);
    project.write("words.txt", "one\n");
    project.effai(&["build", "--lock"]);
    commit(&project, "One word");
    let message = git(&root, &["log", "-1", "--format=%B"]);
    assert_eq!(message, "One word\n\nEffai-Metric: models/counts distinct 1.0000 (was 3.0000)");
    project.write("readme.md", "");
    commit(&project, "Nothing of that");
    assert_eq!(git(&root, &["log", "-1", "--format=%B"]), "Nothing of that");
}

/// A hook of somebody else, which leaves a trace.
fn hook(path: &Path, script: &str) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Every file below a directory, with its bytes.
fn all(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().filter_map(Result::ok);
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().display().to_string(), std::fs::read(entry.path()).expect("read")))
        .collect()
}

#[test]
fn hooks_of_others_go_first_and_are_as_they_were_after_removal() {
    let project = repository();
    let root = project.path(".");
    let hooks = root.join(".git/hooks");
    hook(&hooks.join("pre-commit"), "echo theirs >> trace; test ! -e stop");
    hook(&hooks.join("pre-push"), "cat >> trace");
    let (before, config) = (all(&hooks), project.read(".git/config"));
    for _ in 0..2 {
        assert_eq!(project.effai(&["hooks", "install"]).code, 0);
    }
    let status = project.effai(&["hooks", "status"]).stdout;
    contains(&status, "pre-commit          installed, after what was there before");
    contains(&status, "post-checkout       installed  ");
    project.write("a.txt", "");
    commit(&project, "Both");
    assert_eq!(project.read("trace"), "theirs\n");
    // What the other refuses is refused.
    project.write("stop", "");
    git(&root, &["add", "--all"]);
    assert_eq!(try_git(&root, &["commit", "-m", "Stopped"]).code, 1);
    // The other gets what git says of refs.
    let bare = project.path("../bare");
    git(&root, &["init", "--quiet", "--bare", bare.to_str().expect("text")]);
    git(&root, &["push", "--quiet", bare.to_str().expect("text"), "main"]);
    contains(&project.read("trace"), "refs/heads/main");
    assert_eq!(project.effai(&["hooks", "remove"]).code, 0);
    assert_eq!(all(&hooks), before);
    assert_eq!(project.read(".git/config"), config);
    assert!(!root.join(".git/info/attributes").exists());
}

#[test]
fn husky_and_lefthook_keep_their_own() {
    // husky 9: its directory is made anew at every install, and calls the file of the same name above it.
    let project = repository();
    let root = project.path(".");
    git(&root, &["config", "core.hooksPath", ".husky/_"]);
    let calls =
        "n=$(basename \"$0\"); s=$(dirname \"$(dirname \"$0\")\")/$n; [ ! -f \"$s\" ] || exec sh -e \"$s\" \"$@\"";
    for name in ["pre-commit", "post-checkout", "post-merge", "pre-push"] {
        hook(&root.join(".husky/_").join(name), calls);
    }
    project.write(".husky/_/.gitignore", "*\n");
    project.write(".husky/pre-commit", "echo husky >> trace\n");
    let before = all(&root.join(".husky"));
    assert_eq!(project.effai(&["hooks", "install"]).code, 0);
    contains(&project.effai(&["hooks", "status"]).stdout, "pre-commit          installed, in husky's file");
    commit(&project, "With husky");
    assert_eq!(project.read("trace"), "husky\n");
    project.edit("effai.kdl", "needs \"models/counts\"", "needs \"models/count\"");
    git(&root, &["add", "--all"]);
    assert_eq!(try_git(&root, &["commit", "-m", "A mistake"]).code, 1);
    assert_eq!(project.effai(&["hooks", "status"]).code, 2, "the recipes have a mistake");
    project.edit("effai.kdl", "needs \"models/count\"", "needs \"models/counts\"");
    assert_eq!(project.effai(&["hooks", "remove"]).code, 0);
    assert_eq!(all(&root.join(".husky")), before);

    // lefthook puts a plain hook where git looks.
    let project = repository();
    let root = project.path(".");
    hook(
        &root.join(".git/hooks/pre-commit"),
        "call_lefthook() { echo \"lefthook $1\" >> trace; }\ncall_lefthook run \"pre-commit\" \"$@\"",
    );
    assert_eq!(project.effai(&["hooks", "install"]).code, 0);
    commit(&project, "With lefthook");
    assert_eq!(project.read("trace"), "lefthook run\n");
}

#[test]
fn a_project_below_the_repository_and_a_worktree_of_it_have_hooks() {
    let project = repository();
    let outer = project.path("../outer");
    std::fs::create_dir_all(outer.join("ml")).expect("made");
    for name in ["effai.kdl", "words.txt", ".gitignore"] {
        std::fs::copy(project.path(name), outer.join("ml").join(name)).expect("copied");
    }
    git(&outer, &["init", "--quiet", "--initial-branch", "main"]);
    let inner = outer.join("ml");
    for args in [&["build", "--lock"][..], &["hooks", "install"]] {
        let run = effai_at(&project, &inner, args);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    git(&outer, &["add", "--all"]);
    git(&outer, &["commit", "--quiet", "-m", "Below"]);
    contains(&git(&outer, &["check-attr", "merge", "ml/effai.lock"]), "merge: effai");
    let tree = project.path("../tree");
    git(&outer, &["worktree", "add", "--quiet", tree.to_str().expect("text")]);
    let recipe = std::fs::read_to_string(tree.join("ml/effai.kdl")).expect("read");
    std::fs::write(tree.join("ml/effai.kdl"), recipe.replace("needs \"models/counts\"", "needs \"models/count\""))
        .expect("written");
    git(&tree, &["add", "--all"]);
    let run = try_git(&tree, &["commit", "-m", "A mistake"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "models/count");
}

#[test]
fn the_driver_merges_the_lock_by_label() {
    let project = installed();
    let root = project.path(".");
    // Neighbouring lines: git alone would see one conflict in both.
    git(&root, &["switch", "--quiet", "-c", "report"]);
    project.edit("effai.kdl", "head -n 3", "head -n 2");
    project.effai(&["build", "--lock"]);
    commit(&project, "Two lines");
    git(&root, &["switch", "--quiet", "main"]);
    project.edit("effai.kdl", "uniq -c data/words/words > counts", "uniq -c data/words/words | sort > counts");
    project.effai(&["build", "models/counts", "--lock"]);
    commit(&project, "Sorted counts");
    git(&root, &["merge", "--quiet", "-m", "Both", "report"]);
    assert!(!project.read("effai.lock").contains("<<<<"));
    assert_eq!(project.builds(&["--lock"]), ["reports/top"]);
}
