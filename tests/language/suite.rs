//! A report of roundings of one model: how far each is from it, at which size and speed, and which to take.

use serde_json::Value;

use super::reports::refuses;
use crate::support::Project;
use crate::support::tiny::{DATA, MODEL, Tiny, words};

/// A model whose rows are whole groups, roundings of it, and a report with these fields besides.
fn project(more: &str) -> Project {
    let rounded: String = [8, 4, 3]
        .map(|bits| format!("quantized \"q{bits}\" {{ from \"m\"; method \"rtn\" bits={bits} group=32; }}\n"))
        .concat();
    let report = format!("report \"r\" {{ compare \"m\" \"q3\" \"q8\" \"q4\"; on \"d\" split=\"train\"; {more}; }}\n");
    let project = Project::new(&format!("{MODEL}\n{DATA}\n{rounded}{report}"));
    let mut wide = Tiny::llama().config;
    for (name, value) in [("hidden_size", 64), ("intermediate_size", 256)] {
        wide[name] = value.into();
    }
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    words(&project);
    project
}

fn json(project: &Project, path: &str) -> Value {
    serde_json::from_str(&project.read(path)).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn roundings_are_ranked_and_recommended() {
    let size = |project: &Project, label: &str| {
        std::fs::metadata(project.path(&format!("out/{label}/model.safetensors"))).expect("there").len()
    };
    let probe = project("metrics \"perplexity\"");
    probe.builds(&["q3", "q4", "q8", "m"]);
    let [three, four, eight, whole] = ["q3", "q4", "q8", "m"].map(|label| size(&probe, label));
    assert!(three < four && four < eight && eight < whole);
    let limits = format!("limit size=\"{four} B\"; limit kl=1000.0; limit size=\"{} B\" kl=1e-9", three - 1);
    let project = project(&format!("metrics \"kl\" \"perplexity\" \"accuracy\" \"speed\"; {limits}; seed 7"));
    project.builds(&["r", "m"]);

    let report = json(&project, "out/r/report.json");
    let rows = &report["texts"][0]["rows"];
    let kl = |i: usize| number(&rows[i]["divergence"]["value"]);
    assert!(kl(0) == 0.0 && 0.0 < kl(2) && kl(2) < kl(3) && kl(3) < kl(1), "{rows}");
    for i in 0..4 {
        for measure in ["divergence", "same_top", "accuracy"] {
            let (low, value, high) = (&rows[i][measure]["low"], &rows[i][measure]["value"], &rows[i][measure]["high"]);
            assert!(number(low) <= number(value) && number(value) <= number(high), "{i} {measure}: {rows}");
        }
        let (same, right) = (number(&rows[i]["same_top"]["value"]), number(&rows[i]["accuracy"]["value"]));
        assert!((0.0..=1.0).contains(&same) && (0.0..=1.0).contains(&right), "{rows}");
    }
    assert_eq!(rows[0]["same_top"]["value"], 1.0);
    assert!(number(&rows[1]["same_top"]["value"]) < 1.0, "three bits of random weights: {rows}");

    let found = &report["quantization"];
    assert_eq!(found["order"], serde_json::json!(["m", "q8", "q4", "q3"]));
    assert_eq!(found["front"], serde_json::json!(["q3", "q4", "q8"]));
    assert_eq!((&found["limits"][0]["take"], &found["limits"][0]["bytes"]), (&"q4".into(), &four.into()));
    assert_eq!(found["limits"][1]["take"], "q3");
    assert_eq!((&found["limits"][2]["take"], &found["limits"][2]["nearest"]), (&Value::Null, &"q3".into()));
    let said = |i: usize| report["headline"][i].as_str().expect("words").to_owned();
    assert!(said(0).starts_with("Within 0.") && said(0).contains(" MB take q4: 0."), "{}", said(0));
    assert!(said(1).starts_with("Within a divergence below 1000 take q3: "), "{}", said(1));
    assert!(said(2).starts_with("Nothing stays within ") && said(2).contains("; q3 comes nearest: "), "{}", said(2));

    // Three bits and a scale and an offset of 32 bits for each 32 weights, of what is packed.
    let bits = number(&report["subjects"][1]["bits_per_weight"]);
    assert!((5.0..6.0).contains(&bits) && number(&report["subjects"][0]["bits_per_weight"]) < 33.0, "{bits}");
    for subject in report["subjects"].as_array().expect("models") {
        let speed = &subject["speed"];
        // Of the 64 tokens that the model reads, as many are generated as are read.
        assert_eq!((&speed["prompt"], &speed["generate"], &speed["rounds"]), (&32.into(), &32.into(), &5.into()));
        for key in ["load_ms", "prompt_tokens_per_s", "generation_tokens_per_s"] {
            assert!(number(&speed[key]) > 0.0, "{key}: {speed}");
        }
        assert_eq!(speed["bytes"], subject["bytes"]);
    }
    assert!(!report["machine"].as_str().expect("a machine").is_empty());

    let lines = project.read("out/r/report.csv");
    let models: Vec<&str> = lines.lines().filter(|l| l.contains(",,kl,")).filter_map(|l| l.split(',').next()).collect();
    assert_eq!(models, ["m", "q8", "q4", "q3"]);
    let md = project.read("out/r/report.md");
    let place = |text: &str| md.find(text).unwrap_or_else(|| panic!("no {text:?} in {md}"));
    assert!(
        place("| m, the original |") < place("| q8, on the front |") && place("| q8,") < place("| q4, recommended |")
    );
    let page = project.read("out/r/report.html");
    assert!(
        page.contains("KL divergence, nats") && page.contains("generation, tokens") && page.contains(">recommended<")
    );
    for plot in ["front", "speed"] {
        for form in ["svg", "png"] {
            assert!(
                std::fs::metadata(project.path(&format!("out/r/plots/{plot}.{form}"))).expect("there").len() > 1000
            );
        }
    }
    assert!(!project.path("out/r/plots/records.svg").exists());
    assert!(project.builds(&["r"]).is_empty(), "what was measured is kept");
}

/// A sentence encoder, roundings of it and a report.
fn encoders(report: &str) -> Project {
    let rounded = "quantized \"q{bits}\" { matrix { bits 8 3; }; from \"e\"; method \"rtn\" bits=\"{bits}\" group=32; }\n\
        quantized \"g3\" { from \"e\"; method \"gptq\" bits=3 group=32; calibrate \"d\" rows=12; }\n\
        quantized \"b\" { from \"e\"; method \"int8\"; }\n";
    let model = MODEL.replace("model \"m\"", "model \"e\"").replace("llama", "bert");
    let data = DATA.replace("column \"prompt\"", "caption \"{p}\"; column \"prompt\"");
    let project = Project::new(&format!("{model}\n{data}\n{rounded}{report}\n"));
    let mut wide = Tiny::bert().config;
    for (name, value) in [("hidden_size", 64), ("intermediate_size", 128), ("num_hidden_layers", 2)] {
        wide[name] = value.into();
    }
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    words(&project);
    project
}

#[test]
fn encoders_are_ranked_by_their_vectors() {
    let project = encoders(
        "report \"r\" { compare \"e\" \"q3\" \"g3\" \"q8\" \"b\"; on \"d\" split=\"train\"; metrics \"cosine\" \"speed\"; rounds 7; \
         limit cosine=0.999; limit size=\"1 B\"; seed 7; }",
    );
    project.builds(&["r"]);
    let report = json(&project, "out/r/report.json");
    assert_eq!((&report["of"], &report["encoded"][0]["pictures"]), (&"encoders".into(), &0.into()));
    assert_eq!(report["encoded"][0]["texts"], 16);
    let rows = &report["encoded"][0]["rows"];
    let distance = |i: usize| number(&rows[i]["distance"]["value"]);
    let [three, gptq, eight, bytes] = [1, 2, 3, 4].map(distance);
    assert!(distance(0) == 0.0 && 0.0 < eight && eight < bytes && bytes < gptq && gptq < three, "{rows}");
    assert!(eight < 1e-4 && number(&rows[1]["least"]) < 1.0 - three, "{rows}");
    let found = &report["quantization"];
    assert_eq!(found["order"], serde_json::json!(["e", "q8", "b", "g3", "q3"]));
    assert_eq!((&found["limits"][0]["cosine"], &found["limits"][1]["take"]), (&0.999.into(), &Value::Null));
    let bits = number(&report["subjects"][0]["bits_per_weight"]);
    assert!((32.0..33.0).contains(&bits), "{bits}");
    for subject in report["subjects"].as_array().expect("models") {
        let speed = &subject["speed"];
        assert!(number(&speed["texts_per_s"]) > 0.0 && number(&speed["text_p50_ms"]) > 0.0, "{speed}");
        assert!(speed["pictures_per_s"].is_null() && speed["rounds"] == 7 && speed["batch"] == 16, "{speed}");
    }
    let page = project.read("out/r/report.html");
    assert!(page.contains("least cosine") && page.contains("texts&#x2f;s") && !page.contains("pictures&#x2f;s"));
    assert!(project.read("out/r/report.csv").contains("\nq3,\"d, train\",,same-nearest,"));
    assert!(project.read("out/r/report.md").contains("\n## Vectors: d, train (16 texts)\n"));
    assert!(std::fs::metadata(project.path("out/r/plots/front.png")).expect("there").len() > 1000);
}

#[test]
fn what_encoders_cannot_be_asked_is_one_error() {
    let fails = |target: &str, more: &str, expected: &str| {
        let project = encoders(more);
        let run = project.effai(&["build", target]);
        assert!(run.code != 0 && run.stderr.contains(expected), "no {expected:?} in:\n{}", run.stderr);
    };
    let quantized = |method: &str| format!("quantized \"x\" {{ from \"e\"; method {method}; }}");
    let awq = quantized("\"awq\" bits=4 group=32; calibrate \"d\" rows=2");
    fails("x", &awq, "the method `awq` is of language models, and `e` is a sentence encoder");
    let many = quantized("\"gptq\" bits=4 group=32; calibrate \"d\" rows=17");
    fails("x", &many, "`d` has 16 different captions in its split `train`, and 17 are to be read");
    let report = "report \"r\" { compare \"e\" \"q8\"; on \"d\" split=\"train\" rows=1; metrics \"cosine\"; }";
    fails("r", report, "a whole number from 2");
    let report = "report \"r\" { compare \"e\" \"q8\"; on \"d\" split=\"test\"; metrics \"cosine\"; }";
    fails("r", report, "the dataset d has no split `test`");
}

#[test]
fn the_losses_say_how_often_a_model_is_right_and_agrees() {
    let project = project("metrics \"perplexity\"");
    let asked = "perplexity \"p\" { of \"q4\"; on \"d\"; split \"train\"; against \"m\"; }\nperplexity \"o\" { of \"q4\"; on \"d\"; split \"train\"; }\n";
    project.write("effai.kdl", &format!("{}{asked}", project.read("effai.kdl")));
    project.builds(&["p", "o"]);
    let (against, alone) = (json(&project, "out/p/losses.json"), json(&project, "out/o/losses.json"));
    assert_eq!((&against["losses"], &against["accuracy"]), (&alone["losses"], &alone["accuracy"]));
    assert!(alone["divergence"].is_null() && alone["same_top"].is_null());
    assert_eq!(against["version"], 2);
    let counted = |key: &str| -> Vec<u64> {
        let records = against[key]["records"].as_array().unwrap_or_else(|| panic!("no {key}: {against}")).iter();
        records.map(|record| record[1].as_u64().expect("a number")).collect()
    };
    assert_eq!(counted("accuracy").iter().sum::<u64>(), against["tokens"].as_u64().expect("a number"));
    assert!(counted("accuracy") == counted("same_top") && counted("same_top") == counted("divergence"));
    // Shares of so many tokens.
    for record in against["same_top"]["records"].as_array().expect("records") {
        let whole = number(&record[0]) * number(&record[1]);
        assert!((whole - whole.round()).abs() < 1e-9, "{record}");
    }
}

#[test]
fn accuracy_and_speed_stand_beside_perplexity_and_alone() {
    let both = project("metrics \"accuracy\" \"speed\"");
    both.builds(&["r"]);
    let report = json(&both, "out/r/report.json");
    assert!(report.get("quantization").is_none() && report["texts"][0]["rows"][1].get("divergence").is_none());
    let page = both.read("out/r/report.html");
    assert!(page.contains("accuracy, %") && page.contains("generation, tokens") && !page.contains("nats a token"));
    assert!(both.read("out/r/report.md").contains("## Speed"));
    let alone = project("metrics \"speed\"");
    alone.edit("effai.kdl", "on \"d\" split=\"train\"; ", "");
    alone.builds(&["r"]);
    let report = json(&alone, "out/r/report.json");
    assert!(report.get("texts").is_none() && number(&report["subjects"][3]["speed"]["load_ms"]) > 0.0);
}

#[test]
fn what_is_of_the_other_sort_of_models_is_refused() {
    let fails = |fields: &str| -> String {
        let project = project("metrics \"perplexity\"");
        project.write("effai.kdl", &format!("{}speed \"s\" {{ of \"m\"; {fields} }}\n", project.read("effai.kdl")));
        let run = project.effai(&["build", "s"]);
        assert_ne!(run.code, 0);
        assert!(!project.path("out/s").exists());
        run.stderr
    };
    let said = fails("batch 4");
    assert!(said.contains("`batch` is of encoders, and m is a language model"), "{said}");
    let said = fails("rounds 2");
    assert!(said.contains("`rounds`"), "{said}");
}

#[test]
fn a_prompt_longer_than_the_model_reads_is_cut_and_told() {
    let project = project("metrics \"perplexity\"");
    let speed = "speed \"s\" { of \"m\"; prompt 60; generate 9; }\nspeed \"t\" { of \"m\"; prompt 3; generate 2; }\n";
    project.write("effai.kdl", &format!("{}{speed}", project.read("effai.kdl")));
    let run = project.effai(&["build", "s", "t"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let said = "the model reads 64 tokens at most: measured are 55 of a prompt and 9 more";
    assert_eq!(run.stderr.matches(said).count(), 1, "{}", run.stderr);
    assert_eq!(json(&project, "out/s/speed.json")["prompt"], 55);
    let whole = json(&project, "out/t/speed.json");
    assert_eq!((&whole["prompt"], &whole["generate"]), (&3.into(), &2.into()));
}

#[test]
fn a_limit_that_cannot_be_kept_to_is_shown_in_the_recipe() {
    let check = |fields: &str, expected: &[&str]| refuses(&format!("compare \"m\" \"q\"; {fields}"), expected);
    let on = "on \"d\" split=\"test\"";
    check(
        &format!("{on}; metrics \"perplexity\"; limit kl=0.01"),
        &["`limit` needs the metric `kl`", "add it: metrics \"kl\""],
    );
    check(&format!("{on}; metrics \"kl\"; limit"), &["this `limit` limits nothing", "add size=\"70 MB\" or kl=0.01"]);
    check(
        &format!("{on}; metrics \"kl\"; limit size=\"70 megs\""),
        &["`70 megs` has no unit of K, M, G or T", "such as \"70 MB\""],
    );
    check(&format!("{on}; metrics \"kl\"; limit kl=0.0"), &["a number above 0"]);
    check("metrics \"kl\"; limit kl=0.01", &["`metrics` needs `on`"]);
    check("limit kl=0.01", &["`limit` needs `on`"]);
    check(&format!("{on}; metrics \"speed\""), &["`on` means nothing to the metric `speed`", "leave it out, or add"]);
    let cosine = format!("{on}; metrics \"cosine\"");
    check("metrics \"cosine\"", &["the metric `cosine` needs `on`"]);
    check(&format!("{on}; metrics \"cosine\" \"kl\""), &["`kl` is of language models, and `cosine` of encoders"]);
    check(&format!("{cosine}; ask \"what?\""), &["`ask` is of language models, and the metric `cosine` of encoders"]);
    check(&format!("{on} max-length=9; metrics \"cosine\""), &["`max-length` is of language models: encoders cut"]);
    check(&format!("{cosine}; limit kl=0.1"), &["encoders have no divergence", "cosine=0.999"]);
    check(&format!("{cosine}; limit"), &["add size=\"70 MB\" or cosine=0.999"]);
    check(&format!("{on}; metrics \"kl\"; limit cosine=0.9"), &["language models have no cosine"]);
    check(
        "test \"t\" on=\"d\" split=\"test\"; limit kl=0.01",
        &["`limit` is of language models and encoders, and `test` of"],
    );
    let project = Project::new(&format!("report \"r\" {{ compare \"m\"; {on}; metrics \"kl\"; }}\n"));
    let said = project.effai(&["check"]).stderr;
    assert!(said.contains("the metric `kl` holds models against the first, and there is no other"), "{said}");
}
