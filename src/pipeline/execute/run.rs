//! A run in progress: what it has before it, and what it knows by now. What is done about it is in the files beside this one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use pipeline_stages::known::Known;

use super::executor::{Executor, JobReport};
use super::options::Options;
use super::share::Share;
use super::states::{StageState, StageStates};
use super::supervisor::Supervisor;
use crate::cache::{Cache, KnownResult, Links, Withdrawn};
use crate::digest::Digest;
use crate::events::RunEvent;
use crate::facts::CacheFacts;
use crate::graph::Graph;
use crate::key::StageKey;
use crate::launcher::Many;
use crate::manifest::{Fit, Manifest};
use crate::progress::Reporter;
use crate::stage_name::StageName;

/// What a run has before it, and what it knows by now.
pub(super) struct Run<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) graph: &'a Graph,
    pub(super) cache: &'a Arc<Cache>,
    pub(super) facts: CacheFacts<'a>,
    pub(super) options: &'a Options,
    pub(super) reporter: &'a mut dyn Reporter,
    pub(super) states: StageStates,
    /// What there is of the machine, once something starts.
    pub(super) share: Option<Share>,
    pub(super) supervisor: &'a mut Supervisor<JobReport>,
    /// Starts the workers of stages that run here.
    pub(super) launcher: Arc<Many>,
    /// Runs stages here.
    pub(super) executor: Rc<dyn Executor>,
    /// Run stages as jobs of schedulers, by name, once a stage has started there.
    pub(super) scheduled: BTreeMap<String, Rc<dyn Executor>>,
    /// The name of what is left to jobs, once the first of them has started.
    pub(super) left: Option<Digest>,
    /// Whether it waits for none of its jobs any more.
    pub(super) leaves: Arc<AtomicBool>,
    /// The keys that had jobs elsewhere when the run began. Those whose results are there now have ended, and nobody has seen it.
    pub(super) jobs: HashSet<StageKey>,
    /// What the machine cannot do, as far as it was said.
    pub(super) limitations: BTreeSet<String>,
    /// Per stage that runs, the damaged artifacts that its job found, each with what no longer counts.
    pub(super) damaged: BTreeMap<StageName, Vec<(Digest, Vec<Withdrawn>)>>,
    /// How often a stage was tried that has failed and has not ended: it may be tried again.
    ///
    /// Here and not in the body of a job: an attempt that runs alone waits for all that others have taken of the machine. A
    /// job that runs elsewhere is one attempt.
    pub(super) attempts: HashMap<StageName, u32>,
    /// When the stages have begun that run elsewhere, as far as they have: before that, they are in a queue.
    pub(super) begun: HashMap<StageName, Instant>,
    /// The keys that failed in this run, each with its stages and their reasons.
    pub(super) failures: HashMap<StageKey, Vec<(StageName, String)>>,
    /// Of these, those that another stage ran again, with the last one: the log and the output that are kept are its own.
    pub(super) ran_again: HashMap<StageKey, StageName>,
    /// The keys that ran in this run, each with its stage.
    pub(super) ran: HashMap<StageKey, StageName>,
    /// What is known of all artifacts, once something starts.
    pub(super) fit: Option<Fit<'a>>,
    pub(super) failed: bool,
    pub(super) working: bool,
    /// The stage that was looked at last, and when, once something runs.
    pub(super) seen: Option<(StageName, Instant)>,
    /// The generation of the cache before the run looked into it.
    pub(super) generation: String,
    /// The links for people when the run began, where it is not about all stages.
    pub(super) links_before: Links,
    /// Those that there are now, where they are known.
    pub(super) links: Option<Links>,
}

impl Run<'_> {
    /// Whether a stage may still start.
    pub(super) fn starts_more(&self) -> bool {
        !self.stopping() && (!self.failed || self.options.keep_going)
    }

    pub(super) fn result(&self, name: &StageName) -> Option<&KnownResult> {
        self.states.get(name).and_then(StageState::result)
    }

    /// What the artifact of a result says of itself.
    pub(super) fn known(&self, result: &KnownResult) -> Option<Known> {
        self.cache.known(result.artifact, &result.output.digest)
    }

    pub(super) fn stopping(&self) -> bool {
        self.supervisor.stopping()
    }

    pub(super) fn report(&mut self, event: RunEvent) {
        self.reporter.event(&event);
    }
}
