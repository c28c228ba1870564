//! Sums of products of int8 codes, in i32 and exact: so the same on every instruction set.
//!
//! - AVX-512 VNNI and AVX-VNNI: `vpdpbusd`, four products and their sum a lane. Its left operand is unsigned, hence
//!   activations are `x + 128` and every sum starts at `-128 * sum(w)`.
//! - AVX2 has no such instruction. Winograd's inner product ("A new algorithm for inner product", 1968) halves the
//!   multiplications: `(x0 + w2)(x2 + w0) = x0 w0 + x2 w2 + x0 x2 + w0 w2`, where the last two are sums of one row of
//!   either side. Both factors fit 16 bits, so `vpmaddwd` adds two such products; additions are cheap. On Zen 3 that is up
//!   to 32 products of codes a cycle, against 25 by `vpsignb`, `vpmaddubsw` and `vpmaddwd` and 16 of floats. (Without
//!   `vpsignb`, as onnxruntime does, `vpmaddubsw` saturates unless weights have seven bits.)
//! - Arm's `sdot` takes signed codes as they are.
//!
//! A panel is 16 columns: for each four of the inner length ("quad") 64 bytes, in the order of [`Level::place`].

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{int8x16_t, int32x4_t};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256i;
use std::sync::OnceLock;

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// The inner length is filled up with zeros to a multiple of it.
pub(crate) const STEP: usize = 16;
/// The inner length that AVX2 takes at a time, so that a panel's part of 16 bits stays in the first cache.
#[cfg(target_arch = "x86_64")]
const PART: usize = 512;

/// Instructions for sums of products of int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// x86-64 with `vpdpbusd` on 512 bits.
    Avx512Vnni,
    /// x86-64 with `vpdpbusd` on 256 bits.
    AvxVnni,
    /// x86-64 with 256-bit vectors.
    Avx2,
    /// Arm with `sdot`.
    Dotprod,
    /// Plain code.
    Plain,
}

/// The best that this processor has, asked once.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| LEVELS.into_iter().find(|level| level.is_here()).unwrap_or(Level::Plain))
}

/// The best first.
pub(crate) const LEVELS: [Level; 5] = [Level::Avx512Vnni, Level::AvxVnni, Level::Dotprod, Level::Avx2, Level::Plain];

impl Level {
    /// Whether this processor has it.
    pub(crate) fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            Level::Plain => true,
            _ => false,
        }
    }

    /// Where the code of a column and of one of a quad's four lies in the quad's 64 bytes.
    pub(crate) fn place(self, column: usize, of_four: usize) -> usize {
        match self {
            // Eight columns after eight: their first two of the quad, then their last two.
            Level::Avx2 => column / 8 * 32 + of_four / 2 * 16 + column % 8 * 2 + of_four % 2,
            _ => column * 4 + of_four,
        }
    }

    /// Where a column's sums start, beside where its rows' do: given the column's codes, whole quads.
    pub(crate) fn column_start(self, codes: &[i8]) -> i32 {
        match self {
            // Where it overflows, the sums do so back.
            level if level.unsigned() => codes.iter().map(|w| i32::from(*w)).sum::<i32>().wrapping_mul(-128),
            Level::Avx2 => -codes.as_chunks::<4>().0.iter().map(|w| pairs(w.map(i32::from))).sum::<i32>(),
            _ => 0,
        }
    }

    /// Whether activations are `x + 128`.
    fn unsigned(self) -> bool {
        matches!(self, Level::Avx512Vnni | Level::AvxVnni)
    }
}

/// Of a quad: what Winograd's product has too much.
fn pairs(quad: [i32; 4]) -> i32 {
    quad[0] * quad[2] + quad[1] * quad[3]
}

/// Rows of codes as the instructions take them.
#[derive(Debug)]
pub(crate) struct Left {
    level: Level,
    /// Length of a row, a multiple of [`STEP`].
    inner: usize,
    /// [rows, inner]; of VNNI the bits of `x + 128` unsigned, of AVX2 nothing.
    narrow: Vec<i8>,
    /// [rows, inner]; of AVX2 only.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of AVX2"))]
    wide: Vec<i16>,
    /// Where each row's sums start.
    starts: Vec<i32>,
    /// Each row's scale.
    scales: Vec<f32>,
}

