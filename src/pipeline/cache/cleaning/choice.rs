//! What goes and what stays, by who needs it, when it was used last, and how much room there is. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::contents::{Item, What};
use crate::digest::Digest;
use crate::key::StageKey;

/// A day.
const DAY_SECONDS: u64 = 24 * 3600;

/// What is made before what it belongs to is left alone for as long: an artifact before its record, a text before the run.
const GRACE_SECONDS: u64 = 3600;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// What was not used for more days goes.
    pub(crate) keep_days: Option<u64>,
    /// How much room the cache may take.
    pub(crate) max_bytes: Option<u64>,
}

/// Why something must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// A process uses it now.
    InUse,
    /// The latest run of a manifest used it.
    Latest,
    /// A manifest uses it that is to be kept.
    Kept,
}

/// That something must stay, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) why: Why,
    /// The process, or the manifest.
    pub(crate) by: Arc<str>,
}

/// What must stay.
#[derive(Debug, Clone, Default)]
pub(crate) struct NeededResults {
    pub(crate) keys: HashMap<StageKey, Need>,
    pub(crate) artifacts: HashMap<Digest, Need>,
    /// Whatever there is.
    pub(crate) everything: Option<Need>,
}

impl NeededResults {
    /// Adds a key, unless it is needed for a better reason.
    pub(crate) fn add_key(&mut self, key: StageKey, need: &Need) {
        let known = self.keys.entry(key).or_insert_with(|| need.clone());
        if need < known {
            *known = need.clone();
        }
    }

    fn of(&self, item: &Item) -> Option<&Need> {
        let artifact = item.artifact.as_ref().and_then(|digest| self.artifacts.get(digest));
        let keys = keys_of_use(item).iter().filter_map(|key| self.keys.get(key));
        self.everything.iter().chain(artifact).chain(keys).min()
    }
}

/// The keys whose use is a use of an item. No run reads the output of a rerun.
fn keys_of_use(item: &Item) -> &[StageKey] {
    if item.what == What::Rerun { &[] } else { &item.keys }
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes: it was not used for long.
    Old,
    /// It goes: there is not room for it.
    ForRoom,
    /// It leaves its place, and takes room still: only another user can empty a folder of it, or somebody asked to stop.
    Moved,
    /// It stays, as somebody needs it. `is_old`: it would go otherwise.
    Needed { need: Need, is_old: bool },
    /// It stays: it was used lately.
    Recent,
    /// It stays, although it is old: this user cannot remove it.
    OfOthers,
}

impl Fate {
    /// Whether it leaves its place.
    pub(super) fn leaves(&self) -> bool {
        self.goes() || *self == Self::Moved
    }

    /// Whether it goes, and takes no room any more.
    pub(crate) fn goes(&self) -> bool {
        matches!(self, Self::Old | Self::ForRoom)
    }
}

