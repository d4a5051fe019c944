//! Cleaning up: what nothing needs goes.
//!
//! Nothing is locked item by item. With the lock of all pins, so that nobody can pin anything meanwhile: the pins are read,
//! what goes is chosen, the generation changes, and records leave their place before artifacts. Then the lock is free again, and
//! what has left its place is removed. Killed anywhere, a record has its artifact, and the trash is removed by who comes next.

mod choice;
mod contents;
mod names;
mod rooms;
mod trash;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind::InvalidData;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};

pub(crate) use choice::{Fate, Need, NeededResults, Why, Wish};
pub(crate) use contents::{Contents, EarlierLook, Item, What};
pub(super) use trash::sweep_trash;

use super::layout::{Bucket, Layout};
use super::lock::Lock;
use super::lock::now;
use super::opened::Cache;
use super::own_pin::Pinned;
use super::pins::{cleaner, cleaning_lock, pins_lock, read_pins};
use super::{disk, durable, stamp, store};
use crate::digest::Digest;
use crate::format;
use crate::key::StageKey;
use trash::Trash;

/// How a cache is used, as far as runs and manifests say it.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// What must stay.
    pub(crate) needs: NeededResults,
    /// When each key was used last: seconds since 1970, UTC.
    pub(crate) last: HashMap<StageKey, u64>,
    /// The texts that the history has.
    pub(crate) documents: HashSet<Digest>,
}

/// What was cleaned, or would be.
#[derive(Debug)]
pub(crate) struct Cleaned {
    /// Everything that there was, with what became of it; nothing where somebody asked to stop before something was removed.
    pub(crate) items: Vec<(Item, Fate)>,
    /// How much room the cache took.
    pub(crate) before: u64,
    /// Why something stays that was to go, or still takes room.
    pub(crate) left: Vec<String>,
    /// Whether somebody asked to stop before all of it was removed.
    pub(crate) stopped: bool,
}

impl Cleaned {
    /// How much room what went took.
    pub(crate) fn freed(&self) -> u64 {
        let gone = self.items.iter().filter(|(_, fate)| fate.goes());
        gone.map(|(item, _)| item.bytes).sum()
    }

    /// Says how much room these of the items take still, as folders of another user.
    fn tell_of_others(&mut self, layout: &Layout, items: &BTreeSet<usize>) {
        let bytes = items.iter().map(|item| self.items[*item].0.bytes).sum();
        let number = match items.len() {
            0 => return,
            1 => "an item".to_owned(),
            number => format!("{number} items"),
        };
        self.left.push(format!(
            "{} of {number} with folders of another user: this leaves its place, and takes room in {} until the next run of \
             that user",
            format::bytes(bytes),
            layout.bucket(Bucket::Tmp).display()
        ));
    }
}

/// How the uses of a cache are looked up: again, once nobody can pin.
pub(crate) type LookUp<'a> = dyn FnMut() -> anyhow::Result<Uses> + 'a;

impl Cache {
    /// What cleaning would do. Nothing is written, and nothing is locked.
    ///
    /// # Errors
    /// When it cannot be known what is needed.
    pub(crate) fn would_clean(
        &self,
        wish: Wish,
        look_up: &mut LookUp<'_>,
    ) -> anyhow::Result<Cleaned> {
        self.choose(wish, look_up, &mut EarlierLook::default(), false, now())
    }

    /// Removes what nothing needs.
    ///
    /// # Errors
    /// When it cannot be known what is needed, when somebody else cleans now, or the cache cannot be written. Everything that is
    /// needed is as it was.
    pub(crate) fn clean(
        &self,
        wish: Wish,
        look_up: &mut LookUp<'_>,
        stop: &AtomicBool,
    ) -> anyhow::Result<Cleaned> {
        self.clean_at(wish, look_up, stop, now())
    }

    pub(super) fn clean_at(
        &self,
        wish: Wish,
        look_up: &mut LookUp<'_>,
        stop: &AtomicBool,
        now: u64,
    ) -> anyhow::Result<Cleaned> {
        let layout = self.layout();
        let Some(cleaning) = Lock::try_take(&cleaning_lock(layout))? else {
            bail!("{} cleans this cache already", cleaner(layout));
        };
        cleaning.name_owner();
        trash::empty_old(layout, true);
        // The long look, while others work.
        let mut earlier = EarlierLook::default();
        earlier.look(self, &look_up()?.documents)?;
        let is_over = || stop.load(Ordering::Relaxed);
        if is_over() {
            return Ok(Cleaned { items: Vec::new(), before: 0, left: Vec::new(), stopped: true });
        }
        // After a power cut, a record may be an older one, which has another artifact. This takes long.
        if earlier.has_lazy() {
            let store = layout.bucket(Bucket::Store);
            let sync = || disk::sync_file_system(&fs::File::open(&store)?);
            sync().with_context(|| format!("cannot flush {} to disk", store.display()))?;
        }
        // The short one, while nobody can pin.
        let alone = Lock::take(&pins_lock(layout))?;
        let mut cleaned = self.choose(wish, look_up, &mut earlier, true, now)?;
        let trash = self.take_away(&mut cleaned)?;
        drop(alone);
        self.forget_what_is_gone();
        if let Some(trash) = trash {
            let kept = trash.empty(is_over);
            cleaned.left.extend(kept.why);
            kept.items.iter().for_each(|item| cleaned.items[*item].1 = Fate::Moved);
            cleaned.tell_of_others(layout, &kept.of_others);
        }
        cleaned.stopped = is_over();
        Ok(cleaned)
    }

