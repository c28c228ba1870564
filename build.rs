//! Debug builds for Linux do not move in memory: a start has no 400,000 addresses to put right, a third of what it costs.
//! Tests start the program thousands of times. Releases are linked as Rust does.
#![expect(clippy::disallowed_methods, reason = "Cargo says by variables what it builds")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    if is("PROFILE", "debug") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
