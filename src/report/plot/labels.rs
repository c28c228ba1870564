//! Where names stand, so that none covers another, nor what it names.

use super::canvas::{Canvas, text_width};

/// Of more points than these, names that find no room are left to the points' marks.
pub(super) const CROWD: usize = 24;

/// A place in a picture, from its upper left corner.
#[derive(Clone, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

impl Rect {
    pub(super) fn around(x: f64, y: f64, reach: f64) -> Self {
        Self { x: x - reach, y: y - reach, w: 2.0 * reach, h: 2.0 * reach }
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }

    fn holds(&self, other: &Self) -> bool {
        self.x <= other.x
            && other.x + other.w <= self.x + self.w
            && self.y <= other.y
            && other.y + other.h <= self.y + self.h
    }
}

/// What names must not cover.
pub(super) struct Labels {
    /// Where names may stand.
    frame: Rect,
    /// Where points are.
    pub(super) marks: Vec<(f64, f64)>,
    /// What they and their intervals cover.
    pub(super) points: Vec<Rect>,
    /// Names placed before.
    pub(super) names: Vec<Rect>,
    /// Lines: to be avoided where there is room.
    pub(super) lines: Vec<Rect>,
}

/// Whether nothing that is taken is there.
pub(super) fn is_free(taken: &[Rect], place: &Rect) -> bool {
    taken.iter().all(|t| !t.meets(place))
}

/// What a line covers.
fn along((x, y): (f64, f64), to: (f64, f64)) -> impl Iterator<Item = Rect> {
    let (dx, dy) = (to.0 - x, to.1 - y);
    let steps = (dx.hypot(dy) / 8.0).ceil().max(1.0);
    (0..=steps as i32).map(move |i| {
        let share = f64::from(i) / steps;
        Rect::around(x + dx * share, y + dy * share, 1.5)
    })
}

impl Labels {
    /// None yet.
    pub(super) fn within(frame: Rect) -> Self {
        Self { frame, marks: vec![], points: vec![], names: vec![], lines: vec![] }
    }

    pub(super) fn avoid_line(&mut self, line: &[(f64, f64)]) {
        self.lines.extend(line.windows(2).flat_map(|pair| along(pair[0], pair[1])));
    }

    /// Writes a name as near to its point as there is room, but not nearer than `least`; further off, with a line to it.
    /// In a crowd one that finds no room is left to its mark.
    pub(super) fn name(&mut self, c: &mut Canvas, (x, y): (f64, f64), least: f64, text: &str, is_crowd: bool) {
        let w = text_width(text);
        let mut places = Vec::new();
        for reach in [least, 22.0, 36.0, 52.0, 70.0, 92.0, 118.0] {
            for aside in [reach.min(30.0), 60.0 + reach / 2.0] {
                let sides = [(aside, 0.0), (-aside - w, 0.0), (aside, -reach), (aside, reach)];
                let others =
                    [(-aside - w, -reach), (-aside - w, reach), (-w / 2.0, -reach - 4.0), (-w / 2.0, reach + 4.0)];
                let moves = sides.into_iter().chain(others).filter(|_| aside <= reach || reach > least);
                places.extend(moves.map(|(dx, dy)| (reach, Rect { x: x + dx, y: y + dy - 7.0, w, h: 14.0 })));
            }
        }
        let within = |r: &Rect| self.frame.holds(r);
        let end = |r: &Rect| (x.clamp(r.x, r.x + r.w), if r.y > y { r.y + 1.0 } else { r.y + 13.0 });
        // A name belongs to the point that it is next to, or that its line leads to. Those in one place share it.
        let others: Vec<&(f64, f64)> = self.marks.iter().filter(|m| (m.0 - x).hypot(m.1 - y) > 8.0).collect();
        let is_clear = |reach: f64, r: &Rect| {
            let next_to = Rect { x: r.x - 12.0, y: r.y - 6.0, w: r.w + 24.0, h: r.h + 12.0 };
            if reach <= least {
                return others.iter().all(|m| !next_to.meets(&Rect::around(m.0, m.1, 1.0)));
            }
            let far = || others.iter().filter(|m| (m.0 - x).hypot(m.1 - y) > 14.0);
            along((x, y), end(r))
                .all(|part| is_free(&self.names, &part) && far().all(|m| !part.meets(&Rect::around(m.0, m.1, 6.0))))
        };
        // In a crowd long lines would be all that is seen.
        places.retain(|(reach, _)| !is_crowd || *reach <= 40.0);
        let has_room = |r: &Rect| within(r) && is_free(&self.points, r) && is_free(&self.names, r);
        let fits = |reach: f64, r: &Rect| has_room(r) && is_clear(reach, r);
        let place = places
            .iter()
            .find(|(reach, r)| fits(*reach, r) && is_free(&self.lines, r))
            .or_else(|| places.iter().find(|(reach, r)| fits(*reach, r)))
            .or_else(|| places.iter().find(|(_, r)| has_room(r)));
        let Some((reach, place)) = place.or(Some(&places[0]).filter(|_| !is_crowd)).cloned() else { return };
        if reach > least {
            c.line((x, y), end(&place), "a");
            self.lines.extend(along((x, y), end(&place)));
        }
        c.text(place.x, place.y + 11.0, "start", "", text);
        self.names.push(place);
    }
}

/// Heights at least so far apart, in the order they were, moved as little as going down once allows.
pub(super) fn spread(heights: &[f64], apart: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut placed = heights.to_vec();
    for pair in order.windows(2) {
        placed[pair[1]] = placed[pair[1]].max(placed[pair[0]] + apart);
    }
    placed
}

/// Takes heights that were spread up again where they went below this one.
pub(super) fn lift(heights: &mut [f64], apart: f64, lowest: f64) {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*b].total_cmp(&heights[*a]));
    let mut most = lowest;
    for i in order {
        heights[i] = heights[i].min(most);
        most = heights[i] - apart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_spread_and_keep_their_order() {
        assert_eq!(spread(&[10.0, 100.0, 12.0], 14.0), [10.0, 100.0, 24.0]);
        let mut heights = [114.0, 10.0, 100.0];
        lift(&mut heights, 14.0, 105.0);
        assert_eq!(heights, [105.0, 10.0, 91.0]);
    }
}
