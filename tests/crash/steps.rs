//! Killed at every step, N = 1, 2, 3, until the program comes to its own end.

use super::case::{Case, files};

/// In CI only one of so many steps: another one with each commit, as `EFFAI_TEST_TURN` says. All are taken with
/// `EFFAI_TEST_CASES`.
fn steps(usual: usize) -> impl Iterator<Item = u64> {
    let asked = |name: &str| std::env::var(name).ok();
    let stride = if asked("EFFAI_TEST_CASES").is_some() { 1 } else { usual };
    let begin: usize = asked("EFFAI_TEST_TURN").and_then(|n| n.parse().ok()).unwrap_or(0);
    (1 + begin as u64 % stride as u64..).step_by(stride)
}

#[test]
fn a_cold_build() {
    let expected = Case::small().clean();
    for step in steps(10) {
        let case = Case::small();
        let ended = case.crashed_at(step, &["build"]);
        case.is_mended(&expected);
        if ended {
            assert!(step > 100, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_rebuild_after_an_edit() {
    let mut case = Case::small();
    case.is_mended(&case.clean());
    for step in steps(10) {
        case.edit("a.txt", format!("edit {step}"));
        let expected = case.clean();
        let ended = case.crashed_at(step, &["build"]);
        case.is_mended(&expected);
        if ended {
            assert!(step > 80, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_restore() {
    let case = Case::small();
    let expected = case.clean();
    case.is_mended(&expected);
    for step in steps(8) {
        for gone in ["out", ".effai"] {
            std::fs::remove_dir_all(case.project().join(gone)).expect("removed");
        }
        let ended = case.crashed_at(step, &["build"]);
        let next = case.is_mended(&expected);
        assert!(next.ran().is_empty(), "step {step}: what the store had was run: {:?}", next.ran());
        if ended {
            assert!(step > 40, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_prune() {
    let mut case = Case::small();
    case.is_mended(&case.clean());
    for step in steps(4) {
        case.edit("b.txt", step);
        let expected = case.clean();
        case.is_mended(&expected);
        let ended = case.crashed_at(step, &["cache", "prune", "--to", "0"]);
        std::fs::remove_dir_all(case.project().join("out")).expect("removed");
        let next = case.is_mended(&expected);
        assert!(next.ran().is_empty(), "step {step}: what the project stands on was pruned: {:?}", next.ran());
        assert_eq!(case.effai(&["cache", "prune", "--to", "0"]).code, Some(0));
        case.verifies();
        if ended {
            assert!(step > 10, "only {step} steps");
            break;
        }
    }
}

/// Files of packs.
fn packs(case: &Case) -> usize {
    files(&case.cache().join("v1/packs")).len()
}

#[test]
fn a_prune_that_packs() {
    let mut case = Case::models();
    let mut packed = 0;
    for step in steps(4) {
        case.edit("b.txt", step);
        let expected = case.clean();
        case.is_mended(&expected);
        let ended = case.crashed_at(step, &["cache", "prune", "--to", "2M"]);
        packed += packs(&case);
        std::fs::remove_dir_all(case.project().join("out")).expect("removed");
        let next = case.is_mended(&expected);
        assert!(next.ran().is_empty(), "step {step}: what was to be packed was lost: {:?}", next.ran());
        assert_eq!(case.effai(&["cache", "prune", "--to", "2M"]).code, Some(0));
        assert!(packs(&case) > 0, "step {step}");
        case.verifies();
        // What is packed is there for who needs it.
        for gone in ["out", ".effai"] {
            std::fs::remove_dir_all(case.project().join(gone)).expect("removed");
        }
        let next = case.effai(&["build", "a", "b"]);
        assert_eq!((next.code, next.ran().len()), (Some(0), 0), "step {step}: {}", next.stderr);
        std::fs::remove_dir_all(case.project().join("out")).expect("removed");
        if ended {
            assert!(step > 40, "only {step} steps");
            assert!(packed > 10, "only {packed} prunes came so far");
            break;
        }
    }
}

#[test]
fn a_restore_of_what_is_packed() {
    let case = Case::models();
    case.is_mended(&case.clean());
    let mut whole = None;
    for step in steps(6) {
        for gone in ["out", ".effai"] {
            let _ = std::fs::remove_dir_all(case.project().join(gone));
        }
        assert_eq!(case.effai(&["build"]).code, Some(0));
        assert_eq!(case.effai(&["cache", "prune", "--to", "2M"]).code, Some(0));
        assert_eq!(packs(&case), 1, "step {step}");
        let ended = case.crashed_at(step, &["build", "a", "b"]);
        case.is_quiet();
        let next = case.effai(&["build", "a", "b"]);
        assert_eq!((next.code, next.ran().len()), (Some(0), 0), "step {step}: {}", next.stderr);
        assert!(*whole.get_or_insert_with(|| case.outputs()) == case.outputs(), "step {step}");
        case.verifies();
        if ended {
            assert!(step > 40, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_prune_that_takes_packs_away() {
    let case = Case::models();
    case.is_mended(&case.clean());
    let expected = case.outputs();
    // Odd, so that both of the two below come.
    for step in steps(3) {
        assert_eq!(case.effai(&["cache", "prune", "--to", "2M"]).code, Some(0));
        assert_eq!(packs(&case), 1, "step {step}");
        // A pack beside its blob, or one that nothing needs: with what it is packed against.
        let all = step % 4 == 1;
        if !all {
            std::fs::remove_dir_all(case.project().join("out")).expect("removed");
            assert_eq!(case.effai(&["build", "a", "b", "c"]).code, Some(0));
            for gone in ["a", "b"] {
                std::fs::remove_dir_all(case.project().join("out").join(gone)).expect("removed");
            }
        }
        let args: &[&str] = if all { &["cache", "prune", "--to", "0", "--all"] } else { &["cache", "prune"] };
        let ended = case.crashed_at(step, args);
        case.verifies();
        assert_eq!(case.effai(args).code, Some(0));
        assert_eq!(packs(&case), 0, "step {step}");
        for gone in ["out", ".effai"].iter().take(if all { 2 } else { 1 }) {
            std::fs::remove_dir_all(case.project().join(gone)).expect("removed");
        }
        let next = case.is_mended(&expected);
        assert!(all || next.ran().is_empty(), "step {step}: {:?}", next.ran());
        if ended && !all {
            assert!(step > 10, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_repair() {
    let case = Case::small();
    let expected = case.clean();
    case.is_mended(&expected);
    for step in 1.. {
        let blobs = super::damage::blobs(&case);
        super::damage::overwrite(&blobs[step as usize % blobs.len()], b"damaged");
        let ended = case.crashed_at(step, &["cache", "verify", "--repair"]);
        let next = case.effai(&["build"]);
        assert_eq!(next.code, Some(0), "{}", next.stderr);
        // The build that follows a repair cut short may not have needed the blob: verification still finds it.
        assert_ne!(case.effai(&["cache", "verify", "--repair"]).code, Some(3));
        case.is_mended(&expected);
        if ended {
            assert!(step > 5, "only {step} steps");
            break;
        }
    }
}
