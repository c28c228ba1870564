//! effai's side of `benches/run ml`: prepares one piece of work, then does it once for each line it is sent.
//!
//! ```text
//! ml-worker WORK DIR     WORK is lora, qlora, mlp, clip, minilm, minilm-int8, chat, matvec-BITS or round-FORM; DIR holds
//!                        what all sides read
//! ```
//!
//! It answers `ready`, and for each line a number by which the sides are held against each other.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use effai::backend::affine::{self, Form};
use effai::backend::arrays::{Array, Values};
use effai::backend::blocks::Blocks;
use effai::backend::gemm::Then;
use effai::backend::int8::{Bytes, Int8};
use effai::backend::qmatrix::Groups;
use effai::backend::{CandleTensor, Params, Tensor, Texts};
use effai::model::generate::{Options, generate};
use effai::model::weights::Weights;
use effai::model::{Checkpoint, Config, Model, quantized};
use effai::train::contrastive::info_nce;
use effai::train::language::{Language, token_losses};
use effai::train::optim::AdamW;
use effai::train::text::Example;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Step = Box<dyn FnMut() -> Result<f64, Box<dyn Error>>>;

/// Rank, and alpha twice that; learning rate.
const RANK: usize = 8;
const RATE: f64 = 1e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [work, dir] = &args[..] else { return Err("ml-worker WORK DIR".into()) };
    let dir = Path::new(dir);
    let mut step = match work.as_str() {
        "lora" => lora(dir)?,
        "qlora" => qlora(dir)?,
        "mlp" => mlp(dir)?,
        "clip" => clip(dir)?,
        "minilm" => minilm(dir)?,
        "minilm-int8" => minilm_int8(dir)?,
        "chat" => chat(dir)?,
        "matvec-4" => product(dir, 4)?,
        "matvec-8" => product(dir, 8)?,
        "round-affine4" => rounded(dir, |values| affine::round(values, SIDE, &Form::new(4, 64)).1)?,
        other if let Some(form) = other.strip_prefix("round-").and_then(Blocks::by_name) => {
            rounded(dir, move |values| form.round(values, SIDE).len() as f64)?
        }
        _ => return Err(format!("no work is called {work}").into()),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", step()?)?;
        out.flush()?;
    }
    Ok(())
}

fn numbers(path: &Path) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    Ok(serde_json::from_slice(&effai::util::fs::read(path)?)?)
}

/// The same as [`lora`], on matrices of 4 bits in groups of 64.
fn qlora(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let mut checkpoint = Checkpoint::open(dir, None)?;
    for (name, array) in &mut checkpoint.arrays {
        let &[rows, inner] = &array.shape[..] else { continue };
        if name.contains("_proj.") {
            let packed = quantized::pack(array.floats(), inner, &Form::new(4, 64));
            let Values::U32(words) = &packed.weight.values else { unreachable!("words") };
            let codes: Vec<u8> = words.iter().flat_map(|w| (0..8).map(move |i| (w >> (4 * i) & 15) as u8)).collect();
            let [scales, biases] = [&packed.scales, &packed.biases].map(|a| a.floats().to_vec());
            *array = Array::codes(Groups::new(rows, inner, 64, 4, &codes, scales, biases));
        }
    }
    steps(&checkpoint, dir)
}

/// A step of LoRA on the queries and values of a Llama: `ids.json` is the batch.
fn lora(dir: &Path) -> Result<Step, Box<dyn Error>> {
    steps(&Checkpoint::open(dir, None)?, dir)
}

fn steps(checkpoint: &Checkpoint, dir: &Path) -> Result<Step, Box<dyn Error>> {
    let Config::Llama(config) = checkpoint.config.clone() else { return Err("no language model".into()) };
    let mut params = Params::new();
    for (name, array) in &checkpoint.arrays {
        let Some(module) = name.strip_suffix(".weight").filter(|m| m.ends_with("q_proj") || m.ends_with("v_proj"))
        else {
            continue;
        };
        let (out, inner) = (array.shape[0], array.shape[1]);
        let a: Vec<f32> = (0..RANK * inner).map(|i| 0.05 * (i as f32 * 0.7).sin()).collect();
        params.insert(format!("{module}.lora_A.weight"), CandleTensor::from_f32(&a, &[RANK, inner])?);
        params.insert(format!("{module}.lora_B.weight"), CandleTensor::from_f32(&vec![0.0; out * RANK], &[out, RANK])?);
    }
    let mut weights = Weights::<CandleTensor>::new(&checkpoint.arrays)?;
    let batch: Vec<Example> = numbers(&dir.join("ids.json"))?
        .into_iter()
        .map(|ids| Example { counts: (0..ids.len()).map(|i| i > 0).collect(), ids })
        .collect();
    let mut adam = AdamW::new(0.9, 0.999, 0.0);
    Ok(Box::new(move || {
        let refs: Vec<&Example> = batch.iter().collect();
        let count: usize = refs.iter().map(|e| e.targets()).sum();
        let (loss, grads) = CandleTensor::value_and_grad(&params, &mut |p| {
            weights.put(p, 2.0, None);
            token_losses(&weights, &config, &refs, false)?.sum_all()?.affine(1.0 / count as f64, 0.0)
        })?;
        adam.step(&mut params, &grads, RATE)?;
        Ok(f64::from(loss))
    }))
}

