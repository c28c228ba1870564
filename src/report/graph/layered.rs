//! Places nodes in columns, what they stand on to their left: a layered layout.
//!
//! Why our own: of the libraries there are, one takes minutes at seven hundred nodes and the other gives no
//! course for edges that pass a column, which then run through nodes. And ours may use what is special
//! here: nodes come in topological order, and all long edges of one node share one trunk, so that a
//! dataset under five hundred targets is one line that branches, not five hundred lines.
//!
//! The steps: parts that are not connected are laid out each for itself and packed; a node's column is the
//! first after what it stands on that is not full; a long edge gets a bend in each column it passes; the
//! order within columns is by mean place of neighbours, to and fro, keeping the one with the fewest
//! crossings; heights are least squares to the neighbours' with the order kept (isotonic regression).

/// Between columns, at least.
const COLUMN_GAP: f64 = 56.0;
/// Between nodes of a column.
const ROW_GAP: f64 = 14.0;
/// What a passing edge takes of a column.
const BEND_HEIGHT: f64 = 6.0;
/// Height of a node.
pub(super) const NODE_HEIGHT: f64 = 42.0;
/// Between parts that are not connected.
const PART_GAP: f64 = 36.0;
/// Rounds of ordering and of placing: more change nothing that is seen.
const ROUNDS: usize = 14;

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Of the whole.
    pub width: f64,
    /// Of the whole.
    pub height: f64,
    /// Left, top and width of each node.
    pub nodes: Vec<(f64, f64, f64)>,
    /// Each edge.
    pub edges: Vec<Route>,
}

/// The course of an edge: pairs of points with a level run from the first to the second.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What is stood on.
    pub from: usize,
    /// What stands on it.
    pub to: usize,
    /// Left end, right end and height of each level run; between them it swings.
    pub runs: Vec<(f64, f64, f64)>,
}

/// Lays out nodes of these widths, in topological order.
pub fn lay_out(widths: &[f64], stands_on: &[Vec<usize>]) -> Layout {
    let mut parts: Vec<(Vec<usize>, Layout)> = Vec::new();
    for members in connected(stands_on) {
        let place: std::collections::BTreeMap<usize, usize> =
            members.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let under: Vec<Vec<usize>> =
            members.iter().map(|old| stands_on[*old].iter().map(|o| place[o]).collect()).collect();
        let widths: Vec<f64> = members.iter().map(|old| widths[*old]).collect();
        let layout = Columns::new(&widths, &under).lay_out();
        parts.push((members, layout));
    }
    pack(widths.len(), parts)
}

/// The connected parts, large ones first.
fn connected(stands_on: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut above: Vec<usize> = (0..stands_on.len()).collect();
    fn top(above: &mut [usize], mut i: usize) -> usize {
        while above[i] != i {
            above[i] = above[above[i]];
            i = above[i];
        }
        i
    }
    for (node, under) in stands_on.iter().enumerate() {
        for other in under {
            let (a, b) = (top(&mut above, node), top(&mut above, *other));
            above[a.max(b)] = a.min(b);
        }
    }
    let mut parts: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    for node in 0..stands_on.len() {
        parts.entry(top(&mut above, node)).or_default().push(node);
    }
    let mut parts: Vec<Vec<usize>> = parts.into_values().collect();
    parts.sort_by_key(|members| std::cmp::Reverse(members.len()));
    parts
}

