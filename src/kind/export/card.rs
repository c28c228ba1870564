//! What an export says of itself: in the file's metadata, and as a card beside it.

use std::collections::BTreeMap;
use std::path::Path;

use super::check::Held;
use super::{About, Fields, Labels};
use crate::export::format::{AUTHOR, DESCRIPTION, Format, LABEL, LABELS, LICENSE, PREPROCESSING, VERSION};
use crate::export::source::{BATCH, PAST, Part, Pixels, SEQUENCE, Source};
use crate::export::verify::Allowed;
use crate::export::written::Written;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::format::image::Colours;
use crate::kind::ActionCx;
use crate::model::{Checkpoint, GGUF, zero_shot};
use crate::util::fs;

/// Labels that a card has; all are beside it.
const SHOWN: usize = 100;

/// What goes in and comes out, for people.
pub(super) fn signature(format: Format, part: Part, source: &Source) -> String {
    if let Some(state) = source.state() {
        let kept: Vec<String> = state.kept.iter().map(|kept| format!("`{}` {:?}", kept.name, kept.shape)).collect();
        return format!(
            "In: `inputIds` [1, sequence] and `{}` [1, 1, sequence, past + sequence] in 16 bits: 0 where a token sees another, minus infinity where it does not. State: {}, in 16 bits. Out: `logits` [1, sequence, vocabulary].\n\n",
            state.scores,
            kept.join(" and ")
        );
    }
    let size = |symbol: &str| source.size(symbol).map_or(symbol.to_owned(), |number| number.to_string());
    let (batch, sequence) = (size(BATCH), size(SEQUENCE));
    let inputs = match part {
        Part::Text => format!("`input_ids` and `attention_mask` [{batch}, {sequence}]"),
        Part::Picture => {
            let [_, a, b, c] = source.given_pictures(1);
            let becomes = match source.preprocessing().filter(|_| source.has_passes()) {
                Some(own) => format!(", which become {0} x {0} pixels in the file", own.size),
                None => String::new(),
            };
            match (source.pixels(), format) {
                (Pixels::Prepared, _) => format!("`pixel_values` [{batch}, {a}, {b}, {c}]"),
                (Pixels::Uint8, Format::CoreMl { .. }) => {
                    format!("`pixel_values`, a picture of {b} x {c} pixels in red, green and blue{becomes}")
                }
                (Pixels::Uint8, _) => {
                    format!("`pixel_values` [{batch}, {a}, {b}, {c}], red, green and blue in 8 bits each{becomes}")
                }
            }
        }
        Part::Language => format!(
            "`input_ids` [{batch}, {sequence}], `attention_mask` [{batch}, {} + {sequence}] and the keys and values of what was read before",
            size(PAST)
        ),
    };
    let named =
        |names: &[&str]| names.iter().map(|name| format!("`{}`", format.names(name))).collect::<Vec<_>>().join(" and ");
    let inputs = match (part, format.least_past()) {
        (Part::Language, 0) => {
            format!("{inputs}, {}", named(&["past_key_values.LAYER.key", "past_key_values.LAYER.value"]))
        }
        (Part::Language, least) => format!(
            "{inputs}, {}: {least} position at least, masked before a prompt",
            named(&["past_key_values.LAYER.key", "past_key_values.LAYER.value"])
        ),
        _ => inputs,
    };
    let outputs = match (part, source.labels(), format) {
        (Part::Language, ..) => {
            format!(
                "`logits` and the keys and values after it, {}",
                named(&["present.LAYER.key", "present.LAYER.value"])
            )
        }
        (_, [], _) => format!("`{}`", source.outputs().join("`, `")),
        (_, labels, Format::CoreMl { .. }) => {
            format!(
                "`classLabel`, the likeliest label, and `classLabel_probs`, the probability of each of {}",
                labels.len()
            )
        }
        (_, labels, _) => format!("`probabilities` [{batch}, {}], of the labels in their order", labels.len()),
    };
    format!("In: {inputs}. Out: {outputs}.\n\n")
}

