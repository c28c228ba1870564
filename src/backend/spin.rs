//! A fixed piece of arithmetic, to find out how fast a core is just now. Here, since this crate is always optimised: the
//! same steps then take the same time in every build.

/// So many steps, each of which needs the one before it: nothing to vectorise, no memory, and no division. Marsaglia's
/// xorshift, 2003: six cycles a step on most processors.
#[must_use]
pub fn spin(steps: u64) -> u64 {
    let mut x = std::hint::black_box(0x9E37_79B9_7F4A_7C15u64);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    std::hint::black_box(x)
}