/// Puts parts side by side on shelves about as wide as all is high.
fn pack(count: usize, parts: Vec<(Vec<usize>, Layout)>) -> Layout {
    let area: f64 = parts.iter().map(|(_, l)| (l.width + PART_GAP) * (l.height + PART_GAP)).sum();
    let widest = parts.iter().map(|(_, l)| l.width).fold(0.0, f64::max);
    let shelf_width = widest.max((area * 1.8).sqrt());
    let mut whole = Layout { nodes: vec![(0.0, 0.0, 0.0); count], ..Layout::default() };
    let (mut x, mut y, mut shelf_height) = (0.0, 0.0, 0.0_f64);
    for (members, layout) in parts {
        if x > 0.0 && x + layout.width > shelf_width {
            (x, y, shelf_height) = (0.0, y + shelf_height + PART_GAP, 0.0);
        }
        for (member, (left, top, width)) in members.iter().zip(&layout.nodes) {
            whole.nodes[*member] = (left + x, top + y, *width);
        }
        for route in layout.edges {
            let runs = route.runs.iter().map(|(from, to, at)| (from + x, to + x, at + y)).collect();
            whole.edges.push(Route { from: members[route.from], to: members[route.to], runs });
        }
        whole.width = whole.width.max(x + layout.width);
        whole.height = whole.height.max(y + layout.height);
        shelf_height = shelf_height.max(layout.height);
        x += layout.width + PART_GAP;
    }
    whole
}

/// One connected part on its way: vertices are the nodes, then the bends.
struct Columns<'a> {
    widths: &'a [f64],
    stands_on: &'a [Vec<usize>],
    column: Vec<usize>,
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    /// For each node its trunk: the bends to its right, column by column.
    trunks: Vec<Vec<usize>>,
    order: Vec<Vec<usize>>,
    y: Vec<f64>,
}

impl<'a> Columns<'a> {
    fn new(widths: &'a [f64], stands_on: &'a [Vec<usize>]) -> Self {
        let column = columns(stands_on);
        let count = stands_on.len();
        let mut this = Self {
            widths,
            stands_on,
            left: vec![Vec::new(); count],
            right: vec![Vec::new(); count],
            trunks: vec![Vec::new(); count],
            order: vec![Vec::new(); column.iter().max().map_or(0, |c| c + 1)],
            y: Vec::new(),
            column,
        };
        this.add_bends();
        for vertex in 0..this.column.len() {
            this.order[this.column[vertex]].push(vertex);
        }
        this
    }

    fn add_bends(&mut self) {
        for to in 0..self.stands_on.len() {
            for from in &self.stands_on[to] {
                let wanted = self.column[to] - self.column[*from] - 1;
                while self.trunks[*from].len() < wanted {
                    let before = self.trunks[*from].last().copied().unwrap_or(*from);
                    let bend = self.column.len();
                    self.column.push(self.column[before] + 1);
                    self.left.push(Vec::new());
                    self.right.push(Vec::new());
                    self.trunks[*from].push(bend);
                    self.join(before, bend);
                }
                let last = if wanted == 0 { *from } else { self.trunks[*from][wanted - 1] };
                self.join(last, to);
            }
        }
    }

    fn join(&mut self, left: usize, right: usize) {
        self.right[left].push(right);
        self.left[right].push(left);
    }

    fn is_bend(&self, vertex: usize) -> bool {
        vertex >= self.stands_on.len()
    }

    fn lay_out(mut self) -> Layout {
        self.uncross();
        self.place();
        let (lefts, widths) = self.column_places();
        let half = |v: usize| if self.is_bend(v) { BEND_HEIGHT / 2.0 } else { NODE_HEIGHT / 2.0 };
        let least = (0..self.y.len()).map(|v| self.y[v] - half(v)).fold(f64::INFINITY, f64::min);
        let most = (0..self.y.len()).map(|v| self.y[v] + half(v)).fold(f64::NEG_INFINITY, f64::max);
        let nodes = (0..self.stands_on.len())
            .map(|v| (lefts[self.column[v]], self.y[v] - half(v) - least, widths[self.column[v]]))
            .collect();
        let mut edges = Vec::new();
        for (to, under) in self.stands_on.iter().enumerate() {
            for from in under {
                let bends = self.column[to] - self.column[*from] - 1;
                let course = std::iter::once(from).chain(&self.trunks[*from][..bends]).chain(std::iter::once(&to));
                let runs = course.map(|v| {
                    let (left, width) = (lefts[self.column[*v]], widths[self.column[*v]]);
                    let (begin, end) = match *v {
                        v if v == *from => (left + width, left + width),
                        v if v == to => (left, left),
                        _ => (left, left + width),
                    };
                    (begin, end, self.y[*v] - least)
                });
                edges.push(Route { from: *from, to, runs: runs.collect() });
            }
        }
        let width = lefts.last().zip(widths.last()).map_or(0.0, |(left, width)| left + width);
        Layout { width, height: most - least, nodes, edges }
    }

