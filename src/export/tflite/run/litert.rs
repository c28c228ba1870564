//! Files run by LiteRT: <https://ai.google.dev/edge/litert>.
//!
//! Its library is that of the package `ai-edge-litert` in an `environment`, and is loaded when it is asked for. What is called of its
//! C API (<https://github.com/google-ai-edge/LiteRT>, `litert/c/`) is declared in `litert/api.rs`, as the versions in [`KNOWN`] have
//! it; any other is refused, since functions have been given more arguments over time.
//!
//! What goes in is resized to what comes (`LiteRtCompiledModelResizeInputTensor`), never to nothing: LiteRT takes no length of 0, so
//! a language model's prompt comes after [`LEAST_PAST`] positions that are masked, which change nothing.
//!
//! What comes out is as large as it is: where shapes are computed in the file, LiteRT does not know them before it runs, and writes
//! then without asking how much room there is. So an output has room for the most that its open lengths can be ([`Most`]). That they
//! are no more is how effai writes files (`Source::inputs`, `Source::outputs`), and others are none that an artifact has.

#![expect(unsafe_code, reason = "a C library is called; each use says why it is sound")]

mod api;
mod lent;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

pub(in crate::export) use self::lent::Lent;

use self::api::{Api, Free, Handle, Layout, RANK_MAX, Setting, Status, TensorType};
use self::lent::product;
use crate::export::engine::{Engine, Value, packages};
use crate::export::tflite::FILE;
use crate::export::written::Written;
use crate::failure::Failure;
use crate::util::fs;

/// Positions that the caches of a language model hold at least.
pub(in crate::export) const LEAST_PAST: usize = 1;

/// From this version on, and before that one, functions and structs are as they are declared here: 2.1.6, 2.2.0 and 2.3.0 were
/// held against the Python package's own interpreter.
const KNOWN: [[u32; 3]; 2] = [[2, 1, 6], [2, 4, 0]];
/// The same for `uv add`.
const KNOWN_TEXT: &str = "ai-edge-litert>=2.1.6,<2.4";

/// The one signature that a file of effai's has.
const SIGNATURE: usize = 0;

/// A file that LiteRT runs. What is made of something comes before it: it is freed in this order.
pub(in crate::export) struct LiteRt {
    compiled: Owned,
    _options: Owned,
    _threads: Option<CString>,
    _model: Owned,
    /// What the model is read from, where that is no file.
    _bytes: Vec<u8>,
    _environment: Owned,
    api: Api,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    version: String,
}

/// An input or an output.
struct Port {
    name: String,
    element: c_int,
    /// None where it is open.
    lengths: Vec<Option<usize>>,
}

/// What LiteRT has made, and frees.
struct Owned {
    handle: Handle,
    free: Free,
}

impl Owned {
    fn new(free: Free, what: &str, make: impl FnOnce(*mut Handle) -> Status) -> Result<Self, String> {
        let mut handle = null_mut();
        done(what, make(&raw mut handle))?;
        Ok(Self { handle, free })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the function that made the handle gave it away, `free` is the one that belongs to it, and nobody else calls it.
        unsafe { (self.free)(self.handle) }
    }
}

fn done(what: &str, status: Status) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{what}: {}", api::status(status))) }
}

impl Port {
    /// What is given, as the file is given it.
    fn take(&self, value: Value) -> Result<Lent, String> {
        let lent = match value {
            Value::LiteRt(lent) => lent,
            Value::Given(shape, values) => Lent::new(shape, values)?,
            Value::Rten(_) | Value::Onnxruntime(_) => return Err("it was given a tensor of another program".into()),
        };
        let name = &self.name;
        if lent.element != self.element {
            return Err(format!("`{name}` consists of something else there"));
        }
        let fits = |(said, own): (&Option<usize>, &usize)| said.is_none_or(|said| said == *own);
        if lent.shape.len() != self.lengths.len() || !self.lengths.iter().zip(&lent.shape).all(fits) {
            return Err(format!("`{name}` is of another shape there than {:?}", lent.shape));
        }
        Ok(lent)
    }

    fn is_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// Its axes whose lengths are open.
    fn open(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().enumerate().filter(|(_, length)| length.is_none()).map(|(axis, _)| axis)
    }
}

/// What open lengths are at most, by those of what goes in: of a tensor's first axis, which is of texts or pictures, and of any
/// other, which is of tokens, with those before them or without.
#[derive(Default)]
struct Most([usize; 2]);

impl Most {
    fn see(&mut self, axis: usize, length: usize) {
        let own = &mut self.0[axis.min(1)];
        *own = length.max(*own);
    }

