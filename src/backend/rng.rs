//! Random numbers that are ours: counter-based, the same on every backend and for any number of threads.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011;
//! checked against the test vectors published with Random123.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// A stream of random numbers, named: streams of other names or seeds are independent.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    counter: u64,
    block: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream of this name under a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("effai rng v1");
        for part in [&seed.to_le_bytes()[..], name.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let word = |i: usize| u32::from_le_bytes(digest.as_bytes()[i..i + 4].try_into().expect("four bytes"));
        Self { key: [word(0), word(4)], counter: 0, block: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            let (low, high) = (self.counter as u32, (self.counter >> 32) as u32);
            self.block = philox([low, high, 0, 0], self.key);
            self.counter += 1;
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// A whole number below `n`, without bias worth a name (Lemire's multiplication).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        let (a, b) = (1.0 - f64::from(self.uniform()), f64::from(self.uniform()));
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    }

    /// A random order of 0..n, by Fisher and Yates.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// A dropout mask: 0 with probability `p`, else 1/(1-p).
    pub fn dropout(&mut self, p: f32, n: usize) -> Vec<f32> {
        let keep = 1.0 / (1.0 - p);
        (0..n).map(|_| if self.uniform() < p { 0.0 } else { keep }).collect()
    }
}

/// Normal numbers, for tests.
pub fn random(n: usize, name: &str) -> Vec<f32> {
    let mut rng = Rng::new(1, name);
    (0..n).map(|_| rng.normal()).collect()
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn streams_are_even_and_apart() {
        let mut rng = Rng::new(7, "a");
        let mean: f32 = (0..10_000).map(|_| rng.uniform()).sum::<f32>() / 1e4;
        assert!((mean - 0.5).abs() < 0.01);
        let square: f32 = (0..10_000).map(|_| rng.normal().powi(2)).sum::<f32>() / 1e4;
        assert!((square - 1.0).abs() < 0.05);
        assert_ne!(Rng::new(7, "a").bits(), Rng::new(7, "b").bits());
        let mut order = Rng::new(1, "p").permutation(100);
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
