//! The bytes of a model, read by the schema's numbers; nothing is taken for granted of them.

use std::ops::Range;

/// `TensorType`s.
pub(super) const FLOAT32: u8 = 0;
pub(super) const FLOAT16: u8 = 1;
pub(super) const INT32: u8 = 2;
pub(super) const UINT8: u8 = 3;
pub(super) const INT8: u8 = 9;
pub(super) const INT4: u8 = 17;

/// What is run.
pub(super) struct Model {
    pub(super) tensors: Vec<Tensor>,
    pub(super) operators: Vec<Operator>,
    /// By the names of its signature.
    pub(super) inputs: Vec<(String, usize)>,
    pub(super) outputs: Vec<(String, usize)>,
}

pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) kind: u8,
    /// -1 where a length is open.
    pub(super) shape: Vec<i32>,
    /// Where in the file its values are.
    pub(super) bytes: Option<Range<usize>>,
    /// What codes are multiplied by, along an axis.
    pub(super) scales: Vec<f32>,
    pub(super) axis: usize,
    /// The code that stands for 0, the same for all.
    pub(super) zero: i64,
}

pub(super) struct Operator {
    pub(super) code: i32,
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) output: usize,
    /// Which options it has; 0 where it has none.
    pub(super) kind_of_options: u8,
    /// The first bytes of each slot of its options.
    options: Vec<Option<[u8; 4]>>,
}

impl Operator {
    /// A slot of its options of one byte; 0 where it is not said.
    pub(super) fn byte(&self, slot: usize) -> u8 {
        self.options.get(slot).copied().flatten().map_or(0, |bytes| bytes[0])
    }

    /// A slot of its options of four bytes; 0 where it is not said.
    pub(super) fn int(&self, slot: usize) -> i32 {
        self.options.get(slot).copied().flatten().map_or(0, i32::from_le_bytes)
    }

    /// A slot of its options of four bytes.
    pub(super) fn float(&self, slot: usize) -> f32 {
        self.options.get(slot).copied().flatten().map_or(0.0, f32::from_le_bytes)
    }
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

/// Where a table is.
#[derive(Clone, Copy)]
struct Table(usize);

impl<'a> Bytes<'a> {
    fn number(self, at: usize) -> Option<[u8; 4]> {
        self.0.get(at..at.checked_add(4)?)?.try_into().ok()
    }

    fn short(self, at: usize) -> Option<usize> {
        let bytes: [u8; 2] = self.0.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(usize::from(u16::from_le_bytes(bytes)))
    }

    /// What the offset at a place points to.
    fn ahead(self, at: usize) -> Option<usize> {
        at.checked_add(u32::from_le_bytes(self.number(at)?) as usize)
    }

    /// Where a table's slots are said to be, and how many there may be.
    fn slots(self, table: Table) -> Option<(usize, usize)> {
        let back = i32::from_le_bytes(self.number(table.0)?);
        let at = usize::try_from(i64::try_from(table.0).ok()? - i64::from(back)).ok()?;
        Some((at, self.short(at)?.checked_sub(4)? / 2))
    }

    /// Where a slot is, where the table has it.
    fn slot(self, table: Table, number: usize) -> Option<usize> {
        let (at, count) = self.slots(table)?;
        let offset = if number < count { self.short(at + 4 + 2 * number)? } else { 0 };
        (offset != 0).then(|| table.0 + offset)
    }

    fn int(self, table: Table, slot: usize) -> Option<i32> {
        Some(i32::from_le_bytes(self.number(self.slot(table, slot)?)?))
    }

    fn byte(self, table: Table, slot: usize) -> Option<u8> {
        self.0.get(self.slot(table, slot)?).copied()
    }

    fn table(self, table: Table, slot: usize) -> Option<Table> {
        self.ahead(self.slot(table, slot)?).map(Table)
    }

    /// The first element of a vector, and how many there are, each of so many bytes; none of what is not there.
    fn vector(self, table: Table, slot: usize, width: usize) -> Option<(usize, usize)> {
        let Some(own) = self.slot(table, slot) else { return Some((0, 0)) };
        let at = self.ahead(own)?;
        let count = u32::from_le_bytes(self.number(at)?) as usize;
        self.0.get(at + 4..(at + 4).checked_add(count.checked_mul(width)?)?)?;
        Some((at + 4, count))
    }

    fn tables(self, table: Table, slot: usize) -> Option<Vec<Table>> {
        let (at, count) = self.vector(table, slot, 4)?;
        (0..count).map(|i| self.ahead(at + 4 * i).map(Table)).collect()
    }

    fn ints(self, table: Table, slot: usize) -> Option<Vec<i32>> {
        let (at, count) = self.vector(table, slot, 4)?;
        (0..count).map(|i| self.number(at + 4 * i).map(i32::from_le_bytes)).collect()
    }

    fn floats(self, table: Table, slot: usize) -> Option<Vec<f32>> {
        let (at, count) = self.vector(table, slot, 4)?;
        (0..count).map(|i| self.number(at + 4 * i).map(f32::from_le_bytes)).collect()
    }

