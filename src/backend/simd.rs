//! Vector instructions, chosen at run time: AVX-512, AVX2 with FMA, or what the compiler makes of plain code.
//!
//! Every output element is one chain of fused multiply-adds in one order, whatever the width of the vectors,
//! the shape of the tile or the number of threads: so the bytes are the same on each of them. With `simd/int8.rs`,
//! the only files with `unsafe`: vector loads take pointers, and calling code for a processor is a promise that it is there.
#![expect(unsafe_code, reason = "vector instructions; each use says why it is sound")]

pub(super) mod int8;

use std::sync::OnceLock;

use super::kernels::AdamStep;

/// Columns of one packed panel: a 512-bit vector of floats.
pub(super) const PANEL: usize = 16;
/// Rows of the largest tile: 12 x 2 vectors of sums leave eight of the 32 registers for the rest.
pub(super) const ROWS: usize = 12;

/// The widest instructions of this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// x86-64 with 512-bit vectors.
    Avx512,
    /// x86-64 with 256-bit vectors and fused multiply-add.
    Avx2,
    /// Plain code; NEON on Arm.
    Plain,
}

/// What this processor has, asked once.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        Level::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Level::Avx2
    } else {
        Level::Plain
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Plain
}

/// A computation to be compiled for each level of vector instructions: `run` and all that it calls is `#[inline(always)]`, so
/// that it becomes part of a function that has the instructions.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// Computes it.
    fn run(self) -> Self::Output;
}

/// Runs a kernel with the widest instructions there are.
pub fn widest<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        fn wide<K: Kernel>(kernel: K) -> K::Output {
            kernel.run()
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow<K: Kernel>(kernel: K) -> K::Output {
            kernel.run()
        }
        match level() {
            // SAFETY: the processor has these instructions: it was asked.
            Level::Avx512 => return unsafe { wide(kernel) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { narrow(kernel) },
            Level::Plain => {}
        }
    }
    kernel.run()
}

// In kernels that the compiler makes vectors of, loops are `for` over places of arrays: closures of `for_each` and of
// `array::from_fn` may stay functions of their own, without the instructions, and `f32::max` and casts mind what is no number.

/// A number brought between two others.
#[inline(always)]
pub(super) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// A whole number from -128 to 255 as a byte: the lowest bits of its sum with 1.5 * 2^23.
#[inline(always)]
pub(super) fn byte(code: f32) -> u8 {
    (code + 12_582_912.0).to_bits() as u8
}

/// The least and the largest of values that are whole sixteens.
#[inline(always)]
pub(super) fn ends(x: &[f32]) -> (f32, f32) {
    let (mut lows, mut highs) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for part in x.as_chunks::<16>().0 {
        for i in 0..16 {
            lows[i] = if part[i] < lows[i] { part[i] } else { lows[i] };
            highs[i] = if part[i] > highs[i] { part[i] } else { highs[i] };
        }
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lows[i] = if lows[width + i] < lows[i] { lows[width + i] } else { lows[i] };
            highs[i] = if highs[width + i] > highs[i] { highs[width + i] } else { highs[i] };
        }
        width /= 2;
    }
    (lows[0], highs[0])
}

/// Compiles a function of slices once for each [`Level`] and calls the one that fits.
macro_rules! multiversion {
    ($(#[$doc:meta])* pub(super) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn plain($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) { plain($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) { plain($($arg),*) }
                match level() {
                    // SAFETY: the processor has these instructions: it was asked.
                    Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { narrow($($arg),*) },
                    Level::Plain => {}
                }
            }
            plain($($arg),*)
        }
    };
}

multiversion! {
    /// One step of AdamW on slices of one length.
    pub(super) fn adamw(values: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamStep) {
        let rest = 1.0 - step.beta1;
        let rest2 = 1.0 - step.beta2;
        for (((value, g), m), v) in values.iter_mut().zip(grad).zip(m).zip(v) {
            *m = step.beta1 * *m + rest * g;
            *v = step.beta2 * *v + rest2 * g * g;
            *value = *value * step.decay - step.rate * *m / (v.sqrt() / step.correct2 + step.eps);
        }
    }
}

