//! What is handed to a scheduler at once: a job, or ready instances of a stage that take the same, as the tasks of an array.
//!
//! Each of them has its folder before that, and the right to submit it is held for all. The script says which task is which job:
//! a scheduler keeps it for as long as one of them can start.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;

use super::super::job::JobEnd;
use super::super::spec::JobPlace;
use super::alike::Alike;
use super::desk::{Desk, Width};
use super::followed::FollowedJob;
use super::handed_over::{HandedOver, id_of};
use super::hold::Wish;
use super::last_words::NOT_BEGUN;
use super::patience::submit_patiently;
use super::scheduler::{Arrays, Submission, Tasks, Trouble};
use super::terms::Terms;
use crate::cache::{JobFolder, Lock};
use crate::launcher::JOB_SUBCOMMAND;
use crate::manifest::{ExecutorSettings, Stage};
use crate::shell;

/// A job that is about to be submitted.
struct Member {
    /// Its place among those of the desk.
    place: usize,
    folder: JobFolder,
    /// The right to submit it.
    _lock: Lock,
}

impl Desk {
    /// How many jobs more than there are may be made now: as many as run at once, or all that are ready where none is there yet, which
    /// then go as one array with that limit. An array counts as those of its tasks that may run.
    pub(super) fn room(&self) -> usize {
        let made = self.jobs.iter().filter(|job| job.is_made()).count();
        self.free().map_or(usize::MAX, |free| free.saturating_sub(made))
    }

    /// How many of its jobs a scheduler with arrays may still take. `None` for all.
    fn free(&self) -> Option<usize> {
        self.scheduler.arrays()?;
        let most = self.most_at_once()?;
        let is_wide = self.width == Width::Wide;
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for array in self.jobs.iter().filter_map(FollowedJob::array) {
            *sizes.entry(array).or_default() += 1;
        }
        let counted = |size: &usize| if is_wide { (*size).min(most) } else { *size };
        let taken: usize = sizes.values().map(counted).sum();
        (taken > 0 || !is_wide).then(|| most.saturating_sub(taken))
    }

