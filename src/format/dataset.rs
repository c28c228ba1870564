//! The dataset artifact: a Hugging Face dataset directory of Parquet files.
//!
//! `data/SPLIT-00000-of-00001.parquet` for each split, with the columns `id`, `image` (the struct
//! `{bytes, path}` of Hugging Face's `Image` feature; left out where no row has a picture), `caption`,
//! `captions`, `tags`, `group`, and declared extra columns of text. The key `huggingface` in each file's
//! metadata holds the features, so that `datasets` decodes the pictures. A split's `-` is `_` in file
//! names, since `datasets` allows letters, digits and `_` in the name of a split.
//!
//! The bytes depend on the rows alone: no clock, no version, row groups by count, Snappy for text and none
//! for pictures, which are compressed already.
//!
//! An optional source that was left out leaves `left-out.json` and no splits.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use crate::failure::Failure;
use crate::util::fs::{self, FsError};

/// Rows in a row group, and in a batch: what the writer holds in memory.
const GROUP_ROWS: usize = 500;
/// A batch is written early when its pictures reach this size.
const GROUP_BYTES: usize = 64 << 20;
/// The columns every dataset has; `image` may be absent.
pub const COLUMNS: [&str; 6] = ["id", "image", "caption", "captions", "tags", "group"];

/// One row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Unique within the dataset.
    pub id: String,
    /// The picture as found: PNG, JPEG, WebP.
    pub image: Option<Vec<u8>>,
    /// The label.
    pub caption: String,
    /// Other ways to say it; may be empty.
    pub captions: Vec<String>,
    /// Words that go with it; may be empty.
    pub tags: Vec<String>,
    /// The concept: rows of one group are in one split (and in the suffixed splits of its name).
    pub group: String,
    /// Extra columns.
    pub columns: BTreeMap<String, String>,
}

/// A dataset that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The Parquet file.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParquetError,
    },
    /// A column is not what it should be.
    #[error("{}: column `{column}` {what}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No such split.
    #[error("{} has no split `{split}`; it has {}", dir.display(), known.join(", "))]
    NoSplit {
        /// The dataset.
        dir: PathBuf,
        /// What was asked for.
        split: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Not a dataset directory.
    #[error("{} is no dataset: it has no data/*.parquet", dir.display())]
    NotADataset {
        /// The directory.
        dir: PathBuf,
    },
}

impl From<DatasetError> for Failure {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Fs(error) => error.into(),
            DatasetError::NoSplit { .. } => {
                Failure::user(error.to_string()).help("name one of these, or declare the split in the dataset's recipe")
            }
            _ => Failure::target(error.to_string()),
        }
    }
}

/// A dataset directory.
#[derive(Clone, Debug)]
pub struct Dataset {
    dir: PathBuf,
    splits: Vec<String>,
    left_out: Option<String>,
}

impl Dataset {
    /// Opens a dataset directory; reads no rows.
    pub fn open(dir: &Path) -> Result<Self, DatasetError> {
        let marker = dir.join("left-out.json");
        if marker.is_file() {
            let text = fs::read_text(&marker)?;
            let reason = serde_json::from_str::<serde_json::Value>(&text)
                .ok()
                .and_then(|v| v["reason"].as_str().map(str::to_owned))
                .unwrap_or_else(|| "for a reason that was not kept".into());
            return Ok(Self { dir: dir.to_owned(), splits: Vec::new(), left_out: Some(reason) });
        }
        let data = dir.join("data");
        let mut splits = Vec::new();
        if data.is_dir() {
            for entry in fs::at("list", &data, data.read_dir())? {
                let name = fs::at("list", &data, entry)?.file_name();
                if let Some(split) = name.to_str().and_then(|n| n.strip_suffix("-00000-of-00001.parquet")) {
                    splits.push(split.replace('_', "-"));
                }
            }
        }
        if splits.is_empty() {
            return Err(DatasetError::NotADataset { dir: dir.to_owned() });
        }
        // Training data first, as people list them; suffixed ones after the plain ones.
        splits.sort_by_key(|s| (s.contains('-'), split_rank(s), s.clone()));
        Ok(Self { dir: dir.to_owned(), splits, left_out: None })
    }

