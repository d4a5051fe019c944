//! The loop that every training shares: epochs and steps, checkpoints, being stopped, going on again.
//!
//! What it is fed is prepared ahead where a GPU computes, so that neither waits for the other. Knows
//! no method: what a step does, and what has to outlive an interruption, is the method's affair. It writes the log of
//! a training: what it runs on, and a line for each epoch.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::worker::{Context, Stopped};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::batches::ahead;
use crate::checkpoint::{Checkpoints, Due};
use crate::epoch_log::{EpochLog, Values};

/// Batches that are prepared ahead for a GPU.
pub const BATCHES_AHEAD: usize = 3;
/// Time between two reports of a run on a GPU: each one waits for it.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Steps of the whole run. It may end within an epoch.
    pub steps: u64,
    /// Steps of a pass over the samples.
    pub steps_per_epoch: u64,
}

impl Budget {
    /// So many passes over the samples.
    ///
    /// # Errors
    /// When nobody can count that far.
    pub fn of_epochs(epochs: u32, steps_per_epoch: u64) -> anyhow::Result<Self> {
        let steps = u64::from(epochs).checked_mul(steps_per_epoch);
        let steps = steps.context("this training is too long: set fewer epochs")?;
        Ok(Self { steps, steps_per_epoch })
    }

    /// Passes over the samples; the last one may be cut short.
    pub fn epochs(self) -> u64 {
        self.steps.div_ceil(self.steps_per_epoch.max(1))
    }
}

/// A place within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Steps before this one, over all epochs.
    pub step: u64,
    /// The length of the run.
    pub budget: Budget,
}

impl At {
    /// The epoch, from 0.
    pub fn epoch(self) -> u64 {
        self.step / self.budget.steps_per_epoch
    }

    /// The step within the epoch, from 0.
    pub fn step_of_epoch(self) -> u64 {
        self.step % self.budget.steps_per_epoch
    }

    /// Steps of the whole run.
    pub fn steps(self) -> u64 {
        self.budget.steps
    }

    /// Whether this step is the last one of its epoch: all samples were seen, or the run is over.
    pub fn ends_epoch(self) -> bool {
        self.step_of_epoch() + 1 == self.budget.steps_per_epoch || self.ends_run()
    }

    /// Whether this step is the last one of the run.
    pub fn ends_run(self) -> bool {
        self.step + 1 == self.budget.steps
    }
}

/// What a method is fed. Depends on nothing that a step changes.
pub trait Feed: Sync {
    /// A prepared batch.
    type Batch: Send;

    /// The samples of an epoch's batches.
    ///
    /// # Errors
    /// When they cannot be drawn.
    fn batches(&self, epoch: u32) -> anyhow::Result<Vec<Vec<u32>>>;

    /// Prepares the batch of one step.
    ///
    /// # Errors
    /// When a sample cannot be read, or libtorch cannot make its tensors.
    fn prepare(
        &self,
        epoch: u32,
        step_of_epoch: u32,
        batch: Vec<u32>,
    ) -> anyhow::Result<Self::Batch>;
}

/// A method of training.
pub trait Method {
    /// A prepared batch.
    type Batch: Send;
    /// What has to outlive an interruption beside tensors.
    type Progress: Serialize + DeserializeOwned;

    /// Where it computes.
    fn device(&self) -> Device;

    /// Every tensor that a step changes, each under a name of its own.
    fn tensors(&self) -> Vec<(String, &Tensor)>;

    /// What has to outlive an interruption beside tensors.
    fn progress(&self) -> &Self::Progress;

    /// Takes over the progress of an interrupted run, whose tensors are back already.
    fn resume(&mut self, progress: Self::Progress);

    /// One step.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn step(&mut self, batch: Self::Batch, at: At) -> anyhow::Result<()>;

