//! What would make a build shorter, in a few sentences; each with the number it rests on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Slice, critical_path};
use crate::util::text::{count, duration, percent};

/// From this share of the build's time on, one thing is what it depends on.
const MOST: f64 = 0.85;
/// Less than this share is not worth a sentence.
const LITTLE: f64 = 0.1;
/// The pools, by place.
const POOLS: [&str; 4] = ["cpu", "gpu", "machine", "network"];
const CPU: usize = 0;
const GPU: usize = 1;
const MACHINE: usize = 2;
const NETWORK: usize = 3;
/// Downloads at once, as the scheduler has it.
const NETWORK_DEPTH: usize = 4;

/// The sentences, the weightiest first. `wall_us` is of the whole build, which ran `jobs` at once.
pub fn advice(slices: &[Slice], jobs: usize, wall_us: u64) -> Vec<String> {
    let mut sentences = Vec::new();
    if slices.is_empty() || wall_us == 0 {
        return sentences;
    }
    let share = |us: u64| us as f64 / wall_us as f64;
    let path = critical_path(slices);
    let critical: u64 = path.iter().map(|i| slices[*i].took_us()).sum();
    let longest = &slices[*path.iter().max_by_key(|i| slices[**i].took_us()).expect("a path has an action")];
    sentences.push(more_jobs(slices, jobs, wall_us, share(critical)));
    if share(longest.took_us()) >= 0.4 {
        let threads = if longest.threads > 1 { String::new() } else { ", and it ran on one thread".into() };
        sentences.push(format!(
            "{} alone is {} of the time{threads}: a quicker or a smaller one, or one split into targets that run \
             side by side, is what counts",
            longest.label,
            percent(share(longest.took_us()))
        ));
    }
    sentences.extend(waiting(slices, wall_us));
    let idle = wall_us.saturating_sub(busy(slices));
    if share(idle) >= LITTLE {
        let first = slices.iter().map(|s| s.start_us).min().unwrap_or(0);
        sentences.push(format!(
            "in {} of the time no action ran ({} before the first began): that is judging, restoring and storing",
            percent(share(idle)),
            duration(first / 1000)
        ));
    }
    sentences
}

/// Whether more at once would help, by playing the build again with twice the jobs.
fn more_jobs(slices: &[Slice], jobs: usize, wall_us: u64, critical: f64) -> String {
    if critical >= MOST {
        let path = format!("the critical path is {} of the time", percent(critical));
        return format!("more jobs would not help: {path}");
    }
    let (now, then) = (play(slices, jobs), play(slices, jobs * 2));
    // What the play leaves out, judging and storing, stays.
    let saved = now.saturating_sub(then) as f64 / wall_us as f64;
    if saved >= LITTLE {
        let left = wall_us.saturating_sub(now.saturating_sub(then));
        return format!(
            "with {} instead of {jobs} it would take about {} ({} less), if the machine has the cores and the memory",
            count(jobs * 2, "job"),
            duration(left / 1000),
            percent(saved)
        );
    }
    format!("more jobs would hardly help: with {} it would save {}", jobs * 2, percent(saved))
}

/// Who waited for a pool although all under it was known.
fn waiting(slices: &[Slice], wall_us: u64) -> Vec<String> {
    let mut sentences = Vec::new();
    for (pool, why) in [
        ("gpu", "one at a time uses the GPU"),
        ("machine", "what uses the whole machine runs alone"),
        ("network", "only a few downloads run at once"),
    ] {
        let queued: Vec<u64> =
            slices.iter().filter(|s| s.pool == pool).map(|s| s.start_us.saturating_sub(s.ready_us)).collect();
        let longest = queued.iter().copied().max().unwrap_or(0);
        if longest as f64 / wall_us as f64 >= LITTLE {
            let who = queued.iter().filter(|us| **us > 1000).count();
            sentences.push(format!(
                "{} of pool {pool} waited for their turn, up to {}: {why}",
                count(who, "action"),
                duration(longest / 1000)
            ));
        }
    }
    sentences
}