    /// Values that an output has at most; none of an output with a length that nothing says, or of more than there can be.
    fn room(&self, port: &Port) -> Option<usize> {
        let lengths = port.lengths.iter().enumerate().map(|(axis, length)| length.unwrap_or(self.0[axis.min(1)]));
        product(lengths).filter(|room| *room > 0)
    }
}

impl LiteRt {
    /// Of what was written, by the library of an environment.
    pub(in crate::export) fn new(written: &Written, environment: &Path) -> Result<Self, Failure> {
        let bytes = written.file(FILE).expect("a TensorFlow Lite model has it").to_vec();
        Self::of(Origin::Bytes(bytes), environment, None)
    }

    /// Of an artifact, on so many threads.
    pub(in crate::export) fn open(dir: &Path, environment: &Path, threads: usize) -> Result<Self, Failure> {
        Self::of(Origin::File(dir.join(FILE)), environment, Some(threads))
    }

    /// The library of an environment, with its version.
    pub(in crate::export) fn program(environment: &Path) -> Result<String, Failure> {
        Ok(format!("LiteRT {}", library(environment)?.1))
    }

    fn of(from: Origin, environment: &Path, threads: Option<usize>) -> Result<Self, Failure> {
        let (library, version) = library(environment)?;
        // SAFETY: the library is LiteRT's of a version whose functions are those that are declared.
        let api = unsafe { Api::load(&library) }.map_err(|e| {
            Failure::environment(format!("LiteRT of the environment cannot be loaded: {e}"))
                .help(format!("make the environment anew; effai runs {KNOWN_TEXT}"))
        })?;
        Self::with(api, from, threads, &version).map_err(|e| refused(&version, &e))
    }

    fn with(api: Api, from: Origin, threads: Option<usize>, version: &str) -> Result<Self, String> {
        let settings = [
            // No library of an accelerator is looked for.
            Setting::integer(api::AUTO_REGISTER_ACCELERATORS, api::CPU.into()),
            Setting::integer(api::MIN_LOGGER_SEVERITY, api::ERROR),
        ];
        // SAFETY: as many settings as are counted; none has a pointer.
        let environment = Owned::new(api.destroy_environment, "an environment", |to| unsafe {
            (api.create_environment)(settings.len() as c_int, settings.as_ptr(), to)
        })?;
        let env = environment.handle;
        let (bytes, model) = match from {
            Origin::File(path) => {
                let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
                // SAFETY: the environment lives as long as the model, and the path is one that ends.
                let make = |to| unsafe { (api.create_model_from_file)(env, path.as_ptr(), to) };
                (Vec::new(), Owned::new(api.destroy_model, "the file", make)?)
            }
            Origin::Bytes(bytes) => {
                // SAFETY: likewise, and the bytes are kept as long as the model, unchanged.
                let make = |to| unsafe { (api.create_model_from_buffer)(env, bytes.as_ptr().cast(), bytes.len(), to) };
                let model = Owned::new(api.destroy_model, "the file", make)?;
                (bytes, model)
            }
        };
        // SAFETY: it only makes something.
        let options = Owned::new(api.destroy_options, "options", |to| unsafe { (api.create_options)(to) })?;
        // SAFETY: the options were made just now.
        done("the processor", unsafe { (api.set_accelerators)(options.handle, api::CPU) })?;
        let threads = threads.map(|threads| CString::new(format!("num_threads = {threads}\n")).expect("no zero in it"));
        if let Some(text) = &threads {
            let mut own = null_mut();
            let payload = text.as_ptr().cast_mut().cast();
            // SAFETY: the text is kept as long as the options; it is read alone, and `leave` does nothing with it.
            let status =
                unsafe { (api.create_opaque_options)(api::CPU_OPTIONS.as_ptr(), payload, leave, &raw mut own) };
            done("threads", status)?;
            // SAFETY: what was made just now is the options' own from here on.
            done("threads", unsafe { (api.add_opaque_options)(options.handle, own) })?;
        }
        // SAFETY: all three live as long as what is made of them, and longer: see the order of the fields.
        let compiled = Owned::new(api.destroy_compiled_model, "a model of it", |to| unsafe {
            (api.create_compiled_model)(env, model.handle, options.handle, to)
        })?;
        let [inputs, outputs] = ports(&api, model.handle)?;
        if let Some(port) = outputs.iter().find(|port| port.element != api::FLOAT32) {
            return Err(format!("its output `{}` is no tensor of floats", port.name));
        }
        Ok(Self {
            compiled,
            _options: options,
            _threads: threads,
            _model: model,
            _bytes: bytes,
            _environment: environment,
            api,
            inputs,
            outputs,
            version: version.to_owned(),
        })
    }