impl Left {
    /// Rows of zeros.
    pub(crate) fn new(level: Level, rows: usize, inner: usize) -> Self {
        assert!(inner.is_multiple_of(STEP) && level.is_here(), "instructions that are there");
        let (narrow, wide) = if level == Level::Avx2 { (0, rows * inner) } else { (rows * inner, 0) };
        let zero = if level.unsigned() { i8::MIN } else { 0 };
        Self {
            level,
            inner,
            narrow: vec![zero; narrow],
            wide: vec![0; wide],
            starts: vec![0; rows],
            scales: vec![0.0; rows],
        }
    }

    /// Sets a row of zeros to the codes of `round(x / scale)`, which are in [-127, 127]; ties to the even code. They stay
    /// zero for a scale of zero or NaN.
    pub(crate) fn set(&mut self, row: usize, x: &[f32], scale: f32) {
        self.scales[row] = scale;
        if scale.is_nan() || scale <= 0.0 {
            return;
        }
        let (at, inverse) = (row * self.inner, 1.0 / scale);
        #[cfg(target_arch = "x86_64")]
        if self.level == Level::Avx2 {
            // SAFETY: a `Left` of AVX2 is only made where it is there.
            self.starts[row] = unsafe { round256(x, inverse, &mut self.wide[at..][..self.inner]) };
            return;
        }
        let zero = if self.level.unsigned() { 128 } else { 0 };
        super::widest(Round { x, inverse, zero, out: &mut self.narrow[at..][..x.len()] });
    }
}

struct Round<'a> {
    x: &'a [f32],
    inverse: f32,
    zero: i32,
    out: &'a mut [i8],
}

impl super::Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number in the low bits.
        for (out, x) in self.out.iter_mut().zip(self.x) {
            let shifted = x * self.inverse + MAGIC;
            *out = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(self.zero) as i8;
        }
    }
}

/// As [`Round`], in whole [`STEP`]s; gives where the row's sums start.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn round256(x: &[f32], inverse: f32, out: &mut [i16]) -> i32 {
    use std::arch::x86_64::{
        _mm256_cvtps_epi32, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_mul_ps, _mm256_packs_epi32,
        _mm256_permute4x64_epi64, _mm256_set1_ps, _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256,
        _mm256_sub_epi32,
    };
    let mut sums = _mm256_setzero_si256();
    let inverse = _mm256_set1_ps(inverse);
    for (at, out) in out.as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
        let mut rest = [0.0; STEP];
        let part = &x[(at * STEP).min(x.len())..];
        let part = part.first_chunk::<STEP>().unwrap_or_else(|| {
            rest[..part.len()].copy_from_slice(part);
            &rest
        });
        // SAFETY: both have sixteen elements.
        unsafe {
            // The default mode rounds to the nearest, ties to even.
            let low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(part.as_ptr()), inverse));
            let high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(part.as_ptr().add(8)), inverse));
            let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
            // The last two of a quad, over its first two.
            sums = _mm256_sub_epi32(sums, _mm256_madd_epi16(codes, _mm256_srli_epi64::<32>(codes)));
        }
    }
    let mut lanes = [0i32; 8];
    // SAFETY: a vector of eight.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    lanes.iter().sum()
}

/// Sixteen columns of a packed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel<'a> {
    /// [inner / 4, 64]
    pub codes: &'a [i8],
    /// Where the columns' sums start.
    pub starts: &'a [i32; PANEL],
    /// The columns' scales.
    pub scales: &'a [f32; PANEL],
    /// Columns that there are.
    pub width: usize,
}

/// Memory for [`multiply`], kept between calls.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of AVX2"))]
pub(crate) struct Scratch {
    wide: Vec<i16>,
    carry: Vec<[i32; PANEL]>,
}

