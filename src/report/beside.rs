//! Artifacts beside each other: what is known of each, and what reports say of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::format::table::{self, Form, TableError};
use crate::report::told::words::value_text;
use crate::util::text::{bytes, duration};

/// Some artifacts, and the numbers that are known of any.
#[derive(Debug, Default, Serialize)]
pub struct Beside {
    /// As they were asked for.
    pub subjects: Vec<String>,
    /// One a number, in the order in which people look at them.
    pub rows: Vec<Row>,
}

/// A number of each artifact.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Which report it is of; none of what is known of the artifact itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// What the values are.
    pub unit: Unit,
    /// One an artifact, where it is known.
    pub values: Vec<Option<Value>>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A number.
    Number,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

/// A value, with its 95 % interval where a report has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Value {
    /// The value.
    pub value: f64,
    /// The interval's ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Above (1) or below (-1) the first model of its report beyond noise.
    #[serde(skip_serializing_if = "is_zero")]
    pub sign: i8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(sign: &i8) -> bool {
    *sign == 0
}

impl Value {
    /// Without an interval.
    pub fn alone(value: f64) -> Self {
        Self { value, interval: None, sign: 0 }
    }
}

/// The numbers of one subject in a `report.csv`: what they are of, such as "p.csv accuracy", and the value.
type Numbers = Vec<(String, Value)>;

/// What a `report.csv` says of each subject, by label, in its own order.
pub fn of_csv(text: &[u8]) -> Result<BTreeMap<String, Numbers>, TableError> {
    let mut found: BTreeMap<String, Numbers> = BTreeMap::new();
    for line in table::records(text, "report.csv", Form::Whole)? {
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        let number = |name: &str| field(name).parse::<f64>().ok();
        let Some(value) = number("value") else { continue };
        let name: Vec<&str> =
            ["test", "direction", "metric"].into_iter().map(field).filter(|part| !part.is_empty()).collect();
        let sign = match (field("stands_out"), number("difference")) {
            ("true", Some(difference)) if difference > 0.0 => 1,
            ("true", Some(_)) => -1,
            _ => 0,
        };
        let value = Value { value, interval: number("low").zip(number("high")), sign };
        found.entry(field("subject").to_owned()).or_default().push((name.join(" "), value));
    }
    Ok(found)
}

impl Beside {
    /// Artifacts by these names.
    pub fn new(subjects: Vec<String>) -> Self {
        Self { subjects, rows: Vec::new() }
    }

    /// Adds what is known of one artifact.
    pub fn add(&mut self, subject: usize, report: Option<&str>, name: &str, unit: Unit, value: Value) {
        let is_it = |row: &Row| row.name == name && row.report.as_deref() == report;
        let at = self.rows.iter().position(is_it).unwrap_or_else(|| {
            let values = vec![None; self.subjects.len()];
            self.rows.push(Row { name: name.to_owned(), report: report.map(str::to_owned), unit, values });
            self.rows.len() - 1
        });
        self.rows[at].values[subject] = Some(value);
    }

    /// As a table: a heading, then the rows' names and cells. A report's name stands alone before its rows.
    pub fn table(&self) -> Vec<Vec<String>> {
        let heading = [String::new()].into_iter().chain(self.subjects.iter().cloned()).collect();
        let mut lines = vec![heading];
        let mut last = None;
        for row in &self.rows {
            if row.report != last {
                last.clone_from(&row.report);
                lines.push(row.report.iter().cloned().collect());
            }
            let cells = row.values.iter().map(|value| value.map_or_else(|| "\u{2013}".into(), |v| text(row.unit, v)));
            lines.push([row.name.clone()].into_iter().chain(cells).collect());
        }
        lines
    }

    /// The table in columns, for a terminal.
    pub fn text(&self) -> Vec<String> {
        let lines = self.table();
        let width = |column: usize| {
            let cells = lines.iter().filter(|line| line.len() > 1).filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..=self.subjects.len()).map(width).collect();
        let pad = |(column, cell): (usize, &String)| {
            let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if column == 0 { format!("{cell}{space}") } else { format!("{space}{cell}") }
        };
        let line = |cells: &Vec<String>| match &cells[..] {
            [report] => report.clone(),
            cells => cells.iter().enumerate().map(pad).collect::<Vec<_>>().join("   "),
        };
        lines.iter().map(line).map(|line| line.trim_end().to_owned()).collect()
    }
}

/// A value with its interval, and a triangle where it is beyond noise.
fn text(unit: Unit, value: Value) -> String {
    let Value { value, interval, sign } = value;
    let one = |value: f64| match unit {
        Unit::Number => value_text(value),
        Unit::Bytes => bytes(value as u64),
        Unit::Milliseconds => duration(value as u64),
    };
    let mark = match sign {
        1 => "\u{25b2}",
        -1 => "\u{25bc}",
        _ => "",
    };
    let interval = interval.map(|(low, high)| format!(" ({}\u{2013}{})", one(low), one(high)));
    format!("{}{mark}{}", one(value), interval.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &[u8] = b"subject,test,direction,metric,value,low,high,n,difference,difference_low,difference_high,stands_out\n\
        m/a,\"d, test\",t2i,recall@10,0.5,0.4,0.6,90,,,,\nm/b,\"d, test\",t2i,recall@10,0.7,0.6,0.8,90,0.2,0.1,0.3,true\n\
        m/b,,,bytes,1000,,,1,,,,\n";

    #[test]
    fn reports_are_read_with_their_intervals() {
        let found = of_csv(CSV).expect("read");
        assert_eq!(
            found["m/a"],
            [("d, test t2i recall@10".to_owned(), Value { value: 0.5, interval: Some((0.4, 0.6)), sign: 0 })]
        );
        assert_eq!(found["m/b"][0].1.sign, 1);
        assert_eq!(found["m/b"][1], ("bytes".to_owned(), Value::alone(1000.0)));
    }

    #[test]
    fn what_is_not_known_has_an_empty_place_and_columns_stand_straight() {
        let mut beside = Beside::new(vec!["m/a".into(), "m/b".into()]);
        beside.add(0, None, "size", Unit::Bytes, Value::alone(2048.0));
        for (subject, label) in ["m/a", "m/b"].into_iter().enumerate() {
            for (name, value) in &of_csv(CSV).expect("read")[label] {
                beside.add(subject, Some("reports/r"), name, Unit::Number, *value);
            }
        }
        assert_eq!(
            beside.text(),
            [
                "                                           m/a                       m/b",
                "size                                   2.0 KiB                         \u{2013}",
                "reports/r",
                "d, test t2i recall@10   0.5000 (0.4000\u{2013}0.6000)   0.7000\u{25b2} (0.6000\u{2013}0.8000)",
                "bytes                                        \u{2013}                      1000",
            ]
        );
    }
}
