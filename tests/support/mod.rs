//! A temporary project, and the program run in it.

pub(crate) mod tiny;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Project {
    dir: tempfile::TempDir,
}

pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Project {
    pub(crate) fn new(recipe: &str) -> Self {
        Self::at(tempfile::tempdir().expect("a temporary directory"), recipe)
    }

    /// One that does not lie in `/tmp`.
    pub(crate) fn elsewhere(recipe: &str) -> Self {
        Self::at(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory"), recipe)
    }

    fn at(dir: tempfile::TempDir, recipe: &str) -> Self {
        let project = Self { dir };
        project.write("effai.kdl", recipe);
        project
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("project").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// A zip archive of these files.
    pub(crate) fn archive(&self, name: &str, files: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(std::fs::File::create(self.path(name)).expect("created"));
        for (name, bytes) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished");
    }

    /// A program of this name in the directory `bin`, which is returned.
    pub(crate) fn program(&self, name: &str, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        let path = self.path(&format!("bin/{name}"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        self.path("bin").to_str().expect("text").to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("read")
    }

    pub(crate) fn read_bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read")
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} does not hold {from:?}");
        self.write(name, &text.replace(from, to));
    }

    /// Waits until a file is older than the clock's grain: what was written just now is read again anyway.
    pub(crate) fn outlast_the_grain(&self, name: &str) {
        let written = self.path(name).metadata().and_then(|m| m.modified()).expect("known");
        while written.elapsed().is_ok_and(|age| age.as_millis() < 50) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("removed");
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub(crate) fn effai(&self, args: &[&str]) -> Run {
        self.effai_with(args, &self.cache())
    }

    pub(crate) fn effai_with(&self, args: &[&str], cache: &Path) -> Run {
        self.effai_in(args, cache, &std::env::var("PATH").expect("a search path"))
    }

    /// With these directories as the whole search path.
    pub(crate) fn effai_in(&self, args: &[&str], cache: &Path, path: &str) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_effai"))
            .args(args)
            .current_dir(self.path("."))
            .env("EFFAI_CACHE_DIR", cache)
            .env("HOME", self.dir.path())
            .env("PATH", path)
            .output()
            .expect("the program starts");
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// With this on its standard input.
    pub(crate) fn effai_reading(&self, args: &[&str], input: &[u8]) -> Run {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        Run::of(child.wait_with_output().expect("it ends"))
    }

    /// With these variables besides.
    pub(crate) fn effai_told(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        Run::of(self.command(args).envs(variables.iter().copied()).output().expect("the program starts"))
    }

    /// With so much address space for each process, in KiB; systems other than Linux do not hold to it. One that does not end
    /// within minutes is killed, and nothing is given.
    pub(crate) fn effai_within(&self, kib: u64, args: &[&str]) -> Option<Run> {
        let command = self.command(args);
        let program = command.get_program().to_owned();
        let limited = format!(
            "ulimit -v {kib}; exec $(command -v timeout > /dev/null && echo timeout -s KILL 300) \"$0\" \"$@\""
        );
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(limited).arg(program).args(args).current_dir(self.path("."));
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // The threads of the BLAS under MLX ask for their memory again and again where there is none.
        shell.env("OPENBLAS_NUM_THREADS", "1");
        let output = shell.output().expect("the program starts");
        let is_killed = output.status.code().is_none_or(|code| code > 128);
        (!is_killed).then(|| Run::of(output))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_effai"));
        command
            .args(args)
            .current_dir(self.path("."))
            .env("EFFAI_CACHE_DIR", self.cache())
            .env("HOME", self.dir.path());
        command
    }

    /// Starts the program, waits until it says a line that begins so, interrupts it, and waits for its end.
    pub(crate) fn interrupted(&self, args: &[&str], at: &str) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_effai"))
            .args(args)
            .current_dir(self.path("."))
            .env("EFFAI_CACHE_DIR", self.cache())
            .env("HOME", self.dir.path())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pid = rustix::process::Pid::from_child(&child);
        let mut stderr = String::new();
        for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
            let line = line.expect("text");
            if line.starts_with(at) {
                rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it still runs");
            }
            stderr.push_str(&line);
            stderr.push('\n');
        }
        let code = child.wait().expect("it ends").code().unwrap_or(-1);
        Run { code, stdout: String::new(), stderr }
    }

    /// Starts the program, and kills it and all it started when a line of its result holds this; whether that was
    /// before its end.
    pub(crate) fn killed_at(&self, args: &[&str], at: &str) -> bool {
        let mut child = self.command(args).stdout(Stdio::piped()).process_group(0).spawn().expect("starts");
        let group = rustix::process::Pid::from_child(&child);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        if lines.map_while(Result::ok).any(|line| line.contains(at)) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        !child.wait().expect("it ends").success()
    }

    /// The labels that ran, in order.
    pub(crate) fn builds(&self, args: &[&str]) -> Vec<String> {
        let run = self.effai(&[&["build"], args].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr.lines().filter_map(|l| l.strip_prefix("run ")).map(|l| l.trim().to_owned()).collect()
    }
}

/// Times, sizes, shares and digests as a word; runs of blanks as one, but for a line's indent.
pub(crate) fn redacted(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([',', ';']);
            let end = &word[bare.len()..];
            let is = |ok: fn(char) -> bool| !bare.is_empty() && bare.chars().all(ok);
            let number = words.last().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit() || c == '.'));
            if bare.len() == 10 && bare.starts_with("20") && is(|c| c.is_ascii_digit() || c == '-') {
                words.push("DATE".into());
            } else if [5, 8].contains(&bare.len()) && bare.contains(':') && is(|c| c.is_ascii_digit() || c == ':') {
                words.push(format!("CLOCK{end}"));
            } else if [8, 64].contains(&bare.len()) && is(|c| c.is_ascii_hexdigit()) {
                words.push(format!("KEY{end}"));
            } else if number && ["ms", "s", "min", "KiB", "MiB", "%"].contains(&bare) {
                words.pop();
                words.push(format!("{}{end}", if bare == "%" { "SHARE" } else { "COST" }));
            } else {
                words.push(word.to_owned());
            }
        }
        lines.push(format!("{}{}", " ".repeat(indent), words.join(" ")));
    }
    lines.join("\n")
}
