//! Reads `uv.lock`: which version of each package it pins, and where; and what two of them pin differently.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::Document;

/// A version that a lock pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The package, as the lock names it.
    pub package: String,
    /// The version.
    pub version: String,
    /// Where the version stands, counted from 1.
    pub line: usize,
}

/// A package that two locks pin to different versions: all places, by the number of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The package.
    pub package: String,
    /// The number of a lock, and what it pins.
    pub pins: Vec<(usize, Pin)>,
}

/// What a lock pins. Packages of the project's own files are not among it.
pub fn pins(text: &str) -> Result<Vec<Pin>, String> {
    let document = Document::parse(text).map_err(|e| {
        let at = e.span().map_or(String::new(), |span| format!("line {}: ", line_of(text, span.start)));
        format!("{at}{}", e.message().trim_end())
    })?;
    let Some(packages) = document.get("package").and_then(|item| item.as_array_of_tables()) else {
        return Ok(Vec::new());
    };
    let mut pins = Vec::new();
    for table in packages.iter() {
        let source = table.get("source").and_then(|item| item.as_table_like());
        let is_own =
            source.is_some_and(|source| ["editable", "virtual", "directory"].iter().any(|s| source.contains_key(s)));
        let text_of = |name: &str| table.get(name).and_then(|item| item.as_str()).map(str::to_owned);
        let (Some(package), Some(version)) = (text_of("name"), text_of("version")) else { continue };
        if is_own {
            continue;
        }
        let at = table.get("version").and_then(|item| item.span()).map_or(0, |span| span.start);
        pins.push(Pin { package, version, line: line_of(text, at) });
    }
    Ok(pins)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Packages of which two locks have no version in common. A lock may pin several, each for some platforms.
pub fn collisions(locks: &[Vec<Pin>]) -> Vec<Collision> {
    let mut packages: BTreeMap<&str, Vec<(usize, &Pin)>> = BTreeMap::new();
    for (i, pins) in locks.iter().enumerate() {
        pins.iter().for_each(|pin| packages.entry(&pin.package).or_default().push((i, pin)));
    }
    let collide = |pins: &Vec<(usize, &Pin)>| {
        let mut versions: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for (lock, pin) in pins {
            versions.entry(*lock).or_default().insert(&pin.version);
        }
        let sets: Vec<&BTreeSet<&str>> = versions.values().collect();
        sets.iter().enumerate().any(|(i, set)| sets[i + 1..].iter().any(|other| set.is_disjoint(other)))
    };
    packages
        .into_iter()
        .filter(|(_, pins)| collide(pins))
        .map(|(package, pins)| Collision {
            package: package.to_owned(),
            pins: pins.into_iter().map(|(lock, pin)| (lock, pin.clone())).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(pins: &[(&str, &str)]) -> String {
        let packages = pins.iter().map(|(name, version)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = {{ registry = \"x\" }}\n\n")
        });
        format!("version = 1\nrequires-python = \">=3.10\"\n\n{}", packages.collect::<String>())
    }

    fn read(text: &[(&str, &str)]) -> Vec<Pin> {
        pins(&lock(text)).expect("a lock")
    }

    #[test]
    fn pins_have_the_line_of_their_version() {
        let pin = |package: &str, version: &str, line| Pin { package: package.into(), version: version.into(), line };
        assert_eq!(read(&[("a", "1"), ("b", "2")]), [pin("a", "1", 6), pin("b", "2", 11)]);
        let own = "[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { virtual = \".\" }\n";
        assert_eq!(pins(own).expect("a lock"), []);
        assert_eq!(pins("version = 1\n").expect("a lock"), []);
        assert!(pins("version = 1\nx\n").expect_err("no TOML").starts_with("line 2: "));
    }

    #[test]
    fn locks_collide_where_they_have_no_version_in_common() {
        let check = |locks: &[&[(&str, &str)]], expected: &[&str]| {
            let locks: Vec<Vec<Pin>> = locks.iter().map(|lock| read(lock)).collect();
            let found = collisions(&locks);
            assert_eq!(found.iter().map(|c| c.package.as_str()).collect::<Vec<_>>(), expected);
        };
        check(&[], &[]);
        check(&[&[("a", "1"), ("b", "1")], &[("a", "1"), ("c", "2")]], &[]);
        check(&[&[("a", "1"), ("b", "1")], &[("a", "2"), ("b", "1")]], &["a"]);
        check(&[&[("a", "1")], &[("a", "1"), ("a", "2")]], &[]);
        check(&[&[("a", "1")], &[("a", "1")], &[("a", "3")]], &["a"]);
    }
}
