//! `command`: any program, with declared inputs, outputs, environment and files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path};

use crate::artifact::ArtifactType;
use crate::clean_labels::CleanLabels;
use crate::form::Form;
use crate::kind::{OutsidePath, Problem, Rules};
use crate::left_out;

/// The artifact type that a command declares as its output.
type CommandOutput = ArtifactType;

choices! {
    /// What happens when a program reads or writes what its stage does not declare.
    pub enum SandboxMode {
        /// Nothing: it can do whatever its user can.
        Off,
        /// It is noted, with the line that declares it. Needs seccomp's user notification (Linux 5.5).
        Warn,
        /// It fails. Needs Landlock (Linux 5.13); where the kernel lacks it, the stage fails.
        On,
    }
}

kind! {
    /// Runs a program of yours.
    ///
    /// It starts in the manifest's folder. In `run`, `{output}` is the folder to write to and
    /// `{inputs.NAME}` the folder of an input (`{{` and `}}` are braces); the environment has the
    /// same as `PIPELINE_OUTPUT` and `PIPELINE_INPUT_NAME`, and in `PIPELINE_CHECKPOINT` a folder that
    /// is kept until the stage succeeds, for programs that can resume. It sees PATH, HOME, USER,
    /// LOGNAME, LANG, LC_*, TZ, TMPDIR, CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER, PYTHONDONTWRITEBYTECODE=1 and what `environment` and `pass-environment` name, nothing else.
    /// What it prints is the stage's log. On Ctrl-C it and all that it started get SIGTERM and, five seconds
    /// later, SIGKILL. What it leaves running when it ends is killed.
    Command = "command", version 1, seeded false, output Directory;
    ports {
        /// The artifacts that it reads, by name. `NAME = "STAGE@*"` is all instances of a stage: the folder then has a file
        /// `instances.json`, a list of `{ "point": { AXIS: VALUE }, "path": FOLDER }`.
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
        /// What it does not read in the folders among `files`: names (`*.log`), or paths from the folder (`runs/*.log`). What editors,
        /// file managers and Python leave behind is left out in any case: docs/manifest.md has the list.
        ignore: Vec<String> = Vec::new();
        /// What the program must write, as paths in the output folder.
        outputs: Vec<String> = Vec::new();
        /// The type of its output. With `metrics`, the numbers in its `metrics.json` are the stage's metrics. Those
        /// within objects are named by their path, `test/accuracy`; NaN and infinities count; strings and arrays are left out.
        output: CommandOutput = ArtifactType::Directory;
    }
    execution {
        /// Environment variables to pass on from your own environment. They do not enter the key.
        pass_environment: Vec<String> = Vec::new();
        /// What happens when it reads other files than its inputs, `files` and those of the system, or writes outside of its output,
        /// its checkpoint and TMPDIR, which is a new folder then. Programs that need more rights than their user has
        /// (`sudo`, Apptainer) do not work with `warn` and `on`: docs/manifest.md explains.
        sandbox: SandboxMode = SandboxMode::Off;
        /// Files and folders that the sandbox lets it read too, and that cannot change its result. Relative to the manifest; `~/` is the home
        /// folder.
        sandbox_read: Vec<String> = Vec::new();
        /// Files and folders that the sandbox lets it read and write, too.
        sandbox_write: Vec<String> = Vec::new();
    }
    headline []
}

/// How many inputs a message names.
const MOST_SHOWN: usize = 40;

/// How many letters of an argument a message shows.
const LONGEST_SHOWN: usize = 80;

