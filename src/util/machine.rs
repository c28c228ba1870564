//! Who this machine is, for what is measured on it.

use super::fs;

/// The machine as a line of text: processor, logical cores, memory, system. Equal on equal machines; no host name.
pub fn identity() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_gib = memory_bytes().map_or_else(|| "?".into(), |b| format!("{:.0}", b as f64 / f64::from(1 << 30)));
    format!(
        "{}, {cores} cores, {memory_gib} GiB, {} {}",
        processor().unwrap_or_else(|| "unknown processor".into()),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

fn processor() -> Option<String> {
    let text = fs::read_text("/proc/cpuinfo".as_ref()).ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Memory of the machine in bytes.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_text("/proc/meminfo".as_ref()).ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Bytes that may still be written to the disk of a path, or of the nearest directory above it that is there.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