/// The labels with what each was told by, for people; nothing where there are none.
fn told(fields: &Fields) -> String {
    let Some(Labels { names, prompt }) = &fields.labels else { return String::new() };
    let plain = |text: &str| text.replace('|', "\\|");
    let rows = names.iter().take(SHOWN).enumerate().map(|(at, name)| {
        let texts = prompt.iter().map(|prompt| plain(&zero_shot::filled(prompt, name)));
        format!("| {at} | {} | {} |\n", plain(name), texts.collect::<Vec<_>>().join("; "))
    });
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\nand {more} more, in `labels.txt`.\n") } else { String::new() };
    format!("| | label | told by |\n|---|---|---|\n{}{more}\n", rows.collect::<String>())
}

pub(super) fn card(
    cx: &ActionCx<'_>,
    fields: &Fields,
    signature: &str,
    held: &Option<Held>,
    written: &Written,
) -> Result<(), Failure> {
    let format = fields.format.format();
    let said = fields.about.as_ref().and_then(|about| about.license.clone());
    let licence = said.or_else(|| Card::read(cx.input(&fields.from.model)).field(&["license"]));
    let adapter = fields.from.adapter.as_ref().map(|a| format!(" with `{a}` merged")).unwrap_or_default();
    let checked = match held {
        None => "It was not held against the model.".to_owned(),
        Some(Held { found, allowed, program, .. }) => {
            let (own, Allowed { relative, cosine }) = (found.json(), allowed);
            format!(
                "Held against the model by {program}: it differs by {most} of the largest value at most ({relative:e} is allowed), and the cosine of a row is {least} at least ({cosine}).",
                most = own["max_relative_error"],
                least = own["cosine"],
            )
        }
    };
    let text = format!(
        "---\nlibrary_name: {library}\nbase_model: {from}\n{licence}---\n\n# {label}\n\n`{from}`{adapter} as {title}, {precision}, {size:.1} MB.\n\n{signature}{told}{checked}\n",
        from = fields.from.model,
        label = cx.decl.label,
        library = format.library(),
        licence = licence.map(|licence| format!("license: {licence}\n")).unwrap_or_default(),
        title = format.title(),
        precision = fields.format.precision,
        told = told(fields),
        size = written.bytes() as f64 / 1e6,
    );
    Ok(fs::write(&cx.out().join("README.md"), text.as_bytes())?)
}

/// What the file says of itself: where it is from, and how what it is given is prepared. Nothing that another run would
/// say otherwise.
pub(super) fn metadata(
    cx: &ActionCx<'_>,
    fields: &Fields,
    part: Part,
    base: &Path,
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, String)>, Failure> {
    let mut all = vec![
        (LABEL.to_owned(), cx.decl.label.to_string()),
        ("effai.source".to_owned(), fields.from.model.clone()),
        ("effai.part".to_owned(), part.name().to_owned()),
    ];
    if let Some(adapter) = &fields.from.adapter {
        all.push(("effai.adapter".to_owned(), adapter.clone()));
    }
    if let Some(digest) = weights_of(base)? {
        all.push(("effai.weights".to_owned(), digest));
    }
    if let Some(adapter) = &fields.from.adapter
        && let Some(digest) = weights_of(cx.input(adapter))?
    {
        all.push(("effai.adapter-weights".to_owned(), digest));
    }
    let (card, nothing) = (Card::read(base), About::default());
    let about = fields.about.as_ref().unwrap_or(&nothing);
    for (key, said, written) in [
        (AUTHOR, &about.author, card.field(&["author", "authors"])),
        (LICENSE, &about.license, card.field(&["license"])),
        (VERSION, &about.version, card.field(&["version", "model_version"])),
        (DESCRIPTION, &about.description, card.paragraph.clone()),
    ] {
        all.extend(said.clone().or(written).map(|value| (key.to_owned(), value)));
    }
    if part == Part::Picture
        && let Some(mut preprocessing) = checkpoint.preprocessing
    {
        // What is left to do.
        if fields.pixels() == Some(Pixels::Uint8) {
            (preprocessing.mean, preprocessing.std) = (Colours::All(0.0), Colours::All(1.0));
        }
        all.push((PREPROCESSING.to_owned(), serde_json::to_string(&preprocessing).expect("plain")));
    }
    if !fields.labels().is_empty() {
        all.push((LABELS.to_owned(), serde_json::to_string(fields.labels()).expect("plain")));
    }
    Ok(all)
}

