//! How wide text is on a terminal, and how it is made narrower without losing what tells it apart.
//!
//! Pure: where the width comes from is [`screen`](crate::screen).

use std::collections::{BTreeMap, BTreeSet};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What is in the place of what was cut.
const CUT: char = '…';

/// Values on axes are not made shorter than this.
const VALUE: usize = 4;

/// How many columns a text takes.
pub(crate) fn of(text: &str) -> usize {
    text.width()
}

/// The beginning of a text that is wider than this.
pub(crate) fn cut_end(text: &str, width: usize) -> String {
    if of(text) <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        _ => format!("{}{CUT}", beginning(text, width - 1)),
    }
}

/// The first parts of a list that is wider than this; of its first part the beginning, or, where that is a name and a number,
/// the number with what there is room for of the name.
pub(crate) fn cut_list(text: &str, width: usize) -> String {
    if of(text) <= width {
        return text.to_owned();
    }
    match beginning(text, width.saturating_sub(1)).rfind(", ") {
        Some(end) => format!("{}{CUT}", &text[..end + 2]),
        None => cut_name(text, width).unwrap_or_else(|| cut_end(text, width)),
    }
}

/// The name and the number at the beginning of a list, with a shorter name. `None` where it begins otherwise, or the number does
/// not fit.
fn cut_name(text: &str, width: usize) -> Option<String> {
    let (name, number) = text.split(", ").next()?.split_once(' ')?;
    number.replace(',', "").parse::<f64>().ok()?;
    let room = width.checked_sub(of(number) + 1).filter(|room| *room > 0)?;
    Some(format!("{} {number}", cut_middle(name, room)))
}

/// Counts, and after a semicolon a list, of which those parts go that there is no room for. The counts stay.
pub(crate) fn cut_after_counts(text: &str, width: usize) -> String {
    let Some((counts, list)) = text.split_once("; ").filter(|_| of(text) > width) else {
        return text.to_owned();
    };
    let room = width.saturating_sub(of(counts) + of("; ") + 1);
    match beginning(list, room).rfind(", ") {
        Some(end) => format!("{counts}; {}{CUT}", &list[..end + 2]),
        None => counts.to_owned(),
    }
}

/// The beginning and the end of a text that is wider than this; more of its end, where names differ.
fn cut_middle(text: &str, width: usize) -> String {
    if of(text) <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        1 => CUT.to_string(),
        _ => {
            let head = (width - 1) / 3;
            format!("{}{CUT}{}", beginning(text, head), ending(text, width - 1 - head))
        }
    }
}

/// Names of stages, each at most this wide, where one of its stage's is wider. What all instances of a stage have in common goes first:
/// `train@init=simclr,rate=0.9,seed=1` beside `train@init=simclr,rate=0.5,seed=1` is `train@…,rate=0.9,…`. Then the ends
/// of long values go, and the names of axes.
pub(crate) fn names(names: &[&str], width: usize) -> Vec<String> {
    let fits = |names: &[String]| names.iter().all(|name| of(name) <= width);
    let whole: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    if fits(&whole) {
        return whole;
    }
    let common = Common::of(names);
    let stage = |name: &str| point(name).map(|(stage, _)| without_symbol(stage).to_owned());
    // The instances of one stage are written alike.
    let wide: BTreeSet<_> =
        names.iter().filter(|name| of(name) > width).map(|name| stage(name)).collect();
    let shorter = |value: usize, with_axes: bool| -> Vec<String> {
        let names = names.iter().map(|name| match wide.contains(&stage(name)) {
            false => (*name).to_owned(),
            true => common.without(name, value, with_axes),
        });
        names.collect()
    };
    let longest = names.iter().filter_map(|name| point(name)).flat_map(|(_, parts)| parts);
    let longest = longest.map(|(_, value)| of(value)).max().unwrap_or(0);
    let tries = (VALUE..=longest.max(VALUE)).rev().map(|value| (value, true));
    let mut tries = tries.chain([(longest, false), (VALUE, false)]);
    let found = tries.find_map(|(value, with_axes)| {
        let shorter = shorter(value, with_axes);
        fits(&shorter).then_some(shorter)
    });
    let shortest = || shorter(VALUE, false).iter().map(|name| cut_middle(name, width)).collect();
    found.unwrap_or_else(shortest)
}

/// What the instances of a stage have in common.
struct Common<'a> {
    /// Per stage and axis, the value that all instances have; `None` where they differ.
    values: BTreeMap<(&'a str, &'a str), Option<&'a str>>,
    /// Per stage, how many instances it has here. One alone has nothing in common with others.
    counts: BTreeMap<&'a str, usize>,
}

