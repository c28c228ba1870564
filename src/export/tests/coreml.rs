use super::*;

fn coreml(target: Target, precision: Precision) -> Options {
    Options { format: Format::CoreMl { target }, precision, ..options(21) }
}

/// Holds a model's ML Program against it.
fn check_coreml(source: &Source, options: &Options, relative: f64) -> Result<(Written, Difference), Failure> {
    let graph = source.graph()?;
    let written = write(&graph, options)?;
    let found = held(source, &graph, &written, Allowed { relative, cosine: 0.5 })
        .map_err(|e| Failure::target(format!("{e}\n{graph}")))?;
    Ok((written, found))
}

#[test]
fn every_architecture_computes_the_same_as_coreml() {
    for (config, part) in all() {
        let source = source(&config, part).with_least_past(1);
        for target in Target::NAMES.iter().filter_map(|name| Target::by_name(name)).take(4) {
            let (_, found) = check_coreml(&source, &coreml(target, Precision::F32), 1e-5)
                .unwrap_or_else(|e| panic!("{part:?} {target:?}: {e}"));
            assert!(found.relative < 1e-5 && found.cosine > 0.999_999, "{part:?}: {found:?}");
        }
    }
}

/// What weights in few bits may move: of so few inputs, each counts much.
fn widest(precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::SparseWeights => 1e-5,
        Precision::F16 | Precision::F16Weights => 5e-3,
        Precision::Int8Weights => 3e-2,
        Precision::Palette6Weights => 0.15,
        _ => 1.0,
    }
}

#[test]
fn coreml_computes_in_sixteen_bits_and_keeps_weights_in_fewer() {
    for precision in (Format::CoreMl { target: Target::IOS18 }).precisions() {
        let Some(least) = Target::least(*precision).filter(|_| *precision != Precision::Stored) else { continue };
        for (config, part) in all() {
            let source = source(&config, part).with_least_past(1);
            let whole = write(&source.graph().expect("traces"), &coreml(least, Precision::F32)).expect("writes");
            for target in [least, Target::IOS18] {
                let (written, found) = check_coreml(&source, &coreml(target, *precision), widest(*precision))
                    .unwrap_or_else(|e| panic!("{precision:?} {part:?} {target:?}: {e}"));
                // Of the network for pictures no weight has enough values.
                let is_kept = matches!(precision, Precision::F32 | Precision::SparseWeights);
                if !is_kept && part != Part::Picture {
                    assert!(found.relative > 1e-5, "{precision:?} {part:?} {target:?}: {found:?}");
                    assert!(written.files[1].1.len() < whole.files[1].1.len(), "{precision:?} {part:?}");
                }
            }
        }
    }
}

#[test]
fn coreml_has_codes_as_they_are_stored() {
    for (mut config, part) in [(reading(), Part::Text), (speaking(), Part::Language)] {
        (config["hidden_size"], config["intermediate_size"]) = (32.into(), 64.into());
        for bits in [4, 8] {
            let source = in_codes(&config, part, bits).with_least_past(1);
            let options = coreml(Target::IOS18, Precision::Stored);
            let (written, found) = check_coreml(&source, &options, 1e-5).expect("equal");
            assert!(found.relative < 1e-5, "{bits} bits: {found:?}");
            assert!(has(&written, "constexpr_blockwise_shift_scale"));
        }
    }
}

#[test]
fn a_wrong_operator_of_coreml_is_caught_and_named() {
    let options = coreml(Target::IOS15, Precision::F32);
    let source = source(&speaking(), Part::Language).with_least_past(1);
    let mut graph = source.graph().expect("traces");
    let norm = "model.layers.1.post_attention_layernorm/rms-norm";
    graph.values.iter_mut().find(|value| value.name == norm).expect("is there").op = Op::RmsNorm(1e-2);
    let written = write(&graph, &options).expect("writes");
    let error = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect_err("caught").message;
    assert!(error.contains(&format!("they part at `{norm}`")), "{error}");
}

#[test]
fn a_broken_package_is_refused() {
    let source = source(&reading(), Part::Text);
    let graph = source.graph().expect("traces");
    let options = coreml(Target::IOS15, Precision::F32);
    let mut written = write(&graph, &options).expect("writes");
    // The number of the first blob's element type.
    written.files[1].1[64 + 4] = 1;
    let error = held(&source, &graph, &written, Allowed::of(Precision::F32)).expect_err("caught");
    assert!(error.message.contains("cannot be read"), "{}", error.message);
}

#[test]
fn equal_models_give_equal_packages() {
    let options = coreml(Target::IOS15, Precision::F32);
    let write = || write(&source(&both(), Part::Text).graph().expect("traces"), &options).expect("writes").files;
    let files = write();
    assert_eq!(files, write());
    let names: Vec<&str> = files.iter().map(|(name, _)| &name[..]).collect();
    let data = "model.mlpackage/Data/com.apple.CoreML";
    let [model, weights] = ["model.mlmodel", "weights/weight.bin"].map(|name| format!("{data}/{name}"));
    assert_eq!(names, [&model, &weights, "model.mlpackage/Manifest.json"]);
}