/// The digest of the file of a model's or an adapter's weights, by which it can be told from another of its name.
fn weights_of(dir: &Path) -> Result<Option<String>, Failure> {
    let names = ["model.safetensors", GGUF, "adapter_model.safetensors"];
    let Some(path) = names.iter().map(|name| dir.join(name)).find(|path| path.exists()) else { return Ok(None) };
    let (digest, _) = fs::at("hash", &path, Digest::of_file(&path))?;
    Ok(Some(format!("blake3:{digest}")))
}

/// A model's card, as far as a file repeats it.
#[derive(Default)]
struct Card {
    front: BTreeMap<String, String>,
    /// The first of the text.
    paragraph: Option<String>,
}

impl Card {
    /// Of the model in a directory; nothing where it has none.
    fn read(dir: &Path) -> Self {
        fs::read_text(&dir.join("README.md")).map_or_else(|_| Self::default(), |text| Self::of(&text))
    }

    /// Of its text: plain values and lists of them at the top of its front matter, and the first lines that are no title.
    fn of(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let parted = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---"));
        let (front, body) = parted.unwrap_or(("", &text));
        let plain = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last = None;
        for line in front.lines() {
            if let (Some(entry), Some(key)) = (line.trim_start().strip_prefix("- "), &last) {
                let list: &mut String = fields.entry(String::clone(key)).or_default();
                list.push_str(if list.is_empty() { "" } else { ", " });
                list.push_str(&plain(entry));
            } else if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '#'])) {
                let value = value.trim();
                let list = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                let value = match list {
                    Some(list) => list.split(',').map(plain).collect::<Vec<_>>().join(", "),
                    None => plain(value),
                };
                last = value.is_empty().then(|| key.to_owned());
                fields.insert(key.to_owned(), value);
            } else {
                last = None;
            }
        }
        fields.retain(|_, value| !value.is_empty());
        let is_text = |line: &&str| !line.trim().is_empty() && !line.starts_with(['#', '<', '!', '[', '|']);
        let lines = body.trim_start_matches('-').lines().skip_while(|line| !is_text(line)).take_while(is_text);
        let paragraph = lines.map(str::trim).collect::<Vec<_>>().join(" ");
        Self { front: fields, paragraph: Some(paragraph).filter(|text| !text.is_empty()) }
    }

    /// The first of some fields that it has.
    fn field(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.front.get(*name)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_read_as_far_as_a_file_repeats_it() {
        let card = Card::of(
            "---\nlicense: apache-2.0\nauthors:\n- A. Maker\n- \"B. Maker\"\ntags: [vision, 'small']\nmodel-index:\n  - name: x\nversion: \"2.1\"\n---\n\n# A title\n\n![a picture](x.png)\n\nFirst of\nthe text.\n\nMore of it.\n",
        );
        assert_eq!(card.field(&["license"]).as_deref(), Some("apache-2.0"));
        assert_eq!(card.field(&["author", "authors"]).as_deref(), Some("A. Maker, B. Maker"));
        assert_eq!(card.field(&["tags"]).as_deref(), Some("vision, small"));
        assert_eq!(card.field(&["model_version", "version"]).as_deref(), Some("2.1"));
        assert_eq!(card.paragraph.as_deref(), Some("First of the text."));
        let card = Card::of("# Only a title\n");
        assert!(card.front.is_empty() && card.paragraph.is_none());
    }
}