/// Time in which anything ran.
fn busy(slices: &[Slice]) -> u64 {
    let mut spans: Vec<(u64, u64)> = slices.iter().map(|s| (s.start_us, s.end_us)).collect();
    spans.sort_unstable();
    let (mut total, mut until) = (0, 0);
    for (start, end) in spans {
        total += end.saturating_sub(start.max(until));
        until = until.max(end);
    }
    total
}

/// How long the actions take at this many jobs, the one with the longest chain above it first.
fn play(slices: &[Slice], jobs: usize) -> u64 {
    let (mut above, mut left): (Vec<Vec<usize>>, Vec<usize>) = (vec![Vec::new(); slices.len()], Vec::new());
    for (at, slice) in slices.iter().enumerate() {
        slice.after.iter().for_each(|under| above[*under].push(at));
        left.push(slice.after.len());
    }
    let mut height = vec![0; slices.len()];
    for at in super::by_start(slices).into_iter().rev() {
        height[at] = slices[at].took_us() + above[at].iter().map(|i| height[*i]).max().unwrap_or(0);
    }
    let pool = |at: usize| POOLS.iter().position(|p| *p == slices[at].pool).unwrap_or(CPU);
    let mut ready: [BinaryHeap<(u64, Reverse<usize>)>; 4] = Default::default();
    (0..slices.len()).filter(|i| left[*i] == 0).for_each(|i| ready[pool(i)].push((height[i], Reverse(i))));
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut depth, mut now) = ([0_usize; 4], 0);
    loop {
        for at_pool in [NETWORK, GPU, MACHINE, CPU] {
            let most = match at_pool {
                NETWORK => NETWORK_DEPTH,
                GPU => usize::from(depth[MACHINE] == 0 && depth[CPU] < jobs),
                MACHINE => usize::from(depth[CPU] + depth[GPU] == 0),
                _ if depth[MACHINE] > 0 => 0,
                _ => jobs.saturating_sub(depth[GPU]),
            };
            while depth[at_pool] < most
                && let Some((_, Reverse(at))) = ready[at_pool].pop()
            {
                depth[at_pool] += 1;
                running.push(Reverse((now + slices[at].took_us(), at)));
            }
        }
        let Some(Reverse((end, at))) = running.pop() else { return now };
        now = end;
        depth[pool(at)] -= 1;
        for next in &above[at] {
            left[*next] -= 1;
            if left[*next] == 0 {
                ready[pool(*next)].push((height[*next], Reverse(*next)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::slice;
    use super::*;

    fn check(slices: &[Slice], jobs: usize, wall_ms: u64, expected: &[&str]) {
        let found = advice(slices, jobs, wall_ms * 1000);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (sentence, words) in found.iter().zip(expected) {
            assert!(sentence.contains(words), "no {words:?} in {sentence:?}");
        }
    }

    #[test]
    fn a_chain_is_not_helped_by_jobs() {
        let chain = [slice("a", 0, 500, &[]), slice("b", 500, 700, &[0]), slice("c", 700, 1000, &[1])];
        check(&chain, 2, 1010, &["more jobs would not help: the critical path is 99 %", "a alone is 50 %"]);
    }

    #[test]
    fn a_fan_is() {
        let fan: Vec<Slice> = (0..8).map(|i| slice("x", i / 2 * 100, i / 2 * 100 + 100, &[])).collect();
        check(&fan, 2, 400, &["with 4 jobs instead of 2 it would take about 200 ms (50 % less)"]);
    }

    #[test]
    fn time_without_actions_is_told() {
        let late = [slice("a", 500, 1000, &[]), slice("b", 500, 1000, &[])];
        check(&late, 2, 1000, &["hardly", "a alone is 50 %", "in 50 % of the time no action ran (500 ms before"]);
    }

    #[test]
    fn what_needs_the_machine_waits() {
        let mut slices = vec![slice("a", 0, 500, &[]), slice("b", 500, 1000, &[])];
        slices[1].pool = "machine".into();
        slices[1].threads = 2;
        check(
            &slices,
            2,
            1000,
            &["hardly", "alone is 50 %", "1 action of pool machine waited for their turn, up to 500 ms"],
        );
    }
}
