//! Recipes that include others, and projects within a project.

use effai::plan::Plan;
use effai::recipe::load;

use crate::support::Project;

const COPY: &str = "run \"cp\" \"in.txt\" \"x\"; input \"in.txt\"; output \"x\";";

#[test]
fn recipes_include_others_from_where_they_lie_and_each_is_read_once() {
    let project = Project::new("include \"r/a.kdl\"\n");
    project.write("r/a.kdl", "include \"b/*.kdl\" \"../shared.kdl\"\ncommand \"a\" { run \"true\"; output \"x\"; }\n");
    project.write("r/b/c.kdl", "include \"../a.kdl\"\ncommand \"c\" { run \"true\"; output \"x\"; }\n");
    project.write("shared.kdl", "include \"effai.kdl\"\ncommand \"s\" { run \"true\"; output \"x\"; }\n");
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("3 targets in 4 recipes"), "{}", run.stderr);
    project.edit("shared.kdl", "command \"s\"", "command \"t\"");
    project.write("r/b/d.kdl", "command \"d\" { run \"true\"; output \"x\"; }\n");
    let run = project.effai(&["check"]);
    assert!(run.stderr.contains("4 targets in 5 recipes"), "a recipe appeared: {}", run.stderr);
    project.write("r/a.kdl", "include \"../nothing.kdl\"\n");
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("there is no recipe `../nothing.kdl`") && run.stderr.contains("r/a.kdl:1"),
        "{}",
        run.stderr
    );
}

/// A whole tree: an outer project, and one in `packages/vision` that has its own file, label and reference.
fn tree() -> Project {
    let project = Project::new(
        "projects \"packages/*\"\n\
         command \"words\" { run \"sh\" \"-c\" \"echo outer > x\"; output \"x\"; }\n\
         command \"all\" { run \"sh\" \"-c\" \"cat packages/vision/join/x > x\"; needs \"packages/vision/join\"; output \"x\"; }\n",
    );
    project.write(
        "packages/vision/effai.kdl",
        &format!(
            "default \"join\"\nrecipes \"*.kdl\"\ncommand \"copy\" {{ {COPY} }}\n\
             command \"join\" {{ run \"sh\" \"-c\" \"cat copy/x src/*.txt > x\"; input \"src/*.txt\"; needs \"copy\"; output \"x\"; }}\n"
        ),
    );
    project.write("packages/vision/in.txt", "in\n");
    project.write("packages/vision/src/s.txt", "src\n");
    project
}

#[test]
fn targets_of_a_project_below_are_seen_under_its_directory() {
    let project = tree();
    assert_eq!(project.builds(&["all"]), ["packages/vision/copy", "packages/vision/join", "all"]);
    assert_eq!(project.read("out/all/x"), "in\nsrc\n");
    project.write("packages/vision/src/t.txt", "more\n");
    assert_eq!(project.builds(&["all"]), ["packages/vision/join", "all"]);
    assert!(project.builds(&["all"]).is_empty());
}

#[test]
fn within_a_project_its_own_labels_come_first_and_outputs_lie_in_the_outermost() {
    let project = tree();
    assert_eq!(
        project.builds(&["-C", "packages/vision"]),
        ["packages/vision/copy", "packages/vision/join"],
        "its default"
    );
    assert_eq!(project.read("out/packages/vision/join/x"), "in\nsrc\n");
    assert!(!project.path("packages/vision/.effai").exists());
    assert!(project.builds(&["-C", "packages/vision", "copy"]).is_empty());
    assert_eq!(
        project.builds(&["-C", "packages/vision", "words"]),
        ["words"],
        "the outer project's, where it has none"
    );
    assert_eq!(project.builds(&["-C", "packages/vision", "/all"]), ["all"]);
    let run = project.effai(&["-C", "packages/vision", "build", "coppy"]);
    assert!(run.code == 2 && run.stderr.contains("did you mean `copy`?"), "{}", run.stderr);
}

#[test]
fn a_project_alone_has_the_keys_it_has_in_the_tree() {
    let project = tree();
    project.builds(&["all"]);
    project.write("effai.kdl", "project \"no more\"\n");
    assert!(project.builds(&["-C", "packages/vision", "join"]).is_empty(), "the store has them");
    assert_eq!(project.read("packages/vision/out/join/x"), "in\nsrc\n");
}