/// What becomes of each of these items. `last` has when keys were used last, as far as runs say it; `total` is how much room the
/// whole cache takes. `can_go` says whether an item that is to have this fate can: it is asked late, as it looks at the disk.
pub(super) fn choose(
    items: &[Item],
    needs: &NeededResults,
    last: &HashMap<StageKey, u64>,
    wish: Wish,
    total: u64,
    now: u64,
    can_go: impl Fn(&Item, &Fate) -> bool,
) -> Vec<Fate> {
    let used = |item: &Item| {
        let used = keys_of_use(item).iter().filter_map(|key| last.get(key).copied());
        used.chain([item.used]).max().unwrap_or_default()
    };
    let is_made_first = |item: &Item| match item.what {
        What::Artifact => item.keys.is_empty(),
        What::Document => true,
        _ => false,
    };
    let in_grace =
        |item: &Item| is_made_first(item) && item.used.saturating_add(GRACE_SECONDS) > now;
    let before = |days: u64| now.checked_sub(days.checked_mul(DAY_SECONDS)?);
    let oldest = wish.keep_days.and_then(before);
    let is_old = |item: &Item| oldest.is_some_and(|oldest| used(item) <= oldest);
    let mut fates: Vec<Fate> = items
        .iter()
        .map(|item| match needs.of(item) {
            Some(need) => Fate::Needed { need: need.clone(), is_old: is_old(item) },
            None if in_grace(item) => Fate::Recent,
            None if is_old(item) => {
                let mut possible = [Fate::Old, Fate::Moved].into_iter();
                possible.find(|fate| can_go(item, fate)).unwrap_or(Fate::OfOthers)
            }
            None => Fate::Recent,
        })
        .collect();
    let gone = items.iter().zip(&fates).filter(|(_, fate)| fate.goes());
    let mut left = total.saturating_sub(gone.map(|(item, _)| item.bytes).sum());
    let room = wish.max_bytes.unwrap_or(u64::MAX);
    let may_go = |place: &usize| fates[*place] == Fate::Recent && !in_grace(&items[*place]);
    let mut candidates: Vec<usize> = (0..items.len()).filter(may_go).collect();
    // Of what was used at the same time, the largest, so that few go.
    candidates.sort_by_key(|place| (used(&items[*place]), u64::MAX - items[*place].bytes));
    for place in candidates {
        if left <= room {
            break;
        }
        if items[place].bytes > 0 && can_go(&items[place], &Fate::ForRoom) {
            left = left.saturating_sub(items[place].bytes);
            fates[place] = Fate::ForRoom;
        }
    }
    fates
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::KeyPart;

    const NOW: u64 = 1_000 * DAY_SECONDS;

    fn key(number: u64) -> StageKey {
        StageKey::of(&[KeyPart::Seed { seed: number }])
    }

    fn need(why: Why) -> Need {
        Need { why, by: "somebody".into() }
    }

    fn item(what: What, keys: &[u64], bytes: u64, days_ago: u64) -> Item {
        Item {
            what,
            made_by: None,
            keys: keys.iter().map(|number| key(*number)).collect(),
            artifact: None,
            bytes,
            log_bytes: 0,
            used: NOW - days_ago * DAY_SECONDS,
            records: Vec::new(),
            others: Vec::new(),
        }
    }

    fn fates(items: &[Item], needs: &NeededResults, last: &[(u64, u64)], wish: Wish) -> String {
        let last = last.iter().map(|(number, days)| (key(*number), NOW - days * DAY_SECONDS));
        let total = items.iter().map(|item| item.bytes).sum();
        // These stand for what others have: all of it, and what could only be moved away.
        let can_go = |item: &Item, fate: &Fate| match item.what {
            What::Running => false,
            What::Rerun => *fate == Fate::Moved,
            _ => *fate != Fate::Moved,
        };
        let fates = choose(items, needs, &last.collect(), wish, total, NOW, can_go);
        let words = fates.iter().map(|fate| match fate {
            Fate::Old => "old",
            Fate::ForRoom => "room",
            Fate::Moved => "moved",
            Fate::Needed { is_old: true, .. } => "needed!",
            Fate::Needed { .. } => "needed",
            Fate::Recent => "recent",
            Fate::OfOthers => "others",
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_old_goes_unless_somebody_needs_it() {
        let result = |number, days| item(What::Artifact, &[number], 10, days);
        let items = [
            result(1, 40),
            result(2, 30),
            result(3, 29),
            // Old, but a run used it lately.
            result(4, 40),
            // Needed by its key, or as one of two with the same bytes.
            result(5, 40),
            item(What::Artifact, &[6, 5], 10, 40),
            item(What::Checkpoint, &[5], 10, 40),
            item(What::Quarantine, &[], 10, 31),
            item(What::Rerun, &[4, 5], 10, 40),
            // What is made before what it belongs to.
            item(What::Artifact, &[], 10, 0),
            item(What::Document, &[], 10, 0),
            item(What::Log, &[], 10, 0),
        ];
        let mut needs = NeededResults::default();
        needs.add_key(key(5), &need(Why::Latest));
        let days = |keep_days| Wish { keep_days, max_bytes: None };
        let fates = |wish| fates(&items, &needs, &[(4, 3)], wish);
        assert_eq!(
            fates(days(Some(30))),
            "old old recent recent needed! needed! needed! old moved recent recent recent"
        );
        assert_eq!(
            fates(days(Some(0))),
            "old old old old needed! needed! needed! old moved recent recent old"
        );
        assert_eq!(
            fates(days(None)),
            "recent recent recent recent needed needed needed recent recent recent recent recent"
        );
        // Of what it is not known when it was used.
        let unknown = [Item { used: 0, ..item(What::Log, &[7], 10, 0) }];
        for (keep_days, expected) in [(30, "old"), (1_001, "recent"), (u64::MAX, "recent")] {
            let days = days(Some(keep_days));
            assert_eq!(self::fates(&unknown, &needs, &[], days), expected, "{keep_days}");
        }
        assert_eq!(
            fates(days(Some(u64::MAX))),
            "recent recent recent recent needed needed needed recent recent recent recent recent"
        );
    }

    #[test]
    fn for_room_what_was_used_longest_ago_goes_first() {
        let items = [
            item(What::Artifact, &[1], 10, 5),
            item(What::Artifact, &[2], 10, 7),
            item(What::Failed, &[3], 5, 7),
            item(What::Artifact, &[4], 10, 9),
            item(What::Artifact, &[5], 10, 50),
        ];
        let mut needs = NeededResults::default();
        needs.add_key(key(4), &need(Why::Kept));
        for (keep_days, max_bytes, expected) in [
            (None, 45, "recent recent recent needed recent"),
            (None, 44, "recent recent recent needed room"),
            (None, 35, "recent recent recent needed room"),
            (None, 34, "recent room recent needed room"),
            (None, 25, "recent room recent needed room"),
            (None, 24, "recent room room needed room"),
            (None, 10, "room room room needed room"),
            (None, 0, "room room room needed room"),
            (Some(30), 35, "recent recent recent needed old"),
            (Some(30), 30, "recent room recent needed old"),
        ] {
            let wish = Wish { keep_days, max_bytes: Some(max_bytes) };
            assert_eq!(fates(&items, &needs, &[], wish), expected, "{wish:?}");
        }
    }

    #[test]
    fn what_cannot_be_removed_makes_no_room() {
        let items = [
            item(What::Running, &[1], 10, 50),
            item(What::Running, &[2], 10, 9),
            item(What::Rerun, &[], 10, 50),
            item(What::Rerun, &[], 10, 9),
            item(What::Artifact, &[3], 10, 8),
            item(What::Artifact, &[4], 10, 7),
        ];
        for (keep_days, max_bytes, expected) in [
            (None, 50, "recent recent recent recent room recent"),
            (None, 10, "recent recent recent recent room room"),
            (Some(30), 50, "others recent moved recent room recent"),
            (Some(30), 40, "others recent moved recent room room"),
        ] {
            let wish = Wish { keep_days, max_bytes: Some(max_bytes) };
            assert_eq!(fates(&items, &NeededResults::default(), &[], wish), expected, "{wish:?}");
        }
    }

    #[test]
    fn the_best_reason_counts() {
        let mut needs = NeededResults::default();
        for why in [Why::Kept, Why::InUse, Why::Latest] {
            needs.add_key(key(1), &need(why));
        }
        assert_eq!(needs.keys[&key(1)].why, Why::InUse);
        let items = [item(What::Artifact, &[2], 1, 0)];
        needs.everything = Some(need(Why::InUse));
        let wish = Wish { keep_days: Some(0), max_bytes: Some(0) };
        assert_eq!(fates(&items, &needs, &[], wish), "needed!");
    }

    prop_compose! {
        fn any_item()(
            keys in prop::collection::vec(0..12_u64, 0..3),
            bytes in 0..50_u64,
            days in 0..60_u64,
            what in prop::sample::select(vec![What::Artifact, What::Log, What::Document, What::Failed]),
        ) -> Item {
            item(what, &keys, bytes, days)
        }
    }

    proptest! {
        #[test]
        fn what_is_needed_stays_and_the_rest_goes_in_order(
            items in prop::collection::vec(any_item(), 0..30),
            needed in prop::collection::vec(0..12_u64, 0..6),
            last in prop::collection::vec((0..12_u64, 0..60_u64), 0..8),
            keep_days in prop::option::of(0..60_u64),
            max_bytes in prop::option::of(0..800_u64),
        ) {
            let mut needs = NeededResults::default();
            for number in &needed {
                needs.add_key(key(*number), &need(Why::Latest));
            }
            let mut lately: HashMap<StageKey, u64> = HashMap::new();
            for (number, days) in last {
                let at = lately.entry(key(number)).or_default();
                *at = (*at).max(NOW - days * DAY_SECONDS);
            }
            let total: u64 = items.iter().map(|item| item.bytes).sum();
            let wish = Wish { keep_days, max_bytes };
            let fates = choose(&items, &needs, &lately, wish, total, NOW, |_, _| true);
            prop_assert_eq!(fates.len(), items.len());
            let used = |item: &Item| {
                let by_runs = item.keys.iter().filter_map(|key| lately.get(key));
                by_runs.copied().max().unwrap_or_default().max(item.used)
            };
            let both = || items.iter().zip(&fates);
            let left: u64 = both().filter(|(_, fate)| !fate.goes()).map(|(item, _)| item.bytes).sum();
            for (item, fate) in both() {
                let is_needed = item.keys.iter().any(|key| needs.keys.contains_key(key));
                prop_assert_eq!(is_needed, matches!(fate, Fate::Needed { .. }));
                let age = (NOW - used(item)) / DAY_SECONDS;
                match fate {
                    Fate::Old => prop_assert!(age >= keep_days.expect("a limit")),
                    // There was not room for it and all that was used later.
                    Fate::ForRoom => prop_assert!(left + item.bytes > max_bytes.expect("a limit")
                        || both().any(|(other, fate)| *fate == Fate::ForRoom && used(other) >= used(item) && !std::ptr::eq(other, item))),
                    Fate::Recent => {
                        let is_new = age == 0 && (item.keys.is_empty() || item.what == What::Document);
                        prop_assert!(is_new || keep_days.is_none_or(|days| age < days));
                        // It fits, or nothing is left that could go.
                        prop_assert!(is_new || item.bytes == 0 || max_bytes.is_none_or(|most| left <= most));
                        // Nothing that was used later went for its sake.
                        let later = both().any(|(other, fate)| *fate == Fate::ForRoom && used(other) > used(item));
                        prop_assert!(is_new || item.bytes == 0 || !later);
                    }
                    Fate::Needed { .. } => {}
                    Fate::OfOthers | Fate::Moved => prop_assert!(false, "everything can go"),
                }
            }
        }
    }
}
