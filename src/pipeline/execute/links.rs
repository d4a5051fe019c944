//! The links for people to the results of a run: they are those of its plan.

use std::collections::HashSet;

use super::run::Run;
use super::states::StageState;
use crate::cache::Links;
use crate::digest::Digest;
use crate::events::{Outcome, RunEvent};
use crate::stage_name::StageName;

impl Run<'_> {
    /// Gives the experiment the links of this run: before its first stage starts, those of what is fresh; at its end
    /// (`is_over`), those of all that has a result.
    ///
    /// Stages of the manifest that this run is not about keep their links, unless they read what has another result now.
    pub(super) fn renew_links(&mut self, is_over: bool) {
        let experiment = &self.manifest.experiment.name;
        // What is only on a remote has nothing to lead to.
        let is_here = |state: &StageState| match state {
            StageState::Ended { outcome: Outcome::Remote { digest, .. }, .. } => {
                self.cache.has_artifact(digest)
            }
            _ => true,
        };
        let results =
            self.states.iter().filter(|(_, state)| is_here(state)).filter_map(|(name, state)| {
                Some((name.to_string(), state.result()?.output.digest))
            });
        let mut links: Links = results.collect();
        let stale = if is_over { self.stale() } else { HashSet::new() };
        let own: HashSet<&str> = self.states.order().iter().map(StageName::as_str).collect();
        let is_kept = |name: &StageName| !own.contains(name.as_str()) && !stale.contains(name);
        if let Some(known) = &self.links {
            let stale: HashSet<&str> = stale.iter().map(|name| name.as_str()).collect();
            let others = known
                .iter()
                .filter(|(name, _)| !own.contains(name.as_str()) && !stale.contains(name.as_str()));
            links.extend(others.map(|(name, digest)| (name.clone(), *digest)));
        } else if self.states.order().len() < self.manifest.stages.len() {
            let old = self.cache.links(experiment);
            let others = self.graph.order().filter(|name| is_kept(name));
            links.extend(
                others.filter_map(|name| Some((name.to_string(), *old.get(name.as_str())?))),
            );
        }
        let set = match &mut self.links {
            Some(known) => {
                self.cache.change_links(experiment, known, &links).inspect(|()| *known = links)
            }
            None => self.cache.set_links(experiment, &links),
        };
        // At its beginning it does not matter yet, and where a stage failed, that says what is wrong.
        if let Err(error) = set.as_ref()
            && is_over
            && !self.failed
        {
            let first = self.states.order().first().cloned();
            self.note_links(first.as_ref(), error);
        }
    }

    /// Points the link of a stage that has run at its result. What was fresh before has its link already.
    pub(super) fn link(&mut self, name: &StageName, digest: &Digest) {
        let experiment = &self.manifest.experiment.name;
        if !self.working || !self.cache.has_artifact(digest) {
            return;
        }
        match self.cache.set_link(experiment, name.as_str(), digest) {
            Ok(()) => {
                self.links.iter_mut().for_each(|links| {
                    links.insert(name.to_string(), *digest);
                });
            }
            Err(error) => self.note_links(Some(name), &error),
        }
    }

    /// The stages that read, directly or not, what does not have the result any more that it had before this run.
    fn stale(&self) -> HashSet<&StageName> {
        let is_other = |(name, state): &(&StageName, &StageState)| {
            let now = state.result().map(|result| result.output.digest);
            now.is_none() || now != self.links_before.get(name.as_str()).copied()
        };
        let changed = self.states.iter().filter(is_other).map(|(name, _)| name);
        let mut open: Vec<&StageName> = changed.collect();
        let mut stale = HashSet::new();
        while let Some(name) = open.pop() {
            for reader in self.graph.consumers(name) {
                if stale.insert(reader) {
                    open.push(reader);
                }
            }
        }
        stale
    }

    fn note_links(&mut self, stage: Option<&StageName>, error: &anyhow::Error) {
        if let Some(stage) = stage.cloned() {
            let text = format!("its link under latest/ was not renewed: {error:#}");
            self.report(RunEvent::Note { stage, text });
        }
    }
}
