//! What is called of LiteRT's C API, as `litert/c/` of <https://github.com/google-ai-edge/LiteRT> declares it.
//!
//! The headers of 2.1.6, 2.2 and 2.3 have it so. A member of a struct that is not named here has its place kept.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::Library;

/// `LITERT_DEFINE_HANDLE` (litert_common.h): a pointer to what only LiteRT sees into.
pub(super) type Handle = *mut c_void;
/// `LiteRtStatus` (litert_common.h).
pub(super) type Status = c_int;

/// `LITERT_TENSOR_MAX_RANK` (litert_layout.h).
pub(super) const RANK_MAX: usize = 8;
/// `LITERT_HOST_MEMORY_BUFFER_ALIGNMENT` (litert_tensor_buffer.h).
pub(super) const ALIGNMENT: usize = 64;

/// `kLiteRtElementTypeFloat32` (litert_model_types.h).
pub(super) const FLOAT32: c_int = 1;
/// `kLiteRtElementTypeInt32`.
pub(super) const INT32: c_int = 2;
/// `kLiteRtElementTypeUInt8`.
pub(super) const UINT8: c_int = 3;

/// `kLiteRtHwAcceleratorCpu` (litert_common.h).
pub(super) const CPU: c_int = 1;
/// `LrtGetCpuOptionsIdentifier` (options/litert_cpu_options.cc), which are a text in TOML.
pub(super) const CPU_OPTIONS: &CStr = c"xnnpack";

/// `kLiteRtEnvOptionTagAutoRegisterAccelerators` (litert_environment_options.h).
pub(super) const AUTO_REGISTER_ACCELERATORS: c_int = 24;
/// `kLiteRtEnvOptionTagMinLoggerSeverity`.
pub(super) const MIN_LOGGER_SEVERITY: c_int = 25;
/// `kLiteRtLogSeverityError` (internal/litert_logging.h).
pub(super) const ERROR: i64 = 3;

/// `kLiteRtAnyTypeInt` (litert_any.h).
const INTEGER: c_int = 2;

/// `LiteRtLayout` (litert_layout.h).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Layout {
    /// `unsigned int rank : 7; bool has_strides : 1;`
    bits: u32,
    /// Below 0 where it is open. Beyond the rank they mean nothing.
    dimensions: [i32; RANK_MAX],
    strides: [u32; RANK_MAX],
}

impl Layout {
    pub(super) fn of(lengths: &[c_int]) -> Self {
        let mut layout = Self { bits: lengths.len() as u32, ..Self::default() };
        layout.dimensions[..lengths.len()].copy_from_slice(lengths);
        layout
    }

    /// The length of each axis; none where it is open.
    pub(super) fn lengths(&self) -> impl Iterator<Item = Option<usize>> {
        let rank = (self.bits & 0x7f) as usize;
        self.dimensions.iter().take(rank).map(|length| usize::try_from(*length).ok())
    }
}

/// `LiteRtRankedTensorType` (litert_model_types.h).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct TensorType {
    pub(super) element: c_int,
    pub(super) layout: Layout,
}

/// `LiteRtEnvOption` (litert_environment_options.h), whose value is a `LiteRtAny` (litert_any.h).
#[repr(C)]
pub(super) struct Setting {
    tag: c_int,
    value: Any,
}

#[repr(C)]
struct Any {
    kind: c_int,
    /// Of a union, whose members are of 8 bytes at most.
    integer: i64,
}

impl Setting {
    pub(super) fn integer(tag: c_int, integer: i64) -> Self {
        Self { tag, value: Any { kind: INTEGER, integer } }
    }
}

// What the headers assert.
const _: () = assert!(size_of::<TensorType>() == 72 && std::mem::offset_of!(TensorType, layout) == 4);
const _: () = assert!(size_of::<Setting>() == 24 && std::mem::offset_of!(Setting, value) == 8);

/// What frees something.
pub(super) type Free = unsafe extern "C" fn(Handle);
/// What counts the inputs or the outputs of a signature.
pub(super) type Count = unsafe extern "C" fn(Handle, *mut usize) -> Status;
/// What names one of them.
pub(super) type Name = unsafe extern "C" fn(Handle, usize, *mut *const c_char) -> Status;
/// What gives a part of something, by its number.
pub(super) type Part = unsafe extern "C" fn(Handle, usize, *mut Handle) -> Status;

