//! Records of tables, whatever they are kept in: JSON, JSON lines, CSV, TSV, Parquet.
//!
//! A record is a JSON object from field to value; `a.b.0` reaches into it. Of a JSON file the records are
//! the array at its root or at a pointer (RFC 6901); an object there gives a record for each of its
//! entries, with the fields `key` and `value`. The fields of CSV are text.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// A table longer than this is refused: its records are held in memory.
const TABLE_BYTES_MAX: usize = 2 << 30;

/// What a table is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFormat {
    /// One JSON value.
    Json,
    /// One JSON object a line.
    JsonLines,
    /// Comma-separated, with a header line.
    Csv,
    /// Tab-separated, with a header line.
    Tsv,
    /// Parquet.
    Parquet,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The name tells no format.
    #[error("`{file}` tells no format by its name")]
    UnknownFormat {
        /// The file.
        file: String,
    },
    /// A record is broken.
    #[error("{file}, record {record}: {what}")]
    Record {
        /// The file.
        file: String,
        /// The record, from 1.
        record: usize,
        /// What is wrong.
        what: String,
    },
    /// The file as a whole is broken.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        let failure = Failure::target(error.to_string());
        match error {
            TableError::UnknownFormat { .. } => {
                failure.help("give format=\"json\", \"jsonl\", \"csv\", \"tsv\" or \"parquet\"")
            }
            _ => failure,
        }
    }
}

/// The words for formats in recipes.
pub const FORMATS: &[&str] = &["json", "jsonl", "csv", "tsv", "parquet"];

impl TableFormat {
    /// By a recipe's word, or else by a file's name.
    pub fn of(word: Option<&str>, file: &str) -> Result<Self, TableError> {
        let ending = word.unwrap_or_else(|| file.rsplit('.').next().unwrap_or(""));
        Ok(match ending.to_ascii_lowercase().as_str() {
            "json" => Self::Json,
            "jsonl" | "ndjson" => Self::JsonLines,
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "parquet" => Self::Parquet,
            _ => return Err(TableError::UnknownFormat { file: file.into() }),
        })
    }
}

/// Reads all records. `file` names the table in messages; `pointer` says where in a JSON file they are.
pub fn read(file: &str, bytes: Vec<u8>, format: TableFormat, pointer: Option<&str>) -> Result<Vec<Value>, TableError> {
    let whole = |what: String| TableError::File { file: file.into(), what };
    if bytes.len() > TABLE_BYTES_MAX {
        return Err(whole(format!("has {} bytes, more than the {TABLE_BYTES_MAX} that are read", bytes.len())));
    }
    match format {
        TableFormat::Json => read_json(file, &bytes, pointer),
        TableFormat::JsonLines => read_json_lines(file, &bytes),
        TableFormat::Csv => read_csv(file, &bytes, b','),
        TableFormat::Tsv => read_csv(file, &bytes, b'\t'),
        TableFormat::Parquet => read_parquet(file, &bytes),
    }
}

/// Reaches into a record: `a.b.0`. Nothing there, or `null`, is none.
pub fn get<'r>(record: &'r Value, path: &str) -> Option<&'r Value> {
    // A CSV column may have dots in its name.
    let direct = record.get(path);
    let found = direct.or_else(|| {
        path.split('.').try_fold(record, |value, part| match value {
            Value::Object(map) => map.get(part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        })
    });
    found.filter(|v| !v.is_null())
}

/// A folder's file as a record: `path`, `dir`, `folder` (the last part of `dir`), `name`, `stem`, `ext`.
pub fn file_record(path: &str) -> Value {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (stem, ext) = name.rsplit_once('.').unwrap_or((name, ""));
    let folder = dir.rsplit('/').next().unwrap_or("");
    serde_json::json!({"path": path, "dir": dir, "folder": folder, "name": name, "stem": stem, "ext": ext})
}

