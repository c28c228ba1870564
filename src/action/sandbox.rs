//! What an action may read and write, held to by the system: Landlock on Linux, `sandbox-exec` on macOS.
//!
//! Files: it may read the system and the programs on the search path, and read and write its scratch directory and
//! `/dev`. Whatever else it opens is refused ("permission denied"), the project's undeclared files among it. Network:
//! no TCP unless its target declares it. On macOS `sandbox-exec` holds it to the same. A kernel without Landlock (before
//! 5.13; TCP before 6.7) and other systems hold it to nothing; the build says so once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
use crate::util::fs;

/// Where systems keep programs, libraries and settings; never projects or data.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/sys",
    "/proc",
    "/run",
    "/var/lib",
    "/var/cache",
];

/// Devices: memory files, terminals, GPUs.
const DEVICES: &str = "/dev";

/// What one action may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rules {
    /// Directories and files it may read; the same for many actions.
    pub(super) reads: Vec<OsString>,
    /// Of this action: what it may read.
    pub(super) inputs: Vec<OsString>,
    /// Of this action: where it may write.
    pub(super) writes: Vec<OsString>,
    /// It may use the network.
    pub(super) network: bool,
}

/// Directories that programs on the search path need: `X` of each `X/bin`, as tools keep their libraries beside their
/// programs. One that would open up the project or the user's home is let in only itself.
pub(super) fn programs(path: &std::ffi::OsStr, project: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for dir in std::env::split_paths(path).filter(|dir| dir.is_absolute()) {
        if is_open(&dir) {
            continue;
        }
        all.push(prefix(&dir, project, home));
        // What lies there may be a link to a tool kept elsewhere.
        if let Ok(real) = dir.canonicalize() {
            all.push(prefix(&real, project, home));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// The directory that a program's own files lie in, by the directory of the program.
pub(super) fn prefix(dir: &Path, project: &Path, home: Option<&Path>) -> PathBuf {
    let is_wide =
        |up: &Path| up.parent().is_none() || project.starts_with(up) || home.is_some_and(|h| h.starts_with(up));
    match dir.parent() {
        Some(up) if !is_wide(up) => up.to_owned(),
        _ => dir.to_owned(),
    }
}

/// Whether every action may read this path.
pub fn is_open(path: &Path) -> bool {
    SYSTEM.iter().chain([&DEVICES]).any(|dir| path.starts_with(dir))
}

/// Whether this system holds actions to their rules.
pub(super) fn is_there() -> bool {
    imp::is_there()
}

pub(super) use imp::{NAME, Restriction, wrapped};

/// Has a directory stand for `/tmp`, for this process and all it starts.
#[cfg(target_os = "linux")]
pub(super) fn mount_tmp(dir: &Path) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{getgid, getuid};
    let (user, group) = (getuid(), getgid());
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        // Who is not root may do so in a world where they are nobody else.
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        let written = |name: &str, text: String| fs::write(&Path::new("/proc/self").join(name), text.as_bytes());
        let ids = written("setgroups", "deny".into())
            .and_then(|()| written("uid_map", format!("{user} {user} 1")))
            .and_then(|()| written("gid_map", format!("{group} {group} 1")));
        ids.map_err(|_| nix::Error::EPERM)?;
    }
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some(dir), "/tmp", none, MsFlags::MS_BIND, none)
}

/// Makes restrictions; keeps open what many of them name.
#[derive(Default)]
pub(super) struct Sandbox {
    open: HashMap<OsString, Option<imp::Opened>>,
}

impl Sandbox {
    /// The restriction for these rules; none where the kernel has none to offer.
    pub(super) fn restriction(&mut self, rules: &Rules) -> std::io::Result<Option<Restriction>> {
        if !is_there() {
            return Ok(None);
        }
        let system = SYSTEM.iter().copied().chain([DEVICES]).map(OsString::from);
        for path in system.chain(rules.reads.iter().cloned()) {
            self.open.entry(path).or_insert_with_key(imp::Opened::new);
        }
        let kept = |path: &str| self.open.get(std::ffi::OsStr::new(path)).and_then(Option::as_ref);
        let reads = SYSTEM.iter().filter_map(|path| kept(path));
        let reads = reads.chain(rules.reads.iter().filter_map(|path| self.open[path].as_ref()));
        Restriction::new(reads, kept(DEVICES), rules).map(Some)
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::ffi::OsString;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreated, RulesetCreatedAttr,
    };

    use super::Rules;
    use crate::action::spawner::Request;

    pub(in crate::action) const NAME: &str = "landlock";

    /// A process restricts itself, before it becomes the program.
    pub(in crate::action) fn wrapped(request: Request) -> Request {
        request
    }

    /// The newest rights asked for; an older kernel leaves out what it does not know.
    const NEWEST: ABI = ABI::V5;

    /// A path held open.
    pub(crate) struct Opened(PathFd);

    impl Opened {
        /// None where there is no such path.
        pub(super) fn new(path: &OsString) -> Option<Self> {
            // `/bin` and others are mostly links into `/usr`.
            let path = std::path::Path::new(path);
            let doubled = path.is_symlink() && path.canonicalize().is_ok_and(|real| super::is_open(&real));
            if doubled { None } else { PathFd::new(path).ok().map(Self) }
        }
    }

    /// Rights of a process that can only be given up.
    pub(in crate::action) struct Restriction(RulesetCreated);

