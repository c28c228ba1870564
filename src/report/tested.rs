//! How tests ended: counted, and as one file of JUnit's XML for whoever shows such files.

use std::time::Duration;

use crate::event::Tally;
use crate::format::junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite, has_failed, report};

/// One test.
#[derive(Debug)]
pub struct Tested {
    /// The target.
    pub label: String,
    /// How it ended.
    pub end: End,
    /// How long the run took that says so; 0 of one that was not begun.
    pub wall_ms: u64,
    /// The cases that its program told of; none where it told of none.
    pub cases: Vec<TestSuite>,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It ran and passed.
    Passed,
    /// It passed before, and nothing changed since.
    Cached,
    /// It ran and failed, as this says.
    Failed(String),
    /// It did not come to an end, for this reason.
    Skipped(String),
}

/// The tests in numbers.
pub fn tally<'a>(ends: impl IntoIterator<Item = &'a End>) -> Tally {
    let mut tally = Tally::default();
    for end in ends {
        match end {
            End::Passed => tally.passed += 1,
            End::Cached => {
                tally.passed += 1;
                tally.cached += 1;
            }
            End::Failed(_) => tally.failed += 1,
            End::Skipped(_) => tally.skipped += 1,
        }
    }
    tally
}

/// All tests as one report, a suite each: its own cases, or one by its label.
pub fn junit(project: &str, tests: Vec<Tested>, wall_ms: u64) -> Report {
    let mut report = report(project, tests.into_iter().map(suite).collect());
    report.set_time(Duration::from_millis(wall_ms));
    report
}

fn suite(test: Tested) -> TestSuite {
    let mut suite = TestSuite::new(test.label.as_str());
    suite.set_time(Duration::from_millis(test.wall_ms));
    if test.end == End::Cached {
        suite.add_property(Property::new("cached", "true"));
    }
    let several = test.cases.len() > 1;
    for own in test.cases {
        suite.add_properties(own.properties);
        let of = own.name;
        suite.add_test_cases(own.test_cases.into_iter().map(|mut case| {
            // Suites of one program become one: what told their cases apart stays.
            if several && case.classname.is_none() {
                case.set_classname(of.as_str());
            }
            case
        }));
    }
    let is_told = match &test.end {
        End::Passed | End::Cached => !suite.test_cases.is_empty(),
        // A program may fail without a failed case, and be stopped amid its cases.
        End::Failed(_) => suite.test_cases.iter().any(has_failed),
        End::Skipped(_) => false,
    };
    if !is_told {
        suite.add_test_case(TestCase::new(test.label.as_str(), status(&test.end)));
    }
    suite
}

fn status(end: &End) -> TestCaseStatus {
    match end {
        End::Passed | End::Cached => TestCaseStatus::success(),
        End::Failed(message) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let first = message.lines().next().unwrap_or_default();
            status.set_message(first.trim_end_matches(':')).set_description(message.as_str());
            status
        }
        End::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::junit::{read, write};

    fn test(label: &str, end: End, cases: &str) -> Tested {
        let cases = if cases.is_empty() { Vec::new() } else { read(cases).expect("read") };
        Tested { label: label.into(), end, wall_ms: 1500, cases }
    }

    const CASES: &str = r#"<testsuites><testsuite name="one"><testcase name="a"/></testsuite>
        <testsuite name="two"><testcase name="a" classname="own"/></testsuite></testsuites>"#;
    const FAILED: &str =
        r#"<testsuite name="one"><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>"#;

    #[test]
    fn tests_are_counted() {
        let ends = [End::Passed, End::Cached, End::Failed(String::new()), End::Skipped(String::new()), End::Cached];
        assert_eq!(tally(&ends), Tally { passed: 3, cached: 2, failed: 1, skipped: 1 });
    }

    #[test]
    fn each_test_is_a_suite() {
        let failure = || End::Failed("`x` failed (exit status: 1):\n  a < b".into());
        let report = junit(
            "app",
            vec![
                test("lint", End::Cached, ""),
                test("unit", End::Passed, CASES),
                test("slow", failure(), FAILED),
                test("odd", failure(), CASES),
                test("late", End::Skipped("because slow failed".into()), ""),
            ],
            4000,
        );
        let counts: Vec<_> = report.test_suites.iter().map(|s| (s.tests, s.failures, s.skipped)).collect();
        assert_eq!(counts, [(1, 0, 0), (2, 0, 0), (2, 1, 0), (3, 1, 0), (1, 0, 1)]);
        assert_eq!((report.tests, report.failures, report.skipped), (9, 2, 1));
        let text = write(&report);
        for part in [
            "<testsuites name=\"app\" tests=\"9\"",
            "<testsuite name=\"lint\" tests=\"1\"",
            "<property name=\"cached\" value=\"true\"/>",
            "<testcase name=\"lint\"/>",
            "<testcase name=\"a\" classname=\"one\"/>",
            "<testcase name=\"a\" classname=\"own\"/>",
            "<skipped message=\"because slow failed\"/>",
            "<failure message=\"`x` failed (exit status: 1)\">`x` failed (exit status: 1):\n  a &lt; b</failure>",
            "time=\"1.500\"",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert_eq!(read(&text).expect("read").len(), 5);
    }
}