/// All rows by one or two neighbouring panels, each product times the scales of its row and of its column, to rows of `out` that
/// are `stride` apart.
pub(crate) fn multiply(
    left: &Left,
    panels: &[Panel<'_>],
    out: &mut [f32],
    stride: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "of AVX2"))] scratch: &mut Scratch,
) {
    assert!(panels.iter().all(|panel| panel.codes.len() == left.inner * PANEL), "rows and panels of one inner length");
    #[cfg(target_arch = "x86_64")]
    if let (Level::Avx512Vnni, [first, second]) = (left.level, panels) {
        multiply512(left, [*first, *second], out, stride);
        return;
    }
    for (i, panel) in panels.iter().enumerate() {
        let mut end =
            End { left, panel: *panel, out: &mut out[i * PANEL..], stride, carry: &mut [], first: true, last: true };
        multiply_one(&mut end, scratch);
    }
}

/// The same of two panels: a row's codes are spread over a vector once for both.
#[cfg(target_arch = "x86_64")]
fn multiply512(left: &Left, panels: [Panel<'_>; 2], out: &mut [f32], stride: usize) {
    let rows = left.starts.len();
    assert!(left.narrow.len() == rows * left.inner, "rows of narrow codes");
    let mut row = 0;
    while row < rows {
        // SAFETY, of each: as in `multiply_one`; both panels have `inner`.
        row += match rows - row {
            // SAFETY: see above.
            8.. => unsafe { vnni512::<8, 2>(left, &panels, out, stride, row) },
            // SAFETY: see above.
            4.. => unsafe { vnni512::<4, 2>(left, &panels, out, stride, row) },
            // SAFETY: see above.
            _ => unsafe { vnni512::<1, 2>(left, &panels, out, stride, row) },
        };
    }
}

fn multiply_one(
    end: &mut End<'_>,
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "of AVX2"))] scratch: &mut Scratch,
) {
    let left = end.left;
    #[cfg(target_arch = "x86_64")]
    if left.level == Level::Avx2 {
        multiply256(end, scratch);
        return;
    }
    let rows = left.starts.len();
    assert!(left.narrow.len() == rows * left.inner, "rows of narrow codes");
    let mut row = 0;
    while row < rows {
        // SAFETY, of each: `Left` is only made for instructions that are there; it has `inner` codes for each of its rows, of
        // which there are as many from `row` on as the tile has, and the panel has PANEL columns of `inner`.
        row += match (left.level, rows - row) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            (Level::Avx512Vnni, 16..) => unsafe { vnni512::<16, 1>(left, &[end.panel], end.out, end.stride, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            (Level::Avx512Vnni, 4..) => unsafe { vnni512::<4, 1>(left, &[end.panel], end.out, end.stride, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            (Level::Avx512Vnni, _) => unsafe { vnni512::<1, 1>(left, &[end.panel], end.out, end.stride, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            (Level::AvxVnni, 6..) => unsafe { vnni256::<6>(end, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            (Level::AvxVnni, _) => unsafe { vnni256::<1>(end, row) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: see above.
            (Level::Dotprod, 4..) => unsafe { sdot::<4>(end, row) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: see above.
            (Level::Dotprod, _) => unsafe { sdot::<1>(end, row) },
            _ => plain(end, row),
        };
    }
}

/// Where a tile's sums go.
struct End<'a> {
    left: &'a Left,
    panel: Panel<'a>,
    out: &'a mut [f32],
    stride: usize,
    /// [rows]: sums of the parts before, where the inner length is taken in parts.
    carry: &'a mut [[i32; PANEL]],
    first: bool,
    last: bool,
}

impl End<'_> {
    /// Takes the sums of R rows.
    #[inline(always)]
    fn put<const R: usize>(&mut self, row: usize, sums: &[[i32; PANEL]; R]) -> usize {
        for (row, sums) in (row..).zip(sums) {
            let mut sums = *sums;
            if !self.first {
                sums.iter_mut().zip(&self.carry[row]).for_each(|(sum, before)| *sum = sum.wrapping_add(*before));
            }
            if !self.last {
                self.carry[row] = sums;
                continue;
            }
            let (start, scale) = (self.left.starts[row], self.left.scales[row]);
            let mut scaled = [0.0f32; PANEL];
            for (((scaled, sum), column), of) in
                scaled.iter_mut().zip(sums).zip(self.panel.starts).zip(self.panel.scales)
            {
                *scaled = sum.wrapping_add(column.wrapping_add(start)) as f32 * (scale * of);
            }
            let out = &mut self.out[row * self.stride..][..self.panel.width];
            match <&mut [f32; PANEL]>::try_from(&mut *out) {
                Ok(out) => *out = scaled,
                Err(_) => out.iter_mut().zip(scaled).for_each(|(out, v)| *out = v),
            }
        }
        R
    }
}

/// One row in plain code.
fn plain(end: &mut End<'_>, row: usize) -> usize {
    let codes = &end.left.narrow[row * end.left.inner..][..end.left.inner];
    let quads = codes.as_chunks::<4>().0.iter().zip(end.panel.codes.as_chunks::<{ 4 * PANEL }>().0);
    let mut sums = [0; PANEL];
    for (x, w) in quads {
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
            for i in 0..4 {
                *sum += i32::from(x[i]) * i32::from(w[i]);
            }
        }
    }
    end.put(row, &[sums])
}

/// Widens a panel once for all tiles of rows, a part of the inner length at a time. Too few rows read it as it is.
#[cfg(target_arch = "x86_64")]
fn multiply256(end: &mut End<'_>, scratch: &mut Scratch) {
    const ROWS: usize = 4;
    let (left, panel, rows, inner) = (end.left, end.panel, end.left.starts.len(), end.left.inner);
    assert!(left.wide.len() == rows * inner, "rows of wide codes");
    let widen = rows >= 4 * ROWS;
    if inner > PART {
        scratch.carry.resize(rows, [0; PANEL]);
    }
    let mut end = End { out: end.out, carry: &mut scratch.carry, ..*end };
    for from in (0..inner).step_by(PART) {
        let part = PART.min(inner - from);
        (end.first, end.last) = (from == 0, from + part == inner);
        let narrow = &panel.codes[from * PANEL..][..part * PANEL];
        if widen {
            scratch.wide.resize(PART.min(inner) * PANEL, 0);
            super::widest(Widen(narrow, &mut scratch.wide));
        }
        let mut row = 0;
        while row < rows {
            // SAFETY, of each: a `Left` of AVX2 is only made where it is there. It has `part` codes at `from` of each of its
            // rows, of which there are as many from `row` on as the tile has; the panel has PANEL columns of `part`.
            row += match (widen, rows - row) {
                // SAFETY: see above.
                (true, ROWS..) => unsafe { tile256::<ROWS, i16>(&mut end, row, from, part, &scratch.wide) },
                // SAFETY: see above.
                (true, _) => unsafe { tile256::<1, i16>(&mut end, row, from, part, &scratch.wide) },
                // SAFETY: see above.
                (false, ROWS..) => unsafe { tile256::<ROWS, i8>(&mut end, row, from, part, narrow) },
                // SAFETY: see above.
                (false, _) => unsafe { tile256::<1, i8>(&mut end, row, from, part, narrow) },
            };
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Widen<'a>(&'a [i8], &'a mut [i16]);

#[cfg(target_arch = "x86_64")]
impl super::Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (wide, narrow) in self.1.iter_mut().zip(self.0) {
            *wide = i16::from(*narrow);
        }
    }
}

/// Codes of eight or sixteen bits, read as the latter.
#[cfg(target_arch = "x86_64")]
trait Wide: Copy {
    /// Sixteen codes.
    unsafe fn load(from: *const Self) -> __m256i;
}
#[cfg(target_arch = "x86_64")]
impl Wide for i16 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const Self) -> __m256i {
        // SAFETY: the caller has sixteen codes there.
        unsafe { std::arch::x86_64::_mm256_loadu_si256(from.cast()) }
    }
}
#[cfg(target_arch = "x86_64")]
impl Wide for i8 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const Self) -> __m256i {
        // SAFETY: the caller has sixteen codes there.
        std::arch::x86_64::_mm256_cvtepi8_epi16(unsafe { std::arch::x86_64::_mm_loadu_si128(from.cast()) })
    }
}

/// Adds the products of quad p, which each row and the panel have.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn quad256<const R: usize, W: Wide>(
    sums: &mut [[__m256i; 2]; R],
    rows: &[*const i16; R],
    panel: *const W,
    p: usize,
) {
    use std::arch::x86_64::{_mm256_add_epi16, _mm256_add_epi32, _mm256_madd_epi16, _mm256_set1_epi32};
    // SAFETY: the quad has 64 codes at 16 p.
    let right = unsafe {
        let at = panel.add(p * PANEL);
        [[W::load(at), W::load(at.add(16))], [W::load(at.add(32)), W::load(at.add(48))]]
    };
    // A sum is added to after the next product: neighbours then wait less for one another.
    let mut before = None;
    for (r, row) in rows.iter().enumerate() {
        // SAFETY: the row has four codes at p.
        let (first, last) = unsafe {
            let at = row.add(p).cast::<i32>();
            (_mm256_set1_epi32(at.read_unaligned()), _mm256_set1_epi32(at.add(1).read_unaligned()))
        };
        for (v, right) in right.iter().enumerate() {
            let product = _mm256_madd_epi16(_mm256_add_epi16(first, right[1]), _mm256_add_epi16(last, right[0]));
            if let Some((r, v, product)) = before.replace((r, v, product)) {
                let sum: &mut __m256i = &mut sums[r][v];
                *sum = _mm256_add_epi32(*sum, product);
            }
        }
    }
    if let Some((r, v, product)) = before {
        sums[r][v] = _mm256_add_epi32(sums[r][v], product);
    }
}

/// [`End::put`] in vectors, apart from the loop, so that it takes none of the loop's registers.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn put256<const R: usize>(end: &mut End<'_>, row: usize, sums: &[[i32; PANEL]; R]) -> usize {
    end.put(row, sums)
}

/// R rows by a panel's part: R x 2 sums, four vectors of the panel, two of a row and two between are all sixteen registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn tile256<const R: usize, W: Wide>(
    end: &mut End<'_>,
    row: usize,
    from: usize,
    part: usize,
    panel: &[W],
) -> usize {
    use std::arch::x86_64::{_mm256_setzero_si256, _mm256_storeu_si256};
    debug_assert!(panel.len() >= part * PANEL && part.is_multiple_of(STEP));
    let rows: [*const i16; R] =
        std::array::from_fn(|r| end.left.wide[(row + r) * end.left.inner + from..][..part].as_ptr());
    let w = panel.as_ptr();
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for p in (0..part).step_by(8) {
        // SAFETY: the part is a multiple of STEP, so there are two quads at p in each row and in the panel.
        unsafe {
            quad256(&mut sums, &rows, w, p);
            quad256(&mut sums, &rows, w, p + 4);
        }
    }
    let mut tile = [[0; PANEL]; R];
    for (tile, sums) in tile.iter_mut().zip(&sums) {
        // SAFETY: a row of sums has two vectors.
        unsafe {
            let at = tile.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(at, sums[0]);
            _mm256_storeu_si256(at.add(1), sums[1]);
        }
    }
    put256(end, row, &tile)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn vnni512<const R: usize, const P: usize>(
    left: &Left,
    panels: &[Panel<'_>; P],
    out: &mut [f32],
    stride: usize,
    row: usize,
) -> usize {
    use std::arch::x86_64::{
        _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };
    let inner = left.inner;
    let x = left.narrow[row * inner..][..R * inner].as_ptr();
    let mut sums = [[_mm512_setzero_si512(); R]; P];
    for p in (0..inner).step_by(4) {
        let mut right = [_mm512_setzero_si512(); P];
        for (right, panel) in right.iter_mut().zip(panels) {
            // SAFETY: a quad p of a panel has 64 codes at 16 p.
            *right = unsafe { _mm512_loadu_si512(panel.codes.as_ptr().add(p * PANEL).cast()) };
        }
        for r in 0..R {
            // SAFETY: row r < R has four codes at p.
            let left = _mm512_set1_epi32(unsafe { x.add(r * inner + p).cast::<i32>().read_unaligned() });
            for (sums, right) in sums.iter_mut().zip(right) {
                sums[r] = _mm512_dpbusd_epi32(sums[r], left, right);
            }
        }
    }
    for (i, (panel, sums)) in panels.iter().zip(sums).enumerate() {
        let mut tile = [[0; PANEL]; R];
        for (tile, sum) in tile.iter_mut().zip(sums) {
            // SAFETY: a row of sums is one vector.
            unsafe { _mm512_storeu_si512(tile.as_mut_ptr().cast(), sum) };
        }
        let out = &mut out[i * PANEL..];
        End { left, panel: *panel, out, stride, carry: &mut [], first: true, last: true }.put(row, &tile);
    }
    R
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn vnni256<const R: usize>(end: &mut End<'_>, row: usize) -> usize {
    use std::arch::x86_64::{
        _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
    };
    let inner = end.left.inner;
    let (x, w) = (end.left.narrow[row * inner..][..R * inner].as_ptr(), end.panel.codes.as_ptr());
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for p in (0..inner).step_by(4) {
        // SAFETY: a quad p of the panel has 64 codes at 16 p.
        let right = unsafe {
            let at = w.add(p * PANEL).cast::<__m256i>();
            [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))]
        };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: row r < R has four codes at p.
            let left = _mm256_set1_epi32(unsafe { x.add(r * inner + p).cast::<i32>().read_unaligned() });
            sums[0] = _mm256_dpbusd_avx_epi32(sums[0], left, right[0]);
            sums[1] = _mm256_dpbusd_avx_epi32(sums[1], left, right[1]);
        }
    }
    let mut tile = [[0; PANEL]; R];
    for (tile, sums) in tile.iter_mut().zip(&sums) {
        // SAFETY: a row of sums has two vectors.
        unsafe {
            let at = tile.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(at, sums[0]);
            _mm256_storeu_si256(at.add(1), sums[1]);
        }
    }
    put256(end, row, &tile)
}

