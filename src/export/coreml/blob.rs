//! `weight.bin`: a head of 64 bytes (how many blobs, the version 2), then for each blob a record of 64 bytes and its bytes,
//! which begin at a multiple of 64. As coremltools' `MILBlob` has it, whose numbers these are.

/// At the beginning of a record.
const SENTINEL: u32 = 0xdead_beef;
/// Of the file's form.
const VERSION: u32 = 2;
/// All that begins does so at a multiple of it.
const ALIGNMENT: usize = 64;

/// What a file of weights holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Floats of 16 bits.
    Float16 = 1,
    /// Floats of 32 bits.
    Float32 = 2,
    /// Bytes.
    Uint8 = 3,
    /// Signed bytes.
    Int8 = 4,
    /// Two to a byte, the low half first.
    Int4 = 8,
    /// Eight to a byte, the lowest bit first.
    Uint1 = 9,
    /// As [`Element::Int4`].
    Uint4 = 11,
    /// One after the other, the lowest bit first.
    Uint6 = 13,
}

/// A file of weights that is being written.
pub(super) struct Blobs {
    bytes: Vec<u8>,
    count: u32,
}

impl Blobs {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; ALIGNMENT], count: 0 }
    }

    /// Adds one, and says where its record is. `unused` are bits at the end of the last byte that are no values.
    pub(super) fn add(&mut self, element: Element, values: &[u8], unused: u64) -> u64 {
        self.align();
        let at = self.bytes.len();
        let data = at + ALIGNMENT;
        self.bytes.extend(SENTINEL.to_le_bytes());
        self.bytes.extend((element as u32).to_le_bytes());
        for number in [values.len() as u64, data as u64, unused] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.resize(data, 0);
        self.bytes.extend(values);
        self.count += 1;
        at as u64
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes[..4].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        self.bytes
    }
}
