//! PyTorch checkpoints, read without running anything.
//!
//! `torch.save` writes a Python pickle, a program for a small stack machine that may call any function.
//! This module walks such a program with a machine of its own ([`machine`]) that knows the opcodes and the
//! few globals a state dict is made of; anything else is an error with its name and byte offset.
//!
//! Two layouts are read, as `torch/serialization.py` (PyTorch 2) writes them:
//!
//! - legacy (before 1.6): five pickles in a row (magic number, protocol version, system information, the
//!   object, the storage keys), then each storage as a little-endian `i64` count and its elements;
//! - zip: `NAME/data.pkl` holds the object, `NAME/data/KEY` the raw storages.
//!
//! The result is an ordered list of tensors; nested dictionaries are joined by dots, what is not a tensor
//! (epochs, learning rates) is passed over.

mod machine;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;

use crate::failure::Failure;
use crate::util::fs::{self, FsError};
use machine::{Id, Machine, Value};

/// A checkpoint larger than this is refused.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// A pickle (names, shapes, strides; no weights) larger than this is refused.
const PICKLE_BYTES_MAX: u64 = 256 << 20;
/// More tensors than this are refused.
const TENSORS_MAX: usize = 1 << 20;
/// Dictionaries nested deeper than this are refused.
const DEPTH_MAX: usize = 32;
/// `torch.serialization.MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, little-endian.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// `torch.serialization.PROTOCOL_VERSION`.
const LEGACY_PROTOCOL: i64 = 1001;

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Its name; nested dictionaries are joined by dots.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

/// A checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// An opcode outside the list.
    #[error("the pickle has opcode {opcode:#04x} ({name}) at byte {offset}, which is not allowed")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Its name in `pickletools`.
        name: &'static str,
        /// Where it stands in the file (legacy) or in `data.pkl` (zip).
        offset: usize,
    },
    /// A global outside the list: a class or a function.
    #[error("the pickle asks for `{global}` at byte {offset}, which is not allowed")]
    Global {
        /// `module.name`.
        global: String,
        /// Where.
        offset: usize,
    },
    /// It ends too early.
    #[error("the file ends at byte {offset}, within {what}: it is truncated")]
    Truncated {
        /// Where the data ran out.
        offset: usize,
        /// What was being read.
        what: &'static str,
    },
    /// It breaks the format's rules.
    #[error("{what} at byte {offset}")]
    Malformed {
        /// Which rule.
        what: String,
        /// Where.
        offset: usize,
    },
    /// It is not a checkpoint, or of a sort that is not read.
    #[error("{0}")]
    Unsupported(String),
}

impl PickleError {
    /// As it is told, with the file's path.
    pub fn of_file(self, path: &Path) -> Failure {
        if let PickleError::Fs(error) = self {
            return error.into();
        }
        let help = match &self {
            PickleError::Opcode { .. } | PickleError::Global { .. } => {
                "nothing in it was run; a plain state dict (`torch.save(model.state_dict(), path)`) or a safetensors file has only tensors and names"
            }
            PickleError::Truncated { .. } => "fetch it again, and compare its sha256",
            _ => "check that the file is a checkpoint written by `torch.save`",
        };
        Failure::target(self.to_string()).help(help).within(path.display())
    }
}

/// Reads the tensors of a checkpoint, in the order of its dictionary.
pub fn read(path: &Path) -> Result<Vec<StoredTensor>, PickleError> {
    let mut file = fs::open(path)?;
    let size = fs::at("look at", path, file.metadata())?.len();
    if size > FILE_BYTES_MAX {
        return Err(PickleError::Unsupported(format!(
            "the file has {size} bytes, more than the {FILE_BYTES_MAX} that are read"
        )));
    }
    let mut magic = [0; 4];
    let is_zip = size >= 4 && file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04";
    if is_zip { read_zip(path) } else { read_legacy(&fs::read(path)?) }
}

