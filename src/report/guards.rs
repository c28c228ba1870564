//! What changed between two locks, held against the guards of the recipes: for whoever reviews a change.

use std::fmt::Write as _;

use serde_json::json;

use crate::format::junit;
use crate::format::junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use crate::lock::Claim;
use crate::recipe::terms::Guard;
use crate::util::text::bytes;

/// One target of both locks.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Its label.
    pub label: String,
    /// What the base says; none where it is new.
    pub was: Option<Claim>,
    /// What is now; none where it is gone.
    pub now: Option<Claim>,
    /// Its guards, each with where it stands: path and line.
    pub guards: Vec<(Guard, String, usize)>,
}

/// A guard and how it held.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    /// Which limit: `min 0.5`, `drop 0.02`.
    limit: String,
    /// Why it did not; none where it did.
    crossed: Option<String>,
}

/// A guard of a target, for all forms.
struct Verdict<'a> {
    label: &'a str,
    guard: &'a Guard,
    path: &'a str,
    line: usize,
    held: Held,
}

/// The whole of it.
#[derive(Debug)]
pub struct Guards<'a> {
    compared: &'a [Compared],
    base: &'a str,
}

fn judge(guard: &Guard, was: Option<f64>, now: Option<f64>) -> Vec<Held> {
    let name = &guard.metric;
    let limit = |what: &str, limit: Option<f64>, crosses: &dyn Fn(f64, f64) -> Option<String>| {
        let limit = limit?;
        let crossed = match now {
            None => Some(format!("`{name}` was not told")),
            Some(now) => crosses(limit, now),
        };
        Some(Held { limit: format!("{what} {limit}"), crossed })
    };
    [
        limit("min", guard.min, &|min, now| (now < min).then(|| format!("`{name}` is {now}, at least {min} is asked"))),
        limit("max", guard.max, &|max, now| (now > max).then(|| format!("`{name}` is {now}, at most {max} is asked"))),
        limit("drop", guard.drop, &|drop, now| {
            let was = was.filter(|was| was - now > drop)?;
            Some(format!("`{name}` fell from {was} to {now}, by more than {drop}"))
        }),
        limit("rise", guard.rise, &|rise, now| {
            let was = was.filter(|was| now - was > rise)?;
            Some(format!("`{name}` rose from {was} to {now}, by more than {rise}"))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl<'a> Guards<'a> {
    /// Of targets that were compared with a base, which has a name for people.
    pub fn new(compared: &'a [Compared], base: &'a str) -> Self {
        Self { compared, base }
    }

    fn verdicts(&self) -> Vec<Verdict<'a>> {
        let mut all = Vec::new();
        for target in self.compared {
            for (guard, path, line) in &target.guards {
                let value = |claim: &Option<Claim>| claim.as_ref()?.metrics.get(&guard.metric).copied();
                for held in judge(guard, value(&target.was), value(&target.now)) {
                    all.push(Verdict { label: &target.label, guard, path, line: *line, held });
                }
            }
        }
        all
    }

    /// What was crossed: label and why.
    pub fn crossed(&self) -> Vec<(String, String)> {
        let verdicts = self.verdicts().into_iter();
        verdicts.filter_map(|v| Some((v.label.to_owned(), v.held.crossed?))).collect()
    }

    /// A table for a comment: what changed, and what of it was crossed.
    pub fn markdown(&self) -> String {
        let crossed = self.crossed();
        let mut md = String::from("## effai\n\n");
        let changed: Vec<&Compared> = self
            .compared
            .iter()
            .filter(|t| t.was.as_ref().map(|c| c.artifact) != t.now.as_ref().map(|c| c.artifact))
            .collect();
        let _ = match crossed.len() {
            0 => writeln!(md, "{} of {} targets differ from {}.\n", changed.len(), self.compared.len(), self.base),
            n => writeln!(md, "**{n} of the declared limits crossed**, compared with {}.\n", self.base),
        };
        for (label, why) in &crossed {
            let _ = writeln!(md, "- :x: `{label}`: {why}");
        }
        if !crossed.is_empty() {
            md.push('\n');
        }
        if changed.is_empty() {
            return md;
        }
        md.push_str("| target | artifact | size | metrics |\n|---|---|---|---|\n");
        for target in changed {
            let short =
                |claim: &Option<Claim>| claim.as_ref().map_or("none".into(), |c| format!("`{}`", c.artifact.short()));
            let size = target.now.as_ref().map_or_else(String::new, |claim| bytes(claim.size));
            let mut metrics = Vec::new();
            for (name, now) in target.now.iter().flat_map(|claim| &claim.metrics) {
                let was = target.was.as_ref().and_then(|claim| claim.metrics.get(name));
                metrics.push(match was {
                    Some(was) if was == now => continue,
                    Some(was) => format!("{name} {was:.4} → {now:.4}"),
                    None => format!("{name} {now:.4}"),
                });
            }
            let (was, now) = (short(&target.was), short(&target.now));
            let _ = writeln!(md, "| `{}` | {was} → {now} | {size} | {} |", target.label, metrics.join(", "));
        }
        md
    }

    /// JUnit's XML: each limit is a case.
    pub fn junit(&self) -> String {
        let mut suite = TestSuite::new("effai guards");
        for verdict in self.verdicts() {
            let mut status = TestCaseStatus::success();
            if let Some(why) = verdict.held.crossed {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why);
            }
            let mut case = TestCase::new(format!("{} {}", verdict.guard.metric, verdict.held.limit), status);
            case.set_classname(verdict.label);
            suite.add_test_case(case);
        }
        junit::write(&junit::report("effai", vec![suite]))
    }

    /// SARIF 2.1.0 (OASIS): what was crossed, at the guard's line of the recipe.
    pub fn sarif(&self) -> String {
        let results: Vec<serde_json::Value> = self
            .verdicts()
            .into_iter()
            .filter_map(|verdict| {
                Some(json!({
                    "ruleId": "guard",
                    "level": "error",
                    "message": { "text": format!("{}: {}", verdict.label, verdict.held.crossed?) },
                    "locations": [{ "physicalLocation": {
                        "artifactLocation": { "uri": verdict.path },
                        "region": { "startLine": verdict.line },
                    } }],
                }))
            })
            .collect();
        let rule =
            json!({ "id": "guard", "shortDescription": { "text": "A metric crossed a limit that a recipe declares" } });
        let sarif = json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "effai", "version": env!("CARGO_PKG_VERSION"), "rules": [rule] } },
                "results": results,
            }],
        });
        serde_json::to_string_pretty(&sarif).expect("plain data") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_or_says_why_not() {
        let guard =
            Guard { metric: "recall@10".into(), min: Some(0.5), max: Some(0.9), drop: Some(0.02), rise: Some(0.1) };
        let crossed =
            |was, now| -> Vec<String> { judge(&guard, was, now).into_iter().filter_map(|held| held.crossed).collect() };
        assert!(crossed(Some(0.6), Some(0.59)).is_empty());
        assert!(crossed(None, Some(0.6)).is_empty());
        assert_eq!(crossed(Some(0.5), Some(0.4))[0], "`recall@10` is 0.4, at least 0.5 is asked");
        assert_eq!(crossed(Some(0.5), Some(0.4))[1], "`recall@10` fell from 0.5 to 0.4, by more than 0.02");
        assert_eq!(crossed(Some(0.6), Some(0.8)), ["`recall@10` rose from 0.6 to 0.8, by more than 0.1"]);
        assert_eq!(crossed(Some(0.85), Some(0.95)), ["`recall@10` is 0.95, at most 0.9 is asked"]);
        assert_eq!(crossed(Some(0.6), None).len(), 4);
    }
}
