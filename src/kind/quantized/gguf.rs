//! GGUF: llama.cpp's blocks, in one file.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Fields, Weighed, check_finite, relative_error};
use crate::backend::blocks::Blocks;
use crate::backend::gguf::{self as file, Stored, StoredValues, expand};
use crate::failure::Failure;
use crate::kind::ActionCx;
use crate::model::{self, Checkpoint, Config, copy_companions, gguf};
use crate::util::{fs, text};

/// Writes a language model in blocks of this form; matrices whose rows are no whole blocks in another, which is told.
pub(super) fn write(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    checkpoint: Checkpoint,
    base: &Path,
    form: Blocks,
    stays: &dyn Fn(&str) -> bool,
) -> Result<(), Failure> {
    let Config::Llama(config) = &checkpoint.config else {
        return Err(Failure::user(format!("{} is not a language model", fields.from.model))
            .help("GGUF files are written of architecture \"llama\"; take the method `rtn` for others"));
    };
    let facts = gguf::facts_of(base, config, &cx.decl.label.to_string())?;
    let mut weights = Weighed::default();
    let (mut stored, mut others) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let total = checkpoint.arrays.len() as u64;
    for (i, (name, array)) in checkpoint.arrays.iter().enumerate() {
        cx.progress("quantize", i as u64 + 1, total, "tensors");
        let Some((theirs, array)) = gguf::outward(name, array, config) else { continue };
        weights.all += array.floats().len();
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let inner = array.shape.get(1).copied().unwrap_or(0);
        let (wanted, taken) = gguf::form_of(module, inner, form, config);
        let taken = taken.filter(|_| array.shape.len() == 2 && !stays(module));
        let Some(taken) = taken else {
            stored.push(Stored {
                name: theirs,
                shape: array.shape.clone(),
                values: StoredValues::F32(array.floats().to_vec()),
            });
            continue;
        };
        check_finite(name, &array)?;
        if taken != wanted {
            *others.entry(taken.name()).or_default() += 1;
        }
        let bytes = taken.round(array.floats(), inner);
        cx.metric(
            &format!("error.{module}"),
            relative_error(array.floats(), &expand(taken, &bytes, array.floats().len())?),
        );
        weights.packed += array.floats().len();
        stored.push(Stored { name: theirs, shape: array.shape.clone(), values: StoredValues::Blocks(taken, bytes) });
    }
    for (name, count) in &others {
        let what = format!(
            "{} {} {name}, with rows that are no multiple of the 256 weights of a K-quant's block",
            text::count(*count, "tensor"),
            if *count == 1 { "is" } else { "are" }
        );
        cx.warning(what, None);
    }
    let out = cx.out().to_owned();
    fs::write(&out.join(model::GGUF), &file::write(&facts, &stored)?)?;
    let config = serde_json::to_string_pretty(&checkpoint.config).expect("plain data");
    fs::write(&out.join("config.json"), config.as_bytes())?;
    copy_companions(base, &out)?;
    weights.conclude(cx, fields, model::GGUF, "gguf", &format!("in blocks of {}", form.name()))
}
