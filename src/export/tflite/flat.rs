//! FlatBuffers, as far as a model needs them: <https://flatbuffers.dev/internals/>.
//!
//! What is written goes one way, parents before their children, so that all offsets are ahead. The crate of the same name
//! writes from the end, and cannot be asked to align bytes by more than they need; weights are to lie at multiples of 16.

use std::collections::HashMap;

/// Bytes of weights begin at a multiple of this (`force_align` of `Buffer.data`).
const ALIGNED: usize = 16;

/// What a slot of a table holds.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Of one byte: a small number of an enumeration, or a truth value.
    Byte(u8),
    /// Of four bytes.
    Int(i32),
    /// Of four bytes.
    Float(f32),
    /// Elsewhere.
    Node(Node),
}

/// What lies by itself, and is pointed to.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Slots by their numbers, in this order.
    Table(Vec<(u16, Slot)>),
    /// A vector of what is pointed to.
    Nodes(Vec<Node>),
    /// A vector.
    Ints(Vec<i32>),
    /// A vector.
    Longs(Vec<i64>),
    /// A vector.
    Floats(Vec<f32>),
    /// A vector whose first byte lies at a multiple of 16.
    Bytes(Vec<u8>),
    /// UTF-8, with a zero behind it.
    Text(String),
}

/// A file of this root.
pub(super) fn file(root: &Node, identifier: &[u8; 4]) -> Vec<u8> {
    let mut out = Out { bytes: vec![0; 4], tables: HashMap::new() };
    out.bytes.extend(identifier);
    let at = out.place(root);
    out.point(0, at);
    out.bytes
}

struct Out {
    bytes: Vec<u8>,
    /// Where the table of offsets lies that says where slots are, by what it says.
    tables: HashMap<Vec<u16>, usize>,
}

impl Out {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// Writes where something is, as how far it is ahead.
    fn point(&mut self, from: usize, to: usize) {
        let ahead = u32::try_from(to - from).expect("a file of less than 4 GB");
        self.bytes[from..from + 4].copy_from_slice(&ahead.to_le_bytes());
    }

    /// The length of a vector whose elements begin at a multiple of `aligned`.
    fn vector(&mut self, count: usize, aligned: usize) -> usize {
        self.bytes.resize((self.bytes.len() + 4).next_multiple_of(aligned.max(4)) - 4, 0);
        let at = self.bytes.len();
        self.bytes.extend(u32::try_from(count).expect("a vector of less than 4 GB").to_le_bytes());
        at
    }

    /// Writes a node and what it points to, and says where it is.
    fn place(&mut self, node: &Node) -> usize {
        match node {
            Node::Table(slots) => self.table(slots),
            Node::Nodes(nodes) => {
                let at = self.vector(nodes.len(), 4);
                self.bytes.resize(at + 4 + 4 * nodes.len(), 0);
                for (i, node) in nodes.iter().enumerate() {
                    let to = self.place(node);
                    self.point(at + 4 + 4 * i, to);
                }
                at
            }
            Node::Ints(values) => {
                let at = self.vector(values.len(), 4);
                self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                at
            }
            Node::Longs(values) => {
                let at = self.vector(values.len(), 8);
                self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                at
            }
            Node::Floats(values) => {
                let at = self.vector(values.len(), 4);
                self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                at
            }
            Node::Bytes(bytes) => {
                let at = self.vector(bytes.len(), ALIGNED);
                self.bytes.extend_from_slice(bytes);
                at
            }
            Node::Text(text) => {
                let at = self.vector(text.len(), 1);
                self.bytes.extend_from_slice(text.as_bytes());
                self.bytes.push(0);
                at
            }
        }
    }

    fn table(&mut self, slots: &[(u16, Slot)]) -> usize {
        // Four bytes first, then single ones: nothing is between them.
        let is_byte = |slot: &Slot| matches!(slot, Slot::Byte(_));
        let wide = slots.iter().filter(|(_, slot)| !is_byte(slot)).count();
        let size = 4 + 4 * wide + (slots.len() - wide);
        let count = slots.iter().map(|(number, _)| usize::from(*number) + 1).max().unwrap_or(0);
        let mut offsets = vec![0u16; count];
        let (mut next, mut next_byte) = (4u16, 4 + 4 * wide as u16);
        for (number, slot) in slots {
            let (next, step) = if is_byte(slot) { (&mut next_byte, 1) } else { (&mut next, 4) };
            offsets[usize::from(*number)] = *next;
            *next += step;
        }
        let mut shape = vec![4 + 2 * count as u16, size as u16];
        shape.extend(&offsets);
        let shape_at = match self.tables.get(&shape) {
            Some(at) => *at,
            None => {
                self.align(2);
                let at = self.bytes.len();
                self.bytes.extend(shape.iter().flat_map(|number| number.to_le_bytes()));
                self.tables.insert(shape, at);
                at
            }
        };
        self.align(4);
        let at = self.bytes.len();
        let back = i32::try_from(at - shape_at).expect("a file of less than 2 GB");
        self.bytes.extend(back.to_le_bytes());
        self.bytes.resize(at + size, 0);
        let mut ahead = Vec::new();
        for (number, slot) in slots {
            let own = at + usize::from(offsets[usize::from(*number)]);
            match slot {
                Slot::Byte(value) => self.bytes[own] = *value,
                Slot::Int(value) => self.bytes[own..own + 4].copy_from_slice(&value.to_le_bytes()),
                Slot::Float(value) => self.bytes[own..own + 4].copy_from_slice(&value.to_le_bytes()),
                Slot::Node(node) => ahead.push((own, node)),
            }
        }
        for (own, node) in ahead {
            let to = self.place(node);
            self.point(own, to);
        }
        at
    }
}
