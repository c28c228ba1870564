//! The report's page: one HTML file that needs no network.

use minijinja::{Environment, context};

use crate::failure::Failure;

/// Fills the page's template with the report's numbers, plots and picture strips.
pub fn html(
    report: &serde_json::Value,
    plots: &[(String, String)],
    strips: &serde_json::Value,
) -> Result<String, Failure> {
    let mut environment = Environment::new();
    let bad = |e: minijinja::Error| Failure::target(format!("the report's page cannot be made: {e}"));
    environment.add_template("report.html", include_str!("templates/report.html")).map_err(bad)?;
    let plots: Vec<&String> = plots.iter().map(|(_, svg)| svg).collect();
    let template = environment.get_template("report.html").map_err(bad)?;
    template
        .render(context! {
            report => minijinja::Value::from_serialize(report),
            strips => minijinja::Value::from_serialize(strips),
            plots,
        })
        .map_err(bad)
}