/// What is in braces in an argument of `run`.
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
    /// The environment variable with the folder of an input: `train-data` is `PIPELINE_INPUT_TRAIN_DATA`.
    pub fn input_variable(name: &str) -> String {
        let letter = |letter: char| match letter {
            letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
            _ => '_',
        };
        format!("PIPELINE_INPUT_{}", name.chars().map(letter).collect::<String>())
    }

    /// The program and its arguments with the placeholders filled in. Empty for a stage with `shell`.
    ///
    /// # Errors
    /// When a placeholder is invalid or names no input.
    pub fn arguments(
        &self,
        output: &Path,
        inputs: &BTreeMap<String, &Path>,
    ) -> Result<Vec<OsString>, String> {
        let fill = |argument: &String| {
            let mut filled = OsString::new();
            for piece in pieces(argument) {
                match piece? {
                    Piece::Text(text) => filled.push(text),
                    Piece::Placeholder(Placeholder::Output) => filled.push(output),
                    Piece::Placeholder(Placeholder::Input(name)) => {
                        let names = inputs.keys().map(String::as_str);
                        filled.push(inputs.get(name).ok_or_else(|| no_input(name, names))?);
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
        let path = plain(name)?;
        path.contains('/').then_some(path)
    }

    /// The program that is looked up in `PATH`: for a line of a shell, the shell. `None` where `run` names it by its path, or it is part of
    /// an input.
    pub fn searched_program(&self) -> Option<String> {
        if self.shell.is_some() {
            return Some("sh".to_owned());
        }
        let name = plain(self.run.as_ref()?.first()?)?;
        (!name.contains('/')).then_some(name)
    }

    /// The arguments of `run`, by their place, that can be the path of a file in the manifest's folder:
    /// `plot.py`, and in `--config=a.toml` what follows the `=`. Not the program itself.
    pub fn local_arguments(&self) -> Vec<(usize, String)> {
        let arguments = self.run.iter().flatten().enumerate().skip(1);
        let paths = arguments.filter_map(|(place, argument)| {
            let argument = plain(argument)?;
            let path = match argument.split_once('=') {
                Some((option, value)) if option.starts_with('-') => value.to_owned(),
                _ => argument,
            };
            (!path.is_empty() && Path::new(&path).is_relative()).then_some((place, path))
        });
        paths.collect()
    }

    /// What is wrong with the placeholders in `run`, each at its argument.
    fn placeholder_problems(&self, connected: &[&str]) -> Vec<Problem> {
        let names = || connected.iter().filter_map(|name| name.strip_prefix("inputs."));
        let known: HashSet<&str> = names().collect();
        let mut problems = Vec::new();
        for (place, argument) in self.run.iter().flatten().enumerate() {
            let wrong = pieces(argument).into_iter().filter_map(|piece| match piece {
                Ok(Piece::Placeholder(Placeholder::Input(name))) if !known.contains(name) => {
                    Some(no_input(name, names()))
                }
                other => other.err(),
            });
            problems.extend(wrong.map(|message| Problem::new("run", message).with_item(place)));
        }
        problems
    }

    /// Inputs that have the same environment variable.
    fn variable_problems(connected: &[&str]) -> Vec<Problem> {
        let mut variables: HashMap<String, &str> = HashMap::new();
        let mut problems = Vec::new();
        for name in connected.iter().filter_map(|name| name.strip_prefix("inputs.")) {
            let variable = Self::input_variable(name);
            match variables.get(&variable) {
                Some(other) => problems.push(Problem::new(
                    "inputs",
                    format!("the inputs '{other}' and '{name}' are both {variable} in the environment: rename one of them"),
                )),
                None => drop(variables.insert(variable, name)),
            }
        }
        problems
    }
}

/// The argument as text, if nothing in it is filled in.
fn plain(argument: &str) -> Option<String> {
    let text = |piece| if let Ok(Piece::Text(text)) = piece { Some(text) } else { None };
    pieces(argument).into_iter().map(text).collect()
}

fn no_input<'a>(name: &str, inputs: impl Iterator<Item = &'a str>) -> String {
    let mut inputs = inputs.peekable();
    if inputs.peek().is_none() {
        return format!(
            "'run' has {{inputs.{name}}}, but the stage has no inputs: write inputs = {{ {name} = \"STAGE\" }}"
        );
    }
    let names: Vec<_> = inputs.by_ref().take(MOST_SHOWN).collect();
    let more = if inputs.peek().is_some() { ", ..." } else { "" };
    format!(
        "'run' has {{inputs.{name}}}, but the inputs of the stage are: {}{more}",
        names.join(", ")
    )
}

/// The start of an argument, for a message.
fn shown(argument: &str) -> String {
    match argument.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}...", &argument[..end]),
        None => argument.to_owned(),
    }
}

