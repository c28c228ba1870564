//! What a file says of itself to programs made for TensorFlow Lite: `ModelMetadata` of `metadata_schema.fbs`, TensorFlow Lite
//! Support, whose numbers of slots these are. It lies in the model as a buffer of its own.

use std::io::{Cursor, Seek, SeekFrom, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::flat::{self, Node, Slot};
use crate::export::format::{AUTHOR, DESCRIPTION, LABEL, LICENSE, PREPROCESSING, VERSION};
use crate::export::graph::Dim;
use crate::export::labels;
use crate::export::source::PIXELS;
use crate::format::image::Preprocessing;

/// The name of the buffer among a model's metadata.
pub(super) const ENTRY: &str = "TFLITE_METADATA";
/// What it begins with, after its first offset.
const IDENTIFIER: &[u8; 4] = b"M001";
/// The least version of a parser that knows all that is said here.
const LEAST_PARSER: &str = "1.0.0";
/// Of `ContentProperties`.
const OF_FEATURES: u8 = 1;
/// Of `ContentProperties`.
const OF_PICTURES: u8 = 2;
/// Of `ProcessUnitOptions`.
const NORMALIZATION: u8 = 1;
/// Of `ColorSpaceType`.
const RGB: u8 = 1;
/// Of `AssociatedFileType`: what the entries along an axis are called, one a line.
const TENSOR_AXIS_LABELS: u8 = 2;

/// The bytes of a buffer that describes a model with these inputs, by name and shape, and these outputs; where it has labels, what
/// comes out are their probabilities.
pub(super) fn file<'a>(
    inputs: impl Iterator<Item = (&'a str, &'a [Dim])>,
    outputs: impl Iterator<Item = &'a str>,
    metadata: &[(String, String)],
    labels: &[String],
) -> Vec<u8> {
    let said = |key: &str| metadata.iter().find(|(own, _)| own == key).map(|(_, value)| &value[..]);
    let preprocessing = said(PREPROCESSING).and_then(|text| serde_json::from_str::<Preprocessing>(text).ok());
    let of_numbers =
        |name: &str| Node::Table(vec![(0, text(name)), (3, content(OF_FEATURES, Node::Table(Vec::new())))]);
    let given = |(name, shape): (&str, &[Dim])| match preprocessing.filter(|_| name == PIXELS) {
        Some(preprocessing) => of_pictures(name, shape, &preprocessing),
        None => of_numbers(name),
    };
    let inputs = nodes(inputs.map(given).collect());
    let outputs = outputs.map(|name| if labels.is_empty() { of_numbers(name) } else { of_labels(name) });
    let graph = Node::Table(vec![(2, inputs), (3, nodes(outputs.collect()))]);
    let own = [(0, LABEL), (1, DESCRIPTION), (2, VERSION), (4, AUTHOR), (5, LICENSE)];
    let mut slots: Vec<(u16, Slot)> =
        own.into_iter().filter_map(|(slot, key)| Some((slot, text(said(key)?)))).collect();
    slots.push((3, nodes(vec![graph])));
    slots.push((7, text(LEAST_PARSER)));
    flat::file(&Node::Table(slots), IDENTIFIER)
}

/// Pictures [n, height, width, 3], and what is done to each value before they are given.
fn of_pictures(name: &str, shape: &[Dim], preprocessing: &Preprocessing) -> Node {
    let length = |axis: usize| shape.get(axis).and_then(Dim::fixed).unwrap_or(preprocessing.size);
    let [height, width] = [1, 2].map(|axis| Slot::Int(i32::try_from(length(axis)).expect("a small number")));
    let size = Node::Table(vec![(0, width), (1, height)]);
    let properties = Node::Table(vec![(0, Slot::Byte(RGB)), (1, Slot::Node(size))]);
    let floats = |values: [f32; 3]| Slot::Node(Node::Floats(values.to_vec()));
    let options = Node::Table(vec![(0, floats(preprocessing.mean.each())), (1, floats(preprocessing.std.each()))]);
    let unit = Node::Table(vec![(0, Slot::Byte(NORMALIZATION)), (1, Slot::Node(options))]);
    Node::Table(vec![(0, text(name)), (3, content(OF_PICTURES, properties)), (4, nodes(vec![unit]))])
}

/// Probabilities, and the file that says of what: [`with_labels`].
fn of_labels(name: &str) -> Node {
    let one = |value: f32| Slot::Node(Node::Floats(vec![value]));
    let range = Node::Table(vec![(0, one(1.0)), (1, one(0.0))]);
    let file = Node::Table(vec![(0, text(labels::FILE)), (2, Slot::Byte(TENSOR_AXIS_LABELS))]);
    Node::Table(vec![
        (0, text(name)),
        (3, content(OF_FEATURES, Node::Table(Vec::new()))),
        (5, Slot::Node(range)),
        (6, nodes(vec![file])),
    ])
}

/// A model with the file of its labels behind it, in an archive that is not compressed: as `MetadataPopulator` puts it there, and as readers
/// look for what the metadata names. No times.
///
/// # Panics
/// Never: memory is written to.
pub(super) fn with_labels(model: Vec<u8>, labels: &[String]) -> Vec<u8> {
    let mut out = Cursor::new(model);
    // Places in the archive count from the beginning of the model.
    out.seek(SeekFrom::End(0)).expect("in memory");
    let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(out);
    archive.start_file(labels::FILE, plain.last_modified_time(DateTime::default())).expect("a name");
    archive.write_all(labels::lines(labels).as_bytes()).expect("in memory");
    archive.finish().expect("in memory").into_inner()
}

fn content(kind: u8, properties: Node) -> Slot {
    Slot::Node(Node::Table(vec![(0, Slot::Byte(kind)), (1, Slot::Node(properties))]))
}

fn text(text: &str) -> Slot {
    Slot::Node(Node::Text(text.to_owned()))
}

fn nodes(nodes: Vec<Node>) -> Slot {
    Slot::Node(Node::Nodes(nodes))
}