    /// What follows on a step: an evaluation, the end of an epoch. It calls `pause` between its parts
    /// with itself as it was before; after an interruption it is called again.
    ///
    /// # Errors
    /// As [`Method::step`], and those of `pause`.
    fn after_step(
        &mut self,
        at: At,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;

    /// Tells how far it is. `at` is the step that was done last.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn report(&self, at: At) -> anyhow::Result<()>;

    /// What was measured in an epoch, counted from 0, for the log. `None` for one that is not over.
    fn epoch_values(&self, epoch: u64) -> Option<Values>;

    /// Whether it ends before its budget does.
    fn finished(&self) -> bool {
        false
    }

    /// Whether work that can be interrupted follows on the training, so that its end is worth a checkpoint.
    fn more_follows(&self) -> bool {
        false
    }
}

/// How far a run is: what the header of a checkpoint holds.
#[derive(Serialize, Deserialize)]
struct Reached<P> {
    /// Steps done.
    steps: u64,
    /// Steps done, and what follows on them.
    settled: u64,
    method: P,
}

/// Trains to the end of the budget.
///
/// `parameters` tell the checkpoints of this run from those of others. Tells the record what it ran on, once that is
/// settled: a resumed run keeps its threads.
///
/// # Errors
/// With [`Stopped`] after a checkpoint when asked to stop; else as the method's own.
pub fn run<M: Method>(
    method: &mut M,
    feed: &impl Feed<Batch = M::Batch>,
    budget: Budget,
    context: &Context,
    parameters: &impl Serialize,
) -> anyhow::Result<()> {
    ensure!(budget.steps_per_epoch > 0, "there are no samples to train on");
    let mut checkpoints = Checkpoints::new(context, parameters, method.device())?;
    let reached = checkpoints.restore::<Reached<M::Progress>>(&method.tensors())?;
    let log = EpochLog::new(context, budget.epochs());
    let mut position = Position { steps: 0, settled: 0, checkpoints, context, log };
    if let Some(reached) = reached {
        (position.steps, position.settled) = (reached.steps, reached.settled);
        method.resume(reached.method);
        // A log is of one process: what an earlier one wrote is repeated, as far as it is known.
        for (epoch, values) in (0..).map_while(|epoch| Some((epoch, method.epoch_values(epoch)?))) {
            position.log.earlier(epoch, &values);
        }
        let continues = format!("continues after step {} of {}", position.steps, budget.steps);
        context.log(&continues);
        context.note(continues);
    }
    if position.settled < position.steps {
        settle(method, &mut position, budget)?;
    }
    while !method.finished() && position.steps < budget.steps {
        epoch(method, feed, budget, &mut position)?;
    }
    if method.more_follows() { position.save(method) } else { Ok(()) }
}

/// Where a run is, and its checkpoints.
struct Position<'a> {
    steps: u64,
    settled: u64,
    checkpoints: Checkpoints<'a>,
    context: &'a Context,
    log: EpochLog<'a>,
}

impl Position<'_> {
    /// Between two pieces of work: writes a checkpoint when it is time, and leaves when asked to.
    fn pause(&mut self, method: &impl Method) -> anyhow::Result<()> {
        let due = self.checkpoints.due();
        if due != Due::Nothing {
            match self.save(method) {
                // The work so far is worth more than what a checkpoint may save later.
                Err(error) if due == Due::Checkpoint => {
                    self.context.note(format!("the training continues without it: {error:#}"));
                }
                saved => saved?,
            }
        }
        if due == Due::Stop {
            return Err(Stopped.into());
        }
        Ok(())
    }

    fn save(&mut self, method: &impl Method) -> anyhow::Result<()> {
        let (steps, settled) = (self.steps, self.settled);
        let reached = Reached { steps, settled, method: method.progress() };
        self.checkpoints.save(&reached, &method.tensors())
    }
}

/// The rest of the epoch that the run is in.
fn epoch<M: Method>(
    method: &mut M,
    feed: &impl Feed<Batch = M::Batch>,
    budget: Budget,
    position: &mut Position<'_>,
) -> anyhow::Result<()> {
    let at = At { step: position.steps, budget };
    let epoch = u32::try_from(at.epoch())?;
    let batches = feed.batches(epoch)?;
    ensure!(
        batches.len() as u64 == budget.steps_per_epoch,
        "an epoch has another number of steps than the others"
    );
    let left = usize::try_from(budget.steps - position.steps)?;
    let rest =
        batches.into_iter().enumerate().skip(usize::try_from(at.step_of_epoch())?).take(left);
    let prepared = rest.map(|(step, batch)| {
        let images = batch.len();
        Ok::<_, anyhow::Error>((images, feed.prepare(epoch, u32::try_from(step)?, batch)?))
    });
    position.log.begin();
    let on_gpu = method.device() != Device::Cpu;
    let mut reported = Instant::now();
    ahead(if on_gpu { BATCHES_AHEAD } else { 0 }, prepared, |batches| {
        for batch in batches {
            position.pause(method)?;
            let at = At { step: position.steps, budget };
            let (images, batch) = batch?;
            method.step(batch, at)?;
            position.steps += 1;
            position.log.saw(images);
            if !on_gpu || at.ends_run() || reported.elapsed() >= REPORT_INTERVAL {
                method.report(at)?;
                reported = Instant::now();
            }
            settle(method, position, budget)?;
            if method.finished() {
                break;
            }
        }
        Ok(())
    })
}

/// What follows on the last step.
fn settle(
    method: &mut impl Method,
    position: &mut Position<'_>,
    budget: Budget,
) -> anyhow::Result<()> {
    let last = At { step: position.steps - 1, budget };
    method.after_step(last, &mut |method| position.pause(method))?;
    position.settled = position.steps;
    if (last.ends_epoch() || method.finished())
        && let Some(values) = method.epoch_values(last.epoch())
    {
        position.log.end(last.epoch(), &values);
    }
    Ok(())
}

/// Fails when a loss says that training diverged.
///
/// # Errors
/// With what to try.
pub fn check_finite(loss: f64, at: At, learning_rate: f64) -> anyhow::Result<()> {
    ensure!(
        loss.is_finite(),
        "the loss is {loss} at epoch {}, step {}: training diverged; \
         try a smaller learning-rate (it is {learning_rate}) or a longer warmup",
        at.epoch() + 1,
        at.step_of_epoch() + 1,
    );
    Ok(())
}
