//! Members of packages: `.tgz` and other tar archives, `.zip` and `.whl`, `.deb`.
//!
//! The layout is told from the first bytes, not from the name. Members come in the archive's order (tar,
//! deb) or the directory's (zip), streamed: nothing is unpacked that was not asked for. Names are plain
//! relative paths, a leading `./` taken off; one that would leave the directory it is unpacked to is an
//! error wherever it is met. Links and devices are passed over.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::util::fs::{self, FsError};

/// A member read into memory is at most this long.
const MEMBER_BYTES_MAX: u64 = 4 << 30;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The layout is not known.
    #[error("{} is no archive that is read here: .tgz, .tar, .tar.xz, .tar.zst, .zip, .whl or .deb", path.display())]
    Unknown {
        /// The archive.
        path: PathBuf,
    },
    /// Its bytes are damaged or cut short.
    #[error("{} is damaged or cut short: {source}", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What the decoder said.
        source: io::Error,
    },
    /// A member's name leaves the archive.
    #[error("{} has a member `{name}`, which would be written outside of its directory", path.display())]
    Traversal {
        /// The archive.
        path: PathBuf,
        /// The name as found.
        name: String,
    },
    /// There is no such member.
    #[error("{} has no member `{name}`", path.display())]
    Missing {
        /// The archive.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// Some of what there is.
        nearest: Option<String>,
    },
    /// A member is too large to be read into memory.
    #[error("member `{name}` of {} has {size} bytes, more than the {MEMBER_BYTES_MAX} that are read", path.display())]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// The member.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let failure = Failure::target(error.to_string());
        match error {
            ArchiveError::Fs(error) => error.into(),
            ArchiveError::Damaged { .. } => failure.help("fetch it again, and compare its sha256"),
            ArchiveError::Missing { nearest: Some(nearest), .. } => failure.help(format!("did you mean `{nearest}`?")),
            ArchiveError::Missing { .. } => {
                failure.help("paths are those of the archive's own listing, e.g. `tar -tf FILE`")
            }
            _ => failure,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Coding {
    None,
    Gzip,
    Xz,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Tar(Coding),
    Zip,
    Deb,
}

/// An archive on disk.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
    layout: Layout,
}

impl Archive {
    /// Looks at a file's first bytes; none if it is not an archive.
    pub fn recognise(path: &Path) -> Result<Option<Self>, ArchiveError> {
        let mut head = Vec::new();
        fs::at("read", path, fs::open(path)?.take(512).read_to_end(&mut head))?;
        let layout = match coding_of(&head) {
            Coding::None if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") => Layout::Zip,
            Coding::None if head.starts_with(b"!<arch>\ndebian-binary") => Layout::Deb,
            Coding::None if head.get(257..262) == Some(b"ustar") => Layout::Tar(Coding::None),
            Coding::None => return Ok(None),
            // A compressed file that is not a tar, `train-images-idx3-ubyte.gz`, is no archive.
            coding => {
                let mut block = Vec::new();
                let tar = decoder(BufReader::new(fs::open(path)?), coding)
                    .and_then(|d| d.take(512).read_to_end(&mut block))
                    .is_ok_and(|_| block.get(257..262) == Some(b"ustar"));
                if !tar && !block.is_empty() {
                    return Ok(None);
                }
                Layout::Tar(coding)
            }
        };
        Ok(Some(Self { path: path.to_owned(), layout }))
    }

