use super::super::graph::Element;
use super::super::source::Pixels;
use super::*;

/// Pictures of bytes go in; of Core ML one at a time.
fn of_bytes(config: &Value, format: Format) -> Source {
    let source = Source::new(&mut checkpoint(config), Part::Picture, format.layout()).expect("a model");
    let source = source.with_pixels(Pixels::Uint8).expect("it sees pictures");
    match format {
        Format::CoreMl { .. } => source.fixed(&[("batch", 1)]).expect("its sizes"),
        _ => source,
    }
}

const FORMATS: [Format; 4] = [
    Format::Onnx { opset: onnx::OLDEST },
    Format::Onnx { opset: 21 },
    Format::CoreMl { target: Target::IOS15 },
    Format::TfLite,
];

#[test]
fn every_format_makes_of_bytes_what_the_model_sees() {
    for config in [seeing(), dual(), both()] {
        for format in FORMATS {
            let source = of_bytes(&config, format);
            let graph = source.graph().expect("traces");
            let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
            let found = held(&source, &graph, &written, Allowed::of(Precision::F32));
            let found = found.unwrap_or_else(|e| panic!("{} {format:?}: {e}\n{graph}", config["model_type"]));
            assert!(found.relative < 1e-5 && found.cosine > 0.999_999, "{format:?}: {found:?}");
        }
    }
}

/// Of one size, which is not the model's: the file brings them to it.
fn of_size(config: &Value, format: Format, given: [usize; 2]) -> Source {
    of_bytes(config, format).with_height_and_width(given).expect("it sees pictures")
}

#[test]
fn pictures_of_another_size_become_the_models_in_the_file() {
    // One is laid on a square, one cut: `Fit::Pad` and `Fit::Crop`.
    for config in [seeing(), both()] {
        for (format, precision) in FORMATS.map(|format| (format, Precision::F32)).into_iter().chain([
            (Format::CoreMl { target: Target::IOS15 }, Precision::F16),
            (Format::CoreMl { target: Target::IOS16 }, Precision::Int8Weights),
            (Format::Onnx { opset: 21 }, Precision::Int8),
            (Format::TfLite, Precision::F16Weights),
            (Format::TfLite, Precision::Int8),
        ]) {
            for given in [[48, 80], [70, 30]] {
                let source = of_size(&config, format, given);
                let graph = source.graph().expect("traces");
                let options = Options { format, precision, ..options(21) };
                let written = write(&graph, &options).expect("writes");
                let allowed = match precision {
                    Precision::F32 => Allowed::of(precision),
                    _ => Allowed { relative: 0.1, cosine: 0.98 },
                };
                let found = held(&source, &graph, &written, allowed);
                found.unwrap_or_else(|e| panic!("{} {format:?} {precision:?} {given:?}: {e}", config["model_type"]));
                assert_eq!(written.files, write(&graph, &options).expect("writes").files);
            }
        }
    }
}

#[test]
fn pictures_that_are_cut_elsewhere_are_caught() {
    for format in FORMATS {
        let source = of_size(&both(), format, [48, 80]);
        let mut graph = source.graph().expect("traces");
        let [_, width] = graph.resize.as_mut().expect("they become smaller");
        // Two pixels further right.
        width.weights.rotate_right(2);
        let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
        let error = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect_err("caught").message;
        assert!(error.contains("they part at `input`"), "{format:?}: {error}");
    }
}

#[test]
fn pictures_of_the_models_size_are_not_touched() {
    let source = of_size(&seeing(), FORMATS[1], [of_bytes(&seeing(), FORMATS[1]).height_and_width()[0]; 2]);
    assert!(!source.has_passes() && source.graph().expect("traces").resize.is_none());
}

#[test]
fn bytes_are_prepared_in_thirty_two_bits_whatever_is_computed_in() {
    let formats = [
        (Format::Onnx { opset: 21 }, Precision::F16Weights, 1e-2),
        (Format::CoreMl { target: Target::IOS15 }, Precision::F16, 1e-2),
        (Format::TfLite, Precision::F16Weights, 1e-2),
    ];
    for (format, precision, relative) in formats {
        let source = of_bytes(&both(), format);
        let graph = source.graph().expect("traces");
        let options = Options { format, precision, ..options(21) };
        let twin = super::super::format::twin(&graph, &options).expect("writes");
        let written = twin.map_or_else(|| write(&graph, &options).expect("writes"), |(twin, _)| twin);
        let found = held(&source, &graph, &written, Allowed { relative, cosine: 0.999 });
        let found = found.unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert!(found.relative > 1e-6, "{format:?}: {found:?}");
    }
}

#[test]
fn bytes_lie_in_the_file_without_a_transposition() {
    for (format, cast, transposed) in [
        (FORMATS[1], "Cast", "Transpose"),
        (FORMATS[2], "pixel_values_scale", "transpose"),
        (FORMATS[3], "/cast", "/transpose"),
    ] {
        let graph = of_bytes(&seeing(), format).graph().expect("traces");
        let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
        assert!(has(&written, cast) && !has(&written, transposed), "{format:?}\n{graph}");
    }
}

#[test]
fn bytes_that_are_scaled_otherwise_are_caught_and_named() {
    for format in FORMATS {
        let source = of_bytes(&seeing(), format);
        let mut graph = source.graph().expect("traces");
        let Element::Bytes(colours) = &mut graph.inputs[0].element else { panic!("bytes") };
        // Red and blue in the other order.
        colours.shift.swap(0, 2);
        let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
        let error = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect_err("caught").message;
        assert!(error.contains("they part at `input`"), "{format:?}: {error}");
    }
}

#[test]
fn texts_have_no_pixels() {
    let source = Source::new(&mut checkpoint(&both()), Part::Text, Layout::ChannelsFirst).expect("a model");
    let error = source.with_pixels(Pixels::Uint8).err().expect("refused");
    assert_eq!(error.message, "`pixels` is for what sees pictures, and this part reads texts");
}

/// Pairs around what computes in integers, by what is seen of a few pictures; what has no such kernel stays in floats.
#[test]
fn onnx_is_in_bytes_by_what_was_seen_and_near_the_model() {
    for (config, pixels, opset) in
        [(seeing(), Pixels::Prepared, 21), (seeing(), Pixels::Uint8, onnx::OLDEST), (both(), Pixels::Prepared, 21)]
    {
        let format = Format::Onnx { opset };
        let source = Source::new(&mut checkpoint(&config), Part::Picture, format.layout()).expect("a model");
        let source = source.with_pixels(pixels).expect("it sees pictures");
        let graph = source.graph().expect("traces");
        let given: Vec<_> = verify::drawn(&source, 8, 11).iter().map(|given| vec![source.seen(given)]).collect();
        let made = || {
            let options = Options { precision: Precision::Int8Calibrated, ..options(opset) };
            let ranges = super::super::format::ranges(&graph, &options, &given).expect("runs");
            write(&graph, &Options { ranges, ..options }).expect("writes")
        };
        let written = made();
        let found = held(&source, &graph, &written, Allowed { relative: 0.1, cosine: 0.99 });
        let found = found.unwrap_or_else(|e| panic!("{pixels:?}: {e}\n{graph}"));
        assert!(found.relative > 1e-3, "{pixels:?}: {found:?}");
        for word in ["QuantizeLinear", "DequantizeLinear", "/exact"] {
            assert!(has(&written, word), "{word}");
        }
        assert_eq!(written.files, made().files);
    }
}