    /// The keys that the stages of experiments had last, each with the experiment and the stage.
    ///
    /// # Errors
    /// When there may be one that cannot be read.
    pub(crate) fn head_keys(&self) -> anyhow::Result<Vec<(String, String, StageKey)>> {
        let mut keys = Vec::new();
        for (experiment, stage) in names::heads(self.layout())? {
            let place = self.layout().head(&experiment, &stage);
            match disk::read_text(&place) {
                Ok(text) => {
                    keys.extend(text.trim().parse().ok().map(|key| (experiment, stage, key)));
                }
                // It is gone, or says nothing.
                Err(error) if store::is_absence(&error) || error.kind() == InvalidData => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", place.display()));
                }
            }
        }
        Ok(keys)
    }

    fn choose(
        &self,
        wish: Wish,
        look_up: &mut LookUp<'_>,
        earlier: &mut EarlierLook,
        sweeps: bool,
        now: u64,
    ) -> anyhow::Result<Cleaned> {
        // In this order: what a process used that ends now is in the history by then.
        let pins = read_pins(self.layout(), sweeps)?;
        let mut uses = look_up()?;
        for pin in pins {
            let need = Need { why: Why::InUse, by: pin.by.into() };
            for pinned in pin.pinned {
                match pinned {
                    Pinned::Key(key) => uses.needs.add_key(key, &need),
                    Pinned::Artifact(digest) => {
                        uses.needs.artifacts.insert(digest, need.clone());
                    }
                    Pinned::Everything => uses.needs.everything = Some(need.clone()),
                }
            }
        }
        let contents = earlier.look(self, &uses.documents)?;
        let before = contents.bytes();
        let items = contents.items;
        // Whoever only looks may look at a cache that cannot be written.
        let can_go = |item: &Item, fate: &Fate| {
            let mut places = item.records.iter().chain(&item.others);
            places.all(|place| match fate {
                Fate::Moved => trash::can_be_taken(place),
                _ => trash::can_be_freed(place),
            } && (!sweeps || trash::can_leave(place)))
        };
        let fates = choice::choose(&items, &uses.needs, &uses.last, wish, before, now, can_go);
        let of_others = fates.iter().filter(|fate| **fate == Fate::OfOthers).count();
        let left = (of_others > 0).then(|| match of_others {
            1 => "an item that belongs to another user, or is in a folder that you cannot write".to_owned(),
            number => format!(
                "{number} items that belong to another user, or are in folders that you cannot write"
            ),
        });
        let moved = fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Moved);
        let moved = moved.map(|(place, _)| place).collect();
        let items = items.into_iter().zip(fates).collect();
        let left = left.into_iter().collect();
        let mut cleaned = Cleaned { items, before, left, stopped: false };
        // Whoever removes them knows that better afterwards.
        if !sweeps {
            cleaned.tell_of_others(self.layout(), &moved);
        }
        Ok(cleaned)
    }

    /// Moves away what goes, for whoever has the lock of all pins alone. What cannot be moved stays.
    fn take_away(&self, cleaned: &mut Cleaned) -> anyhow::Result<Option<Trash>> {
        let Cleaned { items, left, .. } = cleaned;
        let mut going: Vec<(usize, &mut (Item, Fate))> =
            items.iter_mut().enumerate().filter(|(_, (_, fate))| fate.leaves()).collect();
        if going.is_empty() {
            return Ok(None);
        }
        let mut trash = Trash::new(self.layout());
        stamp::begin_removal(self.layout())?;
        let mut folders = BTreeSet::new();
        going.retain_mut(|(number, (item, fate))| {
            let taken = item.records.iter().try_for_each(|record| {
                folders.extend(record.parent().map(PathBuf::from));
                trash.take(record, *number)
            });
            if let Err(error) = &taken {
                left.push(format!("{error:#}"));
                *fate = Fate::Recent;
            }
            taken.is_ok()
        });
        // Not even a power cut leaves a record without its artifact.
        for folder in folders {
            durable::sync_folder(&folder)
                .with_context(|| format!("cannot flush {} to disk", folder.display()))?;
        }
        for (number, (item, fate)) in going {
            for place in &item.others {
                if let Err(error) = trash.take(place, number) {
                    left.push(format!("{error:#}"));
                    *fate = Fate::Recent;
                    break;
                }
            }
        }
        Ok(Some(trash))
    }

    /// Removes what leads to records and artifacts that are gone: heads and links for people.
    fn forget_what_is_gone(&self) {
        let layout = self.layout();
        let places = |key: StageKey| [layout.record(&key), layout.withdrawn(&key)];
        let is_gone = |key| places(key).iter().all(|place| fs::symlink_metadata(place).is_err());
        let leads_nowhere =
            |experiment: &str, stage: &str| self.head(experiment, stage).is_some_and(is_gone);
        for (experiment, stage) in names::heads(layout).unwrap_or_default() {
            if !leads_nowhere(&experiment, &stage) {
                continue;
            }
            // A run may have replaced it meanwhile.
            let Ok(_lock) = Lock::take(&self.heads_lock(&experiment)) else { continue };
            if leads_nowhere(&experiment, &stage) {
                let _ = disk::remove_file(&layout.head(&experiment, &stage));
            }
        }
        self.remove_dangling_links();
    }
}
