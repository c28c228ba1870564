//! Numbers and names as people read them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as printable text, none like another: bytes outside printable ASCII, and `%`, are `%XX`.
pub fn escape(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// `1 file`, `3 files`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Bytes in binary units: `74.1 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration: `17 ms`, `3.2 s`, `4 min 05 s`, `2 h 03 min`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{} min {:02} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A share: `92 %`.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A recorded time as the user's clock shows it: `2026-11-24 14:03:20`.
pub fn local_time(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

/// Reads what [`bytes()`] writes, and its shorter spellings: `10G`, `1.5 GiB`, `70 MB`, `500000`. As in GNU's tools, `M` and `MiB`
/// are 1024 x 1024, and `MB` is 1000 x 1000.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (value, unit) = number(text).ok_or_else(|| format!("`{text}` is not a size such as 10G or 500M"))?;
    let unit = unit.to_ascii_lowercase();
    let (unit, thousand) = match unit.strip_suffix("ib") {
        Some(unit) => (unit, 1024f64),
        None => unit.strip_suffix('b').map_or((unit.as_str(), 1024.0), |unit| (unit, 1000.0)),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|u| *u == unit);
    let power = power.ok_or_else(|| format!("`{text}` has no unit of K, M, G or T"))?;
    Ok((value * thousand.powi(power as i32)) as u64)
}

/// Reads a span of time as seconds: `30d`, `12h`, `2w`, `90min`, `0.5 s`.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    let (value, unit) = number(text).ok_or_else(|| format!("`{text}` is not a span of time such as 30d or 12h"))?;
    let seconds = match unit {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(format!("`{text}` has no unit of s, min, h, d or w")),
    };
    Ok(value * seconds)
}

/// A number that is not negative, and the word after it.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let value: f64 = text[..end].parse().ok()?;
    Some((value, text[end..].trim()))
}

/// What is wrong with one line of JSON, without a place in it: the line's own is said by the caller.
pub fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_read_as_people_write_them() {
        for (text, n) in [
            ("0", 0),
            ("500000", 500_000),
            ("10G", 10 << 30),
            ("1.5 GiB", 3 << 29),
            ("64kb", 64_000),
            ("70 MB", 70_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        assert_eq!((parse_seconds("30d"), parse_seconds("1.5h")), (Ok(2_592_000.0), Ok(5400.0)));
        for bad in ["", "G", "-1G", "10X", "1.2.3M"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert!(parse_seconds("30").is_err() && parse_seconds("30 moons").is_err());
    }
}
