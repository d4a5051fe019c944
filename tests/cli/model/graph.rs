//! A small graph of `command` stages that changes: as a manifest, and what each stage must write if everything ran again.
//!
//! Knows no cache and runs nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::dice::Dice;

/// The files outside the cache, each with the entry of `files` that covers it.
const FILES: [(&str, usize); 4] = [("f0", 0), ("f1", 1), ("d2/p", 2), ("d2/q", 2)];

/// What stages name in `files`.
pub const OUTSIDE: [&str; 3] = ["f0", "f1", "d2"];

/// What such a file may have in it: two texts of one length, and others.
const TEXTS: [&str; 4] = ["red", "sky", "green", ""];

/// The axis that stages may have.
const AXIS: &str = "x";

/// At most so many stages, so that texts that contain each other stay short.
const MOST: usize = 7;

/// What a stage reads.
#[derive(Clone, Copy)]
struct Input {
    /// The number of the stage.
    from: u32,
    /// All its instances, if it has several.
    all: bool,
}

/// A stage. Its number stays when its name changes.
#[derive(Clone)]
struct Stage {
    number: u32,
    name: String,
    /// Its parameter.
    text: char,
    /// Whether the axis is in its parameter.
    on_axis: bool,
    /// Whether it writes only the beginning of what it makes, so that other inputs often make the same output.
    is_short: bool,
    inputs: Vec<Input>,
    /// Which of [`OUTSIDE`] it reads.
    files: Vec<usize>,
}

/// The stages, each after those that it reads, and what they read.
#[derive(Clone)]
pub struct Graph {
    stages: Vec<Stage>,
    axis: Vec<u32>,
    /// The files outside that exist, with what is in them.
    pub files: BTreeMap<&'static str, &'static str>,
    /// How many stages there have ever been, and names.
    made: u32,
}

impl Graph {
    /// A graph with some stages and all files.
    pub fn any(dice: &mut Dice) -> Self {
        let files = FILES.iter().map(|(name, _)| (*name, TEXTS[0])).collect();
        let mut graph = Self { stages: Vec::new(), axis: vec![1, 2], files, made: 0 };
        for _ in 0..3 + dice.throw(3) {
            graph.add(dice);
        }
        graph
    }

    fn new_name(&mut self) -> (u32, String) {
        self.made += 1;
        (self.made, format!("s{}", self.made))
    }

    /// Adds a stage: a new one, or one that does what another does.
    fn add(&mut self, dice: &mut Dice) -> String {
        let (number, name) = self.new_name();
        let twin = dice.once_in(4).then(|| dice.one(&self.stages).cloned()).flatten();
        let new = || Stage {
            number,
            name: name.clone(),
            text: any_text(dice),
            on_axis: dice.once_in(3),
            is_short: dice.once_in(3),
            inputs: any_inputs(&self.stages, dice),
            files: any_files(dice),
        };
        let does = twin.as_ref().map_or(String::new(), |twin| format!(" like {}", twin.name));
        let stage = twin.map_or_else(new, |twin| Stage { number, name: name.clone(), ..twin });
        self.stages.push(stage);
        format!("add {name}{does}")
    }

    /// Changes something in the manifest, and says what.
    pub fn edit(&mut self, dice: &mut Dice) -> String {
        let place = dice.throw(self.stages.len());
        match dice.throw(7) {
            0 if self.stages.len() < MOST => self.add(dice),
            1 if self.stages.len() > 2 => self.remove(place),
            2 => {
                let (_, name) = self.new_name();
                let old = std::mem::replace(&mut self.stages[place].name, name.clone());
                format!("rename {old} to {name}")
            }
            3 => {
                let (before, stages) = self.stages.split_at_mut(place);
                stages[0].inputs = any_inputs(before, dice);
                format!("other inputs of {}", stages[0].name)
            }
            4 => {
                self.axis = [&[1, 2][..], &[2], &[1, 2, 3], &[2, 3]][dice.throw(4)].to_vec();
                format!("the axis is {:?}", self.axis)
            }
            5 => {
                self.stages[place].files = any_files(dice);
                format!("other files of {}", self.stages[place].name)
            }
            _ => {
                let stage = &mut self.stages[place];
                stage.text = any_text(dice);
                format!("{} has {}", stage.name, stage.text)
            }
        }
    }

