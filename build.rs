//! Links the release binary without unwind tables where GNU's linker does it:
//! see src/no-unwind-tables.ld.

use std::env;

fn main() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|v| v == value);
    println!("cargo::rerun-if-changed=src/no-unwind-tables.ld");
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{root}/src/no-unwind-tables.ld");
    }
}
