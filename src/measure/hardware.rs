//! What a machine can do at most: the rates that every speed measured on it is held against, as in the roofline model
//! (Williams, Waterman and Patterson, 2009).

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::backend::gemm::Then;
use crate::backend::int8::{Bytes, Int8};
use crate::backend::qmatrix::QMatrix;
use crate::backend::rng::Rng;
use crate::backend::{Backend, Precision, Tensor, stream};
use crate::failure::Failure;
use crate::util::{fs, machine};

/// The file of the rates.
pub const FILE: &str = "hardware.json";
/// Of the file: raised when a field is added or changes its meaning.
pub const VERSION: u32 = 1;

/// Side of the square matrices that are multiplied: large enough that the operands' traffic is hidden, small enough that all
/// of a processor's threads share the third cache.
const SIDE: usize = 1024;
/// Floats of an array that is read or copied: 256 MiB, which no cache holds.
const FLOATS: usize = 1 << 26;
/// Bytes of the file that is written and read.
const FILE_BYTES: usize = 1 << 26;
/// Each rate's rounds go on for so long,
const AT_LEAST: Duration = Duration::from_millis(600);
/// and are so many at the least.
const ROUNDS_MIN: usize = 3;

/// What a machine can do, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// [`VERSION`].
    pub version: u32,
    /// As [`machine::identity`] has it.
    pub machine: String,
    /// What computed.
    pub backend: Backend,
    /// With how many threads.
    pub threads: usize,
    /// The rates, in the order in which people look at them.
    pub rates: Vec<Rate>,
}

/// Something that was done over and over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// What.
    pub of: What,
    /// How much of it a second in the best round: what the machine can do.
    pub best: f64,
    /// In the median round: what it did.
    pub median: f64,
    /// How many rounds.
    pub rounds: usize,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Bytes of memory read by all threads, each once.
    MemoryRead,
    /// Bytes of memory read and written, as many of each.
    MemoryCopy,
    /// Operations of products of matrices of 32-bit floats, a multiplication and an addition two.
    F32,
    /// Likewise of 16 bits.
    Bf16,
    /// Likewise of codes of 8 bits.
    Int8,
    /// Bytes of a new file, until they are on the disk.
    DiskWrite,
    /// Bytes of a file that the system does not hold in memory.
    DiskRead,
}

impl What {
    /// Everything.
    pub const ALL: [Self; 7] =
        [Self::MemoryRead, Self::MemoryCopy, Self::F32, Self::Bf16, Self::Int8, Self::DiskWrite, Self::DiskRead];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryRead => "memory read, GB/s",
            Self::MemoryCopy => "memory copy, GB/s",
            Self::F32 => "f32 products, GFLOP/s",
            Self::Bf16 => "bf16 products, GFLOP/s",
            Self::Int8 => "int8 products, GOP/s",
            Self::DiskWrite => "disk write, GB/s",
            Self::DiskRead => "disk read, GB/s",
        }
    }
}

impl Hardware {
    /// The best rate of something, a second; none where it could not be measured.
    pub fn best(&self, of: What) -> Option<f64> {
        self.rates.iter().find(|rate| rate.of == of).map(|rate| rate.best)
    }
}

/// Measures it all; the file that is written lies in `dir` and is gone afterwards. `told` hears of each thing before it begins.
pub fn measure<T: Tensor>(
    backend: Backend,
    threads: usize,
    dir: &Path,
    told: &mut dyn FnMut(What),
) -> Result<Hardware, Failure> {
    let mut rates = Vec::new();
    for of in What::ALL {
        told(of);
        let found = match of {
            What::MemoryRead => {
                let from = vec![1f32; FLOATS];
                Some(rounds(4 * FLOATS, &mut || {
                    std::hint::black_box(stream::read(&from));
                    Ok(())
                })?)
            }
            What::MemoryCopy => {
                let (from, mut to) = (vec![1f32; FLOATS], vec![0f32; FLOATS]);
                Some(rounds(8 * FLOATS, &mut || {
                    stream::copy(&from, std::hint::black_box(&mut to));
                    Ok(())
                })?)
            }
            What::F32 => Some(products::<T>(Precision::F32)?),
            What::Bf16 if backend.has(Precision::Bf16) => Some(products::<T>(Precision::Bf16)?),
            What::Int8 if backend == Backend::Candle => Some(codes()?),
            What::Bf16 | What::Int8 => None,
            What::DiskWrite => Some(written(dir)?),
            What::DiskRead => read(dir)?,
        };
        rates.extend(found.map(|(best, median, rounds)| Rate { of, best, median, rounds }));
    }
    Ok(Hardware { version: VERSION, machine: machine::identity(), backend, threads, rates })
}

