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

#[test]
fn coreml_computes_in_sixteen_bits_and_keeps_weights_in_fewer() {
    // Of so few inputs, each counts much.
    let widest = |precision| match precision {
        Precision::F32 | Precision::SparseWeights => 1e-5,
        Precision::F16 | Precision::F16Weights => 5e-3,
        Precision::Int8Weights => 3e-2,
        Precision::Palette6Weights => 0.15,
        _ => 1.0,
    };
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
