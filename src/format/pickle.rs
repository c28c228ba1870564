//! A safe reader of torch checkpoints, the legacy form and the zip form.
//!
//! A pickle is a program. This reader interprets the few opcodes that a dictionary of tensors needs, and
//! of the names a pickle may call it knows five. Anything else is refused with its name and its place;
//! nothing a file says is ever executed.
//!
//! Sources: the opcodes of Python's `pickletools`, and the two layouts `torch.load` reads: five
//! consecutive pickles (magic, protocol, system, object, storage keys) followed by the raw storages, or a
//! zip archive with `data.pkl` and one file a storage.

mod machine;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use crate::failure::Failure;
use machine::{Id, Machine, Value};

/// What legacy files begin with: 0x1950a86a20f9469cfc6c, little-endian.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// torch stores its archives' members as they are; one that grows by more than this is a bomb.
const INFLATION_MAX: u64 = 16;

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

/// A storage's bytes, within a legacy file or out of an archive.
type Storage<'a> = std::borrow::Cow<'a, [u8]>;

fn read_legacy(bytes: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    let mut at = 0;
    let mut next = || -> Result<(Machine<'_>, Id), PickleError> {
        let mut machine = Machine::new(bytes, at);
        let root = machine.run()?;
        at = machine.offset();
        Ok((machine, root))
    };
    let (machine, magic) = next()?;
    if !matches!(machine.value(magic), Value::BigInt(digits) if *digits == LEGACY_MAGIC) {
        return Err(PickleError::Shape { what: "the magic number is missing", at: 0 });
    }
    // The protocol's version and the system's sizes.
    next()?;
    next()?;
    let (machine, object) = next()?;
    let (keys_machine, keys) = next()?;
    let tensors = tensors_of(&machine, object, at)?;
    let keys = keys_machine.strings(keys).ok_or(PickleError::Shape { what: "no list of storages", at })?;
    let widths = machine.storages().map(|s| (s.key.as_str(), width(s.kind))).collect::<BTreeMap<_, _>>();
    let mut storages = BTreeMap::new();
    for key in keys {
        let width = *widths.get(key.as_str()).ok_or(PickleError::Shape { what: "a storage of unknown type", at })?;
        let count = bytes.get(at..at + 8).ok_or(PickleError::Truncated { at: bytes.len() })?;
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        at += 8;
        let end = usize::try_from(count).ok().and_then(|n| n.checked_mul(width)).and_then(|size| at.checked_add(size));
        let end = end.ok_or(PickleError::Shape { what: "a storage too large", at })?;
        let body = bytes.get(at..end).ok_or(PickleError::Truncated { at: bytes.len() })?;
        storages.insert(key, Storage::Borrowed(body));
        at = end;
    }
    tensors.into_iter().map(|t| t.gather(&storages, at)).collect()
}

