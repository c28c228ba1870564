//! Files of the store and of `.effai` flipped, cut or emptied: the next build is right, or says one thing that mends it.

use std::path::{Path, PathBuf};

use super::case::{Case, Ended, files};
use super::each_seed;
use crate::engine::graphs::Rng;

/// Damaged projects, unless asked for more.
const CASES: u64 = 12;

/// All blobs, trees among them.
pub(crate) fn blobs(case: &Case) -> Vec<PathBuf> {
    let dir = case.cache().join("v1/blobs");
    files(&dir).into_keys().map(|path| dir.join(path)).collect()
}

/// Other bytes under a name; links to the old ones are not changed.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("removed");
    std::fs::write(path, bytes).expect("written");
}

fn damage(rng: &mut Rng, path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    match rng.below(4) {
        0 => bytes.truncate(rng.below(bytes.len().max(1))),
        1 => bytes.clear(),
        _ if bytes.is_empty() => bytes.push(1),
        _ => {
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
    }
    overwrite(path, &bytes);
}

/// Follows an error to its end: it is one, it names a file, and the command it names mends it.
fn follow(case: &Case, run: impl Fn() -> Ended) -> Ended {
    for _ in 0..3 {
        let end = run();
        if end.code != Some(3) {
            return end;
        }
        assert_eq!(end.stderr.lines().filter(|l| l.starts_with("error:")).count(), 1, "one error: {}", end.stderr);
        let command = end.stderr.split_once("`rm '").expect(&end.stderr).1;
        let path = command.split_once("'*`").expect("a path").0;
        assert!(end.stderr.lines().any(|l| l.starts_with("error:") && l.contains(path)), "{}", end.stderr);
        for extension in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{path}{extension}"));
        }
    }
    panic!("no end of errors in {}", case.project().display());
}

#[test]
fn whatever_is_flipped_or_cut_the_next_build_is_right() {
    each_seed(CASES, damaged);
}

/// Of a chain of two, the upper is found gone while the lower is being made again.
#[test]
fn what_is_found_gone_while_its_input_runs_waits_for_it() {
    damaged(164);
}

fn damaged(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xda_4a6e);
    let mut case = Case::generate(seed);
    case.is_mended(&case.clean());
    let mut damaged = Vec::new();
    for _ in 0..1 + rng.below(2) {
        let all = match rng.below(3) {
            0 => blobs(&case),
            1 => vec![case.cache().join("v1/index.db"), case.project().join(".effai/effai.db")],
            _ => {
                let kept = |dir: &str| {
                    let dir = case.project().join(".effai").join(dir);
                    files(&dir).into_keys().map(|path| dir.join(path)).collect::<Vec<_>>()
                };
                [kept("plan"), kept("parsed")].concat()
            }
        };
        let path = all[rng.below(all.len())].clone();
        damage(&mut rng, &path);
        damaged.push(path);
    }
    if rng.below(2) == 0 {
        let verify = case.effai(&["cache", "verify", "--json"]);
        for path in damaged.iter().filter(|path| path.starts_with(case.cache().join("v1/blobs"))) {
            let found = verify.stdout.contains(path.to_str().expect("text")) || verify.code == Some(3);
            assert!(found, "not found: {}\n{}{}", path.display(), verify.stdout, verify.stderr);
        }
    }
    match rng.below(5) {
        0 => case.edit("a.txt", seed),
        1 => std::fs::remove_dir_all(case.project().join("out")).expect("removed"),
        2 => std::fs::remove_dir_all(case.project().join(".effai/plan")).expect("removed"),
        // The recipe is read anew.
        3 => std::fs::File::options()
            .append(true)
            .open(case.project().join("effai.kdl"))
            .expect("opened")
            .set_modified(std::time::SystemTime::now())
            .expect("touched"),
        _ => {}
    }
    let expected = case.clean();
    let next = follow(&case, || case.effai(&["build"]));
    assert_eq!(next.code, Some(0), "{damaged:?}: {}", next.stderr);
    assert_eq!(case.outputs(), expected, "{damaged:?}");
    // What no build needed is still there for verification to find.
    let verify = follow(&case, || case.effai(&["cache", "verify", "--repair"]));
    assert!(matches!(verify.code, Some(0 | 1)), "{damaged:?}: {}", verify.stderr);
    let next = follow(&case, || case.effai(&["build"]));
    assert_eq!(next.code, Some(0), "{damaged:?}: {}", next.stderr);
    case.is_right(&expected);
}

