//! How recipes are read, laid out, described and put together.

mod generate;
mod projects;
mod schema;
mod words;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use effai::recipe::format::{formatted, same};
use effai::recipe::load::{self, Examined};
use effai::recipe::parse;
use effai::recipe::source::Sources;
use effai::recipe::texts::Disk;
use effai::recipe::tokens::{Sort, tokens};

use crate::engine::graphs::Rng;
use crate::support::Project;

/// Random recipes that are looked at, unless asked for more.
const CASES: u64 = 2000;

fn seeds() -> std::ops::Range<u64> {
    let asked = |name: &str, usual| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let first = asked("EFFAI_TEST_SEED", 1);
    first..first + asked("EFFAI_TEST_CASES", CASES)
}

/// The text of each comment, without the white space around it.
fn comments(text: &str) -> Vec<String> {
    let all = tokens(text).into_iter().filter(|t| matches!(t.sort, Sort::LineComment | Sort::BlockComment));
    all.map(|t| text[t.range].trim().replace("\r\n", "\n")).collect()
}

#[test]
fn laying_out_keeps_what_a_recipe_says_and_its_comments_and_is_done_once() {
    let (mut good, mut in_pieces) = (0, 0);
    for seed in seeds() {
        let text = generate::recipe(&mut Rng::new(seed));
        let mut sources = Sources::default();
        let file = sources.add("effai.kdl".into(), text.clone());
        let kdl = kdl::KdlDocument::parse_v2(&text).is_ok();
        let parsed = parse::parse(&text, file, &sources);
        assert_eq!(parsed.is_ok(), kdl, "seed {seed}: what is refused before the parser is no KDL\n{text}");
        let Ok(before) = parsed else { continue };
        good += 1;
        if let Some(pieces) = effai::recipe::texts::parse_in_pieces(&text, file) {
            assert_eq!(before, pieces, "seed {seed}:\n{text}");
            in_pieces += 1;
        }
        let once = formatted(&text, file, &sources).expect("it parses");
        let after = parse::parse(&once, file, &sources).expect("still KDL");
        assert!(same(&before, &after), "seed {seed}:\n{text}\n---\n{once}");
        assert_eq!(comments(&text), comments(&once), "seed {seed}:\n{text}\n---\n{once}");
        let twice = formatted(&once, file, &sources).expect("still KDL");
        assert_eq!(once, twice, "seed {seed}:\n{text}");
        assert!(
            !once.contains('\r') && !once.lines().any(|l| l.ends_with(' ') && !text.contains("\"\"\"")),
            "seed {seed}:\n{once}"
        );
    }
    assert!(in_pieces * 10 > good * 9, "only {in_pieces} of {good} could be parsed in pieces");
    assert!(good * 2 > seeds().count(), "only {good} recipes were KDL");
}

#[test]
fn the_shelf_is_laid_out_already() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> =
        std::fs::read_dir(root.join("recipes")).expect("listed").map(|e| e.expect("an entry").path()).collect();
    paths.extend(["effai.kdl", "examples/digits/effai.kdl", "tests/reference/effai.kdl"].map(|path| root.join(path)));
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("read");
        let mut sources = Sources::default();
        let file = sources.add(path.clone(), text.clone());
        let new = formatted(&text, file, &sources).expect("KDL");
        assert!(new == text, "{} is not as `effai fmt` writes it", path.display());
    }
}

#[test]
fn no_text_ends_the_check_and_every_mistake_has_a_place() {
    let dir = tempfile::tempdir().expect("made");
    let mut rng = Rng::new(seeds().start);
    for seed in seeds() {
        let text = generate::recipe(&mut rng);
        let bytes = if seed % 2 == 0 { text.into_bytes() } else { generate::damaged(&mut rng, &text) };
        std::fs::write(dir.path().join("effai.kdl"), &bytes).expect("written");
        let Examined { recipes, mistakes } = load::examine(dir.path(), None, &mut Disk::new(dir.path())).expect("read");
        for mistake in &mistakes {
            assert!(mistake.marks().next().is_some(), "seed {seed}: {mistake}");
            for (span, _) in mistake.marks() {
                let text = recipes.sources.files()[span.file as usize].text.inner();
                let end = (span.start + span.len) as usize;
                assert!(text.get(span.start as usize..end).is_some(), "seed {seed}: {mistake} at {span:?} of {text:?}");
            }
        }
        if mistakes.is_empty() {
            let _ = effai::plan::Plan::new(recipes.decls, &recipes.sources);
        }
    }
}

