//! Bits by what they cost and bring: widths for each matrix that take no more than a budget together.

/// One way to store a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Width {
    /// Of a code.
    pub bits: usize,
    /// What the matrix takes.
    pub bytes: u64,
    /// What it costs in quality: a share of the model's divergence, in nats a token.
    pub cost: f64,
}

/// The number of the width chosen for each matrix, of those given for it in the order of their bytes; the sum of the costs is
/// as small as steps along the convex hulls make it. None where the smallest take more than `budget` bytes.
///
/// Costs are taken to add up, which small disturbances do. Every matrix begins at its smallest width; the step that saves most
/// for its bytes is taken, again and again, while it fits: Lagrange's multiplier, lowered by and by.
pub fn allocate(matrices: &[Vec<Width>], budget: u64) -> Option<Vec<usize>> {
    let hulls: Vec<Vec<usize>> = matrices.iter().map(|widths| hull(widths)).collect();
    let mut at = vec![0; matrices.len()];
    let mut bytes: u64 = matrices.iter().zip(&hulls).map(|(widths, hull)| widths[hull[0]].bytes).sum();
    if bytes > budget {
        return None;
    }
    // Steps of one hull save less and less, so in this order each comes after those before it.
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (m, (widths, hull)) in matrices.iter().zip(&hulls).enumerate() {
        for (step, pair) in hull.windows(2).enumerate() {
            steps.push((gain(&widths[pair[0]], &widths[pair[1]]), m, step));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    for (_, m, step) in steps {
        let (widths, hull) = (&matrices[m], &hulls[m]);
        let more = widths[hull[step + 1]].bytes - widths[hull[step]].bytes;
        if at[m] == step && bytes + more <= budget {
            at[m] = step + 1;
            bytes += more;
        }
    }
    Some(at.iter().zip(&hulls).map(|(at, hull)| hull[*at]).collect())
}

/// Cost saved for a byte more.
fn gain(from: &Width, to: &Width) -> f64 {
    (from.cost - to.cost) / (to.bytes - from.bytes) as f64
}

/// The widths on the lower convex hull of cost over bytes, from the smallest on.
fn hull(widths: &[Width]) -> Vec<usize> {
    let mut hull = vec![0];
    for i in 1..widths.len() {
        if widths[i].cost >= widths[*hull.last().expect("never empty")].cost {
            continue;
        }
        while let [.., before, last] = hull[..]
            && gain(&widths[before], &widths[last]) <= gain(&widths[last], &widths[i])
        {
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    fn widths(costs: [f64; 3]) -> Vec<Width> {
        [2, 4, 8].into_iter().zip(costs).map(|(bits, cost)| Width { bits, bytes: bits as u64 * 10, cost }).collect()
    }

    #[test]
    fn bits_go_where_they_save_most() {
        let matrices = [widths([9.0, 3.0, 0.1]), widths([1.0, 0.4, 0.0])];
        assert_eq!(allocate(&matrices, 39), None);
        assert_eq!(allocate(&matrices, 40), Some(vec![0, 0]));
        assert_eq!(allocate(&matrices, 60), Some(vec![1, 0]));
        assert_eq!(allocate(&matrices, 100), Some(vec![2, 0]));
        assert_eq!(allocate(&matrices, 1000), Some(vec![2, 2]));
    }

    #[test]
    fn a_width_that_is_worse_than_what_lies_around_it_is_passed_over() {
        assert_eq!(hull(&widths([9.0, 8.9, 0.0])), [0, 2]);
        assert_eq!(hull(&widths([9.0, 9.5, 9.2])), [0]);
        assert_eq!(hull(&widths([9.0, 2.0, 1.0])), [0, 1, 2]);
    }

    #[test]
    fn no_other_choice_of_what_fits_is_much_better() {
        let mut rng = Rng::new(3, "budget");
        for _ in 0..50 {
            let matrices: Vec<Vec<Width>> = (0..6)
                .map(|_| {
                    let top = f64::from(rng.between(0.1, 5.0));
                    widths([top, top / 7.0, top / 300.0])
                })
                .collect();
            let budget = 120 + (rng.between(0.0, 1.0) * 360.0) as u64;
            let cost = |chosen: &[usize]| -> f64 { chosen.iter().zip(&matrices).map(|(i, w)| w[*i].cost).sum() };
            let bytes = |chosen: &[usize]| -> u64 { chosen.iter().zip(&matrices).map(|(i, w)| w[*i].bytes).sum() };
            let found = allocate(&matrices, budget).expect("fits");
            assert!(bytes(&found) <= budget);
            let all = (0..3usize.pow(6)).map(|n| (0..6).map(|m| n / 3usize.pow(m) % 3).collect::<Vec<_>>());
            let best = all.filter(|c| bytes(c) <= budget).map(|c| cost(&c)).fold(f64::INFINITY, f64::min);
            // What is left over of the budget is less than one step.
            let widest = matrices.iter().map(|w| w[0].cost - w[1].cost).fold(0.0, f64::max);
            assert!(cost(&found) <= best + widest, "{} {best}", cost(&found));
        }
    }
}
