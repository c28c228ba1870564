//! The `effai` command: everything is in the library.

fn main() -> std::process::ExitCode {
    effai::cli::run().into()
}