fn read_zip(bytes: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let name = archive.file_names().filter_map(Result::ok).find(|n| n.ends_with("data.pkl")).map(|n| n.into_owned());
    let name = name.ok_or(PickleError::Shape { what: "the archive has no data.pkl", at: 0 })?;
    let limit = (bytes.len() as u64).saturating_mul(INFLATION_MAX);
    let mut member = |name: &str| -> Result<Vec<u8>, PickleError> {
        let mut content = Vec::new();
        let read = archive.by_name(name)?.take(limit + 1).read_to_end(&mut content);
        match read {
            Ok(n) if n as u64 <= limit => Ok(content),
            Ok(_) => Err(PickleError::Shape { what: "a member far larger than the archive", at: 0 }),
            Err(_) => Err(PickleError::Truncated { at: content.len() }),
        }
    };
    let pickle = member(&name)?;
    let mut machine = Machine::new(&pickle, 0);
    let object = machine.run()?;
    let tensors = tensors_of(&machine, object, 0)?;
    let mut storages = BTreeMap::new();
    let root = name.trim_end_matches("data.pkl");
    for tensor in &tensors {
        if !storages.contains_key(&tensor.key) {
            storages.insert(tensor.key.clone(), Storage::Owned(member(&format!("{root}data/{}", tensor.key))?));
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
    fn gather(self, storages: &BTreeMap<String, Storage<'_>>, at: usize) -> Result<PickledTensor, PickleError> {
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
            let place =
                index.iter().zip(&self.stride).try_fold(self.offset, |p, (i, s)| p.checked_add(i.checked_mul(*s)?));
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
fn tensors_of(machine: &Machine<'_>, object: Id, at: usize) -> Result<Vec<TensorRef>, PickleError> {
    let Value::Dict(entries) = machine.value(object) else {
        return Err(PickleError::Shape { what: "the object is not a dictionary", at });
    };
    let text = |id: &Id| match machine.value(*id) {
        Value::Str(text) => Some(text.as_str()),
        _ => None,
    };
    let inner = entries.iter().find_map(|(key, value)| match machine.value(*value) {
        Value::Dict(inner) if text(key) == Some("state_dict") => Some(inner),
        _ => None,
    });
    let tensors: Vec<TensorRef> = inner
        .unwrap_or(entries)
        .iter()
        .filter_map(|(key, value)| match machine.value(*value) {
            Value::Tensor(tensor) => Some(TensorRef {
                name: text(key)?.to_owned(),
                storage: tensor.storage.kind.to_owned(),
                key: tensor.storage.key.clone(),
                offset: tensor.offset,
                shape: tensor.shape.clone(),
                stride: tensor.strides.clone(),
            }),
            _ => None,
        })
        .collect();
    if tensors.is_empty() {
        return Err(PickleError::Shape { what: "it holds no tensors", at });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Vec<u8> {
        let mut bytes = vec![b'X'];
        bytes.extend((s.len() as u32).to_le_bytes());
        bytes.extend(s.as_bytes());
        bytes
    }

    fn tensor(key: &str, kind: &str, count: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{kind}\n").as_bytes());
        bytes.extend(text(key));
        bytes.extend(text("cpu"));
        bytes.extend([b'K', count, b't', b'Q', b'K', offset]);
        for dims in [shape, strides] {
            bytes.push(b'(');
            dims.iter().for_each(|d| bytes.extend([b'K', *d]));
            bytes.push(b't');
        }
        bytes.extend(b"\x89N");
        bytes.extend(b"tR");
        bytes
    }

    fn object() -> Vec<u8> {
        let mut bytes = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(".to_vec();
        bytes.extend(text("plain"));
        bytes.extend(tensor("a", "FloatStorage", 6, 0, &[2, 3], &[3, 1]));
        bytes.extend(text("turned"));
        bytes.extend(tensor("a", "FloatStorage", 6, 0, &[3, 2], &[1, 3]));
        bytes.extend(text("tail"));
        bytes.extend(tensor("a", "FloatStorage", 6, 4, &[2], &[1]));
        bytes.extend(text("epoch"));
        bytes.extend(b"K\x07");
        bytes.extend(text("count"));
        bytes.extend(tensor("b", "LongStorage", 1, 0, &[], &[]));
        bytes.extend(b"u}");
        bytes.extend(text("_metadata"));
        bytes.extend(b"}sb.");
        bytes
    }

    fn legacy(object: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x80\x02\x8a\x0a".to_vec();
        bytes.extend(LEGACY_MAGIC);
        bytes.extend(b".\x80\x02M\xe9\x03.\x80\x02}");
        bytes.extend(text("little_endian"));
        bytes.extend(b"\x88s.");
        bytes.extend(object);
        bytes.extend(b"\x80\x02](");
        bytes.extend(text("a"));
        bytes.extend(text("b"));
        bytes.extend(b"e.");
        bytes.extend(6u64.to_le_bytes());
        (0..6).for_each(|i| bytes.extend((i as f32).to_le_bytes()));
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(41i64.to_le_bytes());
        bytes
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

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
    fn tuples_within_tuples_take_no_more_than_the_limit() {
        // Each tuple holds the one before twice: 2^40 values, were each a copy.
        let mut bytes = b"\x80\x02)q\x00".to_vec();
        for i in 0..40u8 {
            bytes.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]);
        }
        bytes.push(b'.');
        assert!(read(&bytes).is_err());
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

    #[test]
    fn strides_offsets_and_what_is_no_tensor() {
        let tensors = read(&legacy(&object())).expect("reads");
        let found: Vec<(&str, &str, &[usize])> =
            tensors.iter().map(|t| (t.name.as_str(), t.storage.as_str(), t.shape.as_slice())).collect();
        let expected: [(&str, &str, &[usize]); 4] = [
            ("plain", "Float", &[2, 3]),
            ("turned", "Float", &[3, 2]),
            ("tail", "Float", &[2]),
            ("count", "Long", &[]),
        ];
        assert_eq!(found, expected);
        assert_eq!(floats(&tensors[0].bytes), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(floats(&tensors[1].bytes), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(floats(&tensors[2].bytes), [4.0, 5.0]);
        assert_eq!(tensors[3].bytes, 41i64.to_le_bytes());
    }

    #[test]
    fn the_zip_form_gives_the_same_tensors() {
        use std::io::Write;
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let storage: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let members: [(&str, &[u8]); 3] =
            [("archive/data.pkl", &object()), ("archive/data/a", &storage), ("archive/data/b", &41i64.to_le_bytes())];
        for (name, bytes) in members {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("begins");
            zip.write_all(bytes).expect("writes");
        }
        let bytes = zip.finish().expect("ends").into_inner();
        assert_eq!(read(&bytes).expect("reads"), read(&legacy(&object())).expect("reads"));
    }

    #[test]
    fn a_cut_anywhere_is_an_error() {
        let whole = legacy(&object());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(matches!(read(&whole[..whole.len() - 1]), Err(PickleError::Truncated { .. })));
    }

    #[test]
    fn a_nesting_without_end_does_not_overflow_the_stack() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.resize(3_000_000, 0x85);
        bytes.push(b'.');
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn mutations_of_a_checkpoint_never_panic() {
        let whole = legacy(&object());
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 6 {
                let at = (random() % bytes.len() as u64) as usize;
                match random() % 3 {
                    0 => bytes[at] = random() as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random() as u8),
                }
            }
            let _ = read(&bytes);
        }
    }
}
