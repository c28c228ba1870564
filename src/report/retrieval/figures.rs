//! The plots of retrieval.

use crate::measure::estimate::{Difference, Estimate};
use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::plot::dots::{self, Dots, Group, Mark};
use crate::report::plot::heat::{self, Heat};
use crate::report::plot::scatter::{self, Spot};
use crate::report::retrieval::{self, Test};
use crate::report::shown::{ROWS, out_of, shown};
use crate::report::words::cut;

/// All but the similarities, which are not among the numbers.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let mut figures = Vec::new();
    if !numbers.tests.is_empty() {
        figures.push(("recall".to_owned(), recall(numbers)));
        if numbers.subjects.len() > 1 {
            figures.push(("difference".to_owned(), difference(numbers)));
        }
        figures.push(("size".to_owned(), size(numbers, &numbers.tests[0])));
    }
    figures.extend(agreement(numbers).map(|svg| ("agreement".to_owned(), svg)));
    figures.extend(confusion(numbers).map(|svg| ("confusion".to_owned(), svg)));
    figures
}

/// Which models find the same pictures, of the first test: of two there is nothing to compare that with.
fn agreement(numbers: &Numbers) -> Option<String> {
    let test = numbers.tests.first().filter(|test| test.ranks.len() > 2)?;
    let shown = shown(numbers, ROWS);
    let of = |i: &usize| {
        shown.iter().map(|j| retrieval::agreement(&test.ranks[*i], &test.ranks[*j], 10) as f32).collect::<Vec<_>>()
    };
    let heat = Heat {
        title: &format!("Which models find the same: {}{}", test.name, out_of(numbers, ROWS)),
        note: "share of captions whose picture both have among the first ten, or neither has; dot: the most alike of the row",
        names: &shown.iter().map(|i| cut(&numbers.subjects[*i].name, NAME_LENGTH)).collect::<Vec<_>>(),
        values: &shown.iter().flat_map(of).collect::<Vec<_>>(),
        scale: "share",
        has_diagonal: false,
        colour: 0,
    };
    Some(heat::draw(&heat))
}

/// Classes that a square of them has room for.
pub const CLASSES: usize = 40;

/// Which classes the first model takes for which, of the first classification.
fn confusion(numbers: &Numbers) -> Option<String> {
    let zero = numbers.zero_shot.first().filter(|zero| (2..=CLASSES).contains(&zero.classes.len()))?;
    let row = zero.rows.first().filter(|row| row.named.len() == zero.classes.len().pow(2))?;
    let share = |given: &[u32]| -> Vec<f32> {
        let n = given.iter().sum::<u32>().max(1) as f32;
        given.iter().map(|count| *count as f32 / n).collect()
    };
    let heat = Heat {
        title: &format!("What {} takes for what: by {}", numbers.subjects[0].name, zero.column),
        note: "share of the pictures of a row\u{2019}s class that were given a column\u{2019}s; framed: right; dot: given most often",
        names: &zero.classes.iter().map(|class| cut(&class.name, NAME_LENGTH)).collect::<Vec<_>>(),
        values: &row.named.chunks(zero.classes.len()).flat_map(share).collect::<Vec<_>>(),
        scale: "share",
        has_diagonal: true,
        colour: 0,
    };
    Some(heat::draw(&heat))
}

/// Names beside a square are cut to so many characters.
const NAME_LENGTH: usize = 26;

fn recall(numbers: &Numbers) -> String {
    let mark = |i: usize, estimate: Estimate, d: Option<Difference>| Mark {
        label: numbers.subjects[i].name.clone(),
        colour: i,
        estimate,
        text: format!("{:.3}", estimate.value),
        sign: d.map_or(0, |d| d.sign()),
        hollow: false,
    };
    let shown = shown(numbers, ROWS);
    let groups: Vec<Group> = numbers
        .tests
        .iter()
        .map(|test| Group {
            name: test.name.clone(),
            line: test.chance,
            marks: shown
                .iter()
                .map(|i| mark(*i, test.rows[*i].t2i["recall@10"], test.rows[*i].difference("recall@10")))
                .collect(),
        })
        .collect();
    let share = "share of captions whose picture is among the first ten";
    let x_name = match &numbers.subjects[..] {
        [first, _, ..] => format!("{share}; a triangle at the right: differs from {} beyond noise", first.name),
        _ => share.to_owned(),
    };
    dots::draw(&Dots {
        title: &format!("R@10, text to picture, with 95 % intervals{}", out_of(numbers, ROWS)),
        x_name: &x_name,
        line_name: "chance",
        groups: &groups,
    })
}

fn difference(numbers: &Numbers) -> String {
    let shown = shown(numbers, ROWS);
    let groups: Vec<Group> = numbers
        .tests
        .iter()
        .map(|test| Group {
            name: test.name.clone(),
            line: 0.0,
            marks: shown
                .iter()
                .filter_map(|i| Some((*i, test.rows[*i].difference("recall@10")?)))
                .map(|(i, d)| Mark {
                    label: numbers.subjects[i].name.clone(),
                    colour: i,
                    estimate: Estimate { value: d.value, low: d.low, high: d.high },
                    text: crate::report::words::signed(d.value),
                    sign: d.sign(),
                    hollow: !d.stands_out,
                })
                .collect(),
        })
        .collect();
    let first = &numbers.subjects[0].name;
    dots::draw(&Dots {
        title: &format!("R@10 minus that of {first}, query by query{}", out_of(numbers, ROWS)),
        x_name: "paired difference with 95 % interval; hollow: within noise",
        line_name: first,
        groups: &groups,
    })
}

fn size(numbers: &Numbers, test: &Test) -> String {
    let named = shown(numbers, ROWS);
    let spots: Vec<Spot> = test
        .rows
        .iter()
        .enumerate()
        .map(|(i, row)| Spot {
            label: numbers.subjects[i].name.clone(),
            colour: i,
            x: numbers.subjects[i].megabytes(),
            y: row.t2i["recall@10"],
            is_named: named.contains(&i),
        })
        .collect();
    scatter::draw(&format!("Size against R@10: {}", test.name), "MB on disk", "R@10", &spots)
}

/// The similarities of a test's first captions and pictures, [n, n].
pub fn similarity(name: &str, colour: usize, test: &str, captions: &[String], values: &[f32]) -> Figure {
    let heat = Heat {
        title: &format!("Similarity of captions and pictures: {name}"),
        note: &format!(
            "the first {} of \u{201c}{test}\u{201d}; framed: the right picture; dot: the nearest of the row",
            captions.len()
        ),
        names: captions,
        values,
        scale: "cosine",
        has_diagonal: true,
        colour,
    };
    ("similarity".into(), heat::draw(&heat))
}
