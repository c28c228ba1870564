use std::io::{Cursor, Read};
use std::sync::Arc;

use super::super::source::Pixels;
use super::*;
use crate::backend::CandleTensor;
use crate::model::encoder::Encoder;
use crate::model::{Model, tokenizer_of};

const NAMES: [&str; 3] = ["Heart", "dog", "red pizza"];
const PROMPTS: [&str; 2] = ["an emoji of {}", "{}"];
/// The logarithm of what cosines are multiplied by.
const SCALE: f32 = 2.5;

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A model of random weights that reads some words.
fn model(config: &Value) -> Checkpoint {
    let mut made = checkpoint(config);
    made.arrays.insert("logit_scale".into(), Array::f32(&[1], vec![SCALE]));
    let words = ["[UNK]", "heart", "dog", "red", "pizza", "an", "emoji", "of"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), at.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    let dir = tempfile::tempdir().expect("made");
    crate::util::fs::write(&dir.path().join("tokenizer.json"), tokenizer.to_string().as_bytes()).expect("written");
    made.tokenizer = tokenizer_of(dir.path(), &made.config, None).expect("read");
    made
}

fn formats() -> [Format; 4] {
    let coreml = |target| Format::CoreMl { target };
    [Format::Onnx { opset: 21 }, Format::TfLite, coreml(Target::IOS15), coreml(Target::IOS18)]
}

/// A source that gives labels, of one picture at a time where the format has it so.
fn labelled(format: Format, pixels: Pixels) -> Source {
    let source = Source::new(&mut model(&dual()), Part::Picture, format.layout()).expect("a model");
    let source = source.with_pixels(pixels).expect("it sees");
    let source = source.with_labels(&owned(&NAMES), &owned(&PROMPTS)).expect("it reads");
    let one = [("batch", 1)];
    source.fixed(if matches!(format, Format::CoreMl { .. }) { &one[..] } else { &[] }).expect("its sizes")
}

fn written(source: &Source, format: Format, precision: Precision) -> (Graph, Written) {
    let graph = source.graph().expect("traces");
    let written = write(&graph, &Options { format, precision, ..options(21) }).expect("writes");
    (graph, written)
}

/// What each label is of prepared pictures, by the model itself and plain sums.
fn likely(pictures: &[f32], count: usize) -> Vec<f32> {
    let own = Model::<CandleTensor>::new(&model(&dual())).expect("a model");
    let texts = [["an emoji of heart", "heart"], ["an emoji of dog", "dog"], ["an emoji of red pizza", "red pizza"]];
    let means = texts.map(|texts| {
        let read = own.encode_texts(&texts, &mut |_| {}).expect("reads");
        let sum: Vec<f32> = read[0].iter().zip(&read[1]).map(|(a, b)| a + b).collect();
        let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
        sum.into_iter().map(|v| v / length).collect::<Vec<f32>>()
    });
    let seen = Encoder::pictures(&own, pictures, count).expect("sees");
    let of_one = |vector: &[f32]| {
        let dot = |mean: &Vec<f32>| vector.iter().zip(mean).map(|(a, b)| a * b).sum::<f32>();
        let each: Vec<f32> = means.iter().map(|mean| (SCALE.exp() * dot(mean)).exp()).collect();
        let all = each.iter().sum::<f32>();
        each.into_iter().map(move |one| one / all)
    };
    seen.chunks_exact(seen.len() / count).flat_map(of_one).collect()
}

