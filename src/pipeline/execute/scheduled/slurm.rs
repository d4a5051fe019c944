//! Slurm: `sbatch`, `squeue`, `scancel`. Works without accounting, and asks for all jobs at once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use rustix::process::getuid;

use super::scheduler::{
    Arrays, Cause, Ended, JobState, SUBMISSION_LIMIT, Scheduler, Submission, Tasks, Trouble, ask, ask_until, clock,
    cpus,
};
use crate::deadline::Stop;
use crate::manifest::{Failing, SlurmSettings, WHOLE_GPU};

/// How long each of its other commands may take. Where the controller is away, `squeue` would not come back for long.
const LIMIT: Duration = Duration::from_secs(20);

/// What jobs have of the environment of whoever submits them, where it is set.
const EXPORTED: &str = "PATH,HOME,USER,LOGNAME,LANG,LD_LIBRARY_PATH,PIPELINE_LEARN";

/// So many seconds before its time is up, a job is told to write its checkpoint. Slurm may do so a minute earlier.
const WARNING: &str = "--signal=B:USR1@120";

/// What its commands say when the controller does not answer. What they were asked for may have been done.
const AWAY: [&str; 8] = [
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "temporarily unable to accept job",
    "Connection refused",
    "Connection timed out",
    "backup controller",
    "Resource temporarily unavailable",
];

/// With this, it refuses what it has no room for now, and also what it never takes as it asks for too much.
const LIMITED: &str = "Job violates accounting/QOS policy";
/// What is in the names of limits on how many jobs there are: `QOSMaxSubmitJobPerUserLimit`. Others have no such name.
const COUNTED: &str = "Submit";
const LIMIT_NAMES: [&str; 2] = ["Limit", "Per"];

/// Where the output of an array goes.
const NOWHERE: &str = "/dev/null";

/// The most tasks of an array. Slurm takes 1000 unless its administrator says otherwise, and the locks of all are held meanwhile.
const MOST_TASKS: usize = 200;

/// The administrator of a cluster may not let nodes do that.
const RENAME: &str = "scontrol update \"JobId=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\" \"JobName=$pipeline_name\" \"Comment=pipeline $pipeline_key $pipeline_array\"";

/// Why jobs wait of which nobody needs to think.
const ORDINARY: [&str; 10] = [
    "",
    "None",
    "(null)",
    "Priority",
    "Resources",
    "Dependency",
    "BeginTime",
    "JobArrayTaskLimit",
    "Prolog",
    "Cleaning",
];

/// What `squeue` says when it is asked for one job that has been gone for minutes.
const FORGOTTEN: &str = "Invalid job id specified";

/// Asks the commands of Slurm.
pub(super) struct Slurm(pub(super) SlurmSettings);

impl Scheduler for Slurm {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        let mut command = self.sbatch(job);
        command.arg(job.folder.script());
        let printed = ask_until(job.stop, command, SUBMISSION_LIMIT);
        let printed = printed.map_err(|trouble| match with_away(trouble) {
            Trouble::Refused(words) => refusal(words),
            other => other,
        })?;
        // `ID;CLUSTER` where there are several clusters.
        let id = printed.lines().last().unwrap_or_default();
        let id = id.split(';').next().unwrap_or_default().trim();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Trouble::Refused(format!("sbatch did not print an id, but '{printed}'")));
        }
        Ok(id.to_owned())
    }

    fn states(&self, ids: &[String], stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        // Of an array all tasks at once; and jobs of other people, too: whoever shares a cache shares them.
        let jobs: BTreeSet<&str> = ids.iter().map(|id| array_of(id)).collect();
        let jobs: Vec<&str> = jobs.into_iter().collect();
        let lines = match queue(&[format!("--jobs={}", jobs.join(","))], stop) {
            // That is its answer where it has forgotten the only one.
            Err(trouble) if trouble.words().contains(FORGOTTEN) => String::new(),
            answer => answer?,
        };
        let known = lines.lines().filter_map(|line| {
            let (id, state, _) = listed(line)?;
            Some((id.to_owned(), state))
        });
        let known: HashMap<String, JobState> = known.collect();
        Ok(known.into_iter().filter(|(id, _)| ids.contains(id)).collect())
    }

    fn cancel(&self, ids: &[String]) -> Result<(), Trouble> {
        let mut command = Command::new("scancel");
        command.args(ids);
        match asked(command, LIMIT) {
            Err(Trouble::Refused(words)) if words.lines().all(is_about_an_ended_job) => Ok(()),
            other => other.map(drop),
        }
    }

    /// A shell that has read the files of the user, for `module`.
    fn interpreter(&self) -> &'static str {
        "#!/bin/bash -l"
    }

    fn requeue(&self) -> Option<&'static str> {
        // The number of one of its tasks is that of the array, too.
        Some(
            "exec scontrol requeue \"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}\"",
        )
    }

    fn arrays(&self) -> Option<Arrays> {
        Some(Arrays { most: MOST_TASKS, index: "SLURM_ARRAY_TASK_ID", rename: RENAME })
    }

    fn by_token(&self) -> Result<HashMap<String, String>, Trouble> {
        let lines = queue(&[], &Stop::default())?;
        let known = lines.lines().filter_map(listed);
        let live = known.filter(|(_, state, _)| !matches!(state, JobState::Ended(_)));
        // The token is one of the words.
        let words = live.flat_map(|(id, _, comment)| {
            comment.split(' ').map(move |word| (word.to_owned(), array_of(id).to_owned()))
        });
        Ok(words.collect())
    }

    fn has_jobs(&self) -> Result<bool, Trouble> {
        let mut command = Command::new("squeue");
        // By the numbers that tasks of arrays have in their environment, too.
        command.args(["--noheader", "--format=%A"]).arg(format!("--user={}", getuid().as_raw()));
        let own = std::env::var("SLURM_JOB_ID").ok();
        Ok(has_others(&asked(command, LIMIT)?, own.as_deref()))
    }
}

