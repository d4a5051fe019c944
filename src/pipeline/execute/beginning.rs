//! What happens before the first stage of a run starts.
//!
//! A run that does nothing does none of it.

use super::options::Options;
use super::order::Weight;
use super::pools::Needs;
use super::run::Run;
use super::scheduled::keeps_to_most;
use super::share::Share;
use super::states::StageState;
use super::{forecast, job};
use crate::diagnostic::Mistakes;
use crate::events::RunEvent;
use crate::gpus::{self, Gpus};
use crate::manifest::{Fit, Misfit, Stage};
use crate::programs;
use crate::stage_name::StageName;

impl Run<'_> {
    /// What the first stage that runs needs. A run that does nothing writes nothing and listens to nobody.
    pub(super) fn begin_work(&mut self, first: &StageName) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.working, true) {
            return Ok(());
        }
        self.cache.prepare().map_err(job::with_advice)?;
        self.begin_workers(first);
        self.pin_results(first).map_err(job::with_advice)?;
        self.renew_links(false);
        self.supervisor.listen()?;
        if self.stopping() {
            self.report(RunEvent::Stopping { jobs: 0, submission: None });
        }
        Ok(())
    }

    /// Before the first stage starts: what its worker needs takes as long as what is still to be done here. Not before the cache has
    /// said who may read what this process and its children make.
    fn begin_workers(&self, first: &StageName) {
        let stage = self.manifest.stage(first);
        if let Some(stage) = stage.filter(|stage| self.options.executor_of(stage).is_none()) {
            self.launcher.begin(stage.stage.info().worker);
        }
    }

    /// Before the first stage starts: whether all that will run fits to what exists.
    pub(super) fn check_fit(&mut self) {
        let is_open = |name: &StageName| {
            self.states.get(name).is_some_and(|state| !matches!(state, StageState::Ended { .. }))
        };
        let artifact = |name: &StageName| {
            let result = self.result(name)?;
            let is_read = self.graph.consumers(name).into_iter().any(is_open);
            let known = is_read.then(|| self.known(result)).flatten();
            Some(known.unwrap_or_default())
        };
        let is_planned = |name: &StageName| self.states.get(name).is_some();
        let (fit, misfits) = Fit::check(self.manifest, self.graph, artifact, is_planned);
        self.fit = Some(fit);
        self.refuse(misfits);
    }

    /// Before the first stage starts: what the machine has, what each stage takes of it, and in which order they start.
    ///
    /// # Errors
    /// When a stage that may run takes more than there is.
    pub(super) fn share_out(&mut self) -> anyhow::Result<()> {
        let open = self.states.iter().filter_map(|(name, state)| match state {
            StageState::Ended { .. } => None,
            _ => self.manifest.stage(name),
        });
        let open: Vec<&Stage> = open.collect();
        // Nobody looks for a GPU where nothing could use it.
        let is_here = |stage: &&&Stage| self.options.executor_of(stage).is_none();
        let user = open.iter().filter(is_here).find(|stage| Share::may_use_gpus(stage));
        let user = user.map(|stage| stage.name.clone());
        let mut silent = None;
        let gpus = match user {
            Some(_) => gpus::find(|text| silent = Some(text)),
            None => Gpus { may_be_unseen: true, ..Gpus::default() },
        };
        let Options { jobs, limits, .. } = self.options;
        let share = Share::of_this_machine(*jobs, limits, gpus);
        share.check()?;
        let mistakes = open.iter().filter_map(|stage| {
            let mistake = self.place_mistake(&share, stage)?;
            Some(Misfit { stage: stage.name.clone(), mistake })
        });
        let mistakes = Misfit::mistakes(mistakes);
        if !mistakes.is_empty() {
            return Err(Mistakes::new(self.manifest.sources.clone(), mistakes).into());
        }
        let seconds = forecast::seconds(self.manifest, &self.facts, &open);
        let places = self.options.places(&share);
        let needs = |name: &StageName| {
            self.manifest.stage(name).map_or(Needs::default(), |stage| places.needs(stage))
        };
        let weight = |name: &StageName| Weight {
            priority: self.manifest.stage(name).map_or(0, |stage| stage.execution.priority.into()),
            seconds: seconds.get(name).copied(),
        };
        let depths = places.depths(|settings| !keeps_to_most(settings));
        self.states.share_out(depths, needs, weight);
        self.share = Some(share);
        let silent = user.zip(silent);
        let missing = programs::missing(self.manifest, open.iter().filter(is_here).copied());
        let mut notes: Vec<(StageName, String, usize)> = Vec::new();
        for Misfit { stage, mistake } in missing {
            match notes.iter_mut().find(|(_, title, _)| title == mistake.title()) {
                Some((_, _, others)) => *others += 1,
                None => notes.push((stage, mistake.title().to_owned(), 0)),
            }
        }
        let notes = notes.into_iter().map(|(stage, title, others)| {
            let others = match others {
                0 => String::new(),
                1 => " (and 1 other stage)".to_owned(),
                others => format!(" (and {others} other stages)"),
            };
            (stage, format!("warning: {title}{others}"))
        });
        for (stage, text) in silent.into_iter().chain(notes) {
            self.report(RunEvent::Note { stage, text });
        }
        Ok(())
    }
}
