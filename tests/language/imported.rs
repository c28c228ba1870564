//! Adapters that another tool made.

use super::{project, weights};
use crate::support::Project;

/// A project whose adapter `a` is trained, and an adapter `b` that is imported from these of its files.
fn imported(method: &str, files: [&str; 2]) -> Project {
    let project = project(method, "steps 3");
    project.builds(&["a"]);
    let read = |name: &str| std::fs::read(project.path(&format!("out/a/{name}"))).expect("there");
    let packed = files.map(|name| (name.rsplit('/').next().expect("a name"), read(name)));
    project.archive("b.zip", &packed.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
    let [weights, config] = packed.map(|(name, _)| name);
    let b = format!(
        "adapter \"b\" {{\n    base \"m\"\n    source path=\"b.zip\" {{ weights \"{weights}\"; config \"{config}\"; }}\n}}\n"
    );
    project.write("effai.kdl", &format!("{}{b}", project.read("effai.kdl")));
    project
}

const PEFT: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];
const MLX: [&str; 2] = ["mlx/adapters.safetensors", "mlx/adapter_config.json"];

#[test]
fn either_layout_gives_the_same_adapter_again() {
    for (method, files) in [
        (r#""lora" rank=2"#, PEFT),
        (r#""lora" rank=2"#, MLX),
        (r#""dora" rank=2"#, PEFT),
        (r#""dora" rank=2"#, MLX),
        (r#""rslora" rank=4 alpha=6"#, PEFT),
    ] {
        let project = imported(method, files);
        project.builds(&["b"]);
        assert_eq!(project.read_bytes("out/b/adapter_model.safetensors"), weights(&project), "{method}");
        for file in MLX {
            assert_eq!(
                project.read_bytes(&format!("out/b/{file}")),
                project.read_bytes(&format!("out/a/{file}")),
                "{method}"
            );
        }
        let ask = |label: &str| project.effai(&["run", label, "3 and 3 are ", "--max-tokens", "4"]);
        assert_eq!(ask("b").stdout, ask("a").stdout, "{method}");
    }
}

#[test]
fn what_cannot_be_read_is_one_error() {
    let project = imported(r#""lora" rank=2"#, PEFT);
    let fails = |config: &str| -> String {
        let weights = project.read_bytes("out/a/adapter_model.safetensors");
        project
            .archive("b.zip", &[("adapter_model.safetensors", &weights), ("adapter_config.json", config.as_bytes())]);
        let run = project.effai(&["build", "b"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        run.stderr
    };
    let said = fails(r#"{"r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 4}}"#);
    assert!(said.contains("adapter_config.json: `rank_pattern` is set, which is not supported"), "{said}");
    let said = fails(r#"{"peft_type": "IA3"}"#);
    assert!(said.contains("adapter_config.json: it has no `r` and `lora_alpha`"), "{said}");

    project.edit("effai.kdl", "    base \"m\"\n    source", "    base \"m\"\n    method \"lora\"\n    source");
    let said = project.effai(&["build", "b"]).stderr;
    assert!(said.contains("`method` means nothing to an adapter that is imported"), "{said}");
    project.edit(
        "effai.kdl",
        "    method \"lora\"\n    source path=\"b.zip\"",
        "    tags \"x\"\n    // path=\"b.zip\"",
    );
    project.edit("effai.kdl", "// path=\"b.zip\" { weights", "// {weights");
    let said = project.effai(&["build", "b"]).stderr;
    assert!(said.contains("an adapter that is trained needs `method`"), "{said}");
    assert!(said.contains("an adapter that is trained needs `train`"), "{said}");
}
