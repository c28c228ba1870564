//! Where two files of one name begin to differ, in the words of their format: a tensor and its element, a line, a byte.
//!
//! Files are compared block by block, so models larger than memory can be; only the first difference is looked at.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::util::fs::{self, FsError};

/// Larger files are told by byte, whatever they hold.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// A longer safetensors header is none.
const HEADER_BYTES_MAX: u64 = 100 << 20;

const BLOCK_BYTES: usize = 1 << 20;

/// The first difference of two files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: ``tensor `a.weight` at [0, 3]``, `line 7`, `byte 4096`.
    pub place: String,
    /// What the one holds there.
    pub before: String,
    /// What the other holds there.
    pub after: String,
}

/// The first difference of two files; none where they are equal.
pub fn first_difference(before: &Path, after: &Path) -> Result<Option<Difference>, FsError> {
    let Some(offset) = first_byte(before, after)? else { return Ok(None) };
    for look in [tensor, line] {
        if let Some(difference) = look(before, after, offset)? {
            return Ok(Some(difference));
        }
    }
    let byte = |path: &Path| -> Result<String, FsError> {
        Ok(read_at(path, offset, 1)?.map_or_else(|| "the end".into(), |b| format!("{:#04x}", b[0])))
    };
    Ok(Some(Difference { place: format!("byte {offset}"), before: byte(before)?, after: byte(after)? }))
}

/// The offset of the first byte that differs or that only one has.
fn first_byte(before: &Path, after: &Path) -> Result<Option<u64>, FsError> {
    let (mut one, mut other) = (fs::open(before)?, fs::open(after)?);
    let mut blocks = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut offset = 0;
    loop {
        let here = fill(before, &mut one, &mut blocks.0)?;
        let there = fill(after, &mut other, &mut blocks.1)?;
        let same = blocks.0[..here].iter().zip(&blocks.1[..there]).take_while(|(a, b)| a == b).count();
        if same < here || same < there {
            return Ok(Some(offset + same as u64));
        }
        if here == 0 {
            return Ok(None);
        }
        offset += here as u64;
    }
}