    /// Opens an archive.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        Self::recognise(path)?.ok_or_else(|| ArchiveError::Unknown { path: path.to_owned() })
    }

    /// Gives each regular member that is wanted to `take`: its name, its size in bytes and its content.
    pub fn each<E: From<ArchiveError>>(
        &self,
        mut want: impl FnMut(&str) -> bool,
        mut take: impl FnMut(&str, u64, &mut dyn Read) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        match self.layout {
            Layout::Zip => self.each_of_zip(&mut want, &mut take),
            Layout::Tar(coding) => {
                let file = BufReader::new(fs::open(&self.path).map_err(ArchiveError::from)?);
                let stream = decoder(file, coding).map_err(|e| self.damaged(e))?;
                self.each_of_tar(stream, &mut want, &mut take)
            }
            Layout::Deb => {
                let file = BufReader::new(fs::open(&self.path).map_err(ArchiveError::from)?);
                let mut outer = ar::Archive::new(file);
                while let Some(entry) = outer.next_entry() {
                    let entry = entry.map_err(|e| self.damaged(e))?;
                    let coding = match entry.header().identifier() {
                        b"data.tar" => Coding::None,
                        b"data.tar.gz" => Coding::Gzip,
                        b"data.tar.xz" => Coding::Xz,
                        b"data.tar.zst" => Coding::Zstd,
                        _ => continue,
                    };
                    let stream = decoder(BufReader::new(entry), coding).map_err(|e| self.damaged(e))?;
                    return self.each_of_tar(stream, &mut want, &mut take);
                }
                Err(self.damaged(io::Error::other("a Debian package without data.tar")).into())
            }
        }
    }

    /// The names of all regular members.
    pub fn names(&self) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        let note = |name: &str| {
            names.push(name.to_owned());
            false
        };
        self.each(note, |_, _, _| Ok::<_, ArchiveError>(ControlFlow::Continue(())))?;
        Ok(names)
    }

    /// One member's content.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut found = None;
        let mut names = Vec::new();
        let want = |member: &str| {
            names.push(member.to_owned());
            member == name
        };
        self.each(want, |_, size, content| {
            found = Some(self.content(name, size, content)?);
            Ok::<_, ArchiveError>(ControlFlow::Break(()))
        })?;
        found.ok_or_else(|| self.missing(name, names.iter().map(String::as_str)))
    }

    /// Reads a member's stream into memory, bounded.
    pub fn content(&self, name: &str, size: u64, content: &mut dyn Read) -> Result<Vec<u8>, ArchiveError> {
        if size > MEMBER_BYTES_MAX {
            return Err(ArchiveError::TooLarge { path: self.path.clone(), name: name.into(), size });
        }
        let mut bytes = Vec::new();
        content.take(MEMBER_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| self.damaged(e))?;
        Ok(bytes)
    }

    /// Unpacks one member into a file.
    pub fn extract(&self, name: &str, to: &Path) -> Result<(), ArchiveError> {
        let mut names = Vec::new();
        let mut found = false;
        let want = |member: &str| {
            names.push(member.to_owned());
            member == name
        };
        self.each(want, |_, _, content| {
            found = true;
            self.copy(content, to)?;
            Ok::<_, ArchiveError>(ControlFlow::Break(()))
        })?;
        if found { Ok(()) } else { Err(self.missing(name, names.iter().map(String::as_str))) }
    }

    /// Unpacks the wanted members below a directory, under their own names; says which.
    pub fn extract_all(&self, want: impl FnMut(&str) -> bool, to: &Path) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        self.each(want, |name, _, content| {
            self.copy(content, &to.join(name))?;
            names.push(name.to_owned());
            Ok::<_, ArchiveError>(ControlFlow::Continue(()))
        })?;
        Ok(names)
    }

    /// The error of a member that is not there, with the nearest name there is.
    pub fn missing<'a>(&self, name: &str, names: impl IntoIterator<Item = &'a str>) -> ArchiveError {
        let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let names: Vec<&str> = names.into_iter().collect();
        let same_file = names.iter().find(|n| file(n) == file(name)).copied();
        // The distance is worth its time on small listings only.
        let near =
            || (names.len() < 5_000).then(|| crate::recipe::mistake::nearest(name, names.iter().copied())).flatten();
        let nearest = same_file.or_else(near).map(str::to_owned);
        ArchiveError::Missing { path: self.path.clone(), name: name.into(), nearest }
    }

    /// The archive's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn copy(&self, content: &mut dyn Read, to: &Path) -> Result<(), ArchiveError> {
        let mut file = fs::create(to)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = content.read(&mut buffer).map_err(|e| self.damaged(e))?;
            if n == 0 {
                return Ok(());
            }
            fs::at("write", to, file.write_all(&buffer[..n]))?;
        }
    }

    fn each_of_zip<E: From<ArchiveError>>(&self, want: Want<'_>, take: Take<'_, E>) -> Result<(), E> {
        let file: BufReader<File> = BufReader::new(fs::open(&self.path).map_err(ArchiveError::from)?);
        let mut archive = zip::ZipArchive::new(file).map_err(|e| self.damaged(io::Error::other(e)))?;
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).map_err(|e| self.damaged(io::Error::other(e)))?;
            if !entry.is_file() {
                continue;
            }
            let raw = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let name = self.plain(&raw)?;
            if !want(&name) {
                continue;
            }
            let size = entry.size();
            if take(&name, size, &mut entry)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn each_of_tar<E: From<ArchiveError>>(
        &self,
        stream: impl Read,
        want: Want<'_>,
        take: Take<'_, E>,
    ) -> Result<(), E> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(|e| self.damaged(e))? {
            let mut entry = entry.map_err(|e| self.damaged(e))?;
            if !matches!(
                entry.header().entry_type(),
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse
            ) {
                continue;
            }
            let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = self.plain(&raw)?;
            if !want(&name) {
                continue;
            }
            let size = entry.size();
            if take(&name, size, &mut entry)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A member's name as a relative path that stays where it is put.
    fn plain(&self, raw: &str) -> Result<String, ArchiveError> {
        let name = raw.strip_prefix("./").unwrap_or(raw);
        let bad = name.is_empty()
            || name.starts_with('/')
            || name.contains(['\\', '\0'])
            || name.as_bytes().get(1) == Some(&b':')
            || name.split('/').any(|part| part == "..");
        if bad {
            return Err(ArchiveError::Traversal { path: self.path.clone(), name: raw.into() });
        }
        Ok(name.to_owned())
    }

    fn damaged(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Damaged { path: self.path.clone(), source }
    }
}

