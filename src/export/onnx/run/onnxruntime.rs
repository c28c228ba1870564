//! Files run by onnxruntime: <https://onnxruntime.ai/docs/api/c/>.
//!
//! Its library is that of the package `onnxruntime` in an `environment`, and is loaded when it is asked for. A process has
//! one of it; each action has a process of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};
use prost::Message;

use crate::export::engine::{Engine, Value, packages};
use crate::export::onnx::{DATA, FILE, proto};
use crate::export::source::Values;
use crate::export::written::{Array, Written};
use crate::failure::Failure;
use crate::util::fs;

/// A file that onnxruntime runs.
pub(in crate::export) struct Onnxruntime {
    /// It may not be run twice at once.
    session: RefCell<Session>,
    version: String,
}

impl Onnxruntime {
    /// Of what was written, by the library of an environment; `is_whole` makes an output of every tensor that the file names.
    pub(in crate::export) fn new(written: &Written, is_whole: bool, environment: &Path) -> Result<Self, Failure> {
        let version = load(environment)?;
        let refused = |e: String| refused(&version, &e);
        let mut bytes = written.file(FILE).expect("an ONNX model has it").to_vec();
        if is_whole {
            bytes = whole(&bytes).map_err(|e| refused(e.to_string()))?;
        }
        let mut builder = Session::builder().map_err(|e| refused(e.to_string()))?;
        if is_whole {
            let level = GraphOptimizationLevel::Disable;
            builder = builder.with_optimization_level(level).map_err(|e| refused(e.to_string()))?;
        }
        if let Some(data) = written.file(DATA) {
            let file = builder.with_external_initializer_file_in_memory(DATA, data.to_vec().into());
            builder = file.map_err(|e| refused(e.to_string()))?;
        }
        let session = builder.commit_from_memory(&bytes).map_err(|e| refused(e.to_string()))?;
        Ok(Self { session: RefCell::new(session), version })
    }

    /// Of an artifact, on so many threads.
    pub(in crate::export) fn open(dir: &Path, environment: &Path, threads: usize) -> Result<Self, Failure> {
        let version = load(environment)?;
        let open = || -> Result<Session, String> {
            let builder = Session::builder().map_err(|e| e.to_string())?;
            let mut builder = builder.with_intra_threads(threads).map_err(|e| e.to_string())?;
            builder.commit_from_file(dir.join(FILE)).map_err(|e| e.to_string())
        };
        let session = open().map_err(|e| refused(&version, &e))?;
        Ok(Self { session: RefCell::new(session), version })
    }

    /// The library of an environment, with its version.
    pub(in crate::export) fn program(environment: &Path) -> Result<String, Failure> {
        Ok(format!("onnxruntime {}", library(environment)?.1))
    }

    fn refused(&self, error: &str) -> Failure {
        refused(&self.version, error)
    }
}

fn refused(version: &str, error: &str) -> Failure {
    // Each line would be one of the log.
    let error = error.lines().next().unwrap_or_default();
    Failure::target(format!("onnxruntime {version} does not run the exported file: {error}"))
        .help("export it in another precision or opset; leave `environment` out to have rten run it")
}

/// Loads the library of an environment; says its version.
fn load(environment: &Path) -> Result<String, Failure> {
    let (library, version) = library(environment)?;
    let loaded = ort::init_from(&library).map_err(|e| {
        Failure::environment(format!("onnxruntime of the environment cannot be loaded: {e}"))
            .help("effai runs onnxruntime 1.18 and later")
    })?;
    // What a model is, and how often it runs, is nobody else's.
    loaded.with_telemetry(false).commit();
    Ok(version)
}

/// The library in an environment, and the version that is in its name: `libonnxruntime.so.1.20.1`, on macOS
/// `libonnxruntime.1.20.1.dylib`.
fn library(environment: &Path) -> Result<(PathBuf, String), Failure> {
    let places = packages(environment)?.into_iter().map(|packages| packages.join("onnxruntime/capi"));
    for place in places.filter(|place| place.exists()) {
        for path in fs::list(&place)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(rest) = name.strip_prefix("libonnxruntime.") {
                let version = rest.trim_start_matches("so.").trim_end_matches(".dylib").to_owned();
                return Ok((path, version));
            }
        }
    }
    Err(Failure::user("the environment has no package `onnxruntime`")
        .help("add it to the project of the environment: `uv add onnxruntime`"))
}

