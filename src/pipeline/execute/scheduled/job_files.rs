//! All files of a job, read as whoever follows it reads them. For fuzzing.

use std::path::Path;

use anyhow::Context;
use pipeline_stages::message::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::advance::Advance;
use super::super::job::JobEvent;
use super::super::spec::{JobPlace, JobSpec, Left};
use super::handed_over::HandedOver;
use super::line::{JobEnding, JobLine};
use super::submitted::QueuedJob;
use crate::cache::Cache;
use crate::key::StageKey;

/// Reads JSON. What was read must be the same after it was written.
pub(crate) fn survives<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(json).ok()?;
    let written = serde_json::to_vec(&value).expect("plain data");
    let again: T = serde_json::from_slice(&written).expect("it was written");
    let again = serde_json::to_vec(&again).expect("plain data");
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&written));
    assert!(!written.contains(&b'\n'), "one a line");
    Some(value)
}

/// Makes a job with these bytes as each of its files, in an empty folder for a cache; whether one of them is valid.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn are_job_files(cache: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    let cache = Cache::open(cache)?;
    let job = cache.begin_job(&StageKey::of(&[]), bytes, std::iter::empty())?;
    let job = job.context("it is the first one")?;
    job.set_submitted(bytes)?;
    job.set_handed_over(Some(bytes))?;
    job.set_waits(Some(&String::from_utf8_lossy(bytes)))?;
    job.journal()?.add(bytes)?;
    let _ = (JobEnding::last(&job), JobEnding::recorded(&job), QueuedJob::of(&job));
    let place = JobPlace::of_job(&job.spec())?;
    let spec = survives::<JobSpec>(bytes);
    if let Some(spec) = &spec {
        assert_eq!(place, Some(spec.place.clone().unwrap_or_default()));
    }
    let valid = [
        JobSpec::read(&job.spec()).is_ok(),
        spec.is_some(),
        survives::<Left>(&cache.left(&cache.keep_left(bytes)?)?).is_some(),
        survives::<HandedOver>(bytes).is_some(),
        survives::<QueuedJob>(bytes).is_some(),
        is_journal(&job.events(0)?, &job.last_event()?),
    ];
    Ok(valid.contains(&true))
}

/// Whether a job has said something in the whole lines of its journal, of which this is the last one.
fn is_journal(lines: &[u8], last: &[u8]) -> bool {
    assert!(lines.is_empty() || lines.ends_with(b"\n"));
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    assert_eq!(lines.rsplit(|byte| *byte == b'\n').next(), Some(last));
    let mut advance = Advance::default();
    let said = lines.split(|byte| *byte == b'\n').filter_map(survives::<JobLine>);
    let said = said.inspect(|line| {
        if let JobLine::Event(JobEvent::Worker(Event::Progress(progress))) = line {
            advance.progress(progress);
            assert!((0.0..=1.0).contains(&advance.part()));
        }
    });
    said.count() > 0
}