    /// Left end and width of each column; where edges go far up or down, there is more room for it.
    fn column_places(&self) -> (Vec<f64>, Vec<f64>) {
        let mut x = 0.0;
        let (mut lefts, mut widths) = (Vec::new(), Vec::new());
        for column in &self.order {
            let width = column.iter().filter(|v| !self.is_bend(**v)).map(|v| self.widths[*v]).fold(0.0, f64::max);
            let steps = column.iter().flat_map(|v| self.right[*v].iter().map(|to| (self.y[*v] - self.y[*to]).abs()));
            lefts.push(x);
            widths.push(width);
            x += width + COLUMN_GAP + (steps.fold(0.0, f64::max) / 5.0).min(90.0);
        }
        (lefts, widths)
    }

    /// Orders the columns so that few edges cross.
    fn uncross(&mut self) {
        let mut places = self.places();
        let mut best = (self.crossings(&places), self.order.clone());
        for round in 0..ROUNDS {
            // The first rounds also bring trunks to the middle of what hangs on them.
            if best.0 == 0 && round >= 4 {
                break;
            }
            let columns = self.order.len();
            for step in 0..columns {
                let (column, beside) =
                    if round % 2 == 0 { (step, &self.left) } else { (columns - 1 - step, &self.right) };
                let mut keyed: Vec<(f64, usize)> = self.order[column]
                    .iter()
                    .map(|v| match beside[*v].len() {
                        0 => (places[*v] as f64, *v),
                        n => (beside[*v].iter().map(|o| places[*o] as f64).sum::<f64>() / n as f64, *v),
                    })
                    .collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.order[column] =
                    keyed.chunk_by(|a, b| a.0 == b.0).flat_map(|equal| self.bends_amid(equal)).collect();
                self.order[column].iter().enumerate().for_each(|(place, v)| places[*v] = place);
            }
            let now = self.crossings(&places);
            if now <= best.0 {
                best = (now, self.order.clone());
            }
        }
        self.order = best.1;
    }