#[test]
fn what_is_deleted_while_nothing_runs_is_made_again() {
    let mut case = Case::small();
    let expected = case.clean();
    case.is_mended(&expected);
    std::fs::remove_dir_all(case.cache()).expect("removed");
    let next = case.is_mended(&expected);
    assert!(next.ran().is_empty(), "all that was asked for lies in out/: {:?}", next.ran());
    std::fs::remove_dir_all(case.project().join("out")).expect("removed");
    let next = case.effai(&["build"]);
    assert_eq!((next.code, next.ran().len()), (Some(0), 2), "{}", next.stderr);
    case.is_right(&expected);
    std::fs::remove_dir_all(case.cache()).expect("removed");
    case.edit("b.txt", "other");
    case.is_mended(&case.clean());
    case.edit("b.txt", "2");
    case.is_mended(&expected);
    std::fs::remove_dir_all(case.project().join(".effai")).expect("removed");
    let next = case.is_mended(&case.clean());
    assert!(next.ran().is_empty(), "the store has everything: {:?}", next.ran());
}

#[test]
fn something_else_in_the_place_of_the_stores_own_is_told_once() {
    for name in ["locks", "gate", "incoming", "projects", "blobs", "index.db"] {
        let case = Case::small();
        let place = case.cache().join("v1").join(name);
        std::fs::create_dir_all(case.cache().join("v1")).expect("made");
        let is_file = !matches!(name, "gate" | "index.db");
        if is_file { std::fs::write(&place, "") } else { std::fs::create_dir(&place) }.expect("made");
        let end = case.effai(&["build"]);
        if end.code != Some(0) {
            assert_eq!(end.code, Some(3), "{name}: {}", end.stderr);
            assert_eq!(end.stderr.lines().filter(|l| l.starts_with("error:")).count(), 1, "{name}: {}", end.stderr);
            assert!(end.stderr.contains(place.to_str().expect("text")), "{name}: {}", end.stderr);
            assert!(end.stderr.contains("help:"), "{name}: {}", end.stderr);
        }
        if is_file { std::fs::remove_file(&place) } else { std::fs::remove_dir_all(&place) }.expect("moved away");
        case.is_mended(&case.clean());
    }
}

#[test]
fn a_chain_whose_bytes_are_gone_is_made_again_for_all_that_wait() {
    let command = |label: &str, run: &str, reads: &str| {
        format!("command \"{label}\" {{ run \"sh\" \"-c\" \"{run} > o\"; {reads}; output \"o\"; }}\n")
    };
    let recipe = [
        command("base", "cat a.txt | sort -u", "input \"a.txt\""),
        command("mid", "cat base/o base/o", "needs \"base\""),
        // Finds `base` gone while `mid` is thought to be there.
        command("x", "cat b.txt base/o", "input \"b.txt\"; needs \"base\""),
        command("y", "cat mid/o b.txt", "input \"b.txt\"; needs \"mid\""),
        command("z", "cat mid/o base/o b.txt", "input \"b.txt\"; needs \"mid\"; needs \"base\""),
    ];
    for jobs in ["1", "4"] {
        let mut case = Case::with(["base", "mid", "x", "y", "z"].map(String::from).into(), recipe.concat());
        let asked = ["build", "-j", jobs, "x", "y", "z"];
        let first = case.effai(&asked);
        assert_eq!(first.code, Some(0), "{}", first.stderr);
        blobs(&case).iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
        // No other file is touched: `base` and `mid` are not judged.
        std::fs::write(case.project().join("b.txt"), "other\n").expect("written");
        let next = case.effai(&asked);
        assert_eq!(next.code, Some(0), "{}", next.stderr);
        let mut ran = next.ran();
        ran.sort_unstable();
        ran.dedup();
        assert_eq!(ran, ["base", "mid", "x", "y", "z"], "{}", next.stderr);
        case.edit("b.txt", "other");
        let mut clean = case.clean();
        clean.retain(|path, _| ["x", "y", "z"].iter().any(|label| path.starts_with(label)));
        assert_eq!(case.outputs(), clean, "{}", next.stderr);
    }
}