/// `sum[i] + sum of w[4 i + j] * x[4 Q + j]`. The intrinsic `vdotq_laneq_s32` is not stable in Rust yet.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_lane<const Q: i32>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the function's features say is there.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{q}]",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x, q = const Q,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot<const R: usize>(end: &mut End<'_>, row: usize) -> usize {
    use std::arch::aarch64::{vdupq_n_s8, vdupq_n_s32, vld1q_s8, vst1q_s32};
    let inner = end.left.inner;
    let (x, w) = (end.left.narrow[row * inner..][..R * inner].as_ptr(), end.panel.codes.as_ptr());
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    for p in (0..inner).step_by(STEP) {
        let mut left = [vdupq_n_s8(0); R];
        for (r, left) in left.iter_mut().enumerate() {
            // SAFETY: row r < R has STEP codes at p: the inner length is a multiple of it.
            *left = unsafe { vld1q_s8(x.add(r * inner + p)) };
        }
        macro_rules! quad {
            ($q:literal) => {
                for v in 0..4 {
                    // SAFETY: the quad has 64 codes, p + 4 q < inner.
                    let right = unsafe { vld1q_s8(w.add((p + 4 * $q) * PANEL + 16 * v)) };
                    for r in 0..R {
                        sums[r][v] = dot_lane::<$q>(sums[r][v], right, left[r]);
                    }
                }
            };
        }
        quad!(0);
        quad!(1);
        quad!(2);
        quad!(3);
    }
    let mut tile = [[0; PANEL]; R];
    for (tile, sums) in tile.iter_mut().zip(&sums) {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: a row of sums has four vectors.
            unsafe { vst1q_s32(tile.as_mut_ptr().add(4 * v), *sum) };
        }
    }
    end.put(row, &tile)
}
