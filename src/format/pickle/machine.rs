//! The stack machine: the opcodes and globals of a state dict, and nothing else.
//!
//! Opcodes as in CPython's `pickletools`. Values live in an arena and refer to one another by number. So a
//! memoised value is never copied (forty tuples, each holding the one before twice, would be a terabyte),
//! a dictionary that is filled after it was memoised is one dictionary, and nothing recurses over a
//! nesting that the file chose.

use super::PickleError;

/// More values than this are refused.
const VALUES_MAX: usize = 1 << 24;
/// Tensors of more dimensions than this are refused (PyTorch's own limit is 64).
const DIMENSIONS_MAX: usize = 64;

/// The element types of storages.
const STORAGES: &[&str] = &["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"];

/// The number of a value in the arena.
pub(super) type Id = usize;

/// A typed run of elements, named by key; `kind` as torch names it: `Float`, `Half`, `Long`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) kind: &'static str,
}

/// A view of a storage; offset and strides in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The globals that are known: everything a state dict needs, none of which does anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(&'static str),
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Mark,
    None,
    Bool(bool),
    Int(i64),
    /// A whole number of more than eight bytes, little-endian.
    BigInt(Vec<u8>),
    Float,
    Str(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Box<Tensor>),
}

/// One run over one pickle.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Vec<Value>,
    stack: Vec<Id>,
    memo: std::collections::BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, arena: Vec::new(), stack: Vec::new(), memo: Default::default() }
    }

    /// The byte after the pickle's end.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.arena[id]
    }

    /// All storages the pickle named.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.arena.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// A list of strings.
    pub(super) fn strings(&self, id: Id) -> Option<Vec<String>> {
        let Value::List(items) = self.value(id) else { return None };
        let text = |id: &Id| match self.value(*id) {
            Value::Str(text) => Some(text.clone()),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    /// Runs to the STOP opcode; the value on top of the stack is the result.
    pub(super) fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let offset = self.at;
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop(offset);
            }
            self.step(opcode, offset)?;
        }
    }

    fn step(&mut self, opcode: u8, offset: usize) -> Result<(), PickleError> {
        match opcode {
            0x80 => {
                let version = self.take(1)?[0];
                if version > 5 {
                    return Err(malformed("an unknown pickle protocol", offset));
                }
            }
            0x95 => drop(self.take(8)?),
            b'(' => self.push(Value::Mark, offset)?,
            b'0' => drop(self.pop(offset)?),
            b'1' => drop(self.pop_mark(offset)?),
            b'N' => self.push(Value::None, offset)?,
            0x88 => self.push(Value::Bool(true), offset)?,
            0x89 => self.push(Value::Bool(false), offset)?,
            b'K' => {
                let n = self.take(1)?[0];
                self.push(Value::Int(n.into()), offset)?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()), offset)?;
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()), offset)?;
            }
            0x8a => self.long(offset)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Float, offset)?;
            }
            b'X' => {
                let n = u32::from_le_bytes(self.array()?) as usize;
                self.text(n, offset)?;
            }
            0x8c | b'U' => {
                let n = self.take(1)?[0] as usize;
                self.text(n, offset)?;
            }
            b'T' => {
                let n = u32::from_le_bytes(self.array()?) as usize;
                self.text(n, offset)?;
            }
            0x8d => {
                let n = u64::from_le_bytes(self.array()?);
                self.text(usize::try_from(n).unwrap_or(usize::MAX), offset)?;
            }
            b'C' => {
                let n = self.take(1)?[0] as usize;
                self.take(n)?;
                self.push(Value::Bytes, offset)?;
            }
            b'B' => {
                let n = u32::from_le_bytes(self.array()?) as usize;
                self.take(n)?;
                self.push(Value::Bytes, offset)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()), offset)?,
            b']' => self.push(Value::List(Vec::new()), offset)?,
            b'}' => self.push(Value::Dict(Vec::new()), offset)?,
            0x85..=0x87 => {
                let n = (opcode - 0x84) as usize;
                let mut items = Vec::with_capacity(n);
                for _ in 0..n {
                    items.push(self.pop(offset)?);
                }
                items.reverse();
                self.push(Value::Tuple(items), offset)?;
            }
            b't' => {
                let items = self.pop_mark(offset)?;
                self.push(Value::Tuple(items), offset)?;
            }
            b'l' => {
                let items = self.pop_mark(offset)?;
                self.push(Value::List(items), offset)?;
            }
            b'd' => {
                let items = self.pop_mark(offset)?;
                let entries = pairs(&items, offset)?;
                self.push(Value::Dict(entries), offset)?;
            }
            b'a' => {
                let item = self.pop(offset)?;
                self.list(offset)?.push(item);
            }
            b'e' => {
                let items = self.pop_mark(offset)?;
                self.list(offset)?.extend(items);
            }
            b's' => {
                let value = self.pop(offset)?;
                let key = self.pop(offset)?;
                self.dict(offset)?.push((key, value));
            }
            b'u' => {
                let items = self.pop_mark(offset)?;
                let entries = pairs(&items, offset)?;
                self.dict(offset)?.extend(entries);
            }
            b'q' => {
                let n = self.take(1)?[0];
                self.remember(n.into(), offset)?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.array()?);
                self.remember(n, offset)?;
            }
            0x94 => self.remember(self.memo.len() as u32, offset)?,
            b'h' => {
                let n = self.take(1)?[0];
                self.recall(n.into(), offset)?;
            }
            b'j' => {
                let n = u32::from_le_bytes(self.array()?);
                self.recall(n, offset)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(&module, &name, offset)?;
            }
            0x93 => {
                let (name, module) = (self.pop(offset)?, self.pop(offset)?);
                match (&self.arena[module], &self.arena[name]) {
                    (Value::Str(module), Value::Str(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(&module, &name, offset)?;
                    }
                    _ => return Err(malformed("STACK_GLOBAL without two strings", offset)),
                }
            }
            b'R' => self.reduce(offset)?,
            b'b' => self.build(offset)?,
            b'Q' => self.persistent(offset)?,
            _ => return Err(PickleError::Opcode { opcode, at: offset }),
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(4096).position(|b| *b == b'\n');
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn text(&mut self, n: usize, offset: usize) -> Result<(), PickleError> {
        let bytes = self.take(n)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("a string is not UTF-8", offset))?;
        self.push(Value::Str(text.to_owned()), offset)
    }

    fn long(&mut self, offset: usize) -> Result<(), PickleError> {
        let n = self.take(1)?[0] as usize;
        let digits = self.take(n)?;
        let value = if n <= 8 {
            let sign = if digits.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [sign; 8];
            wide[..n].copy_from_slice(digits);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::BigInt(digits.to_vec())
        };
        self.push(value, offset)
    }

    fn add(&mut self, value: Value, offset: usize) -> Result<Id, PickleError> {
        if self.arena.len() == VALUES_MAX {
            return Err(malformed("too many values", offset));
        }
        self.arena.push(value);
        Ok(self.arena.len() - 1)
    }

    fn push(&mut self, value: Value, offset: usize) -> Result<(), PickleError> {
        let id = self.add(value, offset)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self, offset: usize) -> Result<Id, PickleError> {
        self.stack.pop().ok_or_else(|| malformed("the stack is empty", offset))
    }

    fn pop_mark(&mut self, offset: usize) -> Result<Vec<Id>, PickleError> {
        let mark = self.stack.iter().rposition(|id| self.arena[*id] == Value::Mark);
        let mark = mark.ok_or_else(|| malformed("no MARK on the stack", offset))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn top(&self, offset: usize) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or_else(|| malformed("the stack is empty", offset))
    }

    fn list(&mut self, offset: usize) -> Result<&mut Vec<Id>, PickleError> {
        let id = self.top(offset)?;
        match &mut self.arena[id] {
            Value::List(items) => Ok(items),
            _ => Err(malformed("APPEND to what is not a list", offset)),
        }
    }

    fn dict(&mut self, offset: usize) -> Result<&mut Vec<(Id, Id)>, PickleError> {
        let id = self.top(offset)?;
        match &mut self.arena[id] {
            Value::Dict(entries) => Ok(entries),
            _ => Err(malformed("SETITEM on what is not a dictionary", offset)),
        }
    }

    fn remember(&mut self, n: u32, offset: usize) -> Result<(), PickleError> {
        let id = self.top(offset)?;
        if self.memo.len() >= VALUES_MAX {
            return Err(malformed("the memo is too large", offset));
        }
        self.memo.insert(n, id);
        Ok(())
    }

    fn recall(&mut self, n: u32, offset: usize) -> Result<(), PickleError> {
        let id = self.memo.get(&n).copied().ok_or_else(|| malformed("a memo that was not made", offset))?;
        if self.stack.len() >= VALUES_MAX {
            return Err(malformed("the stack is too large", offset));
        }
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str, offset: usize) -> Result<(), PickleError> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch" | "torch.cuda" | "torch.storage", name) => {
                let kind = name.strip_suffix("Storage").and_then(|k| STORAGES.iter().find(|known| **known == k));
                match kind {
                    Some(kind) => Global::Storage(kind),
                    None => return Err(PickleError::Global { name: format!("{module}.{name}"), at: offset }),
                }
            }
            _ => return Err(PickleError::Global { name: format!("{module}.{name}"), at: offset }),
        };
        self.push(Value::Global(global), offset)
    }

    fn reduce(&mut self, offset: usize) -> Result<(), PickleError> {
        let (args, callee) = (self.pop(offset)?, self.pop(offset)?);
        let (Value::Global(global), Value::Tuple(args)) = (&self.arena[callee], &self.arena[args]) else {
            return Err(malformed("REDUCE without a global and a tuple", offset));
        };
        let value = match (global, args.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, [items]) => Value::Dict(self.items(*items, offset)?),
            (Global::RebuildTensor, args) if args.len() >= 4 => Value::Tensor(Box::new(self.tensor(args, offset)?)),
            (Global::RebuildParameter, [data, ..]) if matches!(self.arena[*data], Value::Tensor(_)) => {
                self.arena[*data].clone()
            }
            (Global::Size, [shape]) => self.arena[*shape].clone(),
            _ => return Err(malformed("a call with the wrong arguments", offset)),
        };
        self.push(value, offset)
    }

    /// `OrderedDict([[k, v], ...])`, as Python 2 wrote it.
    fn items(&self, list: Id, offset: usize) -> Result<Vec<(Id, Id)>, PickleError> {
        let Value::List(items) = &self.arena[list] else {
            return Err(malformed("OrderedDict of what is not a list", offset));
        };
        let pair = |id: &Id| match &self.arena[*id] {
            Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(malformed("OrderedDict of what is not pairs", offset)),
        };
        items.iter().map(pair).collect()
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`.
    fn tensor(&self, args: &[Id], offset: usize) -> Result<Tensor, PickleError> {
        let Value::Storage(storage) = &self.arena[args[0]] else {
            return Err(malformed("a tensor without a storage", offset));
        };
        let whole = |id: Id| match self.arena[id] {
            Value::Int(n) => usize::try_from(n).map_err(|_| malformed("a negative size or stride", offset)),
            _ => Err(malformed("a size or stride that is not a whole number", offset)),
        };
        let many = |id: Id| match &self.arena[id] {
            Value::Tuple(items) if items.len() <= DIMENSIONS_MAX => items.iter().map(|i| whole(*i)).collect(),
            _ => Err(malformed("a shape or stride that is not a short tuple", offset)),
        };
        let (shape, strides): (Vec<usize>, Vec<usize>) = (many(args[2])?, many(args[3])?);
        if shape.len() != strides.len() {
            return Err(malformed("a shape and strides of different lengths", offset));
        }
        Ok(Tensor { storage: storage.clone(), offset: whole(args[1])?, shape, strides })
    }

    /// BUILD sets attributes: a state dict's `_metadata`, which we do not need.
    fn build(&mut self, offset: usize) -> Result<(), PickleError> {
        self.pop(offset)?;
        let target = self.top(offset)?;
        match self.arena[target] {
            Value::Dict(_) => Ok(()),
            _ => Err(malformed("BUILD on what is not a dictionary", offset)),
        }
    }

    /// `('storage', type, key, location, count[, view])`.
    fn persistent(&mut self, offset: usize) -> Result<(), PickleError> {
        let id = self.pop(offset)?;
        let wrong = || malformed("a persistent id that is not a storage", offset);
        let Value::Tuple(parts) = &self.arena[id] else { return Err(wrong()) };
        if parts.len() < 5 || !matches!(&self.arena[parts[0]], Value::Str(s) if s == "storage") {
            return Err(wrong());
        }
        let (Value::Global(Global::Storage(kind)), Value::Str(key)) = (&self.arena[parts[1]], &self.arena[parts[2]])
        else {
            return Err(wrong());
        };
        if parts.get(5).is_some_and(|view| self.arena[*view] != Value::None) {
            return Err(malformed("a view of a storage, as PyTorch before 0.4 wrote it, is not read", offset));
        }
        let storage = Storage { key: key.clone(), kind };
        self.push(Value::Storage(storage), offset)
    }
}

fn pairs(items: &[Id], offset: usize) -> Result<Vec<(Id, Id)>, PickleError> {
    if !items.len().is_multiple_of(2) {
        return Err(malformed("a dictionary with a key without a value", offset));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn malformed(what: &'static str, at: usize) -> PickleError {
    PickleError::Shape { what, at }
}