#[test]
fn a_project_names_targets_of_the_outermost_with_a_slash() {
    let project = tree();
    project.write(
        "packages/text/effai.kdl",
        "command \"words\" { run \"sh\" \"-c\" \"echo inner > x\"; output \"x\"; }\n\
         command \"both\" { run \"sh\" \"-c\" \"cat words/x packages/vision/copy/x > x\"; needs \"words\"; needs \"/packages/vision/copy\"; output \"x\"; }\n",
    );
    project.builds(&["packages/text/both"]);
    assert_eq!(project.read("out/packages/text/both/x"), "inner\nin\n");
    project.edit("packages/text/effai.kdl", "needs \"/packages/vision/copy\"", "needs \"/words\"");
    let run = project.effai(&["check"]);
    assert!(run.code == 2 && run.stderr.contains("two artifacts would lie at `words`"), "{}", run.stderr);
    project.edit("packages/text/effai.kdl", "needs \"/words\"", "needs \"/wods\"");
    let run = project.effai(&["check"]);
    assert!(run.code == 2 && run.stderr.contains("did you mean \"/words\"?"), "{}", run.stderr);
}

#[test]
fn what_only_the_outermost_may_say_is_refused_below() {
    let project = tree();
    let member = project.read("packages/vision/effai.kdl");
    let check = |text: &str, expected: &str| {
        let run = project.effai(&["check"]);
        assert_eq!(run.code, 2, "{text}");
        assert!(run.stderr.contains(expected), "no {expected:?} in:\n{}", run.stderr);
    };
    project.write("packages/vision/effai.kdl", &format!("cache size=\"1 GiB\"\n{member}"));
    check("cache", "`cache` stands in the outermost effai.kdl");
    project.write("packages/vision/effai.kdl", &member);
    project.write("packages/vision/more.kdl", "projects \"x\"\n");
    check("projects", "`projects` stands in a project's effai.kdl alone");
    project.remove("packages/vision/more.kdl");
    project.edit("effai.kdl", "projects \"packages/*\"", "projects \"packages/visoin\"");
    check("nothing there", "there is no `effai.kdl` in `packages/visoin`");
    project.edit("effai.kdl", "projects \"packages/visoin\"", "projects \"packages/*\"");
    project.write("packages/a b/effai.kdl", "");
    check("a name that is no label", "`packages/a b` cannot stand before the labels of its targets");
}

#[test]
fn one_recipe_included_by_two_projects_declares_targets_in_each() {
    let project = Project::new("projects \"a\" \"b\"\n");
    project.write("shared.kdl", &format!("command \"copy\" {{ {COPY} }}\n"));
    for (name, text) in [("a", "1"), ("b", "2")] {
        project.write(&format!("{name}/effai.kdl"), "include \"../shared.kdl\"\n");
        project.write(&format!("{name}/in.txt"), text);
    }
    assert_eq!(project.builds(&["-j", "1"]), ["a/copy", "b/copy"]);
    assert_eq!((project.read("out/a/copy/x"), project.read("out/b/copy/x")), ("1".into(), "2".into()));
}

/// An adapter's directory names its base as its own project does.
#[test]
fn what_lies_alongside_is_had_by_both_names_or_refused() {
    let project = Project::new("projects \"lib\"\nfeatures \"f\" { of \"lib/adapters/a\"; on \"lib/data/d\"; }\n");
    project.write(
        "lib/effai.kdl",
        "dataset \"data/d\" { files \"t\" { glob \"t.csv\"; }; records \"r\" from=\"t\" file=\"t.csv\" { caption \"{c}\"; }; }\n\
         model \"models/m\" { source path=\"m.zip\" { weights \"w\"; }; architecture \"bert\"; }\n\
         adapter \"adapters/a\" { base \"models/m\"; method \"lora\"; target-modules \"*\"; train \"data/d\"; }\n",
    );
    let recipes = load::load(&project.path("."), None).expect("no mistakes");
    let plan = Plan::new(recipes.decls, &recipes.sources).expect("a plan");
    let names = plan.input_names(plan.find("f").expect("there"));
    let (whole, own) = (plan.find("lib/models/m"), plan.find("models/m"));
    assert_eq!((names.get("lib/models/m").copied(), names.get("models/m").copied()), (whole, whole));
    assert_eq!(own, None);
    project.edit(
        "effai.kdl",
        "features \"f\" { of \"lib/adapters/a\"; on \"lib/data/d\"; }",
        "model \"models/m\" { source path=\"m.zip\" { weights \"w\"; }; architecture \"bert\"; }\n\
         report \"r\" { compare \"models/m\" \"lib/adapters/a\"; test \"t\" on=\"lib/data/d\" split=\"test\"; }",
    );
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`models/m` would be two different targets to `r`"), "{}", run.stderr);
}