#[test]
fn coreml_has_a_network_for_pictures_without_transpositions() {
    let graph = source(&seeing(), Part::Picture).graph().expect("traces");
    let written = write(&graph, &coreml(Target::IOS15, Precision::F32)).expect("writes");
    assert!(has(&written, "conv") && !has(&written, "transpose") && !has(&written, "matmul"), "{graph}");
}

/// A language model whose file keeps keys and values of so many tokens.
fn with_state(context: usize) -> Source {
    source(&speaking(), Part::Language).with_state(context).expect("a language model")
}

#[test]
fn coreml_keeps_what_a_language_model_has_read() {
    let mut config = speaking();
    (config["hidden_size"], config["intermediate_size"]) = (32.into(), 64.into());
    for precision in (Format::CoreMl { target: Target::IOS18 }).precisions() {
        // As long as the longest text that is drawn, and longer.
        for context in [24, 64] {
            let source = match precision {
                Precision::Stored => in_codes(&config, Part::Language, 4).with_state(context),
                _ => source(&speaking(), Part::Language).with_state(context),
            };
            // Keys and values have 16 bits, whatever is computed in.
            let widest = if *precision == Precision::Stored { 1e-3 } else { widest(*precision).max(1e-3) };
            let options = coreml(Target::IOS18, *precision);
            let (written, found) = check_coreml(&source.expect("a language model"), &options, widest)
                .unwrap_or_else(|e| panic!("{precision:?} {context}: {e}"));
            assert!(found.relative > 1e-6, "{precision:?} {context}: {found:?}");
            for word in ["keyCache", "valueCache", "causalMask", "read_state", "write_state", "slice_update"] {
                assert!(has(&written, word), "{word}");
            }
            assert!(!has(&written, "past_key_values_0") && !has(&written, "present"));
        }
    }
}

#[test]
fn a_state_goes_on_from_step_to_step_and_begins_with_nothing() {
    let source = with_state(24);
    let graph = source.graph().expect("traces");
    let written = write(&graph, &coreml(Target::IOS18, Precision::F32)).expect("writes");
    let program = open(&written, Format::CoreMl { target: Target::IOS18 }, false).expect("opens");
    let given = verify::steps(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]);
    let lengths: Vec<usize> = given
        .iter()
        .map(|given| match given {
            Given::Texts(rows, before) => rows[0].len() - before,
            _ => unreachable!("texts"),
        })
        .collect();
    assert_eq!(lengths, [6, 1, 1, 1, 2]);
    let runs: Vec<_> = given.iter().map(|given| source.run(given).expect("runs")).collect();
    let steps: Vec<&[Tensors]> = runs.iter().map(|run| &run.inputs[..]).collect();
    let logits = [("logits", 3)];
    let found = program.steps(&steps, &logits).expect("runs");
    for (run, found) in runs.iter().zip(&found) {
        let mut far = Difference::default();
        far.add(&run.outputs[0].values().expect("given").expect("values"), &found[0].1, 50);
        assert!(far.relative < 1e-3 && far.top1 == 1.0, "{far:?}");
    }
    // By itself a token is another's: what it sees before it are zeros.
    let alone = program.run(steps[1], &logits).expect("runs");
    assert_ne!(alone[0].1, found[1][0].1);
    assert_eq!(program.steps(&steps[..1], &logits).expect("runs")[0][0].1, found[0][0].1);
}

#[test]
fn a_wrong_operator_of_a_step_is_named() {
    let source = with_state(24);
    let mut graph = source.graph().expect("traces");
    let norm = "model.layers.1.post_attention_layernorm/rms-norm";
    graph.values.iter_mut().find(|value| value.name == norm).expect("is there").op = Op::RmsNorm(1e-1);
    let written = write(&graph, &coreml(Target::IOS18, Precision::F32)).expect("writes");
    let error = held(&source, &graph, &written, Allowed { relative: 2e-3, cosine: 0.5 }).expect_err("caught").message;
    assert!(error.contains(&format!("they part at `{norm}`")), "{error}");
}

#[test]
fn what_cannot_keep_a_state_is_refused() {
    let refused = |source: Source, context: usize| source.with_state(context).err().expect("refused").message;
    let said = refused(source(&reading(), Part::Text), 8);
    assert_eq!(said, "`state` is for language models, and this part reads whole texts");
    let said = refused(source(&seeing(), Part::Picture), 8);
    assert_eq!(said, "`state` is for language models, and this part sees pictures");
    let said = refused(source(&speaking(), Part::Language), 65);
    assert_eq!(said, "`state` has 65 tokens, and the model reads 64 at most");
    let error = with_state(4).run(&Given::Texts(vec![vec![1; 5]], 4)).err().expect("refused");
    assert_eq!(error.message, "a text has 5 tokens, and `state` holds 4");
}

#[test]
fn a_state_that_a_model_does_not_describe_is_refused() {
    let source = with_state(24);
    let graph = source.graph().expect("traces");
    let mut written = write(&graph, &coreml(Target::IOS18, Precision::F32)).expect("writes");
    let model = &mut written.files[0].1;
    // Of the description: the program comes after it.
    let at = model.windows(8).position(|bytes| bytes == b"keyCache").expect("is there");
    model[at] = b'K';
    let error = held(&source, &graph, &written, Allowed::of(Precision::F16)).expect_err("caught");
    assert!(error.message.contains("does not describe the states that its program has"), "{}", error.message);
}
