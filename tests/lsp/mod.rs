//! The language server over its protocol: a small editor drives the real program.

pub(crate) mod client;

use serde_json::{Value, json};

use crate::support::Project;
use client::Client;

const CHAIN: &str = r#"project "chain"
recipes "recipes/*.kdl"
default "b"
command "a" { run "true"; output "x"; }
"#;

/// In another file; the pattern of a matrix, and a profile that names a target.
const OTHER: &str = r#"command "b" {
    run "cat" "a/x"
    needs "a"
    output "x"
    profile "quick" { needs "a"; }
}
quantized "models/q{bits}" {
    matrix { bits 8 4; }
    from "a"
    method "rtn" bits="{bits}"
}
command "c" { run "true"; needs "models/q8"; output "x"; }
"#;

fn chain() -> Project {
    let project = Project::new(CHAIN);
    project.write("recipes/other.kdl", OTHER);
    project
}

fn codes(diagnostics: &[Value]) -> Vec<&str> {
    diagnostics.iter().map(|d| d["code"].as_str().expect("a code")).collect()
}

fn range(line: u32, from: u32, to: u32) -> Value {
    json!({ "start": { "line": line, "character": from }, "end": { "line": line, "character": to } })
}

/// What is offered at the cursor.
fn offers(client: &mut Client<'_>, marked: &str) -> Vec<String> {
    let answer = client.ask("textDocument/completion", "effai.kdl", marked);
    answer.as_array().expect("a list").iter().map(|o| o["label"].as_str().expect("a label").to_owned()).collect()
}

/// The text after the offer of this name is taken.
fn taken(client: &mut Client<'_>, marked: &str, label: &str) -> String {
    let answer = client.ask("textDocument/completion", "effai.kdl", marked);
    let offer = answer.as_array().expect("a list").iter().find(|o| o["label"] == label).expect("offered").clone();
    edited(&marked.replacen('|', "", 1), &[offer["textEdit"].clone()])
}

/// A text with edits made to it, in ASCII.
fn edited(text: &str, edits: &[Value]) -> String {
    let offset = |p: &Value| {
        let line = p["line"].as_u64().expect("a line") as usize;
        let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        start + p["character"].as_u64().expect("a column") as usize
    };
    let mut edits: Vec<(usize, usize, &str)> = edits
        .iter()
        .map(|e| {
            let new = e["newText"].as_str().expect("a text");
            (offset(&e["range"]["start"]), offset(&e["range"]["end"]), new)
        })
        .collect();
    edits.sort_unstable();
    let mut text = text.to_owned();
    for (start, end, new) in edits.into_iter().rev() {
        text.replace_range(start..end, new);
    }
    text
}

#[test]
fn all_mistakes_at_once_as_one_types_and_none_when_mended() {
    let project = chain();
    let mut client = Client::new(&project);
    let good = CHAIN.replace("recipes \"recipes/*.kdl\"\n", "");
    let bad = format!(
        "{good}command \"d\" {{ run \"true\"; outptu \"x\"; }}\n\
         command data/x {{ }}\n\
         adapter \"ad\" {{ base \"a\"; method \"lora\" rank=0; target-modules \"*\"; train \"nothing\"; }}\n\
         command \"e\" {{ run \"true\"; needs \"aa\" ; needs \"d\"; output \"x\"; }}\n"
    );
    client.open("effai.kdl", &bad);
    let said = client.diagnostics("effai.kdl", 1);
    let mut found = codes(&said);
    found.sort_unstable();
    let expected = ["recipe::bare_label", "recipe::unknown_field", "recipe::unknown_target", "recipe::wrong_value"];
    assert!(expected.iter().all(|e| found.contains(e)), "{said:#?}");
    assert!(!said.iter().any(|d| d["message"].as_str().expect("text").contains("`d`")), "d is declared: {said:#?}");

    let of = |code: &str| said.iter().find(|d| d["code"] == code).expect("there");
    let misspelt = of("recipe::unknown_field");
    assert_eq!(misspelt["range"], range(3, 26, 32));
    assert_eq!(misspelt["severity"], 1);
    assert_eq!(misspelt["source"], "effai");
    let message = misspelt["message"].as_str().expect("text");
    assert!(message.contains("kind `command` has no field `outptu`") && message.contains("did you mean `output`?"));
    let related = &misspelt["relatedInformation"][0];
    assert_eq!(related["location"]["range"], range(3, 0, 7));
    assert_eq!(related["message"], "of this");
    assert_eq!(of("recipe::unknown_target")["range"], range(6, 32, 36));

    client.change("effai.kdl", 2, json!({ "text": good }));
    let said = client.diagnostics("effai.kdl", 2);
    assert_eq!(codes(&said), ["recipe::x"; 0], "{said:#?}");
    assert_eq!(project.read("effai.kdl"), CHAIN, "nothing was saved");
    assert_eq!(client.leave(), 0);
}

