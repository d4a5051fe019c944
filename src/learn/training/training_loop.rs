//! The loop that every training shares: epochs and steps, checkpoints, being stopped, going on again.
//!
//! Batches are prepared ahead where a GPU computes, so that neither waits for the other. Does not depend on what is
//! trained: what a step does, and what has to outlive an interruption, is up to the [`Trainer`]. It writes the log of
//! a training: what it runs on, and a line for each epoch.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::worker::{Context, Stopped};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::data::batches::StepSamples;
use crate::training::checkpoint::{Checkpoints, Due};
use crate::training::epoch_log::{EpochLog, Values};
use crate::training::prefetch::prefetch;

/// Batches that are prepared ahead for a GPU.
pub const BATCHES_AHEAD: usize = 3;
/// Time between two reports of a run on a GPU: each one waits for it.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLength {
    /// Steps of the whole run. It may end within an epoch.
    pub steps: u64,
    /// Steps of a pass over the samples.
    pub steps_per_epoch: u64,
}

impl RunLength {
    /// This many passes over the samples.
    ///
    /// # Errors
    /// When the steps cannot be counted in 64 bits.
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
pub struct StepPosition {
    /// Steps before this one, over all epochs.
    pub step: u64,
    /// The length of the run.
    pub length: RunLength,
}

impl StepPosition {
    /// The epoch, from 0.
    pub fn epoch(self) -> u64 {
        self.step / self.length.steps_per_epoch
    }

    /// The step within the epoch, from 0.
    pub fn step_of_epoch(self) -> u64 {
        self.step % self.length.steps_per_epoch
    }

    /// Steps of the whole run.
    pub fn steps(self) -> u64 {
        self.length.steps
    }

    /// Whether this step is the last one of its epoch: all samples were seen, or the run is over.
    pub fn ends_epoch(self) -> bool {
        self.step_of_epoch() + 1 == self.length.steps_per_epoch || self.ends_run()
    }

    /// Whether this step is the last one of the run.
    pub fn ends_run(self) -> bool {
        self.step + 1 == self.length.steps
    }
}

/// Where batches come from. Depends on nothing that a step changes.
pub trait BatchSource: Sync {
    /// A prepared batch.
    type Batch: Send;

    /// Prepares the batch of one step.
    ///
    /// # Errors
    /// When a sample cannot be read, or libtorch cannot make its tensors.
    fn prepare(
        &self,
        epoch: u32,
        step_of_epoch: u32,
        samples: StepSamples,
    ) -> anyhow::Result<Self::Batch>;
}

/// A training.
pub trait Trainer {
    /// A prepared batch.
    type Batch: Send;
    /// What has to outlive an interruption beside tensors.
    type Progress: Serialize + DeserializeOwned;

    /// Where it computes.
    fn device(&self) -> Device;

    /// Every tensor that a step changes, each under a name of its own.
    fn state_tensors(&self) -> Vec<(String, &Tensor)>;

    /// What has to outlive an interruption beside tensors.
    fn progress(&self) -> &Self::Progress;

    /// Takes over the progress of an interrupted run, whose tensors are back already.
    fn resume(&mut self, progress: Self::Progress);

    /// The samples of the steps of an epoch. The same when the epoch is asked for again, within it.
    ///
    /// # Errors
    /// When they cannot be drawn.
    fn samples(&self, epoch: u32) -> anyhow::Result<Vec<StepSamples>>;

    /// One step.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn step(&mut self, batch: Self::Batch, at: StepPosition) -> anyhow::Result<()>;