/// Reads until the block is full or the file at its end.
fn fill(path: &Path, file: &mut File, block: &mut [u8]) -> Result<usize, FsError> {
    let mut filled = 0;
    while filled < block.len() {
        match fs::at("read", path, file.read(&mut block[filled..]))? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Bytes of a file; none if it ends before.
fn read_at(path: &Path, offset: u64, length: usize) -> Result<Option<Vec<u8>>, FsError> {
    let mut file = fs::open(path)?;
    fs::at("read", path, file.seek(SeekFrom::Start(offset)))?;
    let mut bytes = vec![0; length];
    let filled = fill(path, &mut file, &mut bytes)?;
    Ok((filled == length).then_some(bytes))
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A safetensors header: where the data begins, and the tensors in the order of their data.
struct Header {
    data_at: u64,
    tensors: Vec<(String, Tensor)>,
}

fn header(path: &Path) -> Result<Option<Header>, FsError> {
    let Some(length) = read_at(path, 0, 8)? else { return Ok(None) };
    let length = u64::from_le_bytes(length.try_into().expect("eight were read"));
    if length > HEADER_BYTES_MAX {
        return Ok(None);
    }
    let mut file = BufReader::new(fs::open(path)?);
    fs::at("read", path, file.seek(SeekFrom::Start(8)))?;
    let Ok(serde_json::Value::Object(object)) = serde_json::from_reader(file.take(length)) else { return Ok(None) };
    let mut tensors = Vec::new();
    for (name, value) in object.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Ok(tensor) = serde_json::from_value::<Tensor>(value) else { return Ok(None) };
        tensors.push((name, tensor));
    }
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    Ok(Some(Header { data_at: 8 + length, tensors }))
}

/// The difference as one of tensors, where both files are safetensors.
fn tensor(before: &Path, after: &Path, offset: u64) -> Result<Option<Difference>, FsError> {
    // The name is the second file's: the first may lie in a store.
    if after.extension().is_none_or(|e| e != "safetensors") {
        return Ok(None);
    }
    let (Some(one), Some(other)) = (header(before)?, header(after)?) else { return Ok(None) };
    if offset < one.data_at.max(other.data_at) {
        return Ok(Some(headers(&one, &other)));
    }
    let at = offset - one.data_at;
    let Some((name, tensor)) = one.tensors.iter().find(|(_, t)| (t.data_offsets.0..t.data_offsets.1).contains(&at))
    else {
        return Ok(None);
    };
    let elements: u64 = tensor.shape.iter().product();
    let width = (tensor.data_offsets.1 - tensor.data_offsets.0).checked_div(elements).unwrap_or(0);
    if width == 0 {
        return Ok(Some(Difference {
            place: format!("tensor `{name}`"),
            before: "bytes".into(),
            after: "others".into(),
        }));
    }
    let element = (at - tensor.data_offsets.0) / width;
    let from = one.data_at + tensor.data_offsets.0 + element * width;
    let value = |path: &Path| -> Result<String, FsError> {
        Ok(read_at(path, from, width as usize)?.map_or_else(|| "the end".into(), |bytes| number(&tensor.dtype, &bytes)))
    };
    let place = format!("tensor `{name}` at {:?}", position(element, &tensor.shape));
    Ok(Some(Difference { place, before: value(before)?, after: value(after)? }))
}

/// How two headers differ: the first tensor that is not in both alike, else what else they say.
fn headers(one: &Header, other: &Header) -> Difference {
    let shown = |header: &Header, name: &str| {
        let found = header.tensors.iter().find(|(n, _)| n == name);
        found.map(|(_, t)| format!("{} {:?}", t.dtype, t.shape))
    };
    let mut names: Vec<&str> = one.tensors.iter().chain(&other.tensors).map(|(n, _)| n.as_str()).collect();
    names.sort_unstable();
    for name in names {
        let (before, after) = (shown(one, name), shown(other, name));
        if before != after {
            let none = || "not there".to_owned();
            let (before, after) = (before.unwrap_or_else(none), after.unwrap_or_else(none));
            return Difference { place: format!("tensor `{name}`"), before, after };
        }
    }
    let place = "the header, with the same tensors".into();
    Difference { place, before: "metadata or order".into(), after: "others".into() }
}

/// An element's place along each axis, row-major.
fn position(mut element: u64, shape: &[u64]) -> Vec<u64> {
    let mut position = vec![0; shape.len()];
    for (place, length) in position.iter_mut().zip(shape).rev() {
        *place = element % length;
        element /= length;
    }
    position
}

/// An element as a number; as its bytes where the type is none of ours.
fn number(dtype: &str, bytes: &[u8]) -> String {
    match (dtype, bytes) {
        ("F64", &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]).to_string(),
        ("F32", &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).to_string(),
        ("F16", &[a, b]) => f16::from_le_bytes([a, b]).to_string(),
        ("BF16", &[a, b]) => bf16::from_le_bytes([a, b]).to_string(),
        ("I64", &[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]).to_string(),
        ("I32", &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).to_string(),
        ("U32", &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]).to_string(),
        ("U8" | "BOOL", &[a]) => a.to_string(),
        ("I8", &[a]) => i8::from_le_bytes([a]).to_string(),
        _ => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}

/// The difference as one of lines, where both files are text.
fn line(before: &Path, after: &Path, offset: u64) -> Result<Option<Difference>, FsError> {
    let text = |path: &Path| -> Result<Option<String>, FsError> {
        let size = fs::at("look at", path, path.metadata())?.len();
        if size > TEXT_BYTES_MAX {
            return Ok(None);
        }
        Ok(String::from_utf8(fs::read(path)?).ok().filter(|text| !text.contains('\0')))
    };
    let (Some(one), Some(other)) = (text(before)?, text(after)?) else { return Ok(None) };
    let number = one.as_bytes()[..offset as usize].iter().filter(|b| **b == b'\n').count();
    let column = one.as_bytes()[..offset as usize].iter().rev().take_while(|b| **b != b'\n').count();
    let shown = |text: &str| match text.split('\n').nth(number) {
        None => "the end".to_owned(),
        Some(line) => excerpt(line, column),
    };
    Ok(Some(Difference { place: format!("line {}", number + 1), before: shown(&one), after: shown(&other) }))
}

/// A line, or of a long one what lies around a byte.
fn excerpt(line: &str, column: usize) -> String {
    const AROUND: usize = 40;
    let mut begin = column.saturating_sub(AROUND).min(line.len());
    while !line.is_char_boundary(begin) {
        begin -= 1;
    }
    let shown: String = line[begin..].chars().take(2 * AROUND).collect();
    let (head, tail) = (begin > 0, begin + shown.len() < line.len());
    format!("{:?}", format!("{}{shown}{}", if head { "…" } else { "" }, if tail { "…" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::arrays::{Array, Arrays};
    use crate::format::tensors::write;

    #[track_caller]
    fn check(name: &str, before: &[u8], after: &[u8], expected: Option<(&str, &str, &str)>) {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (dir.path().join("one").join(name), dir.path().join("other").join(name));
        fs::write(&one, before).expect("written");
        fs::write(&other, after).expect("written");
        let found = first_difference(&one, &other).expect("compared");
        let found = found.as_ref().map(|d| (d.place.as_str(), d.before.as_str(), d.after.as_str()));
        assert_eq!(found, expected);
    }

    fn file(arrays: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        let arrays: Arrays = arrays.iter().map(|(n, s, v)| ((*n).into(), Array::f32(s, v.to_vec()))).collect();
        write(&path, &arrays, &[]).expect("written");
        fs::read(&path).expect("read")
    }

    #[test]
    fn text_by_line_and_bytes_by_offset() {
        check("a", b"same", b"same", None);
        check("a", b"a\nb\nc", b"a\nx\nc", Some(("line 2", "\"b\"", "\"x\"")));
        check("a", b"a\n", b"a\nb", Some(("line 2", "\"\"", "\"b\"")));
        check("a", "é\n".as_bytes(), "è\n".as_bytes(), Some(("line 1", "\"é\"", "\"è\"")));
        check("a", b"\0a", b"\0b", Some(("byte 1", "0x61", "0x62")));
        check("a", b"\0", b"\0b", Some(("byte 1", "the end", "0x62")));
        let long = |c: &str| format!("{}{c}{}", "x".repeat(3000), "y".repeat(3000));
        let shown = |c: &str| format!("\"…{}{c}{}…\"", "x".repeat(40), "y".repeat(39));
        check("a", long("1").as_bytes(), long("2").as_bytes(), Some(("line 1", &shown("1"), &shown("2"))));
        let mut large = vec![0; BLOCK_BYTES + 7];
        let before = large.clone();
        large[BLOCK_BYTES + 3] = 1;
        check("a", &before, &large, Some(("byte 1048579", "0x00", "0x01")));
    }

    #[test]
    fn safetensors_by_tensor_and_element() {
        let values: Vec<f32> = (0..6).map(|n| n as f32).collect();
        let mut other = values.clone();
        other[4] = 4.5;
        let one = file(&[("a", &[1], &[7.0]), ("b.weight", &[2, 3], &values)]);
        let changed = file(&[("a", &[1], &[7.0]), ("b.weight", &[2, 3], &other)]);
        check("m.safetensors", &one, &changed, Some(("tensor `b.weight` at [1, 1]", "4", "4.5")));
        let reshaped = file(&[("a", &[1], &[7.0]), ("b.weight", &[3, 2], &values)]);
        check("m.safetensors", &one, &reshaped, Some(("tensor `b.weight`", "F32 [2, 3]", "F32 [3, 2]")));
        let fewer = file(&[("a", &[1], &[7.0])]);
        check("m.safetensors", &one, &fewer, Some(("tensor `b.weight`", "F32 [2, 3]", "not there")));
        check("m.safetensors", b"\x01cut", b"\x02cut", Some(("line 1", "\"\\u{1}cut\"", "\"\\u{2}cut\"")));
    }
}
