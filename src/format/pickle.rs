//! A safe reader of torch checkpoints, the legacy form and the zip form.
//!
//! A pickle is a program. This reader interprets the few opcodes that a dictionary of tensors needs, and
//! of the names a pickle may call it knows five. Anything else is refused with its name and its place;
//! nothing a file says is ever executed.
//!
//! Sources: the opcodes of Python's `pickletools`, and the two layouts `torch.load` reads: five
//! consecutive pickles (magic, protocol, system, object, storage keys) followed by the raw storages, or a
//! zip archive with `data.pkl` and one file a storage.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use crate::failure::Failure;

/// What legacy files begin with.
const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// More values on the stack than any checkpoint needs; a guard against bombs.
const VALUES_MAX: usize = 4_000_000;

/// One tensor of a checkpoint, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct PickledTensor {
    /// Its key.
    pub name: String,
    /// Its number type as torch names the storage: `Float`, `Half`, `Long`...
    pub storage: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Contiguous, little-endian.
    pub bytes: Vec<u8>,
}

/// A file that is not a checkpoint, or not a harmless one.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// Ends too early.
    #[error("the file is cut off at byte {at}")]
    Truncated {
        /// Where more was expected.
        at: usize,
    },
    /// An opcode that a checkpoint does not need.
    #[error("the pickle has the opcode {opcode:#04x} at byte {at}, which a checkpoint does not need")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Its place.
        at: usize,
    },
    /// A name that is not on the list.
    #[error("the pickle wants to call `{name}` (byte {at}), which is not allowed")]
    Global {
        /// Module and name.
        name: String,
        /// Its place.
        at: usize,
    },
    /// Anything else.
    #[error("not a torch checkpoint: {what} (byte {at})")]
    Shape {
        /// What is wrong.
        what: &'static str,
        /// Its place.
        at: usize,
    },
    /// The zip container.
    #[error("the checkpoint's archive cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
}

impl From<PickleError> for Failure {
    fn from(error: PickleError) -> Self {
        let failure = Failure::target(error.to_string());
        match error {
            PickleError::Truncated { .. } => failure.help("fetch the file again"),
            PickleError::Opcode { .. } | PickleError::Global { .. } => failure.help(
                "nothing in the file was executed; ask its author for a safetensors file, or look at it with `python3 -m pickletools`",
            ),
            _ => failure,
        }
    }
}

/// Reads all tensors of a checkpoint.
pub fn read(bytes: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    if bytes.starts_with(b"PK\x03\x04") { read_zip(bytes) } else { read_legacy(bytes) }
}

fn read_legacy(bytes: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    let mut at = 0;
    let next = |at: &mut usize| -> Result<Value, PickleError> {
        let mut machine = Machine::new(bytes, *at);
        let value = machine.run()?;
        *at = machine.at;
        Ok(value)
    };
    if next(&mut at)? != Value::Int(LEGACY_MAGIC) {
        return Err(PickleError::Shape { what: "the magic number is missing", at: 0 });
    }
    next(&mut at)?;
    next(&mut at)?;
    let object = next(&mut at)?;
    let Value::List(keys) = next(&mut at)? else {
        return Err(PickleError::Shape { what: "no list of storages", at });
    };
    let tensors = tensors_of(object, at)?;
    let widths: BTreeMap<&str, usize> = tensors.iter().map(|t| (t.key.as_str(), width(&t.storage))).collect();
    let mut storages = BTreeMap::new();
    for key in &keys {
        let Value::Text(key) = key else { return Err(PickleError::Shape { what: "a storage without a name", at }) };
        let count = bytes.get(at..at + 8).ok_or(PickleError::Truncated { at })?;
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        at += 8;
        let size = usize::try_from(count).ok().and_then(|n| n.checked_mul(*widths.get(key.as_str()).unwrap_or(&0)));
        let end = size.and_then(|s| at.checked_add(s)).ok_or(PickleError::Shape { what: "a storage too large", at })?;
        storages.insert(key.clone(), bytes.get(at..end).ok_or(PickleError::Truncated { at: bytes.len() })?.to_vec());
        at = end;
    }
    tensors.into_iter().map(|t| t.gather(&storages, at)).collect()
}

