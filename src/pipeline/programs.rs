//! Programs that stages need and that this machine does not have: known before anything runs.
//!
//! Only reports what is missing; a program may still be made by a stage that runs before.

use std::collections::{HashMap, HashSet};

use pipeline_prepare::missing_program;
use pipeline_stages::WorkerProgram;

use crate::diagnostic::Mistake;
use crate::launcher::missing_learn_program;
use crate::lint::command_of;
use crate::manifest::{Manifest, Misfit, Stage};

/// The stages that could not start now, of these, which run here: of instances that need the same program at the same place, the first.
pub(crate) fn missing<'a>(
    manifest: &'a Manifest,
    here: impl IntoIterator<Item = &'a Stage>,
) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let (mut seen, mut reported) = (HashMap::new(), HashSet::new());
    let mut learns = false;
    for stage in here {
        let found = match command_of(stage) {
            Some(command) => {
                let folder = manifest.folder_of(stage);
                let searched =
                    (folder, command.searched_program(), command.environment.get("PATH"));
                let missing =
                    seen.entry(searched).or_insert_with(|| missing_program(command, folder));
                let (key, item) =
                    if command.shell.is_some() { ("shell", None) } else { ("run", Some(0)) };
                missing.clone().map(|title| (title, stage.places.find(key, item)))
            }
            None if learns || stage.stage.info().worker != WorkerProgram::Learn => None,
            None => {
                learns = true;
                missing_learn_program().map(|title| (title, stage.places.find("kind", None)))
            }
        };
        if let Some((title, place)) = found
            && reported.insert((place.start, place.end, title.clone()))
        {
            let mistake = Mistake::at(place, title);
            misfits.push(Misfit { stage: stage.name.clone(), mistake });
        }
    }
    misfits
}
