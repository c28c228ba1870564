//! Predictions that targets keep, compared item by item. Their metrics are held against others' in `tests/reference/score.py`.

use serde_json::{Value, json};

use crate::support::Project;

/// Targets that keep these files as their predictions, and a report of them.
fn project(file: &str, targets: &[&str], line: &str) -> Project {
    let mut recipe = String::new();
    for (i, _) in targets.iter().enumerate() {
        recipe +=
            &format!("command \"models/{i}\" {{ run \"cp\" \"{i}\" \"{file}\"; input \"{i}\"; output \"{file}\"; }}\n");
    }
    let labels: Vec<String> = (0..targets.len()).map(|i| format!("\"models/{i}\"")).collect();
    recipe += &format!("report \"r\" {{ compare {}; predictions \"{file}\" {line}; }}\n", labels.join(" "));
    let project = Project::new(&recipe);
    targets.iter().enumerate().for_each(|(i, text)| project.write(&i.to_string(), text));
    project
}

fn report(project: &Project) -> Value {
    project.builds(&["r"]);
    serde_json::from_str(&project.read("out/r/report.json")).expect("JSON")
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

#[track_caller]
fn fails(file: &str, targets: &[&str], line: &str, code: i32, parts: &[&str]) {
    let run = project(file, targets, line).effai(&["build", "r"]);
    assert_eq!(run.code, code, "{}", run.stderr);
    contains(&run.stderr, parts);
}

const FIRST: &str = "item,animal,p_cat,p_dog\n1,cat,0.9,0.1\n2,dog,0.2,0.8\n3,cat,0.4,0.6\n4,dog,0.3,0.7\n";
/// The same items in another order, and all of them right.
const SECOND: &str = "p_dog,p_cat,item,animal\n0.9,0.1,4,dog\n0.2,0.8,3,cat\n0.1,0.9,1,cat\n0.7,0.3,2,dog\n";
const LINE: &str = "id=\"item\" truth=\"animal\" probability=\"p_{class}\"";

#[test]
fn the_same_items_are_held_against_each_other_in_whatever_order_they_stand() {
    let project = project("p.csv", &[FIRST, SECOND], LINE);
    let report = report(&project);
    assert_eq!((&report["version"], &report["of"]), (&json!(7), &json!("predictions")));
    let predicted = &report["predicted"];
    assert_eq!((&predicted["items"], &predicted["classes"]), (&json!(4), &json!(["cat", "dog"])));
    let metrics: Vec<&str> =
        predicted["metrics"].as_array().expect("metrics").iter().filter_map(|m| m["metric"].as_str()).collect();
    assert_eq!(metrics, ["accuracy", "f1", "roc-auc", "log-loss", "calibration-error"], "the usual ones");
    let accuracy = &predicted["metrics"][0]["rows"];
    assert_eq!(accuracy[0]["estimate"]["value"], 0.75);
    assert_eq!((&accuracy[1]["estimate"]["value"], &accuracy[1]["difference"]["value"]), (&json!(1.0), &json!(0.25)));
    assert_eq!(accuracy[1]["difference"]["stands_out"], false, "one item of four is noise");
    assert_eq!(predicted["by_class"][0]["confusion"], json!([[1, 1], [0, 2]]));
    contains(&project.read("out/r/report.md"), &["| models/1 | **1.000** (1.000–1.000) |", "## F1 of each class"]);
    contains(
        &project.read("out/r/report.html"),
        &["id=\"calibration\"", "id=\"classes\"", "2 targets on 4 items of 2 classes."],
    );
    for plot in ["scores", "score-log-loss", "calibration", "confusion-1", "confusion-2"] {
        assert!(project.read_bytes(&format!("out/r/plots/{plot}.png")).starts_with(b"\x89PNG"), "{plot}");
    }
    contains(&project.effai(&["log", "r"]).stdout, &["models/0.accuracy 0.75"]);
    assert!(project.builds(&["r"]).is_empty());
}

#[test]
fn rankings_and_texts_have_their_own_metrics() {
    let ranked = "{\"right\": [\"a\", \"b\"], \"found\": [\"x\", \"a\"]}\n{\"right\": {\"c\": 2}, \"found\": {\"c\": 0.1, \"y\": 0.9}}\n";
    let found = report(&project(
        "p.jsonl",
        &[ranked],
        "truth=\"right\" ranked=\"found\" { metrics \"recall@1\" \"recall@2\" \"mrr\"; }",
    ));
    let values = |report: &Value| -> Vec<f64> {
        let metrics = report["predicted"]["metrics"].as_array().expect("metrics");
        metrics.iter().filter_map(|m| m["rows"][0]["estimate"]["value"].as_f64()).collect()
    };
    assert_eq!(values(&found), [0.0, 0.75, 0.5]);
    let written = "{\"wanted\": \"a cat sat on a mat\", \"text\": \"a cat sat on a mat\"}\n{\"wanted\": \"yes\", \"text\": \"no\"}\n";
    let found = report(&project("p.jsonl", &[written], "truth=\"wanted\" text=\"text\" { metrics \"exact-match\"; }"));
    assert_eq!(values(&found), [0.5]);
    assert_eq!(found["predicted"].get("classes"), None);
}

#[test]
fn what_cannot_be_said_of_the_items_is_left_out_and_told() {
    let one_class = "animal,p_cat,p_dog\ncat,0.9,0.1\ncat,0.2,0.8\n";
    let found = report(&project("p.csv", &[one_class], "truth=\"animal\" probability=\"p_{class}\""));
    assert_eq!(found["left_out"], json!(["roc-auc of 0: it has no value on these items."]));
    assert_eq!(found["predicted"]["metrics"][2]["rows"][0]["estimate"], Value::Null);
}

#[test]
fn what_does_not_fit_is_one_mistake_in_the_recipe() {
    let mistakes = [
        ("truth=\"animal\"", "which column is the prediction is not said"),
        ("truth=\"animal\" predicted=\"p\" text=\"t\"", "`predicted` and `text` are of different sorts of predictions"),
        ("truth=\"animal\" score=\"p\"", "`score` needs `positive`"),
        ("truth=\"animal\" predicted=\"p\" positive=\"cat\"", "`positive` needs `score`"),
        ("truth=\"animal\" probability=\"p\"", "`probability` names no column for each class"),
        ("truth=\"animal\" predicted=\"p\" { metrics \"acuracy\"; }", "did you mean \"accuracy\"?"),
        ("truth=\"animal\" predicted=\"p\" { metrics \"bleu\"; }", "the metric `bleu` does not fit these predictions"),
        ("truth=\"animal\" predicted=\"p\" { metrics \"log-loss\"; }", "it needs probability=\"p_{class}\""),
        ("truth=\"animal\" predicted=\"p\" { metrics \"f1\" \"f1\"; }", "the metric `f1` is there twice"),
    ];
    for (line, says) in mistakes {
        fails("p.csv", &[FIRST], line, 2, &[says]);
    }
}

#[test]
fn other_items_and_broken_values_are_named() {
    let predicted = "truth=\"animal\" predicted=\"p_cat\"";
    fails(
        "p.csv",
        &[FIRST],
        "truth=\"beast\" predicted=\"animal\"",
        1,
        &["there is no column `beast`", "`animal`, `item`, `p_cat` and `p_dog`"],
    );
    fails(
        "p.csv",
        &[FIRST, SECOND],
        "truth=\"animal\" probability=\"p_{class}\"",
        1,
        &[
            "p.csv of models/1, row 1: its truth is `dog`, and that of models/0 is `cat`",
            "a column `id` says which is which",
        ],
    );
    let fewer = SECOND.rsplit_once("0.7").expect("a last row").0;
    fails("p.csv", &[FIRST, fewer], LINE, 1, &["models/1 predicts 3 items and models/0 4"]);
    let other = SECOND.replace(",4,", ",7,");
    fails("p.csv", &[FIRST, &other], LINE, 1, &["models/1 does not predict the item `4`"]);
    let twice = FIRST.replace("\n4,", "\n3,");
    fails("p.csv", &[&twice], LINE, 1, &["p.csv of models/0, row 4: the item `3` is there twice"]);
    fails("p.csv", &[&FIRST.replace("0.9", "NaN")], LINE, 1, &["row 1: `p_cat` is no finite number"]);
    fails("p.csv", &[&FIRST.replace("0.9,0.1", "1.9,0.1")], LINE, 1, &["`p_cat` is 1.9, no probability"]);
    fails("p.csv", &["animal,p_cat\n"], predicted, 1, &["p.csv of models/0 has no rows"]);
    fails("p.txt", &[FIRST], predicted, 1, &["p.txt of models/0: effai does not know how to read this"]);
    let positive = "truth=\"animal\" score=\"p_cat\" positive=\"cow\"";
    fails("p.csv", &[FIRST], positive, 2, &["no item is of the class `cow`", "there are `cat` and `dog`"]);
    let unlike = "{\"right\": [\"a\"], \"found\": \"a b\"}\n";
    fails("p.jsonl", &[unlike], "truth=\"right\" ranked=\"found\"", 1, &["row 1: `found` is `a b`, no array of names"]);
    let twice = "{\"right\": [\"a\"], \"found\": [\"b\", \"b\"]}\n";
    fails("p.jsonl", &[twice], "truth=\"right\" ranked=\"found\"", 1, &["`found` holds `b` twice"]);
}

#[test]
fn artifacts_are_put_beside_each_other_with_what_reports_say_of_them() {
    let project = project("p.csv", &[FIRST, SECOND], LINE);
    project.builds(&["r"]);
    let run = project.effai(&["compare", "models/0", "models/1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |name: &str| {
        let found = lines.iter().find(|line| line.join(" ").starts_with(name));
        found.unwrap_or_else(|| panic!("no {name:?} in {}", run.stdout)).join(" ")
    };
    assert_eq!(lines[0], ["models/0", "models/1"]);
    assert!(line("size").ends_with(" B") && line("r") == "r", "{}", run.stdout);
    assert!(line("p.csv accuracy").contains("0.7500 (0.2500–1) 1 (1–1)"), "{}", run.stdout);

    let run = project.effai(&["compare", "models/0", "models/1", "--html", "beside.html"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let page = project.read("beside.html");
    contains(
        &page,
        &["<h1>models&#x2f;0 beside models&#x2f;1</h1>", "<td>1 (1\u{2013}1)</td>", "prefers-color-scheme:dark"],
    );
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));

    // An older key has what it was made of, and no report that is of another.
    project.edit("1", "0.7,0.3,2,dog", "0.3,0.7,2,dog");
    project.builds(&["r"]);
    let run = project.effai(&["compare", "models/1~1", "models/1", "--json"]);
    let found: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let row =
        found["rows"].as_array().expect("rows").iter().find(|row| row["name"] == "p.csv accuracy").expect("a row");
    assert_eq!(
        (&row["report"], &row["values"][0], &row["values"][1]["value"]),
        (&json!("r"), &Value::Null, &json!(0.75))
    );
    // Two versions of a report, by what each says of its models.
    let run = project.effai(&["compare", "r~1", "r"]);
    assert!(run.code == 0 && run.stdout.contains("models/1\np.csv accuracy"), "{} {}", run.stdout, run.stderr);
    let run = project.effai(&["compare", "models/0", "model/1"]);
    assert!(run.code == 2 && run.stderr.contains("model/1"), "{}", run.stderr);
}
