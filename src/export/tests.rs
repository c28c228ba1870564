//! What every format computes of models of random weights, and what a check says of a wrong file.

mod bytes;
mod coreml;
mod labels;
mod lite;

use serde_json::{Value, json};

use super::coreml::Target;
use super::format::{Format, Layout, Options, Precision, Ranges, open, write};
use super::graph::{Dim, Graph};
use super::source::{Given, Part, Source, Tensors, Values};
use super::verify::{self, Allowed, Difference};
use super::written::{self, Program, Written};
use super::{onnx, tflite};
use crate::backend::affine::{self, Form};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::qmatrix::Groups;
use crate::backend::rng::Rng;
use crate::backend::trace::{Op, TraceTensor};
use crate::failure::Failure;
use crate::format::image::Preprocessing;
use crate::model::fit::Weight;
use crate::model::{Checkpoint, Config, bert, clip, efficientnet_lite, llama};

/// A model of random weights.
fn checkpoint(config: &Value) -> Checkpoint {
    let config: Config = serde_json::from_value(config.clone()).expect("a configuration");
    let mut rng = Rng::new(5, "weights");
    let mut arrays = Arrays::new();
    for (name, shape) in weights(&config) {
        let count = shape.iter().product::<usize>();
        // Gains and variances are positive; what multiplies keeps sizes as they are.
        let is_gain = shape.len() == 1 && !name.ends_with("bias") && !name.ends_with("mean");
        let spread = if shape.len() > 1 { 1.0 / (count as f32 / shape[0] as f32).sqrt() } else { 0.2 };
        let values = (0..count).map(|_| f32::from(u8::from(is_gain)) + spread * rng.between(-1.0, 1.0)).collect();
        arrays.insert(name, Array::f32(&shape, values));
    }
    let preprocessing = match &config {
        Config::EfficientnetLite { preprocessing, .. } | Config::DualEncoder { preprocessing, .. } => {
            Some(*preprocessing)
        }
        Config::Clip(config) => Some(Preprocessing::clip(config.vision_config.image_size)),
        _ => None,
    };
    Checkpoint { config, arrays, tokenizer: None, preprocessing, weight_bytes: 0 }
}

fn weights(config: &Config) -> Vec<Weight> {
    match config {
        Config::Bert(config) => bert::weights(config, ""),
        Config::Llama(config) => llama::weights(config),
        Config::Clip(config) => clip::weights(config),
        Config::EfficientnetLite { network, .. } => of_network(network, ""),
        Config::DualEncoder { text, vision, projection, .. } => {
            let mut all = [bert::weights(text, "text."), of_network(vision, "vision.")].concat();
            let pooled: usize = vision.pooled_blocks.iter().map(|block| vision.blocks[*block].output).sum();
            for (head, width) in [("text", text.hidden_size), ("vision", vision.head_channels + pooled)] {
                let parts = [
                    ("input_scale", vec![width]),
                    ("input_shift", vec![width]),
                    ("0.weight", vec![projection.hidden, width]),
                    ("0.bias", vec![projection.hidden]),
                    ("2.weight", vec![projection.dim, projection.hidden]),
                    ("2.bias", vec![projection.dim]),
                ];
                all.extend(parts.map(|(part, shape)| (format!("{head}_projection.{part}"), shape)));
            }
            all
        }
    }
}

fn of_network(config: &efficientnet_lite::Config, prefix: &str) -> Vec<Weight> {
    let mut all = vec![(format!("{prefix}_conv_stem.weight"), vec![config.stem_channels, 3, 3, 3])];
    let norm = |module: String, width: usize| {
        ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("{prefix}{module}.{part}"), vec![width]))
    };
    all.extend(norm("_bn0".into(), config.stem_channels));
    for (i, block) in config.blocks.iter().enumerate() {
        let (module, inner) = (|part: &str| format!("_blocks.{i}.{part}"), block.input * block.expand);
        let weight = |part: &str| format!("{prefix}_blocks.{i}.{part}.weight");
        if block.expand > 1 {
            all.push((weight("_expand_conv"), vec![inner, block.input, 1, 1]));
            all.extend(norm(module("_bn0"), inner));
        }
        all.push((weight("_depthwise_conv"), vec![inner, 1, block.kernel, block.kernel]));
        all.extend(norm(module("_bn1"), inner));
        all.push((weight("_project_conv"), vec![block.output, inner, 1, 1]));
        all.extend(norm(module("_bn2"), block.output));
    }
    let last = config.blocks.last().map_or(0, |block| block.output);
    all.push((format!("{prefix}_conv_head.weight"), vec![config.head_channels, last, 1, 1]));
    all.extend(norm("_bn1".into(), config.head_channels));
    all
}