/// The best and the median rate, and how many rounds there were after a first one that counts for nothing.
type Found = (f64, f64, usize);

fn rounds(work: usize, run: &mut dyn FnMut() -> Result<(), Failure>) -> Result<Found, Failure> {
    run()?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < ROUNDS_MIN || begin.elapsed() < AT_LEAST {
        let begin = Instant::now();
        run()?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let rate = |seconds: f64| work as f64 / seconds.max(f64::MIN_POSITIVE);
    Ok((rate(times[0]), rate(times[times.len() / 2]), times.len()))
}

fn drawn() -> Vec<f32> {
    let mut rng = Rng::new(1, "hardware");
    (0..SIDE * SIDE).map(|_| rng.between(-1.0, 1.0)).collect()
}

const OPERATIONS: usize = 2 * SIDE * SIDE * SIDE;

fn products<T: Tensor>(precision: Precision) -> Result<Found, Failure> {
    let of = || T::from_f32(&drawn(), &[SIDE, SIDE])?.cast(precision)?.settled();
    let (x, weight) = (of()?, of()?);
    rounds(OPERATIONS, &mut || {
        x.linear(&weight, None)?.settled()?;
        Ok(())
    })
}

fn codes() -> Result<Found, Failure> {
    let values = drawn();
    let weight = Arc::new(QMatrix::Bytes(Bytes::new(Int8::round(&values, SIDE).0)));
    rounds(OPERATIONS, &mut || {
        std::hint::black_box(weight.product(&values, Then::Nothing));
        Ok(())
    })
}

fn written(dir: &Path) -> Result<Found, Failure> {
    // What is drawn cannot be packed by a file system.
    let mut rng = Rng::new(2, "hardware");
    let part: Vec<u8> = (0..1 << 20).map(|_| rng.below(256) as u8).collect();
    let bytes = part.repeat(FILE_BYTES >> 20);
    let path = dir.join("hardware.bytes");
    let found = rounds(FILE_BYTES, &mut || {
        fs::write(&path, &bytes)?;
        Ok(fs::sync(&path)?)
    });
    if found.is_err() {
        // Of a full disk nothing should be left.
        let _ = fs::remove_file(&path);
    }
    found
}

/// Of the file that was written; none where the system cannot be asked to forget it.
fn read(dir: &Path) -> Result<Option<Found>, Failure> {
    let path = dir.join("hardware.bytes");
    let mut buffer = vec![0; 1 << 20];
    let mut forgotten = true;
    let found = rounds(FILE_BYTES, &mut || {
        let mut file = fs::open(&path)?;
        forgotten &= forget(&file);
        while fs::at("read", &path, file.read(&mut buffer))? > 0 {}
        Ok(())
    });
    fs::remove_file(&path)?;
    Ok(found.map(Some)?.filter(|_| forgotten))
}

/// Has the system let go of what it holds of a file. Its time counts to the round: it is nothing beside the reading.
#[cfg(target_os = "linux")]
fn forget(file: &std::fs::File) -> bool {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &std::fs::File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_on_and_their_best_is_not_below_their_median() {
        let mut n = 0u32;
        let (best, median, rounds) = rounds(1000, &mut || {
            n += 1;
            Ok(())
        })
        .expect("measured");
        assert!(rounds >= ROUNDS_MIN && n as usize == rounds + 1);
        assert!(best >= median && median > 0.0);
    }

    #[test]
    fn what_fails_ends_the_rounds() {
        assert!(rounds(1, &mut || Err(Failure::target("gone"))).is_err());
    }
}
