//! Random graphs, random files, random edits, and what a clean build of them gives.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

const OPS: [&str; 6] = ["cat", "join", "wrap", "parity", "count", "cat"];
const INPUTS: [&str; 8] = ["a.txt", "b.txt", "d", "d/*.txt", "d/**", "*.txt", "e/s", "d/**/x*"];
const NAMES: [&[u8]; 9] =
    [b"a.txt", b"b.txt", b"c.txt", b"d/x.txt", b"d/y.md", b"d/s/x1", b"d/s/\xff\xfe", b"e/s/z", b"d/%41"];

/// One generated target.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) op: String,
    /// The op under the profile.
    profile: Option<String>,
    tag: bool,
    inputs: Vec<&'static str>,
    pub(crate) needs: Vec<String>,
}

/// The profile that some targets have.
pub(crate) const PROFILE: &str = "p";

#[derive(Clone, Debug)]
pub(crate) struct Graph {
    targets: Vec<Target>,
    /// Targets `m-N`, one for each, made by one declaration.
    matrix: BTreeSet<usize>,
    comment: usize,
    /// From here on targets stand in another recipe, which is included.
    split: usize,
}

impl Graph {
    pub(crate) fn generate(rng: &mut Rng) -> Self {
        let mut targets: Vec<Target> = Vec::new();
        for i in 0..3 + rng.below(9) {
            let mut target = Target {
                label: format!("t/{i}"),
                op: rng.pick(&OPS).into(),
                // The first always has it, so that it is known.
                profile: (i == 0 || rng.below(3) == 0).then(|| rng.pick(&OPS).into()),
                tag: rng.below(3) == 0,
                inputs: Vec::new(),
                needs: Vec::new(),
            };
            target.inputs = (0..rng.below(3)).map(|_| rng.pick(&INPUTS)).collect();
            target.inputs.sort_unstable();
            target.inputs.dedup();
            target.needs = (0..rng.below(4).min(i * 4)).map(|_| format!("t/{}", rng.below(i))).collect();
            target.needs.sort_unstable();
            target.needs.dedup();
            targets.push(target);
        }
        Self { targets, matrix: (0..rng.below(4)).collect(), comment: 0, split: rng.below(12) }
    }

    /// Those of the matrix stand on the first target.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let made = self.matrix.iter().map(|n| Target {
            label: format!("m-{n}"),
            op: format!("wrap-{n}"),
            profile: None,
            tag: *n == 1,
            inputs: vec!["a.txt"],
            needs: vec!["t/0".into()],
        });
        self.targets.iter().cloned().chain(made).collect()
    }

    /// With the profile laid over it.
    pub(crate) fn under(&self, profile: Option<&str>) -> Self {
        let mut graph = self.clone();
        for target in graph.targets.iter_mut().filter(|_| profile.is_some()) {
            target.op = target.profile.clone().unwrap_or_else(|| target.op.clone());
        }
        graph
    }

    pub(crate) fn write(&self, root: &Path) {
        let mut text = format!("cache dir=\"../cache\"\ninclude \"more/*.kdl\"\n// comment {}\n", self.comment);
        let mut more = String::new();
        for (i, target) in self.targets.iter().enumerate() {
            let inputs: String = target.inputs.iter().map(|i| format!("    input \"{i}\"\n")).collect();
            let needs: String = target.needs.iter().map(|n| format!("    needs \"{n}\"\n")).collect();
            let (label, op) = (&target.label, &target.op);
            let tag = if target.tag { "    tags \"some\"\n" } else { "" };
            let profile = target.profile.as_ref();
            let profile =
                profile.map_or(String::new(), |op| format!("    profile \"{PROFILE}\" {{ run \"{op}\"; }}\n"));
            let to = if i < self.split { &mut text } else { &mut more };
            *to += &format!(
                "command \"{label}\" {{\n{tag}    run \"{op}\"\n{inputs}{needs}    output \"o\"\n{profile}}}\n"
            );
        }
        if !self.matrix.is_empty() {
            let values: String = self.matrix.iter().map(|n| format!(" {n}")).collect();
            text += &format!(
                "command \"m-{{n}}\" {{\n    matrix {{ n{values}; }}\n    tags \"some-{{n}}\"\n    run \"wrap-{{n}}\"\n    input \"a.txt\"\n    needs \"t/0\"\n    output \"o\"\n}}\n"
            );
        }
        let path = root.join("effai.kdl");
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&*text) {
            std::fs::write(path, text).expect("written");
        }
        let other = root.join("more/a.kdl");
        if more.is_empty() {
            let _ = std::fs::remove_file(other);
        } else {
            std::fs::create_dir_all(root.join("more")).expect("made");
            std::fs::write(other, more).expect("written");
        }
    }

    /// All targets, or a few.
    pub(crate) fn some_labels(&self, rng: &mut Rng) -> Vec<String> {
        if rng.below(2) == 0 {
            return Vec::new();
        }
        let all = self.targets();
        if rng.below(4) == 0 {
            return all.iter().find(|t| t.tag).map(|t| vec![format!("tag:{}", t.tag_word())]).unwrap_or_default();
        }
        (0..1 + rng.below(2)).map(|_| all[rng.below(all.len())].label.clone()).collect()
    }

    pub(crate) fn named(&self, words: &[String], label: &str) -> bool {
        let tagged = |w: &String| {
            self.targets().iter().any(|t| t.label == label && t.tag && *w == format!("tag:{}", t.tag_word()))
        };
        words.is_empty() || words.iter().any(|w| w == label || tagged(w))
    }

    pub(crate) fn closure(&self, words: &[String]) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        for target in self.targets().iter().rev() {
            if self.named(words, &target.label) || wanted.contains(&target.label) {
                wanted.insert(target.label.clone());
                wanted.extend(target.needs.iter().cloned());
            }
        }
        wanted
    }
}

