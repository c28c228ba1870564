//! Core ML's messages, the fields that are written: names and numbers of Model.proto, FeatureTypes.proto and MIL.proto of
//! coremltools. Maps are ordered, so that equal models give equal bytes.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int32, tag = "1")]
    pub(super) specification_version: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) description: Option<Description>,
    #[prost(message, optional, tag = "502")]
    pub(super) ml_program: Option<Program>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Description {
    #[prost(message, repeated, tag = "1")]
    pub(super) input: Vec<Feature>,
    #[prost(message, repeated, tag = "10")]
    pub(super) output: Vec<Feature>,
    #[prost(string, tag = "11")]
    pub(super) predicted_feature_name: String,
    #[prost(string, tag = "12")]
    pub(super) predicted_probabilities_name: String,
    #[prost(message, repeated, tag = "13")]
    pub(super) state: Vec<Feature>,
    #[prost(message, optional, tag = "100")]
    pub(super) metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub(super) short_description: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, tag = "3")]
    pub(super) author: String,
    #[prost(string, tag = "4")]
    pub(super) license: String,
    #[prost(btree_map = "string, string", tag = "100")]
    pub(super) user_defined: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Feature {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) short_description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) r#type: Option<FeatureType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FeatureType {
    #[prost(oneof = "FeatureKind", tags = "3, 4, 5, 6, 8")]
    pub(super) kind: Option<FeatureKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum FeatureKind {
    #[prost(message, tag = "3")]
    Text(Nothing),
    #[prost(message, tag = "4")]
    Image(Image),
    #[prost(message, tag = "5")]
    Array(Array),
    #[prost(message, tag = "6")]
    Numbers(NumbersFeature),
    #[prost(message, tag = "8")]
    State(StateFeature),
}

/// A message without fields.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// `DictionaryFeatureType`: numbers of 64 bits by text.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NumbersFeature {
    #[prost(message, optional, tag = "2")]
    pub(super) by_text: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StateFeature {
    #[prost(message, optional, tag = "1")]
    pub(super) array: Option<Array>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int64, tag = "1")]
    pub(super) width: i64,
    #[prost(int64, tag = "2")]
    pub(super) height: i64,
    #[prost(int32, tag = "3")]
    pub(super) color_space: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Array {
    #[prost(int64, repeated, tag = "1")]
    pub(super) shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(message, optional, tag = "31")]
    pub(super) shape_range: Option<ShapeRange>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ShapeRange {
    #[prost(message, repeated, tag = "1")]
    pub(super) size_ranges: Vec<SizeRange>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SizeRange {
    #[prost(uint64, tag = "1")]
    pub(super) lower_bound: u64,
    #[prost(int64, tag = "2")]
    pub(super) upper_bound: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Program {
    #[prost(int64, tag = "1")]
    pub(super) version: i64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) functions: BTreeMap<String, Function>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Function {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<NamedType>,
    #[prost(string, tag = "2")]
    pub(super) opset: String,
    #[prost(btree_map = "string, message", tag = "3")]
    pub(super) block_specializations: BTreeMap<String, Block>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Block {
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) operations: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) inputs: BTreeMap<String, Argument>,
    #[prost(message, repeated, tag = "3")]
    pub(super) outputs: Vec<NamedType>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) attributes: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Argument {
    #[prost(message, repeated, tag = "1")]
    pub(super) arguments: Vec<Binding>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Binding {
    #[prost(oneof = "Bound", tags = "1, 2")]
    pub(super) bound: Option<Bound>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Bound {
    #[prost(string, tag = "1")]
    Name(String),
    #[prost(message, tag = "2")]
    Value(Value),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedType {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
    /// In place of the other, as are those below.
    #[prost(message, optional, boxed, tag = "2")]
    pub(super) list_type: Option<Box<ListType>>,
    #[prost(message, optional, boxed, tag = "4")]
    pub(super) dictionary_type: Option<Box<DictionaryType>>,
    /// The type of what is kept.
    #[prost(message, optional, boxed, tag = "5")]
    pub(super) state_type: Option<Box<StateType>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListType {
    #[prost(message, optional, tag = "1")]
    pub(super) r#type: Option<ValueType>,
    #[prost(message, optional, tag = "2")]
    pub(super) length: Option<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DictionaryType {
    #[prost(message, optional, tag = "1")]
    pub(super) key_type: Option<ValueType>,
    #[prost(message, optional, tag = "2")]
    pub(super) value_type: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StateType {
    #[prost(message, optional, tag = "1")]
    pub(super) wrapped: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) data_type: i32,
    #[prost(int64, tag = "2")]
    pub(super) rank: i64,
    #[prost(message, repeated, tag = "3")]
    pub(super) dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(oneof = "Length", tags = "1, 2")]
    pub(super) length: Option<Length>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Length {
    #[prost(message, tag = "1")]
    Constant(ConstantLength),
    #[prost(message, tag = "2")]
    Unknown(UnknownLength),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConstantLength {
    #[prost(uint64, tag = "1")]
    pub(super) size: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UnknownLength {
    #[prost(bool, tag = "1")]
    pub(super) variadic: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<ValueType>,
    #[prost(oneof = "Held", tags = "3, 5")]
    pub(super) held: Option<Held>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Held {
    #[prost(message, tag = "3")]
    Immediate(Immediate),
    #[prost(message, tag = "5")]
    Blob(BlobFile),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Immediate {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorValue>,
    /// In place of the other.
    #[prost(message, optional, tag = "3")]
    pub(super) list: Option<ListValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobFile {
    #[prost(string, tag = "1")]
    pub(super) file_name: String,
    /// Of the blob's record in the file.
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorValue {
    #[prost(oneof = "Values", tags = "1, 2, 3, 4, 7")]
    pub(super) values: Option<Values>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Values {
    #[prost(message, tag = "1")]
    Floats(Floats),
    #[prost(message, tag = "2")]
    Ints(Ints),
    #[prost(message, tag = "3")]
    Bools(Bools),
    #[prost(message, tag = "4")]
    Strings(Strings),
    #[prost(message, tag = "7")]
    Bytes(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Floats {
    #[prost(float, repeated, tag = "1")]
    pub(super) values: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ints {
    #[prost(int32, repeated, tag = "1")]
    pub(super) values: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bools {
    #[prost(bool, repeated, tag = "1")]
    pub(super) values: Vec<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Strings {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) values: Vec<u8>,
}
