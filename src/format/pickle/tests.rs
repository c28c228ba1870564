//! Checkpoints made by hand, opcode by opcode, and mutations of them.

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

fn check(tensors: &[StoredTensor]) {
    let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["plain", "turned", "tail", "count"]);
    assert_eq!((tensors[0].dtype, tensors[0].shape.as_slice()), (Dtype::F32, &[2, 3][..]));
    assert_eq!(floats(&tensors[0].bytes), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&tensors[1].bytes), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(floats(&tensors[2].bytes), [4.0, 5.0]);
    assert_eq!((tensors[3].dtype, tensors[3].shape.len()), (Dtype::I64, 0));
    assert_eq!(tensors[3].bytes, 41i64.to_le_bytes());
}

#[test]
fn a_legacy_checkpoint_is_read_with_its_strides() {
    check(&read_legacy(&legacy(&object())).unwrap());
}

#[test]
fn a_zip_checkpoint_is_read_with_its_strides() {
    use std::io::Write;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let storage: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let members: [(&str, &[u8]); 4] = [
        ("archive/data.pkl", &object()),
        ("archive/byteorder", b"little"),
        ("archive/data/a", &storage),
        ("archive/data/b", &41i64.to_le_bytes()),
    ];
    for (name, bytes) in members {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    check(&read(file.path()).unwrap());
}

#[test]
fn what_could_run_is_refused_by_name_and_place() {
    let evil = legacy(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.");
    let begin = evil.windows(3).position(|w| w == b"cos").unwrap();
    let error = read_legacy(&evil).unwrap_err().to_string();
    assert_eq!(error, format!("the pickle asks for `os.system` at byte {begin}, which is not allowed"));
    let error = read_legacy(&legacy(b"\x80\x02)\x81.")).unwrap_err().to_string();
    assert!(error.starts_with("the pickle has opcode 0x81 (NEWOBJ) at byte "), "{error}");
    let error = read_legacy(&legacy(b"\x80\x02(i__builtin__\neval\n.")).unwrap_err().to_string();
    assert!(error.contains("0x69 (INST)"), "{error}");
    let error = read_legacy(&legacy(b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.")).unwrap_err().to_string();
    assert!(error.contains("`builtins.exec`"), "{error}");
}

#[test]
fn a_cut_checkpoint_says_so() {
    let whole = legacy(&object());
    for end in 0..whole.len() {
        assert!(read_legacy(&whole[..end]).is_err(), "cut at {end}");
    }
    let error = read_legacy(&whole[..whole.len() - 1]).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn a_view_beyond_its_storage_is_refused() {
    let mut bytes = b"\x80\x02}".to_vec();
    bytes.extend(text("x"));
    bytes.extend(tensor("a", "FloatStorage", 6, 5, &[2], &[1]));
    bytes.extend(b"s.");
    let mut file = legacy(&bytes);
    // Only storage `a` is used here: leave `b` out of the keys.
    let key = text("b");
    let at = file.windows(key.len() + 2).position(|w| w == [&key[..], b"e."].concat()).unwrap();
    file.drain(at..at + key.len());
    let error = read_legacy(&file).unwrap_err().to_string();
    assert!(error.contains("tensor `x` reaches beyond its storage"), "{error}");
}

#[test]
fn a_bomb_of_nested_dictionaries_is_refused() {
    // Each dictionary holds the one before twice: 2^60 of them by paths.
    let mut bytes = b"\x80\x02}q\x00".to_vec();
    for i in 0..60u8 {
        bytes.extend([b'}', b'q', i + 1, b'(']);
        bytes.extend(text("l"));
        bytes.extend([b'h', i]);
        bytes.extend(text("r"));
        bytes.extend([b'h', i, b'u']);
    }
    bytes.push(b'.');
    assert!(read_legacy(&legacy(&bytes)).is_err());
}

#[test]
fn garbage_never_panics() {
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
        let _ = read_legacy(&bytes);
    }
}
