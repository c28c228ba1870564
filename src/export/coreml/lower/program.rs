//! What a program consists of: operations, their arguments, and constants in the program or beside it.

use std::collections::BTreeMap;

use super::super::blob::Element;
use super::super::proto::{self, Held, Length, Values};
use super::super::{CoremlError, WEIGHTS_IN_PROGRAM, identifier};
use super::Lower;
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::export::graph::Dim;
use crate::export::view::above_nothing;

/// MIL's numbers of element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export::coreml) enum Kind {
    Bool = 1,
    Text = 2,
    Float16 = 10,
    Float32 = 11,
    Float64 = 12,
    Int8 = 21,
    Int32 = 23,
    Int4 = 25,
    Uint8 = 31,
    Uint32 = 33,
    Uint4 = 35,
    Uint1 = 37,
    Uint6 = 38,
}

/// Fewer values stand in the program itself, as coremltools has it.
const IN_FILE_MIN: usize = 10;
/// An argument of an operation.
#[derive(Clone, Copy)]
pub(in crate::export::coreml) enum Arg<'a> {
    /// A tensor.
    Of(&'a str),
    /// Several.
    All(&'a [&'a str]),
    Bool(bool),
    Bools(&'a [bool]),
    Int(i32),
    Ints(&'a [i32]),
    /// A float of the kind that is computed in.
    Number(f32),
    Text(&'a str),
}

impl Lower<'_> {
    pub(in crate::export::coreml) fn unique(&mut self, name: &str) -> String {
        let name = identifier(name);
        let mut made = name.clone();
        for count in 2.. {
            if self.names.insert(made.clone()) {
                break;
            }
            made = format!("{name}_{count}");
        }
        made
    }

    pub(in crate::export::coreml) fn kind(&self, tensor: &str) -> Kind {
        self.tensors[tensor].0
    }

    pub(in crate::export::coreml) fn lengths(&self, tensor: &str) -> Vec<Dim> {
        self.tensors[tensor].1.clone()
    }

    /// Writes an operation that gives one tensor.
    pub(in crate::export::coreml) fn op(
        &mut self,
        op: &str,
        args: &[(&str, Arg<'_>)],
        kind: Kind,
        shape: Vec<Dim>,
    ) -> String {
        let inputs = self.arguments(args);
        let name = self.unique(&format!("{}_{op}", self.own));
        self.emit(op, inputs, BTreeMap::new(), name, kind, shape)
    }

    /// Writes an operation that gives nothing, and changes what is kept.
    pub(in crate::export::coreml) fn act(&mut self, op: &str, args: &[(&str, Arg<'_>)]) {
        let inputs = self.arguments(args);
        let name = self.unique(&format!("{}_{op}", self.own));
        let attributes = BTreeMap::from([("name".to_owned(), text(&name))]);
        self.operations.push(proto::Operation { r#type: op.to_owned(), inputs, outputs: Vec::new(), attributes });
    }

    fn arguments(&mut self, args: &[(&str, Arg<'_>)]) -> BTreeMap<String, proto::Argument> {
        let bound = |name: String| proto::Binding { bound: Some(proto::Bound::Name(name)) };
        let mut inputs = BTreeMap::new();
        for (name, arg) in args {
            let arguments = match arg {
                Arg::Of(tensor) => vec![bound((*tensor).to_owned())],
                Arg::All(tensors) => tensors.iter().map(|tensor| bound((*tensor).to_owned())).collect(),
                literal => vec![bound(self.literal(literal))],
            };
            inputs.insert((*name).to_owned(), proto::Argument { arguments });
        }
        inputs
    }

    pub(in crate::export::coreml) fn emit(
        &mut self,
        op: &str,
        inputs: BTreeMap<String, proto::Argument>,
        mut attributes: BTreeMap<String, proto::Value>,
        name: String,
        kind: Kind,
        shape: Vec<Dim>,
    ) -> String {
        attributes.insert("name".into(), text(&name));
        self.operations.push(proto::Operation {
            r#type: op.to_owned(),
            inputs,
            outputs: vec![proto::NamedType { name: name.clone(), r#type: Some(value_type(kind, &shape)) }],
            attributes,
        });
        self.tensors.insert(name.clone(), (kind, shape));
        name
    }

    pub(super) fn emit_constant(&mut self, name: &str, kind: Kind, dims: &[usize], value: proto::Value) -> String {
        let name = self.unique(name);
        let attributes = BTreeMap::from([("val".to_owned(), value)]);
        self.emit("const", BTreeMap::new(), attributes, name, kind, fixed(dims))
    }

    /// A constant that an argument is, once for all that have it.
    pub(in crate::export::coreml) fn literal(&mut self, arg: &Arg<'_>) -> String {
        let (key, kind, dims, values) = match arg {
            Arg::Of(_) | Arg::All(_) => unreachable!("a tensor is no literal"),
            Arg::Bool(value) => {
                (format!("bool {value}"), Kind::Bool, vec![], Values::Bools(proto::Bools { values: vec![*value] }))
            }
            Arg::Bools(all) => {
                let values = Values::Bools(proto::Bools { values: all.to_vec() });
                (format!("bools {all:?}"), Kind::Bool, vec![all.len()], values)
            }
            Arg::Int(value) => {
                (format!("int {value}"), Kind::Int32, vec![], Values::Ints(proto::Ints { values: vec![*value] }))
            }
            Arg::Ints(all) => {
                let values = Values::Ints(proto::Ints { values: all.to_vec() });
                (format!("ints {all:?}"), Kind::Int32, vec![all.len()], values)
            }
            Arg::Number(value) => return self.number(*value, self.float),
            Arg::Text(value) => {
                let values = Values::Strings(proto::Strings { values: vec![(*value).to_owned()] });
                (format!("text {value}"), Kind::Text, vec![], values)
            }
        };
        if let Some(name) = self.made.get(&key) {
            return name.clone();
        }
        let name = self.emit_constant(&key, kind, &dims, immediate(kind, &dims, values));
        self.made.insert(key, name.clone());
        name
    }

    /// One float, once for all that need it.
    pub(in crate::export::coreml) fn number(&mut self, value: f32, kind: Kind) -> String {
        let key = format!("number {kind:?} {}", value.to_bits());
        if let Some(name) = self.made.get(&key) {
            return name.clone();
        }
        let kept = if kind == Kind::Float16 { above_nothing(value) } else { value };
        let held = self.held(kind, &[], &float_bytes(&[kept], kind));
        let name = self.emit_constant(&format!("number {value}"), kind, &[], held);
        self.made.insert(key, name.clone());
        name
    }

    /// Values of a kind by their bytes: in the program where they are few, else in the file of weights.
    pub(in crate::export::coreml) fn held(&mut self, kind: Kind, dims: &[usize], raw: &[u8]) -> proto::Value {
        let count: usize = dims.iter().product();
        let (element, bits) = match kind {
            Kind::Float16 => (Some(Element::Float16), 16),
            Kind::Float32 => (Some(Element::Float32), 32),
            Kind::Uint8 => (Some(Element::Uint8), 8),
            Kind::Int8 => (Some(Element::Int8), 8),
            Kind::Int4 => (Some(Element::Int4), 4),
            Kind::Uint4 => (Some(Element::Uint4), 4),
            Kind::Uint6 => (Some(Element::Uint6), 6),
            Kind::Uint1 => (Some(Element::Uint1), 1),
            Kind::Bool | Kind::Text | Kind::Int32 | Kind::Uint32 | Kind::Float64 => (None, 32),
        };
        if let Some(element) = element.filter(|_| count >= IN_FILE_MIN || bits < 8) {
            let offset = self.blobs.add(element, raw, 8 * raw.len() as u64 - count as u64 * bits);
            let blob = proto::BlobFile { file_name: WEIGHTS_IN_PROGRAM.to_owned(), offset };
            return proto::Value { r#type: Some(value_type(kind, &fixed(dims))), held: Some(Held::Blob(blob)) };
        }
        let values = match kind {
            Kind::Float32 => Values::Floats(proto::Floats { values: floats::from_bytes(raw, Float::F32) }),
            _ => Values::Bytes(proto::Bytes { values: raw.to_vec() }),
        };
        immediate(kind, dims, values)
    }

    /// Floats of the kind that is computed in.
    pub(in crate::export::coreml) fn floats(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
    ) -> Result<String, CoremlError> {
        self.floats_of(name, dims, values, self.float)
    }

    pub(in crate::export::coreml) fn floats_of(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
        kind: Kind,
    ) -> Result<String, CoremlError> {
        if kind == Kind::Float16
            && let Some(value) = floats::too_large(values, Float::F16)
        {
            return Err(CoremlError::TooLarge { name: name.to_owned(), value });
        }
        let held = self.held(kind, dims, &float_bytes(values, kind));
        Ok(self.emit_constant(name, kind, dims, held))
    }
}

pub(in crate::export::coreml) fn bound_to(name: &str) -> proto::Argument {
    proto::Argument { arguments: vec![proto::Binding { bound: Some(proto::Bound::Name(name.to_owned())) }] }
}

/// Floats in the bytes of a kind.
pub(in crate::export::coreml) fn float_bytes(values: &[f32], kind: Kind) -> Vec<u8> {
    floats::to_bytes(values, if kind == Kind::Float16 { Float::F16 } else { Float::F32 })
}

pub(in crate::export::coreml) fn fixed(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|n| Dim::Fixed(*n)).collect()
}

pub(in crate::export::coreml) fn value_type(kind: Kind, shape: &[Dim]) -> proto::ValueType {
    let length = |dim: &Dim| match dim {
        Dim::Fixed(number) => Length::Constant(proto::ConstantLength { size: *number as u64 }),
        _ => Length::Unknown(proto::UnknownLength { variadic: false }),
    };
    let dimensions = shape.iter().map(|dim| proto::Dimension { length: Some(length(dim)) }).collect();
    let tensor = proto::TensorType { data_type: kind as i32, rank: shape.len() as i64, dimensions };
    proto::ValueType { tensor_type: Some(tensor), ..Default::default() }
}

pub(in crate::export::coreml) fn immediate(kind: Kind, dims: &[usize], values: Values) -> proto::Value {
    let tensor = proto::TensorValue { values: Some(values) };
    proto::Value {
        r#type: Some(value_type(kind, &fixed(dims))),
        held: Some(Held::Immediate(proto::Immediate { tensor: Some(tensor), list: None })),
    }
}

pub(in crate::export::coreml) fn text(value: &str) -> proto::Value {
    immediate(Kind::Text, &[], Values::Strings(proto::Strings { values: vec![value.to_owned()] }))
}
