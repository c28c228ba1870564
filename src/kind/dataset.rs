//! `dataset`: declared sources and a declared mapping, to a Hugging Face dataset directory.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::fetch::{SOURCE_PROPS, Source, check_source, fetched};
use super::{ActionCx, How, Kind, Part, Run};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Hasher};
use crate::format::archive::read_members;
use crate::format::dataset::{LEFT_OUT, Row, write_split};
use crate::format::table::{self, Form};
use crate::format::template::Template;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Dataset;

const TEMPLATE: Type = Type::Text;

static SCHEMA: Schema = Schema::new(
    "dataset",
    "Rows of texts and pictures from declared sources, split so that no group straddles train and test.",
)
.children(&[
    Schema::new("source", "Where files come from; the download is kept by itself and shared by its digest.")
        .arg("name", Type::Text)
        .props(SOURCE_PROPS)
        .many(),
    Schema::new("files", "Files of this project as a source.")
        .arg("name", Type::Text)
        .children(&[Schema::new("glob", "Which.").arg("glob", Type::Glob).some()])
        .many(),
    Schema::new("records", "One row for each record of a table, or for each file.")
        .arg("name", Type::Text)
        .props(&[
            Prop::new("from", Type::Text, "the source").required(),
            Prop::new(
                "file",
                Type::Text,
                "a .json, .jsonl, .yml, .csv, .tsv or .parquet file in it, or a glob: then each file is a record",
            )
            .required(),
            Prop::new(
                "at",
                Type::Text,
                "in JSON and YAML, the field that holds the array; of a glob, each file is then a table",
            ),
            Prop::new(
                "pattern",
                Type::Text,
                "in any text: each line that this regular expression matches is a record of its named groups",
            ),
        ])
        .children(&[
            Schema::new("join", "Another table, by a key; its fields are then NAME.FIELD.")
                .arg("name", Type::Text)
                .props(&[
                    Prop::new("from", Type::Text, "the source").required(),
                    Prop::new("file", Type::Text, "the table").required(),
                    Prop::new("key", TEMPLATE, "template over its records").required(),
                    Prop::new("on", TEMPLATE, "template over these records; equal texts join").required(),
                ])
                .many(),
            Schema::new("skip", "Leaves out records whose field is one of these.")
                .many_args("field-and-values", Type::Text)
                .many(),
            Schema::new("id", "Template of the row's name.").arg("template", TEMPLATE),
            Schema::new("image", "Template of the picture's path.").arg("template", TEMPLATE).props(&[Prop::new(
                "from",
                Type::Text,
                "the source that holds it, if another",
            )]),
            Schema::new("caption", "Template of the caption; rows without one need a `column`.")
                .arg("template", TEMPLATE),
            Schema::new("captions", "Templates of other captions; a list gives one each.")
                .many_args("templates", TEMPLATE),
            Schema::new("tags", "Template of the tags; a list gives one each.").arg("template", TEMPLATE),
            Schema::new("group", "Template of what never straddles splits; without one, the caption or the first column.")
                .arg("template", TEMPLATE),
            Schema::new(
                "column",
                "A text column of your own. What a language model learns is called `prompt` and `completion`, `messages` or `text`.",
            )
                .arg("name", Type::Text)
                .props(&[Prop::new("value", TEMPLATE, "its template").required()])
                .many(),
        ])
        .some(),
    Schema::new("split", "Which share of the groups goes where; the rest is left out.")
        .props(&[
            Prop::new("train", Type::Float(0.0, 1.0), "share for training").default(Default::Float(0.8)),
            Prop::new("validation", Type::Float(0.0, 1.0), "share for early stopping").default(Default::Float(0.1)),
            Prop::new("test", Type::Float(0.0, 1.0), "share never trained on").default(Default::Float(0.1)),
            Prop::new("seed", Type::Int(0, i64::MAX), "another seed, another split").default(Default::Int(0)),
        ])
        .children(&[]),
    Schema::new(
        "hold-out",
        "Rows of these records never train: their splits are train-NAME, validation-NAME, test-NAME.",
    )
    .many_args("records", Type::Text),
    Schema::new("limit", "At most so many groups, chosen by the seed: for a quick profile.")
        .arg("groups", Type::Int(1, i64::MAX)),
]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    source: Vec<NamedSource>,
    files: Vec<LocalFiles>,
    records: Vec<Records>,
    split: Option<Split>,
    hold_out: Option<Vec<String>>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct NamedSource {
    name: String,
    #[serde(flatten)]
    source: Source,
}

#[derive(Deserialize)]
struct LocalFiles {
    name: String,
    glob: Vec<String>,
}

#[derive(Deserialize)]
struct Records {
    name: String,
    from: String,
    file: String,
    at: Option<String>,
    pattern: Option<String>,
    join: Vec<Join>,
    skip: Vec<Vec<String>>,
    id: Option<String>,
    image: Option<Image>,
    caption: Option<String>,
    captions: Option<Vec<String>>,
    tags: Option<String>,
    group: Option<String>,
    column: Vec<Column>,
}

#[derive(Deserialize)]
struct Join {
    name: String,
    from: String,
    file: String,
    key: String,
    on: String,
}

#[derive(Deserialize)]
struct Image {
    template: String,
    from: Option<String>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Split {
    train: f64,
    validation: f64,
    test: f64,
    seed: u64,
}

impl Kind for Dataset {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    /// 2: the features are in the Arrow schema too, so that `datasets` decodes pictures.
    fn version(&self) -> u32 {
        2
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        let names: Vec<&str> =
            fields.source.iter().map(|s| s.name.as_str()).chain(fields.files.iter().map(|f| f.name.as_str())).collect();
        for (i, source) in fields.source.iter().enumerate() {
            check_source(&source.source, &format!("source.{i}"), problems);
        }
        for (i, records) in fields.records.iter().enumerate() {
            let joins = records.join.iter().map(|j| &j.from);
            let image = records.image.as_ref().and_then(|i| i.from.as_ref());
            for from in [&records.from].into_iter().chain(joins).chain(image) {
                if !names.contains(&from.as_str()) {
                    let help = format!("sources are: {}", names.join(", "));
                    problems.at(
                        &format!("records.{i}"),
                        format!("there is no source `{from}`"),
                        "in these records",
                        help,
                    );
                }
            }
            if let Some(pattern) = &records.pattern {
                let named = regex::Regex::new(pattern).map(|regex| regex.capture_names().flatten().count());
                let message = match named {
                    Ok(1..) if records.at.is_none() => None,
                    Ok(1..) => Some("`at` is of JSON and YAML, and `pattern` of lines: give one".to_owned()),
                    Ok(0) => Some("the pattern has no named group such as (?<word>\\S+)".to_owned()),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(message) = message {
                    problems.at(&format!("records.{i}.pattern"), message, "this pattern", "");
                }
            }
            if records.caption.is_none() && records.column.is_empty() {
                problems.at(
                    &format!("records.{i}"),
                    "these records give rows without any text",
                    "here",
                    "add a `caption`, or a `column`",
                );
            }
            for template in records.templates() {
                if let Err(error) = Template::new(template) {
                    let help = "docs/kinds/dataset.md lists the filters";
                    problems.at(&format!("records.{i}"), error.to_string(), "in these records", help);
                }
            }
        }
        for (i, name) in fields.hold_out.iter().flatten().enumerate() {
            if !fields.records.iter().any(|r| r.name == *name) {
                let message = format!("`hold-out` names `{name}`, and no records are called so");
                problems.at(&format!("hold-out.{i}"), message, "not there", "name one of the `records`");
            }
        }
        if let Some(split) = fields.split
            && split.train + split.validation + split.test > 1.0 + 1e-9
        {
            problems.at("split", "the shares add up to more than 1", "this split", "make them sum to 1 or less");
        }
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields = decl.fields["source"].as_array().cloned().unwrap_or_default();
        fields
            .into_iter()
            .map(|mut source| {
                let name = source["name"].as_str().unwrap_or_default().to_owned();
                let map = source.as_object_mut().expect("an object");
                map.remove("name");
                // A licence is for the card; it does not change the file.
                map.remove("license");
                Part { name: format!("source-{name}"), kind: "fetch", fields: source }
            })
            .collect()
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Dataset {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        for source in &fields.source {
            if let Err(reason) = fetched(cx.part(&format!("source-{}", source.name)))? {
                cx.left_out(reason.clone());
                let text = serde_json::json!({ "reason": reason }).to_string();
                return Ok(fs::write(&cx.out().join(LEFT_OUT), text.as_bytes())?);
            }
        }
        let tables = read_sources(cx, &fields)?;
        let mut rows: Vec<(String, Row)> = Vec::new();
        let mut dropped = BTreeMap::new();
        for records in &fields.records {
            let before = rows.len();
            let lost = map_records(records, &tables, &mut rows)?;
            cx.log(format!("{}: {} rows, {lost} without a picture", records.name, rows.len() - before));
            dropped.insert(records.name.clone(), lost);
        }
        if rows.is_empty() {
            return Err(
                Failure::target("no record became a row").help("look at `file`, `skip` and `image` in the recipe")
            );
        }
        let splits = assign(&fields, rows);
        for (split, rows) in &splits {
            write_split(cx.out(), split, rows)?;
            cx.metric(&format!("rows.{split}"), rows.len() as f64);
        }
        let card = card(cx.decl.label.as_str(), &fields, &splits, &dropped);
        Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
    }
}

impl Records {
    fn templates(&self) -> Vec<&str> {
        let optional = [&self.caption, &self.id, &self.tags, &self.group];
        let mut all: Vec<&str> = Vec::new();
        all.extend(optional.into_iter().flatten().map(String::as_str));
        all.extend(self.image.iter().map(|i| i.template.as_str()));
        all.extend(self.captions.iter().flatten().map(String::as_str));
        all.extend(self.column.iter().map(|c| c.value.as_str()));
        all.extend(self.join.iter().flat_map(|j| [j.key.as_str(), j.on.as_str()]));
        all
    }
}

/// Source name -> path -> bytes.
type Files = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// Reads what the records can need: their tables, and files that their pictures' templates could name.
fn read_sources(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Files, Failure> {
    let mut patterns: BTreeMap<&str, Vec<globset::GlobMatcher>> = BTreeMap::new();
    for records in &fields.records {
        let mut wanted = vec![(records.from.as_str(), records.file.clone())];
        wanted.extend(records.join.iter().map(|j| (j.from.as_str(), j.file.clone())));
        if let Some(image) = &records.image {
            let from = image.from.as_deref().unwrap_or(&records.from);
            wanted.push((from, placeholders_as_stars(&image.template)));
        }
        for (from, pattern) in wanted {
            let matcher = glob::compile(&pattern).map_err(|e| Failure::user(e.to_string()))?;
            patterns.entry(from).or_default().push(matcher);
            // A picture beside a text file, or the other way round, shares its directory.
            if glob::is_glob(&pattern)
                && let Some((stem, _)) = pattern.rsplit_once('.')
            {
                let matcher = glob::compile(&format!("{stem}.*")).map_err(|e| Failure::user(e.to_string()))?;
                patterns.entry(from).or_default().push(matcher);
            }
        }
    }
    let mut files = Files::new();
    let total = fields.source.len() as u64;
    for (i, source) in fields.source.iter().enumerate() {
        cx.progress("read sources", i as u64, total, "sources");
        let matchers = patterns.remove(source.name.as_str()).unwrap_or_default();
        let wanted = |path: &str| matchers.iter().any(|m| m.is_match(path));
        if let Ok(path) = fetched(cx.part(&format!("source-{}", source.name)))? {
            files.insert(source.name.clone(), read_members(&path, &wanted)?);
        }
    }
    for local in &fields.files {
        let all = files.entry(local.name.clone()).or_default();
        for pattern in &local.glob {
            for path in cx.project_files(pattern)? {
                let name = path.to_string_lossy().into_owned();
                let bytes = fs::read(&cx.project_file(&name))?;
                all.insert(name, bytes);
            }
        }
    }
    Ok(files)
}

fn placeholders_as_stars(template: &str) -> String {
    let mut pattern = String::new();
    let mut depth = 0;
    for c in template.chars() {
        match c {
            '{' => {
                depth += 1;
                pattern.push('*');
            }
            '}' => depth -= 1,
            _ if depth == 0 => pattern.push(c),
            _ => {}
        }
    }
    if pattern.starts_with('*') && !pattern.contains('/') { format!("**/{pattern}") } else { pattern }
}

/// The records of a table, or one for each file a glob matches.
fn records_of(files: &Files, from: &str, file: &str, form: Form<'_>) -> Result<Vec<Value>, Failure> {
    let source = &files[from];
    if glob::is_glob(file) {
        let matcher = glob::compile(file).map_err(|e| Failure::user(e.to_string()))?;
        let matching = source.iter().filter(|(p, _)| matcher.is_match(p));
        if matches!(form, Form::Whole) {
            return Ok(matching.map(|(p, bytes)| file_record(p, bytes)).collect());
        }
        let mut all = Vec::new();
        for (path, bytes) in matching {
            all.extend(one_table(bytes, from, path, form)?);
        }
        return Ok(all);
    }
    let bytes = source.get(file).ok_or_else(|| {
        Failure::target(format!("the source `{from}` has no file `{file}`")).help("check `file` in the recipe")
    })?;
    one_table(bytes, from, file, form)
}

impl Records {
    fn form(&self) -> Form<'_> {
        match (&self.pattern, &self.at) {
            (Some(pattern), _) => Form::Lines(pattern),
            (None, Some(at)) => Form::At(at),
            (None, None) => Form::Whole,
        }
    }
}

fn one_table(bytes: &[u8], from: &str, file: &str, form: Form<'_>) -> Result<Vec<Value>, Failure> {
    table::records(bytes, file, form).map_err(|e| {
        let failure = Failure::target(format!("`{file}` of the source `{from}`: {e}"));
        match e.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    })
}

/// `path`, `dir`, `stem` and, of a text file, `text`.
fn file_record(path: &str, bytes: &[u8]) -> Value {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let parent = dir.rsplit('/').next().unwrap_or("");
    let text = std::str::from_utf8(bytes).ok().map(|t| t.lines().next().unwrap_or("").trim().to_owned());
    serde_json::json!({"path": path, "dir": dir, "parent": parent, "stem": stem, "text": text})
}

/// Adds the rows of one mapping; returns how many had no picture.
fn map_records(records: &Records, files: &Files, rows: &mut Vec<(String, Row)>) -> Result<usize, Failure> {
    let read = |template: &str| Template::new(template).map_err(|e| Failure::user(e.to_string()));
    let joins = records
        .join
        .iter()
        .map(|join| {
            let key = read(&join.key)?;
            let by_key: BTreeMap<String, Value> = records_of(files, &join.from, &join.file, Form::Whole)?
                .into_iter()
                .filter_map(|record| Some((key.text(&record)?, record)))
                .collect();
            Ok((join.name.clone(), read(&join.on)?, by_key))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let caption = records.caption.as_deref().map(read).transpose()?;
    let id = records.id.as_deref().map(read).transpose()?;
    let group = records.group.as_deref().map(read).transpose()?;
    let tags = records.tags.as_deref().map(read).transpose()?;
    let captions: Vec<Template> = records.captions.iter().flatten().map(|t| read(t)).collect::<Result<_, _>>()?;
    let columns =
        records.column.iter().map(|c| Ok((c.name.clone(), read(&c.value)?))).collect::<Result<Vec<_>, Failure>>()?;
    let image = match &records.image {
        Some(image) => Some((read(&image.template)?, image.from.as_ref().unwrap_or(&records.from))),
        None => None,
    };
    let mut without_picture = 0;
    for (i, mut record) in records_of(files, &records.from, &records.file, records.form())?.into_iter().enumerate() {
        let skipped = records.skip.iter().any(|skip| {
            let field = record.get(&skip[0]).and_then(Value::as_str);
            skip[1..].iter().any(|v| field == Some(v))
        });
        if skipped {
            continue;
        }
        for (name, on, by_key) in if record.is_object() { &joins[..] } else { &[] } {
            if let Some(other) = on.text(&record).and_then(|key| by_key.get(&key)) {
                record[name] = other.clone();
            }
        }
        let lacks = |what: &str, template: &str| {
            let (number, file) = (i + 1, &records.file);
            Failure::target(format!("record {number} of `{file}` has no {what}: \"{template}\" names a field it lacks"))
                .help("leave such records out with `skip`, or use a field that all have")
        };
        let text = match &caption {
            None => String::new(),
            Some(caption) => {
                caption.text(&record).ok_or_else(|| lacks("caption", records.caption.as_deref().unwrap_or_default()))?
            }
        };
        let own_columns = columns.iter().zip(&records.column).map(|((name, template), column)| {
            match template.text(&record) {
                Some(text) => Ok((name.clone(), text)),
                // Beside a caption a column may be empty; without one it is what the row is for.
                None if caption.is_some() => Ok((name.clone(), String::new())),
                None => Err(lacks(&format!("`{name}`"), &column.value)),
            }
        });
        let own_columns = own_columns.collect::<Result<Vec<(String, String)>, Failure>>()?;
        let picture = match &image {
            None => None,
            Some((template, from)) => {
                let found = template.text(&record).and_then(|path| files[*from].get(&path));
                if found.is_none() {
                    without_picture += 1;
                    continue;
                }
                found.cloned()
            }
        };
        let own = id.as_ref().and_then(|t| t.text(&record)).unwrap_or_else(|| format!("{i:06}"));
        let mut others: Vec<String> = captions.iter().flat_map(|t| t.texts(&record)).collect();
        others.retain(|t| *t != text && !t.is_empty());
        let mut seen = BTreeSet::new();
        others.retain(|t| seen.insert(t.clone()));
        let row = Row {
            id: format!("{}/{own}", records.name),
            image: picture,
            group: group.as_ref().and_then(|t| t.text(&record)).unwrap_or_else(|| match own_columns.first() {
                Some((_, first)) if caption.is_none() => first.clone(),
                _ => text.clone(),
            }),
            caption: text,
            captions: others,
            tags: tags.iter().flat_map(|t| t.texts(&record)).collect(),
            columns: own_columns.into_iter().chain([("records".to_owned(), records.name.clone())]).collect(),
        };
        rows.push((records.name.clone(), row));
    }
    Ok(without_picture)
}

/// Splits by group: the groups in the order of a digest of seed and name, cut by shares. So a group's
/// place does not depend on the order of the sources.
fn assign(fields: &Fields, rows: Vec<(String, Row)>) -> BTreeMap<String, Vec<Row>> {
    let split = fields.split.as_ref();
    let seed = split.map_or(0, |s| s.seed);
    let rank = |group: &str| -> Digest {
        let mut hasher = Hasher::in_domain("effai dataset split v1");
        hasher.part(&seed.to_le_bytes());
        hasher.part(group.as_bytes());
        hasher.finish()
    };
    let mut groups: Vec<&str> =
        rows.iter().map(|(_, r)| r.group.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    groups.sort_by_key(|g| rank(g));
    if let Some(limit) = fields.limit {
        groups.truncate(limit);
    }
    let n = groups.len() as f64;
    let cut = |share: f64| (n * share).round() as usize;
    let split_of: BTreeMap<String, &str> = match split {
        None => groups.iter().map(|g| ((*g).to_owned(), "train")).collect(),
        Some(s) => {
            let (test, validation) = (cut(s.test), cut(s.test + s.validation));
            let train = cut(s.test + s.validation + s.train);
            let name = |i: usize| match i {
                i if i < test => Some("test"),
                i if i < validation => Some("validation"),
                i if i < train => Some("train"),
                _ => None,
            };
            groups.iter().enumerate().filter_map(|(i, g)| Some(((*g).to_owned(), name(i)?))).collect()
        }
    };
    let mut splits: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for (name, row) in rows {
        let Some(split) = split_of.get(&row.group) else { continue };
        let held_out = fields.hold_out.iter().flatten().any(|h| *h == name);
        let split = if held_out { format!("{split}-{name}") } else { (*split).to_owned() };
        splits.entry(split).or_default().push(row);
    }
    splits.values_mut().for_each(|rows| rows.sort_by(|a, b| a.id.cmp(&b.id)));
    splits
}

fn card(
    label: &str,
    fields: &Fields,
    splits: &BTreeMap<String, Vec<Row>>,
    dropped: &BTreeMap<String, usize>,
) -> String {
    let mut text = String::from("---\n");
    let licences: BTreeSet<&str> = fields.source.iter().filter_map(|s| s.source.license.as_deref()).collect();
    match licences.len() {
        0 => {}
        1 => text.push_str(&format!("license: {}\n", licences.iter().next().unwrap_or(&"").to_lowercase())),
        _ => text.push_str("license: other\n"),
    }
    text.push_str("configs:\n- config_name: default\n  data_files:\n");
    for split in splits.keys() {
        let name = split.replace('-', "_");
        text.push_str(&format!("  - split: {name}\n    path: data/{name}-00000-of-00001.parquet\n"));
    }
    text.push_str(&format!("---\n\n# {label}\n\n| split | rows | groups |\n|---|---|---|\n"));
    for (split, rows) in splits {
        let groups: BTreeSet<&str> = rows.iter().map(|r| r.group.as_str()).collect();
        text.push_str(&format!("| {split} | {} | {} |\n", rows.len(), groups.len()));
    }
    text.push_str("\nNo group is in two splits; the splits of held-out records follow the groups too.\n\n");
    text.push_str("## Sources\n\n| name | origin | sha256 | licence |\n|---|---|---|---|\n");
    for s in &fields.source {
        let (sha, licence) =
            (s.source.sha256.as_deref().unwrap_or("not pinned"), s.source.license.as_deref().unwrap_or("not stated"));
        text.push_str(&format!("| {} | {} | `{sha}` | {licence} |\n", s.name, s.source.origin()));
    }
    for (name, n) in dropped.iter().filter(|(_, n)| **n > 0) {
        text.push_str(&format!("\n{n} records of `{name}` have no picture in their source and are left out.\n"));
    }
    text.push_str("\n## Loading\n\n```python\nfrom datasets import load_dataset\ndataset = load_dataset(\"path/to/this/directory\")\n```\n");
    text
}
