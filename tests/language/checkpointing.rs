//! Layers that are computed again instead of being kept.

use super::weights;
use crate::support::tiny::project;

const BACKENDS: &[&str] = if cfg!(feature = "mlx") { &["candle", "mlx"] } else { &["candle"] };

#[test]
fn it_gives_the_same_bytes_on_each_backend() {
    for (method, train) in [
        (r#""lora" rank=2 dropout=0.1"#, "steps 3; micro-batch 3"),
        (r#""dora" rank=2 dropout=0.1"#, "steps 3; pack #true"),
        (r#""full""#, "steps 3; micro-batch 2"),
    ] {
        for backend in BACKENDS {
            let of = |more: &str| {
                let project = project(method, &format!("{train}{more}"));
                if method == r#""full""# {
                    project.edit("effai.kdl", "    target-modules \"q_proj\" \"v_proj\"\n", "");
                }
                let run = project.effai(&["build", "a", "--backend", backend]);
                assert_eq!(run.code, 0, "{}", run.stderr);
                (weights(&project), project.read("out/a/training.json"))
            };
            assert_eq!(of(""), of("; gradient-checkpointing #true"), "{method} {backend}");
        }
    }
}

#[test]
fn it_is_no_fact() {
    let project = project(r#""lora" rank=2"#, "steps 2");
    project.builds(&["a"]);
    project.edit("effai.kdl", "steps 2", "steps 2; gradient-checkpointing #true");
    assert_eq!(project.builds(&["a"]), [""; 0]);
    project.edit("effai.kdl", "steps 2", "steps 3");
    assert_eq!(project.builds(&["a"]), ["a:steps-3", "a"]);
}

#[test]
fn it_is_of_language_models() {
    let project = project(r#""lora" rank=2"#, "gradient-checkpointing #true");
    project.edit("effai.kdl", "next-token", "info-nce");
    let run = project.effai(&["build", "a"]);
    assert_eq!(run.code, 2);
    let said = "`gradient-checkpointing` means nothing to the loss `info-nce`";
    assert!(run.stderr.contains(said), "{}", run.stderr);
}