fn reading() -> Value {
    json!({
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "vocab_size": 50, "max_position_embeddings": 40, "layer_norm_eps": 1e-12,
    })
}

fn speaking() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    })
}

fn network() -> Value {
    json!({
        "stem_channels": 8, "head_channels": 12, "batch_norm_eps": 1e-3, "pooled_blocks": [1],
        "blocks": [
            {"kernel": 3, "stride": 1, "expand": 1, "input": 8, "output": 6},
            {"kernel": 3, "stride": 2, "expand": 2, "input": 6, "output": 8},
            {"kernel": 5, "stride": 1, "expand": 2, "input": 8, "output": 8},
        ],
    })
}

fn seeing() -> Value {
    let mut config = network();
    config["model_type"] = "efficientnet-lite".into();
    config["preprocessing"] = json!(Preprocessing::clip(20));
    config
}

fn dual() -> Value {
    let mut text = reading();
    text.as_object_mut().expect("an object").remove("model_type");
    json!({
        "model_type": "dual-encoder", "text": text, "vision": network(),
        "preprocessing": json!(Preprocessing::clip(20)), "projection": {"dim": 6, "hidden": 10},
    })
}

fn both() -> Value {
    json!({
        "model_type": "clip", "projection_dim": 6,
        "text_config": {
            "vocab_size": 50, "max_position_embeddings": 20, "eos_token_id": 49, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        },
        "vision_config": {
            "image_size": 20, "patch_size": 5, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4,
        },
    })
}

/// Every architecture, and each of its parts.
fn all() -> [(Value, Part); 7] {
    [
        (reading(), Part::Text),
        (seeing(), Part::Picture),
        (dual(), Part::Text),
        (dual(), Part::Picture),
        (both(), Part::Text),
        (both(), Part::Picture),
        (speaking(), Part::Language),
    ]
}

fn source(config: &Value, part: Part) -> Source {
    Source::new(&mut checkpoint(config), part, Layout::ChannelsFirst).expect("a model")
}

fn options(opset: u32) -> Options {
    Options {
        format: Format::Onnx { opset },
        precision: Precision::F32,
        metadata: vec![("effai.label".into(), "exports/x".into())],
        longest: 40,
        // Of models as small as these none has more.
        weight_threshold: 255,
        ranges: Ranges::new(),
    }
}

/// Holds a file against its model, on a few inputs that are drawn.
fn held(source: &Source, graph: &Graph, written: &Written, allowed: Allowed) -> Result<Difference, Failure> {
    let format = match &written.files[0].0[..] {
        onnx::FILE => Format::Onnx { opset: 21 },
        tflite::FILE => Format::TfLite,
        _ => Format::CoreMl { target: Target::IOS18 },
    };
    let programs = |is_whole: bool| open(written, format, is_whole);
    verify::check(source, graph, (written, &programs), &verify::drawn(source, 6, 3), allowed, &mut |_| {})
}

fn check(source: &Source, graph: &Graph, opset: u32) -> Result<Difference, Failure> {
    let written = write(graph, &options(opset))?;
    held(source, graph, &written, Allowed::of(Precision::F32))
}

#[test]
fn every_architecture_computes_the_same_as_onnx() {
    for (config, part) in all() {
        let source = source(&config, part);
        let graph = source.graph().expect("traces");
        for opset in [onnx::OLDEST, 17, 20, onnx::NEWEST] {
            let found = check(&source, &graph, opset);
            let found = found.unwrap_or_else(|e| panic!("{} {part:?} {opset}: {e}\n{graph}", config["model_type"]));
            assert!(found.relative < 1e-5 && found.cosine > 0.999_999, "{} {part:?}: {found:?}", config["model_type"]);
        }
    }
}

/// Whether the model's own file has a word.
fn has(written: &Written, word: &str) -> bool {
    written.files[0].1.windows(word.len()).any(|bytes| bytes == word.as_bytes())
}

