//! What a machine can do, and what fits into it.

use serde_json::Value;

use crate::support::Project;
use crate::support::tiny::{MODEL, Tiny};

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_machine_is_measured_once_and_reported() {
    let recipe = "hardware \"machine\"\nreport \"r\" { compare \"machine\"; number \"memory read, GB/s\" better=\"higher\"; \
                  number \"f32 products, GFLOP/s\" better=\"higher\"; }\n";
    let project = Project::new(recipe);
    assert_eq!(project.builds(&["r", "machine"]), ["machine", "r"]);
    let found = json(&project.read("out/machine/hardware.json"));
    let rates = found["rates"].as_array().expect("rates");
    let of: Vec<&str> = rates.iter().filter_map(|rate| rate["of"].as_str()).collect();
    for what in ["memory-read", "memory-copy", "f32", "disk-write"] {
        assert!(of.contains(&what), "{of:?}");
    }
    for rate in rates {
        let number = |name: &str| rate[name].as_f64().expect("a number");
        assert!(number("best") >= number("median") && number("median") > 1e6 && number("rounds") >= 3.0, "{rate}");
    }
    assert!(!found["machine"].as_str().expect("a machine").is_empty());
    assert!(project.read("out/r/report.md").contains("| machine | "));
    assert!(project.builds(&["r", "machine"]).is_empty(), "what was measured is kept");
}

#[test]
fn the_doctor_measures_when_asked() {
    let project = Project::new("");
    let quiet = project.effai(&["doctor", "--json"]);
    assert_eq!(json(&quiet.stdout)["hardware"], Value::Null);
    let run = project.effai(&["doctor", "--bench", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(json(&run.stdout)["hardware"]["rates"].as_array().is_some_and(|rates| rates.len() >= 5), "{}", run.stdout);
    assert!(run.stderr.contains("measuring: memory read"), "{}", run.stderr);
    let left = std::fs::read_dir(project.cache()).expect("listed").flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".tmp")), "nothing is left");
}

#[test]
fn what_fits_is_said_by_precision_and_length() {
    let project = Project::new(&format!("{MODEL}\n"));
    Tiny::llama().pack(&project, "tiny.zip", &[]);
    let fit = |args: &[&str]| project.effai(&[&["fit"], args].concat());
    let all = fit(&["m", "--memory", "1 GiB", "--json"]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    let found = json(&all.stdout);
    let forms: Vec<&str> =
        found["precisions"].as_array().expect("rows").iter().filter_map(|row| row["precision"].as_str()).collect();
    assert_eq!(forms, ["f32", "bf16", "8 bits", "6 bits", "4 bits"]);
    assert_eq!((&found["longest"], &found["precisions"][0]["tokens-that-fit"]), (&64.into(), &64.into()));
    // By the directory as by the label.
    let dir = fit(&["out/m", "--memory", "1 GiB"]);
    assert!(dir.code == 0 && dir.stdout.contains("take f32: it is the most precise that fits"), "{}", dir.stdout);
    let none = fit(&["m", "--memory", "1 MiB"]);
    assert_eq!(none.code, 1, "{}", none.stderr);
    assert!(
        none.stdout.contains("the weights alone do not fit") && none.stdout.contains("none fits"),
        "{}",
        none.stdout
    );

    let refused = [
        (&["m", "--context", "65"][..], "m reads 64 tokens at most"),
        (&["m", "--memory", "much"][..], "`--memory much`"),
        (&["n"][..], "`n`"),
    ];
    for (args, says) in refused {
        let run = fit(args);
        assert!(run.code == 2 && run.stderr.contains(says), "{args:?}: {} {}", run.code, run.stderr);
    }
}