#[test]
fn mistakes_of_other_files_are_told_of_those() {
    let project = chain();
    project.write("recipes/third.kdl", "command \"a\" { run \"true\"; output \"x\"; }\n");
    let mut client = Client::new(&project);
    client.open("effai.kdl", CHAIN);
    let said = client.diagnostics_of_file("recipes/third.kdl");
    assert_eq!(codes(&said), ["recipe::duplicate_label"]);
    let first = &said[0]["relatedInformation"][0];
    assert_eq!(first["location"]["uri"], client.uri("effai.kdl").as_str());
    assert_eq!(first["location"]["range"], range(3, 8, 11));
    assert_eq!(first["message"], "first here");

    // Mended in the editor, in the one file; the word about the other is taken back.
    let mended = CHAIN.replace("\"a\" {", "\"z\" {");
    client.change("effai.kdl", 2, json!({ "text": mended }));
    assert!(client.diagnostics_of_file("recipes/third.kdl").is_empty());
    assert_eq!(client.leave(), 0);
}

#[test]
fn a_mistake_within_a_profile_shows() {
    let project = Project::new("");
    let mut client = Client::new(&project);
    let text = "command \"a\" { run \"true\"; output \"x\"; profile \"ci\" { needs \"gone\"; }; }\n";
    client.open("effai.kdl", text);
    let said = client.diagnostics("effai.kdl", 1);
    assert_eq!(codes(&said), ["recipe::unknown_target"]);
    assert!(said[0]["message"].as_str().expect("text").ends_with("(with the profile \"ci\")"));
}

#[test]
fn a_target_that_does_not_parse_hides_no_other() {
    let project = chain();
    let mut client = Client::new(&project);
    // An open string, an open brace, and behind them a declaration with a mistake and one without.
    let text = format!(
        "{CHAIN}command \"open\" {{\n    needs \"a\n    run \"true\"\ncommand \"d\" {{ run 7; output \"x\"; }}\ncommand \"e\" {{ run \"true\"; needs \"open\"; output \"x\"; }}\n"
    );
    client.open("effai.kdl", &text);
    let said = client.diagnostics("effai.kdl", 1);
    assert_eq!(codes(&said), ["recipe::syntax", "recipe::wrong_value"], "{said:#?}");
    assert_eq!(said[1]["range"]["start"], json!({ "line": 7, "character": 18 }));
    let to = client.ask("textDocument/definition", "effai.kdl", &text.replace("needs \"open", "needs \"op|en"));
    assert_eq!(to[0]["range"], range(4, 8, 14));
}

#[test]
fn completion_of_names() {
    let project = chain();
    let mut client = Client::new(&project);
    let kinds = offers(&mut client, "mod|");
    assert!(["model", "dataset", "project", "recipes", "default"].iter().all(|k| kinds.iter().any(|o| o == k)));
    assert_eq!(taken(&mut client, "mod|\n", "model"), "model\n");

    let fields = offers(&mut client, "command \"m\" {\n    run \"true\"\n    |\n}\n");
    assert!(["input", "needs", "output", "matrix", "profile"].iter().all(|f| fields.iter().any(|o| o == f)));
    assert!(!fields.iter().any(|o| o == "run"), "run may stand once: {fields:?}");
    let nested = offers(&mut client, "model \"m\" {\n    train \"d\" { ep|");
    assert!(nested.iter().any(|o| o == "epochs"), "{nested:?}");
    let laid = offers(&mut client, "model \"m\" { profile \"quick\" { train { l| } } }");
    assert!(laid.iter().any(|o| o == "learning-rate"), "{laid:?}");

    let text = "dataset \"d\" {\n    source \"s\" npm=\"x\" |\n";
    let properties = offers(&mut client, text);
    assert!(properties.iter().any(|o| o == "sha256") && !properties.iter().any(|o| o == "npm"), "{properties:?}");
    assert_eq!(taken(&mut client, text, "sha256"), text.replace('|', "sha256="));
    assert!(offers(&mut client, "// mod|").is_empty());
}