/// The same model, all of whose tensors are outputs.
fn whole(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut model = proto::Model::decode(bytes)?;
    if let Some(graph) = &mut model.graph {
        let named = graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
        let own = |name: &&String| graph.output.iter().all(|output| output.name != **name);
        let more: Vec<_> =
            named.filter(own).map(|name| proto::ValueInfo { name: name.clone(), r#type: None }).collect();
        graph.output.extend(more);
    }
    Ok(model.encode_to_vec())
}

fn of_name<'a>(all: &'a [Outlet], name: &str) -> Option<&'a ValueType> {
    all.iter().find(|one| one.name() == name).map(Outlet::dtype)
}

impl Engine for Onnxruntime {
    fn name(&self) -> String {
        format!("onnxruntime {}", self.version)
    }

    fn has(&self, tensor: &str) -> bool {
        of_name(self.session.borrow().outputs(), tensor).is_some()
    }

    fn length(&self, input: &str, axis: usize) -> Option<usize> {
        match of_name(self.session.borrow().inputs(), input)? {
            ValueType::Tensor { shape, .. } => shape.get(axis).and_then(|length| usize::try_from(*length).ok()),
            _ => None,
        }
    }

    fn run(&self, inputs: Vec<(&str, Value)>, outputs: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut session = self.session.borrow_mut();
        let mut given = Vec::with_capacity(inputs.len());
        for (name, value) in inputs {
            let is_long =
                matches!(of_name(session.inputs(), name), Some(ValueType::Tensor { ty: TensorElementType::Int64, .. }));
            given.push((name.to_owned(), held(value, is_long).map_err(|e| self.refused(&e))?));
        }
        let mut values = session.run(given).map_err(|e| self.refused(&e.to_string()))?;
        let taken = outputs.iter().map(|name| {
            values.remove(*name).map(Value::Onnxruntime).ok_or_else(|| self.refused(&format!("it has no `{name}`")))
        });
        taken.collect()
    }
}

fn held(value: Value, is_long: bool) -> Result<DynValue, String> {
    let of = match value {
        Value::Onnxruntime(value) => return Ok(value),
        Value::Given(shape, Values::Floats(values)) => Tensor::from_array((shape, values)).map(Tensor::into_dyn),
        Value::Given(shape, Values::Bytes(values)) => Tensor::from_array((shape, values)).map(Tensor::into_dyn),
        Value::Given(shape, Values::Integers(values)) if is_long => {
            let values: Vec<i64> = values.into_iter().map(i64::from).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
        Value::Given(shape, Values::Integers(values)) => Tensor::from_array((shape, values)).map(Tensor::into_dyn),
        Value::Rten(_) | Value::LiteRt(_) => return Err("it was given a tensor of another program".into()),
    };
    of.map_err(|e| e.to_string())
}

/// The length of each axis, and the last `count` values, all where that is 0; none of what is no tensor of floats.
pub(in crate::export) fn floats(value: &DynValue, count: usize) -> Option<Array> {
    fn last<V: Copy>(values: &[V], count: usize) -> &[V] {
        if count == 0 { values } else { &values[values.len().saturating_sub(count)..] }
    }
    let lengths = |shape: &ort::value::Shape| shape.iter().map(|length| *length as usize).collect();
    if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        return Some((lengths(shape), last(values, count).to_vec()));
    }
    let (shape, values) = value.try_extract_tensor::<half::f16>().ok()?;
    Some((lengths(shape), last(values, count).iter().map(|value| value.to_f32()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_of_an_environment_is_found_and_says_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let capi = dir.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        let said = library(dir.path()).unwrap_err();
        assert!(said.to_string().contains("no package `onnxruntime`"), "{said}");
        for (name, version) in [("libonnxruntime.so.1.20.1", "1.20.1"), ("libonnxruntime.1.22.0.dylib", "1.22.0")] {
            fs::write(&capi.join("libonnxruntime_providers_shared.so"), b"").unwrap();
            fs::write(&capi.join(name), b"").unwrap();
            assert_eq!(library(dir.path()).unwrap(), (capi.join(name), version.to_owned()));
            fs::remove_file(&capi.join(name)).unwrap();
        }
    }

    #[test]
    fn what_is_no_library_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let capi = dir.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        fs::write(&capi.join("libonnxruntime.so.1.20.1"), b"no library").unwrap();
        let said = load(dir.path()).unwrap_err().to_string();
        assert!(said.starts_with("onnxruntime of the environment cannot be loaded"), "{said}");
    }
}