    fn refused(&self, error: &str) -> Failure {
        refused(&self.version, error)
    }

    /// What goes in and comes out, one after the other as the signature has them.
    fn compute(&self, mut given: Vec<Lent>) -> Result<Vec<Lent>, String> {
        let (api, compiled) = (&self.api, self.compiled.handle);
        let mut most = Most::default();
        for (at, (port, lent)) in self.inputs.iter().zip(&given).enumerate() {
            if !port.is_open() {
                continue;
            }
            port.open().for_each(|axis| most.see(axis, lent.shape[axis]));
            let lengths = whole(&lent.shape)?;
            // SAFETY: the model is there, and as many lengths as are counted.
            let status = unsafe { (api.resize)(compiled, SIGNATURE, at, lengths.as_ptr(), lengths.len()) };
            done(&format!("`{}` of the shape {:?}", port.name, lent.shape), status)?;
        }
        // LiteRT takes no less room for an output than it had, before it is computed anew.
        let before = self.shapes()?;
        let mut made = Vec::with_capacity(self.outputs.len());
        for (port, before) in self.outputs.iter().zip(before) {
            let room = most.room(port).zip(product(before.into_iter())).map(|(room, before)| room.max(before));
            made.push(Lent::room(room.ok_or_else(|| format!("nothing says how large `{}` is", port.name))?));
        }
        let lend = |lent: &mut Vec<Lent>| lent.iter_mut().map(|lent| self.lend(lent)).collect::<Result<Vec<_>, _>>();
        let (lent_in, lent_out) = (lend(&mut given)?, lend(&mut made)?);
        let handle = |lent: &Option<Owned>| lent.as_ref().map_or(null_mut(), |lent| lent.handle);
        let mut handles_in: Vec<Handle> = lent_in.iter().map(handle).collect();
        let mut handles_out: Vec<Handle> = lent_out.iter().map(handle).collect();
        // SAFETY: the model is there and is run by one at a time, since what has it is no `Sync`; there are as many tensors as the
        // signature has; their memory is neither read nor moved here meanwhile; inputs have the shapes that they were resized to,
        // and outputs room for all that is written.
        let status = unsafe {
            (api.run)(
                compiled,
                SIGNATURE,
                handles_in.len(),
                handles_in.as_mut_ptr(),
                handles_out.len(),
                handles_out.as_mut_ptr(),
            )
        };
        done("a run", status)?;
        for (lent, shape) in made.iter_mut().zip(self.shapes()?) {
            let count = product(shape.iter().copied());
            assert!(count.is_some_and(|count| count <= lent.memory.count()), "an output {shape:?} past its room");
            lent.shape = shape;
        }
        Ok(made)
    }

    /// The shapes of what comes out, as they were last.
    fn shapes(&self) -> Result<Vec<Vec<usize>>, String> {
        let mut layouts = vec![Layout::default(); self.outputs.len()];
        let compiled = self.compiled.handle;
        // SAFETY: the model is there, and as many layouts as are counted.
        let status =
            unsafe { (self.api.output_layouts)(compiled, SIGNATURE, layouts.len(), layouts.as_mut_ptr(), false) };
        done("the shapes of its outputs", status)?;
        Ok(layouts.iter().map(|layout| layout.lengths().map(Option::unwrap_or_default).collect()).collect())
    }

    /// A tensor for LiteRT, which has its memory until it has run; none of no values, whose place stays empty.
    fn lend(&self, lent: &mut Lent) -> Result<Option<Owned>, String> {
        let kind = TensorType { element: lent.element, layout: Layout::of(&whole(&lent.shape)?) };
        let (bytes, memory) = (lent.bytes(), lent.memory.pointer());
        if bytes == 0 {
            return Ok(None);
        }
        // SAFETY: the type is read alone; the memory has so many bytes and lies as it has to; it is freed here, not there.
        let make = |to| unsafe { (self.api.create_buffer)(&raw const kind, memory, bytes, None, to) };
        Owned::new(self.api.destroy_buffer, "memory", make).map(Some)
    }
}

impl Engine for LiteRt {
    fn name(&self) -> String {
        format!("LiteRT {}", self.version)
    }

    fn has(&self, tensor: &str) -> bool {
        self.outputs.iter().any(|port| port.name == tensor)
    }

    /// Values on the way lie where others come to lie later.
    fn is_open_inside(&self) -> bool {
        false
    }

