//! Reads `uv.lock`: which version of each package it pins, and where; what two of them pin differently; and what lies in
//! files of its own machine.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{ArrayOfTables, Document, Item, Table};

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

/// Where a package lies that is in files of the machine.
const OWN: [&str; 4] = ["editable", "virtual", "directory", "path"];

/// What a lock pins. Packages in files of the machine, the project's own among them, are not part of it.
pub fn pins(text: &str) -> Result<Vec<Pin>, String> {
    let document = parse(text)?;
    let pin = |table: &Table| {
        let version = table.get("version")?;
        let line = line_of(text, version.span().map_or(0, |span| span.start));
        Some(Pin { package: name(table)?.to_owned(), version: version.as_str()?.to_owned(), line })
    };
    Ok(packages(&document).filter(|table| own(table).is_none()).filter_map(pin).collect())
}

/// Packages in files of the machine, besides the project itself.
pub fn local(text: &str) -> Result<Vec<String>, String> {
    let document = parse(text)?;
    let others = packages(&document).filter(|table| own(table).is_some_and(|place| place != "."));
    Ok(others.filter_map(|table| name(table).map(str::to_owned)).collect())
}

fn parse(text: &str) -> Result<Document<&str>, String> {
    Document::parse(text).map_err(|e| {
        let at = e.span().map_or(String::new(), |span| format!("line {}: ", line_of(text, span.start)));
        format!("{at}{}", e.message().trim_end())
    })
}

fn packages<'a>(document: &'a Document<&str>) -> impl Iterator<Item = &'a Table> {
    document.get("package").and_then(Item::as_array_of_tables).into_iter().flat_map(ArrayOfTables::iter)
}

fn name(table: &Table) -> Option<&str> {
    table.get("name")?.as_str()
}

/// The place of a package in files of the machine; none of one from elsewhere.
fn own(table: &Table) -> Option<&str> {
    let source = table.get("source")?.as_table_like()?;
    OWN.iter().find_map(|form| source.get(form)?.as_str())
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
        assert_eq!(local(own).expect("a lock"), [""; 0]);
        let beside = own.replace("virtual = \".\"", "editable = \"../lib\"");
        assert_eq!((pins(&beside).expect("a lock"), local(&beside).expect("a lock")), (vec![], vec!["app".to_owned()]));
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
