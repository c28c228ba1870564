//! The dataset artifact: a Hugging Face dataset directory of Parquet files.
//!
//! One file a split, `data/SPLIT-00000-of-00001.parquet`. Columns: `id`, `image` (a struct of `bytes` and
//! `path`: the `Image` feature of the `datasets` library), `caption`, `captions`, `tags` (where there are captions), `group`,
//! and the declared text columns. The features are in the file's `huggingface` metadata, as that library writes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::failure::Failure;
use crate::util::fs;

/// Says why a dataset holds nothing.
pub const LEFT_OUT: &str = "left-out.json";

/// One row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Unique in the dataset.
    pub id: String,
    /// The picture's file, as found: PNG, JPEG or WebP.
    pub image: Option<Vec<u8>>,
    /// The caption.
    pub caption: String,
    /// Other captions of the same thing.
    pub captions: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// What never straddles splits.
    pub group: String,
    /// Declared columns.
    pub columns: BTreeMap<String, String>,
}

/// A dataset on disk.
#[derive(Debug)]
pub struct Dataset {
    dir: std::path::PathBuf,
    splits: Vec<String>,
    left_out: Option<String>,
}

impl Dataset {
    /// Opens a dataset artifact.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        if let Ok(text) = fs::read_text(&dir.join(LEFT_OUT)) {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let reason = value["reason"].as_str().unwrap_or("not said").to_owned();
            return Ok(Self { dir: dir.to_owned(), splits: Vec::new(), left_out: Some(reason) });
        }
        let data = dir.join("data");
        let entries = fs::at("list", &data, std::fs::read_dir(&data))?;
        let mut splits: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_suffix("-00000-of-00001.parquet").map(str::to_owned))
            .collect();
        splits.sort();
        Ok(Self { dir: dir.to_owned(), splits, left_out: None })
    }

    /// The names of its splits, sorted.
    pub fn splits(&self) -> &[String] {
        &self.splits
    }

    /// Why it holds nothing, if so.
    pub fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// All rows of a split, in order.
    pub fn rows(&self, split: &str) -> Result<Vec<Row>, Failure> {
        let split = split.replace('-', "_");
        if !self.splits.contains(&split) {
            let known = self.splits.join(", ");
            return Err(Failure::target(format!("the dataset {} has no split `{split}`", self.dir.display()))
                .help(format!("its splits are: {known}; `split` in the dataset says what each gets")));
        }
        let path = self.dir.join(format!("data/{split}-00000-of-00001.parquet"));
        let bad = |e: &dyn std::fmt::Display| Failure::target(format!("cannot read {}: {e}", path.display()));
        let file = fs::open(&path)?;
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| bad(&e))?.build().map_err(|e| bad(&e))?;
        let mut rows = Vec::new();
        for batch in reader {
            rows_of(&batch.map_err(|e| bad(&e))?, &mut rows);
        }
        Ok(rows)
    }
}

fn rows_of(batch: &RecordBatch, rows: &mut Vec<Row>) {
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<StringArray>().cloned());
    let list = |name: &str| batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<ListArray>().cloned());
    let image = batch.column_by_name("image").and_then(|c| c.as_any().downcast_ref::<StructArray>().cloned());
    let bytes =
        image.and_then(|s| s.column_by_name("bytes").and_then(|c| c.as_any().downcast_ref::<BinaryArray>().cloned()));
    let (ids, caption, group) = (text("id"), text("caption"), text("group"));
    let (captions, tags) = (list("captions"), list("tags"));
    let at = |column: &Option<StringArray>, i: usize| {
        column.as_ref().filter(|c| c.is_valid(i)).map(|c| c.value(i).to_owned()).unwrap_or_default()
    };
    let list_at = |column: &Option<ListArray>, i: usize| -> Vec<String> {
        let Some(values) = column.as_ref().filter(|c| c.is_valid(i)).map(|c| c.value(i)) else { return Vec::new() };
        values.as_any().downcast_ref::<StringArray>().into_iter().flatten().flatten().map(str::to_owned).collect()
    };
    let known = ["id", "image", "caption", "captions", "tags", "group"];
    let schema = batch.schema();
    let extra: Vec<(&str, Option<StringArray>)> = schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .filter(|n| !known.contains(n))
        .map(|n| (n, text(n)))
        .collect();
    for i in 0..batch.num_rows() {
        rows.push(Row {
            id: at(&ids, i),
            image: bytes.as_ref().filter(|b| b.is_valid(i)).map(|b| b.value(i).to_vec()),
            caption: at(&caption, i),
            captions: list_at(&captions, i),
            tags: list_at(&tags, i),
            group: at(&group, i),
            columns: extra.iter().map(|(n, c)| ((*n).to_owned(), at(c, i))).collect(),
        });
    }
}

