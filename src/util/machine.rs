//! Who this machine is: for what is measured on it, and for `effai doctor`.

use super::{apple, fs};

/// What computes here. What a system does not say is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: Option<String>,
    /// Logical cores that this process may use.
    pub cores: usize,
    /// On Apple Silicon: performance cores, and efficiency cores.
    pub core_kinds: Option<(usize, usize)>,
    /// On Apple Silicon: cores of the GPU.
    pub gpu_cores: Option<usize>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor and GPU share the memory.
    pub is_unified: bool,
    /// Vector instructions that the kernels use, where they are there.
    pub vectors: Vec<&'static str>,
    /// The operating system and the processor's architecture, as Rust names them.
    pub system: (&'static str, &'static str),
}

impl Machine {
    /// Looks. On a Mac it starts two programs of the system.
    pub fn look() -> Self {
        let mut machine = Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            vectors: vectors(),
            system: (std::env::consts::OS, std::env::consts::ARCH),
            ..Self::default()
        };
        if cfg!(target_os = "macos") {
            apple::describe(&mut machine);
        } else {
            machine.processor = processor();
            machine.memory_bytes = memory_bytes();
        }
        machine
    }
}

fn vectors() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let there = [
            ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
            ("FMA", std::arch::is_x86_feature_detected!("fma")),
            ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
        ];
        there.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        if cfg!(target_arch = "aarch64") { vec!["NEON"] } else { Vec::new() }
    }
}

/// The machine as a line of text: processor, logical cores, memory, system. Equal on equal machines; no host name.
pub fn identity() -> String {
    let Machine { processor, cores, memory_bytes, system: (os, arch), .. } = Machine::look();
    let memory_gib = memory_bytes.map_or_else(|| "?".into(), |b| format!("{:.0}", b as f64 / f64::from(1 << 30)));
    let processor = processor.unwrap_or_else(|| "unknown processor".into());
    format!("{processor}, {cores} cores, {memory_gib} GiB, {os} {arch}")
}

fn processor() -> Option<String> {
    let text = fs::read_text("/proc/cpuinfo".as_ref()).ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Memory of the machine in bytes.
pub fn memory_bytes() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Memory that a new program may have without another one's being moved to the disk, in bytes.
pub fn free_memory_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_text("/proc/meminfo".as_ref()).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The most memory this process ever held. 0 where the system does not say.
pub fn peak_bytes() -> u64 {
    of_status("VmHWM:")
}

fn of_status(name: &str) -> u64 {
    let status = fs::read_text("/proc/self/status".as_ref()).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What this process holds in memory now. 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    of_status("VmRSS:")
}

/// Where a process says that its peak of memory begins anew.
pub const FORGET_PEAK: &str = "/proc/self/clear_refs";

/// Has [`peak_bytes`] begin anew with what this process holds now; whether the system did.
pub fn forget_peak() -> bool {
    cfg!(target_os = "linux") && fs::write(FORGET_PEAK.as_ref(), b"5").is_ok()
}

/// Bytes that may still be written to the disk of a path, or of the nearest directory above it that is there.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
