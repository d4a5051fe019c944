//! `command`: any program, with declared inputs, outputs, environment and files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path};

use crate::ArtifactType;
use crate::kind::{OutsidePath, Problem, Rules};

/// The artifact type that a command says it gives.
pub type CommandOutput = ArtifactType;

crate::kind! {
    /// Runs a program of yours.
    ///
    /// It starts in the manifest's folder. In `run`, `{output}` is the folder to write to and
    /// `{inputs.NAME}` the folder of an input (`{{` and `}}` stand for braces); the environment has the
    /// same as `PIPELINE_OUTPUT` and `PIPELINE_INPUT_NAME`, and in `PIPELINE_CHECKPOINT` a folder that
    /// is kept until the stage succeeds, for programs that can resume. It sees PATH, HOME, USER,
    /// LOGNAME, LANG, LC_*, TZ, TMPDIR, PYTHONDONTWRITEBYTECODE=1 and what `environment` and `pass-environment` name, nothing else.
    /// What it prints is the stage's log. On Ctrl-C it and all that it started get SIGTERM and, five seconds
    /// later, SIGKILL. What it leaves running when it ends is killed.
    Command = "command", version 1, seeded false, output Directory;
    ports {
        /// The artifacts that it reads, by name.
        inputs: Named[];
    }
    parameters {
        /// The program and its arguments. No shell takes part. A program with a `/` in its name is one of its `files`.
        run: Option<Vec<String>> = None;
        /// A line for `sh -c`, instead of `run`. It finds its folders in the environment: `"$PIPELINE_OUTPUT"`.
        shell: Option<String> = None;
        /// Environment variables to set.
        environment: BTreeMap<String, String> = BTreeMap::new();
        /// The files and folders of yours that it reads (its script, its configuration), relative to the manifest.
        files: Vec<String> = Vec::new();
        /// What it must have written, as paths in the output folder.
        outputs: Vec<String> = Vec::new();
        /// The type of its output. With `metrics`, the numbers in its `metrics.json` are the stage's metrics. Those
        /// within objects are called by their path, `test/accuracy`; NaN and infinities count; texts and arrays are left out.
        output: CommandOutput = ArtifactType::Directory;
    }
    execution {
        /// Environment variables to hand through from your own environment. They don't enter the key.
        pass_environment: Vec<String> = Vec::new();
    }
    headline []
}

/// What stands in braces in an argument of `run`.
enum Placeholder<'a> {
    /// `{output}`
    Output,
    /// `{inputs.NAME}`
    Input(&'a str),
}

/// A part of an argument of `run`.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(Placeholder<'a>),
}

impl Command {
    /// The program and its arguments with the placeholders filled in. Empty for a stage with `shell`.
    ///
    /// # Errors
    /// When a placeholder makes no sense or names no input.
    pub fn arguments(
        &self,
        output: &Path,
        inputs: &BTreeMap<String, &Path>,
    ) -> Result<Vec<OsString>, String> {
        let fill = |argument: &String| {
            let mut filled = OsString::new();
            for piece in pieces(argument)? {
                match piece {
                    Piece::Text(text) => filled.push(text),
                    Piece::Placeholder(Placeholder::Output) => filled.push(output),
                    Piece::Placeholder(Placeholder::Input(name)) => {
                        filled.push(inputs.get(name).ok_or_else(|| no_input(name, inputs))?);
                    }
                }
            }
            Ok(filled)
        };
        self.run.iter().flatten().map(fill).collect()
    }

    /// The program that `run` names by its path. `None` where it is looked up in `PATH` or is part of an input.
    fn program_path(&self) -> Option<String> {
        let name = self.run.as_ref()?.first()?;
        let text = |piece| if let Piece::Text(text) = piece { Some(text) } else { None };
        let path = pieces(name).ok()?.into_iter().map(text).collect::<Option<String>>()?;
        path.contains('/').then_some(path)
    }
}

fn no_input(name: &str, inputs: &BTreeMap<String, &Path>) -> String {
    let names: Vec<_> = inputs.keys().map(String::as_str).collect();
    if names.is_empty() {
        return format!(
            "'run' has {{inputs.{name}}}, but the stage has no inputs: say inputs = {{ {name} = \"STAGE\" }}"
        );
    }
    format!("'run' has {{inputs.{name}}}, but the inputs of the stage are: {}", names.join(", "))
}

/// Takes an argument apart. `{{` and `}}` stand for braces.
fn pieces(argument: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, from_brace) = rest.split_at(at);
        pieces.push(Piece::Text(text));
        if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
            pieces.push(Piece::Text(&from_brace[..1]));
            rest = &from_brace[2..];
            continue;
        }
        let inner = from_brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = inner else {
            return Err(format!(
                "the argument '{argument}' of 'run' has a single brace: write '{{{{' or '}}}}' for a brace"
            ));
        };
        pieces.push(Piece::Placeholder(placeholder(name, argument)?));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn placeholder<'a>(name: &'a str, argument: &str) -> Result<Placeholder<'a>, String> {
    match name.strip_prefix("inputs.") {
        Some(input) if !input.is_empty() => Ok(Placeholder::Input(input)),
        _ if name == "output" => Ok(Placeholder::Output),
        _ => Err(format!(
            "the argument '{argument}' of 'run' has {{{name}}}: there is {{output}}, and {{inputs.NAME}} for each input; write '{{{{' for a brace"
        )),
    }
}