/// Parses an argument; each invalid placeholder is an error. `{{` and `}}` are braces.
fn pieces(argument: &str) -> Vec<Result<Piece<'_>, String>> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, from_brace) = rest.split_at(at);
        pieces.push(Ok(Piece::Text(text)));
        if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
            pieces.push(Ok(Piece::Text(&from_brace[..1])));
            rest = &from_brace[2..];
            continue;
        }
        let inner = from_brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = inner else {
            pieces.push(Err(format!(
                "the argument '{}' of 'run' has a single brace: write '{{{{' or '}}}}' for a brace",
                shown(argument)
            )));
            return pieces;
        };
        pieces.push(placeholder(name, argument).map(Piece::Placeholder));
        rest = after;
    }
    pieces.push(Ok(Piece::Text(rest)));
    pieces
}

fn placeholder<'a>(name: &'a str, argument: &str) -> Result<Placeholder<'a>, String> {
    match name.strip_prefix("inputs.") {
        Some(input) if !input.is_empty() => Ok(Placeholder::Input(input)),
        _ if name == "output" => Ok(Placeholder::Output),
        _ => Err(format!(
            "the argument '{}' of 'run' has {{{}}}: the placeholders are {{output}}, and {{inputs.NAME}} for each input; write '{{{{' for a brace",
            shown(argument),
            shown(name)
        )),
    }
}

/// What is wrong with the paths that the sandbox allows.
fn sandbox_problems(field: &'static str, paths: &[String]) -> impl Iterator<Item = Problem> {
    paths.iter().enumerate().filter_map(move |(place, path)| {
        let message = match path.strip_prefix('~') {
            _ if path.is_empty() => "a path cannot be empty".to_owned(),
            Some(rest) if !rest.is_empty() && !rest.starts_with('/') => format!(
                "'{path}': only the own home folder can be written as '~'; a file that is called so is './{path}'"
            ),
            _ => return None,
        };
        Some(Problem::new(field, message).with_item(place))
    })
}