fn read_json(file: &str, bytes: &[u8], pointer: Option<&str>) -> Result<Vec<Value>, TableError> {
    let whole = |what: String| TableError::File { file: file.into(), what };
    let root: Value = serde_json::from_slice(bytes).map_err(|e| whole(format!("not JSON: {e}")))?;
    let value = match pointer {
        None | Some("") => root,
        Some(pointer) => {
            let mut root = root;
            root.pointer_mut(pointer).map(Value::take).ok_or_else(|| whole(format!("nothing is at `{pointer}`")))?
        }
    };
    match value {
        Value::Array(records) => {
            if let Some(i) = records.iter().position(|r| !r.is_object()) {
                return Err(TableError::Record { file: file.into(), record: i + 1, what: "is not an object".into() });
            }
            Ok(records)
        }
        Value::Object(entries) => Ok(entries
            .into_iter()
            .map(|(key, value)| {
                Value::Object(Map::from_iter([("key".to_owned(), key.into()), ("value".to_owned(), value)]))
            })
            .collect()),
        _ => Err(whole("neither an array nor an object of records".into())),
    }
}

fn read_json_lines(file: &str, bytes: &[u8]) -> Result<Vec<Value>, TableError> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines
        .enumerate()
        .map(|(i, line)| {
            let broken = |what: String| TableError::Record { file: file.into(), record: i + 1, what };
            match serde_json::from_slice(line) {
                Ok(Value::Object(map)) => Ok(Value::Object(map)),
                Ok(_) => Err(broken("is not an object".into())),
                Err(e) => Err(broken(format!("not JSON: {e}"))),
            }
        })
        .collect()
}

fn read_csv(file: &str, bytes: &[u8], delimiter: u8) -> Result<Vec<Value>, TableError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let whole = |what: String| TableError::File { file: file.into(), what };
    let names = reader.headers().map_err(|e| whole(format!("the header line: {e}")))?.clone();
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = names.iter().find(|n| !seen.insert(*n)) {
        return Err(whole(format!("column `{twice}` is there twice")));
    }
    let mut records = Vec::new();
    for (i, line) in reader.records().enumerate() {
        let line = line.map_err(|e| TableError::Record { file: file.into(), record: i + 1, what: e.to_string() })?;
        records.push(Value::Object(names.iter().zip(&line).map(|(n, v)| (n.to_owned(), v.into())).collect()));
    }
    Ok(records)
}

fn read_parquet(file: &str, bytes: &[u8]) -> Result<Vec<Value>, TableError> {
    use std::io::Write;
    let whole = |what: String| TableError::File { file: file.into(), what };
    // The reader wants a file; an unnamed temporary one is gone with its handle.
    let mut spill = tempfile::tempfile().map_err(|e| whole(format!("cannot make a temporary file: {e}")))?;
    spill.write_all(bytes).map_err(|e| whole(format!("cannot write a temporary file: {e}")))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(spill)
        .and_then(|b| b.build())
        .map_err(|e| whole(format!("not Parquet: {e}")))?;
    let mut records = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|e| whole(format!("not Parquet: {e}")))?;
        for i in 0..batch.num_rows() {
            let mut map = Map::new();
            for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                let value = cell(array, i).map_err(|what| TableError::Record {
                    file: file.into(),
                    record: records.len() + 1,
                    what: format!("column `{}` {what}", field.name()),
                })?;
                map.insert(field.name().clone(), value);
            }
            records.push(Value::Object(map));
        }
    }
    Ok(records)
}