#[test]
fn completion_of_values() {
    let project = chain();
    project.write("data/in.txt", "");
    let mut client = Client::new(&project);
    let labels = offers(&mut client, &format!("{CHAIN}command \"own\" {{ needs \"|"));
    assert_eq!(labels, ["a", "b", "models/q4", "models/q8", "c"]);
    assert_eq!(offers(&mut client, "recipes \"recipes/*.kdl\"\ndefault \"m|\""), ["b", "models/q4", "models/q8", "c"]);

    // Open, closed, and without quotes: the text is right after each.
    let head = "recipes \"recipes/*.kdl\"\ncommand \"own\" { needs ";
    assert_eq!(taken(&mut client, &format!("{head}\"mo|"), "models/q8"), format!("{head}\"models/q8\""));
    assert_eq!(taken(&mut client, &format!("{head}\"mo|x\" }}"), "models/q8"), format!("{head}\"models/q8\" }}"));
    assert_eq!(taken(&mut client, &format!("{head}mo| }}"), "models/q8"), format!("{head}\"models/q8\" }}"));

    assert_eq!(offers(&mut client, "adapter \"x\" { method \"|\""), ["lora", "rslora", "dora", "full"]);
    assert_eq!(
        taken(&mut client, "model \"x\" { image-tower \"a\" frozen=|", "#true"),
        "model \"x\" { image-tower \"a\" frozen=#true"
    );
    assert_eq!(offers(&mut client, "command \"x\" { input \"data/|\" }"), ["data/in.txt"]);
    assert!(offers(&mut client, "command \"x\" { input \"|").contains(&"data/".to_owned()));
    assert_eq!(offers(&mut client, "quantized \"m{n}\" { matrix { n 1 2; }; from \"a{|\" }"), ["{n}"]);
}

#[test]
fn hovers() {
    let project = chain();
    let mut client = Client::new(&project);
    let mut said = |name: &str, marked: &str| {
        let answer = client.ask("textDocument/hover", name, marked);
        answer["contents"]["value"].as_str().unwrap_or_default().to_owned()
    };
    assert!(said("effai.kdl", "com|mand \"a\" { run \"true\"; }").contains("Runs a program in a directory"));
    let field = said("effai.kdl", "command \"a\" { ou|tput \"x\"; }");
    assert!(field.contains("A file or directory the program makes"), "{field}");
    assert!(field.contains("required"), "{field}");
    let property = said("effai.kdl", "dataset \"d\" { split tr|ain=0.5; }");
    assert!(property.contains("a number from 0 to 1") && property.contains("default `0.8`"), "{property}");
    assert_eq!(
        said("effai.kdl", &CHAIN.replace("true", "tr|ue")).lines().next(),
        Some("**run** · one or more: text · required")
    );
    let label = said("recipes/other.kdl", &OTHER.replacen("needs \"a\"", "needs \"a|\"", 1));
    for part in [
        "**a** · command · effai.kdl:4",
        "command \"a\" { run \"true\"; output \"x\"; }",
        "under: `b`, `models/q{bits}`",
    ] {
        assert!(label.contains(part), "no {part:?} in {label}");
    }
    let made = said("recipes/other.kdl", &OTHER.replacen("models/q8", "models/q|8", 1));
    for part in ["recipes/other.kdl:7", "makes: `models/q4`, `models/q8`", "stands on: `a`", "under: `c`"] {
        assert!(made.contains(part), "no {part:?} in {made}");
    }
    assert_eq!(said("effai.kdl", "command \"a\" { } // com|mand"), "");
}

