//! Whether stages fit together, as far as that is known: from their parameters, and from the artifacts that exist.
//!
//! Reads no artifact itself, and of other files those that must have as many rows as there are classes.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use pipeline_stages::kind::PathForm;
use pipeline_stages::known::{Known, KnownInputs};
use pipeline_stages::matrix_file;

use super::checked::Manifest;
use super::declaration::Stage;
use super::stage::problem_mistake;
use crate::diagnostic::Mistake;
use crate::graph::Graph;
use crate::stage_name::StageName;

/// What is known of the artifacts of a manifest's stages.
pub(crate) struct Fit<'a> {
    manifest: &'a Manifest,
    graph: &'a Graph,
    /// The stages, each after its inputs.
    order: Vec<&'a StageName>,
    places: foldhash::HashMap<&'a StageName, usize>,
    /// In the same order.
    known: Vec<Known>,
    /// Whose artifact exists: what it says of itself counts, and its stage has nothing left to check.
    exists: Vec<bool>,
    /// Whose files are compared with what is known.
    planned: Vec<bool>,
    /// What is wrong with a matrix in a file over so many classes: many stages may read the same one.
    matrices: HashMap<(PathBuf, u64), Option<String>>,
}

/// A stage that does not fit to its inputs.
#[derive(Debug)]
pub(crate) struct Misfit {
    pub(crate) stage: StageName,
    /// What does not fit, at its place.
    pub(crate) mistake: Mistake,
}

impl Misfit {
    /// Their mistakes. Instances of a matrix have theirs at the same place: it is shown once, with the first point.
    pub(crate) fn mistakes(misfits: impl IntoIterator<Item = Self>) -> Vec<Mistake> {
        let mut owners: HashMap<(usize, usize), StageName> = HashMap::new();
        let mut mistakes = Vec::new();
        for Self { stage, mistake } in misfits {
            let Some(span) = mistake.span() else {
                mistakes.push(mistake);
                continue;
            };
            let owner = owners.entry((span.start, span.end)).or_insert_with(|| stage.clone());
            if *owner == stage {
                let point = stage.as_str().split_once('@').map(|(_, point)| format!("at {point}"));
                mistakes.push(mistake.help(point.unwrap_or_default()));
            }
        }
        mistakes
    }
}

impl<'a> Fit<'a> {
    /// Checks all stages. `artifact` says what is known of a stage's artifact where that exists, and `is_planned` for which stages files are read
    /// that must have as many rows as there are classes.
    pub(crate) fn check(
        manifest: &'a Manifest,
        graph: &'a Graph,
        artifact: impl Fn(&StageName) -> Option<Known>,
        is_planned: impl Fn(&StageName) -> bool,
    ) -> (Self, Vec<Misfit>) {
        let order: Vec<&StageName> = graph.order().collect();
        let places = order.iter().enumerate().map(|(place, &name)| (name, place)).collect();
        let artifacts: Vec<Option<Known>> = order.iter().map(|name| artifact(name)).collect();
        let exists = artifacts.iter().map(Option::is_some).collect();
        let known = artifacts.into_iter().map(Option::unwrap_or_default).collect();
        let planned = order.iter().map(|name| is_planned(name)).collect();
        let matrices = HashMap::new();
        let mut fit = Self { manifest, graph, order, places, known, exists, planned, matrices };
        let all = (0..fit.order.len()).collect();
        let misfits = fit.update(all);
        (fit, misfits)
    }

    /// The matrices in files that are not over the classes of their data set. What else can be wrong with a file is not known here.
    fn file_misfits_of(&mut self, declaration: &Stage, inputs: &KnownInputs) -> Vec<Misfit> {
        let Some(classes) = inputs.at("data").classes else { return Vec::new() };
        let Stage { name, stage, places, .. } = declaration;
        let paths = stage.outside_paths().into_iter();
        let matrices = paths.filter(|outside| outside.form == PathForm::Matrix);
        let misfits = matrices.filter_map(|outside| {
            let path = self.manifest.folder_of(declaration).join(&outside.path);
            let wrong = self.matrices.entry((path, classes));
            let wrong = wrong.or_insert_with_key(|(path, _)| misfit_of_matrix(path, classes));
            let span = places.find_text(outside.parameter, &outside.path, &self.manifest.sources);
            let mistake = Mistake::at(span, wrong.clone()?);
            Some(Misfit { stage: name.clone(), mistake })
        });
        misfits.collect()
    }

    /// Takes in what an artifact that exists now says of itself, and checks whatever follows from that.
    pub(crate) fn learn(&mut self, stage: &StageName, known: Known) -> Vec<Misfit> {
        let Some(&place) = self.places.get(stage) else { return Vec::new() };
        let before = self.known[place].clone();
        self.known[place] = known.or(before.clone());
        self.exists[place] = true;
        match self.known[place] == before {
            true => Vec::new(),
            false => self.update(self.readers(stage).collect()),
        }
    }

    /// Works these stages out again, each after its inputs, and those that read one of which something else is known now.
    fn update(&mut self, mut open: BTreeSet<usize>) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        while let Some(place) = open.pop_first() {
            let Some(declaration) = self.manifest.stage(self.order[place]) else { continue };
            let inputs = self.inputs(declaration);
            let from_parameters = declaration.knows(&inputs);
            let before = self.known[place].clone();
            if self.exists[place] {
                self.known[place] = before.clone().or(from_parameters);
            } else {
                self.known[place] = from_parameters;
                misfits.extend(misfits_of(declaration, &inputs));
                if self.planned[place] {
                    misfits.extend(self.file_misfits_of(declaration, &inputs));
                }
            }
            if self.known[place] != before {
                open.extend(self.readers(&declaration.name));
            }
        }
        misfits
    }

    fn readers(&self, stage: &StageName) -> impl Iterator<Item = usize> {
        let readers = self.graph.consumers(stage).into_iter();
        readers.filter_map(|reader| self.places.get(reader).copied())
    }

    fn inputs(&self, declaration: &Stage) -> KnownInputs {
        let connections = declaration.connections();
        KnownInputs::new(connections.filter_map(|(port, connection)| {
            let place = *self.places.get(&connection.from)?;
            Some((port.to_owned(), self.known[place].clone()))
        }))
    }
}

fn misfits_of(declaration: &Stage, inputs: &KnownInputs) -> Vec<Misfit> {
    let Stage { name, stage, places, .. } = declaration;
    let problems = stage.check_inputs(inputs).into_iter();
    let misfit = |problem| Misfit {
        stage: name.clone(),
        mistake: problem_mistake(stage.info(), problem, places),
    };
    problems.map(misfit).collect()
}

/// Why a matrix in a file is not one over so many classes, although it is a matrix.
fn misfit_of_matrix(path: &Path, classes: u64) -> Option<String> {
    let classes = usize::try_from(classes).ok()?;
    let found = matrix_file::check(path).ok()?;
    if found == classes {
        return None;
    }
    matrix_file::read(path, classes).err().map(|wrong| format!("{wrong:#}"))
}