/// A step of two matrices on 256 rows of 512, into 10 classes.
fn mlp(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let arrays = effai::format::tensors::read(&dir.join("mlp.safetensors"))?;
    let tensor = |name: &str| CandleTensor::from_f32(arrays[name].floats(), &arrays[name].shape);
    let mut params: Params<CandleTensor> = ["w1", "b1", "w2", "b2"]
        .into_iter()
        .map(|n| Ok((n.to_owned(), tensor(n)?)))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let (x, one_hot) = (tensor("x")?, tensor("one_hot")?);
    let mut adam = AdamW::new(0.9, 0.999, 0.0);
    Ok(Box::new(move || {
        let rows = x.shape()[0] as f64;
        let (loss, grads) = CandleTensor::value_and_grad(&params, &mut |p| {
            let y = x.linear(&p["w1"], Some(&p["b1"]))?.gelu()?.linear(&p["w2"], Some(&p["b2"]))?;
            y.log_softmax()?.mul(&one_hot)?.sum_all()?.affine(-1.0 / rows, 0.0)
        })?;
        adam.step(&mut params, &grads, RATE)?;
        Ok(f64::from(loss))
    }))
}

/// A step of all weights of a CLIP model: each picture's text is its own.
fn clip(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let checkpoint = Checkpoint::open(dir, None)?;
    let pixels = effai::format::tensors::read(&dir.join("pixels.safetensors"))?.remove("pixels").ok_or("no pixels")?;
    let pixels = CandleTensor::from_f32(pixels.floats(), &pixels.shape)?;
    let ids = numbers(&dir.join("ids.json"))?;
    let of: Vec<usize> = (0..ids.len()).collect();
    let mut params: Params<CandleTensor> = checkpoint
        .arrays
        .iter()
        .map(|(name, array)| Ok((name.clone(), CandleTensor::from_f32(array.floats(), &array.shape)?)))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let mut model = Model::<CandleTensor>::new(&checkpoint)?;
    let midway = model.tower()?.prefix(&model.weights, &pixels, 0)?;
    let mut adam = AdamW::new(0.9, 0.999, 0.0);
    Ok(Box::new(move || {
        let (loss, grads) = CandleTensor::value_and_grad(&params, &mut |p| {
            model.weights.put(p, 1.0, None);
            let tower = model.tower().expect("a picture tower");
            let pictures = model.project_pictures(tower.tail(&model.weights, midway.clone(), 0)?, None)?;
            info_nce(
                &pictures,
                &model.text_batch(&Texts::new(&ids), None)?,
                &of,
                &of,
                model.weights.get("logit_scale")?,
            )
        })?;
        adam.step(&mut params, &grads, RATE)?;
        Ok(f64::from(loss))
    }))
}

/// 64 sentences of 64 tokens through the encoder.
fn minilm(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let model = Model::<CandleTensor>::new(&Checkpoint::open(dir, None)?)?;
    let ids = numbers(&dir.join("ids.json"))?;
    Ok(Box::new(move || {
        let values = model.text_batch(&Texts::new(&ids), None)?.to_f32()?;
        Ok(values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len() as f64)
    }))
}

/// The same with matrices of bytes, inputs rounded as they come.
fn minilm_int8(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let mut checkpoint = Checkpoint::open(dir, None)?;
    for (name, array) in &mut checkpoint.arrays {
        if let &[_, inner] = &array.shape[..]
            && !name.contains("embeddings.")
        {
            *array = Array::codes(Bytes::new(Int8::round(array.floats(), inner).0));
        }
    }
    let model = Model::<CandleTensor>::new(&checkpoint)?;
    let ids = numbers(&dir.join("ids.json"))?;
    Ok(Box::new(move || {
        let values = model.text_batch(&Texts::new(&ids), None)?.to_f32()?;
        Ok(values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len() as f64)
    }))
}

/// Rows and columns of the matrix that is rounded and multiplied by.
const SIDE: usize = 4096;

fn square(dir: &Path, name: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut arrays = effai::format::tensors::read(&dir.join("square.safetensors"))?;
    Ok(arrays.remove(name).ok_or("no such tensor")?.floats().to_vec())
}

fn rounded(dir: &Path, round: impl Fn(&[f32]) -> f64 + 'static) -> Result<Step, Box<dyn Error>> {
    let values = square(dir, "square")?;
    Ok(Box::new(move || Ok(round(&values))))
}

/// A vector by the matrix in codes of `bits` in groups of 64.
fn product(dir: &Path, bits: usize) -> Result<Step, Box<dyn Error>> {
    let (values, x) = (square(dir, "square")?, square(dir, "x")?);
    let (made, _) = affine::round(&values, SIDE, &Form::new(bits, 64));
    let codes = affine::codes(&made.words, bits);
    let matrix = Groups::new(SIDE, SIDE, 64, bits, &codes, made.scales, made.biases);
    Ok(Box::new(move || {
        let y = matrix.product(&x, Then::Nothing);
        Ok(y.iter().map(|v| f64::from(v.abs())).sum::<f64>() / y.len() as f64)
    }))
}

/// A prompt of so many tokens, then 64 more: the number of those.
fn chat(dir: &Path) -> Result<Step, Box<dyn Error>> {
    let (language, _) = Language::<CandleTensor>::open(dir, None, "the model")?;
    let prompt = numbers(&dir.join("ids.json"))?.remove(0);
    Ok(Box::new(move || {
        let options = Options { max_tokens: 64, ..Options::default() };
        Ok(generate(&language.model, &prompt, &options, &mut |_| {})?.tokens.len() as f64)
    }))
}
