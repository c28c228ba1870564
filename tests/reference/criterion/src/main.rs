//! The function of a library by criterion; its estimates go to `$CRITERION_HOME/function/new/estimates.json`.
//!
//! Usage: `effai-against-criterion LIBRARY STEPS`

use std::hint::black_box;

use criterion::Criterion;
use libloading::{Library, Symbol};

fn main() {
    let mut args = std::env::args().skip(1);
    let (library, steps) = (args.next().expect("a library"), args.next().expect("steps"));
    let steps: u64 = steps.parse().expect("a number");
    // SAFETY: the library is `function.rs`, which does nothing when it is loaded, and has a function of this type.
    let library = unsafe { Library::new(library) }.expect("it loads");
    let function: Symbol<'_, extern "C" fn(u64) -> u64> = unsafe { library.get(b"function") }.expect("it is there");
    let mut criterion = Criterion::default();
    criterion.bench_function("function", |b| b.iter(|| function(black_box(steps))));
    criterion.final_summary();
}
