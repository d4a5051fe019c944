//! A stage again, in scratch, from nothing: no checkpoint, no other folder, no record.
//!
//! What the cache holds of the stage is left as it is. Prints nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use pipeline_stages::message::{Device, Event, Execution, Metrics, RanOn};

use super::handle::Thread;
use super::job::{with_advice, withdrawn_note};
use super::reads::Reads;
use super::spec;
use super::supervisor::{Heard, Supervisor};
use crate::cache::{Cache, Listing, Pinned, Record, StatIndex, Watch, WorkFolder};
use crate::events::{Outcome, RunEvent};
use crate::gpus::Gpu;
use crate::launcher::{Launch, Launcher, Plain};
use crate::manifest::{Manifest, Stage};
use crate::progress::Reporter;
use crate::stage_name::StageName;
use crate::worker::{self, WorkerHandle};

/// What a rerun works with.
pub(crate) struct Rerun<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) cache: &'a Cache,
    /// The stage.
    pub(crate) declaration: &'a Stage,
    /// What is recorded of it.
    pub(crate) record: &'a Record,
    /// How to run it: see [`as_recorded`].
    pub(crate) execution: Execution,
    /// The GPUs that it is handed.
    pub(crate) gpus: Vec<Gpu>,
}

/// How a rerun ended.
pub(crate) enum RerunEnd {
    /// It has a result.
    Ran(Box<Outputs>),
    Failed {
        /// Why.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// Somebody asked it to stop.
    Stopped,
}

/// The result of a rerun.
pub(crate) struct Outputs {
    /// What is in its output folder.
    pub(crate) listing: Listing,
    /// What it measured.
    pub(crate) metrics: Metrics,
    /// What it ran on, where that matters.
    pub(crate) ran_on: Option<RanOn>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// How to run a stage as its record says that it ran, where the manifest leaves it open: on another device,
/// or with another count of threads, sums have other last bits.
pub(crate) fn as_recorded(wanted: &Execution, ran_on: Option<&RanOn>) -> Execution {
    let Some(ran_on) = ran_on else { return wanted.clone() };
    let device = match (wanted.device, ran_on.device) {
        (Device::Auto, Device::Cpu) => Device::Cpu,
        // A GPU of another number will do.
        (wanted, _) => wanted,
    };
    Execution { device, threads: wanted.threads.or(ran_on.threads), ..wanted.clone() }
}

/// What the work reports.
enum RerunMessage {
    Worker(Event),
    End(anyhow::Result<RerunEnd>),
}

impl Rerun<'_> {
    /// Runs the stage, to its end, and keeps the reporter informed. The scratch folder lasts as long as what is returned.
    pub(crate) fn run(
        &self,
        record_of: impl Fn(&StageName) -> Option<Record>,
        reporter: &mut dyn Reporter,
    ) -> anyhow::Result<(WorkFolder, RerunEnd)> {
        let spec::Inputs { inputs, missing } =
            spec::inputs(self.declaration, self.cache, |input| Some(record_of(input)?.into()))?;
        self.cache.prepare().map_err(with_advice)?;
        let own = [Pinned::Key(self.record.key), Pinned::Artifact(self.record.output.digest)];
        let read = inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
        let stage = &self.declaration.name;
        let say = |text: &str| {
            reporter.event(&RunEvent::Note { stage: stage.clone(), text: text.to_owned() });
        };
        self.cache.pin(read.chain(own), say).map_err(with_advice)?;
        let mut used = inputs.iter().map(|(_, _, stored)| stored).chain([&self.record.output]);
        if let Some(gone) = used.find(|stored| !self.cache.has_artifact(&stored.digest)) {
            bail!(
                "the artifact {} is gone from the cache: run the stage first",
                gone.digest.short()
            );
        }
        let index = StatIndex::at(self.cache.layout().stat_index());
        let folder = self.manifest.folder_of(self.declaration);
        let reads = Reads::look(self.cache, self.declaration, folder, &index, &inputs)?;
        if let Some(path) = reads.other_than(&self.record.parts) {
            bail!("{path} is not what it was when the stage ran: run the stage first");
        }
        // Until now there was nothing to end.
        let mut supervisor = Supervisor::new();
        supervisor.listen()?;
        let Some(scratch) = self.cache.scratch(&self.record.key).map_err(with_advice)? else {
            bail!("the same stage is being run again by another process: wait for its end");
        };
        let checkpoint = scratch.folder_beside("checkpoint")?;
        let request =
            spec::request(self.declaration, folder, &inputs, &scratch.output(), &checkpoint);
        let request = pipeline_stages::message::Request {
            execution: self.execution.clone(),
            missing,
            ..request
        };
        let launch = Plain.launch(self.declaration.stage.info().worker, &request)?;

        let stage = self.declaration.name.clone();
        let kind = self.declaration.stage.info().name;
        reporter.event(&RunEvent::Again { stage: stage.clone(), kind });
        let watch = Arc::new(Watch::default());
        let limit = self.declaration.execution.timeout_seconds.map(Duration::from_secs);
        let work =
            RerunWork { launch, request, log: scratch.beside("log"), watch: Arc::clone(&watch) };
        let started = Instant::now();
        let handle = Thread::start(
            stage.as_str(),
            supervisor.waker(),
            |report, wanted| RerunMessage::End(work.run(report, &wanted.worker)),
            || RerunMessage::End(Err(anyhow!("internal error: its thread panicked"))),
            || RerunMessage::End(Ok(RerunEnd::Stopped)),
        )?;
        supervisor.watch(&stage, Box::new(handle), limit);
        supervisor.starts(&stage);
        let end = loop {
            match supervisor.next(reporter) {
                Heard::Report(_, RerunMessage::Worker(event)) => {
                    report_event(&stage, event, reporter)
                }
                Heard::Report(_, RerunMessage::End(end)) => break self.on_this_machine(end?),
                Heard::StopWanted => {
                    watch.stop.store(true, Ordering::Relaxed);
                    let text = "stopping (again to end it at once)".to_owned();
                    reporter.event(&RunEvent::Note { stage: stage.clone(), text });
                }
                Heard::Nothing => {}
            }
        };
        let touched = reads.touched();
        let notes = touched.damaged.iter();
        let notes = notes.filter_map(|(artifact, withdrawn)| withdrawn_note(artifact, withdrawn));
        for text in touched.notes.into_iter().chain(notes) {
            reporter.event(&RunEvent::Note { stage: stage.clone(), text });
        }
        if let Some(why) = touched.spoilt {
            bail!("{why}: the result cannot be compared");
        }
        let took = started.elapsed();
        let outcome = self.outcome(&end, took);
        let (key, is_news, ran_on) = (None, false, None);
        reporter.event(&RunEvent::End { stage, key, is_news, ran_on, outcome });
        let seconds = took.as_secs_f64();
        reporter.event(&RunEvent::Done { seconds, complete: true, detached: false });
        Ok((scratch, end))
    }

