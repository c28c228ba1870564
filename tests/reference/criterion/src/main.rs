//! The function by criterion; its estimates go to `$CRITERION_HOME/function/new/estimates.json`.

mod function;

use std::hint::black_box;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("function", |b| b.iter(|| function::function(black_box(function::STEPS))));
    criterion.final_summary();
}
