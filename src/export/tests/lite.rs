use std::sync::Arc;

use super::super::source::Pixels;
use super::*;
use crate::backend::int8::{Bytes, Int8};
use crate::backend::qmatrix::QMatrix;

/// Of the format's own layout of pictures.
pub(super) fn of(config: &Value, part: Part) -> Source {
    Source::new(&mut checkpoint(config), part, Format::TfLite.layout()).expect("a model")
}

fn options_of(precision: Precision) -> Options {
    Options { format: Format::TfLite, precision, ..options(21) }
}

pub(super) fn check(source: &Source, graph: &Graph, precision: Precision) -> Result<Difference, Failure> {
    let written = write(graph, &options_of(precision))?;
    held(source, graph, &written, Allowed::of(precision))
}

#[test]
fn every_architecture_computes_the_same_as_tensorflow_lite() {
    for (config, part) in all() {
        let source = of(&config, part);
        let graph = source.graph().expect("traces");
        let found = check(&source, &graph, Precision::F32);
        let found = found.unwrap_or_else(|e| panic!("{} {part:?}: {e}\n{graph}", config["model_type"]));
        let is_same = found.relative < 1e-5 && found.cosine > 0.999_999;
        assert!(is_same, "{} {part:?}: {found:?}", config["model_type"]);
    }
}

#[test]
fn fewer_bits_are_near_what_they_were_rounded_from_in_tensorflow_lite() {
    for (config, part) in all() {
        let source = of(&config, part);
        let graph = source.graph().expect("traces");
        let whole = write(&graph, &options_of(Precision::F32)).expect("writes").bytes();
        for (precision, relative) in
            [(Precision::F16Weights, 2e-3), (Precision::Int8, 0.1), (Precision::Int8Weights, 5e-2)]
        {
            let found = check(&source, &graph, precision);
            let found = found.unwrap_or_else(|e| panic!("{} {part:?}: {e}", config["model_type"]));
            assert!(found.relative > 1e-7 && found.relative < relative, "{precision:?} {part:?}: {found:?}");
            assert!(found.cosine > 0.999, "{precision:?} {part:?}: {found:?}");
            let bytes = write(&graph, &options_of(precision)).expect("writes").bytes();
            assert!(bytes < whole, "{precision:?} {part:?}: {bytes} of {whole}");
        }
    }
}

#[test]
fn a_network_for_pictures_is_convolutions_in_tensorflow_lite() {
    let graph = of(&seeing(), Part::Picture).graph().expect("traces");
    let written = write(&graph, &options_of(Precision::F32)).expect("writes");
    let has = |op: &str| written.files[0].1.windows(op.len()).any(|bytes| bytes == op.as_bytes());
    // Its steps and bounds are the convolutions' own.
    assert!(has("/conv") && has("/depthwise-conv"), "{graph}");
    for other in ["/transpose", "/pad", "/relu6", "/fully-connected", "/minimum"] {
        assert!(!has(other), "{other}");
    }
}

#[test]
fn tensorflow_lite_has_codes_as_they_are_stored() {
    for (mut config, part) in [(reading(), Part::Text), (speaking(), Part::Language)] {
        (config["hidden_size"], config["intermediate_size"]) = (32.into(), 64.into());
        for bits in [4, 8] {
            let source = in_codes(&config, part, bits);
            let graph = source.graph().expect("traces");
            let found = check(&source, &graph, Precision::Stored).expect("equal");
            assert!(found.relative < 1e-5, "{bits} bits: {found:?}");
        }
    }
}

#[test]
fn what_tensorflow_lite_has_no_kernel_for_is_refused_by_name() {
    let source = of(&reading(), Part::Text);
    let mut graph = source.graph().expect("traces");
    let value = graph.values.iter_mut().find(|value| matches!(value.op, Op::Linear)).expect("a product");
    let name = value.name.clone();
    value.inputs.truncate(1);
    value.op = Op::LinearQuantized(Arc::new(QMatrix::from(Bytes::new(Int8::round(&[0.5; 32 * 32], 32).0))));
    let error = write(&graph, &options_of(Precision::Stored)).expect_err("refused");
    let begins = format!("TensorFlow Lite has no operator for `linear-quantized` of `{name}`: ");
    assert!(error.message.starts_with(&begins), "{}", error.message);
}

/// In bytes from end to end, by what is seen of a few pictures.
fn calibrated(source: &Source) -> Result<(Graph, Written), Failure> {
    let graph = source.graph().expect("traces");
    let given: Vec<_> = verify::drawn(source, 8, 11).iter().map(|given| vec![source.seen(given)]).collect();
    let ranges = tflite::ranges(&graph, &options_of(Precision::F32), &given).expect("runs");
    let written = write(&graph, &Options { ranges, ..options_of(Precision::Int8Calibrated) })?;
    Ok((graph, written))
}

#[test]
fn what_is_computed_in_bytes_is_near_what_was_seen() {
    for pixels in [Pixels::Prepared, Pixels::Uint8] {
        let source = of(&seeing(), Part::Picture).with_pixels(pixels).expect("it sees");
        let (graph, written) = calibrated(&source).expect("writes");
        let found = held(&source, &graph, &written, Allowed { relative: 0.1, cosine: 0.99 });
        let found = found.unwrap_or_else(|e| panic!("{pixels:?}: {e}\n{graph}"));
        assert!(found.relative > 1e-3, "{pixels:?}: {found:?}");
        assert!(has(&written, "/quantize") && !has(&written, "/sum"), "{pixels:?}");
        // Nothing of what there was in floats is left.
        assert!(!has(&written, ".scaled"), "{pixels:?}");
        assert_eq!(written.files, calibrated(&source).expect("writes").1.files);
    }
}

#[test]
fn what_has_no_kernel_for_bytes_is_refused_by_name() {
    let error = calibrated(&of(&both(), Part::Picture)).map(drop).expect_err("refused");
    assert!(error.message.starts_with("TensorFlow Lite has no operator for `"), "{}", error.message);
    assert!(error.help.is_some_and(|help| help.contains("precision \"int8\"")), "{}", error.message);
    let source = of(&seeing(), Part::Picture);
    let error = write(&source.graph().expect("traces"), &options_of(Precision::Int8Calibrated)).expect_err("refused");
    assert!(error.message.contains("was not computed where the ranges of values were looked for"), "{}", error.message);
}

#[test]
fn damaged_bytes_are_no_model() {
    let source = of(&seeing(), Part::Picture);
    let graph = source.graph().expect("traces");
    let mut written = write(&graph, &options_of(Precision::F32)).expect("writes");
    let whole = written.files[0].1.clone();
    // The head of the file, where all but weights is.
    for at in (0..whole.len().min(4096)).step_by(7) {
        written.files[0].1.clone_from(&whole);
        written.files[0].1[at] ^= 0x55;
        // Whatever it says: it does not panic.
        let _ = open(&written, Format::TfLite, false);
    }
    written.files[0].1 = whole[..whole.len() / 2].to_vec();
    let error = open(&written, Format::TfLite, false).err().expect("cut off");
    assert!(error.message.ends_with("its bytes are no model"), "{}", error.message);
}

#[test]
fn equal_models_give_equal_bytes_of_tensorflow_lite() {
    for precision in Format::TfLite.precisions().iter().filter(|own| **own != Precision::Int8Calibrated) {
        let made = || {
            let graph = of(&both(), Part::Text).graph().expect("traces");
            write(&graph, &options_of(*precision)).expect("writes").files
        };
        assert_eq!(made(), made());
    }
}