fn cell(array: &dyn Array, i: usize) -> Result<Value, String> {
    fn number<T: ArrowPrimitiveType>(array: &dyn Array, i: usize) -> T::Native {
        array.as_primitive::<T>().value(i)
    }
    if array.is_null(i) {
        return Ok(Value::Null);
    }
    let many = |items: &dyn Array| -> Result<Value, String> {
        (0..items.len()).map(|k| cell(items, k)).collect::<Result<Vec<_>, _>>().map(Value::Array)
    };
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(i).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(i).into(),
        DataType::Utf8View => array.as_string_view().value(i).into(),
        DataType::Boolean => array.as_boolean().value(i).into(),
        DataType::Int8 => number::<Int8Type>(array, i).into(),
        DataType::Int16 => number::<Int16Type>(array, i).into(),
        DataType::Int32 => number::<Int32Type>(array, i).into(),
        DataType::Int64 => number::<Int64Type>(array, i).into(),
        DataType::UInt8 => number::<UInt8Type>(array, i).into(),
        DataType::UInt16 => number::<UInt16Type>(array, i).into(),
        DataType::UInt32 => number::<UInt32Type>(array, i).into(),
        DataType::UInt64 => number::<UInt64Type>(array, i).into(),
        DataType::Float32 => number::<Float32Type>(array, i).into(),
        DataType::Float64 => number::<Float64Type>(array, i).into(),
        DataType::List(_) => many(&array.as_list::<i32>().value(i))?,
        DataType::LargeList(_) => many(&array.as_list::<i64>().value(i))?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let entries = fields.iter().zip(columns).map(|(f, c)| Ok((f.name().clone(), cell(c, i)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
        // Bytes are no text: a mapping cannot use them.
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Value::Null,
        other => return Err(format!("is of type {other}, which is not read")),
    })
}

/// The last part of a path, for messages.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dataset::{Row, SplitWriter, split_file};

    fn check(file: &str, bytes: &str, pointer: Option<&str>, expected: &str) {
        let format = TableFormat::of(None, file).unwrap();
        let found = match read(file, bytes.into(), format, pointer) {
            Ok(records) => Value::Array(records).to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn tables_become_records() {
        check("a.json", r#"[{"a":1},{"a":{"b":[2]}}]"#, None, r#"[{"a":1},{"a":{"b":[2]}}]"#);
        check("a.json", r#"{"x":{"y":[{"a":1}]}}"#, Some("/x/y"), r#"[{"a":1}]"#);
        check("a.json", r#"{"k":"v","l":["w"]}"#, None, r#"[{"key":"k","value":"v"},{"key":"l","value":["w"]}]"#);
        check("a.jsonl", "{\"a\":1}\n\n{\"a\":2}\n", None, r#"[{"a":1},{"a":2}]"#);
        check("a.csv", "\u{feff}a,b c\n1,\"x,y\"\n", None, r#"[{"a":"1","b c":"x,y"}]"#);
        check("a.tsv", "a\tb\n1\t2\n", None, r#"[{"a":"1","b":"2"}]"#);
    }

    #[test]
    fn broken_tables_say_where() {
        check("a.json", "[{]", None, "a.json: not JSON: key must be a string at line 1 column 3");
        check("a.json", "[{}, 3]", None, "a.json, record 2: is not an object");
        check("a.json", "{}", Some("/x"), "a.json: nothing is at `/x`");
        check("a.json", "3", None, "a.json: neither an array nor an object of records");
        check(
            "a.jsonl",
            "{}\n{\n",
            None,
            "a.jsonl, record 2: not JSON: EOF while parsing an object at line 1 column 1",
        );
        check("a.csv", "a,a\n", None, "a.csv: column `a` is there twice");
        let error = read("a.csv", b"a,b\n1,2\n3\n".to_vec(), TableFormat::Csv, None).unwrap_err().to_string();
        assert!(error.starts_with("a.csv, record 2: "), "{error}");
        let error = read("a.parquet", b"PAR1".to_vec(), TableFormat::Parquet, None).unwrap_err().to_string();
        assert!(error.starts_with("a.parquet: not Parquet"), "{error}");
        assert!(TableFormat::of(None, "a.xlsx").is_err());
        assert_eq!(TableFormat::of(Some("csv"), "a.txt").unwrap(), TableFormat::Csv);
    }

    #[test]
    fn parquet_becomes_records() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SplitWriter::create(dir.path(), "train", &[], false).unwrap();
        writer.push(Row { id: "1".into(), tags: vec!["x".into()], ..Row::default() }, None).unwrap();
        writer.finish().unwrap();
        let bytes = crate::util::fs::read(&dir.path().join(split_file("train"))).unwrap();
        let records = read("a.parquet", bytes, TableFormat::Parquet, None).unwrap();
        assert_eq!(
            Value::Array(records).to_string(),
            r#"[{"caption":"","captions":[],"group":"","id":"1","tags":["x"]}]"#
        );
    }

    #[test]
    fn paths_reach_into_records() {
        let record = serde_json::json!({"a": {"b": [1, null]}, "c.d": "x"});
        assert_eq!(get(&record, "a.b.0"), Some(&1.into()));
        assert_eq!(get(&record, "a.b.1"), None);
        assert_eq!(get(&record, "c.d"), Some(&"x".into()));
        let file = file_record("a/cats/1.tabby.png");
        assert_eq!((&file["folder"], &file["stem"], &file["ext"]), (&"cats".into(), &"1.tabby".into(), &"png".into()));
    }
}
