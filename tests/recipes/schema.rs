//! What is told of kinds and fields: to programs, and in `docs/`.
//!
//! `EFFAI_TEST_UPDATE=1 cargo test --test all recipes::schema` writes the tables in `docs/` anew.

use std::path::PathBuf;

use effai::kind::KINDS;
use effai::recipe::grammar::{OF_EVERY_TARGET, SETTINGS};
use effai::report::reference::{table, table_of};

use crate::support::Project;

/// Holds the text between two marks of a page against what it should be.
fn check(page: &str, mark: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(&path).expect("a page for each kind");
    let begin = text.find(&format!("<!-- {mark}")).unwrap_or_else(|| panic!("no mark `{mark}` in docs/{page}"));
    let start = begin + text[begin..].find('\n').expect("a line") + 1;
    let end = text.find(&format!("<!-- end of {mark} -->")).expect("an end");
    if std::env::var_os("EFFAI_TEST_UPDATE").is_some() {
        std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[end..])).expect("written");
    } else {
        assert!(text[start..end] == *expected, "docs/{page} is not what the schema says: see the head of this test");
    }
}

#[test]
fn the_pages_say_what_the_schemas_say() {
    for kind in KINDS {
        let schema = kind.schema();
        check(&format!("kinds/{}.md", schema.name), "fields", &table(schema));
    }
    check("recipes.md", "every target", &table_of(&OF_EVERY_TARGET));
    check("recipes.md", "settings", &table_of(&SETTINGS.iter().collect::<Vec<_>>()));
}

#[test]
fn the_schema_is_told_to_programs() {
    let project = Project::new("");
    let json = |args: &[&str]| -> serde_json::Value {
        let run = project.effai(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str(&run.stdout).expect("JSON")
    };
    let all = json(&["schema", "--json"]);
    assert_eq!(all["version"], 1);
    let names = |list: &str| -> Vec<String> {
        let items = all[list].as_array().expect("a list").iter();
        items.map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names("kinds").len(), KINDS.len());
    assert_eq!(names("every-target"), ["matrix", "profile", "tags", "at-most", "retry", "guard"]);
    assert!(names("settings").contains(&"projects".to_owned()));
    let one = json(&["schema", "quantized", "--json"]);
    let method = &one["kinds"][0]["fields"][1];
    assert_eq!((&method["name"], &method["count"]), (&"method".into(), &"required".into()));
    assert_eq!(method["properties"][0]["type"], serde_json::json!({ "is": "whole-number", "least": 2, "most": 8 }));
    let run = project.effai(&["schema", "quantised"]);
    assert!(run.code == 2 && run.stderr.contains("did you mean `quantized`?"), "{}", run.stderr);
    assert!(project.effai(&["schema", "adapter"]).stdout.contains("| `method rank=` |"));
}
