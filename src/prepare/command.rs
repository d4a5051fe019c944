//! The body of `command`: starts the program, waits for it, checks its output.
//!
//! Does not depend on what the program does. [`process`] starts it, [`descendants`] stops it and all that it
//! started, [`output`] checks its output, [`sandbox`] keeps it from what its stage does not declare. [`instances`] lists the instances of an input that is all of a stage's.

mod absolute;
mod descendants;
mod instances;
mod output;
mod process;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sandbox;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "command/no_sandbox.rs"]
mod sandbox;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pipeline_stages::checkpoint;
use pipeline_stages::kinds::Command;
use pipeline_stages::message::{Input, Metrics};
use pipeline_stages::worker::Context;

use crate::body::Body;
use absolute::absolute;
use process::Program;
use sandbox::Sandbox;

/// The variables of the user's environment that every program gets, in addition to `LC_*`. Without those about GPUs, one would see also
/// the GPUs that are kept from it.
const INHERITED: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
];

/// Where libraries find out how many threads they may have: OpenMP, and with it PyTorch, NumPy's linear algebra and MKL; and Rayon.
const THREADS: [&str; 2] = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"];

impl Body for Command {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let program = program(self, context)?;
        let result = program.run(context).and_then(|()| output::check(self, context));
        match program.sandbox() {
            Some(sandbox) => sandbox.explain(result, context),
            None => result,
        }
    }
}

/// Why the program of a stage in this folder could not be found if it started now. `None` where it could, or where that is not known before
/// its inputs exist; one that `run` names by its path is one of the files that the stage reads.
pub fn missing_program(command: &Command, folder: &Path) -> Option<String> {
    let name = command.searched_program()?;
    let search_path = match command.environment.get("PATH") {
        Some(path) => Some(path.into()),
        None => std::env::var_os("PATH"),
    };
    let found = process::find(name.as_ref(), folder, search_path.as_ref());
    found.err().map(|error| format!("{error:#}"))
}

/// The program, its folder and its environment.
fn program(command: &Command, context: &Context) -> anyhow::Result<Program> {
    let inputs = named_inputs(context)?;
    let output = absolute(&context.output)?;
    let arguments = match &command.shell {
        Some(line) => vec!["sh".into(), "-c".into(), line.into()],
        None => {
            let folders =
                inputs.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
            command.arguments(&output, &folders).map_err(anyhow::Error::msg)?
        }
    };
    let mut environment = inherited(std::env::vars_os());
    // Otherwise Python would write its caches next to scripts that are inputs.
    environment.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    if let Some(threads) = context.execution.threads {
        for name in THREADS {
            environment.insert(name.into(), threads.to_string().into());
        }
    }
    let variables = &context.execution.variables;
    environment.extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
    for name in &command.pass_environment {
        environment.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    }
    for (name, value) in &command.environment {
        environment.insert(name.into(), value.into());
    }
    environment.insert("PIPELINE_OUTPUT".into(), output.into());
    environment.insert(checkpoint::VARIABLE.into(), absolute(&context.checkpoint)?.into());
    let given = context.inputs("inputs").iter().map(|input| absolute(&input.path));
    let given = given.collect::<anyhow::Result<Vec<_>>>()?;
    let readable = given.into_iter().chain(inputs.values().cloned()).collect();
    let sandbox = Sandbox::of(command, context, readable, &mut environment)?;
    for (name, path) in inputs {
        let variable = Command::input_variable(&name);
        if environment.insert(OsString::from(&variable), path.into()).is_some() {
            bail!(
                "the input '{name}' and another one are both {variable} in the environment: rename one of them"
            );
        }
    }
    Ok(Program::new(arguments, absolute(&context.folder)?, environment)?.within(sandbox))
}

fn named_inputs(context: &Context) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut all: BTreeMap<&str, Vec<(&Input, PathBuf)>> = BTreeMap::new();
    for input in context.inputs("inputs") {
        let name = input.name.as_deref().context("the request has an input without a name")?;
        all.entry(name).or_default().push((input, absolute(&input.path)?));
    }
    let named = all.into_iter().map(|(name, inputs)| {
        let folder = match inputs.as_slice() {
            [(input, path)] if input.points.is_empty() => path.clone(),
            // Beside the output, which is all that is kept.
            _ => {
                let folder = absolute(&context.output)?.with_file_name("inputs").join(name);
                instances::write(folder, &inputs)?
            }
        };
        Ok((name.to_owned(), folder))
    });
    named.collect()
}

fn inherited(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let locale = |name: &OsStr| name.as_encoded_bytes().starts_with(b"LC_");
    all.filter(|(name, _)| locale(name) || INHERITED.iter().any(|known| name == known)).collect()
}
