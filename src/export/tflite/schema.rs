//! A model as TensorFlow Lite's schema has it, version 3 (`schema.fbs` of LiteRT): the numbers of slots, of operators, of
//! their options and of element types are that file's.

use super::about;
use super::flat::{self, Node, Slot};
use super::length;
use super::lower::Lowered;
use crate::export::graph::Dim;

/// Of `Model`.
const VERSION: i32 = 3;
/// What a file begins with, after its first offset.
pub(super) const IDENTIFIER: &[u8; 4] = b"TFL3";
/// The name of the one signature, as converters call it.
pub(super) const SIGNATURE: &str = "serving_default";
/// The first operator that has no number of one byte (`PLACEHOLDER_FOR_GREATER_OP_CODES`).
const BEYOND_A_BYTE: i32 = 127;

/// What a tensor consists of (`TensorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float32 = 0,
    Float16 = 1,
    Int32 = 2,
    Uint8 = 3,
    Bool = 6,
    Int8 = 9,
    /// Two to a byte, the first in its low half.
    Int4 = 17,
}

/// An operator: its number (`BuiltinOperator`), that of its options (`BuiltinOptions`, 0 where it has none), and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Code {
    /// `BuiltinOperator`.
    pub(super) number: i32,
    /// `BuiltinOptions`.
    pub(super) options: u8,
    /// What it is called, for the names of tensors.
    pub(super) name: &'static str,
}

const fn code(number: i32, options: u8, name: &'static str) -> Code {
    Code { number, options, name }
}

pub(super) const ADD: Code = code(0, 11, "add");
pub(super) const CONCATENATION: Code = code(2, 10, "concatenation");
pub(super) const CONV_2D: Code = code(3, 1, "conv");
pub(super) const DEPTHWISE_CONV_2D: Code = code(4, 2, "depthwise-conv");
pub(super) const DEQUANTIZE: Code = code(6, 38, "dequantize");
pub(super) const FLOOR: Code = code(8, 0, "floor");
pub(super) const FULLY_CONNECTED: Code = code(9, 8, "fully-connected");
pub(super) const LOGISTIC: Code = code(14, 0, "logistic");
pub(super) const MUL: Code = code(18, 21, "mul");
pub(super) const RELU: Code = code(19, 0, "relu");
pub(super) const RELU6: Code = code(21, 0, "relu6");
pub(super) const RESHAPE: Code = code(22, 17, "reshape");
pub(super) const SOFTMAX: Code = code(25, 9, "softmax");
pub(super) const PAD: Code = code(34, 22, "pad");
pub(super) const GATHER: Code = code(36, 23, "gather");
pub(super) const TRANSPOSE: Code = code(39, 26, "transpose");
pub(super) const MEAN: Code = code(40, 27, "mean");
pub(super) const SUB: Code = code(41, 28, "sub");
pub(super) const DIV: Code = code(42, 29, "div");
pub(super) const STRIDED_SLICE: Code = code(45, 32, "strided-slice");
pub(super) const EXP: Code = code(47, 33, "exp");
pub(super) const CAST: Code = code(53, 37, "cast");
pub(super) const MAXIMUM: Code = code(55, 39, "maximum");
pub(super) const ARG_MAX: Code = code(56, 40, "arg-max");
pub(super) const MINIMUM: Code = code(57, 39, "minimum");
pub(super) const GREATER: Code = code(61, 44, "greater");
pub(super) const SLICE: Code = code(65, 48, "slice");
pub(super) const SIN: Code = code(66, 0, "sin");
pub(super) const TILE: Code = code(69, 51, "tile");
pub(super) const EQUAL: Code = code(71, 53, "equal");
pub(super) const LOG: Code = code(73, 0, "log");
pub(super) const SUM: Code = code(74, 27, "sum");
pub(super) const SQRT: Code = code(75, 0, "sqrt");
pub(super) const SHAPE: Code = code(77, 55, "shape");
pub(super) const PACK: Code = code(83, 59, "pack");
pub(super) const RANGE: Code = code(96, 73, "range");
pub(super) const COS: Code = code(108, 84, "cos");
pub(super) const BATCH_MATMUL: Code = code(126, 101, "batch-matmul");
pub(super) const QUANTIZE: Code = code(114, 89, "quantize");
pub(super) const GELU: Code = code(150, 116, "gelu");

/// `Padding`.
pub(super) const SAME: u8 = 0;
/// `Padding`.
pub(super) const VALID: u8 = 1;

/// What a convolution does last, where it does something (`ActivationFunctionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Relu = 1,
    Relu6 = 3,
}

/// A tensor.
#[derive(Debug)]
pub(super) struct Tensor {
    /// A name that no other has.
    pub(super) name: String,
    /// What it consists of.
    pub(super) kind: Kind,
    /// The length of each axis.
    pub(super) shape: Vec<Dim>,
    /// The bytes of a constant, by their number: several tensors may have the same.
    pub(super) buffer: Option<usize>,
    /// What codes are multiplied by, for each entry of this axis.
    pub(super) scales: Option<(Vec<f32>, usize)>,
    /// The code that stands for 0.
    pub(super) zero: i64,
}