multiversion! {
    /// `clamp(x * scale + shift, low, high)` on rows of `scale.len()` values, in place.
    pub(super) fn scale_shift(x: &mut [f32], scale: &[f32], shift: &[f32], low: f32, high: f32) {
        for row in x.chunks_exact_mut(scale.len()) {
            for ((v, s), t) in row.iter_mut().zip(scale).zip(shift) {
                *v = (*v * s + t).max(low).min(high);
            }
        }
    }
}

multiversion! {
    /// Adds a row to each row, in place.
    pub(super) fn add_row(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (v, b) in row.iter_mut().zip(bias) {
                *v += b;
            }
        }
    }
}

multiversion! {
    /// `out = a + b`.
    pub(super) fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = a + b;
        }
    }
}

multiversion! {
    /// `out = a * b`.
    pub(super) fn multiply_each(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = a * b;
        }
    }
}

multiversion! {
    /// `out += a * b`.
    pub(super) fn add_product(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = a.mul_add(*b, *o);
        }
    }
}

multiversion! {
    /// e to the x, in place.
    pub(super) fn exp_all(x: &mut [f32]) {
        for v in x {
            *v = exp(*v);
        }
    }
}

multiversion! {
    /// The Gaussian error linear unit.
    pub(super) fn gelu(out: &mut [f32], x: &[f32]) {
        for (o, v) in out.iter_mut().zip(x) {
            *o = 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

multiversion! {
    /// Its derivative times a gradient.
    pub(super) fn gelu_grad(out: &mut [f32], x: &[f32], grad: &[f32]) {
        for ((o, v), g) in out.iter_mut().zip(x).zip(grad) {
            let density = exp(-0.5 * v * v) * 0.398_942_3;
            *o = g * (0.5 * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)) + v * density);
        }
    }
}

multiversion! {
    /// `x * sigmoid(1.702 x)`.
    pub(super) fn quick_gelu(out: &mut [f32], x: &[f32]) {
        for (o, v) in out.iter_mut().zip(x) {
            *o = v / (1.0 + exp(-QUICK * v));
        }
    }
}

multiversion! {
    /// Its derivative times a gradient.
    pub(super) fn quick_gelu_grad(out: &mut [f32], x: &[f32], grad: &[f32]) {
        for ((o, v), g) in out.iter_mut().zip(x).zip(grad) {
            let open = 1.0 / (1.0 + exp(-QUICK * v));
            *o = g * open * (1.0 + QUICK * v * (1.0 - open));
        }
    }
}

/// Of the sigmoid that stands for the Gaussian's distribution: Hendrycks and Gimpel, "Gaussian error linear units", 2016.
const QUICK: f32 = 1.702;

multiversion! {
    /// `sum = a . b`, in 64 chains that are added in one order.
    pub(super) fn dot(sum: &mut f32, a: &[f32], b: &[f32]) {
        let mut chains = [0.0f32; 64];
        let (a, b) = (a.chunks(64), b.chunks(64));
        for (a, b) in a.zip(b) {
            for ((chain, a), b) in chains.iter_mut().zip(a).zip(b) {
                *chain = a.mul_add(*b, *chain);
            }
        }
        *sum = chains.iter().sum();
    }
}

multiversion! {
    /// Codes of a byte, or of a half of one, as weights: `((code >> shift) & mask) * scale + bias`, rounded twice as where a
    /// whole file is expanded.
    pub(super) fn expand(out: &mut [f32], codes: &[u8], shift: u32, mask: u8, scale: f32, bias: f32) {
        for (o, code) in out.iter_mut().zip(codes) {
            *o = f32::from(code >> shift & mask) * scale + bias;
        }
    }
}

multiversion! {
    /// `sum = sum over groups of scale * (x . codes)`: codes of 4 bits in blocks of 32, see [`super::qmatrix`]. Sixteen
    /// chains that are added in one order.
    pub(super) fn dot4(sum: &mut f32, x: &[f32], codes: &[u8], scales: &[f32], group: usize) {
        let mut chains = [0.0f32; 16];
        let groups = x.chunks_exact(group).zip(codes.chunks_exact(group / 2)).zip(scales);
        for ((x, codes), scale) in groups {
            let mut part = [0.0f32; 16];
            for (x, codes) in x.chunks_exact(32).zip(codes.chunks_exact(16)) {
                let (low, high) = x.split_at(16);
                for i in 0..16 {
                    let once = f32::from(codes[i] & 15).mul_add(low[i], part[i]);
                    part[i] = f32::from(codes[i] >> 4).mul_add(high[i], once);
                }
            }
            for (chain, part) in chains.iter_mut().zip(part) {
                *chain = part.mul_add(*scale, *chain);
            }
        }
        *sum = chains.iter().sum();
    }
}

multiversion! {
    /// [`dot4`] of codes of 8 bits; groups are multiples of 16.
    pub(super) fn dot8(sum: &mut f32, x: &[f32], codes: &[u8], scales: &[f32], group: usize) {
        let mut chains = [0.0f32; 16];
        for ((x, codes), scale) in x.chunks_exact(group).zip(codes.chunks_exact(group)).zip(scales) {
            let mut part = [0.0f32; 16];
            for (x, codes) in x.chunks_exact(16).zip(codes.chunks_exact(16)) {
                for i in 0..16 {
                    part[i] = f32::from(codes[i]).mul_add(x[i], part[i]);
                }
            }
            for (chain, part) in chains.iter_mut().zip(part) {
                *chain = part.mul_add(*scale, *chain);
            }
        }
        *sum = chains.iter().sum();
    }
}

multiversion! {
    /// `silu(gate) * up`.
    pub(super) fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1.0 + exp(-g)) * u;
        }
    }
}