    impl Restriction {
        pub(super) fn new<'a>(
            mut reads: impl Iterator<Item = &'a Opened>,
            devices: Option<&Opened>,
            rules: &Rules,
        ) -> std::io::Result<Self> {
            let other = std::io::Error::other;
            let ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST)).map_err(other)?;
            let ruleset = match rules.network {
                true => ruleset,
                false => ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(other)?,
            };
            let mut created = ruleset.create().map_err(other)?.set_compatibility(CompatLevel::BestEffort);
            let mut allow = |fd: &PathFd, access: BitFlags<AccessFs>| -> std::io::Result<()> {
                (&mut created).add_rule(PathBeneath::new(fd, access)).map(drop).map_err(other)
            };
            let (read, all) = (AccessFs::from_read(NEWEST), AccessFs::from_all(NEWEST));
            reads.try_for_each(|Opened(fd)| allow(fd, read))?;
            devices.map_or(Ok(()), |Opened(fd)| allow(fd, all))?;
            for (paths, access) in [(&rules.inputs, read), (&rules.writes, all)] {
                // What is not there cannot be let in, and need not be.
                for path in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
                    allow(&path, access)?;
                }
            }
            Ok(Self(created))
        }

        /// Gives the rights up, for this process and all it starts.
        pub(in crate::action) fn enforce(self) -> std::io::Result<()> {
            self.0.restrict_self().map(drop).map_err(std::io::Error::other)
        }
    }

    pub(super) fn is_there() -> bool {
        static THERE: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
            let hard = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
            hard.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
        });
        *THERE
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::ffi::OsString;

    use super::Rules;
    use crate::action::spawner::Request;

    pub(in crate::action) const NAME: &str = "sandbox-exec";

    /// Apple's own; deprecated in its manual since 2017, and what the system itself uses.
    const PROGRAM: &str = "/usr/bin/sandbox-exec";

    /// `sandbox-exec` restricts itself and becomes the program.
    pub(in crate::action) fn wrapped(mut request: Request) -> Request {
        let Some(rules) = request.rules.as_ref().filter(|_| is_there()) else { return request };
        let args = ["-p".into(), super::seatbelt::profile(rules), request.program];
        request.args.splice(0..0, args);
        (request.program, request.name) = (PROGRAM.into(), PROGRAM.into());
        request
    }

    pub(super) fn is_there() -> bool {
        cfg!(target_os = "macos") && std::path::Path::new(PROGRAM).exists()
    }

    pub(crate) struct Opened;

    impl Opened {
        pub(super) fn new(_path: &OsString) -> Option<Self> {
            None
        }
    }

    pub(in crate::action) struct Restriction;

    impl Restriction {
        pub(super) fn new<'a>(
            _reads: impl Iterator<Item = &'a Opened>,
            _devices: Option<&Opened>,
            _rules: &Rules,
        ) -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::action) fn enforce(self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

/// The rules in the language of macOS' sandbox: later ones go before earlier ones.
#[cfg(any(target_os = "macos", test))]
mod seatbelt {
    use std::ffi::{OsStr, OsString};
    use std::path::Path;

    use super::Rules;

    /// Where projects, data and what other programs left lie; the rest is the system's, and may be read.
    const CLOSED: [&str; 4] = ["/Users", "/Volumes", "/private/tmp", "/private/var/folders"];

    pub(super) fn profile(rules: &Rules) -> OsString {
        let mut text = String::from("(version 1)\n(allow default)\n");
        // What a path is made of may be looked at all the same, or none below could be opened.
        text += &format!("(deny file-read-data file-write* {})\n", paths(CLOSED.iter().map(OsStr::new)));
        text += "(deny file-write* (subpath \"/\"))\n";
        text += "(allow file-read* file-write* (subpath \"/dev\"))\n";
        let reads = rules.reads.iter().chain(&rules.inputs).chain(&rules.writes);
        text += &format!("(allow file-read* {})\n", paths(reads.map(OsString::as_os_str)));
        text += &format!("(allow file-write* {})\n", paths(rules.writes.iter().map(OsString::as_os_str)));
        if !rules.network {
            text += "(deny network*)\n(allow network* (local unix-socket) (remote unix-socket))\n";
        }
        text.into()
    }

    /// The sandbox knows files by where they really are.
    fn paths<'a>(paths: impl Iterator<Item = &'a OsStr>) -> String {
        let real = |path: &OsStr| Path::new(path).canonicalize().map_or_else(|_| path.into(), OsString::from);
        let quoted = |path: OsString| path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
        paths.map(|path| format!("(subpath \"{}\")", quoted(real(path)))).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_bring_their_prefix_but_never_the_project_or_home() {
        let path = "/usr/bin:/home/u/.pyenv/shims:/home/u/bin:/home/u/p/.venv/bin:/home/u/p/bin:bin:/tools/bin";
        let all = programs(path.as_ref(), "/home/u/p".as_ref(), Some("/home/u".as_ref()));
        let expected = ["/home/u/.pyenv", "/home/u/bin", "/home/u/p/.venv", "/home/u/p/bin", "/tools"];
        assert_eq!(all, expected.map(PathBuf::from));
    }

    #[test]
    fn the_rules_of_macos_close_first_and_open_then() {
        let rules = Rules {
            reads: vec!["/nowhere/tools".into()],
            inputs: vec!["/nowhere/a \"b\"".into()],
            writes: vec!["/nowhere/work".into()],
            network: false,
        };
        let text = seatbelt::profile(&rules).into_string().expect("text");
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in:\n{text}"));
        assert!(at("(deny file-write* (subpath \"/\"))") < at("(allow file-write* (subpath \"/nowhere/work\"))"));
        let reads =
            r#"(allow file-read* (subpath "/nowhere/tools") (subpath "/nowhere/a \"b\"") (subpath "/nowhere/work"))"#;
        assert!(at("(subpath \"/Users\")") < at(reads));
        at("(deny network*)");
        let open = seatbelt::profile(&Rules { network: true, ..rules }).into_string().expect("text");
        assert!(!open.contains("network"), "{open}");
    }
}
