//! The files of a report, by name.

use rayon::prelude::*;

use crate::failure::Failure;
use crate::report::figures::Figure;
use crate::report::numbers::{Numbers, Of};
use crate::report::retrieval::page::Examples;
use crate::report::{card, page, plot, tables};

/// A file's path within the report, and its bytes.
pub type File = (String, Vec<u8>);

/// All of them: the numbers for programs and for people, the page, and each plot as SVG and PNG.
pub fn all(numbers: &Numbers, plots: &[Figure], examples: &Examples) -> Result<Vec<File>, Failure> {
    let json = serde_json::to_string_pretty(numbers).expect("plain data");
    let mut files: Vec<File> = vec![
        ("report.json".into(), json.into_bytes()),
        ("report.csv".into(), tables::csv(numbers).into_bytes()),
        ("report.md".into(), tables::markdown(numbers).into_bytes()),
        ("report.html".into(), page::html(numbers, plots, examples)?.into_bytes()),
    ];
    // Of programs there is no model whose card it could be.
    if numbers.of != Of::Timing {
        files.push(("card.md".into(), card::markdown(numbers).into_bytes()));
    }
    // To draw takes longer than all else.
    let drawn = plots.par_iter().map(|(name, svg)| Ok((format!("plots/{name}.png"), plot::png(svg)?)));
    files.extend(drawn.collect::<Result<Vec<File>, Failure>>()?);
    files.extend(plots.iter().map(|(name, svg)| (format!("plots/{name}.svg"), svg.clone().into_bytes())));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::measure::estimate::{Difference, Estimate};
    use crate::report::encoders::{self, Encoded};
    use crate::report::figures::{self, Training};
    use crate::report::language::{self, Answer, Answers, Example, Texts};
    use crate::report::numbers::{COSINE, PERPLEXITY, SPEED, Subject, VERSION, VERSION_OF_TOLD};
    use crate::report::quantization::{self, Limit, Quantization};
    use crate::report::retrieval::page::{Picture, Query};
    use crate::report::retrieval::{self, Class, Metrics, Test, ZeroShot, ZeroShotRow};
    use crate::report::told::{self, Better, Told};
    use crate::report::words::headline;
    use crate::report::{predictions, timing};

    /// Where the samples' files are left for tests/reference/pages, which looks at them.
    fn pages() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages")
    }

    /// What `report.json` is to be.
    fn schema() -> Value {
        serde_json::from_str(include_str!("../../docs/report.schema.json")).expect("JSON")
    }

    /// What of a value is not as a schema says: as much of JSON Schema as ours uses, and nothing else may stand in it.
    fn wrong(value: &Value, schema: &Value, path: &str, root: &Value) -> Vec<String> {
        let mut all = Vec::new();
        for (word, said) in schema.as_object().expect("an object") {
            let fits = match word.as_str() {
                "$schema" | "$defs" | "title" | "description" | "required" | "additionalProperties" => true,
                "$ref" => {
                    let found = root.pointer(&said.as_str().expect("a text")[1..]).expect("a definition");
                    all.extend(wrong(value, found, path, root));
                    true
                }
                "type" => match said.as_str().expect("a text") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                },
                "enum" => said.as_array().expect("a list").contains(value),
                "minimum" => value.as_f64().is_none_or(|v| v >= said.as_f64().expect("a number")),
                "minItems" => value.as_array().is_none_or(|v| v.len() as u64 >= said.as_u64().expect("a number")),
                "maxItems" => value.as_array().is_none_or(|v| v.len() as u64 <= said.as_u64().expect("a number")),
                "anyOf" => said.as_array().expect("a list").iter().any(|one| wrong(value, one, path, root).is_empty()),
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        all.extend(wrong(item, said, &format!("{path}/{i}"), root));
                    }
                    true
                }
                "prefixItems" => {
                    let items = value.as_array().into_iter().flatten();
                    for (i, (item, one)) in items.zip(said.as_array().expect("a list")).enumerate() {
                        all.extend(wrong(item, one, &format!("{path}/{i}"), root));
                    }
                    true
                }
                "properties" => true,
                other => panic!("the schema says `{other}`, which this does not know"),
            };
            if !fits {
                all.push(format!("{path}: {value} is not {word} {said}"));
            }
        }
        let Some(fields) = value.as_object() else { return all };
        for (name, field) in fields {
            match (schema.get("properties").and_then(|p| p.get(name)), schema.get("additionalProperties")) {
                (Some(of), _) => all.extend(wrong(field, of, &format!("{path}/{name}"), root)),
                (None, Some(Value::Bool(false))) => all.push(format!("{path}: `{name}` is not in the schema")),
                (None, Some(of @ Value::Object(_))) => all.extend(wrong(field, of, &format!("{path}/{name}"), root)),
                (None, _) => {}
            }
        }
        let missing = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing = missing.filter(|name| !fields.contains_key(name.as_str().unwrap_or_default()));
        all.extend(missing.map(|name| format!("{path}: {name} is missing")));
        all
    }

    /// Writes a report as `report` does, beside the others, and holds its numbers against the schema.
    fn write(name: &str, mut numbers: Numbers, training: &[Training], examples: &Examples) -> Vec<File> {
        numbers.headline = headline(&numbers);
        let begin = Instant::now();
        let plots = figures::all(&numbers, training);
        let files = all(&numbers, &plots, examples).unwrap();
        for (file, bytes) in &files {
            crate::util::fs::write(&pages().join(name).join(file), bytes).unwrap();
        }
        // Not held to anything here, where it is not optimised: tests/reference/pages prints it.
        let took = json!({ "ms": begin.elapsed().as_millis() as u64, "optimised": !cfg!(debug_assertions) });
        crate::util::fs::write(&pages().join(name).join("took.json"), took.to_string().as_bytes()).unwrap();
        let json: Value = serde_json::from_slice(&files[0].1).unwrap();
        assert_eq!(wrong(&json, &schema(), "", &schema()), Vec::<String>::new(), "{name}");
        files
    }

    fn curves(n: u32) -> Vec<(f64, f64)> {
        (0..n).map(|i| (f64::from(i), 5.0 / f64::from(i + 1) + 0.1 * f64::from(i * i % 7))).collect()
    }

    fn trained(subject: usize) -> Training {
        let rate = (0..50).map(|i| (f64::from(i), 1e-4 * (1.0 - f64::from(i) / 50.0))).collect();
        Training { subject, train: curves(100), validation: vec![(50.0, 2.0), (99.0, 1.5)], rate }
    }

    /// A picture of one colour.
    fn pixel() -> String {
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==".into()
    }

    fn examples(models: usize, pictures: usize) -> Examples {
        let query = |model: usize, q: usize| Query {
            caption: ["a small cat that sleeps", "a red car", "two <people>"][q % 3].into(),
            rank: 1 + (q + model) % 7,
            found: (0..5).map(|i| ((q * 5 + i + model) % pictures, i == (q + model) % 6)).collect(),
        };
        let picture = |i: usize| Picture { caption: format!("picture {i}"), mime: "image/png", data: pixel() };
        Examples {
            test: "unseen".into(),
            n: 1000,
            pictures: (0..pictures).map(picture).collect(),
            models: (0..models).map(|model| (0..8).map(|q| query(model, q)).collect()).collect(),
        }
    }

    #[test]
    fn every_sort_of_report_has_its_files() {
        let similarity = |figures: &mut Vec<Figure>| {
            let captions: Vec<String> = (0..24).map(|i| format!("caption {i} of a picture")).collect();
            let values: Vec<f32> = (0..576).map(|i| 0.3 - 0.02 * ((i / 24) as f32 - (i % 24) as f32).abs()).collect();
            figures.push(retrieval::figures::similarity("a", 0, "unseen", &captions, &values));
        };
        let mut plots = Vec::new();
        similarity(&mut plots);
        let numbers = retrieval::tests::sample();
        let page = page::html(&numbers, &plots, &examples(3, 9)).unwrap();
        assert!(page.contains("Similarity of captions and pictures: a"));
        let names = |files: &[File]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let files = write("retrieval", numbers, &[trained(1)], &examples(3, 9));
        let expected = ["report.json", "report.csv", "report.md", "report.html", "card.md", "plots/recall.png"];
        assert_eq!(names(&files)[..6], expected);
        crate::util::fs::write(&pages().join("similarity/report.html"), page.as_bytes()).unwrap();
        write("language", language::tests::sample(), &[trained(1)], &Examples::default());
        write("quantization", quantization::tests::sample(), &[], &Examples::default());
        write("encoders", encoders::tests::sample(), &[], &Examples::default());
        write("told", told::tests::sample(), &[], &Examples::default());
        write("timing", timing::tests::sample(1.5, &[]), &[], &Examples::default());
        let busy = ["other programs kept 1.4 cores busy"];
        write("timing-models", timing::tests::models(), &[], &Examples::default());
        write("timing-busy", timing::tests::sample(1.5, &busy), &[], &Examples::default());
        write("predictions", predictions::tests::sample(), &[], &Examples::default());
        write("matrix", of_a_matrix(), &[], &Examples::default());
        write("speed", language::tests::with_hardware(), &[], &Examples::default());
    }

    /// Models by four axes of a matrix, one of which is missing, and one that no matrix made.
    fn of_a_matrix() -> Numbers {
        let mut labels = vec!["models/base".to_owned()];
        for (method, group) in [("rtn", 32), ("rtn", 64), ("gptq", 32), ("gptq", 64), ("awq", 32), ("awq", 64)] {
            for (size, bits) in [("small", 2), ("small", 4), ("small", 8), ("large", 2), ("large", 4), ("large", 8)] {
                labels.push(format!("models/{size}-{method}{bits}-g{group}"));
            }
        }
        labels.pop();
        let scored = |metric: &str, is_error, value: &dyn Fn(usize) -> f64| predictions::Scored {
            metric: metric.into(),
            is_error,
            is_share: !is_error,
            rows: labels
                .iter()
                .enumerate()
                .map(|(i, subject)| predictions::Row {
                    subject: subject.clone(),
                    estimate: Some(around(value(i))),
                    difference: apart(i),
                })
                .collect(),
        };
        // As errors of roundings are: far apart.
        let loss = |i: usize| 10f64.powi(3 - (i % 3) as i32) * (1.0 + drawn(i));
        let metrics = vec![scored("accuracy", false, &|i| 0.4 + 0.5 * drawn(i)), scored("log-loss", true, &loss)];
        let over = ["models/{size}-{method:rtn|gptq|awq}{bits}-g{group}".to_owned()];
        Numbers {
            version: crate::report::numbers::VERSION_OF_PREDICTIONS,
            of: crate::report::numbers::Of::Predictions,
            label: "reports/matrix".into(),
            subjects: crate::report::numbers::short_names(&labels)
                .into_iter()
                .zip(&labels)
                .map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() })
                .collect(),
            predicted: Some(predictions::Predicted {
                file: "predictions.csv".into(),
                items: 500,
                classes: Vec::new(),
                metrics,
                by_class: Vec::new(),
                calibration: Vec::new(),
            }),
            over: Some(crate::report::over::Over::of(&over, &labels).unwrap()),
            ..Numbers::default()
        }
    }

    #[test]
    fn the_schema_says_what_is_wrong() {
        let numbers = told::tests::sample();
        let check = |change: &dyn Fn(&mut Value), expected: &str| {
            let mut json = serde_json::to_value(&numbers).unwrap();
            change(&mut json);
            let found = wrong(&json, &schema(), "", &schema());
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        };
        check(&|json| json["version"] = json!(4), "/version: 4 is not enum");
        check(&|json| json["of"] = json!("things"), "/of: \"things\" is not enum");
        check(&|json| json["seed"] = json!(1.5), "/seed: 1.5 is not type");
        check(&|json| json["subjects"][1]["nickname"] = json!("m"), "/subjects/1: `nickname` is not in the schema");
        check(&|json| json["told"][0]["rows"][2]["value"] = json!("high"), "/told/0/rows/2/value");
        check(
            &|json| json["told"][1]["rows"][0]["curve"][3] = json!([3]),
            "/told/1/rows/0/curve/3: [3] is not minItems 2",
        );
        check(&|json| drop(json.as_object_mut().unwrap().remove("left_out")), ": \"left_out\" is missing");
    }

    /// Models, and what of each is known.
    const MANY: usize = 200;
    /// Records, queries, texts or steps.
    const RECORDS: usize = 1000;

    fn labels() -> Vec<String> {
        (0..MANY).map(|i| format!("models/sweep-{i:03}-rank-{}", 1 << (i % 7))).collect()
    }

    /// Something between 0 and 1 that is another for each.
    fn drawn(i: usize) -> f64 {
        (i * 7919 % 1009) as f64 / 1009.0
    }

    fn around(value: f64) -> Estimate {
        Estimate { value, low: 0.95 * value, high: 1.04 * value }
    }

    fn apart(i: usize) -> Option<Difference> {
        let mean = Estimate { value: drawn(i) - 0.5, low: drawn(i) - 0.6, high: drawn(i) - 0.4 };
        (i > 0).then(|| Difference::of(mean))
    }

    fn subjects() -> Vec<Subject> {
        let subject = |(i, label): (usize, String)| Subject {
            name: label.rsplit('/').next().unwrap().to_owned(),
            label,
            bytes: 10_000_000 + (1e8 * drawn(i * 3)) as u64,
            bits_per_weight: Some(2.0 + 14.0 * drawn(i * 3)),
            speed: json!({
                "pictures_per_s": 900.0 * drawn(i), "texts_per_s": 500.0 * drawn(i), "text_p50_ms": 2.0 + drawn(i), "load_ms": 10.0,
                "peak_bytes": 2e8, "rounds": 30, "batch": 16, "machine": "a machine",
            }),
            ..Subject::default()
        };
        labels().into_iter().enumerate().map(subject).collect()
    }

    fn many_pictures() -> Numbers {
        let metrics = |i: usize| -> Metrics {
            ["recall@1", "recall@5", "recall@10", "median-rank"].map(|name| (name, around(0.2 + 0.6 * drawn(i)))).into()
        };
        let row = |(i, subject): (usize, String)| retrieval::Row {
            subject,
            t2i: metrics(i),
            i2t: metrics(i + 1),
            difference: apart(i).map(|d| [("recall@1", d), ("recall@10", d)].into()),
        };
        let test = Test {
            name: "unseen".into(),
            n: RECORDS,
            chance: 0.01,
            rows: labels().into_iter().enumerate().map(row).collect(),
            ranks: (0..MANY).map(|model| (0..RECORDS).map(|q| 1 + (q * 31 + model * q % 7) % 23).collect()).collect(),
        };
        let classes: Vec<Class> = (0..40).map(|i| Class { name: format!("class {i}"), n: 25 }).collect();
        let zero = |(i, subject): (usize, String)| ZeroShotRow {
            subject,
            accuracy: around(drawn(i)),
            classes: classes.iter().enumerate().map(|(c, class)| (class.name.clone(), drawn(i + c))).collect(),
            difference: apart(i),
            named: (0..1600).map(|at| if at / 40 == at % 40 { 20 } else { u32::from(at % 9 == 0) }).collect(),
        };
        let rows = labels().into_iter().enumerate().map(zero).collect();
        let (column, prompts) = ("category".into(), vec!["{}".into()]);
        Numbers {
            version: VERSION,
            label: "reports/many".into(),
            machine: "a machine".into(),
            subjects: subjects(),
            tests: vec![test],
            zero_shot: vec![ZeroShot { column, n: RECORDS, chance: 0.025, majority: 0.025, classes, prompts, rows }],
            ..Numbers::default()
        }
    }

    fn many_languages() -> Numbers {
        let row = |(i, subject): (usize, String)| language::Row {
            subject,
            perplexity: around(10.0 + 5.0 * drawn(i)),
            loss: around((10.0 + 5.0 * drawn(i)).ln()),
            difference: apart(i),
            ratio: (i > 0).then(|| around(0.5 + drawn(i))),
            better: (i > 0).then_some(500),
            accuracy: None,
            divergence: None,
            same_top: None,
        };
        let example = |i: usize| Example {
            prompt: format!("What is {i}?"),
            completion: "A number, of which there are many.".into(),
            tokens: 9,
            losses: (0..MANY).map(|model| 2.0 + drawn(model + i)).collect(),
        };
        let answer = |i: usize| Answer { text: format!("It is the number after {i}."), cut: i.is_multiple_of(2) };
        let ask = |prompt: &str| Answers { prompt: prompt.into(), answers: (0..MANY).map(answer).collect() };
        Numbers {
            version: VERSION,
            of: Of::Language,
            label: "reports/many".into(),
            metrics: vec![PERPLEXITY.into()],
            subjects: subjects(),
            texts: vec![Texts {
                on: "data/words".into(),
                split: "test".into(),
                records: RECORDS,
                tokens: 20 * RECORDS,
                cut: 0,
                rows: labels().into_iter().enumerate().map(row).collect(),
                examples: (0..16).map(example).collect(),
                losses: (0..MANY).map(|model| (0..RECORDS).map(|i| 2.0 + drawn(i * 31 + model)).collect()).collect(),
            }],
            answers: vec![ask("What comes next?"), ask("And then?")],
            ..Numbers::default()
        }
    }

    fn many_encoders() -> Numbers {
        let distance = |i: usize| if i == 0 { 0.0 } else { 0.3 * drawn(i).powi(3) + 1e-5 };
        let row = |(i, subject): (usize, String)| encoders::Row {
            subject,
            distance: around(distance(i)),
            least: 1.0 - 2.0 * distance(i),
            same_nearest: around(0.9 - distance(i)),
        };
        let rows: Vec<encoders::Row> = labels().into_iter().enumerate().map(row).collect();
        let limits = [Limit { bytes: Some(50_000_000), cosine: Some(0.99), ..Limit::default() }];
        let subjects = subjects();
        Numbers {
            version: VERSION,
            of: Of::Encoders,
            label: "reports/many".into(),
            metrics: vec![COSINE.into(), SPEED.into()],
            machine: "a machine".into(),
            quantization: Quantization::of(&subjects, rows.iter().map(|row| Some(row.distance)), &limits),
            subjects,
            encoded: vec![Encoded { on: "data/words".into(), split: "test".into(), texts: RECORDS, pictures: 0, rows }],
            ..Numbers::default()
        }
    }

    fn many_told() -> Numbers {
        let told = |name: &str, better, has_curve: bool| Told {
            name: name.into(),
            better: Some(better),
            rows: labels()
                .into_iter()
                .enumerate()
                .map(|(i, subject)| told::Row {
                    subject,
                    value: (i % 9 != 4).then(|| drawn(i)),
                    curve: (0..RECORDS as u64)
                        .map(|step| (step, drawn(i) + 1.0 / (step + 1) as f64))
                        .filter(|_| has_curve)
                        .collect(),
                })
                .collect(),
        };
        let subject = |subject: Subject| Subject { label: subject.label, name: subject.name, ..Subject::default() };
        Numbers {
            version: VERSION_OF_TOLD,
            of: Of::Told,
            label: "reports/many".into(),
            subjects: subjects().into_iter().map(subject).collect(),
            fronts: vec![told::Front::of(
                &told("seconds", Better::Lower, false),
                &told("train.loss", Better::Lower, true),
            )],
            told: vec![
                told("accuracy", Better::Higher, false),
                told("train.loss", Better::Lower, true),
                told("seconds", Better::Lower, false),
            ],
            ..Numbers::default()
        }
    }

    #[test]
    fn a_report_of_many_models_stays_small_and_says_whom_it_shows() {
        let training: Vec<Training> = (0..MANY).map(trained).collect();
        let sorts = [
            ("many-retrieval", many_pictures(), examples(MANY, 400)),
            ("many-language", many_languages(), Examples::default()),
            ("many-encoders", many_encoders(), Examples::default()),
            ("many-told", many_told(), Examples::default()),
        ];
        for (name, numbers, examples) in sorts {
            let training = if numbers.of == Of::Told { &[][..] } else { &training };
            let files = write(name, numbers, training, &examples);
            let html = files.iter().find(|(file, _)| file == "report.html").map(|(_, bytes)| bytes).unwrap();
            assert!(html.len() < 1_500_000, "{name}: {} bytes", html.len());
            let page = std::str::from_utf8(html).unwrap();
            // What a comment on a pull request may be.
            let md = files.iter().find(|(file, _)| file == "report.md").map_or(0, |(_, bytes)| bytes.len());
            assert!(md < 65_536 / 2, "{name}: {md}");
            // A sentence for each would be no headline.
            assert!(page.matches("<li>").count() < 9 && !page.contains("more sentences"), "{name}");
            assert!(page.contains("best of 200") || name == "many-encoders", "{name}");
            // Each is in a table, whatever the plots have room for.
            assert!((0..MANY).all(|i| page.contains(&format!("</svg>sweep-{i:03}-rank"))), "{name}");
            let has_ranking = files.iter().any(|(file, _)| file == "plots/ranking.svg");
            assert_eq!(has_ranking, name != "many-encoders", "{name}");
            for (file, bytes) in files.iter().filter(|(file, _)| file.ends_with(".svg")) {
                assert!(bytes.len() < 700_000, "{name} {file}: {} bytes", bytes.len());
            }
        }
    }
}
