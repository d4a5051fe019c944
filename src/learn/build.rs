//! Tells the linker where `pipeline-learn`, its tests and its benches find libtorch when they run, so that nobody
//! has to set `LD_LIBRARY_PATH`. Does not know how libtorch got there: torch-sys says which one it linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let own_folder = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    // The installed layout first: bin/pipeline-learn beside lib/pipeline/. It has to win over the checkout's
    // libtorch, which may change or go away later.
    run_path(&format!("{own_folder}/../lib/pipeline"));
    if let Ok(linked) = env::var("DEP_TCH_LIBTORCH_LIB") {
        run_path(&linked);
    }
}

/// Adds a folder to the binary's run path. `-Xlinker` instead of `-Wl,`: a folder's name may hold a comma.
fn run_path(folder: &str) {
    for argument in ["-Xlinker", "-rpath", "-Xlinker", folder] {
        println!("cargo::rustc-link-arg={argument}");
    }
}
