//! `pipeline gc`: removes what nothing needs from the cache. Also how a cache with a limit cleans itself.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::output::{note, print, print_json};
use super::project::{check_exists, folder_of, open_cache};
use super::settings;
use crate::cache::{Cache, Cleaned, Fate, Item, Limit, Need, What, Why, Wish};
use crate::cli::{CacheFolder, GcArguments};
use crate::execute::with_advice;
use crate::facts::CacheFacts;
use crate::format;
use crate::history::UsesOfRuns;
use crate::key::StageKey;
use crate::manifest;
use crate::plan::{Plan, PlanState};
use crate::signals::{INTERRUPTED, StopFlag};
use crate::table;

pub(crate) fn run(arguments: &GcArguments) -> anyhow::Result<ExitCode> {
    let cache = existing(&arguments.cache)?;
    let mut kept = Vec::new();
    for path in &arguments.keep {
        let need = Need { why: Why::Kept, by: path.display().to_string().into() };
        kept.extend(keys_of(path, &cache)?.into_iter().map(|key| (key, need.clone())));
    }
    let wish = Wish { keep_days: Some(arguments.keep_days), max_bytes: arguments.max_size };
    let mut runs = UsesOfRuns::default();
    let mut look_up = || {
        let mut uses = runs.look(&cache)?;
        kept.iter().for_each(|(key, need)| uses.needs.add_key(*key, need));
        Ok(uses)
    };
    let cleaned = match arguments.dry_run {
        true => cache.would_clean(wish, &mut look_up)?,
        false => {
            let stop = StopFlag::listen()?;
            cache.sweep();
            cache.clean(wish, &mut look_up, stop.asked()).map_err(with_advice)?
        }
    };
    if cleaned.stopped && cleaned.items.is_empty() {
        note("interrupted: nothing was removed");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    cleaned.left.iter().for_each(|why| note(&format!("not removed: {why}")));
    let report =
        CleaningReport { cache: &cache, cleaned: &cleaned, wish, is_dry: arguments.dry_run };
    match arguments.json {
        true => print_json(&report.to_json())?,
        false => print(&report.text())?,
    }
    Ok(match () {
        () if cleaned.stopped => ExitCode::from(INTERRUPTED),
        () if cleaned.left.is_empty() && report.fits() => ExitCode::SUCCESS,
        () => ExitCode::FAILURE,
    })
}

/// The cache that the arguments name, which must exist.
pub(super) fn existing(arguments: &CacheFolder) -> anyhow::Result<Cache> {
    let folder = std::env::current_dir().context("no current folder")?;
    let cache = open_cache(arguments.folder.as_deref(), &folder)?;
    check_exists(&cache)?;
    Ok(cache)
}

/// The keys of the results of a manifest as it is now. Of a stage whose key is not known now, that of its last result.
fn keys_of(path: &Path, cache: &Cache) -> anyhow::Result<Vec<StageKey>> {
    if !manifest::is_manifest(path) {
        bail!("'{}' of --keep is not a manifest: a .toml file", path.display());
    }
    let config = settings::config()?;
    let (mut manifest, graph) =
        manifest::read_on(path, &settings::variables()?, &config.execution)?;
    manifest.folder = folder_of(path);
    let stages: Vec<_> = graph.order().cloned().collect();
    let facts = CacheFacts::look_only(cache, &manifest, &stages);
    let plan = Plan::of(&manifest, &graph, &stages, &facts);
    let keys = plan.iter().flat_map(|(name, state)| {
        let last = || cache.head(&manifest.experiment.name, name.as_str());
        let result = state.result().map(|record| record.key);
        let last = if let PlanState::Fresh(_) = state { None } else { last() };
        [state.key(), result, last]
    });
    Ok(keys.flatten().collect())
}

/// What is shown of a cleaning.
struct CleaningReport<'a> {
    cache: &'a Cache,
    cleaned: &'a Cleaned,
    wish: Wish,
    is_dry: bool,
}

