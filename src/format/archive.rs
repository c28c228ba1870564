//! Members of the archives that package managers hand out: .tgz, .whl and .zip, .deb.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Component, Path};

use crate::failure::Failure;
use crate::util::fs;

/// Reads the members that `wanted` asks for into memory, by path. Paths that would leave the archive are refused.
pub fn read_members(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = fs::open(path)?;
    let bad = |error: std::io::Error| {
        Failure::target(format!("the archive {name} cannot be read: {error}"))
            .help("fetch it again with `effai build -f`")
    };
    let mut members = BTreeMap::new();
    if name.ends_with(".tgz") || name.ends_with(".tar.gz") {
        read_tar(flate2::read::GzDecoder::new(std::io::BufReader::new(file)), wanted, &mut members).map_err(bad)?;
    } else if name.ends_with(".whl") || name.ends_with(".zip") {
        read_zip(file, wanted, &mut members).map_err(bad)?;
    } else if name.ends_with(".deb") {
        read_deb(file, wanted, &mut members).map_err(bad)?;
    } else {
        return Err(Failure::target(format!("`{name}` is not an archive effai reads"))
            .help("it reads .tgz, .tar.gz, .whl, .zip and .deb"));
    }
    Ok(members)
}

fn safe(path: &str) -> bool {
    Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

fn read_tar(
    reader: impl Read,
    wanted: &dyn Fn(&str) -> bool,
    members: &mut BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() && safe(&path) && wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            members.insert(path, bytes);
        }
    }
    Ok(())
}

fn read_zip(
    file: std::fs::File,
    wanted: &dyn Fn(&str) -> bool,
    members: &mut BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut archive = zip::ZipArchive::new(file)?;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        let path = entry.name().map_err(std::io::Error::other)?.into_owned();
        if entry.is_file() && safe(&path) && wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            members.insert(path, bytes);
        }
    }
    Ok(())
}

fn read_deb(
    file: std::fs::File,
    wanted: &dyn Fn(&str) -> bool,
    members: &mut BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut archive = ar::Archive::new(file);
    while let Some(entry) = archive.next_entry() {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        match name.strip_prefix("data.tar") {
            Some(".xz") => return read_tar(liblzma::read::XzDecoder::new(entry), wanted, members),
            Some(".gz") => return read_tar(flate2::read::GzDecoder::new(entry), wanted, members),
            Some(".zst") => return read_tar(zstd::Decoder::new(entry)?, wanted, members),
            Some("") => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                return read_tar(Cursor::new(bytes), wanted, members);
            }
            _ => {}
        }
    }
    Err(std::io::Error::other("it has no data.tar"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_debian_package_is_read_however_it_is_compressed() {
        let text: Vec<u8> = (0..50_000).flat_map(|n: u32| (n % 977).to_le_bytes()).collect();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, "./usr/share/a.txt", &*text).expect("written");
        let tar = tar.into_inner().expect("finished");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&tar).expect("written");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&tar).expect("written");
        let zst = zstd::encode_all(&*tar, 19).expect("written");
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, data) in [
            ("data.tar.gz", gz.finish().expect("finished")),
            ("data.tar.xz", xz.finish().expect("finished")),
            ("data.tar.zst", zst),
            ("data.tar", tar),
        ] {
            let path = dir.path().join(format!("{name}.deb"));
            let mut deb = ar::Builder::new(fs::create(&path).expect("created"));
            for (name, bytes) in [("debian-binary", b"2.0\n".as_slice()), (name, &data)] {
                let header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
                deb.append(&header, bytes).expect("written");
            }
            drop(deb);
            let members = read_members(&path, &|path| path.ends_with(".txt")).expect("read");
            assert!(members["usr/share/a.txt"] == text, "{name}");
        }
    }
}
