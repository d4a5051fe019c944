//! Messages between an orchestrator and its workers, and the files of jobs in the queue of a scheduler.

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    let files = pipeline::fuzzing::read_job_files(scratch.path(), bytes);
    pipeline::fuzzing::read_messages(bytes) | files.expect("a scratch folder can be written")
}