#[test]
fn every_format_gives_how_likely_each_label_is() {
    for format in formats() {
        let source = labelled(format, Pixels::Prepared);
        assert_eq!((source.outputs(), source.labels()), (owned(&["probabilities"]), &owned(&NAMES)[..]));
        let (graph, written) = written(&source, format, Precision::F32);
        let found = held(&source, &graph, &written, Allowed::of(Precision::F32));
        let found = found.unwrap_or_else(|e| panic!("{format:?}: {e}\n{graph}"));
        assert!(found.relative < 1e-5 && found.top1 == 1.0, "{format:?}: {found:?}");
        let given = verify::drawn(&source, 3, 5);
        for given in &given {
            let Given::Pictures(pictures, count) = given else { unreachable!("pictures") };
            let program = open(&written, format, false).expect("opens");
            let (shape, values) = program.run(&[source.seen(given)], &[("probabilities", 2)]).expect("runs").remove(0);
            assert_eq!(shape, [*count, NAMES.len()]);
            let far = values.iter().zip(likely(pictures, *count)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{format:?}: {far}");
        }
    }
}

#[test]
fn labels_come_of_pixels_and_in_every_precision() {
    for (format, precision) in [
        (Format::Onnx { opset: 21 }, Precision::Int8Weights),
        (Format::Onnx { opset: 13 }, Precision::Int8),
        (Format::TfLite, Precision::Int8Weights),
        (Format::TfLite, Precision::Int8),
        (Format::CoreMl { target: Target::IOS15 }, Precision::F16),
        (Format::CoreMl { target: Target::IOS16 }, Precision::Palette6Weights),
        (Format::CoreMl { target: Target::IOS18 }, Precision::Int8Weights),
    ] {
        let source = labelled(format, Pixels::Uint8);
        let graph = source.graph().expect("traces");
        // The labels' vectors are so few that they would stay as they are.
        let options = Options { format, precision, weight_threshold: 15, ..options(21) };
        let written = write(&graph, &options).expect("writes");
        let scale = source.scale_of_labels().expect("it has labels");
        if let Err(e) = held(&source, &graph, &written, Allowed::of(precision).with_labels(scale)) {
            panic!("{format:?} {precision:?}: {e}\n{graph}");
        }
    }
}

#[test]
fn equal_labels_give_equal_bytes() {
    for format in formats() {
        let made = || written(&labelled(format, Pixels::Uint8), format, Precision::F32).1.files;
        assert_eq!(made(), made());
    }
}

#[test]
fn a_wrong_vector_of_a_label_is_caught_and_named() {
    for format in formats() {
        let source = labelled(format, Pixels::Prepared);
        let mut graph = source.graph().expect("traces");
        let vectors = graph.values.iter_mut().find(|value| value.name == "labels.weight").expect("is there");
        let values = vectors.constant.as_ref().expect("a constant");
        // Each label has the next one's.
        let mut rows: Vec<&[f32]> = values.chunks_exact(values.len() / NAMES.len()).collect();
        rows.rotate_left(1);
        vectors.constant = Some(Arc::new(rows.concat()));
        let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
        let error = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect_err("caught").message;
        assert!(error.contains("they part at `labels/linear`"), "{format:?}: {error}");
    }
}

#[test]
fn a_package_says_of_what_its_probabilities_are() {
    let format = Format::CoreMl { target: Target::IOS15 };
    let source = labelled(format, Pixels::Prepared);
    let (mut graph, written) = written(&source, format, Precision::F32);
    for word in ["classify", "classLabel", "classLabel_probs", "Heart", "red pizza"] {
        assert!(has(&written, word), "{word}");
    }
    let refused = |labels: &[&str], graph: &mut Graph| {
        graph.labels = owned(labels);
        let written = write(graph, &Options { format, ..options(21) }).expect("writes");
        held(&source, graph, &written, Allowed::of(Precision::F32)).expect_err("refused").message
    };
    let said = refused(&NAMES[..2], &mut graph);
    assert!(said.ends_with("`probabilities` comes as [1, 3], of 2 labels"), "{said}");
    let said = refused(&["dog", "cat", "dog"], &mut graph);
    assert!(said.ends_with("two are one, or one is empty"), "{said}");
    // What the model says of itself comes before its program.
    let mut broken = written;
    let at = broken.files[0].1.windows(10).position(|bytes| bytes == b"classLabel").expect("is there");
    broken.files[0].1[at] = b'C';
    let error = open(&broken, format, false).err().expect("refused").message;
    assert!(error.ends_with("it does not say what `classify` gives"), "{error}");
}

#[test]
fn tensorflow_lite_has_its_labels_in_an_archive_behind_it() {
    let format = Format::TfLite;
    let source = labelled(format, Pixels::Uint8);
    let (_, written) = written(&source, format, Precision::F32);
    let [(_, file)] = &written.files[..] else { panic!("one file") };
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).expect("an archive");
    assert_eq!(archive.offset(), 0, "places count from the beginning of the model");
    assert_eq!(archive.len(), 1);
    let mut own = archive.by_name("labels.txt").expect("is there");
    assert_eq!(own.compression(), zip::CompressionMethod::Stored);
    let mut text = String::new();
    own.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "Heart\ndog\nred pizza\n");
    let plain = Source::new(&mut model(&dual()), Part::Picture, format.layout()).expect("a model");
    let plain = write(&plain.graph().expect("traces"), &Options { format, ..options(21) }).expect("writes");
    assert!(zip::ZipArchive::new(Cursor::new(&plain.files[0].1)).is_err() && !has(&plain, "labels.txt"));
}

#[test]
fn what_tells_nothing_apart_by_texts_is_refused() {
    let refused = |config: &Value, part: Part| {
        let source = Source::new(&mut model(config), part, Layout::ChannelsFirst).expect("a model");
        source.with_labels(&owned(&NAMES), &owned(&PROMPTS)).err().expect("refused").message
    };
    let reads = "`labels` are for what sees pictures, and this part reads texts";
    assert_eq!(refused(&dual(), Part::Text), reads);
    assert_eq!(refused(&reading(), Part::Text), reads);
    assert_eq!(refused(&speaking(), Part::Language), reads);
    let said = refused(&seeing(), Part::Picture);
    assert_eq!(said, "`labels` are told apart by their texts, and this model reads none");
    let mut without = model(&dual());
    without.arrays.remove("logit_scale");
    let source = Source::new(&mut without, Part::Picture, Layout::ChannelsFirst).expect("a model");
    let said = source.with_labels(&owned(&NAMES), &owned(&PROMPTS)).err().expect("refused").message;
    assert_eq!(said, "the model has no `logit_scale`, by which cosines become probabilities of `labels`");
}

#[test]
fn probabilities_may_be_off_by_what_a_softmax_makes_of_it() {
    let plain = Allowed::of(Precision::F16);
    assert_eq!(plain.with_labels(1.5), plain);
    let hundred = plain.with_labels(100.0);
    assert_eq!(hundred, Allowed { relative: 0.1, cosine: 0.975 });
    assert_eq!(Allowed::of(Precision::Int8).with_labels(100.0), Allowed { relative: 1.0, cosine: 0.5 });
    let source = labelled(Format::TfLite, Pixels::Prepared);
    assert!(source.scale_of_labels().is_some_and(|scale| (scale - f64::from(SCALE).exp()).abs() < 1e-6));
}
