//! The report's page: one HTML file that needs no network, and that is the same for the same numbers. Its script only arranges
//! what is there: without it the page is whole. It may ask nothing of anybody, which the page's own policy forbids besides.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{Environment, context};
use serde::Serialize;

use crate::failure::Failure;
use crate::measure::estimate::{Estimate, RESAMPLES};
use crate::report::beside::Beside;
use crate::report::figures::Figure;
use crate::report::numbers::{Numbers, Of, PERPLEXITY};
use crate::report::retrieval::page::Examples;
use crate::report::shown::{self, PANELS, ROWS};
use crate::report::tables::best;
use crate::report::timing::Timing;
use crate::report::{encoders, language, plot, predictions, retrieval, timing, told, words};

/// A table of the page, a row a model.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Headings over several columns, with how many.
    pub groups: Vec<(String, usize)>,
    /// Of each column.
    pub columns: Vec<String>,
    /// One a model.
    pub rows: Vec<Vec<Cell>>,
    /// Which model each row is of.
    pub order: Vec<usize>,
    /// Under the models' names, small, by row; none where there are none.
    pub notes: Vec<String>,
}

/// One place of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// Under it, small.
    pub note: String,
    /// The best of its column.
    pub best: bool,
    /// Above or below the first model beyond noise.
    pub mark: &'static str,
}

impl Table {
    /// A table from its columns.
    pub fn of(columns: Vec<(String, Vec<Cell>)>, models: usize) -> Self {
        let mut rows: Vec<Vec<Cell>> = (0..models).map(|_| Vec::new()).collect();
        let mut names = Vec::new();
        for (name, cells) in columns {
            names.push(name);
            rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
        }
        Self { groups: vec![], columns: names, rows, order: (0..models).collect(), notes: vec![] }
    }

    /// With a note for each model, in the models' order.
    #[must_use]
    pub fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// The rows in this order of the models.
    #[must_use]
    pub fn in_order(mut self, order: &[usize]) -> Self {
        self.rows = order.iter().map(|model| self.rows[*model].clone()).collect();
        self.notes = order.iter().filter_map(|model| self.notes.get(*model).cloned()).collect();
        self.order = order.to_vec();
        self
    }

    /// With headings over so many columns each.
    #[must_use]
    pub fn under(mut self, groups: &[(&str, usize)]) -> Self {
        self.groups = groups.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        self
    }
}

/// A column of numbers, its best marked.
pub fn plain(values: &[f64], decimals: usize, larger: bool) -> Vec<Cell> {
    // By what is shown: of two that look the same, none is better.
    let texts: Vec<String> = values.iter().map(|value| format!("{value:.decimals$}")).collect();
    let shown: Vec<f64> = texts.iter().map(|text| text.parse().unwrap_or(0.0)).collect();
    let cell = |(text, best)| Cell { text, best, ..Cell::default() };
    texts.into_iter().zip(best(&shown, larger)).map(cell).collect()
}

/// A share with its interval, in hundredths.
pub fn share(e: Estimate) -> Cell {
    Cell {
        text: format!("{:.1}", 100.0 * e.value),
        note: format!("{:.1}\u{2013}{:.1}", 100.0 * e.low, 100.0 * e.high),
        ..Cell::default()
    }
}

/// A plot within the page, which has the rules of its classes already.
fn inline(svg: &str) -> String {
    let rules = format!("<style>{}</style>", plot::style());
    svg.replacen(&rules, "", 1).replacen(r#" xmlns="http://www.w3.org/2000/svg""#, "", 1)
}

/// The page's frame, and what it has of each sort of models.
const TEMPLATES: [(&str, &str); 11] = [
    ("report.css", include_str!("templates/report.css")),
    ("report.html", include_str!("templates/report.html")),
    ("retrieval.html", include_str!("templates/retrieval.html")),
    ("examples.html", include_str!("templates/examples.html")),
    ("language.html", include_str!("templates/language.html")),
    ("encoders.html", include_str!("templates/encoders.html")),
    ("quantization.html", include_str!("templates/quantization.html")),
    ("timing.html", include_str!("templates/timing.html")),
    ("told.html", include_str!("templates/told.html")),
    ("predictions.html", include_str!("templates/predictions.html")),
    ("beside.html", include_str!("templates/beside.html")),
];

/// What the page does besides standing there.
const SCRIPT: &str = include_str!("templates/report.js");

/// A template's mistake, which no numbers should bring out.
fn bad(error: minijinja::Error) -> Failure {
    Failure::target(format!("the report's page cannot be made: {error}"))
}

fn environment() -> Result<Environment<'static>, Failure> {
    let mut environment = Environment::new();
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(bad)?;
    }
    Ok(environment)
}

