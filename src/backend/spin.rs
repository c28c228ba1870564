//! A fixed piece of arithmetic, to find out how fast a core is just now. Here, since this crate is always optimised: the
//! same steps then take the same time in every build.

/// So many steps of six chains of arithmetic, none of which waits for another: they fill the units of a core, so they take
/// longer with a slower clock and with a neighbour on the core's other thread alike. One chain alone waits for itself, and
/// takes no longer beside a neighbour: where a loop of awk took 16 ms at one time and 26 at another, one chain took 0.61 and
/// 0.63 ms, six took 0.49 and 0.71. Each has operations of its own, so nothing is to be vectorised; no memory, no division.
#[must_use]
pub fn spin(steps: u64) -> u64 {
    let [mut a, mut b, mut c, mut d, mut e, mut f] = std::hint::black_box([1u64, 2, 3, 4, 5, 6]);
    for step in 0..steps {
        a = a.wrapping_mul(3).wrapping_add(step);
        b = b.wrapping_mul(5) ^ step;
        c = c.rotate_left(7).wrapping_add(step);
        d = d.wrapping_mul(9).wrapping_sub(step);
        e = (e ^ step).wrapping_add(e >> 3);
        f = f.wrapping_mul(7).wrapping_add(step >> 2);
    }
    std::hint::black_box(a ^ b ^ c ^ d ^ e ^ f)
}