    /// Why there are no rows, if the source was left out.
    pub fn left_out(&self) -> Option<String> {
        self.left_out.clone()
    }

    /// The splits: plain ones first, then those of held-out sources, each in the order train, validation, test.
    pub fn splits(&self) -> &[String] {
        &self.splits
    }

    /// All rows of a split, in order, with their pictures.
    pub fn rows(&self, split: &str) -> Result<Vec<Row>, DatasetError> {
        let mut rows = Vec::new();
        self.each(split, true, |row| {
            rows.push(row);
            Ok::<_, DatasetError>(())
        })?;
        Ok(rows)
    }

    /// All rows of a split, in order, without reading their pictures.
    pub fn texts(&self, split: &str) -> Result<Vec<Row>, DatasetError> {
        let mut rows = Vec::new();
        self.each(split, false, |row| {
            rows.push(row);
            Ok::<_, DatasetError>(())
        })?;
        Ok(rows)
    }

    /// How many rows a split has.
    pub fn len(&self, split: &str) -> Result<usize, DatasetError> {
        let (path, file) = self.file(split)?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| DatasetError::Parquet { path, source })?;
        Ok(builder.metadata().file_metadata().num_rows() as usize)
    }

    /// Gives each row of a split to `take`, a batch in memory at a time. Stops at its first error.
    pub fn each<E: From<DatasetError>>(
        &self,
        split: &str,
        with_images: bool,
        mut take: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let (path, file) = self.file(split)?;
        let bad = |source: ParquetError| DatasetError::Parquet { path: path.clone(), source };
        let mut builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(bad)?;
        if !with_images {
            let names: Vec<String> =
                builder.schema().fields().iter().map(|f| f.name().clone()).filter(|n| n != "image").collect();
            let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().map(String::as_str));
            builder = builder.with_projection(mask);
        }
        let reader = builder.with_batch_size(GROUP_ROWS).build().map_err(bad)?;
        for batch in reader {
            let batch = batch.map_err(|e| bad(ParquetError::from(e)))?;
            for row in rows_of(&batch, &path)? {
                take(row)?;
            }
        }
        Ok(())
    }

    fn file(&self, split: &str) -> Result<(PathBuf, File), DatasetError> {
        if !self.splits.iter().any(|s| s == split) {
            return Err(DatasetError::NoSplit {
                dir: self.dir.clone(),
                split: split.into(),
                known: self.splits.clone(),
            });
        }
        let path = self.dir.join(split_file(split));
        let file = fs::open(&path)?;
        Ok((path, file))
    }
}

fn split_rank(split: &str) -> usize {
    ["train", "validation", "test"].iter().position(|s| split.split('-').next() == Some(s)).unwrap_or(3)
}

/// A split's file in a dataset directory.
pub fn split_file(split: &str) -> String {
    format!("data/{}-00000-of-00001.parquet", split_key(split))
}

/// A split's name as `datasets` knows it.
pub fn split_key(split: &str) -> String {
    split.replace('-', "_")
}

fn rows_of(batch: &RecordBatch, path: &Path) -> Result<Vec<Row>, DatasetError> {
    let wrong = |column: &str, what| DatasetError::Column { path: path.to_owned(), column: column.into(), what };
    let mut rows = vec![Row::default(); batch.num_rows()];
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        match name {
            "image" => {
                let images = array.as_struct_opt().ok_or_else(|| wrong(name, "is not a struct"))?;
                let bytes = images.column_by_name("bytes").and_then(|a| a.as_binary_opt::<i32>());
                let bytes = bytes.ok_or_else(|| wrong(name, "has no `bytes`"))?;
                for (i, row) in rows.iter_mut().enumerate() {
                    row.image = (images.is_valid(i) && bytes.is_valid(i)).then(|| bytes.value(i).to_vec());
                }
            }
            "captions" | "tags" => {
                let lists = array.as_list_opt::<i32>().ok_or_else(|| wrong(name, "is not a list"))?;
                for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| lists.is_valid(*i)) {
                    let items = lists.value(i);
                    let items = items.as_string_opt::<i32>().ok_or_else(|| wrong(name, "is not a list of text"))?;
                    let items = items.iter().flatten().map(str::to_owned).collect();
                    if name == "tags" { row.tags = items } else { row.captions = items }
                }
            }
            _ => {
                let texts = array.as_string_opt::<i32>().ok_or_else(|| wrong(name, "is not text"))?;
                for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| texts.is_valid(*i)) {
                    let value = texts.value(i).to_owned();
                    match name {
                        "id" => row.id = value,
                        "caption" => row.caption = value,
                        "group" => row.group = value,
                        _ => drop(row.columns.insert(name.to_owned(), value)),
                    }
                }
            }
        }
    }
    Ok(rows)
}

