//! What is said of programs that are timed.

use effai::measure::kept::{Row, Verdict};
use effai::measure::summary::Ratio;
use effai::report::timing::words::{busy_text, held};

use super::Book;
use crate::benchmark::{baseline, models, project, recipe};
use crate::support::Project;

pub(super) fn benchmarks(book: &mut Book) {
    book.chapter("Benchmarks");
    let one = |more: &str| format!("benchmark \"b\" {{\n    subject \"a\" {{ run \"true\"; }}\n    {more}\n}}\n");
    book.recipe("a benchmark of nothing", "benchmark \"b\" { precision 0.1; }\n");
    book.recipe("rounds from more to less", &one("rounds min=20 max=10"));
    book.recipe("two subjects of one name", &one("subject \"a\" { run \"false\"; }"));
    book.recipe("models that are compared", &one("compare \"models/x\""));
    of_models(book, &one);
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
    with("a baseline of an older version", Some(whole.replacen("\"version\":2", "\"version\":1", 1)));
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

fn of_models(book: &mut Book, one: &dyn Fn(&str) -> String) {
    book.recipe("a subject that is nothing", "benchmark \"b\" { subject \"a\"; }\n");
    let target = "command \"m\" { run \"true\"; output \"o\"; }\n";
    let both = one("").replace("\"a\" {", "\"a\" model=\"m\" {");
    book.recipe("a subject that is a program and a model", &format!("{both}{target}"));
    let inside =
        "benchmark \"b\" { subject \"a\" model=\"m\" environment=\"e\"; }\nenvironment \"e\" { project \"p\"; }\n";
    book.recipe("an environment of a model", &format!("{inside}{target}"));
    book.recipe("a workload of programs", &one("workload \"w\" prompt=8; backend \"candle\""));
    let model = |more: &str| format!("benchmark \"b\" {{\n    subject \"a\" model=\"m\"\n    {more}\n}}\n{target}");
    book.recipe("a workload of nothing", &model("workload \"w\""));
    book.recipe("a workload that is two", &model("workload \"w\" prompt=8 texts=8"));
    book.recipe("a size of another workload", &model("workload \"w\" texts=8 generate=4"));
    book.recipe("two workloads of one name", &model("workload \"w\" texts=8; workload \"w\" texts=9"));
    book.recipe("a backend that is there twice", &model("backend \"candle\" \"candle\""));
    let mut fails = |about: &str, project: Project| {
        // What can be built is there: the order does not change.
        project.effai(&["build", "m"]);
        book.say(about, &project, &["build", "reports/tiny"]);
    };
    fails("more tokens than a model reads", models::language("workload \"long\" prompt=60 generate=5"));
    fails("texts for a language model", models::language("workload \"sentences\" texts=4"));
    fails("a prompt for an encoder", models::encoder("workload \"chat\" prompt=8 generate=4"));
    fails("longer texts than an encoder reads", models::encoder("workload \"sentences\" texts=4 length=65"));
    fails("pictures of another size", models::sees("workload \"pictures\" pictures=2 size=24"));
    let none = models::language("workload \"chat\" prompt=8");
    none.edit("effai.kdl", "subject \"whole\" model=\"m\"", "subject \"whole\" model=\"c\"");
    let recipe = none.read("effai.kdl");
    none.write("effai.kdl", &format!("{recipe}command \"c\" {{ run \"touch\" \"o\"; output \"o\"; }}\n"));
    none.effai(&["build", "c"]);
    fails("a subject that is no model", none);
}