multiversion! {
    /// The derivatives of [`swiglu`] times a gradient.
    pub(super) fn swiglu_grad(by_gate: &mut [f32], by_up: &mut [f32], gate: &[f32], up: &[f32], grad: &[f32]) {
        for ((((by_gate, by_up), gate), up), g) in by_gate.iter_mut().zip(by_up).zip(gate).zip(up).zip(grad) {
            let open = 1.0 / (1.0 + exp(-gate));
            *by_gate = g * up * open * (1.0 + gate * (1.0 - open));
            *by_up = g * gate * open;
        }
    }
}

/// e to the x to about two units in the last place: the polynomial of Cephes' `expf` (Moshier, 1989), without
/// a branch, so that it is computed in vectors and the same on every system's library.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number in the low bits.
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3).mul_add(r, 4.166_579_6e-2).mul_add(r, 1.666_666_5e-1).mul_add(r, 0.5);
    let y = (p * r).mul_add(r, r) + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127) << 23;
    y * f32::from_bits(power as u32)
}

/// The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / a.mul_add(0.327_591_1, 1.0);
    let poly = t.mul_add(1.061_405_4, -1.453_152_1).mul_add(t, 1.421_413_7).mul_add(t, -0.284_496_74);
    let poly = poly.mul_add(t, 0.254_829_6) * t;
    (1.0 - poly * exp(-a * a)).copysign(x)
}

/// One tile of a product: `rows` rows of A by panels of B.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<'a> {
    /// A, whose element (row, p) is at `row * row_stride + p * step`.
    pub a: &'a [f32],
    /// Between rows of A.
    pub row_stride: usize,
    /// Between an A row's elements.
    pub step: usize,
    /// Length of the sums.
    pub inner: usize,
    /// Packed panels, each [inner, PANEL], zero beyond the last column.
    pub panels: &'a [f32],
}