fn read_zip(bytes: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let name = archive.file_names().filter_map(Result::ok).find(|n| n.ends_with("data.pkl")).map(|n| n.into_owned());
    let name = name.ok_or(PickleError::Shape { what: "the archive has no data.pkl", at: 0 })?;
    let mut member = |name: &str| -> Result<Vec<u8>, PickleError> {
        let mut text = Vec::new();
        archive.by_name(name)?.read_to_end(&mut text).map_err(|_| PickleError::Truncated { at: text.len() })?;
        Ok(text)
    };
    let pickle = member(&name)?;
    let tensors = tensors_of(Machine::new(&pickle, 0).run()?, 0)?;
    let mut storages = BTreeMap::new();
    let root = name.trim_end_matches("data.pkl");
    for tensor in &tensors {
        if !storages.contains_key(&tensor.key) {
            storages.insert(tensor.key.clone(), member(&format!("{root}data/{}", tensor.key))?);
        }
    }
    tensors.into_iter().map(|t| t.gather(&storages, 0)).collect()
}

/// Bytes of one element.
fn width(storage: &str) -> usize {
    match storage {
        "Double" | "Long" => 8,
        "Float" | "Int" => 4,
        "Half" | "BFloat16" | "Short" => 2,
        _ => 1,
    }
}