/// One operator of the file, of tensors by their numbers.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) code: Code,
    /// As `schema.fbs` counts them; 1 where it was the first to do this.
    pub(super) version: i32,
    /// -1 where one that could be is not given.
    pub(super) inputs: Vec<i32>,
    pub(super) output: usize,
    /// The slots of its options.
    pub(super) options: Vec<(u16, Slot)>,
}

fn text(text: &str) -> Slot {
    Slot::Node(Node::Text(text.to_owned()))
}

fn nodes(nodes: Vec<Node>) -> Slot {
    Slot::Node(Node::Nodes(nodes))
}

fn ints(values: Vec<i32>) -> Slot {
    Slot::Node(Node::Ints(values))
}

fn number(value: usize) -> i32 {
    i32::try_from(value).expect("fewer than 2^31 of anything")
}

/// The whole file, but for that of the labels which are said to be behind it.
pub(super) fn file(lowered: Lowered, metadata: &[(String, String)], labels: &[String]) -> Vec<u8> {
    let empty = || Node::Table(Vec::new());
    let bytes = |bytes: Vec<u8>| Node::Table(vec![(0, Slot::Node(Node::Bytes(bytes)))]);
    // What has no values has the first, which is empty.
    let mut buffers = vec![empty()];
    buffers.extend(lowered.buffers.into_iter().map(bytes));
    let tensors = lowered.tensors.iter().map(of_tensor).collect();
    let mut entries = Vec::new();
    let names = |of: &[(String, usize)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let made = names(&lowered.outputs);
    let seen = lowered.inputs.iter().map(|(name, at)| (&name[..], &lowered.tensors[*at].shape[..]));
    let described = about::file(seen, made.iter().map(String::as_str), metadata, labels);
    let own = metadata.iter().map(|(name, value)| (&name[..], value.clone().into_bytes()));
    for (name, value) in own.chain([(about::ENTRY, described)]) {
        entries.push(Node::Table(vec![(0, text(name)), (1, Slot::Int(number(buffers.len())))]));
        buffers.push(bytes(value));
    }
    let mut codes: Vec<(Code, i32)> = Vec::new();
    let mut operators = Vec::with_capacity(lowered.operators.len());
    for operator in &lowered.operators {
        let own = (operator.code, operator.version);
        let at = codes.iter().position(|code| *code == own).unwrap_or_else(|| {
            codes.push(own);
            codes.len() - 1
        });
        let mut slots = vec![
            (0, Slot::Int(number(at))),
            (1, ints(operator.inputs.clone())),
            (2, ints(vec![number(operator.output)])),
        ];
        if operator.code.options != 0 {
            slots.push((3, Slot::Byte(operator.code.options)));
            slots.push((4, Slot::Node(Node::Table(operator.options.clone()))));
        }
        operators.push(Node::Table(slots));
    }
    let codes = codes.into_iter().map(|(code, version)| {
        let old = u8::try_from(code.number.min(BEYOND_A_BYTE)).expect("within a byte");
        Node::Table(vec![(0, Slot::Byte(old)), (2, Slot::Int(version)), (3, Slot::Int(code.number))])
    });
    let codes = codes.collect();
    let numbers = |of: &[(String, usize)]| ints(of.iter().map(|(_, at)| number(*at)).collect());
    let subgraph = Node::Table(vec![
        (0, nodes(tensors)),
        (1, numbers(&lowered.inputs)),
        (2, numbers(&lowered.outputs)),
        (3, nodes(operators)),
        (4, text("main")),
    ]);
    let named = |of: &[(String, usize)]| {
        nodes(of.iter().map(|(name, at)| Node::Table(vec![(0, text(name)), (1, Slot::Int(number(*at)))])).collect())
    };
    let signature = Node::Table(vec![
        (0, named(&lowered.inputs)),
        (1, named(&lowered.outputs)),
        (2, text(SIGNATURE)),
        (4, Slot::Int(0)),
    ]);
    let model = Node::Table(vec![
        (0, Slot::Int(VERSION)),
        (1, nodes(codes)),
        (2, nodes(vec![subgraph])),
        (3, text("effai")),
        (4, nodes(buffers)),
        (6, nodes(entries)),
        (7, nodes(vec![signature])),
    ]);
    flat::file(&model, IDENTIFIER)
}

fn of_tensor(tensor: &Tensor) -> Node {
    let buffer = tensor.buffer.map_or(0, |buffer| buffer + 1);
    let mut slots = vec![
        (0, ints(tensor.shape.iter().map(length).collect())),
        (1, Slot::Byte(tensor.kind as u8)),
        (2, Slot::Int(number(buffer))),
        (3, text(&tensor.name)),
    ];
    if let Some((scales, axis)) = &tensor.scales {
        let zeros = vec![tensor.zero; scales.len()];
        let own = vec![
            (2, Slot::Node(Node::Floats(scales.clone()))),
            (3, Slot::Node(Node::Longs(zeros))),
            (6, Slot::Int(number(*axis))),
        ];
        slots.push((4, Slot::Node(Node::Table(own))));
    }
    let is_open = |dim: &Dim| dim.fixed().is_none();
    if tensor.shape.iter().any(is_open) {
        let signature = tensor.shape.iter().map(|dim| if is_open(dim) { -1 } else { length(dim) });
        slots.push((7, ints(signature.collect())));
    }
    slots.push((8, Slot::Byte(1)));
    Node::Table(slots)
}
