//! libFuzzer over one target, whose name is in PIPELINE_FUZZ_TARGET. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pipeline_fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("PIPELINE_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        eprintln!("PIPELINE_FUZZ_TARGET is '{name}', which is not a target");
        std::process::exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| {
    TARGET.run(bytes);
});
