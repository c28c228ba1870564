//! Generated graphs in every format, by what runs its files in this process: `examples/graphs`, which
//! tests/reference/graphs holds by the programs of others.

#[path = "../../examples/graphs/case.rs"]
mod case;
#[path = "../../examples/graphs/program.rs"]
mod program;

use std::collections::BTreeMap;

use case::Drawn;
use effai::export::coreml::Target;
use effai::export::format::{Format, Precision, write};
use program::network;

const GRAPHS: u64 = 150;
/// And so many that see pictures alone.
const NETWORKS: u64 = 24;
const FORMATS: [Format; 4] =
    [Format::Onnx { opset: 13 }, Format::Onnx { opset: 21 }, Format::CoreMl { target: Target::IOS18 }, Format::TfLite];

#[test]
fn every_format_computes_what_a_generated_program_does_or_refuses_its_graph() {
    let mut equal: BTreeMap<&str, u64> = BTreeMap::new();
    let mut calibrated = 0;
    for seed in (0..GRAPHS).chain(network::FIRST..network::FIRST + NETWORKS) {
        let drawn = case::draw(seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let case = match drawn {
            Drawn::Case(case) => case,
            Drawn::Refused(why) => {
                assert!(why.contains('`'), "seed {seed}: {why} names nothing");
                continue;
            }
            Drawn::Sensitive => continue,
        };
        // Weights of fewer bits now and then.
        let fewer = match seed % 4 {
            _ if case.plan.is_network() => Some(Precision::Int8Calibrated),
            0 => Some(Precision::Int8Weights),
            1 => Some(Precision::Int8Calibrated),
            _ => None,
        };
        let each = FORMATS.into_iter().flat_map(|format| [Some(Precision::F32), fewer].map(|own| (format, own)));
        for (format, precision) in each.filter_map(|(format, own)| Some((format, own?))) {
            if !format.precisions().contains(&precision) {
                continue;
            }
            let made = case.options(format, precision).and_then(|options| write(&case.graph, &options));
            let written = match made {
                Ok(written) => written,
                Err(failure) => {
                    let names_operator = failure.message.contains(" has no operator for `");
                    assert!(names_operator, "seed {seed}, {}: {failure}", format.title());
                    continue;
                }
            };
            let found = case.held(&written, format, seed % 2 == 0);
            let told = |what: String| format!("seed {seed}, {}: {what}\n{}", format.title(), case.graph);
            let found = found.unwrap_or_else(|e| panic!("{}", told(e.to_string())));
            let own = case.precision(precision);
            let allowed = case.allowed(own).expect("computed");
            assert!(found <= allowed, "{}", told(format!("off by {found:.1e} in {}", own.name())));
            *equal.entry(format.name()).or_default() += 1;
            calibrated += u64::from(own == Precision::Int8Calibrated);
        }
    }
    // Most are written; what is not was refused.
    assert!(calibrated > NETWORKS / 2, "{calibrated}");
    assert!(equal["onnx"] > GRAPHS && equal["coreml"] > GRAPHS / 2 && equal["tflite"] > GRAPHS / 2, "{equal:?}");
}