/// Reads a legacy checkpoint that is in memory.
pub fn read_legacy(bytes: &[u8]) -> Result<Vec<StoredTensor>, PickleError> {
    let mut at = 0;
    let mut next = || -> Result<(Machine, Id, usize), PickleError> {
        let begin = at;
        let mut machine = Machine::new(bytes, begin);
        let root = machine.run()?;
        at = machine.offset();
        Ok((machine, root, begin))
    };
    let not_ours = |what: &str| PickleError::Unsupported(format!("not a checkpoint of `torch.save`: {what}"));
    if bytes.first() != Some(&0x80) {
        return Err(not_ours("it does not begin with a pickle"));
    }
    let (machine, root, _) = next()?;
    if !matches!(machine.value(root), Value::BigInt(digits) if *digits == LEGACY_MAGIC) {
        return Err(not_ours("the magic number is missing"));
    }
    let (machine, root, _) = next()?;
    if !matches!(machine.value(root), Value::Int(LEGACY_PROTOCOL)) {
        return Err(not_ours("the protocol version is not 1001"));
    }
    let (machine, root, _) = next()?;
    if let Some(id) = machine.get(root, "little_endian")
        && !matches!(machine.value(id), Value::Bool(true))
    {
        return Err(PickleError::Unsupported("the storages are big-endian, which is not read".into()));
    }
    let (machine, root, _) = next()?;
    let tensors = tensors_of(&machine, root)?;
    let (keys_machine, keys_root, keys_at) = next()?;
    let keys = keys_machine.strings(keys_root).ok_or_else(|| PickleError::Malformed {
        what: "the storage keys are not a list of strings".into(),
        offset: keys_at,
    })?;

    let sizes: BTreeMap<&str, usize> =
        tensors.iter().map(|t| (t.storage.key.as_str(), t.storage.dtype_bytes())).collect();
    let mut storages: BTreeMap<String, &[u8]> = BTreeMap::new();
    for key in keys {
        let Some(element_bytes) = sizes.get(key.as_str()) else {
            // A storage of nothing but a scalar we passed over; its element size is unknown, so it cannot be skipped.
            return Err(PickleError::Malformed { what: format!("storage `{key}` belongs to no tensor"), offset: at });
        };
        let what = "a storage's length";
        let head = bytes.get(at..at + 8).ok_or(PickleError::Truncated { offset: bytes.len(), what })?;
        let count = i64::from_le_bytes(head.try_into().unwrap_or_default());
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(*element_bytes)).ok_or_else(|| {
            PickleError::Malformed { what: format!("storage `{key}` has an impossible length {count}"), offset: at }
        })?;
        let end = (at + 8).checked_add(length);
        let body = end.and_then(|end| bytes.get(at + 8..end));
        let body = body.ok_or(PickleError::Truncated { offset: bytes.len(), what: "a storage's elements" })?;
        at += 8 + length;
        storages.insert(key, body);
    }
    let mut made = Made::default();
    tensors
        .into_iter()
        .map(|tensor| {
            let storage = storages.get(&tensor.storage.key).ok_or_else(|| tensor.missing())?;
            made.tensor(&tensor, storage)
        })
        .collect()
}

fn read_zip(path: &Path) -> Result<Vec<StoredTensor>, PickleError> {
    let bad = |e: zip::result::ZipError| PickleError::Unsupported(format!("not a readable zip archive: {e}"));
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(fs::open(path)?)).map_err(bad)?;
    let Some(prefix) = archive
        .file_names()
        .filter_map(Result::ok)
        .find_map(|name| name.strip_suffix("data.pkl").filter(|p| p.is_empty() || p.ends_with('/')).map(str::to_owned))
    else {
        return Err(PickleError::Unsupported("a zip archive, but no checkpoint: it has no `data.pkl`".into()));
    };
    let mut member = |name: &str, limit: u64, what: &'static str| -> Result<Vec<u8>, PickleError> {
        let entry = archive.by_name(&format!("{prefix}{name}"));
        let entry = entry.map_err(|e| PickleError::Unsupported(format!("member `{prefix}{name}`: {e}")))?;
        if entry.size() > limit {
            return Err(PickleError::Unsupported(format!(
                "member `{prefix}{name}` has {} bytes, more than expected",
                entry.size()
            )));
        }
        let mut bytes = Vec::new();
        let size = entry.size();
        match entry.take(limit).read_to_end(&mut bytes) {
            Ok(n) if n as u64 == size => Ok(bytes),
            _ => Err(PickleError::Truncated { offset: bytes.len(), what }),
        }
    };
    if let Ok(order) = member("byteorder", 16, "byteorder")
        && order != b"little"
    {
        return Err(PickleError::Unsupported("the storages are big-endian, which is not read".into()));
    }
    let pickle = member("data.pkl", PICKLE_BYTES_MAX, "data.pkl")?;
    let mut machine = Machine::new(&pickle, 0);
    let root = machine.run()?;
    let tensors = tensors_of(&machine, root)?;
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, tensor) in tensors.iter().enumerate() {
        last.insert(&tensor.storage.key, i);
    }
    // Storages are kept only until their last tensor.
    let mut storages: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut made = Made::default();
    let mut result = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        let key = tensor.storage.key.as_str();
        if !storages.contains_key(key) {
            // A key is a name within the archive, never a path outside of it: only members are looked up.
            storages.insert(key, member(&format!("data/{key}"), FILE_BYTES_MAX, "a storage")?);
        }
        result.push(made.tensor(tensor, &storages[key])?);
        if last.get(key) == Some(&i) {
            storages.remove(key);
        }
    }
    Ok(result)
}