/// A model whose matrices are in affine codes.
fn in_codes(config: &Value, part: Part, bits: usize) -> Source {
    let mut checkpoint = checkpoint(config);
    for (name, array) in &mut checkpoint.arrays {
        let &[out, inner] = &array.shape[..] else { continue };
        if name.contains("position") || name.contains("token_type") {
            continue;
        }
        let mut made = affine::round(array.floats(), inner, &Form::new(bits, 32)).0;
        // Equal weights have no scale: the bias is all that is left of them.
        (made.scales[0], made.biases[0]) = (0.0, 0.25);
        let codes = affine::codes(&made.words, bits);
        *array = Array::codes(Groups::new(out, inner, 32, bits, &codes, made.scales, made.biases));
    }
    Source::new(&mut checkpoint, part, Layout::ChannelsFirst).expect("a model")
}

#[test]
fn sizes_that_are_fixed_are_numbers_in_the_file() {
    let fixed = [("batch", 2), ("sequence", 3), ("past", 5)];
    for (config, part) in all() {
        let of_part = match part {
            Part::Picture => &fixed[..1],
            Part::Text => &fixed[..2],
            Part::Language => &fixed[..],
        };
        for format in [Format::Onnx { opset: 21 }, Format::TfLite, Format::CoreMl { target: Target::IOS18 }] {
            let source = Source::new(&mut checkpoint(&config), part, format.layout()).expect("a model");
            let source = source.with_least_past(format.least_past()).fixed(of_part).expect("its sizes");
            let graph = source.graph().expect("traces");
            let dims = graph.values.iter().flat_map(|value| &value.shape);
            assert!(dims.chain(graph.inputs.iter().flat_map(|input| &input.shape)).all(|dim| dim.fixed().is_some()));
            let written = write(&graph, &Options { format, ..options(21) }).expect("writes");
            let found = held(&source, &graph, &written, Allowed::of(Precision::F32));
            let found = found.unwrap_or_else(|e| panic!("{} {part:?}: {e}\n{graph}", config["model_type"]));
            assert!(found.relative < 1e-5, "{found:?}");
        }
    }
    let source = source(&speaking(), Part::Language).fixed(&[("sequence", 3)]).expect("one of its sizes");
    let error = source.graph().expect_err("the mask is of both");
    assert_eq!(error.message, "`sequence` alone says nothing of `sequence+past`");
    let error = self::source(&seeing(), Part::Picture).fixed(&[("sequence", 3)]).err().expect("no such size");
    assert_eq!(error.message, "what the model is given has no `sequence`");
    let error = self::source(&reading(), Part::Text).fixed(&[("sequence", 41)]).err().expect("too many");
    assert_eq!(error.message, "`shape` has 41 tokens, and the model reads 40 at most");
}

#[test]
fn bytes_are_near_what_they_were_rounded_from() {
    for (config, part) in [(reading(), Part::Text), (both(), Part::Picture), (speaking(), Part::Language)] {
        let source = source(&config, part);
        let graph = source.graph().expect("traces");
        let options = Options { precision: Precision::Int8, ..options(21) };
        let written = write(&graph, &options).expect("writes");
        // Of so few inputs, each counts much.
        let allowed = Allowed { relative: 0.2, cosine: 0.99 };
        let found = held(&source, &graph, &written, allowed).expect("near");
        assert!(found.relative > 1e-5, "{found:?}");
    }
}

#[test]
fn weights_in_bytes_are_nearer_than_where_inputs_are_rounded_too() {
    for (config, part) in
        [(reading(), Part::Text), (both(), Part::Picture), (speaking(), Part::Language), (seeing(), Part::Picture)]
    {
        let source = source(&config, part);
        let graph = source.graph().expect("traces");
        let written = |precision| write(&graph, &Options { precision, ..options(21) }).expect("writes");
        let (whole, bytes) = (written(Precision::F32), written(Precision::Int8Weights));
        let allowed = Allowed::of(Precision::Int8Weights);
        let found = held(&source, &graph, &bytes, allowed).expect("near");
        assert!(found.relative > 1e-5 && found.cosine > 0.999, "{found:?}");
        assert!(bytes.bytes() < whole.bytes());
        let has = |op: &[u8]| bytes.files[0].1.windows(op.len()).any(|bytes| bytes == op);
        assert!(has(b"Cast") && !has(b"QuantizeLinear"));
    }
}

/// A program whose tensors but the first have a number more everywhere: what is small in them is another.
struct Shifted(Box<dyn Program>);

impl Program for Shifted {
    fn name(&self) -> String {
        self.0.name()
    }

