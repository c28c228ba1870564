//! Every environment variable effai reads, its meaning, and its only reader.
#![expect(clippy::disallowed_methods, reason = "the one reader")]

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable and what it is for; `effai config` and the documentation list these.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        "AWS_*, AZURE_*, GOOGLE_*",
        "credentials and addresses of remotes, by the names that those services' own tools use",
    ),
    ("EFFAI_CACHE_DIR", "where the store is; otherwise $XDG_CACHE_HOME/effai or ~/.cache/effai"),
    #[cfg(debug_assertions)]
    ("EFFAI_CRASH_AT", "for tests, not in release builds: the step at which this process is killed"),
    ("EFFAI_CHECKPOINT", "set for programs with `checkpoint`: a directory that is there again after a kill"),
    ("EFFAI_EVENTS", "set for actions: the number of the descriptor that takes their events"),
    ("EFFAI_HOOKS", "0 turns the git hooks off"),
    ("EFFAI_LOG", "what to log on stderr, e.g. effai=debug"),
    ("SSH_AUTH_SOCK", "where the SSH agent listens, which signs with keys that have a passphrase"),
];

/// Where the store is, unless the project says otherwise.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("EFFAI_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("effai")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/effai")))
}

/// The user's home.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// A path of a recipe, with `~/` for the user's home.
pub fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), home()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// At which change of a disk the crash tests want this process to end.
#[cfg(debug_assertions)]
pub fn crash_at() -> Option<u64> {
    std::env::var("EFFAI_CRASH_AT").ok()?.parse().ok()
}

/// Where the user's SSH agent listens.
pub fn ssh_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// The descriptor for events, in an action.
pub fn events_descriptor() -> Option<i32> {
    std::env::var("EFFAI_EVENTS").ok()?.parse().ok()
}

/// Whether git's hooks do anything.
pub fn has_hooks() -> bool {
    std::env::var_os("EFFAI_HOOKS").is_none_or(|value| value != "0")
}

/// The log filter.
pub fn log_filter() -> Option<String> {
    std::env::var("EFFAI_LOG").ok()
}

/// The search path for programs.
pub fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The user's shell.
pub fn shell() -> OsString {
    std::env::var_os("SHELL").filter(|v| !v.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// A variable that a recipe names to be handed through.
pub fn passed(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Variables that begin so, of the tools of a service in the cloud. Those that are no text are left out.
pub fn of_cloud(prefix: &str) -> Vec<(String, String)> {
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(named).filter(|(name, _)| name.starts_with(prefix)).collect()
}

/// Whether a program can be found.
pub fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(&path())
        .map(|dir| dir.join(name))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}
