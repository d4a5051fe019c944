//! Compiles the shims over the calls of libtorch that tch does not wrap, and says to the linker where
//! `pipeline-learn`, its tests and its benches find libtorch when they run, so that nobody has to set
//! `LD_LIBRARY_PATH`. Does not know how libtorch got there: torch-sys says which one it linked.

use std::env;
use std::path::{Path, PathBuf};

const SHIMS: [&str; 4] =
    ["shim/cuda_graph.cpp", "shim/forward_mode.cpp", "shim/gpu_memory.cpp", "shim/tf32.cpp"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    let own_folder = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    // The installed layout first: bin/pipeline-learn beside lib/pipeline/. It has to win over the checkout's
    // libtorch, which may change or go away later.
    run_path(&format!("{own_folder}/../lib/pipeline"));
    if let Ok(linked) = env::var("DEP_TCH_LIBTORCH_LIB") {
        run_path(&linked);
        compile_shims(Path::new(&linked));
    }
}

/// Adds a folder to the binary's run path. `-Xlinker` instead of `-Wl,`: a folder's name may hold a comma.
fn run_path(folder: &str) {
    for argument in ["-Xlinker", "-rpath", "-Xlinker", folder] {
        println!("cargo::rustc-link-arg={argument}");
    }
}

/// With the headers that are beside the libraries, or where torch-sys was asked to look for them.
fn compile_shims(libraries: &Path) {
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let headers = match env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => PathBuf::from(folder).join("include"),
        None => libraries.with_file_name("include"),
    };
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Those of the headers are not ours to fix.
        .warnings(false)
        .include(headers.join("torch/csrc/api/include"))
        .include(headers)
        // As torch-sys has it. clang's library on macOS takes no notice.
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .files(SHIMS)
        .compile("pipeline_shims");
}