impl Rules for Command {
    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.run, &self.shell) {
            (None, None) => problems.push(Problem::new(
                "kind",
                "nothing to run: give run = [\"program\", \"argument\"], or shell = \"...\"",
            )),
            (Some(_), Some(_)) => problems.push(Problem::new(
                "shell",
                "the stage has both 'run' and 'shell': drop one of them",
            )),
            (Some(run), None) if run.first().is_none_or(String::is_empty) => {
                problems.push(Problem::new("run", "'run' is empty: it needs at least a program"));
            }
            _ => {}
        }
        for argument in self.run.iter().flatten() {
            if let Err(message) = pieces(argument).map(drop) {
                problems.push(Problem::new("run", message));
            }
        }
        let names = self.environment.keys().map(|name| ("environment", name));
        let passed = self.pass_environment.iter().map(|name| ("pass-environment", name));
        for (field, name) in names.chain(passed) {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("{name:?} can't be the name of an environment variable");
                problems.push(Problem::new(field, message));
            } else if name.starts_with("PIPELINE_") {
                let message =
                    format!("'{name}' is taken: PIPELINE_* tells the program its folders");
                problems.push(Problem::new(field, message));
            }
        }
        for path in &self.outputs {
            let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            if path.is_empty() || !Path::new(path).components().all(inside) {
                let message = format!(
                    "'{path}' is no path in the output folder: no '/' in front, and no '..'"
                );
                problems.push(Problem::new("outputs", message));
            }
        }
        problems
    }

    fn output(&self) -> Option<ArtifactType> {
        Some(self.output)
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        let program = self.program_path().filter(|path| !self.files.contains(path));
        self.files.iter().cloned().chain(program).map(OutsidePath::required).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(parameters: serde_json::Value) -> Command {
        serde_json::from_value(parameters).expect("valid parameters")
    }

    #[test]
    fn placeholders_are_filled_in() {
        let inputs = BTreeMap::from([("data".to_owned(), Path::new("/in put"))]);
        for (argument, filled) in [
            ("plain", "plain"),
            ("{output}", "/out"),
            ("--out={output}/x", "--out=/out/x"),
            ("{inputs.data}:{output}", "/in put:/out"),
            ("{{output}}", "{output}"),
            ("{{{output}}}", "{/out}"),
            ("", ""),
        ] {
            let arguments = command(serde_json::json!({"run": [argument]}))
                .arguments(Path::new("/out"), &inputs);
            assert_eq!(arguments, Ok(vec![filled.into()]), "{argument}");
        }
    }

    #[test]
    fn a_placeholder_that_names_no_input_is_an_error_that_lists_them() {
        let inputs = BTreeMap::from([
            ("data".to_owned(), Path::new("/a")),
            ("more".to_owned(), Path::new("/b")),
        ]);
        let command = command(serde_json::json!({"run": ["cat", "{inputs.dat}"]}));
        let error = command.arguments(Path::new("/out"), &inputs).unwrap_err();
        assert!(error.ends_with("are: data, more"), "{error}");
        let error = command.arguments(Path::new("/out"), &BTreeMap::new()).unwrap_err();
        assert!(error.contains("inputs = { dat = \"STAGE\" }"), "{error}");
    }

    #[test]
    fn mistakes_are_found_before_anything_runs() {
        for (parameters, field) in [
            (serde_json::json!({}), "kind"),
            (serde_json::json!({"run": []}), "run"),
            (serde_json::json!({"run": [""]}), "run"),
            (serde_json::json!({"run": ["a"], "shell": "a"}), "shell"),
            (serde_json::json!({"run": ["a", "{outptu}"]}), "run"),
            (serde_json::json!({"run": ["a", "{inputs.}"]}), "run"),
            (serde_json::json!({"run": ["a", "{\"json\": 1}"]}), "run"),
            (serde_json::json!({"run": ["a", "a}b"]}), "run"),
            (serde_json::json!({"run": ["a", "a{b"]}), "run"),
            (serde_json::json!({"run": ["a"], "environment": {"A=B": "c"}}), "environment"),
            (
                serde_json::json!({"run": ["a"], "environment": {"PIPELINE_OUTPUT": "c"}}),
                "environment",
            ),
            (serde_json::json!({"run": ["a"], "pass-environment": [""]}), "pass-environment"),
            (serde_json::json!({"run": ["a"], "outputs": ["/a"]}), "outputs"),
            (serde_json::json!({"run": ["a"], "outputs": ["a/../../b"]}), "outputs"),
        ] {
            let problems = command(parameters.clone()).check(&[]);
            assert_eq!(problems.len(), 1, "{parameters}: {problems:?}");
            assert_eq!(problems[0].field, field, "{parameters}: {problems:?}");
        }
        let shell = serde_json::json!({"shell": "echo ${HOME} > \"$PIPELINE_OUTPUT/a\"", "outputs": ["./a"]});
        assert_eq!(command(shell).check(&[]), []);
    }

    #[test]
    fn a_program_of_yours_is_one_of_its_files() {
        for (parameters, expected) in [
            (serde_json::json!({"run": ["./train.sh", "a/b"]}), vec!["./train.sh"]),
            (serde_json::json!({"run": ["/opt/{{x}}/train"]}), vec!["/opt/{x}/train"]),
            (
                serde_json::json!({"run": ["./train.sh"], "files": ["a.py", "./train.sh"]}),
                vec!["a.py", "./train.sh"],
            ),
            (serde_json::json!({"run": ["python3", "a/b"], "files": ["a"]}), vec!["a"]),
            (serde_json::json!({"run": ["{inputs.tools}/train"]}), vec![]),
            (serde_json::json!({"shell": "./train.sh"}), vec![]),
        ] {
            let paths = command(parameters.clone()).outside_paths();
            assert!(paths.iter().all(|path| !path.optional), "{parameters}");
            let paths: Vec<_> = paths.into_iter().map(|outside| outside.path).collect();
            assert_eq!(paths, expected, "{parameters}");
        }
    }
}