impl Target {
    /// What it is tagged with: its number, where a matrix made it.
    fn tag_word(&self) -> String {
        self.label.strip_prefix("m-").map_or_else(|| "some".into(), |n| format!("some-{n}"))
    }

    /// Whether its program fails.
    pub(crate) fn fails(&self) -> bool {
        self.op.starts_with("fail")
    }

    /// What its program reads: files by name, then what it stands on in the order of the text.
    pub(crate) fn parts(&self, files: &Files, outputs: &BTreeMap<String, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
        let mut parts: Vec<(String, Vec<u8>)> = files
            .0
            .iter()
            .filter(|(path, _)| self.inputs.iter().any(|i| reads(i, path)))
            .map(|(path, file)| (shown(path), file.content.clone()))
            .collect();
        parts.sort();
        parts.extend(self.needs.iter().map(|label| (label.clone(), outputs[label].clone())));
        parts
    }

    /// Everything that may change its bytes.
    pub(crate) fn identity(&self, files: &Files, outputs: &BTreeMap<String, Vec<u8>>) -> String {
        let bits: Vec<bool> = files
            .0
            .iter()
            .filter(|(p, _)| self.inputs.iter().any(|i| reads(i, p)))
            .map(|(_, f)| f.executable)
            .collect();
        format!("{} {:?} {:?} {bits:?} {:?}", self.op, self.inputs, self.needs, self.parts(files, outputs))
    }
}

/// Whether an input of a recipe stands for a file: said here by hand, not by the globs' library.
fn reads(input: &str, path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    let in_d = |rest: &dyn Fn(&[u8]) -> bool| path.strip_prefix(b"d/").is_some_and(rest);
    let last = path.rsplit(|b| *b == b'/').next().expect("a name");
    match input {
        "d" | "d/**" => in_d(&|_| true),
        "d/*.txt" => in_d(&|rest| !rest.contains(&b'/') && rest.ends_with(b".txt")),
        "d/**/x*" => in_d(&|_| last.starts_with(b"x")),
        "*.txt" => !path.contains(&b'/') && path.ends_with(b".txt"),
        "e/s" => path.starts_with(b"e/s/"),
        file => path == file.as_bytes(),
    }
}

/// A path as the program prints it.
pub(crate) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

/// What a program sees of a file: its content, through a link.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|_| b"(no file)".to_vec())
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    content: Vec<u8>,
    executable: bool,
    /// A link to this name beside it; then `content` is what it leads to.
    link: Option<PathBuf>,
}

/// The project's files, by path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Files(BTreeMap<PathBuf, File>);

impl Files {
    pub(crate) fn generate(rng: &mut Rng) -> Self {
        let mut files = Self::default();
        for name in NAMES {
            // Named by themselves, these two must be there.
            if rng.below(3) > 0 || ["a.txt", "b.txt", "e/s/z", "d/x.txt"].iter().any(|n| n.as_bytes() == name) {
                let content = format!("{}", rng.below(4)).into_bytes();
                files.0.insert(OsStr::from_bytes(name).into(), File { content, executable: false, link: None });
            }
        }
        files
    }

