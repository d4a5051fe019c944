//! Stages that run elsewhere, as jobs of a scheduler. A thread for each executor submits them, follows them, and reports.
//!
//! A job needs nobody: it has all that it is to do in its folder in the cache, and says there what it does. Whoever follows it
//! may be killed; the next run finds the folder, and follows the job from its first word. Does not depend on the graph, or on which
//! scheduler it is.

mod alike;
mod asking;
mod cancel;
mod cancelled;
mod command;
mod desk;
mod followed;
mod handed_over;
mod hold;
#[cfg(any(test, feature = "fuzzing"))]
mod job_files;
mod knowledge;
mod last_words;
mod line;
mod patience;
mod scheduler;
mod schedulers;
mod slurm;
mod submitted;
mod terms;
mod together;
mod withdraw;

use std::ffi::OsStr;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use anyhow::{anyhow, bail};

use super::executor::{Executor, JobReport};
use super::handle::{Handle, Waker};
use super::spec::JobSpec;
use crate::cache::Cache;
use crate::deadline::Stop;
use crate::key::StageKey;
use crate::machine;
use crate::manifest::{ExecutorSettings, SchedulerSettings, Stage};
use desk::{Desk, Width};
use followed::FollowedJob;
use hold::{JobHandle, JobReporter, Wish};
use knowledge::Knowledge;
use scheduler::{Scheduler, Submission};
use schedulers::scheduler;
use slurm::{Slurm, option_lines};
use together::{Scripted, script};

pub(crate) use cancel::cancel;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use job_files::{are_job_files, survives};
pub(crate) use line::{JobEnding, JobLine};
pub(crate) use patience::PATIENCE;
pub(crate) use scheduler::{SUBMISSION_LIMIT, fits_into};
pub(crate) use schedulers::{cancel_command, keeps_to_most};
pub(crate) use submitted::QueuedJob;
pub(crate) use terms::Terms;
pub(crate) use withdraw::withdraw;

/// Runs stages as jobs of a scheduler.
pub(crate) struct Scheduled {
    orders: Sender<FollowedJob>,
    waker: Waker,
    over: Arc<Stop>,
}

impl Drop for Scheduled {
    /// Here and not on the thread, which may be in the middle of something when this process ends.
    fn drop(&mut self) {
        self.over.stop();
    }
}

impl Scheduled {
    pub(crate) fn start(terms: Terms, cache: Arc<Cache>, waker: Waker) -> anyhow::Result<Self> {
        let (orders, receiver) = channel();
        let name = terms.name.clone();
        let scheduler = scheduler(&terms.settings).into();
        let knowledge = Knowledge::new();
        let over = Arc::<Stop>::default();
        let desk = Desk {
            terms,
            cache,
            scheduler,
            knowledge,
            question: None,
            over: Arc::clone(&over),
            jobs: Vec::new(),
            width: Width::Wide,
            most: usize::MAX,
        };
        machine::spawn(&name, move || desk.work(&receiver))?;
        Ok(Self { orders, waker, over })
    }
}

impl Executor for Scheduled {
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<JobReport>>> {
        let (sender, reports) = channel();
        let wish = Wish::default();
        let reporter = JobReporter { sender, waker: self.waker.clone() };
        self.orders
            .send(FollowedJob::new(spec, reporter, wish.clone()))
            .map_err(|_| anyhow!("internal error: the thread of the executor is gone"))?;
        Ok(Box::new(JobHandle { reports, wish }))
    }
}

/// What would be submitted to Slurm for a stage.
pub(crate) struct SlurmScript {
    interpreter: &'static str,
    lines: String,
    /// `sbatch` with its options.
    pub(crate) command: Command,
}

impl SlurmScript {
    /// Without the options.
    pub(crate) fn plain(&self) -> String {
        format!("{}\n{}", self.interpreter, self.lines)
    }

    /// With the options in it, as `sbatch` reads them there.
    ///
    /// # Errors
    /// When one of them cannot be there.
    pub(crate) fn with_options(&self) -> anyhow::Result<String> {
        let options: Vec<_> = self.command.get_args().map(OsStr::to_string_lossy).collect();
        Ok(format!("{}\n{}{}", self.interpreter, option_lines(&options)?, self.lines))
    }
}

/// What would be submitted to Slurm for a stage with this key.
///
/// # Errors
/// When the executor is not one of Slurm.
pub(crate) fn slurm_script(
    cache: &Cache,
    stage: &Stage,
    executor: &str,
    settings: &ExecutorSettings,
    key: &StageKey,
) -> anyhow::Result<SlurmScript> {
    let SchedulerSettings::Slurm(own) = &settings.scheduler else {
        bail!("this is not an executor of Slurm")
    };
    let (folder, slurm) = (cache.job_place(key), Slurm(own.clone()));
    let (key, token) = (key.to_string(), "TOKEN".to_owned());
    let scripted = Scripted { folder: &folder, token: token.clone(), stage };
    let stop = &Stop::default();
    let job = Submission { stage, key, token, folder: &folder, tasks: None, others: &[], stop };
    let (command, interpreter) = (slurm.sbatch(&job), slurm.interpreter());
    let lines = script(executor, settings, None, &[scripted])?;
    Ok(SlurmScript { interpreter, lines, command })
}
