//! What is said of programs that are timed.

use effai::measure::kept::{Row, Verdict};
use effai::measure::summary::Ratio;
use effai::report::timing::words::{busy_text, held};

use super::Book;
use crate::benchmark::{baseline, project, recipe};
use crate::support::Project;

pub(super) fn benchmarks(book: &mut Book) {
    book.chapter("Benchmarks");
    let one = |more: &str| format!("benchmark \"b\" {{\n    subject \"a\" {{ run \"true\"; }}\n    {more}\n}}\n");
    book.recipe("a benchmark of nothing", "benchmark \"b\" { precision 0.1; }\n");
    book.recipe("rounds from more to less", &one("rounds min=20 max=10"));
    book.recipe("two subjects of one name", &one("subject \"a\" { run \"false\"; }"));
    book.recipe("models as subjects", &one("compare \"models/x\""));
    book.recipe("a subject that fails", &one("").replace("\"true\"", "\"sh\" \"-c\" \"echo it broke >&2; exit 3\""));
    book.recipe("a subject that is not installed", &one("").replace("\"true\"", "\"no-such-program\""));
    let gate = "    baseline \"b.json\"\n";
    let mut with = |about: &str, text: Option<String>| {
        let project = project(gate);
        text.inspect(|text| project.write("b.json", text));
        book.say(about, &project, &["build"]);
    };
    let here = effai::util::machine::identity();
    let whole = baseline(1.0, &here, &["true", "count"]);
    with("a baseline that is not there", None);
    with("a baseline that is damaged", Some(whole[..200].to_owned()));
    with("a baseline of another version", Some(whole.replacen("\"version\":1", "\"version\":9", 1)));
    with("a baseline of another machine", Some(baseline(1.0, "another processor, 8 cores", &["true", "count"])));
    with("a baseline without a subject", Some(baseline(1.0, &here, &["true"])));
    let below = Project::new(&recipe("    baseline \"b.json\" slowdown=-0.1\n"));
    book.say("less than no slow-down", &below, &["build"]);
    let ratio = Ratio { value: 1.051, low: 1.047, high: 1.055, stands_out: true };
    let row = |verdict| Row { subject: "awk".into(), then_s: 0.01239, now_s: 0.01302, ratio, verdict };
    book.shown("a subject that became slower", &format!("{}\n", held(&row(Verdict::Slower), 0.02)));
    let busy = ["other programs kept 1.4 cores busy", "a probe of fixed work varied by 41 %"].map(str::to_owned);
    book.shown("a machine that was busy", &busy_text(&busy).expect("it was"));
}