struct TensorRef {
    name: String,
    storage: String,
    key: String,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl TensorRef {
    /// Copies the elements out in row-major order.
    fn gather(self, storages: &BTreeMap<String, Vec<u8>>, at: usize) -> Result<PickledTensor, PickleError> {
        let out = PickleError::Shape { what: "a tensor reaches outside its storage", at };
        let source = storages.get(&self.key).ok_or(PickleError::Shape { what: "a storage is missing", at })?;
        let width = width(&self.storage);
        let count = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let Some(count) = count.filter(|n| n.checked_mul(width).is_some_and(|b| b <= source.len().max(1))) else {
            return Err(out);
        };
        let mut bytes = Vec::with_capacity(count * width);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let place = index.iter().zip(&self.stride).try_fold(self.offset, |p, (i, s)| p.checked_add(i.checked_mul(*s)?));
            let start = place.and_then(|p| p.checked_mul(width));
            let Some(element) = start.and_then(|s| source.get(s..s + width)) else { return Err(out) };
            bytes.extend_from_slice(element);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(PickledTensor { name: self.name, storage: self.storage, shape: self.shape, bytes })
    }
}

/// Finds the tensors in an unpickled object: a dictionary, possibly under `state_dict`.
fn tensors_of(object: Value, at: usize) -> Result<Vec<TensorRef>, PickleError> {
    let Value::Dict(mut entries) = object else {
        return Err(PickleError::Shape { what: "the object is not a dictionary", at });
    };
    if let Some(i) = entries.iter().position(|(k, v)| *k == Value::Text("state_dict".into()) && matches!(v, Value::Dict(_)))
    {
        let Value::Dict(inner) = entries.swap_remove(i).1 else { unreachable!("just matched") };
        entries = inner;
    }
    let mut tensors = Vec::new();
    for (key, value) in entries {
        if let (Value::Text(name), Value::Tensor { storage, key, offset, shape, stride }) = (key, value) {
            tensors.push(TensorRef { name, storage, key, offset, shape, stride });
        }
    }
    if tensors.is_empty() {
        return Err(PickleError::Shape { what: "it holds no tensors", at });
    }
    Ok(tensors)
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Mark,
    None,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    Bytes,
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// An allowed name.
    Global(Allowed),
    Storage { storage: String, key: String },
    Tensor { storage: String, key: String, offset: usize, shape: Vec<usize>, stride: Vec<usize> },
}

#[derive(Clone, Debug, PartialEq)]
enum Allowed {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(String),
}

fn allowed(module: &str, name: &str) -> Option<Allowed> {
    match (module, name) {
        ("collections", "OrderedDict") => Some(Allowed::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Allowed::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Allowed::RebuildParameter),
        ("torch" | "torch.storage", name) => {
            let storage = name.strip_suffix("Storage")?;
            let known = ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"];
            known.contains(&storage).then(|| Allowed::Storage(storage.to_owned()))
        }
        _ => None,
    }
}

/// The interpreter of one pickle.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: BTreeMap<u32, Value>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, stack: Vec::new(), memo: BTreeMap::new() }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    fn uint(&mut self, n: usize) -> Result<usize, PickleError> {
        Ok(self.take(n)?.iter().rev().fold(0usize, |x, b| (x << 8) | usize::from(*b)))
    }

    fn text(&mut self, n: usize) -> Result<String, PickleError> {
        let at = self.at;
        String::from_utf8(self.take(n)?.to_vec()).map_err(|_| PickleError::Shape { what: "text that is not UTF-8", at })
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let text = self.text(len)?;
        self.at += 1;
        Ok(text)
    }

    fn bad(&self, what: &'static str) -> PickleError {
        PickleError::Shape { what, at: self.at }
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        self.stack.pop().ok_or(self.bad("an empty stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.stack.iter().rposition(|v| *v == Value::Mark).ok_or(self.bad("no mark"))?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn remember(&mut self, key: u32) -> Result<(), PickleError> {
        let top = self.stack.last().cloned().ok_or(self.bad("an empty stack"))?;
        // Containers are filled after they are memoised and never referred to by harmless files; a copy of
        // the empty one would hide that, so only what is complete is remembered.
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        let value = self.memo.get(&key).cloned().ok_or(self.bad("a memo that was not made"))?;
        self.stack.push(value);
        Ok(())
    }

    fn run(&mut self) -> Result<Value, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if self.stack.len() > VALUES_MAX {
                return Err(self.bad("too many values"));
            }
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'(' => self.stack.push(Value::Mark),
                b'0' => drop(self.pop()?),
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' => {
                    let n = self.uint(1)?;
                    self.stack.push(Value::Int(n as i128));
                }
                b'M' => {
                    let n = self.uint(2)?;
                    self.stack.push(Value::Int(n as i128));
                }
                b'J' => {
                    let n = self.take(4)?;
                    self.stack.push(Value::Int(i32::from_le_bytes(n.try_into().expect("four")).into()));
                }
                0x8a => {
                    let n = self.byte()?.into();
                    self.long(n)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Float);
                }
                b'X' | 0x8c => {
                    let n = self.uint(if opcode == b'X' { 4 } else { 1 })?;
                    let text = self.text(n)?;
                    self.stack.push(Value::Text(text));
                }
                b'U' | b'C' | b'T' | b'B' => {
                    let n = self.uint(if matches!(opcode, b'U' | b'C') { 1 } else { 4 })?;
                    let raw = self.take(n)?;
                    // Python 2's strings are names in old checkpoints.
                    let value = std::str::from_utf8(raw).map_or(Value::Bytes, |t| Value::Text(t.to_owned()));
                    self.stack.push(value);
                }
                b')' => self.stack.push(Value::Tuple(vec![])),
                b']' => self.stack.push(Value::List(vec![])),
                b'}' => self.stack.push(Value::Dict(vec![])),
                b't' | b'l' => {
                    let values = self.pop_mark()?;
                    self.stack.push(if opcode == b't' { Value::Tuple(values) } else { Value::List(values) });
                }
                0x85..=0x87 => {
                    let n = usize::from(opcode - 0x84);
                    let from = self.stack.len().checked_sub(n).ok_or(self.bad("an empty stack"))?;
                    let values = self.stack.split_off(from);
                    self.stack.push(Value::Tuple(values));
                }
                b'a' | b'e' => {
                    let more = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                    match self.stack.last_mut() {
                        Some(Value::List(list)) => list.extend(more),
                        _ => return Err(self.bad("items for what is no list")),
                    }
                }
                b's' | b'u' => {
                    let more = if opcode == b's' {
                        let value = self.pop()?;
                        vec![self.pop()?, value]
                    } else {
                        self.pop_mark()?
                    };
                    self.set_items(more)?;
                }
                b'q' | b'r' => {
                    let key = self.uint(if opcode == b'q' { 1 } else { 4 })?;
                    self.remember(key as u32)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' | b'j' => {
                    let key = self.uint(if opcode == b'h' { 1 } else { 4 })?;
                    self.recall(key as u32)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name, at)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(self.bad("a name that is not text"));
                    };
                    self.global(&module, &name, at)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.stack.push(storage);
                }
                b'R' => {
                    let (args, callee) = (self.pop()?, self.pop()?);
                    let value = self.call(callee, args, at)?;
                    self.stack.push(value);
                }
                // State of an OrderedDict (its metadata) is of no use here.
                b'b' => drop(self.pop()?),
                _ => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }

    fn long(&mut self, n: usize) -> Result<(), PickleError> {
        let raw = self.take(n)?;
        if n > 16 {
            return Err(self.bad("a number too large"));
        }
        let fill = if raw.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 16];
        wide[..n].copy_from_slice(raw);
        self.stack.push(Value::Int(i128::from_le_bytes(wide)));
        Ok(())
    }

    fn set_items(&mut self, more: Vec<Value>) -> Result<(), PickleError> {
        let mut more = more.into_iter();
        let Some(Value::Dict(entries)) = self.stack.last_mut() else {
            return Err(PickleError::Shape { what: "items for what is no dictionary", at: self.at });
        };
        while let (Some(key), Some(value)) = (more.next(), more.next()) {
            entries.push((key, value));
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str, at: usize) -> Result<(), PickleError> {
        let known = allowed(module, name).ok_or(PickleError::Global { name: format!("{module}.{name}"), at })?;
        self.stack.push(Value::Global(known));
        Ok(())
    }

    /// `("storage", type, key, location, count, ...)`
    fn storage(&self, id: Value) -> Result<Value, PickleError> {
        let Value::Tuple(parts) = id else { return Err(self.bad("a persistent id that is no tuple")) };
        match (parts.get(1), parts.get(2)) {
            (Some(Value::Global(Allowed::Storage(storage))), Some(Value::Text(key))) => {
                Ok(Value::Storage { storage: storage.clone(), key: key.clone() })
            }
            _ => Err(self.bad("a persistent id that names no storage")),
        }
    }

    fn call(&self, callee: Value, args: Value, at: usize) -> Result<Value, PickleError> {
        let (Value::Global(callee), Value::Tuple(args)) = (callee, args) else {
            return Err(PickleError::Shape { what: "a call of what is no function", at });
        };
        match callee {
            Allowed::OrderedDict => Ok(Value::Dict(vec![])),
            Allowed::RebuildParameter => args.into_iter().next().ok_or(self.bad("a parameter without data")),
            Allowed::RebuildTensor => match &args[..] {
                [Value::Storage { storage, key }, Value::Int(offset), Value::Tuple(shape), Value::Tuple(stride), ..] => {
                    let sizes = |values: &[Value]| {
                        values
                            .iter()
                            .map(|v| match v {
                                Value::Int(n) => usize::try_from(*n).map_err(|_| self.bad("a negative size")),
                                _ => Err(self.bad("a size that is no number")),
                            })
                            .collect::<Result<Vec<usize>, _>>()
                    };
                    Ok(Value::Tensor {
                        storage: storage.clone(),
                        key: key.clone(),
                        offset: usize::try_from(*offset).map_err(|_| self.bad("a negative offset"))?,
                        shape: sizes(shape)?,
                        stride: sizes(stride)?,
                    })
                }
                _ => Err(self.bad("a tensor of unknown form")),
            },
            Allowed::Storage(_) => Err(self.bad("a storage is not called")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_the_system_is_refused_by_name() {
        let error = read(b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.").expect_err("refused");
        assert!(error.to_string().contains("`os.system` (byte 2)"), "{error}");
    }

    #[test]
    fn an_unknown_opcode_is_refused_with_its_place() {
        let error = read(b"\x80\x02i").expect_err("refused");
        assert!(matches!(error, PickleError::Opcode { opcode: b'i', at: 2 }), "{error}");
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        let good: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00.\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01.\x80\x02]q\x00.";
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let place = (state >> 33) as usize % bytes.len();
                bytes[place] = (state >> 20) as u8;
            }
            assert!(read(&bytes).is_err());
        }
    }
}