    fn length(&self, input: &str, axis: usize) -> Option<usize> {
        self.inputs.iter().find(|port| port.name == input)?.lengths.get(axis).copied()?
    }

    fn run(&self, mut inputs: Vec<(&str, Value)>, outputs: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut given = Vec::with_capacity(self.inputs.len());
        for port in &self.inputs {
            let at = inputs.iter().position(|(name, _)| *name == port.name);
            let at = at.ok_or_else(|| self.refused(&format!("it reads `{}`, which the model does not", port.name)))?;
            given.push(port.take(inputs.swap_remove(at).1).map_err(|e| self.refused(&e))?);
        }
        let made = self.compute(given).map_err(|e| self.refused(&e))?;
        let mut made: Vec<_> = self.outputs.iter().map(|port| &port.name[..]).zip(made).collect();
        let taken = outputs.iter().map(|name| {
            let at = made.iter().position(|(own, _)| own == name);
            let at = at.ok_or_else(|| self.refused(&format!("it has no `{name}`")))?;
            Ok(Value::LiteRt(made.swap_remove(at).1))
        });
        taken.collect()
    }
}

/// What a model is read from.
enum Origin {
    /// Whose pages are read when they are used.
    File(PathBuf),
    Bytes(Vec<u8>),
}

fn refused(version: &str, error: &str) -> Failure {
    Failure::target(format!("LiteRT {version} does not run the exported file: {error}")).help(
        "the log has what LiteRT says of it; leave `environment` out to have effai's own evaluator alone check the file",
    )
}

/// What is told to free a text that is not its own.
extern "C" fn leave(_: *mut c_void) {}

fn whole(shape: &[usize]) -> Result<Vec<c_int>, String> {
    if shape.len() > RANK_MAX {
        return Err(format!("a tensor {shape:?} has more axes than {RANK_MAX}"));
    }
    let lengths = shape.iter().map(|length| c_int::try_from(*length));
    lengths.collect::<Result<_, _>>().map_err(|_| format!("a tensor {shape:?} is too long"))
}

/// The inputs and the outputs of a model's signature.
fn ports(api: &Api, model: Handle) -> Result<[Vec<Port>; 2], String> {
    let mut count = 0;
    // SAFETY: the model is there.
    done("its signatures", unsafe { (api.count_signatures)(model, &raw mut count) })?;
    if count != 1 {
        return Err(format!("it has {count} signatures"));
    }
    let mut signature = null_mut();
    // SAFETY: likewise. The signature is the model's.
    done("its signature", unsafe { (api.signature)(model, SIGNATURE, &raw mut signature) })?;
    let of = |what: &str, count: api::Count, name: api::Name, tensor: api::Part| -> Result<Vec<Port>, String> {
        let mut ports = 0;
        // SAFETY: the signature is there as long as the model.
        done(what, unsafe { count(signature, &raw mut ports) })?;
        (0..ports).map(|at| port(api, what, (signature, at), name, tensor)).collect()
    };
    let inputs = of("its inputs", api.count_inputs, api.input_name, api.input_tensor)?;
    Ok([inputs, of("its outputs", api.count_outputs, api.output_name, api.output_tensor)?])
}

fn port(
    api: &Api,
    what: &str,
    (signature, at): (Handle, usize),
    name: api::Name,
    tensor: api::Part,
) -> Result<Port, String> {
    let (mut text, mut own): (*const c_char, Handle) = (null(), null_mut());
    let mut kind = TensorType::default();
    // SAFETY: the signature is there and has so many of them.
    done(what, unsafe { name(signature, at, &raw mut text) })?;
    // SAFETY: likewise.
    done(what, unsafe { tensor(signature, at, &raw mut own) })?;
    // SAFETY: the tensor is the model's.
    done(what, unsafe { (api.tensor_type)(own, &raw mut kind) })?;
    // SAFETY: the text is the model's, and ends; it is copied before the model goes.
    let name = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    Ok(Port { name, element: kind.element, lengths: kind.layout.lengths().collect() })
}