#[test]
fn definitions_and_references() {
    let project = chain();
    let mut client = Client::new(&project);
    let main = client.uri("effai.kdl");
    let other = client.uri("recipes/other.kdl");
    client.open("effai.kdl", CHAIN);
    let to = client.ask("textDocument/definition", "recipes/other.kdl", &OTHER.replacen("needs \"a", "needs \"|a", 1));
    assert_eq!(to, json!([{ "uri": main, "range": range(3, 8, 11) }]));
    let to = client.ask("textDocument/definition", "recipes/other.kdl", &OTHER.replacen("models/q8", "m|odels/q8", 1));
    assert_eq!(to, json!([{ "uri": other, "range": range(6, 10, 26) }]), "made by a matrix");
    let to = client.ask("textDocument/definition", "effai.kdl", &CHAIN.replacen("recipes/*", "reci|pes/*", 1));
    assert_eq!(to[0]["uri"], other.as_str(), "the files of a glob");

    let marked = CHAIN.replacen("command \"a", "command \"a|", 1);
    let context = json!({ "context": { "includeDeclaration": true } });
    let named = client.try_ask("textDocument/references", "effai.kdl", &marked, context).expect("an answer");
    let lines: Vec<u64> = named
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l["range"]["start"]["line"].as_u64().expect("a line"))
        .collect();
    assert_eq!(lines, [3, 2, 4, 8], "the declaration, then needs, the profile's needs and from: {named:#?}");
}

#[test]
fn a_rename_changes_every_file() {
    let project = chain();
    let mut client = Client::new(&project);
    // The text in the editor is one line longer than the file.
    let text = format!("// new\n{CHAIN}");
    let marked = text.replacen("command \"a", "command \"|a", 1);
    let asked = client.ask("textDocument/prepareRename", "effai.kdl", &marked);
    assert_eq!(asked, json!({ "range": range(4, 9, 10), "placeholder": "a" }));
    let to = json!({ "newName": "data/new" });
    let edit = client.try_ask("textDocument/rename", "effai.kdl", &marked, to).expect("an edit");
    let edits = |name: &str| edit["changes"][client.uri(name)].as_array().expect("edits").clone();
    assert_eq!(edited(&text, &edits("effai.kdl")), text.replace("command \"a\"", "command \"data/new\""));
    let other = OTHER.replace("needs \"a\"", "needs \"data/new\"").replace("from \"a\"", "from \"data/new\"");
    assert_eq!(edited(OTHER, &edits("recipes/other.kdl")), other);

    let default = text.replacen("default \"b", "default \"b|", 1);
    let edit =
        client.try_ask("textDocument/rename", "effai.kdl", &default, json!({ "newName": "z" })).expect("an edit");
    assert_eq!(edit["changes"].as_object().expect("files").len(), 2, "`default` and the declaration");
}

#[test]
fn a_rename_that_cannot_be_is_refused() {
    let project = chain();
    let mut client = Client::new(&project);
    client.open("effai.kdl", CHAIN);
    let mut refused = |marked: &str, name: &str| {
        let to = json!({ "newName": name });
        client.try_ask("textDocument/rename", "recipes/other.kdl", marked, to).expect_err("refused").1
    };
    let a = OTHER.replacen("needs \"a", "needs \"a|", 1);
    assert!(refused(&a, "a b").contains("cannot be a label: a label has letters"));
    assert!(refused(&a, "b").contains("there is a target `b` already, in recipes/other.kdl:1"));
    assert!(refused(&a, "models/q8").contains("already"));
    assert!(refused(&a, "c/x").contains("would lie in one another"));
    let made = OTHER.replacen("models/q8", "|models/q8", 1);
    assert!(refused(&made, "z").contains("made by the matrix of `models/q{bits}` in recipes/other.kdl:7"));
    let pattern = OTHER.replacen("models/q{", "models/q|{", 1);
    assert!(refused(&pattern, "z").contains("several labels of a matrix"));
    assert!(refused(&OTHER.replacen("run", "r|un", 1), "z").contains("only a target's label"));
    assert!(refused(&OTHER.replacen("needs \"a\"", "needs \"gone|\"", 1), "z").contains("there is no target `gone`"));
}

