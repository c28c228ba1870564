//! What goes wrong while a target runs: one error with the facts and the next step, and nothing half-made.

use crate::support::{Project, Run};

/// One error of this class that says all of this; nothing in `out/`, and the store still whole.
fn fails(project: &Project, run: &Run, code: i32, expected: &[&str]) {
    assert_eq!(run.code, code, "{}", run.stderr);
    for text in expected {
        assert!(run.stderr.contains(text), "no {text:?} in:\n{}", run.stderr);
    }
    assert_eq!(run.stderr.lines().filter(|l| l.starts_with("error:")).count(), 1, "one error:\n{}", run.stderr);
    assert!(!project.path("out").exists(), "something lies in out/");
}

fn imported(source: &str) -> Project {
    Project::new(&format!(
        "model \"models/m\" {{\n    source {source} {{ weights \"w\"; }}\n    architecture \"efficientnet-lite0\"\n}}\n"
    ))
}

#[test]
fn another_digest_shows_both_and_sets_the_file_aside() {
    let wanted = "0".repeat(64);
    let project = imported(&format!("path=\"m.zip\" sha256=\"{wanted}\""));
    project.archive("m.zip", &[("w", b"")]);
    let bytes = std::fs::read(project.path("m.zip")).expect("read");
    let run = project.effai(&["build"]);
    let found = {
        use sha2::Digest;
        sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    fails(&project, &run, 1, &[&wanted, &found, "set aside in"]);
    let aside = run.stderr.lines().find_map(|l| l.split_once("set aside in ")).expect("a path").1;
    assert_eq!(std::fs::read(aside.trim()).expect("the file set aside"), bytes, "{aside}");
}

#[test]
fn a_truncated_safetensors_file() {
    let header = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend_from_slice(&[0; 7]);
    let project = Project::new(
        r#"model "models/m" {
    source path="m.zip" { weights "w.safetensors"; config "c.json"; }
    architecture "bert"
}
"#,
    );
    project.archive("m.zip", &[("w.safetensors", &file), ("c.json", b"{}")]);
    fails(&project, &project.effai(&["build"]), 1, &["m.zip", "safetensors"]);
}

#[test]
fn a_pickle_that_would_call_something() {
    let project = imported("path=\"m.zip\"");
    let marker = project.path("executed");
    let code = format!("cos\nsystem\n(S'touch {}'\ntR.", marker.display());
    project.archive("m.zip", &[("w", code.as_bytes())]);
    fails(&project, &project.effai(&["build"]), 1, &["os.system"]);
    assert!(!marker.exists(), "the pickle was executed");
}

#[test]
fn a_package_manager_that_is_not_there() {
    for (source, tool, next) in
        [("npm=\"a@1\"", "`npm` is not installed", "nodejs.org"), ("pip=\"a==1@1\"", "`python3`", "python.org")]
    {
        let project = imported(source);
        let nothing = project.path("empty");
        std::fs::create_dir_all(&nothing).expect("made");
        let run = project.effai_in(&["build"], &project.cache(), nothing.to_str().expect("text"));
        fails(&project, &run, 3, &[tool, next]);
    }
}

#[test]
fn no_network_and_nothing_cached() {
    let project = imported("npm=\"a@1\"");
    let path = project.program("npm", "echo 'npm error code ENOTFOUND' >&2; exit 1");
    let run = project.effai_in(&["build"], &project.cache(), &path);
    fails(&project, &run, 3, &["npm a@1 could not be fetched", "ENOTFOUND", "check the network"]);

    // Port 9 of this machine, where nothing listens.
    let project = imported("url=\"http://127.0.0.1:9/m.zip\"");
    fails(
        &project,
        &project.effai(&["build"]),
        3,
        &["http://127.0.0.1:9/m.zip could not be fetched", "check the network"],
    );
}