impl<'a> Common<'a> {
    fn of(names: &[&'a str]) -> Self {
        let mut common = Self { values: BTreeMap::new(), counts: BTreeMap::new() };
        for (stage, parts) in names.iter().filter_map(|name| point(name)) {
            let stage = without_symbol(stage);
            *common.counts.entry(stage).or_default() += 1;
            for (axis, value) in parts {
                let known = common.values.entry((stage, axis)).or_insert(Some(value));
                if *known != Some(value) {
                    *known = None;
                }
            }
        }
        common
    }

    /// A name without what it has in common with others, and with values that are at most so wide.
    fn without(&self, name: &str, width: usize, with_axes: bool) -> String {
        let Some((stage, parts)) = point(name) else { return name.to_owned() };
        let key = without_symbol(stage);
        let has_others = self.counts.get(key).is_some_and(|count| *count > 1);
        let mut shown: Vec<String> = Vec::new();
        for (axis, value) in parts {
            let is_common = self.values.get(&(key, axis)).is_some_and(Option::is_some);
            let value = cut_end(value, width);
            match (has_others && is_common, with_axes) {
                (false, true) => shown.push(format!("{axis}={value}")),
                (false, false) => shown.push(value),
                (true, _) if shown.last().is_some_and(|last| last.starts_with(CUT)) => {}
                (true, _) => shown.push(CUT.to_string()),
            }
        }
        format!("{stage}@{}", shown.join(","))
    }
}

/// The stage of an instance, and its value on each axis.
fn point(name: &str) -> Option<(&str, impl Iterator<Item = (&str, &str)>)> {
    let (stage, point) = name.split_once('@')?;
    Some((stage, point.split(',').map(|part| part.split_once('=').unwrap_or((part, "")))))
}

/// A name without the symbol of its state before it.
fn without_symbol(stage: &str) -> &str {
    stage.rsplit(' ').next().unwrap_or(stage)
}

fn beginning(text: &str, width: usize) -> String {
    let mut left = width;
    let fits = |letter: &char| {
        let own = letter.width().unwrap_or(0);
        let fits = own <= left;
        left = left.saturating_sub(own);
        fits
    };
    text.chars().take_while(fits).collect()
}

fn ending(text: &str, width: usize) -> String {
    let reversed: String = text.chars().rev().collect();
    beginning(&reversed, width).chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_least_is_lost() {
        for (width, end, middle) in [
            (0, "", ""),
            (1, "…", "…"),
            (2, "e…", "…h"),
            (4, "eva…", "e…th"),
            (7, "evalua…", "ev…ngth"),
            (15, "evaluate length", "evaluate length"),
        ] {
            assert_eq!(cut_end("evaluate length", width), end);
            assert_eq!(cut_middle("evaluate length", width), middle);
        }
    }

    #[test]
    fn of_a_list_that_is_cut_the_first_number_stays() {
        let text = "test-accuracy 0.7220, test-loss 1.616";
        for (text, width, expected) in [
            (text, 37, text),
            (text, 36, "test-accuracy 0.7220, …"),
            (text, 22, "test-accuracy 0.7220"),
            (text, 20, "test-accuracy 0.7220"),
            (text, 15, "te…uracy 0.7220"),
            (text, 8, "… 0.7220"),
            (text, 7, "test-a…"),
            ("bytes 2,610,989, files 4", 14, "b…es 2,610,989"),
            ("rate: 0.8 -> 0.9", 10, "rate: 0.8…"),
            ("needs train@rate=0.5", 10, "needs tra…"),
        ] {
            assert_eq!(cut_list(text, width), expected, "{width}");
        }
    }

    #[test]
    fn counts_are_not_cut() {
        let text = "12: 3 fresh, 9 to run; last run now, 2 min in all, 2.4 MB";
        for (width, expected) in [
            (57, text),
            (56, "12: 3 fresh, 9 to run; last run now, 2 min in all, …"),
            (51, "12: 3 fresh, 9 to run; last run now, …"),
            (30, "12: 3 fresh, 9 to run"),
            (3, "12: 3 fresh, 9 to run"),
        ] {
            assert_eq!(cut_after_counts(text, width), expected);
        }
        assert_eq!(cut_after_counts("3: 3 fresh", 2), "3: 3 fresh");
    }

    #[test]
    fn wide_letters_are_not_halved() {
        assert_eq!(of("日本語"), 6);
        assert_eq!(cut_end("日本語", 4), "日…");
        assert_eq!(cut_end("日本語", 5), "日本…");
        assert_eq!(cut_middle("日本語日本語", 8), "日…本語");
    }

    #[test]
    fn names_keep_what_tells_them_apart() {
        let long = [
            "train@init=simclr,method=ce,rate=0.9,seed=220",
            "train@init=simclr,method=ce,rate=0.5,seed=220",
            "evaluate",
        ];
        assert_eq!(names(&long, 60), long);
        assert_eq!(names(&long, 20), ["train@…,rate=0.9,…", "train@…,rate=0.5,…", "evaluate"]);
        assert_eq!(names(&long, 14), ["train@…,0.9,…", "train@…,0.5,…", "evaluate"]);
        assert_eq!(names(&long, 10), ["tra…,0.9,…", "tra…,0.5,…", "evaluate"]);
        let uneven = ["train@loss=a,seed=1", "train@loss=abc,seed=1", "evaluate@loss=a"];
        assert_eq!(names(&uneven, 20), ["train@loss=a,…", "train@loss=abc,…", "evaluate@loss=a"]);
        let inits = ["● a@init=from-all-images,rate=1", "○ a@init=scratch,rate=1"];
        assert_eq!(names(&inits, 20), ["● a@init=from-all…,…", "○ a@init=scratch,…"]);
        assert_eq!(
            names(&inits, 14),
            ["● a@init=fro…,…".replace("init=", ""), "○ a@scr…,…".to_owned()]
        );
        // One alone does not have anything in common with others.
        assert_eq!(names(&long[..1], 24), ["train@simclr,ce,0.9,220"]);
        assert_eq!(names(&["a-long-name"], 1), ["…"]);
        assert_eq!(names(&[], 1), [""; 0]);
    }

    #[test]
    fn nothing_is_wider_than_it_may_be() {
        let all = ["train@a=1,b=2,c=3", "train@a=1,b=3,c=3", "日本語@x=日本語", "", "@", "a@,,="];
        for width in 0..30 {
            assert!(names(&all, width).iter().all(|name| of(name) <= width), "{width}");
            for text in all {
                assert!(
                    of(&cut_end(text, width)) <= width && of(&cut_middle(text, width)) <= width
                );
            }
        }
    }
}
