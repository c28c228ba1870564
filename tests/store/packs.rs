//! Blobs that share bytes: packed by a prune to a size, whole again for whoever needs them.

use std::path::PathBuf;
use std::sync::OnceLock;

use effai::fingerprint::Digest;

use super::{files, is_clean, overwrite};
use crate::engine::graphs::Rng;
use crate::support::Project;

/// Bytes of a model file.
const MODEL: usize = 4 << 20;

/// Four model files, the copies of inputs, each needed by a target of its own: what is asked for is small, so that the
/// models have one name only.
const FOUR: &str = r#"
default "use-base" "use-head" "use-layers" "use-all"
command "base" { run "cp" "base.in" "m"; input "base.in"; output "m"; }
command "head" { run "cp" "head.in" "m"; input "head.in"; output "m"; }
command "layers" { run "cp" "layers.in" "m"; input "layers.in"; output "m"; }
command "all" { run "cp" "all.in" "m"; input "all.in"; output "m"; }
command "use-base" { run "sh" "-c" "cksum < base/m > o"; needs "base"; output "o"; }
command "use-head" { run "sh" "-c" "cksum < head/m > o"; needs "head"; output "o"; }
command "use-layers" { run "sh" "-c" "cksum < layers/m > o"; needs "layers"; output "o"; }
command "use-all" { run "sh" "-c" "cksum < all/m > o"; needs "all"; output "o"; }
"#;

const NAMES: [&str; 4] = ["base", "head", "layers", "all"];

fn weights(seed: u64, bytes: usize) -> Vec<u8> {
    // Far apart: neighbouring seeds give the same numbers, one later.
    let mut rng = Rng::new(seed << 32);
    (0..bytes / 4).flat_map(|_| (rng.below(1 << 24) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()).collect()
}

/// A model, one with another head, one with another half, and one that shares nothing.
fn model(name: &str) -> &'static [u8] {
    static MODELS: [OnceLock<Vec<u8>>; 4] = [const { OnceLock::new() }; 4];
    let at = NAMES.iter().position(|n| *n == name).expect("one of the four");
    MODELS[at].get_or_init(|| make_model(name))
}

fn make_model(name: &str) -> Vec<u8> {
    let mut bytes = weights(1, MODEL);
    match name {
        "head" => bytes.splice(MODEL - MODEL / 16.., weights(2, MODEL / 16)).for_each(drop),
        "layers" => {
            // Its header is longer too, so all that is shared lies elsewhere.
            bytes.splice(MODEL / 4..MODEL * 3 / 4, weights(3, MODEL / 2)).for_each(drop);
            bytes.splice(0..0, [7; 100]).for_each(drop);
        }
        "all" => bytes = weights(4, MODEL),
        _ => {}
    }
    bytes
}

/// The four, built one after the other, `base` last.
fn four() -> Project {
    let project = Project::new(FOUR);
    for name in NAMES {
        std::fs::write(project.path(&format!("{name}.in")), model(name)).expect("written");
    }
    for name in NAMES.iter().rev() {
        project.builds(&[&format!("use-{name}")]);
    }
    project
}