/// A tensor as the pickle describes it.
struct View {
    name: String,
    storage: machine::Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    at: usize,
}

impl View {
    fn missing(&self) -> PickleError {
        PickleError::Malformed {
            what: format!("tensor `{}` names storage `{}`, which is not in the file", self.name, self.storage.key),
            offset: self.at,
        }
    }
}

/// Copies views out of storages, within a limit: a stride of 0 makes terabytes of a few bytes.
#[derive(Default)]
struct Made {
    bytes: usize,
}

impl Made {
    fn tensor(&mut self, view: &View, storage: &[u8]) -> Result<StoredTensor, PickleError> {
        let malformed =
            |what: String| PickleError::Malformed { what: format!("tensor `{}` {what}", view.name), offset: view.at };
        let size = view.storage.dtype_bytes();
        let count = view.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let total = count.and_then(|n| n.checked_mul(size)).and_then(|n| n.checked_add(self.bytes));
        let (Some(count), Some(total)) = (count, total.filter(|n| *n as u64 <= FILE_BYTES_MAX)) else {
            return Err(malformed(format!("has an impossible shape {:?}", view.shape)));
        };
        // An honest view has at most as many elements as its storage, but for broadcast ones: bound those.
        if count * size > storage.len().saturating_mul(1024).max(1 << 20) {
            return Err(malformed(format!(
                "of shape {:?} is far larger than its storage of {} bytes",
                view.shape,
                storage.len()
            )));
        }
        self.bytes = total;
        let last = (view.shape.iter().zip(&view.strides))
            .try_fold(view.offset, |at, (d, s)| d.saturating_sub(1).checked_mul(*s).and_then(|n| at.checked_add(n)));
        let end = last.and_then(|n| n.checked_add(1)).and_then(|n| n.checked_mul(size));
        if count > 0 && end.is_none_or(|end| end > storage.len()) {
            return Err(malformed(format!("reaches beyond its storage of {} bytes", storage.len())));
        }
        let bytes = if count == 0 {
            Vec::new()
        } else if is_contiguous(&view.shape, &view.strides) {
            storage[view.offset * size..(view.offset + count) * size].to_vec()
        } else {
            gather(view, storage, count, size)
        };
        Ok(StoredTensor { name: view.name.clone(), dtype: view.storage.dtype, shape: view.shape.clone(), bytes })
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(d, s)| {
        let fits = *d == 1 || *s == expected;
        expected *= d;
        fits
    })
}

fn gather(view: &View, storage: &[u8], count: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0usize; view.shape.len()];
    let mut at = view.offset;
    for _ in 0..count {
        bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis];
            if index[axis] < view.shape[axis] {
                break;
            }
            at -= view.strides[axis] * view.shape[axis];
            index[axis] = 0;
        }
    }
    bytes
}

/// Walks the unpickled object for tensors.
fn tensors_of(machine: &Machine<'_>, root: Id) -> Result<Vec<View>, PickleError> {
    let mut found = Vec::new();
    let mut visited = 0;
    walk(machine, root, "", 0, &mut visited, &mut found)?;
    if found.is_empty() {
        return Err(PickleError::Unsupported("the checkpoint has no tensors".into()));
    }
    Ok(found)
}

fn walk(
    machine: &Machine<'_>,
    id: Id,
    name: &str,
    depth: usize,
    visited: &mut usize,
    found: &mut Vec<View>,
) -> Result<(), PickleError> {
    *visited += 1;
    if depth > DEPTH_MAX || *visited > 4 * TENSORS_MAX {
        return Err(PickleError::Unsupported("the checkpoint is nested too deeply".into()));
    }
    match machine.value(id) {
        Value::Tensor(tensor) => {
            if found.len() == TENSORS_MAX {
                return Err(PickleError::Unsupported(format!("the checkpoint has more than {TENSORS_MAX} tensors")));
            }
            let tensor = tensor.as_ref();
            found.push(View {
                name: name.to_owned(),
                storage: tensor.storage.clone(),
                offset: tensor.offset,
                shape: tensor.shape.clone(),
                strides: tensor.strides.clone(),
                at: tensor.at,
            });
        }
        Value::Dict(entries) => {
            for (key, value) in entries {
                let key = match machine.value(*key) {
                    Value::Str(text) => text.clone(),
                    Value::Int(n) => n.to_string(),
                    _ => continue,
                };
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                walk(machine, *value, &name, depth + 1, visited, found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The error of a file as a [`Failure`], for callers with a path at hand.
pub fn read_for(path: &Path) -> Result<Vec<StoredTensor>, Failure> {
    read(path).map_err(|e| e.of_file(path))
}

#[cfg(test)]
mod tests;