impl Rules for Command {
    fn forms() -> &'static [Form] {
        const HOME_OR_PATH: &str = "^([^~]|~$|~/)";
        const VARIABLE: &str = "^[^=]+$";
        const RESERVED: &str = "^PIPELINE_";
        &[
            Form::Either(&["run"], "shell"),
            Form::NotEmpty("run"),
            Form::Name("environment", VARIABLE),
            Form::NotName("environment", RESERVED),
            Form::Text("pass-environment", VARIABLE),
            Form::NotText("pass-environment", RESERVED),
            Form::NotText("ignore", left_out::NEVER_PATTERN),
            Form::Text("outputs", "^[^/]"),
            Form::NotText("outputs", r"(^|/)\.\.(/|$)"),
            Form::Text("sandbox-read", HOME_OR_PATH),
            Form::Text("sandbox-write", HOME_OR_PATH),
        ]
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = Self::variable_problems(connected);
        match (&self.run, &self.shell) {
            (None, None) => problems.push(Problem::new(
                "kind",
                "nothing to run: set run = [\"program\", \"argument\"], or shell = \"...\"",
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
        problems.extend(self.placeholder_problems(connected));
        let names = self.environment.keys().map(|name| ("environment", None, name));
        let passed = self.pass_environment.iter().enumerate();
        let passed = passed.map(|(item, name)| ("pass-environment", Some(item), name));
        for (field, item, name) in names.chain(passed) {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("{name:?} cannot be the name of an environment variable");
                problems.push(Problem { item, ..Problem::new(field, message) });
            } else if name.starts_with("PIPELINE_") {
                let message = format!(
                    "'{name}' is reserved: PIPELINE_* variables hold the folders of the program"
                );
                problems.push(Problem { item, ..Problem::new(field, message) });
            }
        }
        problems.extend(left_out::problems(&self.ignore));
        problems.extend(sandbox_problems("sandbox-read", &self.sandbox_read));
        problems.extend(sandbox_problems("sandbox-write", &self.sandbox_write));
        for (item, path) in self.outputs.iter().enumerate() {
            let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            if path.is_empty() || !Path::new(path).components().all(inside) {
                let message = format!(
                    "'{path}' is not a path in the output folder: no '/' in front, and no '..'"
                );
                problems.push(Problem::new("outputs", message).with_item(item));
            }
        }
        problems
    }

    fn output(&self) -> Option<ArtifactType> {
        Some(self.output)
    }

    fn inherits_clean_labels(&self, _port: &str, of_input: CleanLabels) -> CleanLabels {
        match of_input {
            // Metrics may be those of the training, as a summary of them would be.
            CleanLabels::Judge if self.output != ArtifactType::Metrics => CleanLabels::Unused,
            _ => of_input,
        }
    }

    fn ignore(&self) -> &[String] {
        &self.ignore
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        let program = self.program_path().filter(|path| !self.files.contains(path));
        let files = self.files.iter().map(|path| OutsidePath::of_a_program("files", path));
        files.chain(program.map(|path| OutsidePath::of_a_program("run", path))).collect()
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
    fn every_wrong_placeholder_is_reported_at_its_argument() {
        let command = command(serde_json::json!({
            "run": ["cat", "{outptu} {inputs.data} {inputs.dat}", "{output}", "{", "{x}{y"]
        }));
        let problems = command.check(&["inputs", "inputs.data"]);
        let items: Vec<_> = problems.iter().filter_map(|problem| problem.item).collect();
        assert_eq!(items, [1, 1, 3, 4, 4], "{problems:?}");
        assert!(problems[1].message.ends_with("of the stage are: data"), "{problems:?}");
    }

    #[test]
    fn inputs_need_variables_of_their_own() {
        let command = command(serde_json::json!({"shell": "true"}));
        let problems =
            command.check(&["inputs", "inputs.a-b", "inputs.a_b", "inputs.c", "inputs.A-B"]);
        let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages[0].starts_with("the inputs 'a-b' and 'a_b' are both PIPELINE_INPUT_A_B"));
        assert_eq!(Command::input_variable("train-data"), "PIPELINE_INPUT_TRAIN_DATA");
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
            (serde_json::json!({"run": ["a"], "sandbox-read": [""]}), "sandbox-read"),
            (serde_json::json!({"run": ["a"], "sandbox-write": ["/a", "~bob/x"]}), "sandbox-write"),
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
    fn the_sandbox_is_in_no_key() {
        let plain = command(serde_json::json!({"shell": "true"}));
        let boxed = command(serde_json::json!({
            "shell": "true", "sandbox": "on", "sandbox-read": ["~", "~/x", "/a"], "sandbox-write": ["b"]
        }));
        assert_eq!(boxed.check(&[]), []);
        let key = |command: &Command| crate::kind::key_parameters(command);
        assert_eq!(key(&plain), key(&boxed));
        assert!(!key(&plain).contains_key("sandbox"));
    }

    #[test]
    fn a_program_without_a_path_is_looked_up() {
        for (parameters, expected) in [
            (serde_json::json!({"run": ["python3", "a/b"]}), Some("python3")),
            (serde_json::json!({"run": ["a{{b}}"]}), Some("a{b}")),
            (serde_json::json!({"run": ["./train.sh"]}), None),
            (serde_json::json!({"run": ["{inputs.tools}"]}), None),
            (serde_json::json!({"shell": "./train.sh"}), Some("sh")),
            (serde_json::json!({}), None),
        ] {
            let searched = command(parameters.clone()).searched_program();
            assert_eq!(searched.as_deref(), expected, "{parameters}");
        }
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