    /// What follows on a step: an evaluation, the end of an epoch. It calls `pause` between its parts
    /// with itself as it was before; after an interruption it is called again.
    ///
    /// # Errors
    /// As [`Trainer::step`], and those of `pause`.
    fn after_step(
        &mut self,
        at: StepPosition,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;

    /// Reports how far it is. `at` is the step that was done last.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn report(&self, at: StepPosition) -> anyhow::Result<()>;

    /// What was measured in an epoch, counted from 0, for the log. `None` for one that is not over.
    fn epoch_values(&self, epoch: u64) -> Option<Values>;

    /// Whether it ends before its length is reached.
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
    finished: u64,
    trainer: P,
}

/// Trains to the end of the length.
///
/// `parameters` distinguish the checkpoints of this run from those of others. The record says what it ran on, once that is
/// known: a resumed run keeps its threads.
///
/// # Errors
/// With [`Stopped`] after a checkpoint when asked to stop; else as the trainer's own.
pub fn run<T: Trainer>(
    trainer: &mut T,
    source: &impl BatchSource<Batch = T::Batch>,
    length: RunLength,
    context: &Context,
    parameters: &impl Serialize,
) -> anyhow::Result<()> {
    ensure!(length.steps_per_epoch > 0, "there are no samples to train on");
    let mut checkpoints = Checkpoints::new(context, parameters, trainer.device())?;
    let reached = checkpoints.restore::<Reached<T::Progress>>(&trainer.state_tensors())?;
    let log = EpochLog::new(context, length.epochs());
    let mut run = Run { steps: 0, finished: 0, length, checkpoints, context, log };
    if let Some(reached) = reached {
        (run.steps, run.finished) = (reached.steps, reached.finished);
        trainer.resume(reached.trainer);
        // A log is of one process: what an earlier one wrote is repeated, as far as it is known.
        for (epoch, values) in (0..).map_while(|epoch| Some((epoch, trainer.epoch_values(epoch)?)))
        {
            run.log.earlier(epoch, &values);
        }
        let continues = format!("continues after step {} of {}", run.steps, length.steps);
        context.log(&continues);
        context.note(continues);
    }
    if run.finished < run.steps {
        run.finish_step(trainer)?;
    }
    while !trainer.finished() && run.steps < length.steps {
        run.epoch(trainer, source)?;
    }
    if trainer.more_follows() { run.save(trainer) } else { Ok(()) }
}

/// Where a run is, and its checkpoints.
struct Run<'a> {
    /// Steps done.
    steps: u64,
    /// Steps done, and what follows on them.
    finished: u64,
    length: RunLength,
    checkpoints: Checkpoints<'a>,
    context: &'a Context,
    log: EpochLog<'a>,
}

impl Run<'_> {
    /// The rest of the epoch that the run is in.
    fn epoch<T: Trainer>(
        &mut self,
        trainer: &mut T,
        source: &impl BatchSource<Batch = T::Batch>,
    ) -> anyhow::Result<()> {
        let at = self.next_step();
        let epoch = u32::try_from(at.epoch())?;
        let samples = trainer.samples(epoch)?;
        ensure!(
            samples.len() as u64 == self.length.steps_per_epoch,
            "an epoch has another number of steps than the others"
        );
        let left = usize::try_from(self.length.steps - self.steps)?;
        let rest =
            samples.into_iter().enumerate().skip(usize::try_from(at.step_of_epoch())?).take(left);
        let prepared = rest.map(|(step, samples)| {
            let images = samples.train.indices.len();
            Ok::<_, anyhow::Error>((images, source.prepare(epoch, u32::try_from(step)?, samples)?))
        });
        self.log.begin();
        let on_gpu = trainer.device() != Device::Cpu;
        let mut reported = Instant::now();
        prefetch(if on_gpu { BATCHES_AHEAD } else { 0 }, prepared, |batches| {
            for batch in batches {
                self.pause(trainer)?;
                let at = self.next_step();
                let (images, batch) = batch?;
                trainer.step(batch, at)?;
                self.steps += 1;
                self.log.saw(images);
                if !on_gpu || at.ends_run() || reported.elapsed() >= REPORT_INTERVAL {
                    trainer.report(at)?;
                    reported = Instant::now();
                }
                self.finish_step(trainer)?;
                if trainer.finished() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn next_step(&self) -> StepPosition {
        StepPosition { step: self.steps, length: self.length }
    }

    /// What follows on the last step.
    fn finish_step(&mut self, trainer: &mut impl Trainer) -> anyhow::Result<()> {
        let last = StepPosition { step: self.steps - 1, length: self.length };
        trainer.after_step(last, &mut |trainer| self.pause(trainer))?;
        self.finished = self.steps;
        if (last.ends_epoch() || trainer.finished())
            && let Some(values) = trainer.epoch_values(last.epoch())
        {
            self.log.end(last.epoch(), &values);
        }
        Ok(())
    }

    /// Between two pieces of work: writes a checkpoint when it is time, and leaves when asked to.
    fn pause(&mut self, trainer: &impl Trainer) -> anyhow::Result<()> {
        let due = self.checkpoints.due();
        if due != Due::Nothing {
            match self.save(trainer) {
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

    fn save(&mut self, trainer: &impl Trainer) -> anyhow::Result<()> {
        let (steps, finished) = (self.steps, self.finished);
        let reached = Reached { steps, finished, trainer: trainer.progress() };
        self.checkpoints.save(&reached, &trainer.state_tensors())
    }
}

/// Fails when a loss says that training diverged.
///
/// # Errors
/// With what to try.
pub fn check_finite(loss: f64, at: StepPosition, learning_rate: f64) -> anyhow::Result<()> {
    ensure!(
        loss.is_finite(),
        "the loss is {loss} at epoch {}, step {}: training diverged; \
         try a smaller learning-rate (it is {learning_rate}) or a longer warmup",
        at.epoch() + 1,
        at.step_of_epoch() + 1,
    );
    Ok(())
}