macro_rules! functions {
    ($($field:ident = $name:literal: $function:ty;)*) => {
        /// The functions of a library that is never closed: what it has started would go on without its code.
        pub(super) struct Api {
            _library: ManuallyDrop<Library>,
            $(pub(super) $field: $function,)*
        }

        impl Api {
            /// Loads a library.
            ///
            /// # Safety
            /// It is LiteRT's, of a version whose functions are those that are declared here.
            pub(super) unsafe fn load(path: &Path) -> Result<Self, libloading::Error> {
                // SAFETY: what is run as it is loaded is LiteRT's own, as the caller says.
                let library = unsafe { Library::new(path) }?;
                Ok(Self {
                    // SAFETY: of this name and this version the function is one of this type, and the library stays.
                    $($field: unsafe { *library.get::<$function>($name)? },)*
                    _library: ManuallyDrop::new(library),
                })
            }
        }
    };
}

functions! {
    // litert_environment.h
    create_environment = "LiteRtCreateEnvironment":
        unsafe extern "C" fn(c_int, *const Setting, *mut Handle) -> Status;
    destroy_environment = "LiteRtDestroyEnvironment": Free;
    // litert_model.h; a model's environment is an argument since 2.1.6 at the latest.
    create_model_from_file = "LiteRtCreateModelFromFile":
        unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> Status;
    create_model_from_buffer = "LiteRtCreateModelFromBuffer":
        unsafe extern "C" fn(Handle, *const c_void, usize, *mut Handle) -> Status;
    destroy_model = "LiteRtDestroyModel": Free;
    count_signatures = "LiteRtGetNumModelSignatures": Count;
    signature = "LiteRtGetModelSignature": Part;
    count_inputs = "LiteRtGetNumSignatureInputs": Count;
    input_name = "LiteRtGetSignatureInputName": Name;
    input_tensor = "LiteRtGetSignatureInputTensorByIndex": Part;
    count_outputs = "LiteRtGetNumSignatureOutputs": Count;
    output_name = "LiteRtGetSignatureOutputName": Name;
    output_tensor = "LiteRtGetSignatureOutputTensorByIndex": Part;
    tensor_type = "LiteRtGetRankedTensorType": unsafe extern "C" fn(Handle, *mut TensorType) -> Status;
    // litert_options.h
    create_options = "LiteRtCreateOptions": unsafe extern "C" fn(*mut Handle) -> Status;
    set_accelerators = "LiteRtSetOptionsHardwareAccelerators": unsafe extern "C" fn(Handle, c_int) -> Status;
    add_opaque_options = "LiteRtAddOpaqueOptions": unsafe extern "C" fn(Handle, Handle) -> Status;
    destroy_options = "LiteRtDestroyOptions": Free;
    // litert_opaque_options.h
    create_opaque_options = "LiteRtCreateOpaqueOptions":
        unsafe extern "C" fn(*const c_char, *mut c_void, extern "C" fn(*mut c_void), *mut Handle) -> Status;
    // litert_compiled_model.h
    create_compiled_model = "LiteRtCreateCompiledModel":
        unsafe extern "C" fn(Handle, Handle, Handle, *mut Handle) -> Status;
    resize = "LiteRtCompiledModelResizeInputTensor":
        unsafe extern "C" fn(Handle, usize, usize, *const c_int, usize) -> Status;
    output_layouts = "LiteRtGetCompiledModelOutputTensorLayouts":
        unsafe extern "C" fn(Handle, usize, usize, *mut Layout, bool) -> Status;
    run = "LiteRtRunCompiledModel":
        unsafe extern "C" fn(Handle, usize, usize, *mut Handle, usize, *mut Handle) -> Status;
    destroy_compiled_model = "LiteRtDestroyCompiledModel": Free;
    // litert_tensor_buffer.h; what would free the memory is given too, or nothing.
    create_buffer = "LiteRtCreateTensorBufferFromHostMemory":
        unsafe extern "C" fn(*const TensorType, *mut c_void, usize, Option<extern "C" fn(*mut c_void)>, *mut Handle) -> Status;
    destroy_buffer = "LiteRtDestroyTensorBuffer": Free;
}

/// What a status says, by its name in litert_common.h.
pub(super) fn status(status: Status) -> String {
    let name = match status {
        1 => "an argument is invalid",
        2 => "there is no memory left",
        3 => "it failed as it ran",
        4 => "an input is missing",
        5 => "that is not supported",
        6 => "something was not found",
        500 => "the file cannot be read",
        501 => "the file is damaged",
        504 => "it does not compile",
        _ => "it failed",
    };
    format!("{name} (LiteRtStatus {status})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_its_rank_in_seven_bits() {
        let mut layout = Layout::of(&[3, -1, 5]);
        assert_eq!(layout.lengths().collect::<Vec<_>>(), [Some(3), None, Some(5)]);
        layout.bits |= 1 << 7;
        assert_eq!(layout.lengths().count(), 3);
    }

    #[test]
    fn a_status_is_told_in_words_and_by_its_number() {
        assert_eq!(status(501), "the file is damaged (LiteRtStatus 501)");
        assert_eq!(status(77), "it failed (LiteRtStatus 77)");
    }
}