impl Slurm {
    /// `sbatch` with the options for a job.
    pub(super) fn sbatch(&self, job: &Submission<'_>) -> Command {
        let mut command = Command::new("sbatch");
        // `--export` does not keep these from the new job: from within another job they would be those of that one, and it would
        // ask for that one's requeue and take that one's cores for its own.
        for (name, _) in std::env::vars_os() {
            let is_of_a_job = name.as_encoded_bytes().starts_with(b"SLURM_");
            if is_of_a_job && name != "SLURM_CONF" && name != "SLURM_CLUSTERS" {
                command.env_remove(name);
            }
        }
        command.args(self.options(job));
        command
    }

    /// What the user wrote comes last, and wins.
    fn options(&self, job: &Submission<'_>) -> Vec<String> {
        let SlurmSettings { partition, time, options } = &self.0;
        let takes = &job.stage.execution.takes;
        let (name, comment, output) = match job.tasks {
            // An option is text. The script has its output there by itself.
            None => (
                job.stage.name.as_str(),
                job.key.as_str(),
                job.folder.output().to_str().unwrap_or(NOWHERE).replace('%', "%%"),
            ),
            // Each says in its own folder what it prints, and no folder of theirs lasts for as long as all of them.
            Some(_) => (job.stage.name.template(), "array", NOWHERE.to_owned()),
        };
        let own_time = job.stage.execution.time.map(clock);
        let mut all = vec![
            "--parsable".to_owned(),
            format!("--job-name={name}"),
            format!("--comment=pipeline {comment} {}", job.token),
            format!("--output={output}"),
            "--open-mode=append".to_owned(),
            format!("--export={EXPORTED}"),
            WARNING.to_owned(),
            "--requeue".to_owned(),
        ];
        let mut option = |name: &str, value: Option<String>| {
            all.extend(value.map(|value| format!("--{name}={value}")));
        };
        option(
            "array",
            job.tasks.map(|Tasks { count, at_once }| {
                let limit = at_once.map_or(String::new(), |at_once| format!("%{at_once}"));
                format!("0-{}{limit}", count.saturating_sub(1))
            }),
        );
        option("partition", partition.clone());
        option("time", own_time.or_else(|| time.clone()));
        option("cpus-per-task", cpus(job.stage).map(|cpus| cpus.to_string()));
        option("mem", takes.memory.map(|bytes| format!("{}M", bytes.div_ceil(1 << 20))));
        let gpus = takes.gpus.filter(|parts| *parts > 0);
        option("gpus", gpus.map(|parts| parts.div_ceil(WHOLE_GPU).to_string()));
        all.extend(options.iter().cloned());
        all
    }
}

/// How a person cancels jobs in a shell.
pub(super) fn cancel_command(ids: &[String]) -> String {
    format!("scancel {}", ids.join(" "))
}

/// These options as lines of a script, each with the word after it that is its value.
///
/// # Errors
/// When one has a line break in it, which no line can have.
pub(super) fn option_lines(options: &[Cow<'_, str>]) -> anyhow::Result<String> {
    let mut lines = String::new();
    for option in options {
        if option.contains('\n') {
            bail!("a script cannot have the option {option:?}: there is a line break in it");
        }
        lines += if option.starts_with('-') { "\n#SBATCH " } else { " " };
        lines += &quoted(option);
    }
    Ok(lines.trim_start().to_owned() + "\n")
}

/// A word as `sbatch` reads it in a script: a space ends it, and `#` the line, outside of quotes.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_special = |letter: char| letter.is_whitespace() || "\"'\\#".contains(letter);
    if !word.is_empty() && !word.contains(is_special) {
        return word.into();
    }
    let value = |value: &str| format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""));
    match word.split_once('=') {
        Some((name, rest)) if !name.contains(is_special) => {
            format!("{name}={}", value(rest)).into()
        }
        _ => value(word).into(),
    }
}

