//! What a stage reads, before it runs and after: its inputs in the store, and files outside the cache. Its key says what
//! they hold, and a result that was made from anything else must not be recorded under it.
//!
//! Does not depend on how the stage is run. Prints nothing.

use std::path::Path;

use pipeline_stages::message::Input;

use crate::cache::{Cache, Check, Damage, Snapshot, StatIndex, Stored, Touch, Verdict, Watch};
use crate::difference::{Difference, Differences};
use crate::facts::Outside;
use crate::key::Part;
use crate::manifest::StageDeclaration;

/// What a stage reads, as it was before it ran.
pub struct Reads<'a> {
    cache: &'a Cache,
    declaration: &'a StageDeclaration,
    folder: &'a Path,
    index: &'a StatIndex,
    outside: Vec<Outside>,
    inputs: Vec<(String, Stored, Snapshot)>,
}

/// What happened meanwhile to what a stage reads.
#[derive(Debug, Default)]
pub struct Touched {
    /// Why its result says nothing: what it read is not what its key says.
    pub spoilt: Option<String>,
    /// What is worth a line, and nothing more.
    pub notes: Vec<String>,
}

impl<'a> Reads<'a> {
    /// Looks at everything that a stage reads. `folder` is the one of the manifest.
    ///
    /// # Errors
    /// When something can't be read.
    pub fn look(
        cache: &'a Cache,
        declaration: &'a StageDeclaration,
        folder: &'a Path,
        index: &'a StatIndex,
        inputs: &[(String, Input, Stored)],
    ) -> anyhow::Result<Self> {
        let outside = Outside::look(declaration, folder, cache, index)?;
        let snapshot = |(port, input, stored): &(String, Input, Stored)| {
            let name = match &input.name {
                Some(name) => format!("{port}.{name}"),
                None => port.clone(),
            };
            Ok((name, *stored, Snapshot::of_artifact(&input.path)?))
        };
        let inputs = inputs.iter().map(snapshot).collect::<anyhow::Result<_>>()?;
        Ok(Self { cache, declaration, folder, index, outside, inputs })
    }

    /// The first file or folder outside the cache that is not what it was when the key was made of `parts`.
    pub fn other_than<'p>(&self, parts: &'p [Part]) -> Option<&'p str> {
        parts.iter().find_map(|part| {
            let Part::Outside { index, path, digest } = part else { return None };
            let now = self.outside.get(*index);
            now.is_none_or(|now| now.digest() != *digest).then_some(path.as_str())
        })
    }

    /// Looks again at everything. An input that is damaged now is moved to the quarantine.
    pub fn touched(&self) -> Touched {
        let mut touched = Touched::default();
        let mut spoilt = Vec::new();
        match Outside::look(self.declaration, self.folder, self.cache, self.index) {
            Err(error) => spoilt.push(format!("a file changed while the stage read it: {error:#}")),
            Ok(now) => {
                for (was, is) in self.outside.iter().zip(&now) {
                    let path = &was.path;
                    match was.touch(is) {
                        Touch::None => {}
                        Touch::Status => touched.notes.push(format!(
                            "{path} has another change time (ctime) than before the stage ran, and the same bytes"
                        )),
                        Touch::Content(all) => spoilt.push(changed(path, all)),
                    }
                }
            }
        }
        for (port, stored, was) in &self.inputs {
            // Whoever removed it, or made it unreadable, is found when its bytes are looked at.
            let written = match Snapshot::of_artifact(&self.cache.artifact(&stored.digest)) {
                Ok(now) => match was.touch(&now) {
                    Touch::None => continue,
                    Touch::Status => Vec::new(),
                    Touch::Content(written) => written,
                },
                Err(_) => Vec::new(),
            };
            spoilt.extend(self.damage(port, stored, &written, &mut touched.notes));
        }
        touched.spoilt = (!spoilt.is_empty()).then(|| spoilt.join("; "));
        touched
    }

    /// What happened to an input, going by its bytes. `None` if they are as they were. `written` is what was written
    /// to while the stage ran, going by the stat.
    fn damage(
        &self,
        port: &str,
        stored: &Stored,
        written: &[Difference],
        notes: &mut Vec<String>,
    ) -> Option<String> {
        let check = Check::new(self.cache.layout(), [stored.digest]);
        let (_, verdict) = check.run(&Watch::default()).pop()?;
        let what = match verdict {
            Verdict::Intact(_) => return None,
            Verdict::Gone => "it is gone".to_owned(),
            Verdict::Unreadable(why) => why,
            Verdict::Damaged(Damage { files, moved }) => {
                let is_new = |one: &Difference| written.iter().any(|other| other.path == one.path);
                if !files.as_ref().is_some_and(|files| files.iter().all(is_new)) {
                    notes.extend(self.withdraw(stored));
                }
                let files = files.and_then(Differences::of);
                let files = files.map_or("other content".to_owned(), |files| files.to_string());
                match moved {
                    Ok(_) => format!(
                        "{files}; it is in quarantine/ now, and is made again when it is needed"
                    ),
                    Err(why) => format!("{files}; {why}"),
                }
            }
        };
        Some(format!(
            "the stage, or something beside it, wrote into its input '{port}' ({what}); a stage must leave its inputs as they are"
        ))
    }

    /// An input that was damaged before the stage began: what else was made from it may be wrong too. What was only
    /// written to now was whole until then, and so is what was made from it.
    fn withdraw(&self, stored: &Stored) -> Option<String> {
        match self.cache.withdraw_made_from(&[stored.digest]) {
            Ok(withdrawn) => {
                let names: Vec<_> = withdrawn.iter().map(|one| one.record.name()).collect();
                let names = (!names.is_empty()).then(|| names.join(", "))?;
                Some(format!(
                    "no longer counted, as made from the damaged artifact {}: {names}",
                    stored.digest.short()
                ))
            }
            Err(error) => Some(format!(
                "what was made from the damaged artifact {} could not be withdrawn: {error:#}",
                stored.digest.short()
            )),
        }
    }

    /// Keeps what the files outside the cache are made of, for a later plan to say which of them changed.
    pub fn keep(&self) {
        self.outside.iter().for_each(|outside| outside.keep(self.cache));
    }
}

fn changed(path: &str, all: Vec<Difference>) -> String {
    let whole = all.iter().all(|one| one.path.as_os_str().is_empty());
    match Differences::of(all).filter(|_| !whole) {
        Some(differences) => format!("{path} changed while the stage read it ({differences})"),
        None => format!("{path} changed while the stage read it"),
    }
}