/// `c = tile` for up to [`ROWS`] rows and one or two panels; `columns` of c are written, `stride` apart by row.
pub(super) fn multiply(tile: Tile<'_>, rows: usize, c: &mut [f32], stride: usize, columns: usize) {
    assert!(rows > 0 && tile.inner > 0 && columns > 0 && columns <= 2 * PANEL, "a tile of a product");
    assert!((rows - 1) * tile.row_stride + (tile.inner - 1) * tile.step < tile.a.len(), "rows of A are there");
    assert!(columns.div_ceil(PANEL) * PANEL * tile.inner <= tile.panels.len(), "panels of B are there");
    assert!((rows - 1) * stride + columns <= c.len(), "rows of C are there");
    let mut done = 0;
    while done < rows {
        let part = Tile { a: &tile.a[done * tile.row_stride..], ..tile };
        let c = &mut c[done * stride..];
        done += match (level(), rows - done) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX-512, and the assertions above cover every load and store.
            (Level::Avx512, left) => unsafe {
                match (left, columns > PANEL) {
                    (12.., true) => tile512::<12, 2>(part, c, stride, columns),
                    (12.., false) => tile512::<12, 1>(part, c, stride, columns),
                    (4.., true) => tile512::<4, 2>(part, c, stride, columns),
                    (4.., false) => tile512::<4, 1>(part, c, stride, columns),
                    (_, true) => tile512::<1, 2>(part, c, stride, columns),
                    (_, false) => tile512::<1, 1>(part, c, stride, columns),
                }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX2 and FMA; the loads are those of the assertions above.
            (Level::Avx2, left) => unsafe {
                if left >= 6 { tile256::<6>(part, c, stride, columns) } else { tile256::<1>(part, c, stride, columns) }
            },
            (_, 4..) => tile_plain::<4>(part, c, stride, columns),
            _ => tile_plain::<1>(part, c, stride, columns),
        };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn tile512<const R: usize, const V: usize>(t: Tile<'_>, c: &mut [f32], stride: usize, columns: usize) -> usize {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    let (a, b, c) = (t.a.as_ptr(), t.panels.as_ptr(), c.as_mut_ptr());
    for p in 0..t.inner {
        let mut right = [_mm512_setzero_ps(); V];
        for (v, right) in right.iter_mut().enumerate() {
            // SAFETY: panel v has inner * PANEL floats; `multiply` asserted it.
            *right = unsafe { _mm512_loadu_ps(b.add((v * t.inner + p) * PANEL)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: row r < R <= rows, p < inner; `multiply` asserted it.
            let left = _mm512_set1_ps(unsafe { *a.add(r * t.row_stride + p * t.step) });
            for v in 0..V {
                sums[v] = _mm512_fmadd_ps(left, right[v], sums[v]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let width = (columns - v * PANEL).min(PANEL);
            // SAFETY: the mask writes `width` floats, which are in C; `multiply` asserted it.
            unsafe {
                _mm512_mask_storeu_ps(c.add(r * stride + v * PANEL), ((1u32 << width) - 1) as u16, *sum);
            }
        }
    }
    R
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile256<const R: usize>(t: Tile<'_>, c: &mut [f32], stride: usize, columns: usize) -> usize {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    for (v, panel) in t.panels.chunks_exact(t.inner * PANEL).enumerate().take(columns.div_ceil(PANEL)) {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for p in 0..t.inner {
            // SAFETY: the panel has inner * PANEL floats.
            let right = unsafe {
                let at = panel.as_ptr().add(p * PANEL);
                [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))]
            };
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row r < R <= rows, p < inner; `multiply` asserted it.
                let left = _mm256_set1_ps(unsafe { *t.a.as_ptr().add(r * t.row_stride + p * t.step) });
                sums[0] = _mm256_fmadd_ps(left, right[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(left, right[1], sums[1]);
            }
        }
        let width = (columns - v * PANEL).min(PANEL);
        for (r, sums) in sums.iter().enumerate() {
            let mut row = [0.0f32; PANEL];
            // SAFETY: the row holds both vectors.
            unsafe {
                _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
            }
            c[r * stride + v * PANEL..][..width].copy_from_slice(&row[..width]);
        }
    }
    R
}

fn tile_plain<const R: usize>(t: Tile<'_>, c: &mut [f32], stride: usize, columns: usize) -> usize {
    for (v, panel) in t.panels.chunks_exact(t.inner * PANEL).enumerate().take(columns.div_ceil(PANEL)) {
        let mut sums = [[0.0f32; PANEL]; R];
        for (p, right) in panel.chunks_exact(PANEL).enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = t.a[r * t.row_stride + p * t.step];
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = left.mul_add(*right, *sum);
                }
            }
        }
        let width = (columns - v * PANEL).min(PANEL);
        for (r, sums) in sums.iter().enumerate() {
            c[r * stride + v * PANEL..][..width].copy_from_slice(&sums[..width]);
        }
    }
    R
}

/// `out[i] = sum over taps of x[tap.0 + i] * weight[tap.1 + i]`: one output pixel of a depth-wise convolution,
/// or of its gradient.
pub(super) fn taps(out: &mut [f32], x: &[f32], weight: &[f32], taps: &[(usize, usize)]) {
    for (from, tap) in taps {
        assert!(from + out.len() <= x.len() && tap + out.len() <= weight.len(), "a tap is inside");
    }
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has AVX-512, and every tap is inside.
        return unsafe { taps512(out, x, weight, taps) };
    }
    out.fill(0.0);
    for (from, tap) in taps {
        add_product(out, &x[*from..][..out.len()], &weight[*tap..][..out.len()]);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn taps512(out: &mut [f32], x: &[f32], weight: &[f32], taps: &[(usize, usize)]) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps};
    let mut start = 0;
    while start < out.len() {
        let masks: [u16; 4] = std::array::from_fn(|v| {
            let left = out.len().saturating_sub(start + v * PANEL).min(PANEL);
            ((1u32 << left) - 1) as u16
        });
        let mut sums = [_mm512_setzero_ps(); 4];
        for (from, tap) in taps {
            for v in 0..4 {
                let at = start + v * PANEL;
                // SAFETY: masked lanes are not read; the others are inside, as `taps` asserted. The pointer
                // of a wholly masked vector may lie beyond the end, hence the wrapping addition.
                let (s, w) = unsafe {
                    (
                        _mm512_maskz_loadu_ps(masks[v], x.as_ptr().wrapping_add(from + at)),
                        _mm512_maskz_loadu_ps(masks[v], weight.as_ptr().wrapping_add(tap + at)),
                    )
                };
                sums[v] = _mm512_fmadd_ps(s, w, sums[v]);
            }
        }
        for v in 0..4 {
            // SAFETY: as for the loads.
            unsafe {
                _mm512_mask_storeu_ps(out.as_mut_ptr().wrapping_add(start + v * PANEL), masks[v], sums[v]);
            }
        }
        start += 4 * PANEL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn exp_is_right_to_a_few_units() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) / right - 1.0).abs() < 3e-7, "{x}");
        }
        assert!(exp(-1e9) < 1.3e-38);
    }

    #[test]
    fn every_width_of_vectors_gives_the_same_bits() {
        let mut rng = Rng::new(1, "tiles");
        let mut random = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
        let (rows, inner, columns) = (12, 37, 29);
        let (a, panels) = (random(rows * inner), random(2 * PANEL * inner));
        let tile = Tile { a: &a, row_stride: inner, step: 1, inner, panels: &panels };
        let mut fast = vec![0.0; rows * columns];
        multiply(tile, rows, &mut fast, columns, columns);
        let mut plain = vec![0.0; rows * columns];
        for row in 0..rows {
            tile_plain::<1>(Tile { a: &a[row * inner..], ..tile }, &mut plain[row * columns..], columns, columns);
        }
        assert_eq!(fast, plain);
        let all: Vec<(usize, usize)> = (0..9).map(|i| (i * 7, i * 3)).collect();
        let (mut fast, mut plain) = (vec![0.0; 77], vec![0.0; 77]);
        taps(&mut fast, &a, &panels, &all);
        for (from, tap) in all {
            add_product(&mut plain, &a[from..][..77], &panels[tap..][..77]);
        }
        assert_eq!(fast, plain);
    }
}