    fn longs(self, table: Table, slot: usize) -> Option<Vec<i64>> {
        let (at, count) = self.vector(table, slot, 8)?;
        let all = self.0.get(at..at + 8 * count)?.as_chunks::<8>().0;
        Some(all.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    fn text(self, table: Table, slot: usize) -> Option<String> {
        let (at, count) = self.vector(table, slot, 1)?;
        String::from_utf8(self.0[at..at + count].to_vec()).ok()
    }
}

/// A model of its bytes; none where they are not one.
pub(super) fn model(file: &[u8]) -> Option<Model> {
    let bytes = Bytes(file);
    let root = Table(bytes.ahead(0)?);
    let is_third = bytes.int(root, 0) == Some(3) && file.get(4..8)? == b"TFL3";
    let graphs = bytes.tables(root, 2)?;
    let &[graph] = &graphs[..] else { return None };
    if !is_third {
        return None;
    }
    let buffers = bytes.tables(root, 4)?;
    let mut tensors = Vec::new();
    for table in bytes.tables(graph, 0)? {
        tensors.push(tensor(bytes, table, &buffers)?);
    }
    let is_one = |at: i32| usize::try_from(at).ok().filter(|at| *at < tensors.len());
    let codes = bytes.tables(root, 1)?.into_iter().map(|table| {
        // Numbers beyond a byte are in a slot of their own.
        let old = i32::from(bytes.byte(table, 0).unwrap_or(0));
        old.max(bytes.int(table, 3).unwrap_or(0))
    });
    let codes: Vec<i32> = codes.collect();
    let mut operators = Vec::new();
    for table in bytes.tables(graph, 3)? {
        let code = *codes.get(usize::try_from(bytes.int(table, 0).unwrap_or(0)).ok()?)?;
        let given = bytes.ints(table, 1)?.into_iter();
        let inputs: Vec<Option<usize>> =
            given.map(|at| if at == -1 { Some(None) } else { is_one(at).map(Some) }).collect::<Option<_>>()?;
        let &[output] = &bytes.ints(table, 2)?[..] else { return None };
        let options = bytes.table(table, 4);
        let count = options.map_or(Some(0), |options| Some(bytes.slots(options)?.1))?;
        let first = |at: usize| {
            let mut own = [0; 4];
            own.iter_mut().zip(file.get(at..).unwrap_or_default()).for_each(|(own, byte)| *own = *byte);
            own
        };
        let options = (0..count).map(|slot| bytes.slot(options?, slot).map(first)).collect();
        let kind_of_options = bytes.byte(table, 3).unwrap_or(0);
        operators.push(Operator { code, inputs, output: is_one(output)?, kind_of_options, options });
    }
    let signatures = bytes.tables(root, 7)?;
    let &[signature] = &signatures[..] else { return None };
    let named = |slot: usize| -> Option<Vec<(String, usize)>> {
        let tables = bytes.tables(signature, slot)?.into_iter();
        tables.map(|table| Some((bytes.text(table, 0)?, is_one(bytes.int(table, 1).unwrap_or(0))?))).collect()
    };
    let (inputs, outputs) = (named(0)?, named(1)?);
    // The signature names what the graph has.
    let numbers = |of: &[(String, usize)]| of.iter().map(|(_, at)| *at as i32).collect::<Vec<_>>();
    let are_same = numbers(&inputs) == bytes.ints(graph, 1)? && numbers(&outputs) == bytes.ints(graph, 2)?;
    are_same.then_some(Model { tensors, operators, inputs, outputs })
}

fn tensor(bytes: Bytes<'_>, table: Table, buffers: &[Table]) -> Option<Tensor> {
    let buffer = *buffers.get(usize::try_from(bytes.int(table, 2).unwrap_or(0)).ok()?)?;
    let (at, count) = bytes.vector(buffer, 0, 1)?;
    let (mut shape, signature) = (bytes.ints(table, 0)?, bytes.ints(table, 7)?);
    if !signature.is_empty() {
        // What is open stands for one, where nothing is said.
        let is_near = |(open, own): (&i32, &i32)| *open == -1 || open == own;
        let is_same = signature.len() == shape.len() && signature.iter().zip(&shape).all(is_near);
        shape = is_same.then_some(signature)?;
    }
    let quantized = bytes.table(table, 4);
    let scales = quantized.map_or(Some(Vec::new()), |own| bytes.floats(own, 2))?;
    let zeros = quantized.map_or(Some(Vec::new()), |own| bytes.longs(own, 3))?;
    let zero = zeros.first().copied().unwrap_or(0);
    if zeros.iter().any(|own| *own != zero) {
        return None;
    }
    let axis = quantized.and_then(|own| bytes.int(own, 6)).unwrap_or(0);
    Some(Tensor {
        name: bytes.text(table, 3)?,
        kind: bytes.byte(table, 1).unwrap_or(0),
        shape,
        // The first buffer is that of what has no values.
        bytes: bytes.slot(buffer, 0).map(|_| at..at + count).filter(|bytes| bytes.start.is_multiple_of(16)),
        scales,
        axis: usize::try_from(axis).ok()?,
        zero,
    })
}