/// All jobs, also those that ended a few minutes ago, as far as these options choose them.
fn queue(options: &[String], stop: &Stop) -> Result<String, Trouble> {
    let mut command = Command::new("squeue");
    command.args(["--noheader", "--states=all", "--array", "--format=%i|%T|%r|%k"]).args(options);
    // Whatever it says instead of an answer, the jobs go on.
    ask_until(stop, command, LIMIT).map_err(|trouble| Trouble::Away(trouble.words().to_owned()))
}

fn asked(command: Command, limit: Duration) -> Result<String, Trouble> {
    ask(command, limit).map_err(with_away)
}

/// The same; a command that fails may say that it had no answer.
fn with_away(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused(words) if AWAY.iter().any(|away| words.contains(away)) => {
            Trouble::Away(words)
        }
        other => other,
    }
}

/// What these words of a refusal mean.
fn refusal(words: String) -> Trouble {
    let (general, others): (Vec<_>, Vec<_>) =
        words.lines().partition(|line| line.contains(LIMITED));
    let others = others.into_iter().flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
    let limits: Vec<&str> = others.filter(|word| is_limit(word)).collect();
    if limits.iter().any(|limit| limit.contains(COUNTED)) {
        Trouble::Full(words)
    } else if limits.is_empty() && !general.is_empty() {
        Trouble::MayBeFull(words)
    } else {
        Trouble::Refused(words)
    }
}

/// Whether this is the name of a limit, and not a word of a sentence that begins like a part of one, "Permission" say.
fn is_limit(word: &str) -> bool {
    LIMIT_NAMES.iter().any(|part| word.find(part).is_some_and(|place| place > 0))
}

/// Whether there are jobs among these numbers beside this one.
fn has_others(numbers: &str, own: Option<&str>) -> bool {
    numbers.split_whitespace().any(|number| Some(number) != own)
}

/// What a line of that says: the id, the state, and the comment.
fn listed(line: &str) -> Option<(&str, JobState, &str)> {
    let mut fields = line.splitn(4, '|');
    let (id, state, reason) = (fields.next()?, state(fields.next()?), fields.next()?);
    // "JobHeldUser", "JobHoldMaxRequeue", "launch failed requeued held".
    let is_held = ["held", "hold"].iter().any(|word| reason.to_lowercase().contains(word));
    let state = match state {
        JobState::Queued(_) if is_held => {
            let reason = reason.replace('_', " ");
            JobState::Held(format!("{reason}; `scontrol release {id}` lets it go"))
        }
        JobState::Queued(_) if !ORDINARY.contains(&reason) => {
            JobState::Queued(Some(reason.to_owned()))
        }
        state => state,
    };
    Some((id, state, fields.next()?))
}

/// The array of a task, or the job itself.
fn array_of(id: &str) -> &str {
    id.split('_').next().unwrap_or(id)
}

fn is_about_an_ended_job(line: &str) -> bool {
    ["already completing or completed", "Invalid job id"].iter().any(|words| line.contains(words))
}

