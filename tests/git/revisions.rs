//! `LABEL@REV`, wherever a label stands: on the command line and in recipes.

use std::collections::BTreeSet;

use super::{NONE, RECIPE, built, clone, commit, contains, effai_at, git, ran, repository};
use crate::support::{Project, Run};

/// Holds the counts of now beside those of a revision.
fn with_both(rev: &str) -> String {
    format!(
        "{RECIPE}\ncommand \"reports/both\" {{\n    run \"sh\" \"-c\" \"cat models/counts/counts models/counts@{rev}/counts > both\"\n    \
         needs \"models/counts\"\n    needs \"models/counts@{rev}\"\n    output \"both\"\n}}\n"
    )
}

#[track_caller]
fn good(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    run
}

#[track_caller]
fn refused(run: &Run, code: i32, said: &[&str]) {
    assert_eq!(run.code, code, "{}{}", run.stdout, run.stderr);
    said.iter().for_each(|said| contains(&run.stderr, said));
}

/// What ran, once each: one that the lock knows is begun once more where it was found that the store lacks it.
fn all_that_ran(run: &Run) -> Vec<String> {
    ran(run).into_iter().collect::<BTreeSet<String>>().into_iter().collect()
}

/// As on a machine that has never built.
fn forget_all(project: &Project) {
    for dir in [project.cache(), project.path(".effai"), project.path("out")] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[test]
fn a_recipe_names_what_a_revision_has_and_follows_a_branch() {
    let project = repository();
    let root = project.path(".");
    git(&root, &["tag", "v1"]);
    git(&root, &["branch", "old"]);
    project.write("words.txt", "one\ntwo\n");
    project.write("effai.kdl", &with_both("old"));
    assert_eq!(built(&project, &root, &["--lock", "reports/both"]), ["data/words", "models/counts", "reports/both"]);
    assert_eq!(project.read("out/reports/both/both").lines().count(), 2 + 3);
    contains(&project.read("effai.lock"), "\nmodels/counts@old ");
    commit(&project, "Both");
    assert_eq!(built(&project, &root, &["--locked", "reports/both"]), NONE);
    good(project.effai(&["check"]));

    // A branch that moves to a commit of the same line changes nothing; one of another line does.
    git(&root, &["switch", "--quiet", "old"]);
    commit(&project, "Nothing of it");
    git(&root, &["switch", "--quiet", "main"]);
    assert_eq!(built(&project, &root, &["reports/both"]), NONE);
    git(&root, &["branch", "--force", "old", "main"]);
    let run = good(project.effai(&["build", "reports/both", "--explain"]));
    assert_eq!(ran(&run), ["reports/both"]);
    contains(&run.stderr, "models/counts@old");
    assert_eq!(project.read("out/reports/both/both").lines().count(), 2 + 2);
    let held = project.effai(&["build", "--locked", "reports/both"]);
    refused(&held, 1, &["effai.lock is not of these recipes and files", "models/counts@old"]);

    // By another name the same bytes: the command is another, its inputs are what they were.
    project.write("effai.kdl", &with_both("v1"));
    assert_eq!(built(&project, &root, &["reports/both"]), ["reports/both"]);
    assert_eq!(project.read("out/reports/both/both").lines().count(), 2 + 3);
    let explained = good(project.effai(&["explain", "models/counts@v1"]));
    contains(&explained.stdout, "models/counts@v1 is in the store (declared in effai.kdl:");
    good(project.effai(&["status", "reports/both", "reports/top@v1"]));

    // Nobody has it any more: said with what to do, which makes it as it was.
    forget_all(&project);
    let run = project.effai(&["build", "reports/both"]);
    refused(
        &run,
        1,
        &[
            "effai.lock of v1 has models/counts as ",
            "neither the store nor a remote has that",
            "`effai build models/counts@v1` makes it as v1 has it",
        ],
    );
    let run = good(project.effai(&["build", "models/counts@v1"]));
    contains(&run.stderr, "it is made as v1 has it");
    assert_eq!(all_that_ran(&run), ["data/words", "models/counts"]);
    assert_eq!(project.read("out/models/counts@v1/counts").lines().count(), 3);
    let run = good(project.effai(&["build", "reports/both"]));
    assert_eq!(project.read("out/reports/both/both").lines().count(), 2 + 3);
    assert!(!ran(&run).contains(&"models/counts@v1".to_owned()), "{}", run.stderr);
}

#[test]
fn what_is_no_revision_or_has_no_line_is_said_with_its_place() {
    let project = repository();
    let root = project.path(".");
    git(&root, &["tag", "v1"]);
    git(&root, &["switch", "--quiet", "--orphan", "empty"]);
    git(&root, &["commit", "--quiet", "--allow-empty", "-m", "Nothing"]);
    git(&root, &["switch", "--quiet", "main"]);
    let check = |rev: &str, said: &[&str]| {
        project.write("effai.kdl", &with_both(rev));
        let run = project.effai(&["check"]);
        refused(&run, 2, said);
        contains(&run.stderr, "effai.kdl:28:");
        let run = project.effai(&["build", "-k", "reports/both", "reports/top"]);
        refused(&run, 2, &said[..1]);
        contains(&run.stderr, "(named in effai.kdl:28)");
    };
    check("v2", &["there is no revision `v2`"]);
    check("empty", &["empty has no target in effai.lock", "name a revision from after"]);

    // What only recipes say needs no repository.
    for (needs, said) in [
        ("models/count@v1", "did you mean \"models/counts@v1\"?"),
        ("models/counts@", "after @ comes a revision, such as HEAD~1 or a tag"),
        ("models/counts@v1:effai.lock", "a revision behind @ has no `:`"),
        ("models/counts@v1..v2", "behind @ stands one revision, and no range or path"),
    ] {
        project.write("effai.kdl", &with_both("v1").replace("\"models/counts@v1\"", &format!("\"{needs}\"")));
        refused(&project.effai(&["check"]), 2, &[said]);
    }
    project.edit("effai.kdl", "models/counts@v1..v2", "reports/both@v1");
    refused(&project.effai(&["check"]), 2, &["effai.lock of v1 has no line for reports/both"]);
    std::fs::remove_dir_all(project.path(".git")).expect("removed");
    refused(&project.effai(&["check"]), 2, &["lies in no git repository"]);
}

#[test]
fn commands_take_a_label_at_a_revision_or_say_what_does() {
    let project = repository();
    let root = project.path(".");
    git(&root, &["tag", "v1"]);
    let remote = "remote \"team\" { url \"../remote\"; access \"read-write\"; }\n";
    project.write("effai.kdl", &format!("{remote}{RECIPE}"));
    project.write("words.txt", "one\ntwo\n");
    built(&project, &root, &["--lock"]);
    commit(&project, "Two words");
    assert_eq!(project.read("out/reports/top/top").lines().count(), 2);

    // Beside it, and with the store's own.
    let run = good(project.effai(&["build", "reports/top@v1", "models/counts@HEAD~1", "--locked"]));
    assert_eq!(ran(&run), NONE);
    assert_eq!(project.read("out/reports/top@v1/top").lines().count(), 3);
    assert_eq!(project.read("out/reports/top/top").lines().count(), 2);
    contains(&good(project.effai(&["build", "reports/top@v1"])).stderr, "fresh");
    assert_eq!(built(&project, &root, &["--frozen"]), NONE);
    let lock = project.read("effai.lock");
    good(project.effai(&["build", "--lock", "reports/top", "reports/top@v1"]));
    assert_eq!(project.read("effai.lock"), lock);

    // Put back in its place, which is another thing.
    good(project.effai(&["restore", "reports/top@v1"]));
    assert_eq!(project.read("out/reports/top/top").lines().count(), 3);
    good(project.effai(&["restore"]));
    assert_eq!(project.read("out/reports/top/top").lines().count(), 2);
    assert_eq!(project.read("out/reports/top@v1/top").lines().count(), 3);

    let log = good(project.effai(&["log", "reports/top@v1"])).stdout;
    assert_eq!(log.lines().filter(|line| line.contains("Words of a tree")).count(), 1, "{log}");
    assert!(!log.contains("Two words"), "{log}");
    contains(&good(project.effai(&["blame", "reports/top@v1"])).stdout, "Words of a tree");
    contains(&good(project.effai(&["diff", "reports/top@v1", "reports/top@HEAD"])).stdout, "models/counts");
    contains(&good(project.effai(&["explain", "reports/top@HEAD@{0}"])).stdout, "is in the store");

    // To a remote and back, by what the lock names.
    contains(&good(project.effai(&["push", "reports/top@v1"])).stderr, "1 sent to team");
    forget_all(&project);
    contains(&good(project.effai(&["pull", "reports/top@v1"])).stderr, "from team");
    let run = good(project.effai(&["build", "reports/top@v1"]));
    assert_eq!((ran(&run), project.read("out/reports/top@v1/top").lines().count()), (vec![], 3));
    let there = clone(&project, "there", &[]);
    std::fs::write(there.join("effai.kdl"), format!("{remote}{RECIPE}")).expect("written");
    let _ = std::fs::remove_dir_all(project.cache());
    let run = good(effai_at(&project, &there, &["build", "reports/top@v1", "models/counts@v1"]));
    contains(&run.stderr, "from team");
    assert_eq!(all_that_ran(&run), ["data/words", "models/counts"], "only what was not sent");

    // Where it makes no sense that is said, with what does.
    for args in [&["watch", "reports/top@v1"][..], &["test", "reports/top@v1"], &["run", "models/counts@v1", "?"]] {
        refused(&project.effai(args), 2, &["cannot be named here", "puts it into out/"]);
    }
    refused(&project.effai(&["build", "reports/top@v9"]), 2, &["there is no revision `v9`"]);
    refused(&project.effai(&["build", "reports/tip@v1"]), 2, &["effai.lock of v1 has no line for reports/tip"]);
    refused(&project.effai(&["build", "reports/*@v1"]), 2, &["`reports/*@v1`: a label has letters"]);
    refused(&project.effai(&["blame", "reports/top@v1", "HEAD"]), 2, &["two revisions"]);
    refused(&project.effai(&["log", "reports/top@v1", "--runs"]), 2, &["runs are not kept by revision"]);
}

#[test]
fn what_a_revision_made_otherwise_now_is_not_passed_off_as_it() {
    let project = repository();
    let root = project.path(".");
    // Its bytes are another's with each run.
    project.write(
        "effai.kdl",
        &format!("{RECIPE}\ncommand \"now\" {{ run \"sh\" \"-c\" \"date +%s%N > now\"; output \"now\"; }}\n"),
    );
    built(&project, &root, &["--lock", "now"]);
    commit(&project, "Now");
    git(&root, &["tag", "v1"]);
    forget_all(&project);
    let run = project.effai(&["build", "now@v1"]);
    refused(&run, 1, &["and effai.lock says that this key is "]);
    assert!(!project.path("out/now@v1").exists());
    // A file that was not committed as the lock has it is said before anything runs.
    project.write("words.txt", "other\n");
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "-m", "Behind"]);
    let run = project.effai(&["build", "data/words@HEAD"]);
    refused(&run, 1, &["data/words as HEAD has it: effai.lock is not of these recipes and files", "data/words: "]);
    assert_eq!(ran(&run), NONE);
}
