//! What a Mac says of itself. Not yet run on one: see docs/apple-silicon.md.

use std::process::Command;

use super::machine::Machine;

/// What `sysctl` is asked, a line of the answer each.
const ASKED: [&str; 4] =
    ["machdep.cpu.brand_string", "hw.memsize", "hw.perflevel0.logicalcpu", "hw.perflevel1.logicalcpu"];

/// Fills in what two programs of the system know.
pub(super) fn describe(machine: &mut Machine) {
    let answer = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let told = answer("/usr/sbin/sysctl", &ASKED).unwrap_or_default();
    let gpu = answer("/usr/sbin/ioreg", &["-rc", "AGXAccelerator", "-d", "1"]).unwrap_or_default();
    read(machine, &told, &gpu);
}

/// `sysctl` answers `name: value` a line, and leaves out what is not there, as on an Intel Mac; `ioreg` lists the GPU's
/// properties, `"gpu-core-count" = 10`.
fn read(machine: &mut Machine, sysctl: &str, ioreg: &str) {
    let value = |name: &str| sysctl.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let number = |name: &str| value(name)?.trim().parse::<u64>().ok();
    machine.processor = value(ASKED[0]).map(str::to_owned);
    machine.memory_bytes = number(ASKED[1]);
    let kinds = number(ASKED[2]).zip(number(ASKED[3]));
    machine.core_kinds = kinds.map(|(performance, efficiency)| (performance as usize, efficiency as usize));
    let property =
        |line: &str| line.trim_start_matches(['|', ' ']).strip_prefix("\"gpu-core-count\" = ")?.trim().parse().ok();
    machine.gpu_cores = ioreg.lines().find_map(property);
    machine.is_unified = machine.processor.as_deref().is_some_and(|name| name.starts_with("Apple"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_say_is_read() {
        let mut machine = Machine::default();
        let sysctl = "machdep.cpu.brand_string: Apple M2 Pro\nhw.memsize: 17179869184\nhw.perflevel0.logicalcpu: 6\nhw.perflevel1.logicalcpu: 4\n";
        read(&mut machine, sysctl, "+-o AGXAcceleratorG14X\n  |   \"gpu-core-count\" = 16\n");
        assert_eq!(machine.processor.as_deref(), Some("Apple M2 Pro"));
        assert_eq!((machine.memory_bytes, machine.core_kinds), (Some(16 << 30), Some((6, 4))));
        assert_eq!((machine.gpu_cores, machine.is_unified), (Some(16), true));
        let mut intel = Machine::default();
        read(&mut intel, "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nhw.memsize: 8589934592\n", "");
        assert_eq!((intel.core_kinds, intel.gpu_cores, intel.is_unified), (None, None, false));
    }
}