fn json(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn size(project: &Project) -> serde_json::Value {
    json(&project.effai(&["cache", "size", "--json"]).stdout).remove(0)
}

fn packs(project: &Project) -> Vec<PathBuf> {
    files(&project.cache().join("v1/packs"))
}

fn prune(project: &Project, args: &[&str]) -> Vec<serde_json::Value> {
    let run = project.effai(&[&["cache", "prune", "--json"], args].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    json(&run.stdout)
}

/// Where the blob or the pack of a model lies.
fn file(project: &Project, kind: &str, name: &str) -> PathBuf {
    let mut digest = Digest::of(model(name)).to_string();
    digest.insert(2, '/');
    project.cache().join("v1").join(kind).join(digest)
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 1;
    overwrite(path, &bytes);
}

/// The models are had once more, bit for bit, from the store but for these.
#[track_caller]
fn come_back(project: &Project, names: &[&str], runs: &[&str]) {
    for gone in ["out", ".effai"] {
        let _ = std::fs::remove_dir_all(project.path(gone));
    }
    let run = project.effai(&[&["build", "-j", "1"], names].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mut ran: Vec<&str> = run.stderr.lines().filter_map(|l| l.strip_prefix("run ")).map(str::trim).collect();
    ran.sort_unstable();
    assert_eq!(ran, runs, "{}", run.stderr);
    for name in names {
        assert!(std::fs::read(project.path(&format!("out/{name}/m"))).expect("read") == model(name), "{name}");
    }
}

#[test]
fn a_base_and_its_fine_tunes_are_packed_and_come_back_bit_for_bit() {
    let project = four();
    let whole = size(&project)["bytes"].as_u64().expect("a number");
    let before = files(&project.cache().join("v1/blobs"));
    let dry = prune(&project, &["--to", "0", "--dry-run"]);
    assert_eq!((files(&project.cache().join("v1/blobs")), packs(&project).len()), (before, 0), "only said");
    let done = prune(&project, &["--to", "0"]);
    assert_eq!(dry[..2], done[..2], "and said truly");
    let labels: Vec<&serde_json::Value> = done.iter().filter_map(|line| line.get("label")).collect();
    assert_eq!(labels, ["layers", "head"], "the least recently used first");
    let sum = done.last().expect("a sum");
    assert_eq!((&sum["packed"], &sum["keys"], &sum["blobs"]), (&2.into(), &0.into(), &0.into()));
    // Of `head` a sixteenth is its own, of `layers` a half; parts are 64 KiB on average, and some lie across an edge.
    let saved = sum["bytes-saved"].as_u64().expect("a number") as usize;
    let most = MODEL * 15 / 16 + MODEL / 2;
    assert!(saved < most && saved > most - MODEL / 4, "{saved} of {most}");
    let now = size(&project);
    assert_eq!((&now["packed"], &now["blobs"]), (&2.into(), &16.into()));
    assert_eq!((&now["bytes"], &now["bytes-saved"]), (&(whole - saved as u64).into(), &(saved as u64).into()));
    let said = project.effai(&["cache", "size"]).stdout;
    assert!(said.contains("2 packed, which saves 5."), "{said}");
    is_clean(&project);

    assert!(project.builds(&[]).is_empty(), "nothing to do");
    assert_eq!(packs(&project).len(), 2, "and nothing to make whole");
    come_back(&project, &["layers", "head"], &[]);
    come_back(&project, &NAMES, &[]);
    assert_eq!(size(&project)["packed"], 0);
    is_clean(&project);
    assert_eq!(packs(&project).len(), 2, "they stay until the next prune");
    let sum = prune(&project, &[]).pop().expect("a sum");
    assert_eq!((packs(&project).len(), &sum["bytes"]), (0, &(whole_packs(saved)).into()));
    come_back(&project, &NAMES, &[]);
    is_clean(&project);
}

/// Bytes of the packs of two models of which so many are saved.
fn whole_packs(saved: usize) -> u64 {
    (model("head").len() + model("layers").len() - saved) as u64
}

#[test]
fn no_more_is_packed_than_the_size_asks_for_and_keys_go_only_then() {
    let project = four();
    let bytes = size(&project)["bytes"].as_u64().expect("a number");
    prune(&project, &["--to", &(bytes - 1).to_string()]);
    assert_eq!(packs(&project).len(), 1);
    assert!(prune(&project, &["--to", &bytes.to_string()]).len() == 1 && packs(&project).len() == 1);
    // Nothing stands on them any more: packs, and what they need, go by the same rule as all else.
    project.remove(".effai");
    let sum = prune(&project, &["--to", "9M"]).pop().expect("a sum");
    assert!(sum["keys"].as_u64() > Some(0) && sum["bytes-left"].as_u64() <= Some(9 << 20), "{sum}");
    is_clean(&project);
    assert_eq!(packs(&project).len(), 2, "what was used before them was enough");
    come_back(&project, &["head", "base", "layers"], &[]);
    project.remove(".effai");
    project.remove("out");
    prune(&project, &["--to", "0"]);
    assert!(packs(&project).is_empty() && files(&project.cache().join("v1/blobs")).is_empty());
}

#[test]
fn a_prune_keeps_what_a_pack_needs() {
    let project = four();
    prune(&project, &["--to", "0"]);
    // Only the packed one is stood on and has a key: by its own target, in another project.
    let of_head = |line: &&str| line.starts_with("command") && line.contains("head");
    let other = Project::new(&FOUR.lines().filter(of_head).collect::<Vec<_>>().join("\n"));
    std::fs::write(other.path("head.in"), model("head")).expect("written");
    let run = other.effai_with(&["build", "use-head"], &project.cache());
    assert_eq!((run.code, run.stderr.contains("run ")), (0, false), "{}", run.stderr);
    let cache = project.cache();
    let (base, pack) = (file(&project, "blobs", "base"), file(&project, "packs", "head"));
    project.remove("effai.kdl");
    let run = other.effai_with(&["cache", "prune", "--to", "0"], &cache);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(base.exists() && pack.exists(), "{}", run.stdout);
    assert_eq!(
        files(&cache.join("v1/blobs")).iter().filter(|p| p.metadata().expect("there").len() > 1 << 20).count(),
        1
    );
    let run = other.effai_with(&["build", "head"], &cache);
    assert_eq!((run.code, run.stderr.contains("run ")), (0, false), "{}", run.stderr);
    assert!(std::fs::read(other.path("out/head/m")).expect("read") == model("head"));
    let run = other.effai_with(&["cache", "prune", "--to", "0"], &cache);
    assert_eq!((run.code, base.exists(), pack.exists()), (0, false, false), "{}", run.stdout);
}

#[test]
fn what_is_linked_in_out_is_let_be() {
    let project = four();
    project.builds(&["head", "layers"]);
    if std::os::unix::fs::MetadataExt::nlink(&file(&project, "blobs", "head").metadata().expect("there")) > 1 {
        prune(&project, &["--to", "0"]);
        assert!(packs(&project).is_empty());
    }
}

#[test]
fn a_build_that_prunes_to_its_size_packs_nothing() {
    let project = four();
    project.edit("effai.kdl", "default", "cache size=\"1 MiB\"\ndefault");
    project.edit("effai.kdl", "cksum < base/m", "cksum < base/m; true");
    let run = project.effai(&["build"]);
    assert!(run.stderr.contains("pruned the store"), "{}", run.stderr);
    assert!(packs(&project).is_empty());
}

/// Damages a file of a packed store; `verify` finds these of its models.
#[track_caller]
fn is_found(project: &Project, path: PathBuf, at: usize, models: &[&str]) {
    flip(&path, at);
    let found = json(&project.effai(&["cache", "verify", "--json"]).stdout);
    let mut labels: Vec<&str> = found.iter().map(|p| p["labels"][0].as_str().expect("text")).collect();
    labels.sort_unstable();
    assert_eq!(labels, models);
    assert!(found.iter().all(|p| p["problem"] == "changed"), "{found:?}");
    assert!(found.iter().any(|p| p["path"] == path.display().to_string()), "{found:?}");
}

#[test]
fn a_flipped_byte_in_a_pack_is_found_and_mended() {
    for at in [3, 20, 90, usize::MAX] {
        let project = four();
        prune(&project, &["--to", "0"]);
        let pack = file(&project, "packs", "head");
        let at = at.min(std::fs::read(&pack).expect("read").len() - 1);
        is_found(&project, pack.clone(), at, &["head"]);
        // By the next build,
        come_back(&project, &["layers", "head"], &["head"]);
        assert!(!pack.exists(), "it was put aside");
        is_clean(&project);
        // or by a repair and the next build.
        let project = four();
        prune(&project, &["--to", "0"]);
        is_found(&project, file(&project, "packs", "layers"), at, &["layers"]);
        assert_eq!(project.effai(&["cache", "verify", "--repair"]).code, 1);
        is_clean(&project);
        come_back(&project, &["layers"], &["layers"]);
        is_clean(&project);
    }
}

#[test]
fn a_flipped_byte_in_a_base_is_found_and_mended_for_all_that_stand_on_it() {
    let project = four();
    prune(&project, &["--to", "0"]);
    is_found(&project, file(&project, "blobs", "base"), MODEL * 7 / 8, &["base", "head", "layers"]);
    // Who finds it puts it aside; once it is there again the other pack is as good as it was.
    come_back(&project, &["head"], &["head"]);
    come_back(&project, &["base"], &["base"]);
    come_back(&project, &["layers"], &[]);
    is_clean(&project);

    let project = four();
    prune(&project, &["--to", "0"]);
    // A byte that `layers` does not take: it is in need of the blob none the less.
    is_found(&project, file(&project, "blobs", "base"), 9, &["base", "head", "layers"]);
    assert_eq!(project.effai(&["cache", "verify", "--repair"]).code, 1);
    assert!(packs(&project).is_empty());
    is_clean(&project);
    come_back(&project, &["all", "head", "base", "layers"], &["base", "head", "layers"]);
}

#[test]
fn a_blob_made_whole_and_lost_again_comes_from_its_pack() {
    let project = four();
    prune(&project, &["--to", "0"]);
    come_back(&project, &["head"], &[]);
    // As after a power cut: the name is there and the bytes are not.
    let blob = file(&project, "blobs", "head");
    overwrite(&blob, b"");
    come_back(&project, &["head"], &[]);
    overwrite(&blob, b"");
    prune(&project, &[]);
    assert!(!blob.exists() && file(&project, "packs", "head").exists());
    come_back(&project, &["head"], &[]);
    is_clean(&project);
}

#[test]
fn a_build_beside_others_makes_it_whole_once() {
    let project = four();
    prune(&project, &["--to", "0"]);
    let others: Vec<Project> = (0..4)
        .map(|_| {
            let other = Project::new(FOUR);
            for name in NAMES {
                std::fs::write(other.path(&format!("{name}.in")), model(name)).expect("written");
            }
            other
        })
        .collect();
    let cache = project.cache();
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| {
                let run = other.effai_with(&["build", "head", "layers"], &cache);
                assert_eq!((run.code, run.stderr.contains("run ")), (0, false), "{}", run.stderr);
                for name in ["head", "layers"] {
                    assert!(std::fs::read(other.path(&format!("out/{name}/m"))).expect("read") == model(name));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| assert!(!prune(&project, &["--to", "0"]).is_empty()));
        }
    });
    assert_eq!(files(&cache.join("v1/incoming")), Vec::<PathBuf>::new());
    is_clean(&project);
}
