//! JUnit's XML: what test runners write of their cases, and CI services read.
//!
//! There is no one form of it. What is read is what runners agree on: suites, which may lie in one another, with cases, each
//! of which passed, failed, ended with an error or was skipped. What is written is quick-junit's form, which is nextest's.
//!
//! Times, hosts and time stamps are not read: the same cases with the same ends are the same bytes, however long they took.

pub use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use quick_junit::XmlString;
use roxmltree::{Document, Node};

/// What differs from one run to the next, or is counted anew.
const PASSED_OVER: &[&str] = &[
    "time",
    "timestamp",
    "hostname",
    "tests",
    "failures",
    "errors",
    "skipped",
    "disabled",
    "name",
    "classname",
    "assertions",
];

/// Reads suites and their cases; says what keeps a text from being such a file.
pub fn read(text: &str) -> Result<Vec<TestSuite>, String> {
    let document = Document::parse(text).map_err(|e| format!("not XML: {e}"))?;
    let root = document.root_element();
    if !["testsuites", "testsuite"].contains(&root.tag_name().name()) {
        return Err(format!("not JUnit's XML: it begins with <{}> and not <testsuites>", root.tag_name().name()));
    }
    Ok(root.descendants().filter(|node| node.has_tag_name("testsuite")).filter_map(suite).collect())
}

/// As a file.
pub fn write(report: &Report) -> String {
    report.to_string().expect("what is written to memory is written")
}

/// A report of these suites.
pub fn report(name: &str, suites: Vec<TestSuite>) -> Report {
    let mut report = Report::new(name);
    report.add_test_suites(suites);
    report
}

/// Whether a case neither passed nor was skipped.
pub fn has_failed(case: &TestCase) -> bool {
    matches!(case.status, TestCaseStatus::NonSuccess { .. })
}