    fn has(&self, tensor: &str) -> bool {
        self.0.has(tensor)
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<written::Array>, Failure> {
        let mut found = self.0.run(inputs, tensors)?;
        found.iter_mut().skip(1).for_each(|(_, values)| values.iter_mut().for_each(|value| *value += 0.3));
        Ok(found)
    }
}

#[test]
fn keys_and_values_of_a_cache_are_held_by_their_error_alone() {
    let source = source(&speaking(), Part::Language);
    let graph = source.graph().expect("traces");
    let written = write(&graph, &options(21)).expect("writes");
    let programs = |is_whole: bool| -> Result<Box<dyn Program>, Failure> {
        Ok(Box::new(Shifted(open(&written, Format::Onnx { opset: 21 }, is_whole)?)))
    };
    let drawn = verify::drawn(&source, 4, 3);
    let check = |relative: f64| {
        let allowed = Allowed { relative, cosine: 0.999_99 };
        verify::check(&source, &graph, (&written, &programs), &drawn, allowed, &mut |_| {})
    };
    let found = check(1.0).expect("the words are the same");
    assert!(found.cosine > 0.999_99 && found.relative > 0.01 && found.top1 == 1.0, "{found:?}");
    let error = check(found.relative / 2.0).expect_err("refused");
    assert!(error.message.contains("of the largest value, more than"), "{}", error.message);
}

#[test]
fn few_weights_stay_as_they_are() {
    let source = source(&reading(), Part::Text);
    let graph = source.graph().expect("traces");
    let of = |format, precision, weight_threshold| {
        write(&graph, &Options { format, precision, weight_threshold, ..options(21) }).expect("writes").bytes()
    };
    for format in [Format::Onnx { opset: 21 }, Format::CoreMl { target: Target::IOS18 }, Format::TfLite] {
        let few = format.precisions().iter().copied().filter(|own| own.is_of_few_bits());
        for precision in few.filter(|own| *own != Precision::SparseWeights) {
            let [whole, same, bytes] =
                [(Precision::F32, 0), (precision, 1 << 20), (precision, 255)].map(|(own, most)| of(format, own, most));
            assert_eq!(same, whole, "{precision:?} in {}", format.title());
            // Of so few, the operators that undo it may be more than what it saves.
            assert_ne!(bytes, whole, "{precision:?} in {}", format.title());
        }
    }
}

#[test]
fn codes_are_written_as_they_are_stored() {
    for (mut config, part) in [(reading(), Part::Text), (speaking(), Part::Language)] {
        (config["hidden_size"], config["intermediate_size"]) = (32.into(), 64.into());
        for bits in [4, 8] {
            let source = in_codes(&config, part, bits);
            let graph = source.graph().expect("traces");
            let options = Options { precision: Precision::Stored, ..options(21) };
            let written = write(&graph, &options).expect("writes");
            let allowed = Allowed::of(Precision::Stored);
            let found = held(&source, &graph, &written, allowed).expect("equal");
            assert!(found.relative < 1e-5, "{bits} bits: {found:?}");
            let has = |op: &[u8]| written.files[0].1.windows(op.len()).any(|bytes| bytes == op);
            assert_eq!(has(b"MatMulNBits"), bits == 4);
        }
    }
}

#[test]
fn equal_models_give_equal_bytes() {
    let write = || {
        let graph = source(&both(), Part::Text).graph().expect("traces");
        write(&graph, &options(21)).expect("writes").files
    };
    assert_eq!(write(), write());
}

#[test]
fn weights_that_one_message_cannot_hold_lie_beside_it() {
    let source = source(&reading(), Part::Text);
    let graph = source.graph().expect("traces");
    let written = onnx::write_within(&graph, 21, &options(21), 1000).expect("writes");
    assert!(written.file(onnx::DATA).is_some_and(|data| data.len() > 4096));
    let found = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect("runs");
    assert!(found.relative < 1e-5);
}

#[test]
fn a_network_for_pictures_is_written_without_transpositions() {
    let graph = source(&seeing(), Part::Picture).graph().expect("traces");
    let written = write(&graph, &options(21)).expect("writes");
    let has = |op: &[u8]| written.files[0].1.windows(op.len()).any(|bytes| bytes == op);
    assert!(has(b"Conv") && !has(b"Transpose") && !has(b"MatMul"), "{graph}");
}

/// What a check says of a file that was written of another graph than the model's.
fn told(config: &Value, part: Part, fault: impl Fn(&mut Graph)) -> String {
    let of = |source: Source, check: &dyn Fn(&Source, &Graph) -> Result<Difference, Failure>| {
        let mut graph = source.graph().expect("traces");
        fault(&mut graph);
        check(&source, &graph).expect_err("caught").message
    };
    let onnx = of(source(config, part), &|source, graph| check(source, graph, 21));
    let other = of(lite::of(config, part), &|source, graph| lite::check(source, graph, Precision::F32));
    let place =
        |message: &str| message.split("they part at").nth(1).and_then(|rest| Some(rest.split_once(',')?.0.to_owned()));
    assert_eq!(place(&onnx), place(&other), "{onnx}\n{other}");
    onnx
}

#[test]
fn a_wrong_operator_is_caught_and_named() {
    let transposed = told(&reading(), Part::Text, |graph| {
        let name = "encoder.layer.1.attention.self.value.weight";
        let weight = graph.values.iter_mut().find(|value| value.name == name).expect("is there");
        let values = weight.constant.as_ref().expect("a constant").clone();
        let turned = (0..16 * 16).map(|i| values[i % 16 * 16 + i / 16]).collect();
        weight.constant = Some(std::sync::Arc::new(turned));
    });
    assert!(transposed.contains("they part at `encoder.layer.1.attention.self.value/linear`"), "{transposed}");
    let norm = "encoder.layer.0.attention.output.LayerNorm/layer-norm";
    let epsilon = told(&reading(), Part::Text, |graph| {
        let value = graph.values.iter_mut().find(|value| value.name == norm).expect("is there");
        value.op = Op::LayerNorm(1e-2);
    });
    assert!(epsilon.contains(&format!("they part at `{norm}`")), "{epsilon}");
    let mask = told(&reading(), Part::Text, |graph| {
        for value in &mut graph.values {
            if let Op::Attention { mask, .. } = &mut value.op
                && value.name == "attention.2"
            {
                *mask = None;
            }
        }
    });
    assert!(mask.contains("they part at `attention.2`"), "{mask}");
    let causal = told(&both(), Part::Text, |graph| {
        for value in &mut graph.values {
            if let Op::Attention { causal, .. } = &mut value.op {
                *causal = false;
            }
        }
    });
    assert!(causal.contains("they part at `attention`"), "{causal}");
}

#[test]
fn a_number_that_is_no_product_of_sizes_is_refused() {
    let given = [Dim::Product(1, vec!["batch"])];
    let run = |rows: usize| {
        let x = TraceTensor::input("x", &[rows, 4]);
        use crate::backend::Tensor;
        vec![x.narrow(0, 0, rows / 2).expect("fits")]
    };
    let input = super::graph::Input {
        name: "x".into(),
        element: super::graph::Element::Float,
        shape: vec![given[0].clone(), Dim::Fixed(4)],
    };
    let sizes = [super::graph::Size { symbol: "batch", runs: [7, 11] }];
    let error = Graph::of(vec![input], &["y"], [&run(7), &run(11)], &sizes).expect_err("refused");
    let wanted = "`narrow` has the number 3 where batch = 7, and 5 where batch = 11: no product of them";
    assert_eq!(error.message, wanted);
}

#[test]
fn a_graph_reads_as_text() {
    let text = source(&reading(), Part::Text).graph().expect("traces").to_string();
    for line in [
        "input input_ids integer [batch, sequence]",
        "encoder.layer.0.attention.self.query/linear [batch, sequence, 16] = linear embeddings.LayerNorm/layer-norm encoder.layer.0.attention.self.query.weight encoder.layer.0.attention.self.query.bias",
        "attention [batch, 4, sequence, 4] = attention swap-axes swap-axes.2 swap-axes.3 scale 0.5 by attention_mask",
        "output sentence_embedding = mean-tokens",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
    assert_eq!(super::source::IDS, "input_ids");
}

/// The graph of what is done to rows of four numbers, for any number of them.
fn of_rows(names: &[&str], run: impl Fn(&TraceTensor) -> crate::backend::Result<Vec<TraceTensor>>) -> Graph {
    let [one, other] = [7, 11].map(|rows| run(&TraceTensor::input("x", &[rows, 4])).expect("fits"));
    let shape = vec![Dim::Product(1, vec!["batch"]), Dim::Fixed(4)];
    let input = super::graph::Input { name: "x".into(), element: super::graph::Element::Float, shape };
    let sizes = [super::graph::Size { symbol: "batch", runs: [7, 11] }];
    Graph::of(vec![input], names, [&one, &other], &sizes).expect("a graph")
}

#[test]
fn a_norm_after_a_norm_is_not_folded_into_the_product_again() {
    use crate::backend::Tensor;
    let weight = |values: &[f32], shape: &[usize]| TraceTensor::from_f32(values, shape);
    let none = f32::INFINITY;
    let mut graph = of_rows(&["once", "twice"], |x| {
        let product = x.linear(&weight(&[0.5; 12], &[3, 4])?, None)?;
        let once = product.scale_shift(&weight(&[2.0; 3], &[3])?, &weight(&[1.0; 3], &[3])?, -none, none)?;
        let twice = once.scale_shift(&weight(&[3.0; 3], &[3])?, &weight(&[4.0; 3], &[3])?, -none, none)?;
        Ok(vec![once, twice])
    });
    graph.fold_scales();
    let folded = graph.values.iter().find(|value| value.name.ends_with(".scaled")).expect("the first is folded");
    assert_eq!(folded.constant.as_ref().expect("weights")[0], 1.0);
    assert_eq!(graph.operations().into_iter().collect::<Vec<_>>(), ["constant", "input", "linear", "scale-shift"]);
}

#[test]
fn what_is_scaled_again_and_again_is_scaled_once() {
    use crate::backend::Tensor;
    let mut graph = of_rows(&["once", "thrice"], |x| {
        let once = x.affine(2.0, 1.0)?;
        Ok(vec![once.clone(), once.affine(3.0, 4.0)?.affine(0.5, 0.0)?])
    });
    graph.fold_scales();
    let text = graph.to_string();
    for line in ["affine [batch, 4] = affine input * 2 + 1", "affine.3 [batch, 4] = affine input * 3 + 3.5"] {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
    assert_eq!(text.lines().filter(|line| line.contains("= affine input")).count(), 2, "{text}");
}

#[test]
fn no_two_values_have_one_name() {
    use crate::backend::Tensor;
    let graph = of_rows(&["y"], |x| {
        let mut sum = x.clone();
        for name in ["m.weight", "m.weight.2", "m.weight", "m.weight.2"] {
            sum = sum.add(&TraceTensor::from_f32(&[1.0; 4], &[4])?.named(name))?;
        }
        Ok(vec![sum])
    });
    let mut names: Vec<&str> = graph.values.iter().map(|value| &value.name[..]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), graph.values.len(), "{graph}");
}

#[test]
fn sums_with_what_hides_scores_are_no_bytes() {
    use crate::backend::Scope;
    use crate::backend::Tensor;
    let graph = of_rows(&["y"], |x| {
        let heads = x.add(x)?.reshape(&[x.shape()[0], 1, 4, 1])?;
        let scope = Scope { lengths: vec![4; x.shape()[0]].into(), causal: true };
        Ok(vec![TraceTensor::attention(&heads, &heads, &heads, &scope, 1.0)?])
    });
    let given = Tensors {
        name: "x".into(),
        shape: vec![2, 4],
        values: Values::Floats(vec![0.1, -0.9, 0.5, 0.3, 0.7, -0.2, 0.4, 1.0]),
    };
    let plain = options(21);
    let ranges = onnx::ranges(&graph, 21, &plain, &[vec![given]]).expect("runs");
    let lowest = ranges.values().map(|[low, _]| *low).fold(0.0, f32::min);
    assert!(lowest < -1e37, "{ranges:?}");
    let written = write(&graph, &Options { precision: Precision::Int8Calibrated, ranges, ..plain }).expect("writes");
    assert!(has(&written, "add/Add/bytes"));
    assert!(!has(&written, "attention/Add/bytes") && !has(&written, "attention/Where/bytes"));
}

#[test]
fn rows_of_windows_that_are_cut_anew_are_no_convolution() {
    use crate::backend::{Tensor, Window};
    let window = Window { size: 2, stride: 1, before: 0, out_h: 1, out_w: 1 };
    let graph = of_rows(&["y"], |x| {
        let rows = x.shape()[0];
        let cut = x.reshape(&[rows, 2, 2, 1])?.patches(window)?.reshape(&[rows * 2, 2])?;
        Ok(vec![cut.linear(&TraceTensor::from_f32(&[1.0; 6], &[3, 2])?, None)?])
    });
    for format in [Format::Onnx { opset: 21 }, Format::TfLite, Format::CoreMl { target: Target::IOS15 }] {
        let error = write(&graph, &Options { format, ..options(21) }).expect_err("refused");
        assert!(error.message.contains(" has no operator for `patches` of `"), "{}", error.message);
    }
}
