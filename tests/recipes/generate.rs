//! Random recipes: KDL of every shape with comments between everything, and texts that are no KDL.

use crate::engine::graphs::Rng;

/// A recipe of known kinds and unknown ones, right and wrong, laid out as nobody would.
pub(crate) fn recipe(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.below(6) {
        text += &between(rng);
        node(rng, 0, &mut text);
        text += rng.pick(&["\n", "\n\n\n", ";", " ; \n", " // end }\n", "\r\n", ";\n"]);
    }
    text
}

fn node(rng: &mut Rng, depth: usize, text: &mut String) {
    if rng.below(12) == 0 {
        *text += rng.pick(&["/-", "/- ", "/-\n", "/-/* x */ "]);
    }
    *text += rng.pick(&NAMES);
    for _ in 0..rng.below(4) {
        *text += &space(rng);
        if rng.below(14) == 0 {
            *text += "/-";
        }
        if rng.below(3) == 0 {
            *text += rng.pick(&["key", "\"quoted key\"", "from", "seed"]);
            *text += rng.pick(&["=", " = ", "= "]);
        } else if rng.below(12) == 0 {
            *text += "(u8)";
        }
        *text += rng.pick(&VALUES);
    }
    if depth < 4 && rng.below(2) == 0 {
        *text += rng.pick(&[" ", "  ", "\t"]);
        if rng.below(16) == 0 {
            *text += "/-";
        }
        *text += "{";
        let lines = rng.below(2) == 0;
        for _ in 0..rng.below(4) {
            *text += &if lines { between(rng) } else { " ".into() };
            node(rng, depth + 1, text);
            *text += if lines { rng.pick(&["\n", ";\n", " // c\n", "; ", ";"]) } else { rng.pick(&["; ", ";", " ; "]) };
        }
        *text += "}";
    }
}

const NAMES: [&str; 16] = [
    "command", "model", "dataset", "run", "output", "input", "needs", "tags", "matrix", "profile", "\"a b\"", "é",
    "n-1", "default", "include", "train",
];

const VALUES: [&str; 20] = [
    "1",
    "-2.5e3",
    "0x1F",
    "1_000",
    "#true",
    "#null",
    "#inf",
    "\"\"",
    "\"models/x\"",
    "\"a \\\" { // ;\"",
    "bare",
    "#\"raw \" \\\"#",
    "##\"a\"#b\"##",
    "\"\"\"\n  lines {\n    // no comment\n  \"\"\"",
    "#\"\"\"\n x\"\"\n \"\"\"#",
    "\"é \\u{1F600}\"",
    "\"{n}\"",
    "\"tail \\\n   joined\"",
    "r",
    "\"*.kdl\"",
];

/// Between two words.
fn space(rng: &mut Rng) -> String {
    (*rng
        .pick(&[" ", " ", " ", "   ", "\t", " /* c */ ", " \\\n  ", " \\ // why\n", " /* a\n b */ ", "\u{a0}"])
        .to_owned())
    .to_owned()
}

/// Between two nodes.
fn between(rng: &mut Rng) -> String {
    let pieces = [
        "",
        "",
        "\n",
        "\n\n\n",
        "  ",
        "// a comment {\n",
        "   //b \n",
        "/* block\n  } */\n",
        "/* in */ ",
        "\r\n",
        "\\\n",
    ];
    (0..rng.below(3)).map(|_| rng.pick(&pieces)).collect()
}

/// A text with something done to it: cut, doubled, bytes changed.
pub(crate) fn damaged(rng: &mut Rng, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, *b"{").for_each(drop),
            2 => bytes.splice(at..at, [b"}\"#\\=/*;()\0\xff"[rng.below(12)]]).for_each(drop),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}
