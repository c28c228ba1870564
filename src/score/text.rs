//! Written texts beside those that were wanted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::LazyLock;

use regex::Regex;

/// The longest runs of words that BLEU counts.
const WORDS_MAX: usize = 4;
/// The longest runs of characters that chrF counts.
const CHARACTERS_MAX: usize = 6;
/// How much more chrF makes of recall than of precision.
const BETA: f64 = 2.0;

/// What of one text is in another, by length of run: found, in the text, in the one wanted.
type Counts<const N: usize> = [(u64, u64, u64); N];

/// Whether a text is what was wanted, white space at its ends aside.
pub fn is_exact(text: &str, wanted: &str) -> bool {
    text.trim() == wanted.trim()
}

/// One text's part of BLEU (Papineni et al., 2002), over words as mteval-v13a parts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bleu {
    counts: Counts<WORDS_MAX>,
}

impl Bleu {
    /// Of a text and the one that was wanted.
    pub fn of(text: &str, wanted: &str) -> Self {
        let (text, wanted) = (words(text), words(wanted));
        Self { counts: runs(&text, &wanted) }
    }

    /// The number of many texts together, from 0 to 100: their runs are counted as one text's. A length of which no run is found
    /// counts as half a run, the next as a quarter (sacrebleu's `exp`).
    pub fn together(all: impl Iterator<Item = Self>) -> f64 {
        let counts = sum(all.map(|one| one.counts));
        if counts.iter().all(|(found, ..)| *found == 0) {
            return 0.0;
        }
        let mut halves = 1.0;
        let mut logarithms = 0.0;
        for (found, of, _) in counts {
            if of == 0 {
                // Shorter texts than the longest run: nothing is left of the geometric mean.
                return 0.0;
            }
            let share = match found {
                0 => {
                    halves *= 2.0;
                    1.0 / (halves * of as f64)
                }
                found => found as f64 / of as f64,
            };
            logarithms += share.ln();
        }
        let (_, length, wanted) = counts[0];
        let brevity = (1.0 - wanted as f64 / length as f64).min(0.0).exp();
        100.0 * brevity * (logarithms / WORDS_MAX as f64).exp()
    }
}

/// One text's part of chrF (Popović, 2015), with β = 2, over characters without white space.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChrF {
    counts: Counts<CHARACTERS_MAX>,
}

impl ChrF {
    /// Of a text and the one that was wanted.
    pub fn of(text: &str, wanted: &str) -> Self {
        let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
        // Of a length that the wanted text is shorter than, nothing counts (sacrebleu).
        let counted = |(found, of, wanted)| if wanted == 0 { (0, 0, 0) } else { (found, of, wanted) };
        Self { counts: runs(&characters(text), &characters(wanted)).map(counted) }
    }

    /// The number of many texts together, from 0 to 100.
    pub fn together(all: impl Iterator<Item = Self>) -> f64 {
        let counts = sum(all.map(|one| one.counts));
        let lengths = counts.iter().filter(|(_, of, wanted)| *of > 0 && *wanted > 0);
        let (mut precision, mut recall, mut n) = (0.0, 0.0, 0.0);
        for (found, of, wanted) in lengths {
            precision += *found as f64 / *of as f64;
            recall += *found as f64 / *wanted as f64;
            n += 1.0;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / n, recall / n);
        100.0 * (1.0 + BETA * BETA) * precision * recall / (BETA * BETA * precision + recall)
    }
}

fn sum<const N: usize>(all: impl Iterator<Item = Counts<N>>) -> Counts<N> {
    all.fold([(0, 0, 0); N], |sum, one| {
        std::array::from_fn(|i| (sum[i].0 + one[i].0, sum[i].1 + one[i].1, sum[i].2 + one[i].2))
    })
}

/// Runs of each length: how many of the text's are in the wanted one, each as often as it is there.
fn runs<T: Eq + Hash, const N: usize>(text: &[T], wanted: &[T]) -> Counts<N> {
    std::array::from_fn(|i| {
        let mut there: HashMap<&[T], u64> = HashMap::new();
        wanted.windows(i + 1).for_each(|run| *there.entry(run).or_default() += 1);
        let mut found = 0;
        for run in text.windows(i + 1) {
            if let Some(left) = there.get_mut(run).filter(|left| **left > 0) {
                *left -= 1;
                found += 1;
            }
        }
        let number = |text: &[T]| (text.len() + 1).saturating_sub(i + 1) as u64;
        (found, number(text), number(wanted))
    })
}

/// Parts a text into words as NIST's mteval-v13a does for European languages: marks stand alone, but for full stops and commas
/// within numbers.
fn words(text: &str) -> Vec<String> {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", " $1 "),
            (r"([^0-9])([\.,])", "$1 $2 "),
            (r"([\.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(rule, to)| (Regex::new(rule).expect("a rule of ours"), to))
    });
    let text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let text = RULES.iter().fold(format!(" {text} "), |text, (rule, to)| rule.replace_all(&text, *to).into_owned());
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chrf(pairs: &[(&str, &str)]) -> f64 {
        ChrF::together(pairs.iter().map(|(text, wanted)| ChrF::of(text, wanted)))
    }

    #[test]
    fn runs_longer_than_what_was_wanted_do_not_count() {
        // As sacrebleu 2.6.0 has them.
        let is =
            |pairs: &[(&str, &str)], expected: f64| assert!((chrf(pairs) - expected).abs() < 1e-9, "{}", chrf(pairs));
        is(&[("abc", "a")], 71.428_571_428_571_43);
        is(&[("abcdefgh", "abcdefgh"), ("abcdefgh", "a")], 98.451_327_433_628_31);
        is(&[("", "a")], 0.0);
    }
}