/// What a state of Slurm means.
fn state(word: &str) -> JobState {
    let ended = |words: &str, failing, cause| {
        JobState::Ended(Ended { words: words.to_owned(), failing, cause })
    };
    let (job, machine) = (Cause::Job, Cause::Machine);
    match word {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD"
        | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => JobState::Queued(None),
        // Also of one that was killed on its node.
        "COMPLETED" => ended("ended without a result", None, job),
        "FAILED" | "REVOKED" => ended(&format!("ended without a result ({word})"), None, job),
        "CANCELLED" => ended("was cancelled", Some(Failing::Failure), Cause::Person),
        "TIMEOUT" | "DEADLINE" => {
            ended("was ended: its time was up", Some(Failing::Timeout), machine)
        }
        "NODE_FAIL" | "BOOT_FAIL" => {
            ended("was lost: its node failed", Some(Failing::Signal), machine)
        }
        "PREEMPTED" => ended("was preempted", Some(Failing::Signal), machine),
        "OUT_OF_MEMORY" => ended(
            "was ended: it took more memory than it had ('memory' of its execution says how much)",
            Some(Failing::OutOfMemory),
            job,
        ),
        // RUNNING, SUSPENDED, COMPLETING, and what later versions have.
        _ => JobState::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_slurm_requeues_has_not_failed() {
        for word in ["PENDING", "REQUEUED", "CONFIGURING", "REQUEUE_HOLD"] {
            assert_eq!(state(word), JobState::Queued(None), "{word}");
        }
        for word in ["RUNNING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "A_LATER_STATE"] {
            assert_eq!(state(word), JobState::Running, "{word}");
        }
    }

    #[test]
    fn a_job_that_is_held_is_not_only_queued() {
        let release =
            |why: &str| JobState::Held(format!("{why}; `scontrol release 5_1` lets it go"));
        for (line, expected) in [
            ("5_1|PENDING|launch failed requeued held|a b", release("launch failed requeued held")),
            ("5_1|PENDING|JobHeldAdmin|a b", release("JobHeldAdmin")),
            ("5_1|PENDING|JobHoldMaxRequeue|a b", release("JobHoldMaxRequeue")),
            ("5_1|PENDING|BeginTime|a b", JobState::Queued(None)),
            (
                "5_1|PENDING|PartitionTimeLimit|a b",
                JobState::Queued(Some("PartitionTimeLimit".to_owned())),
            ),
            ("5_1|RUNNING|None|a b", JobState::Running),
        ] {
            assert_eq!(listed(line), Some(("5_1", expected, "a b")), "{line}");
        }
        assert_eq!(listed("slurm_load_jobs error"), None);
    }

    #[test]
    fn ends_are_told_apart() {
        for (word, expected) in [
            ("COMPLETED", (None, Cause::Job)),
            ("FAILED", (None, Cause::Job)),
            ("CANCELLED", (Some(Failing::Failure), Cause::Person)),
            ("TIMEOUT", (Some(Failing::Timeout), Cause::Machine)),
            ("NODE_FAIL", (Some(Failing::Signal), Cause::Machine)),
            ("PREEMPTED", (Some(Failing::Signal), Cause::Machine)),
            ("OUT_OF_MEMORY", (Some(Failing::OutOfMemory), Cause::Job)),
        ] {
            let JobState::Ended(ended) = state(word) else { panic!("{word}") };
            assert_eq!((ended.failing, ended.cause), expected, "{word}");
        }
    }

    #[test]
    fn options_in_a_script_are_what_they_are_on_a_command_line() {
        let options = [
            "--mem=2G",
            "--gres",
            "gpu:1",
            "--job-name=a b",
            "--wckey=it's \"x\"",
            r"-Ca\b",
            "--x=#1",
        ];
        let lines = option_lines(&options.map(Cow::from)).expect("each is one line");
        let expected = r##"
#SBATCH --mem=2G
#SBATCH --gres gpu:1
#SBATCH --job-name="a b"
#SBATCH --wckey="it's \"x\""
#SBATCH "-Ca\\b"
#SBATCH --x="#1"
"##;
        assert_eq!(lines, expected.trim_start());
        assert!(option_lines(&["a\nb".into()]).is_err());
    }

    #[test]
    fn a_limit_on_how_many_there_are_may_pass_and_no_other_one() {
        let general = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
        let full: fn(String) -> Trouble = Trouble::Full;
        let may_be: fn(String) -> Trouble = Trouble::MayBeFull;
        let refused: fn(String) -> Trouble = Trouble::Refused;
        for (limit, expected) in [
            ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n", full),
            ("sbatch: error: AssocMaxSubmitJobLimit\n", full),
            ("sbatch: error: AssocGrpSubmitJobsLimit\n", full),
            ("sbatch: error: MaxSubmitJobsPerAccount\n", full),
            ("sbatch: error: QOSMaxWallDurationPerJobLimit\n", refused),
            ("sbatch: error: QOSMaxGRESPerJob\n", refused),
            // What a plugin of its administrator says before that.
            (
                "sbatch: Permission to use gpu; TimeLimit set\nsbatch: error: AssocMaxSubmitJobLimit\n",
                full,
            ),
            ("sbatch: Performance of (Permission) and Limit\n", may_be),
            // It does not say which.
            ("", may_be),
        ] {
            let words = format!("{limit}{general}");
            assert_eq!(refusal(words.clone()), expected(words), "{limit}");
        }
        let words = "sbatch: error: Invalid partition name specified".to_owned();
        assert_eq!(refusal(words.clone()), Trouble::Refused(words));
    }

    #[test]
    fn the_job_in_which_a_run_is_is_not_another_one() {
        for (numbers, own, expected) in [
            ("", None, false),
            ("71\n", None, true),
            ("71\n", Some("71"), false),
            ("71\n712\n", Some("71"), true),
        ] {
            assert_eq!(has_others(numbers, own), expected, "{numbers} {own:?}");
        }
    }

    #[test]
    fn only_jobs_that_have_ended_cannot_be_cancelled() {
        let words =
            "scancel: error: Kill job error on job id 5: Job/step already completing or completed";
        assert!(is_about_an_ended_job(words));
        assert!(!is_about_an_ended_job(
            "scancel: error: Kill job error on job id 5: Access/permission denied"
        ));
    }
}