    pub(crate) fn read(root: &Path) -> Self {
        let mut files = Self::default();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(root.join(&dir)).expect("listed") {
                let entry = entry.expect("an entry");
                let path = dir.join(entry.file_name());
                if [".effai", "out", "effai.kdl", "more"].iter().any(|n| path == Path::new(n)) {
                    continue;
                }
                if entry.file_type().expect("known").is_dir() {
                    dirs.push(path);
                    continue;
                }
                let full = root.join(&path);
                let link = full.read_link().ok();
                let executable = full.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
                files.0.insert(path, File { content: content(&full), executable, link });
            }
        }
        files
    }

    /// Makes the directory hold just these, touching only what differs, as git does.
    pub(crate) fn write(&self, root: &Path) {
        let now = Self::read(root);
        for path in now.0.keys().filter(|p| !self.0.contains_key(*p)) {
            std::fs::remove_file(root.join(path)).expect("removed");
        }
        for (path, file) in self.0.iter().filter(|(p, f)| now.0.get(*p) != Some(*f)) {
            let full = root.join(path);
            let _ = std::fs::remove_file(&full);
            std::fs::create_dir_all(full.parent().expect("a parent")).expect("made");
            if let Some(target) = &file.link {
                std::os::unix::fs::symlink(target, &full).expect("linked");
                continue;
            }
            std::fs::write(&full, &file.content).expect("written");
            let mode = if file.executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode)).expect("set");
        }
    }
}

/// One edit, of any sort.
pub(crate) fn edit(rng: &mut Rng, root: &Path, graph: &mut Graph, branches: &mut Vec<(Graph, Files)>) {
    let file = root.join(OsStr::from_bytes(NAMES[rng.below(NAMES.len())]));
    let must_stay = ["a.txt", "b.txt", "d/x.txt", "e/s/z"].iter().any(|n| root.join(n) == file);
    match rng.below(19) {
        // Content, often with the same size and within the clock's tick of the last write.
        0..=3 => {
            let _ = std::fs::remove_file(&file).ok().filter(|()| rng.below(2) == 0);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            std::fs::write(&file, format!("{}", rng.below(4))).expect("written");
        }
        4 if file.exists() => {
            let same = content(&file);
            std::fs::write(&file, same).expect("touched");
        }
        5 if !must_stay => drop(std::fs::remove_file(&file)),
        6 if !must_stay && file.exists() => {
            let to = root.join(OsStr::from_bytes(rng.pick(&NAMES)));
            if to != file && to.parent().is_some_and(Path::exists) {
                std::fs::rename(&file, &to).expect("renamed");
            }
        }
        7 if file.is_file() && !file.is_symlink() => {
            let mode = if rng.below(2) == 0 { 0o755 } else { 0o644 };
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
        }
        8 if !must_stay && file.parent().is_some_and(Path::exists) => {
            let _ = std::fs::remove_file(&file);
            let target = if rng.below(3) == 0 { root.join("nowhere") } else { root.join("a.txt") };
            let up = "../".repeat(file.strip_prefix(root).expect("below").components().count() - 1);
            let target = PathBuf::from(up).join(target.file_name().expect("a name"));
            std::os::unix::fs::symlink(target, &file).expect("linked");
        }
        9 => {
            let i = rng.below(graph.targets.len());
            graph.targets[i].op = rng.pick(&OPS).into();
        }
        10 => {
            let i = rng.below(graph.targets.len());
            let target = &mut graph.targets[i];
            if target.needs.pop().is_none() && i > 0 {
                target.needs.push(format!("t/{}", rng.below(i)));
            }
        }
        11 => {
            let n = rng.below(4);
            if !graph.matrix.remove(&n) {
                graph.matrix.insert(n);
            }
        }
        12 => graph.comment += 1,
        14 => graph.split = rng.below(12),
        15 => {
            let i = rng.below(graph.targets.len());
            graph.targets[i].tag = !graph.targets[i].tag;
        }
        16 => {
            let i = rng.below(graph.targets.len());
            graph.targets[i].profile = Some(rng.pick(&OPS).into());
        }
        // Broken until some edit gives it another op.
        17 => {
            let i = rng.below(graph.targets.len());
            graph.targets[i].op = format!("fail-{i}");
        }
        13 => {
            let gone = [".effai", "out", ".effai/plan", ".effai/effai.db"][rng.below(4)];
            let gone = root.join(gone);
            let _ = if gone.is_dir() { std::fs::remove_dir_all(gone) } else { std::fs::remove_file(gone) };
        }
        _ => {
            branches.push((graph.clone(), Files::read(root)));
            let (other, files) = branches[rng.below(branches.len())].clone();
            *graph = other;
            files.write(root);
        }
    }
    graph.write(root);
}