    /// Removes a stage, also from the inputs of others.
    fn remove(&mut self, place: usize) -> String {
        let gone = self.stages.remove(place);
        for stage in &mut self.stages {
            stage.inputs.retain(|input| input.from != gone.number);
        }
        format!("remove {}", gone.name)
    }

    /// Changes a file, or adds it again.
    pub fn edit_file(&mut self, dice: &mut Dice) -> String {
        let (name, text) = (FILES[dice.throw(FILES.len())].0, TEXTS[dice.throw(TEXTS.len())]);
        self.files.insert(name, text);
        format!("{name} has {text:?}")
    }

    /// Removes a file, or the folder.
    pub fn remove_file(&mut self, dice: &mut Dice) -> String {
        let entry = dice.throw(OUTSIDE.len());
        for (name, _) in FILES.iter().filter(|(_, of)| *of == entry) {
            self.files.remove(name);
        }
        format!("remove {}", OUTSIDE[entry])
    }

    /// Adds the files again that are missing.
    pub fn restore_files(&mut self) {
        for (name, _) in FILES {
            self.files.entry(name).or_insert(TEXTS[0]);
        }
    }

    fn stage(&self, number: u32) -> &Stage {
        self.stages.iter().find(|stage| stage.number == number).expect("a stage of this graph")
    }

    /// Whether a stage has an instance for each value of the axis.
    fn has_axis(&self, stage: &Stage) -> bool {
        let reads_one =
            |input: &Input| !self.takes_all(input) && self.has_axis(self.stage(input.from));
        stage.on_axis || stage.inputs.iter().any(reads_one)
    }

    fn takes_all(&self, input: &Input) -> bool {
        input.all && self.has_axis(self.stage(input.from))
    }

    fn points(&self, stage: &Stage) -> Vec<Option<u32>> {
        match self.has_axis(stage) {
            true => self.axis.iter().copied().map(Some).collect(),
            false => vec![None],
        }
    }

    /// The manifest of these stages. Names are of people: those of two experiments may differ.
    pub fn manifest(&self, experiment: &str) -> String {
        let mut text = format!("[experiment]\nname = \"{experiment}\"\n");
        let _ = write!(
            text,
            "\n[lint]\nallow = [\"unused-axis\"]\n\n[matrix]\n{AXIS} = {:?}\n",
            self.axis
        );
        for stage in &self.stages {
            let value = if stage.on_axis {
                format!("{}${{{AXIS}}}", stage.text)
            } else {
                stage.text.into()
            };
            let files: Vec<_> = stage.files.iter().map(|entry| OUTSIDE[*entry]).collect();
            let inputs = stage.inputs.iter().enumerate().map(|(place, input)| {
                let all = if self.takes_all(input) { "@*" } else { "" };
                format!("i{place} = \"{}{all}\"", self.stage(input.from).name)
            });
            let _ = write!(
                text,
                "\n[stages.{}]\nkind = \"command\"\nenvironment = {{ TEXT = \"{value}\" }}\nfiles = {files:?}\n\
                 inputs = {{ {} }}\nshell = '''\n{}'''\n",
                stage.name,
                inputs.collect::<Vec<_>>().join(", "),
                self.program(stage),
            );
        }
        text
    }

