//! Ways to adapt a model: which of its weights are trained, and what they begin as.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::backend::arrays::Arrays;
use crate::backend::floats;
use crate::backend::rng::Rng;
use crate::backend::{Params, Tensor};
use crate::failure::Failure;
use crate::model::weights::MAGNITUDE;
use crate::recipe::glob;

/// How a model is adapted.
#[derive(Clone, Debug, Deserialize)]
pub struct Method {
    /// `lora`, `rslora`, `dora` or `full`.
    pub name: String,
    /// Of the updates.
    pub rank: usize,
    /// What the updates count by.
    pub alpha: f64,
    /// On the updates' input.
    pub dropout: f64,
}

impl Method {
    /// What the updates are multiplied by: alpha / rank; rank-stabilised (Kalajdzievski, 2023), alpha / sqrt(rank).
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.name == "rslora" { rank.sqrt() } else { rank }
    }

    /// Whether the rows of a matrix get magnitudes of their own.
    pub fn decomposes(&self) -> bool {
        self.name == "dora"
    }

    /// Whether the weights themselves are trained.
    pub fn is_full(&self) -> bool {
        self.name == "full"
    }

    /// What a model card calls it.
    pub fn title(&self) -> &'static str {
        if self.decomposes() { "DoRA" } else { "LoRA" }
    }
}

/// The matrices that the globs mean; a name without dots means all that end with it, as in PEFT.
pub fn targets(arrays: &Arrays, globs: &[String]) -> Result<Vec<String>, Failure> {
    const NOT_ADAPTED: &[&str] = &["embed", "lm_head", "_projection.", "_fc", "pooler"];
    let matrices: Vec<&str> = arrays
        .iter()
        .filter(|(_, a)| matches!(a.shape[..], [_, _] | [_, _, 1, 1]))
        .filter_map(|(n, _)| n.strip_suffix(".weight"))
        .filter(|n| !NOT_ADAPTED.iter().any(|part| n.contains(part)))
        .collect();
    matching(&matrices, globs, "matrix")
}

/// The weights of a model that the globs mean, by the names of their modules; all that it computes with where there are
/// none. `used` says whether a module is computed with.
pub fn whole(arrays: &Arrays, used: &dyn Fn(&str) -> bool, globs: Option<&[String]>) -> Result<Vec<String>, Failure> {
    let module = |name: &str| -> Option<String> {
        let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
        used(module).then(|| module.to_owned())
    };
    let modules: BTreeSet<String> = arrays.keys().filter_map(|name| module(name)).collect();
    let chosen: BTreeSet<String> = match globs {
        None => modules,
        Some(globs) => {
            let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
            matching(&modules, globs, "module")?.into_iter().collect()
        }
    };
    Ok(arrays.keys().filter(|name| module(name).is_some_and(|m| chosen.contains(&m))).cloned().collect())
}

fn matching(all: &[&str], globs: &[String], what: &str) -> Result<Vec<String>, Failure> {
    let mut found = BTreeSet::new();
    for pattern in globs {
        let before = found.len();
        if glob::is_glob(pattern) || pattern.contains('.') || pattern.contains('/') {
            let matcher = glob::compile(pattern).map_err(|e| Failure::user(e.to_string()))?;
            found.extend(all.iter().filter(|n| matcher.is_match(n)).map(|n| (*n).to_owned()));
        } else {
            let ends = |name: &str| name.rsplit('.').next() == Some(pattern);
            found.extend(all.iter().filter(|n| ends(n)).map(|n| (*n).to_owned()));
        }
        if found.len() == before {
            let lasts: BTreeSet<&str> = all.iter().filter_map(|n| n.rsplit('.').next()).collect();
            let some: Vec<&str> = all.iter().step_by((all.len() / 4).max(1)).copied().collect();
            let names = if lasts.len() <= 16 { lasts.into_iter().collect() } else { some.clone() };
            return Err(Failure::user(format!("`target-modules` \"{pattern}\" matches no {what} of the base"))
                .help(format!("there are: {}; whole names such as {}", names.join(", "), some.join(", "))));
        }
    }
    Ok(found.into_iter().collect())
}

/// A as PEFT begins it (Kaiming-uniform with a = sqrt(5): +-1/sqrt(in)), B zero; in DoRA the rows' own lengths.
pub fn begin<T: Tensor>(modules: &[String], arrays: &Arrays, method: &Method, seed: u64) -> Result<Params<T>, Failure> {
    let rank = method.rank;
    let mut params = Params::new();
    for module in modules {
        let weight = &arrays[&format!("{module}.weight")];
        let (out, inner) = (weight.shape[0], weight.shape[1]);
        if rank > out.min(inner) {
            return Err(Failure::user(format!(
                "the rank {rank} is larger than `{module}`, a matrix of {out} x {inner}"
            ))
            .help(format!("a rank of {} changes it in every way there is; 4 to 64 are usual", out.min(inner))));
        }
        let mut rng = Rng::new(seed, module);
        let bound = 1.0 / (inner as f32).sqrt();
        let a: Vec<f32> = (0..rank * inner).map(|_| rng.between(-bound, bound)).collect();
        params.insert(format!("{module}.lora_A.weight"), T::from_f32(&a, &[rank, inner])?);
        params.insert(format!("{module}.lora_B.weight"), T::from_f32(&vec![0.0; out * rank], &[out, rank])?);
        if method.decomposes() {
            params.insert(
                format!("{module}.{MAGNITUDE}"),
                T::from_f32(&floats::lengths(&weight.expanded(), inner), &[out])?,
            );
        }
    }
    Ok(params)
}

/// The weights as they are.
pub fn begin_whole<T: Tensor>(names: &[String], arrays: &Arrays) -> Result<Params<T>, Failure> {
    names.iter().map(|name| Ok((name.clone(), T::from_f32(&arrays[name].expanded(), &arrays[name].shape)?))).collect()
}