impl CleaningReport<'_> {
    fn left(&self) -> u64 {
        self.cleaned.before.saturating_sub(self.cleaned.freed())
    }

    fn fits(&self) -> bool {
        self.wish.max_bytes.is_none_or(|most| self.left() <= most)
    }

    fn text(&self) -> String {
        let mut text = self.table();
        let kept = self.kept_lines();
        if !kept.is_empty() {
            text.push_str(&format!("kept, {}:\n{kept}\n", self.although()));
        }
        let freed = format::bytes(self.cleaned.freed());
        let left = format::bytes(self.left());
        let done = match (self.cleaned.freed(), self.is_dry) {
            (0, _) if self.removed().is_empty() => format!("nothing to remove; it takes {left}"),
            (_, true) => format!("{freed} would be removed, {left} left"),
            (_, false) => format!("{freed} removed, {left} left"),
        };
        text.push_str(&format!("{}: {done}\n", self.cache.layout().root().display()));
        if let Some(most) = self.wish.max_bytes.filter(|_| !self.fits()) {
            text.push_str(&format!(
                "that is more than {}: nothing else can go, and `pipeline cache size` shows what it is\n",
                format::bytes(most)
            ));
        }
        if self.cleaned.stopped {
            text.push_str(
                "interrupted: the next gc, or the next run that has work to do, removes the rest\n",
            );
        }
        text
    }

    fn although(&self) -> String {
        match self.wish.keep_days.filter(|_| self.fits()) {
            Some(0) | None => "as it is needed".to_owned(),
            Some(1) => "although it was not used for a day".to_owned(),
            Some(days) => format!("although it was not used for {days} days"),
        }
    }

    fn to_json(&self) -> Value {
        let removed = self.removed().into_iter().map(|((what, kind), Sum { number, bytes })| {
            json!({ "what": what.name(), "kind": kind, "number": number, "bytes": bytes })
        });
        let kept = self.kept().into_iter().map(|(Need { why, by }, Sum { number, bytes })| {
            let why = match why {
                Why::InUse => "in-use",
                Why::Latest => "latest-run",
                Why::Kept => "keep",
            };
            json!({ "why": why, "by": &**by, "number": number, "bytes": bytes })
        });
        json!({
            "cache": PathText(self.cache.layout().root()),
            "is-dry-run": self.is_dry,
            "is-complete": !self.cleaned.stopped,
            "fits": self.fits(),
            "removed-bytes": self.cleaned.freed(),
            "left-bytes": self.left(),
            "removed": removed.collect::<Vec<_>>(),
            "kept": kept.collect::<Vec<_>>(),
            "not-removed": self.cleaned.left,
        })
    }

    /// What goes, by what it is and the kind of the stage that made it: the largest first.
    fn removed(&self) -> Vec<((What, Option<&str>), Sum)> {
        let gone = self.cleaned.items.iter().filter(|(_, fate)| fate.goes());
        let mut sums: BTreeMap<(What, Option<&str>), Sum> = BTreeMap::new();
        for (item, _) in gone {
            let kind = item.made_by.as_ref().map(|(kind, _)| kind.as_str());
            let kind = kind.filter(|_| item.what == What::Artifact);
            sums.entry((item.what, kind)).or_default().add(item);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|((what, _), sum)| (u64::MAX - sum.bytes, what.name()));
        sums
    }

    fn table(&self) -> String {
        let removed = self.removed();
        if removed.is_empty() {
            return String::new();
        }
        let row = |((what, kind), sum): &((What, Option<&str>), Sum)| {
            let name = match (what, kind) {
                (What::Artifact, Some(kind)) => format!("artifacts of {kind}"),
                (What::Artifact, None) => "artifacts without a record".to_owned(),
                (what, _) => what.name().to_owned(),
            };
            vec![name, format::count(sum.number), format::bytes(sum.bytes)]
        };
        let head = ["what", "number", "size"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(removed.iter().map(row)).collect();
        format!("{}\n", table::plain(&rows))
    }

    /// What somebody may have expected to go, by who needs it.
    fn kept(&self) -> BTreeMap<&Need, Sum> {
        let mut sums: BTreeMap<&Need, Sum> = BTreeMap::new();
        for (item, fate) in &self.cleaned.items {
            if let Fate::Needed { need, is_old } = fate
                && (*is_old || !self.fits())
            {
                sums.entry(need).or_default().add(item);
            }
        }
        sums
    }

    fn kept_lines(&self) -> String {
        let lines = self.kept().into_iter().map(|(Need { why, by }, Sum { number, bytes })| {
            let reason = match why {
                Why::InUse => format!("{by} uses it"),
                Why::Latest => format!("the latest run of {by}"),
                Why::Kept => format!("--keep {by}"),
            };
            let items = if number == 1 { "item" } else { "items" };
            format!("  {} {items}, {}: {reason}\n", format::count(number), format::bytes(bytes))
        });
        lines.collect()
    }
}

