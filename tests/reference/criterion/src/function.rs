//! What both time: some microseconds of arithmetic, each step of which waits for the one before.

/// The sum of what a generator of numbers gives.
#[unsafe(no_mangle)]
pub extern "C" fn function(steps: u64) -> u64 {
    let mut x = 1u64;
    let mut sum = 0u64;
    for _ in 0..steps {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sum = sum.wrapping_add(x >> 33);
    }
    sum
}
