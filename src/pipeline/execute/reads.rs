//! What a stage reads, before it runs and after: its inputs in the store, and files outside the cache. Its key says what
//! they hold, and a result that was made from anything else must not be recorded under it.
//!
//! Does not depend on how the stage is run. Prints nothing.

use std::path::Path;

use pipeline_stages::message::Input;

use crate::cache::{Cache, Listing, Quarantined, Snapshot, StatIndex, Stored, Touch, Withdrawn};
use crate::difference::{Difference, Differences};
use crate::digest::Digest;
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
    inputs: Vec<(String, Digest, Snapshot)>,
}

/// What happened meanwhile to what a stage reads.
#[derive(Debug, Default)]
pub struct Touched {
    /// Why its result says nothing: what it read is not what its key says.
    pub spoilt: Option<String>,
    /// What is worth a line, and nothing more.
    pub notes: Vec<String>,
    /// The inputs that are damaged, each with what no longer counts because it was made from it.
    pub damaged: Vec<(Digest, Vec<Withdrawn>)>,
}

impl<'a> Reads<'a> {
    /// Looks at everything that a stage reads. `folder` is the one of the manifest.
    ///
    /// # Errors
    /// When something cannot be read.
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
            Ok((name, stored.digest, Snapshot::of_artifact(&input.path)?))
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

    /// Rechecks everything. An input that is damaged now is moved to the quarantine.
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
        for (port, digest, was) in &self.inputs {
            // Whoever removed it, or made it unreadable, is found when its bytes are looked at.
            let now = Snapshot::of_artifact(&self.cache.artifact(digest));
            if now.is_ok_and(|now| was.touch(&now) == Touch::None) {
                continue;
            }
            spoilt.extend(self.damage(port, *digest, &mut touched.damaged));
        }
        touched.spoilt = (!spoilt.is_empty()).then(|| spoilt.join("; "));
        touched
    }

    /// What happened to an input, going by its bytes. `None` if they are as they were. What was made from it is withdrawn:
    /// another stage may have read it when it was damaged already.
    fn damage(
        &self,
        port: &str,
        digest: Digest,
        damaged: &mut Vec<(Digest, Vec<Withdrawn>)>,
    ) -> Option<String> {
        let whole = Listing::read(&self.cache.layout().listing(&digest), &digest);
        let what = match self.cache.quarantine_if_rewritten(&digest) {
            Ok(None) => return None,
            Ok(Some(Quarantined { place, withdrawn })) => {
                damaged.push((digest, withdrawn));
                match place {
                    None => "it is gone".to_owned(),
                    Some(place) => {
                        let now = Listing::of(&place).ok();
                        let files = whole.zip(now).map(|(whole, now)| whole.differences(&now));
                        let files = files.and_then(Differences::of).map(|files| files.to_string());
                        let files = files.unwrap_or("other content".to_owned());
                        format!(
                            "{files}; it is in quarantine/ now, and is made again when it is needed"
                        )
                    }
                }
            }
            Err(error) => format!("{error:#}"),
        };
        Some(format!(
            "the stage, or something beside it, wrote into its input '{port}' ({what}); a stage must leave its inputs as they are"
        ))
    }

    /// Whether each input is still the one that was read, once the result is recorded: somebody who found one damaged after
    /// [`Reads::touched`] could not know of the record, so it is withdrawn here. Returns what is.
    ///
    /// # Errors
    /// When a record cannot be moved.
    pub fn withdraw_spoilt(&self) -> anyhow::Result<Vec<(Digest, Vec<Withdrawn>)>> {
        let mut damaged = Vec::new();
        for (_, digest, was) in &self.inputs {
            let withdrawn = self.cache.withdraw_unless(digest, || {
                let now = Snapshot::of_artifact(&self.cache.artifact(digest));
                now.is_ok_and(|now| was.is_of_same_folder(&now))
            })?;
            if !withdrawn.is_empty() {
                damaged.push((*digest, withdrawn));
            }
        }
        Ok(damaged)
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
