//! The `effai` command: everything is in the library.

/// Training makes and drops large tensors at every step: the system's allocator hands each back to the kernel and
/// gets it again as zeroed pages, a quarter of all CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    effai::cli::run().into()
}