/// Writes one split. The bytes depend on the rows alone.
pub fn write_split(dir: &Path, split: &str, rows: &[Row]) -> Result<(), Failure> {
    let columns: Vec<String> = rows.first().map(|r| r.columns.keys().cloned().collect()).unwrap_or_default();
    let with_pictures = rows.iter().any(|r| r.image.is_some());
    let text = |get: &dyn Fn(&Row) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(get))) as ArrayRef;
    let list = |get: &dyn Fn(&Row) -> &Vec<String>| {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for row in rows {
            get(row).iter().for_each(|v| builder.values().append_value(v));
            builder.append(true);
        }
        Arc::new(builder.finish()) as ArrayRef
    };
    let mut fields: Vec<(String, ArrayRef)> = vec![("id".into(), text(&|r| &r.id))];
    if with_pictures {
        fields.push(("image".into(), pictures(rows)));
    }
    // Texts of a language model have none.
    let with_captions = rows.iter().any(|r| !r.caption.is_empty());
    if with_captions {
        fields.push(("caption".into(), text(&|r| &r.caption)));
        fields.push(("captions".into(), list(&|r| &r.captions)));
        fields.push(("tags".into(), list(&|r| &r.tags)));
    }
    fields.push(("group".into(), text(&|r| &r.group)));
    for name in &columns {
        fields.push((name.clone(), text(&|r| r.columns.get(name).map_or("", String::as_str))));
    }
    let features =
        serde_json::json!({"info": {"features": features(with_pictures, with_captions, &columns)}}).to_string();
    let schema =
        Schema::new(fields.iter().map(|(n, a)| Field::new(n, a.data_type().clone(), true)).collect::<Vec<_>>());
    // In the Arrow schema too: where a file has one, pyarrow (so `datasets`) reads its metadata and not the file's.
    let told = arrow_schema::Metadata::from_iter([("huggingface".to_owned(), features.clone())]);
    let schema = Arc::new(schema.with_metadata(told));
    let name = format!("data/{}-00000-of-00001.parquet", split.replace('-', "_"));
    let path = dir.join(&name);
    let bad = |e: &dyn std::fmt::Display| Failure::environment(format!("cannot write {name}: {e}"));
    let batch =
        RecordBatch::try_new(schema.clone(), fields.into_iter().map(|(_, a)| a).collect()).map_err(|e| bad(&e))?;
    // Pictures are compressed already; snappy costs little and helps the text.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), features)]))
        .set_created_by("effai".into())
        .build();
    let mut writer = ArrowWriter::try_new(fs::create(&path)?, schema, Some(properties)).map_err(|e| bad(&e))?;
    writer.write(&batch).map_err(|e| bad(&e))?;
    writer.close().map_err(|e| bad(&e))?;
    Ok(())
}

fn pictures(rows: &[Row]) -> ArrayRef {
    let mut bytes = BinaryBuilder::new();
    rows.iter().for_each(|r| bytes.append_option(r.image.as_ref()));
    let paths = StringArray::from_iter_values(rows.iter().map(|r| r.id.as_str()));
    let fields =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    Arc::new(StructArray::new(fields, vec![Arc::new(bytes.finish()), Arc::new(paths)], None))
}

fn features(with_pictures: bool, with_captions: bool, columns: &[String]) -> serde_json::Value {
    let text = serde_json::json!({"dtype": "string", "_type": "Value"});
    let list = serde_json::json!({"feature": text, "_type": "Sequence"});
    let mut all = serde_json::Map::new();
    for name in ["id", "group"].into_iter().chain(columns.iter().map(String::as_str)) {
        all.insert(name.into(), text.clone());
    }
    if with_captions {
        all.insert("caption".into(), text);
        all.insert("captions".into(), list.clone());
        all.insert("tags".into(), list);
    }
    if with_pictures {
        all.insert("image".into(), serde_json::json!({"_type": "Image"}));
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_the_bytes_repeat() {
        let dir = tempfile::tempdir().expect("a directory");
        let row = |i: usize| Row {
            id: format!("r{i}"),
            image: Some(vec![i as u8; 5]),
            caption: "grinning cat".into(),
            captions: vec!["cat".into(); i],
            tags: vec![],
            group: "cat".into(),
            columns: BTreeMap::from([("style".into(), "google".into())]),
        };
        let rows: Vec<Row> = (0..3).map(row).collect();
        write_split(dir.path(), "test-fluent", &rows).expect("writes");
        let path = dir.path().join("data/test_fluent-00000-of-00001.parquet");
        let first = fs::read(&path).expect("there");
        let dataset = Dataset::open(dir.path()).expect("opens");
        assert_eq!(dataset.rows("test-fluent").expect("reads"), rows);
        write_split(dir.path(), "test-fluent", &rows).expect("writes");
        assert_eq!(fs::read(&path).expect("there"), first);
    }
}