/// Writes one split, row by row, with one row group in memory.
pub struct SplitWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    columns: Vec<String>,
    with_images: bool,
    batch: Vec<(Row, Option<String>)>,
    batch_bytes: usize,
    rows: usize,
}

impl SplitWriter {
    /// Begins a split. `columns` are the extra columns, in order; every row must have them.
    pub fn create(dir: &Path, split: &str, columns: &[String], with_images: bool) -> Result<Self, DatasetError> {
        let path = dir.join(split_file(split));
        let schema = Arc::new(schema_of(columns, with_images));
        let image_bytes = ColumnPath::new(vec!["image".into(), "bytes".into()]);
        let properties = WriterProperties::builder()
            .set_created_by("effai".into())
            .set_compression(Compression::SNAPPY)
            .set_column_compression(image_bytes.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(image_bytes.clone(), false)
            .set_column_statistics_enabled(image_bytes, EnabledStatistics::None)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".into(), features(columns, with_images))]))
            .build();
        let file = fs::create(&path)?;
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
        let writer = writer.map_err(|source| DatasetError::Parquet { path: path.clone(), source })?;
        Ok(Self {
            path,
            writer,
            schema,
            columns: columns.to_vec(),
            with_images,
            batch: Vec::new(),
            batch_bytes: 0,
            rows: 0,
        })
    }

    /// Adds a row; `image_path` is the picture's name, for tools that go by its ending.
    pub fn push(&mut self, row: Row, image_path: Option<String>) -> Result<(), DatasetError> {
        self.batch_bytes += row.image.as_ref().map_or(0, Vec::len);
        self.batch.push((row, image_path));
        self.rows += 1;
        if self.batch.len() == GROUP_ROWS || self.batch_bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    /// Ends the split; says how many rows it has.
    pub fn finish(mut self) -> Result<usize, DatasetError> {
        self.flush()?;
        let path = self.path;
        self.writer.close().map_err(|source| DatasetError::Parquet { path, source })?;
        Ok(self.rows)
    }

    fn flush(&mut self) -> Result<(), DatasetError> {
        let rows = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let bad = |source: ParquetError| DatasetError::Parquet { path: self.path.clone(), source };
        let batch = batch_of(&rows, &self.schema, &self.columns, self.with_images).map_err(|e| bad(e.into()))?;
        self.writer.write(&batch).map_err(bad)?;
        self.writer.flush().map_err(bad)
    }
}

fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

fn schema_of(columns: &[String], with_images: bool) -> Schema {
    let list = || DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let mut fields = vec![Field::new("id", DataType::Utf8, false)];
    if with_images {
        fields.push(Field::new("image", DataType::Struct(image_fields()), true));
    }
    fields.push(Field::new("caption", DataType::Utf8, false));
    fields.push(Field::new("captions", list(), false));
    fields.push(Field::new("tags", list(), false));
    fields.push(Field::new("group", DataType::Utf8, false));
    fields.extend(columns.iter().map(|name| Field::new(name, DataType::Utf8, false)));
    Schema::new(fields)
}

/// The `huggingface` metadata. `Sequence` is the spelling that old and new versions of `datasets` read.
fn features(columns: &[String], with_images: bool) -> String {
    let text = json!({"dtype": "string", "_type": "Value"});
    let list = json!({"feature": text, "_type": "Sequence"});
    let mut features = serde_json::Map::new();
    for name in ["id", "caption", "group"].into_iter().chain(columns.iter().map(String::as_str)) {
        features.insert(name.into(), text.clone());
    }
    features.insert("captions".into(), list.clone());
    features.insert("tags".into(), list);
    if with_images {
        features.insert("image".into(), json!({"_type": "Image"}));
    }
    json!({"info": {"features": features}}).to_string()
}

fn batch_of(
    rows: &[(Row, Option<String>)],
    schema: &Arc<Schema>,
    columns: &[String],
    with_images: bool,
) -> Result<RecordBatch, ArrowError> {
    let text = |get: &dyn Fn(&Row) -> &str| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|(row, _)| builder.append_value(get(row)));
        Arc::new(builder.finish())
    };
    let list = |get: &dyn Fn(&Row) -> &[String]| -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for (row, _) in rows {
            get(row).iter().for_each(|item| builder.values().append_value(item));
            builder.append(true);
        }
        Arc::new(builder.finish())
    };
    let mut arrays = vec![text(&|r| &r.id)];
    if with_images {
        let (mut bytes, mut paths) = (BinaryBuilder::new(), StringBuilder::new());
        for (row, path) in rows {
            bytes.append_option(row.image.as_deref());
            paths.append_option(row.image.as_ref().and(path.as_deref()));
        }
        let present = NullBuffer::from_iter(rows.iter().map(|(row, _)| row.image.is_some()));
        let children: Vec<ArrayRef> = vec![Arc::new(bytes.finish()), Arc::new(paths.finish())];
        arrays.push(Arc::new(StructArray::try_new(image_fields(), children, Some(present))?));
    }
    arrays.push(text(&|r| &r.caption));
    arrays.push(list(&|r| &r.captions));
    arrays.push(list(&|r| &r.tags));
    arrays.push(text(&|r| &r.group));
    for name in columns {
        arrays.push(text(&|r| r.columns.get(name).map_or("", String::as_str)));
    }
    RecordBatch::try_new(schema.clone(), arrays)
}