/// The library in an environment, and the version of its package.
fn library(environment: &Path) -> Result<(PathBuf, String), Failure> {
    let names = ["libLiteRt.so", "libLiteRt.dylib"];
    for packages in packages(environment)? {
        let within = packages.join("ai_edge_litert");
        let Some(library) = names.iter().map(|name| within.join(name)).find(|path| path.exists()) else { continue };
        let mut versions = fs::list(&packages)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(name.strip_prefix("ai_edge_litert-")?.strip_suffix(".dist-info")?.to_owned())
        });
        let version = versions.next().unwrap_or_default();
        if !is_known(&version) {
            let what = format!("the environment has ai-edge-litert {version}, whose functions effai does not know");
            return Err(Failure::user(what)
                .help(format!("take another into the project of the environment: `uv add \"{KNOWN_TEXT}\"`")));
        }
        return Ok((library, version));
    }
    Err(Failure::user("the environment has no package `ai-edge-litert` with the library of LiteRT")
        .help(format!("add it to the project of the environment: `uv add \"{KNOWN_TEXT}\"`")))
}

/// Whether its functions and structs are those that are declared.
fn is_known(version: &str) -> bool {
    let numbers: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    let [first, beyond] = &KNOWN;
    numbers.is_ok_and(|numbers| numbers.len() == 3 && numbers[..] >= first[..] && numbers[..] < beyond[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::source::Values;

    fn packages_of(version: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let packages = dir.path().join("lib/python3.11/site-packages");
        fs::create_dir_all(&packages.join("ai_edge_litert")).unwrap();
        fs::create_dir_all(&packages.join(format!("ai_edge_litert-{version}.dist-info"))).unwrap();
        fs::write(&packages.join("ai_edge_litert/libLiteRt.so"), b"no library").unwrap();
        dir
    }

    #[test]
    fn versions_whose_functions_are_declared_are_known() {
        for (version, known) in [
            ("2.1.6", true),
            ("2.2.0", true),
            ("2.3.0", true),
            ("2.3.11", true),
            ("2.1.5", false),
            ("2.4.0", false),
            ("3.0.0", false),
            ("2.3", false),
            ("2.3.0rc1", false),
            ("", false),
        ] {
            assert_eq!(is_known(version), known, "{version}");
        }
    }

    #[test]
    fn the_library_of_an_environment_is_found_by_its_package() {
        let dir = packages_of("2.3.0");
        let (path, version) = library(dir.path()).unwrap();
        assert!(path.ends_with("ai_edge_litert/libLiteRt.so") && version == "2.3.0", "{}", path.display());
        assert_eq!(LiteRt::program(dir.path()).unwrap(), "LiteRT 2.3.0");
        let said = library(packages_of("2.4.0").path()).unwrap_err();
        assert!(said.message.contains("ai-edge-litert 2.4.0, whose functions effai does not know"), "{said}");
        assert!(said.help.is_some_and(|help| help.contains("uv add \"ai-edge-litert>=2.1.6,<2.4\"")));
        let said = library(tempfile::tempdir().unwrap().path()).unwrap_err();
        assert!(said.message.contains("no package `ai-edge-litert`"), "{said}");
    }

    #[test]
    fn what_is_no_library_is_an_error_that_says_so() {
        let dir = packages_of("2.3.0");
        let said = LiteRt::open(Path::new("x"), dir.path(), 1).map(|_| ()).unwrap_err();
        assert!(said.message.starts_with("LiteRT of the environment cannot be loaded"), "{said}");
    }

    #[test]
    fn what_is_given_fits_what_the_file_says() {
        let port = Port { name: "x".into(), element: api::FLOAT32, lengths: vec![None, Some(2)] };
        let given = |shape: &[usize]| {
            let count = shape.iter().product();
            port.take(Value::Given(shape.to_vec(), Values::Floats(vec![0.0; count]))).map(|_| ())
        };
        assert!(given(&[3, 2]).is_ok());
        assert_eq!(given(&[3, 3]).unwrap_err(), "`x` is of another shape there than [3, 3]");
        assert_eq!(given(&[3]).unwrap_err(), "`x` is of another shape there than [3]");
        let integers = port.take(Value::Given(vec![1, 2], Values::Integers(vec![1, 2]))).map(|_| ());
        assert_eq!(integers.unwrap_err(), "`x` consists of something else there");
    }

    #[test]
    fn an_output_has_room_for_the_most_that_its_open_lengths_can_be() {
        let port =
            |lengths: &[Option<usize>]| Port { name: "x".into(), element: api::FLOAT32, lengths: lengths.to_vec() };
        let most = Most([3, 7]);
        assert_eq!(most.room(&port(&[None, None, Some(10)])), Some(210));
        assert_eq!(most.room(&port(&[None, Some(4), None, Some(2)])), Some(168));
        assert_eq!(most.room(&port(&[Some(2), Some(5)])), Some(10));
        assert_eq!(most.room(&port(&[Some(usize::MAX), None])), None);
        assert_eq!(Most([3, 0]).room(&port(&[None, None])), None);
    }
}
