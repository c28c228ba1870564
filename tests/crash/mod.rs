//! The program can be killed at any instant.
//!
//! `steps` kills it at every step that changes a disk, one after the other (`EFFAI_CRASH_AT`, see `util::fault`);
//! `kills` at instants the program does not choose, alone or with its actions, also when many builds share a store;
//! `damage` flips and cuts files. After each the same must hold, see [`Case::is_mended`].
//!
//! `EFFAI_TEST_CASES=5000 cargo test --test all crash` runs more, `EFFAI_TEST_SEED=7` begins elsewhere. CI takes some of the steps,
//! with each commit others (`EFFAI_TEST_TURN`).

mod case;
mod damage;
mod kills;
mod steps;

/// Seeds to go through: as many as asked for.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first = asked("EFFAI_TEST_SEED").unwrap_or(1);
    first..first + asked("EFFAI_TEST_CASES").unwrap_or(usual)
}

/// Runs a case for each seed and says which one failed.
fn each_seed(usual: u64, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(usual) {
        let outcome = std::panic::catch_unwind(|| case(seed));
        assert!(outcome.is_ok(), "seed {seed}: EFFAI_TEST_SEED={seed} EFFAI_TEST_CASES=1 shows it alone");
    }
}