    /// How many of its jobs run at once, where that is limited.
    fn most_at_once(&self) -> Option<usize> {
        self.terms.settings.max_jobs.map(|most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Submits what is made, as far as there is room for it, and ends those that are refused.
    pub(super) fn submit(&mut self) {
        let mut ended = self.take_up_lost();
        self.end(&mut ended);
        let most = match self.scheduler.arrays() {
            Some(arrays) if self.width != Width::One => arrays.most,
            _ => 1,
        };
        let places = (0..self.jobs.len()).filter(|&place| self.jobs[place].is_made());
        let mut made: Vec<usize> = places.collect();
        made.sort_by_cached_key(|&place| self.knowledge.turn(self.jobs[place].stage()));
        loop {
            // Each submission takes a while, and somebody may want to stop meanwhile.
            made.retain(|&place| self.jobs[place].is_made());
            let Some(&first) = made.first() else { break };
            let (free, width, at_once) = (self.free().unwrap_or(usize::MAX), self.width, self.most);
            if free == 0 || self.knowledge.takes_none() {
                break;
            }
            let like = Alike::of(self.jobs[first].stage());
            let (mut together, others): (Vec<_>, Vec<_>) =
                made.into_iter().partition(|&place| Alike::of(self.jobs[place].stage()) == like);
            made = together.split_off(together.len().min(free).min(most).min(at_once));
            made.extend(others);
            ended.extend(self.submit_together(&together));
            // The next time.
            if self.width != width || self.most < at_once {
                break;
            }
        }
        self.end(&mut ended);
    }

    /// Ends these.
    fn end(&mut self, ended: &mut Vec<(usize, JobEnd)>) {
        ended.sort_unstable_by_key(|(place, _)| *place);
        for (place, end) in ended.drain(..).rev() {
            self.jobs.remove(place).report_end(&self.cache, end);
        }
    }

    /// Takes up what was handed over without a receipt, where the scheduler has it: it is asked once for all of them. Returns those that
    /// end by that, with how.
    fn take_up_lost(&mut self) -> Vec<(usize, JobEnd)> {
        if self.knowledge.takes_none() {
            return Vec::new();
        }
        let places = (0..self.jobs.len()).filter(|&place| self.jobs[place].may_be_submitted());
        let places: Vec<usize> = places.collect();
        let (lost, mut ended) = self.lock(&places);
        if lost.is_empty() {
            return ended;
        }
        let known = match self.scheduler.by_token() {
            Ok(known) => known,
            Err(trouble) => {
                self.jobs[lost[0].place].reporter.note(format!(
                    "the executor '{}' does not say whether it has it: {}; it is asked again",
                    self.terms.name,
                    trouble.words()
                ));
                self.knowledge.took_none(Instant::now());
                return ended;
            }
        };
        for Member { place, folder, _lock } in lost {
            let job = &mut self.jobs[place];
            let looked = job.look_for(&self.terms, folder, &known, &self.knowledge);
            ended.extend(looked.err().map(|error| (place, failed(error))));
        }
        ended
    }

    /// The right to submit these, as far as nobody else has it; and those of which that cannot be told, with how they end.
    fn lock(&mut self, places: &[usize]) -> (Vec<Member>, Vec<(usize, JobEnd)>) {
        let (mut members, mut ended) = (Vec::new(), Vec::new());
        for &place in places {
            match self.jobs[place].lock_to_submit(&self.cache) {
                Ok(Some((lock, folder))) => members.push(Member { place, folder, _lock: lock }),
                Ok(None) => {}
                Err(error) => ended.push((place, failed(error))),
            }
        }
        (members, ended)
    }

    /// Submits these. Returns those that end by that, with how.
    fn submit_together(&mut self, places: &[usize]) -> Vec<(usize, JobEnd)> {
        let (mut members, mut ended) = self.lock(places);
        // Another run has handed these over meanwhile.
        members.retain(|member| !self.jobs[member.place].may_be_submitted());
        if members.is_empty() {
            return ended;
        }
        let is_array = members.len() > 1;
        let waits = self.most_at_once().is_some_and(|most| members.len() > most);
        match self.hand_over(&members) {
            Ok(Ok(taken)) => {
                for (index, Member { place, folder, _lock }) in members.into_iter().enumerate() {
                    let id = id_of(&taken, is_array.then_some(index));
                    let job = &mut self.jobs[place];
                    let remembered = job.was_taken(&self.terms, folder, id, &self.knowledge);
                    ended.extend(remembered.err().map(|error| (place, failed(error))));
                }
                self.most = self.most.saturating_mul(2);
                self.knowledge.has_taken_one(&Alike::of(self.jobs[places[0]].stage()));
                self.knowledge.is_old();
            }
            // There may be a limit on how many jobs of somebody wait.
            Ok(Err(Trouble::Refused(_) | Trouble::Full(_) | Trouble::MayBeFull(_))) if waits => {
                self.width = Width::Narrow;
                ended.extend(forget(&members));
            }
            Ok(Err(Trouble::Full(_) | Trouble::MayBeFull(_))) if is_array => {
                self.most = members.len() / 2;
                ended.extend(forget(&members));
            }
            Ok(Err(trouble @ (Trouble::Full(_) | Trouble::MayBeFull(_))))
                if self.may_have_room(&trouble, members[0].place) =>
            {
                ended.extend(forget(&members));
            }
            // Its administrator may want no arrays.
            Ok(Err(Trouble::Refused(words)))
                if is_array && words.to_lowercase().contains("array") =>
            {
                self.width = Width::One;
                ended.extend(forget(&members));
            }
            Ok(Err(trouble @ (Trouble::Refused(_) | Trouble::Full(_) | Trouble::MayBeFull(_)))) => {
                let end = || JobEnd::failed(refused(&self.terms.name, &trouble));
                ended.extend(members.into_iter().map(|Member { place, folder, .. }| {
                    (place, folder.remove().map_or_else(failed, |()| end()))
                }));
            }
            Ok(Err(trouble @ Trouble::Away(_))) => {
                let first = &self.jobs[members[0].place];
                // Otherwise it is given up next, with a word about that.
                if first.is_made() {
                    let words = refused(&self.terms.name, &trouble);
                    first.reporter.note(format!("{words}; it is asked again"));
                }
                self.knowledge.took_none(Instant::now());
            }
            Err(error) => {
                let message = format!("{error:#}");
                let end = |member: Member| (member.place, JobEnd::failed(message.clone()));
                ended.extend(members.into_iter().map(end));
            }
        }
        ended
    }

    /// Whether a scheduler that has no room for this job alone may have some later: it says so, has others of this user, or had some when
    /// it refused this one last. Otherwise it never takes this one.
    fn may_have_room(&mut self, trouble: &Trouble, place: usize) -> bool {
        let job = &self.jobs[place];
        let may_be_full = matches!(trouble, Trouble::MayBeFull(_));
        // One that does not say it is asked again.
        let is_empty = may_be_full && self.scheduler.has_jobs().is_ok_and(|has_some| !has_some);
        if !may_be_full {
            self.knowledge.took_none(Instant::now());
        } else if self.knowledge.may_be_full(Alike::of(job.stage()), job.key(), is_empty) {
            return false;
        }
        self.most = 1;
        if !is_empty && !std::mem::replace(&mut self.knowledge.was_full, true) {
            let words = refused(&self.terms.name, trouble);
            job.reporter.note(format!("{words}; it is asked again when others have ended"));
        }
        true
    }

    /// Lets the scheduler take these; the id of the job or of the array.
    fn hand_over(&self, members: &[Member]) -> anyhow::Result<Result<String, Trouble>> {
        let Terms { name, settings, .. } = &self.terms;
        let (first, scheduler) = (&self.jobs[members[0].place], &self.scheduler);
        let array = scheduler.arrays().filter(|_| members.len() > 1);
        let token = match array {
            Some(_) => JobPlace::new(name, None).token,
            None => first.token(),
        };
        let jobs = members.iter().map(|Member { place, folder, .. }| {
            let job = &self.jobs[*place];
            Scripted { folder, token: job.token(), stage: job.stage() }
        });
        let lines =
            script(name, settings, array.map(|array| (array, &*token)), &jobs.collect::<Vec<_>>())?;
        let folder = &members[0].folder;
        folder.write_script(&format!("{}\n{lines}", scheduler.interpreter()))?;
        for (index, member) in members.iter().enumerate() {
            // Whatever starts the job would make it a file of its own account alone, and a later job of the folder may be another one's.
            member.folder.open_output()?;
            let handed = HandedOver { token: token.clone(), index: array.map(|_| index) };
            member.folder.set_handed_over(Some(&serde_json::to_vec(&handed)?))?;
        }
        let count = members.len();
        let at_once = self.most_at_once().filter(|most| *most < count);
        let tasks = array.map(|_| Tasks { count, at_once });
        let (stage, key) = (first.stage(), first.key().to_string());
        let others: Vec<String> = self.jobs.iter().filter_map(FollowedJob::id).collect();
        let wishes: Vec<Wish> =
            members.iter().map(|member| self.jobs[member.place].wish.clone()).collect();
        Ok(submit_patiently(&wishes, |stop| {
            let others = &others;
            scheduler.submit(&Submission { stage, key, token, folder, tasks, others, stop })
        }))
    }
}

fn failed(error: anyhow::Error) -> JobEnd {
    JobEnd::failed(format!("{error:#}"))
}

/// The scheduler did not take these. Returns those of which that cannot be remembered, with how they end.
fn forget(members: &[Member]) -> Vec<(usize, JobEnd)> {
    let forgotten = members.iter().map(|one| (one.place, one.folder.set_handed_over(None)));
    forgotten.filter_map(|(place, forgotten)| Some((place, failed(forgotten.err()?)))).collect()
}

/// A job in a script.
pub(super) struct Scripted<'a> {
    pub(super) folder: &'a JobFolder,
    /// Of the job itself, also in an array.
    pub(super) token: String,
    pub(super) stage: &'a Stage,
}

/// What a scheduler starts for a job, or for the tasks of an array with this token, after the line of the interpreter.
pub(super) fn script(
    executor: &str,
    settings: &ExecutorSettings,
    array: Option<(Arrays, &str)>,
    jobs: &[Scripted<'_>],
) -> anyhow::Result<String> {
    let which = |Scripted { folder, token, .. }: &Scripted<'_>| {
        format!("pipeline_job={} pipeline_token={token}", shell::quoted_path(folder.place()))
    };
    let mut lines: Vec<String> = match array {
        None => jobs.iter().map(which).collect(),
        Some((Arrays { index, rename, .. }, token)) => {
            let tasks = jobs.iter().enumerate().map(|(index, job)| {
                let name = shell::quoted(job.stage.name.as_str());
                format!("{index}) {} pipeline_name={name} ;;", which(job))
            });
            let first = format!("case ${index} in");
            // Beside the job, which does not wait for it.
            let last = format!(
                "esac\npipeline_key=${{pipeline_job##*/}} pipeline_array={token}\n({rename} > /dev/null 2>&1 &)"
            );
            [first].into_iter().chain(tasks).chain([last]).collect()
        }
    };
    lines.push("exec >> \"$pipeline_job/output\" 2>&1".to_owned());
    // That its time is nearly up would end it without a word, before its process listens to that.
    lines.push("trap '' USR1".to_owned());
    lines.extend(settings.setup.as_deref().map(|setup| checked(executor, setup)));
    let program = program(settings)?;
    let program = shell::quoted_path(&program);
    lines.push(format!(
        "exec {program} {JOB_SUBCOMMAND} --token \"$pipeline_token\" \"$pipeline_job/spec.json\""
    ));
    let lines = lines.into_iter().filter(|line| !line.is_empty());
    Ok(lines.map(|line| line + "\n").collect())
}

/// The `setup` of an executor, after which a stage only begins if nothing in it has failed: without a module, say, it could be trained on other
/// hardware, under the same key. Not by `set -e`, which scripts and functions of clusters do not bear: of bash, each command counts that
/// is written here, and not those of what it calls; of other shells, the last one. That somebody cancels the job is not a failure of it.
fn checked(executor: &str, setup: &str) -> String {
    format!(
        r#"trap 'echo "the setup of the executor {executor} has failed with the exit status $?: {NOT_BEGUN}" >&2' EXIT
trap 'trap - EXIT; exit 143' TERM
[ -z "${{BASH_VERSION-}}" ] || trap 'pipeline_status=$?; [ "${{#BASH_SOURCE[@]}}" -gt 1 ] || exit "$pipeline_status"' ERR
:
{}
pipeline_status=$?; [ -n "${{BASH_VERSION-}}" ] || [ "$pipeline_status" -eq 0 ] || exit "$pipeline_status"
trap - EXIT TERM"#,
        setup.trim_end()
    )
}

/// What jobs start.
fn program(settings: &ExecutorSettings) -> anyhow::Result<PathBuf> {
    if let Some(path) = &settings.path {
        return Ok(path.join("pipeline"));
    }
    let program = std::env::current_exe()?;
    if !is_this_program(&program) {
        bail!(
            "the program of this run was replaced or removed, and another build would not run its jobs: start the run again (jobs that \
             were submitted go on); a program that stays is in 'path' of the executor"
        );
    }
    Ok(program)
}

/// Whether what has the path of this program is still the one that runs here.
fn is_this_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What the system, or NFS, calls a file that was removed or replaced here; on another machine, it keeps its name.
    if name.ends_with(" (deleted)") || name.starts_with(".nfs") {
        return false;
    }
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match file(Path::new("/proc/self/exe")) {
        Ok(own) => file(path).is_ok_and(|there| there == own),
        // A system that does not say it.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// What went wrong with a scheduler, in words.
fn refused(name: &str, trouble: &Trouble) -> String {
    format!("the executor '{name}' did not take it: {}", trouble.words())
}