    /// What a stage does, as a shell script: its text, what is in its files and, in brackets, in its inputs.
    fn program(&self, stage: &Stage) -> String {
        let mut text = String::from("set -e\ntext=$(set -e\nprintf '%s' \"$TEXT\"\n");
        for (name, _) in FILES.iter().filter(|(_, entry)| stage.files.contains(entry)) {
            let _ = writeln!(text, "cat {name}");
        }
        for (place, input) in stage.inputs.iter().enumerate() {
            let folder = format!("$PIPELINE_INPUT_I{place}");
            let _ = match self.takes_all(input) {
                false => writeln!(text, "printf '('; cat \"{folder}/data\"; printf ')'"),
                true => writeln!(
                    text,
                    "printf '['; grep -o '\"path\": *\"[^\"]*\"' \"{folder}/instances.json\" | cut -d'\"' -f4 |\n\
                     while read -r path; do cat \"$path/data\"; echo; done | sort | tr '\\n' ';'; printf ']'"
                ),
            };
        }
        let format = if stage.is_short { "%.4s" } else { "%s" };
        let _ = writeln!(
            text,
            ")\ncd \"$PIPELINE_OUTPUT\"; mkdir sub\nprintf '{format}' \"$text\" | tee data > sub/copy"
        );
        text
    }

    /// What every instance must write, by its name.
    pub fn truth(&self) -> BTreeMap<String, String> {
        let instances = self.stages.iter().flat_map(|stage| {
            let points = self.points(stage).into_iter();
            points.map(move |point| {
                let at = point.map_or(String::new(), |value| format!("@{AXIS}={value}"));
                (format!("{}{at}", stage.name), self.output(stage, point))
            })
        });
        instances.collect()
    }

    fn output(&self, stage: &Stage, point: Option<u32>) -> String {
        let mut text = String::from(stage.text);
        if let (true, Some(value)) = (stage.on_axis, point) {
            let _ = write!(text, "{value}");
        }
        for (name, _) in FILES.iter().filter(|(_, entry)| stage.files.contains(entry)) {
            text.push_str(self.files.get(name).copied().unwrap_or_default());
        }
        for input in &stage.inputs {
            let from = self.stage(input.from);
            if !self.takes_all(input) {
                let point = point.filter(|_| self.has_axis(from));
                let _ = write!(text, "({})", self.output(from, point));
                continue;
            }
            let points = self.points(from).into_iter();
            let mut all: Vec<_> = points.map(|point| self.output(from, point)).collect();
            all.sort();
            let _ = write!(text, "[{};]", all.join(";"));
        }
        text.truncate(if stage.is_short { 4 } else { usize::MAX });
        text
    }

    /// The names of the stages.
    pub fn names(&self) -> Vec<&str> {
        self.stages.iter().map(|stage| stage.name.as_str()).collect()
    }

    /// Whether the files exist that this stage needs, and all that it is made from; without a stage, all of them.
    pub fn can_run(&self, name: Option<&str>) -> bool {
        let mut needed =
            self.stages.iter().filter(|stage| name.is_none_or(|name| stage.name == name));
        needed.all(|stage| self.has_files(stage))
    }

    fn has_files(&self, stage: &Stage) -> bool {
        let missing = FILES.iter().filter(|(name, _)| !self.files.contains_key(name));
        let mut missing = missing.map(|(_, entry)| entry);
        missing.all(|entry| !stage.files.contains(entry))
            && stage.inputs.iter().all(|input| self.has_files(self.stage(input.from)))
    }
}

fn any_text(dice: &mut Dice) -> char {
    ['a', 'b', 'c'][dice.throw(3)]
}

/// Up to two stages of these.
fn any_inputs(stages: &[Stage], dice: &mut Dice) -> Vec<Input> {
    let number = dice.throw(3);
    let input = |_| Some(Input { from: dice.one(stages)?.number, all: dice.once_in(2) });
    (0..number).filter_map(input).collect()
}

fn any_files(dice: &mut Dice) -> Vec<usize> {
    (0..OUTSIDE.len()).filter(|_| dice.once_in(4)).collect()
}