fn children<'a, 'input>(node: Node<'a, 'input>, name: &'static str) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

/// A suite without those in it, `outer/inner` by its name; none where it only wraps those.
fn suite(node: Node<'_, '_>) -> Option<TestSuite> {
    let around: Vec<Node<'_, '_>> = node.ancestors().filter(|node| node.has_tag_name("testsuite")).collect();
    let names = around.iter().rev().filter_map(|node| node.attribute("name")).filter(|name| !name.is_empty());
    let mut suite = TestSuite::new(names.collect::<Vec<_>>().join("/"));
    suite.add_properties(properties(node));
    suite.extra.extend(others(node));
    suite.add_test_cases(children(node, "testcase").map(case));
    suite.system_out = text_of(node, "system-out").map(Into::into);
    suite.system_err = text_of(node, "system-err").map(Into::into);
    let wraps = suite.test_cases.is_empty() && children(node, "testsuite").next().is_some();
    (!wraps).then_some(suite)
}

fn case(node: Node<'_, '_>) -> TestCase {
    let mut case = TestCase::new(node.attribute("name").unwrap_or_default(), status(node));
    if let Some(class) = node.attribute("classname") {
        case.set_classname(class);
    }
    if let Some(assertions) = node.attribute("assertions").and_then(|n| n.parse().ok()) {
        case.set_assertions(assertions);
    }
    case.extra.extend(others(node));
    case.add_properties(properties(node));
    case.system_out = text_of(node, "system-out").map(Into::into);
    case.system_err = text_of(node, "system-err").map(Into::into);
    case
}

/// How a case ended; of several ends, a failure before an error, and either before having been skipped.
fn status(node: Node<'_, '_>) -> TestCaseStatus {
    let of = |name| children(node, name).next();
    let (end, mut status) = match (of("failure"), of("error"), of("skipped")) {
        (Some(end), ..) => (end, TestCaseStatus::non_success(NonSuccessKind::Failure)),
        (None, Some(end), _) => (end, TestCaseStatus::non_success(NonSuccessKind::Error)),
        (None, None, Some(end)) => (end, TestCaseStatus::skipped()),
        (None, None, None) => return TestCaseStatus::success(),
    };
    if let Some(message) = end.attribute("message") {
        status.set_message(message);
    }
    if let Some(ty) = end.attribute("type") {
        status.set_type(ty);
    }
    if let Some(text) = text(end) {
        status.set_description(text);
    }
    status
}

fn properties(node: Node<'_, '_>) -> Vec<Property> {
    let all = children(node, "properties").flat_map(|node| children(node, "property"));
    // Some runners write a long value as text.
    let value =
        |node: Node<'_, '_>| node.attribute("value").map(str::to_owned).or_else(|| text(node)).unwrap_or_default();
    all.map(|node| Property::new(node.attribute("name").unwrap_or_default(), value(node))).collect()
}

/// What a runner says besides: `file`, `line`.
fn others(node: Node<'_, '_>) -> Vec<(XmlString, XmlString)> {
    let others = node.attributes().filter(|attribute| !PASSED_OVER.contains(&attribute.name()));
    others.map(|attribute| (attribute.name().into(), attribute.value().into())).collect()
}

fn text_of(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    let all: Vec<String> = children(node, name).filter_map(text).collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

/// All text in a node, CDATA too; none where there is none.
fn text(node: Node<'_, '_>) -> Option<String> {
    let text: String = node.children().filter(Node::is_text).filter_map(|child| child.text()).collect();
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As pytest writes it.
    const PYTEST: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.027"
 timestamp="2026-11-29T10:00:00.123456+00:00" hostname="box"><testcase classname="tests.test_a" name="test_good" time="0.001" />
<testcase classname="tests.test_a" name="test_bad[x-&lt;1&gt;]" time="0.002" file="tests/test_a.py" line="3"><failure message="assert 1 == 2">def test_bad():
&gt;       assert 1 == 2</failure></testcase><testcase classname="tests.test_a" name="test_later" time="0.000"><skipped
 type="pytest.skip" message="later">tests/test_a.py:9: later</skipped></testcase></testsuite></testsuites>"#;

    fn again(text: &str) -> String {
        write(&report("all", read(text).expect("read")))
    }

    #[test]
    fn cases_keep_what_they_are_and_lose_their_times() {
        let suites = read(PYTEST).expect("read");
        let [suite] = &suites[..] else { panic!("{suites:?}") };
        assert_eq!((suite.tests, suite.failures, suite.skipped, suite.errors), (3, 1, 1, 0));
        let bad = &suite.test_cases[1];
        assert_eq!(bad.name.as_str(), "test_bad[x-<1>]");
        assert!(has_failed(bad) && !has_failed(&suite.test_cases[2]));
        let text = again(PYTEST);
        for part in ["file=\"tests/test_a.py\"", "assert 1 == 2", "message=\"later\"", "classname=\"tests.test_a\""] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        for part in ["time=", "timestamp=", "hostname="] {
            assert!(!text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn another_run_that_took_longer_is_the_same_bytes() {
        let slower = PYTEST.replace("0.027", "9.5").replace("10:00:00", "11:00:00").replace("box", "other");
        assert_eq!(again(PYTEST), again(&slower));
        assert_ne!(again(PYTEST), again(&PYTEST.replace("test_good", "test_better")));
    }

    #[test]
    fn what_was_written_reads_as_it_was() {
        let once = again(PYTEST);
        assert_eq!(again(&once), once);
    }

    #[test]
    fn forms_of_other_runners_are_read() {
        let names = |text: &str| -> Vec<String> {
            let suites = read(text).expect("read");
            let names = |suite: &TestSuite| {
                suite.test_cases.iter().map(|case| format!("{}:{}", &*suite.name, &*case.name)).collect::<Vec<_>>()
            };
            suites.iter().flat_map(names).collect()
        };
        assert_eq!(names(r#"<testsuite name="s"><testcase name="a"/></testsuite>"#), ["s:a"]);
        let nested = r#"<testsuites><testsuite name="o"><testsuite name="i"><testcase name="a"/></testsuite></testsuite></testsuites>"#;
        assert_eq!(names(nested), ["o/i:a"]);
        let odd = "<testsuite><properties><property name=\"p\">long</property></properties><testcase><error><![CDATA[a < b]]></error></testcase></testsuite>";
        let text = again(odd);
        assert!(text.contains("value=\"long\"") && text.contains("a &lt; b</error>"), "{text}");
        assert!(read("<testsuites/>").expect("read").is_empty());
    }

    #[test]
    fn what_is_no_such_file_is_said() {
        for (text, why) in
            [("", "not XML"), ("<html/>", "it begins with <html>"), ("<testsuites>", "not XML"), ("{}", "not XML")]
        {
            let said = read(text).expect_err("refused");
            assert!(said.contains(why), "{said}");
        }
    }
}