    /// Of vertices that belong at one height, the passing edges go in the middle: a trunk stays level.
    fn bends_amid(&self, equal: &[(f64, usize)]) -> Vec<usize> {
        let (bends, mut nodes): (Vec<usize>, Vec<usize>) =
            equal.iter().map(|(_, v)| *v).partition(|v| self.is_bend(*v));
        let middle = nodes.len() / 2;
        nodes.splice(middle..middle, bends);
        nodes
    }

    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.column.len()];
        for column in &self.order {
            column.iter().enumerate().for_each(|(place, v)| places[*v] = place);
        }
        places
    }

    /// How many pairs of edges cross: inversions, counted with a tree of sums.
    fn crossings(&self, places: &[usize]) -> usize {
        let mut crossings = 0;
        for pair in self.order.windows(2) {
            let mut sums = vec![0; pair[1].len() + 1];
            let mut before = 0;
            for vertex in &pair[0] {
                let mut ends: Vec<usize> = self.right[*vertex].iter().map(|v| places[*v]).collect();
                ends.sort_unstable();
                for end in &ends {
                    let mut i = end + 1;
                    let mut not_after = 0;
                    while i > 0 {
                        not_after += sums[i];
                        i &= i - 1;
                    }
                    crossings += before - not_after;
                }
                for end in ends {
                    let mut i = end + 1;
                    while i < sums.len() {
                        sums[i] += 1;
                        i += i & i.wrapping_neg();
                    }
                    before += 1;
                }
            }
        }
        crossings
    }

    /// Gives each vertex a height near its neighbours'.
    fn place(&mut self) {
        self.y = vec![0.0; self.column.len()];
        for column in self.order.clone() {
            let offsets = self.offsets(&column);
            let middle = offsets.last().copied().unwrap_or(0.0) / 2.0;
            column.iter().zip(&offsets).for_each(|(v, offset)| self.y[*v] = offset - middle);
        }
        for round in 0..2 * ROUNDS {
            let columns = self.order.len();
            for step in 0..columns {
                let column = if round % 2 == 0 { step } else { columns - 1 - step };
                self.place_column(column, round);
            }
        }
    }

    /// Distance of each vertex of a column from the first, when they stand as close as they may.
    fn offsets(&self, column: &[usize]) -> Vec<f64> {
        let half = |v: usize| if self.is_bend(v) { BEND_HEIGHT / 2.0 } else { (NODE_HEIGHT + ROW_GAP) / 2.0 };
        let mut at = 0.0;
        let mut offsets = Vec::with_capacity(column.len());
        for (i, vertex) in column.iter().enumerate() {
            if i > 0 {
                at += half(column[i - 1]) + half(*vertex);
            }
            offsets.push(at);
        }
        offsets
    }

    /// Least squares to what the neighbours want, the order and the distances kept.
    fn place_column(&mut self, column: usize, round: usize) {
        let vertices = &self.order[column];
        let offsets = self.offsets(vertices);
        // Early rounds look to one side, which spreads; the last look to both, which evens out.
        let sides = match round {
            r if r + 6 >= 2 * ROUNDS => (1.0, 1.0),
            r if r % 2 == 0 => (1.0, 0.05),
            _ => (0.05, 1.0),
        };
        let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
        for (vertex, offset) in vertices.iter().zip(&offsets) {
            let (mut sum, mut weight) = (0.01 * self.y[*vertex], 0.01);
            for (beside, side) in [(&self.left[*vertex], sides.0), (&self.right[*vertex], sides.1)] {
                for other in beside {
                    // Long edges are to be straight before short ones are.
                    let pull = match (self.is_bend(*vertex), self.is_bend(*other)) {
                        (true, true) => 8.0,
                        (false, false) => 1.0,
                        _ => 2.0,
                    } * side
                        / (beside.len() as f64).sqrt();
                    sum += pull * self.y[*other];
                    weight += pull;
                }
            }
            blocks.push((sum / weight - offset, weight, 1));
            while let [.., a, b] = blocks[..]
                && a.0 > b.0
            {
                blocks.pop();
                let merged = ((a.0 * a.1 + b.0 * b.1) / (a.1 + b.1), a.1 + b.1, a.2 + b.2);
                *blocks.last_mut().expect("two were there") = merged;
            }
        }
        let heights = blocks.iter().flat_map(|(at, _, n)| std::iter::repeat_n(*at, *n));
        let placed: Vec<(usize, f64)> =
            vertices.iter().zip(heights.zip(&offsets)).map(|(v, (at, offset))| (*v, at + offset)).collect();
        placed.into_iter().for_each(|(v, y)| self.y[v] = y);
    }
}

