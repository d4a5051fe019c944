//! What a stage reads, before it runs and after: its inputs in the store, and files outside the cache. Its key says what
//! they hold, and a result that was made from anything else must not be recorded under it.
//!
//! Does not depend on how the stage is run. Prints nothing.

use std::path::Path;

use pipeline_stages::message::Input;

use crate::cache::{
    Cache, InputFolder, Listing, Quarantined, Snapshot, StatIndex, Stored, Touch, Withdrawn,
};
use crate::difference::{Difference, Differences};
use crate::digest::Digest;
use crate::key::KeyPart;
use crate::manifest::Stage;
use crate::outside::{Outside, OutsidePlaces};

/// What a stage reads, as it was before it ran.
pub(crate) struct Reads<'a> {
    cache: &'a Cache,
    declaration: &'a Stage,
    folder: &'a Path,
    index: &'a StatIndex,
    outside: Vec<Outside>,
    inputs: Vec<(String, Digest, Snapshot)>,
}

/// What happened meanwhile to what a stage reads.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Why its result cannot be kept: what it read is not what its key says.
    pub(crate) spoilt: Option<String>,
    /// What is worth a line, and nothing more.
    pub(crate) notes: Vec<String>,
    /// The inputs that are damaged, each with what no longer counts because it was made from it.
    pub(crate) damaged: Vec<(Digest, Vec<Withdrawn>)>,
}

impl<'a> Reads<'a> {
    /// Looks at everything that a stage reads. `folder` is the one of the manifest.
    pub(crate) fn look(
        cache: &'a Cache,
        declaration: &'a Stage,
        folder: &'a Path,
        index: &'a StatIndex,
        inputs: &[(String, Input, Stored)],
    ) -> anyhow::Result<Self> {
        let outside = OutsidePlaces::of(declaration).look(folder, cache, index)?;
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

    /// Whether as much is in each of these artifacts, which it looked at, as when it was made.
    pub(crate) fn have_extents_of(&self, inputs: &[(String, Input, Stored)]) -> bool {
        let mut both = self.inputs.iter().zip(inputs);
        both.all(|((.., was), (_, _, stored))| was.extent() == Some(stored.extent))
    }

    /// The first file or folder outside the cache that is not what it was when the key was made of `parts`.
    pub(crate) fn other_than<'p>(&self, parts: &'p [KeyPart]) -> Option<&'p str> {
        parts.iter().find_map(|part| {
            let KeyPart::Outside { index, path, digest } = part else { return None };
            let now = self.outside.get(*index);
            now.is_none_or(|now| now.digest() != *digest).then_some(path.as_str())
        })
    }

    /// Whether it is so little that to recheck everything takes no time worth mentioning.
    pub(crate) fn are_few(&self) -> bool {
        const MOST: usize = 64;
        let outside = self.outside.iter().map(Outside::count);
        let inputs = self.inputs.iter().map(|(_, _, was)| was.count());
        outside.chain(inputs).sum::<usize>() <= MOST
    }

    /// Rechecks everything. An input that is damaged now is moved to the quarantine.
    pub(crate) fn touched(&self) -> Touched {
        let mut touched = Touched::default();
        let mut spoilt = Vec::new();
        match OutsidePlaces::of(self.declaration).look(self.folder, self.cache, self.index) {
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
            if !now.is_ok_and(|now| matches!(was.touch(&now), Touch::None)) {
                spoilt.extend(self.damage(port, *digest, &mut touched.damaged));
            }
        }
        touched.spoilt = (!spoilt.is_empty()).then(|| spoilt.join("; "));
        touched
    }

    /// What happened to an input, going by its bytes. `None` if they are as they were. All that was made from it is withdrawn,
    /// however long ago: what the stage wrote may hide that the same file was damaged before, when others read it.
    fn damage(
        &self,
        port: &str,
        digest: Digest,
        damaged: &mut Vec<(Digest, Vec<Withdrawn>)>,
    ) -> Option<String> {
        let whole = Listing::read(&self.cache.layout().listing(&digest), &digest);
        let now = Listing::of(&self.cache.artifact(&digest)).ok();
        let files = whole.zip(now).map(|(whole, now)| whole.differences(&now));
        let what = match self.cache.quarantine_if_rewritten(&digest) {
            Ok(None) => return None,
            Err(error) => {
                return Some(format!("its input '{port}' could not be checked: {error:#}"));
            }
            Ok(Some(Quarantined { place, withdrawn })) => {
                damaged.push((digest, withdrawn));
                match place {
                    None => "it is gone".to_owned(),
                    Some(_) => {
                        let files = files.and_then(Differences::of).map(|files| files.to_string());
                        let files = files.unwrap_or("other content".to_owned());
                        format!(
                            "{files}; it is in quarantine/ now, and is made again when it is needed"
                        )
                    }
                }
            }
        };
        Some(format!(
            "the stage, or something beside it, wrote into its input '{port}' ({what}); a stage must leave its inputs as they are"
        ))
    }

    /// The inputs that were read, to record a result that was made from them.
    pub(crate) fn inputs(&self) -> Vec<InputFolder> {
        let folder = |(_, digest, was): &(String, Digest, Snapshot)| {
            Some(InputFolder { digest: *digest, top: was.top()? })
        };
        self.inputs.iter().filter_map(folder).collect()
    }

    /// Keeps what the files outside the cache are made of, for a later plan to say which of them changed.
    pub(crate) fn keep(&self) {
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