#[test]
fn columns_are_utf_16_unless_agreed_otherwise() {
    let text = "command \"é\" /*😀*/ { run \"true\"; needs \"é\"; output \"x\"; }\n";
    let at = text.rfind("\"é\"").expect("there");
    for (offered, agreed, column, length) in [
        (json!({}), "utf-16", text[..at].encode_utf16().count(), 3),
        (json!({ "general": { "positionEncodings": ["utf-8", "utf-16"] } }), "utf-8", at, 4),
    ] {
        let project = Project::new("");
        let (mut client, hello) = Client::greeting(&project, offered);
        assert_eq!(hello["capabilities"]["positionEncoding"], agreed);
        client.open("effai.kdl", text);
        let said = client.diagnostics("effai.kdl", 1);
        assert_eq!(codes(&said), ["recipe::cycle"], "{said:#?}");
        assert_eq!(said[0]["range"], range(0, column as u32, column as u32 + length), "{agreed}");
        let position = json!({ "line": 0, "character": column + 1 });
        let asked = json!({ "textDocument": { "uri": client.uri("effai.kdl") }, "position": position });
        let to = client.request("textDocument/definition", asked).expect("an answer");
        assert_eq!(to[0]["range"], range(0, 8, 8 + length), "{agreed}");
    }
}