type Want<'w> = &'w mut dyn FnMut(&str) -> bool;
type Take<'t, E> = &'t mut dyn FnMut(&str, u64, &mut dyn Read) -> Result<ControlFlow<()>, E>;

fn coding_of(head: &[u8]) -> Coding {
    match head {
        [0x1f, 0x8b, ..] => Coding::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Coding::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Coding::Zstd,
        _ => Coding::None,
    }
}

fn decoder<'r>(stream: impl io::BufRead + 'r, coding: Coding) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match coding {
        Coding::None => Box::new(stream),
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Coding::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
    })
}

/// Packs files into a `.tgz`, for tests of what reads one.
#[cfg(test)]
pub(crate) fn pack_tgz(path: &Path, members: &[(&str, &[u8])]) {
    let gzip = flate2::write::GzEncoder::new(fs::create(path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, bytes) in members {
        append(&mut tar, name, bytes);
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[cfg(test)]
fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    // Written as bytes: `set_path` would refuse the names that the tests of traversal need.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, *&bytes).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: &[(&str, &[u8])] =
        &[("./package/a.json", b"[1]"), ("package/img/1.png", b"one"), ("package/img/2.png", b"two")];

    fn check(path: &Path) {
        let archive = Archive::open(path).unwrap();
        assert_eq!(archive.names().unwrap(), ["package/a.json", "package/img/1.png", "package/img/2.png"]);
        assert_eq!(archive.read("package/img/1.png").unwrap(), b"one");
        let to = tempfile::tempdir().unwrap();
        let glob = crate::recipe::glob::compile("package/img/*.png").unwrap();
        let names = archive.extract_all(|n| glob.is_match(n), to.path()).unwrap();
        assert_eq!(names, ["package/img/1.png", "package/img/2.png"]);
        assert_eq!(fs::read(&to.path().join("package/img/2.png")).unwrap(), b"two");
        archive.extract("package/a.json", &to.path().join("here.json")).unwrap();
        assert_eq!(fs::read(&to.path().join("here.json")).unwrap(), b"[1]");
        let failure = Failure::from(archive.read("img/2.png").unwrap_err());
        assert!(failure.message.ends_with("has no member `img/2.png`"), "{failure}");
        assert_eq!(failure.help.as_deref(), Some("did you mean `package/img/2.png`?"));
    }

    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        MEMBERS.iter().for_each(|(name, bytes)| append(&mut tar, name, bytes));
        tar.into_inner().unwrap()
    }

    #[test]
    fn every_layout_gives_the_same_members() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        pack_tgz(&at("a.tgz"), MEMBERS);
        check(&at("a.tgz"));
        fs::write(&at("a.tar"), &tar()).unwrap();
        check(&at("a.tar"));

        let mut zip = zip::ZipWriter::new(fs::create(&at("a.whl")).unwrap());
        for (name, bytes) in MEMBERS {
            zip.start_file(name.trim_start_matches("./"), zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        check(&at("a.whl"));

        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar()).unwrap();
        let zst = zstd::encode_all(&tar()[..], 1).unwrap();
        for (name, data) in [("data.tar.xz", xz.finish().unwrap()), ("data.tar.zst", zst)] {
            let mut deb = ar::Builder::new(fs::create(&at("a.deb")).unwrap());
            let members: [(&str, &[u8]); 3] = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"?"), (name, &data)];
            for (name, bytes) in members {
                deb.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), bytes).unwrap();
            }
            drop(deb);
            check(&at("a.deb"));
        }
    }

    #[test]
    fn a_name_that_leaves_the_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../evil", "a/../../evil", "/etc/passwd", "C:evil", "a\\..\\evil"] {
            let path = dir.path().join("a.tgz");
            pack_tgz(&path, &[(name, b"x")]);
            let error = Archive::open(&path).unwrap().extract_all(|_| true, dir.path()).unwrap_err();
            assert!(matches!(error, ArchiveError::Traversal { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_cut_archive_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tgz");
        pack_tgz(&path, MEMBERS);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Archive::open(&path).unwrap().names().unwrap_err().to_string();
        assert!(error.contains("damaged or cut short"), "{error}");
        fs::write(&path, b"plain text").unwrap();
        assert!(matches!(Archive::open(&path), Err(ArchiveError::Unknown { .. })));
    }
}