    /// With the numbers of this machine's GPUs.
    fn on_this_machine(&self, mut end: RerunEnd) -> RerunEnd {
        if let RerunEnd::Ran(outputs) = &mut end {
            outputs.ran_on = spec::on_this_machine(&self.gpus, outputs.ran_on.take());
        }
        end
    }

    fn outcome(&self, end: &RerunEnd, took: Duration) -> Outcome {
        match end {
            RerunEnd::Stopped => Outcome::Stopped,
            RerunEnd::Failed { message, log } => Outcome::Failed {
                message: message.clone(),
                log: log.clone(),
                seconds: took.as_secs_f64(),
            },
            RerunEnd::Ran(result) => Outcome::Ran {
                digest: result.listing.digest(),
                unchanged: result.listing.digest() == self.record.output.digest,
                forced: false,
                seconds: result.seconds,
                part: None,
                metrics: result.metrics.clone(),
            },
        }
    }
}

fn report_event(stage: &StageName, event: Event, reporter: &mut dyn Reporter) {
    let stage = stage.clone();
    match event {
        Event::Progress(progress) => reporter.event(&RunEvent::Progress { stage, progress }),
        Event::Measured(measured) => reporter.event(&RunEvent::Measured { stage, measured }),
        Event::Note { text } | Event::Limitation { text } => {
            reporter.event(&RunEvent::Note { stage, text })
        }
        _ => {}
    }
}

/// What happens on a thread of its own.
struct RerunWork {
    launch: Launch,
    request: pipeline_stages::message::Request,
    log: PathBuf,
    watch: Arc<Watch>,
}

impl RerunWork {
    fn run(self, report: &dyn Fn(RerunMessage), worker: &WorkerHandle) -> anyhow::Result<RerunEnd> {
        let started = Instant::now();
        let end = worker::run(self.launch, &self.request, &self.log, worker, |event| {
            report(RerunMessage::Worker(event));
        })?;
        let (metrics, ran_on) = match end {
            worker::End::Finished { metrics, ran_on, .. } => (metrics, ran_on),
            worker::End::Stopped => return Ok(RerunEnd::Stopped),
            worker::End::Failed { message, log, .. } => {
                return Ok(RerunEnd::Failed { message, log });
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        match Listing::watched(&self.request.output, &self.watch) {
            Ok(listing) => {
                Ok(RerunEnd::Ran(Box::new(Outputs { listing, metrics, ran_on, seconds })))
            }
            Err(_) if self.watch.is_stopped() => Ok(RerunEnd::Stopped),
            Err(error) => Ok(RerunEnd::Failed { message: format!("{error:#}"), log: Vec::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rerun_stays_on_the_processor_and_keeps_the_threads_where_nothing_else_is_wanted() {
        let wanted = |device, threads| Execution { device, threads, ..Execution::default() };
        let gpu = RanOn::gpu(1, Some("a GPU".to_owned()));
        for (device, threads, ran_on, expected) in [
            (Device::Auto, None, Some(RanOn::cpu(2)), (Device::Cpu, Some(2))),
            (Device::Auto, None, Some(RanOn::cpu(1).with_remark("odd")), (Device::Cpu, Some(1))),
            (Device::Auto, Some(3), Some(RanOn::cpu(2)), (Device::Cpu, Some(3))),
            (Device::Cuda(0), None, Some(RanOn::cpu(2)), (Device::Cuda(0), Some(2))),
            (Device::Auto, None, Some(gpu.clone()), (Device::Auto, None)),
            (Device::Cpu, Some(4), Some(gpu), (Device::Cpu, Some(4))),
            (Device::Auto, None, None, (Device::Auto, None)),
        ] {
            let found = as_recorded(&wanted(device, threads), ran_on.as_ref());
            assert_eq!(found, wanted(expected.0, expected.1), "{ran_on:?}");
        }
    }
}