/// A column for each node: after what it stands on, none with too many, and what stands on nothing close to
/// what needs it.
fn columns(stands_on: &[Vec<usize>]) -> Vec<usize> {
    // About as many rows as make the whole some two times as wide as high.
    let rows_max = ((stands_on.len() as f64).sqrt() * 1.8).max(12.0) as usize;
    let mut filled: Vec<usize> = Vec::new();
    let mut column: Vec<usize> = Vec::with_capacity(stands_on.len());
    for under in stands_on {
        let mut at = under.iter().map(|i| column[*i] + 1).max().unwrap_or(0);
        while filled.get(at).is_some_and(|n| *n >= rows_max) {
            at += 1;
        }
        filled.resize(filled.len().max(at + 1), 0);
        filled[at] += 1;
        column.push(at);
    }
    let mut next = vec![usize::MAX; stands_on.len()];
    for node in (0..stands_on.len()).rev() {
        if stands_on[node].len() <= 1 && next[node] != usize::MAX {
            let room = (column[node] + 1..next[node]).rev().find(|at| filled[*at] < rows_max);
            if let Some(at) = room.filter(|_| stands_on[node].is_empty()) {
                filled[column[node]] -= 1;
                filled[at] += 1;
                column[node] = at;
            }
        }
        stands_on[node].iter().for_each(|other| next[*other] = next[*other].min(column[node]));
    }
    // Columns that became empty are taken out.
    let mut kept = 0;
    let new: Vec<usize> = filled.iter().map(|n| (kept, kept += usize::from(*n > 0)).0).collect();
    column.into_iter().map(|c| new[c]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stands_on: &[Vec<usize>]) -> Layout {
        let layout = lay_out(&vec![100.0; stands_on.len()], stands_on);
        for (to, under) in stands_on.iter().enumerate() {
            for from in under {
                let (a, b) = (layout.nodes[*from], layout.nodes[to]);
                assert!(a.0 + a.2 < b.0, "{from} is not left of {to}");
            }
        }
        for (i, a) in layout.nodes.iter().enumerate() {
            assert!(a.0 >= -0.01 && a.1 >= -0.01 && a.0 + a.2 <= layout.width + 0.01);
            assert!(a.1 + NODE_HEIGHT <= layout.height + 0.01);
            for b in &layout.nodes[i + 1..] {
                let apart = a.0 + a.2 <= b.0 || b.0 + b.2 <= a.0;
                assert!(apart || (a.1 - b.1).abs() >= NODE_HEIGHT, "two nodes overlap");
            }
            for run in layout.edges.iter().flat_map(|e| &e.runs) {
                let passes = run.0 < a.0 + a.2 - 0.01 && run.1 > a.0 + 0.01 && run.1 > run.0;
                assert!(!passes || run.2 < a.1 || run.2 > a.1 + NODE_HEIGHT, "an edge runs through a node");
            }
        }
        layout
    }

    #[test]
    fn a_chain_is_a_straight_line() {
        let layout = check(&[vec![], vec![0], vec![1], vec![2]]);
        assert!(layout.nodes.iter().all(|n| (n.1 - layout.nodes[0].1).abs() < 0.5));
    }

    #[test]
    fn two_pairs_do_not_cross() {
        // 0 <- 3 and 1 <- 2, joined by 4: drawn in the order of the list they would.
        let stands_on = [vec![], vec![], vec![1], vec![0], vec![2, 3]];
        let layout = check(&stands_on);
        assert_eq!(layout.nodes[0].1 < layout.nodes[1].1, layout.nodes[3].1 < layout.nodes[2].1);
    }

    #[test]
    fn a_long_edge_goes_round_and_shares_its_trunk() {
        let layout = check(&[vec![], vec![0], vec![1], vec![2, 0], vec![3, 0]]);
        let of = |to| layout.edges.iter().find(|e| e.from == 0 && e.to == to).unwrap().runs.clone();
        assert_eq!(of(3).len(), 4);
        assert_eq!(of(3)[..3], of(4)[..3], "one trunk for both");
    }

    #[test]
    fn a_wide_fan_is_folded_and_many_parts_are_packed() {
        let fan: Vec<Vec<usize>> = (0..400).map(|i| if i == 0 { vec![] } else { vec![0] }).collect();
        let layout = check(&fan);
        assert!(layout.height < 4_000.0, "{}", layout.height);
        let pairs: Vec<Vec<usize>> = (0..200).map(|i| if i % 2 == 0 { vec![] } else { vec![i - 1] }).collect();
        let layout = check(&pairs);
        assert!(layout.width > layout.height / 3.0 && layout.height > layout.width / 6.0);
        assert_eq!(lay_out(&[], &[]).nodes.len(), 0);
    }

    #[test]
    fn random_graphs_keep_the_rules() {
        let mut seed = 7_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for size in [2, 5, 30, 120] {
            let graph: Vec<Vec<usize>> = (0..size)
                .map(|i| {
                    let mut under: Vec<usize> = (0..random(4)).filter(|_| i > 0).map(|_| random(i)).collect();
                    under.sort_unstable();
                    under.dedup();
                    under
                })
                .collect();
            check(&graph);
        }
    }
}
