//! git's merge driver for the lock: three versions to one, label by label.
//!
//! A line that one side changed is that side's; where both changed it alike, theirs is ours. Where they differ, neither
//! can be told to be right while the recipes are still being merged: both stay, between git's marks, and the next
//! `effai build --lock` takes the one whose key is the merged tree's, or builds.

use std::collections::BTreeSet;

use super::{Claim, HEADER, Lock, write_line};

/// What came of a merge.
#[derive(Debug, PartialEq)]
pub struct Merged {
    /// The text to write.
    pub text: String,
    /// Labels that both sides changed differently.
    pub disputed: Vec<String>,
}

/// Merges `ours` and `theirs`, which began as `base`.
pub fn merge(base: &Lock, ours: &Lock, theirs: &Lock) -> Merged {
    let labels: BTreeSet<&String> = [base, ours, theirs].iter().flat_map(|lock| lock.claims.keys()).collect();
    let mut merged = Merged { text: format!("{HEADER}\n"), disputed: Vec::new() };
    for label in labels {
        let [was, mine, other] = [base, ours, theirs].map(|lock| lock.claims.get(label));
        let line = |claim: Option<&Claim>| claim.map(|c| write_line(label, c) + "\n").unwrap_or_default();
        if mine == other || other == was {
            merged.text += &line(mine);
        } else if mine == was {
            merged.text += &line(other);
        } else {
            merged.text += &format!("<<<<<<< ours\n{}=======\n{}>>>>>>> theirs\n", line(mine), line(other));
            merged.disputed.push(label.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::claim;
    use super::*;

    fn lock(claims: &[(&str, u8)]) -> Lock {
        let claims = claims.iter().map(|(label, n)| ((*label).to_owned(), claim(*n))).collect();
        Lock { claims, ..Lock::default() }
    }

    #[test]
    fn what_one_side_changed_is_taken_and_what_both_did_is_kept_twice() {
        let base = lock(&[("same", 1), ("mine", 1), ("theirs", 1), ("both", 1), ("gone", 1), ("alike", 1)]);
        let ours = lock(&[("same", 1), ("mine", 2), ("theirs", 1), ("both", 2), ("new", 7), ("alike", 5)]);
        let theirs = lock(&[("same", 1), ("mine", 1), ("theirs", 3), ("both", 3), ("gone", 1), ("alike", 5)]);
        let merged = merge(&base, &ours, &theirs);
        assert_eq!(merged.disputed, ["both"]);
        let read = Lock::parse(&merged.text, Path::new("effai.lock")).expect("read");
        let expected = lock(&[("same", 1), ("mine", 2), ("theirs", 3), ("new", 7), ("alike", 5)]);
        assert_eq!(read.claims, expected.claims);
        assert_eq!(read.disputed["both"], [claim(2), claim(3)]);
        assert!(merge(&base, &ours, &ours).disputed.is_empty());
    }

    #[test]
    fn one_side_that_drops_a_line_the_other_changed_is_a_conflict() {
        let (base, ours, theirs) = (lock(&[("a", 1)]), lock(&[]), lock(&[("a", 3)]));
        let merged = merge(&base, &ours, &theirs);
        assert_eq!(merged.disputed, ["a"]);
        // Whoever knows the key finds what is left of it.
        let read = Lock::parse(&merged.text, Path::new("effai.lock")).expect("read");
        assert_eq!(read.claim("a", &claim(3).key), Some(&claim(3)));
    }
}