#[test]
fn fmt_writes_what_differs_and_nothing_else() {
    let project = Project::new("project   \"p\"\nrecipes \"r/*.kdl\"\n");
    project.write("r/a.kdl", "command \"a\" { run \"true\"; output \"x\"; } // kept\n");
    project.write("r/b.kdl", "command \"b\" {\n run \"true\"\n output \"x\"\n}\n");
    std::fs::set_permissions(project.path("r/b.kdl"), std::fs::Permissions::from_mode(0o640)).expect("set");
    let check = project.effai(&["fmt", "--check"]);
    assert_eq!((check.code, check.stdout.as_str()), (1, "effai.kdl\nr/b.kdl\n"), "{}", check.stderr);
    assert!(project.read("effai.kdl").contains("   "), "--check writes nothing");
    let run = project.effai(&["fmt"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(project.read("effai.kdl"), "project \"p\"\nrecipes \"r/*.kdl\"\n");
    assert_eq!(project.read("r/b.kdl"), "command \"b\" {\n    run \"true\"\n    output \"x\"\n}\n");
    let mode = std::fs::metadata(project.path("r/b.kdl")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(project.effai(&["fmt", "--check"]).code, 0);
}

#[test]
fn fmt_refuses_what_is_no_recipe_and_goes_on() {
    let project = Project::new("");
    project.write("bad.kdl", "a {\n");
    project.write("good.kdl", "a  1\n");
    std::fs::write(project.path("latin.kdl"), b"// caf\xe9\n").expect("written");
    let run = project.effai(&["fmt", "bad.kdl", "latin.kdl", "good.kdl"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("bad.kdl:") && run.stderr.contains("the recipe is not UTF-8"), "{}", run.stderr);
    assert_eq!(project.read("bad.kdl"), "a {\n");
    assert_eq!(project.read("good.kdl"), "a 1\n");
}

#[test]
fn fmt_of_standard_input_goes_to_standard_output() {
    let project = Project::new("");
    let run = project.effai_reading(&["fmt", "-"], b"a  { b 1 }\n");
    assert_eq!((run.code, run.stdout.as_str()), (0, "a { b 1; }\n"), "{}", run.stderr);
    assert_eq!(project.effai_reading(&["fmt", "-", "--check"], b"a  1\n").code, 1);
}

/// One error that holds the text, exit code 2.
fn refused(project: &Project, text: &str) {
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2, "{}", &run.stderr[..run.stderr.len().min(2000)]);
    assert!(run.stderr.contains(text), "no {text:?} in:\n{}", &run.stderr[..run.stderr.len().min(2000)]);
    assert_eq!(run.stderr.matches('×').count(), 1);
}

#[test]
fn texts_that_nobody_writes_are_one_error() {
    let project = Project::new("");
    project.write("effai.kdl", &"command \"a\" {".repeat(10_000));
    refused(&project, "braces lie too deep in one another");
    project.write("effai.kdl", &"/-".repeat(10_000));
    refused(&project, "too many `/-` in a row");
    project.write("effai.kdl", "/* no end");
    refused(&project, "this comment has no end");
    std::fs::write(project.path("effai.kdl"), b"project \"a\xff\"\n").expect("written");
    refused(&project, "the recipe is not UTF-8");
    project.write("effai.kdl", "command \"a\0\" { run \"true\"; output \"x\"; }\n");
    refused(&project, "effai.kdl:1");
    let axes: String = ["a", "b", "c"].iter().map(|n| format!("{n} {};", "1 ".repeat(60))).collect();
    project.write(
        "effai.kdl",
        &format!("command \"x-{{a}}-{{b}}-{{c}}\" {{ matrix {{ {axes} }}; run \"true\"; output \"x\"; }}\n"),
    );
    refused(&project, "the matrix makes 216000 targets");
}

#[test]
fn marks_of_other_systems_and_long_lines_are_read() {
    let project = Project::new("");
    let recipe = "\u{feff}project \"p\"\r\ncommand \"a\" {\r\n    run \"true\" // c\r\n    output \"x\"\r\n}\r\n";
    project.write("effai.kdl", recipe);
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let long = "x".repeat(1_000_000);
    project.write(
        "effai.kdl",
        &format!(
            "// {long}\ncommand \"a\" {{ run \"echo\" \"{long}\"; output \"x\"; }} /* {} */\n",
            "/ * ".repeat(300_000)
        ),
    );
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 0, "{}", &run.stderr[..run.stderr.len().min(2000)]);
}

#[test]
fn a_target_of_another_kind_is_a_mistake() {
    let project = Project::new(
        "command \"c\" { run \"true\"; output \"o\"; }\npython \"p\" { environment \"c\"; script \"a.py\"; output \"o\"; }\n",
    );
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let said = "`c` is of kind `command`, and `environment` is wanted";
    assert!(run.stderr.contains(said) && run.stderr.contains("name a target of kind `environment`"), "{}", run.stderr);
}