#[test]
fn edits_of_ranges_are_made_in_order() {
    let project = Project::new("");
    let mut client = Client::new(&project);
    client.open("effai.kdl", "// 😀 é\ncommand \"a\" { run \"true\"; output \"x\"; }\n");
    assert!(client.diagnostics("effai.kdl", 1).is_empty());
    // After the emoji, which is two columns; then on the next line.
    client.change(
        "effai.kdl",
        2,
        json!({ "range": range(0, 6, 7), "text": "e\ncommand \"b\" { run 1; output \"x\"; }" }),
    );
    let said = client.diagnostics("effai.kdl", 2);
    assert_eq!(codes(&said), ["recipe::wrong_value"]);
    assert_eq!(said[0]["range"], range(1, 18, 19));
    client.change("effai.kdl", 3, json!({ "range": range(1, 18, 19), "text": "\"true\"" }));
    assert!(client.diagnostics("effai.kdl", 3).is_empty());
    let to =
        client.request("textDocument/documentSymbol", json!({ "textDocument": { "uri": client.uri("effai.kdl") } }));
    let names: Vec<Value> =
        to.expect("symbols").as_array().expect("a list").iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn a_file_that_changes_on_the_disk_is_seen() {
    let project = chain();
    let watched = json!({ "workspace": { "didChangeWatchedFiles": { "dynamicRegistration": true } } });
    let (mut client, _) = Client::greeting(&project, watched);
    let asked = client.wait(|m| m["method"] == "client/registerCapability");
    assert_eq!(asked["params"]["registrations"][0]["method"], "workspace/didChangeWatchedFiles");
    client.open("effai.kdl", CHAIN);
    assert!(client.diagnostics("effai.kdl", 1).is_empty());
    project.write("recipes/new.kdl", "comand \"n\" { }\n");
    client.notify("workspace/didChangeWatchedFiles", json!({ "changes": [] }));
    assert_eq!(codes(&client.diagnostics_of_file("recipes/new.kdl")), ["recipe::unknown_kind"]);
    project.remove("recipes/new.kdl");
    client.notify("workspace/didChangeWatchedFiles", json!({ "changes": [] }));
    assert!(client.diagnostics_of_file("recipes/new.kdl").is_empty());
}

#[test]
fn a_file_that_is_not_included_says_so() {
    let project = Project::new("project \"p\"\n");
    let mut client = Client::new(&project);
    client.open("stray.kdl", "command \"a\" { }\n");
    assert_eq!(codes(&client.diagnostics("stray.kdl", 1)), ["recipe::not_included"]);
}

#[test]
fn the_conversation_keeps_to_the_protocol() {
    let project = chain();
    let mut client = Client::silent(&project);
    assert_eq!(client.request("textDocument/hover", json!({})).expect_err("too early").0, -32002);
    let hello = client.request("initialize", json!({ "capabilities": {} })).expect("initialized");
    assert_eq!(hello["serverInfo"]["name"], "effai");
    assert_eq!(client.request("initialize", json!({ "capabilities": {} })).expect_err("twice").0, -32600);
    client.notify("initialized", json!({}));
    assert_eq!(client.request("textDocument/nonsense", json!({})).expect_err("unknown").0, -32601);
    assert_eq!(client.request("textDocument/hover", json!({ "x": 1 })).expect_err("no position").0, -32602);
    client.notify("$/nonsense", json!({}));
    client.notify("textDocument/didChange", json!([1, 2]));
    for malformed in ["Content-Length: 3\r\n\r\n{]}", "Nonsense\r\n\r\n", "Content-Length: 2\r\n\r\n[]"] {
        client.raw(malformed);
        let answer = client.wait(|m| m["id"].is_null() && m["error"].is_object());
        assert!(answer["error"]["code"].as_i64().expect("a code") <= -32600);
    }
    assert!(!offers(&mut client, "mod|").is_empty(), "it still answers");
    let untitled = json!({ "textDocument": { "uri": "untitled:1" }, "position": { "line": 0, "character": 0 } });
    assert_eq!(client.request("textDocument/hover", untitled), Ok(Value::Null));
    assert_eq!(client.request("shutdown", Value::Null), Ok(Value::Null));
    assert_eq!(client.request("textDocument/hover", json!({})).expect_err("after shutdown").0, -32600);
    client.notify("exit", Value::Null);
    assert_eq!(client.end(), 0);

    let mut rude = Client::new(&project);
    rude.notify("exit", Value::Null);
    assert_eq!(rude.end(), 1, "exit without shutdown");
    assert_eq!(Client::new(&project).end(), 1, "gone without a word");
}

#[test]
fn braces_without_end_do_not_end_it() {
    let project = Project::new("");
    let mut client = Client::new(&project);
    client.open("effai.kdl", &"a {".repeat(50_000));
    assert_eq!(codes(&client.diagnostics("effai.kdl", 1)), ["recipe::syntax"]);
    assert_eq!(client.leave(), 0);
}

#[test]
fn includes_and_projects_below_are_followed() {
    let project = Project::new("projects \"packages/*\"\n");
    project.write("packages/a/effai.kdl", "include \"r/one.kdl\"\n");
    project.write("packages/a/r/one.kdl", "command \"x\" { run \"true\"; output \"x\"; }\n");
    let main = "projects \"packages/*\"\ncommand \"y\" { run \"true\"; needs \"packages/a/x\"; output \"x\"; }\n";
    let mut client = Client::new(&project);
    client.open("effai.kdl", main);
    assert_eq!(codes(&client.diagnostics("effai.kdl", 1)), ["recipe::x"; 0]);
    let wrong =
        "command \"x\" { run \"true\"; output \"x\"; }\ncommand \"z\" { run \"true\"; needs \"w\"; output \"x\"; }\n";
    client.open("packages/a/r/one.kdl", wrong);
    let said = client.diagnostics("packages/a/r/one.kdl", 1);
    assert_eq!(codes(&said), ["recipe::unknown_target"], "{said:#?}");
    let marked = wrong.replace("\"w\"", "\"|x\"");
    let found = client.ask("textDocument/definition", "packages/a/r/one.kdl", &marked);
    assert_eq!(found[0]["range"], range(0, 8, 11), "{found}");
    let found = client.ask("textDocument/definition", "packages/a/effai.kdl", "include \"r/|one.kdl\"\n");
    assert_eq!(found[0]["uri"], client.uri("packages/a/r/one.kdl").as_str(), "{found}");
    client.open("effai.kdl", main);
    let edits = client
        .try_ask("textDocument/rename", "packages/a/r/one.kdl", &marked, json!({ "newName": "v" }))
        .expect("renamed");
    let uri = client.uri("packages/a/r/one.kdl");
    let own = edits["changes"][&uri].as_array().expect("edits");
    assert!(own.iter().all(|e| e["newText"] == "\"v\"") && own.len() == 2, "{edits}");
    let uri = client.uri("effai.kdl");
    assert_eq!(edits["changes"][&uri][0]["newText"], "\"packages/a/v\"", "{edits}");
    assert_eq!(client.leave(), 0);
}

#[test]
fn a_text_is_laid_out_as_fmt_does() {
    let project = chain();
    let mut client = Client::new(&project);
    let text = "project  \"é\"\n\n\ncommand \"a\" {run \"true\"}\n";
    client.open("effai.kdl", text);
    let params = json!({ "textDocument": { "uri": client.uri("effai.kdl") }, "options": { "tabSize": 4, "insertSpaces": true } });
    let edits = client.request("textDocument/formatting", params.clone()).expect("an answer");
    assert_eq!(edits[0]["newText"], "project \"é\"\n\ncommand \"a\" { run \"true\"; }\n");
    client.change("effai.kdl", 2, json!({ "text": "project {\n" }));
    assert_eq!(client.request("textDocument/formatting", params).expect("an answer"), json!([]));
    assert_eq!(client.leave(), 0);
}
