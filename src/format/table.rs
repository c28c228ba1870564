//! Tables as people keep them, read as records: JSON, JSON lines, YAML, CSV, TSV, Parquet, and lines of a form of their own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Where the records of a file are.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// As its ending says.
    Whole,
    /// In this field.
    At(&'a str),
    /// In the lines that match.
    Lines(&'a str),
}

/// Why a file has no records to give.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file as a whole, in its format's words.
    #[error("{0}")]
    Broken(String),
    /// One record, counted from 1.
    #[error("record {0}: {1}")]
    Record(usize, String),
    /// JSON or YAML of something else.
    #[error("is no array of records")]
    NoArray,
    /// Another ending.
    #[error("effai does not know how to read this")]
    Unknown,
}

impl TableError {
    /// What to do about it, where the file's format does not say.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Broken(_) | Self::Record(..) => None,
            Self::NoArray => Some("name the field that holds it with at=\"...\""),
            Self::Unknown => Some("it reads .json, .jsonl, .yml, .csv, .tsv, .parquet, and files by a glob"),
        }
    }
}

/// The records of a file, which is of the format that the ending of `file` names. Values of CSV and TSV are texts.
pub fn records(bytes: &[u8], file: &str, form: Form<'_>) -> Result<Vec<Value>, TableError> {
    let broken = |e: &dyn std::fmt::Display| TableError::Broken(e.to_string());
    let bad = |i: usize, e: &dyn std::fmt::Display| TableError::Record(i + 1, e.to_string());
    if let Form::Lines(pattern) = form {
        return lines(&String::from_utf8_lossy(bytes), pattern).map_err(|e| broken(&e));
    }
    match file.rsplit_once('.').map(|(_, ending)| ending) {
        Some(ending @ ("json" | "yml" | "yaml")) => {
            let root: Value = match ending {
                "json" => serde_json::from_slice(bytes).map_err(|e| broken(&e))?,
                _ => serde_saphyr::from_slice(bytes).map_err(|e| broken(&e))?,
            };
            let array = if let Form::At(at) = form { &root[at] } else { &root };
            array.as_array().cloned().ok_or(TableError::NoArray)
        }
        Some("jsonl") => {
            let text = String::from_utf8_lossy(bytes);
            let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
            lines.map(|(i, line)| serde_json::from_str(line).map_err(|e| bad(i, &e))).collect()
        }
        Some(ending @ ("csv" | "tsv")) => {
            let delimiter = if ending == "csv" { b',' } else { b'\t' };
            let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
            let rows = reader.deserialize::<BTreeMap<String, String>>().enumerate();
            rows.map(|(i, row)| row.map(|r| serde_json::json!(r)).map_err(|e| bad(i, &e))).collect()
        }
        Some("parquet") => parquet(bytes).map_err(|e| broken(&e)),
        _ => Err(TableError::Unknown),
    }
}

/// The lines that match, as records of the pattern's named groups.
fn lines(text: &str, pattern: &str) -> Result<Vec<Value>, regex::Error> {
    let regex = regex::Regex::new(pattern)?;
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    let record = |found: regex::Captures<'_>| -> Value {
        let field = |name: &&str| Some(((*name).to_owned(), found.name(name)?.as_str().into()));
        Value::Object(names.iter().filter_map(field).collect::<Map<_, _>>())
    };
    Ok(text.lines().filter_map(|line| regex.captures(line)).map(record).collect())
}

fn parquet(bytes: &[u8]) -> Result<Vec<Value>, parquet::errors::ParquetError> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    // The reader wants bytes it can share; a table's copy is cheap beside its decoding.
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes))?;
    reader.get_row_iter(None)?.map(|row| Ok(row?.to_json_value())).collect()
}