/// Writes the mark of a source that was left out.
pub fn write_left_out(dir: &Path, reason: &str) -> Result<(), FsError> {
    fs::write(&dir.join("left-out.json"), format!("{}\n", json!({"reason": reason})).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(i: usize) -> Row {
        Row {
            id: format!("google/{i}"),
            image: (i % 3 != 2).then(|| vec![i as u8; 40 + i % 7]),
            caption: format!("caption {i}"),
            captions: (0..i % 3).map(|k| format!("alternative {k}")).collect(),
            tags: vec!["a".into(), "b".into()],
            group: format!("group {}", i / 2),
            columns: [("style".to_owned(), "google".to_owned())].into(),
        }
    }

    fn write(dir: &Path, split: &str, n: usize) {
        let mut writer = SplitWriter::create(dir, split, &["style".into()], true).unwrap();
        for i in 0..n {
            writer.push(row(i), Some(format!("{i}.png"))).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), n);
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train", 1203);
        write(dir.path(), "test-fluent", 3);
        write(dir.path(), "test", 2);
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(dataset.splits(), ["train", "test", "test-fluent"]);
        assert_eq!(dataset.len("train").unwrap(), 1203);
        let expected: Vec<Row> = (0..1203).map(row).collect();
        assert_eq!(dataset.rows("train").unwrap(), expected);
        let texts = dataset.texts("test-fluent").unwrap();
        assert_eq!(texts.len(), 3);
        assert_eq!((texts[1].image.is_none(), texts[1].caption.as_str()), (true, "caption 1"));
        let error = dataset.rows("tests").unwrap_err().to_string();
        assert!(error.ends_with("has no split `tests`; it has train, test, test-fluent"), "{error}");
    }

    #[test]
    fn the_same_rows_are_the_same_bytes() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let bytes = dirs.each_ref().map(|dir| {
            write(dir.path(), "train", 700);
            fs::read(&dir.path().join(split_file("train"))).unwrap()
        });
        assert_eq!(bytes[0], bytes[1]);
    }

    #[test]
    fn a_dataset_left_out_says_why() {
        let dir = tempfile::tempdir().unwrap();
        write_left_out(dir.path(), "apt-get is not installed").unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(dataset.left_out().as_deref(), Some("apt-get is not installed"));
        assert!(dataset.splits().is_empty());
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train", 5);
        let path = dir.path().join(split_file("train"));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Dataset::open(dir.path()).unwrap().rows("train").unwrap_err().to_string();
        assert!(error.contains("train-00000-of-00001.parquet"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(Dataset::open(empty.path()).unwrap_err().to_string().contains("is no dataset"));
    }
}