/// How many items there are, and how much room they take.
#[derive(Default)]
struct Sum {
    number: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, item: &Item) {
        self.number += 1;
        self.bytes += item.bytes;
    }
}

/// How much room a cache may take, and which file says it.
pub(super) fn limit(cache: &Cache, of_user: Option<u64>) -> anyhow::Result<Option<(u64, PathBuf)>> {
    Ok(match cache.limit()? {
        Some(Limit::Bytes(bytes)) => Some((bytes, cache.layout().limit())),
        Some(Limit::None) => None,
        None => of_user.map(|bytes| (bytes, settings::config_path().unwrap_or_default())),
    })
}

/// Whether another cleaning on the same day would come no further. What was interrupted, or in another's way, would.
fn would_end_alike(cleaned: &anyhow::Result<Cleaned>) -> bool {
    let is_refused = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
    };
    match cleaned {
        Ok(cleaned) => !cleaned.stopped,
        Err(error) => error.chain().any(|cause| cause.downcast_ref().is_some_and(is_refused)),
    }
}

/// At the end of a run: lets a cache that takes more room than it may clean itself, once a day. Never fails; what it did is said
/// in a line.
pub(super) fn keep_limit(cache: &Cache, of_user: Option<u64>) {
    let clean = || -> anyhow::Result<Option<String>> {
        let Some((most, _)) = limit(cache, of_user)? else { return Ok(None) };
        let Some(look) = cache.daily_look() else { return Ok(None) };
        let wish = Wish { keep_days: None, max_bytes: Some(most) };
        let mut runs = UsesOfRuns::default();
        let stop = StopFlag::listen()?;
        let cleaned = cache.clean(wish, &mut || runs.look(cache), stop.asked());
        if would_end_alike(&cleaned) {
            look.done();
        }
        let cleaned = cleaned?;
        let freed = cleaned.freed();
        let left = cleaned.before.saturating_sub(freed);
        let removed = match freed {
            0 => String::new(),
            freed => format!("{} of what was used longest ago removed, ", format::bytes(freed)),
        };
        let sizes = format!("{} left of at most {}", format::bytes(left), format::bytes(most));
        let is_needed = "it is needed, `pipeline cache size` shows what it is";
        Ok(match left > most {
            true => Some(format!("{removed}{sizes}: {is_needed}")),
            false => (freed > 0).then(|| format!("{removed}{sizes}")),
        })
    };
    match clean() {
        Ok(line) => line.iter().for_each(|line| note(&format!("cache: {line}"))),
        Err(error) => note(&format!("cache: not cleaned: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn what_is_in_the_way_does_not_use_up_the_look_of_a_day() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        cache.set_limit(Limit::Bytes(1)).expect("writable");
        let failed = cache.layout().failed(&StageKey::of(&[]));
        fs::create_dir_all(&failed).expect("writable");
        fs::write(failed.join("half"), "x".repeat(10_000)).expect("writable");
        let busy = File::create(cache.layout().lock("gc")).expect("writable");
        busy.lock().expect("free");
        keep_limit(&cache, None);
        assert!(failed.exists(), "somebody else cleans");
        drop(busy);
        // It cannot be known what is in use.
        let pins = cache.layout().root().join("pins");
        fs::rename(&pins, pins.with_extension("away")).expect("writable");
        fs::write(&pins, "").expect("writable");
        keep_limit(&cache, None);
        assert!(failed.exists(), "it failed");
        fs::remove_file(&pins).expect("writable");
        fs::rename(pins.with_extension("away"), &pins).expect("writable");
        keep_limit(&cache, None);
        assert!(!failed.exists());
        assert!(cache.daily_look().is_none(), "it is done for today");
    }

    #[test]
    fn what_does_not_change_in_a_day_is_said_once_a_day() {
        let cleaned = |stopped| Cleaned { items: Vec::new(), before: 0, left: Vec::new(), stopped };
        assert!(would_end_alike(&Ok(cleaned(false))));
        assert!(!would_end_alike(&Ok(cleaned(true))), "it was interrupted");
        let failed = |kind| Err(io::Error::from(kind)).context("cannot write");
        assert!(would_end_alike(&failed(ErrorKind::PermissionDenied)));
        assert!(would_end_alike(&failed(ErrorKind::ReadOnlyFilesystem)));
        assert!(!would_end_alike(&failed(ErrorKind::StorageFull)));
        assert!(!would_end_alike(&Err(anyhow::anyhow!("somebody cleans this cache already"))));
    }
}