/// The page of artifacts that stand beside each other.
pub fn of_beside(beside: &Beside) -> Result<String, Failure> {
    let [heading, lines @ ..] = &beside.table()[..] else { return Ok(String::new()) };
    let environment = environment()?;
    let template = environment.get_template("beside.html").map_err(bad)?;
    template.render(context! { heading, lines, style => plot::style() }).map_err(bad)
}

/// Fills the page's templates with the report's numbers, plots and examples.
pub fn html(numbers: &Numbers, plots: &[Figure], examples: &Examples) -> Result<String, Failure> {
    let environment = environment()?;
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let plots: BTreeMap<&str, String> = plots.iter().map(|(name, svg)| (name.as_str(), inline(svg))).collect();
    let swatches: Vec<String> = (0..numbers.subjects.len()).map(plot::swatch).collect();
    let is_language = numbers.of == Of::Language;
    let (summary, size, section, each) = match numbers.of {
        Of::Pictures => (retrieval::page::summary(numbers), retrieval::page::speed(numbers), "retrieval.html", "query"),
        Of::Language => (language::page::summary(numbers), language::page::sizes(numbers), "language.html", "record"),
        Of::Encoders => (encoders::page::summary(numbers), encoders::page::sizes(numbers), "encoders.html", "row"),
        Of::Told => (told::page::summary(numbers), Table::of(Vec::new(), 0), "told.html", "run"),
        Of::Predictions => (predictions::page::summary(numbers), Table::of(Vec::new(), 0), "predictions.html", "item"),
        Of::Timing => (Table::of(Vec::new(), 0), Table::of(Vec::new(), 0), "timing.html", "round"),
    };
    let (many, has_speed) =
        (if each == "query" { "queries" } else { &format!("{each}s") }, !numbers.machine.is_empty());
    let panels = shown::shown(numbers, PANELS);
    // Of those that are shown: the others' pictures would only lie there.
    let models = panels.iter().filter_map(|at| examples.models.get(*at)).flatten();
    let pictures: BTreeSet<usize> = models.flat_map(|query| query.found.iter().map(|(picture, _)| *picture)).collect();
    let has_panels = ["training", "records", "curves"].iter().any(|name| plots.contains_key(name))
        || !examples.models.is_empty()
        || !(numbers.zero_shot.is_empty() && numbers.answers.is_empty());
    let is_cut = numbers.subjects.len() > if has_panels { PANELS } else { ROWS };
    let template = environment.get_template("report.html").map_err(bad)?;
    template
        .render(context! {
            report => numbers,
            about => words::about(numbers),
            first,
            style => plot::style(),
            script => SCRIPT,
            is_many => numbers.subjects.len() > ROWS,
            is_cut,
            by => shown::by(numbers),
            panels,
            pictures,
            plots,
            swatches,
            examples,
            resamples => RESAMPLES,
            summary,
            size,
            is_language,
            is_told => numbers.of == Of::Told,
            is_of_targets => numbers.of.is_of_targets(),
            by_class => numbers.predicted.as_ref().and_then(predictions::page::by_class),
            fronts => told::page::fronts(numbers),
            timing => numbers.timing,
            workloads => timing::page::summaries(numbers),
            titles => numbers.timing.iter().flat_map(Timing::groups).map(|group| group.title()).collect::<Vec<_>>(),
            held => numbers.timing.as_ref().and_then(|t| Some(timing::page::against(t, t.against.as_ref()?))),
            meanwhile => numbers.timing.as_ref().map(timing::words::machine),
            noun => numbers.noun(),
            section,
            each,
            many,
            has_speed,
            encoded => numbers.encoded.iter().map(|e| encoders::page::encoded(numbers, e)).collect::<Vec<_>>(),
            retrieval => numbers.tests.iter().map(|t| retrieval::page::retrieval(t, first)).collect::<Vec<_>>(),
            zero_shot => numbers.zero_shot.iter().map(|z| retrieval::page::zero_shot(z, first)).collect::<Vec<_>>(),
            tables => numbers.texts.iter().map(|t| language::page::texts(numbers, t)).collect::<Vec<_>>(),
            has_perplexity => numbers.has(PERPLEXITY),
            names => numbers.texts.iter().map(language::words::texts_name).collect::<Vec<_>>(),
        })
        .map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures;
    use crate::report::retrieval::page::{Picture, Query};
    use crate::report::words::headline;

    fn pictures() -> String {
        let mut numbers = retrieval::tests::sample();
        numbers.headline = headline(&numbers);
        let query = |right| Query { caption: "a <cat>".into(), rank: 2, found: vec![(0, right)] };
        let picture = Picture { caption: "a \"cat\"".into(), mime: "image/png", data: "AAAA".into() };
        let examples = Examples {
            test: "unseen".into(),
            n: 100,
            pictures: vec![picture],
            models: vec![vec![query(true)], vec![query(false)], vec![query(true)]],
        };
        html(&numbers, &figures::all(&numbers, &[]), &examples).unwrap()
    }

    fn page_of(mut numbers: Numbers) -> String {
        numbers.headline = headline(&numbers);
        html(&numbers, &figures::all(&numbers, &[]), &Examples::default()).unwrap()
    }

    fn language() -> String {
        page_of(language::tests::sample())
    }

    fn quantization() -> String {
        page_of(crate::report::quantization::tests::sample())
    }

    fn encoders() -> String {
        page_of(encoders::tests::sample())
    }

    fn told() -> String {
        page_of(crate::report::told::tests::sample())
    }

    fn timing() -> String {
        page_of(crate::report::timing::tests::sample(1.5, &["other programs kept 1.4 cores busy"]))
    }

    fn timed_models() -> String {
        page_of(crate::report::timing::tests::models())
    }

    #[test]
    fn the_page_names_no_network_address() {
        for page in [pictures(), language(), quantization(), encoders(), told(), timing(), timed_models()] {
            assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src=\"//"));
            assert!(!page.contains("url(") && !page.contains("@import"));
        }
    }

    #[test]
    fn the_only_script_is_the_pages_own_and_asks_nobody() {
        for page in [pictures(), language(), quantization(), encoders(), told(), timing(), timed_models()] {
            assert_eq!(page.matches("<script").count(), 1);
            assert!(page.contains(&format!("<script>\n{SCRIPT}</script>")), "inline, and word for word");
            assert!(page.contains(
                "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\""
            ));
            assert!(!page.contains(" onload=") && !page.contains(" onclick=") && !page.contains("javascript:"));
        }
        let reaches_out =
            ["fetch", "XMLHttp", "WebSocket", "import", "eval", "Worker", "Storage", "cookie", "innerHTML", "location"];
        assert_eq!(reaches_out.iter().find(|word| SCRIPT.contains(**word)), None);
    }

    #[test]
    fn every_anchor_leads_somewhere() {
        for page in [pictures(), language(), quantization(), encoders(), told(), timing(), timed_models()] {
            assert!(page.matches("href=\"#").count() > 3);
            for part in page.split("href=\"#").skip(1) {
                let id = part.split('"').next().unwrap();
                assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
            }
        }
    }

    #[test]
    fn models_stand_by_their_divergence_in_every_table() {
        let page = quantization();
        for table in page.split("<tbody>").skip(1) {
            let place =
                |name: &str| table.find(&format!("</svg>{name}<")).unwrap_or_else(|| panic!("no {name}: {table}"));
            assert!(place("smollm2") < place("smollm2-Q8_0") && place("smollm2-Q8_0") < place("smollm2-q6"));
            assert!(place("smollm2-q4-gptq") < place("smollm2-q4") && place("smollm2-q4") < place("smollm2-q2"));
        }
        assert_eq!(page.matches("<small>recommended</small>").count(), 2);
        assert!(!page.contains("Records whose loss changed most"));
    }

    #[test]
    fn told_numbers_have_no_intervals_and_no_size() {
        let page = told();
        assert!(!page.contains("id=\"size\"") && !page.contains("#size") && !page.contains("bootstrap"), "{page}");
        assert!(page.contains("<small>not told</small>") && page.contains("&lt;wide&gt;") && page.contains("<rect "));
    }

    #[test]
    fn times_have_their_own_sections_and_say_that_the_machine_was_busy() {
        let page = timing();
        assert!(!page.contains("id=\"size\"") && !page.contains("#size") && page.contains("resamples of the rounds"));
        assert!(
            page.contains("median, ms")
                && page.contains("kept 1.4 cores busy. No difference")
                && page.contains("&lt;awk&gt;")
        );
        assert!(
            page.contains("<strong>Nothing can be said:</strong> the machine was busy.") && page.contains("not known")
        );
    }

    #[test]
    fn what_models_did_stands_by_workload() {
        let page = timed_models();
        let titles =
            ["<h3>Programs</h3>", "<h3>chat: prompt=256 generate=64</h3>", "<h3>cold: load=&quot;cold&quot;</h3>"];
        assert!(titles.iter().all(|title| page.matches(title).count() == 2), "{page}");
        assert!(page.contains("&lt;q4&gt; on mlx") && page.contains("generated tokens"), "{page}");
    }

    #[test]
    fn names_are_escaped_and_plots_are_not() {
        let page = pictures();
        assert!(page.contains("a &lt;cat&gt;") && page.contains("&lt;animals&gt;") && page.contains("<polygon"));
        assert_eq!(page.matches("<style>").count(), 1, "the plots' rules are there once");
        let page = language();
        assert!(page.contains("What is &lt;b&gt;?") && page.contains("<polygon") && !page.contains("R@10"));
        assert!(page.contains("an empty answer") && page.contains("of HTML | and<span title="), "{page}");
    }
}
