//! Tables for people: aligned columns, as wide as the terminal, states in colours.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use crate::{colour, screen, visible, width};

/// Between two columns.
const GAP: usize = 2;
/// Names are not made shorter than this before something else is cut.
const NAME: usize = 16;
/// Names and remarks are not made shorter than this.
const LEAST: usize = 8;

/// Rows of cells, and what is in their columns.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    names: usize,
    states: Option<usize>,
    ends_in_words: bool,
    /// The columns that are left out where the others do not have room, first the first of them.
    optional: Vec<usize>,
}

impl Table {
    /// A table whose first column has the names of stages.
    pub(crate) fn new(rows: &[Vec<String>]) -> Self {
        let cell = |cell: &String| visible::line(cell).trim_end().to_owned();
        let rows = rows.iter().map(|row| row.iter().map(cell).collect());
        let optional = Vec::new();
        Self { rows: rows.collect(), names: 0, states: None, ends_in_words: false, optional }
    }

    /// The names are in this column.
    pub(crate) fn names(self, column: usize) -> Self {
        Self { names: column, ..self }
    }

    /// This column has states.
    pub(crate) fn states(self, column: usize) -> Self {
        Self { states: Some(column), ..self }
    }

    /// The last column has words, which may be cut; without this, it has numbers.
    pub(crate) fn ends_in_words(self) -> Self {
        Self { ends_in_words: true, ..self }
    }

    /// These columns are left out in this order, as far as there is not room for them.
    pub(crate) fn optional(self, columns: impl IntoIterator<Item = usize>) -> Self {
        Self { optional: columns.into_iter().collect(), ..self }
    }

    /// Its lines on standard output, where they fit to the terminal, if it is one.
    pub(crate) fn for_output(self) -> String {
        let width = screen::of_output().map(|size| size.width);
        let lines = self.fit(width).lines(colour::is_for_output(), None);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Its lines on a page of this width: whatever does not fit is cut.
    pub(crate) fn for_page(self, width: usize) -> Vec<String> {
        self.fit(Some(width)).lines(colour::is_for_output(), Some(width))
    }

    /// Names and remarks become shorter, as far as that helps. Numbers stay.
    fn fit(mut self, width: Option<usize>) -> Self {
        let Some(width) = width else { return self };
        let names: Vec<String> =
            self.rows.iter().map(|row| row.get(self.names).cloned().unwrap_or_default()).collect();
        self.shorten(&names, width, NAME.max(width / 3));
        if self.ends_in_words && self.width() > width {
            let widths = self.widths();
            let before = widths.iter().rev().skip(1).map(|column| column + GAP).sum::<usize>();
            // A shorter row ends in counts.
            for row in self.rows.iter_mut().filter(|row| row.len() == widths.len()) {
                if let Some(last) = row.last_mut() {
                    *last = width::cut_list(last, width.saturating_sub(before).max(LEAST));
                }
            }
        }
        let mut left_out = Vec::new();
        for column in std::mem::take(&mut self.optional) {
            if self.width() <= width {
                break;
            }
            let place = column - left_out.iter().filter(|&&other| other < column).count();
            let rows = self.rows.iter_mut().filter(|row| row.len() > place);
            rows.for_each(|row| drop(row.remove(place)));
            self.states = self.states.map(|states| states - usize::from(place < states));
            left_out.push(column);
        }
        self.shorten(&names, width, LEAST);
        self.cut_counts(width);
        self
    }

    /// What follows on the counts at the end of shorter rows is cut, as far as it does not fit.
    fn cut_counts(&mut self, width: usize) {
        let widths = self.widths();
        for row in self.rows.iter_mut().filter(|row| row.len() < widths.len()) {
            let before: usize =
                widths.iter().take(row.len().saturating_sub(1)).map(|own| own + GAP).sum();
            if let Some(last) = row.last_mut() {
                *last = width::cut_after_counts(last, width.saturating_sub(before));
            }
        }
    }

    /// Makes these names so short that the rows fit, if they can be, but not shorter than this, and not so short that two
    /// become one.
    fn shorten(&mut self, names: &[String], width: usize, least: usize) {
        let too_much = self.width().saturating_sub(width);
        if too_much == 0 {
            return;
        }
        let column = self.names;
        let now = self.rows.iter().filter_map(|row| row.get(column)).map(|name| width::of(name));
        let most = now.max().unwrap_or(0).saturating_sub(too_much).max(least);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let short = width::names(&names, most);
        if distinct(&short) < distinct(&names) {
            return;
        }
        for (row, short) in self.rows.iter_mut().zip(short) {
            if let Some(name) = row.get_mut(column) {
                *name = short;
            }
        }
    }

    /// The width of each column. The last cell of a shorter row may be wider than its column.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let is_wider = |row: &&Vec<_>| row.len() > column + 1 || row.len() == columns;
            let cells = self.rows.iter().filter(is_wider).filter_map(|row| row.get(column));
            cells.map(|cell| width::of(cell)).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// The width of the widest row, without what may be cut from shorter ones.
    fn width(&self) -> usize {
        let widths = self.widths();
        let of_row = |row: &Vec<String>| {
            let before = widths.iter().take(row.len().saturating_sub(1));
            let before: usize = before.map(|column| column + GAP).sum();
            let last = row.last().map_or(String::new(), |last| match row.len() < widths.len() {
                true => width::cut_after_counts(last, 0),
                false => last.clone(),
            });
            before + width::of(&last)
        };
        self.rows.iter().map(of_row).max().unwrap_or(0)
    }

    fn lines(&self, coloured: bool, most: Option<usize>) -> Vec<String> {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let (mut line, mut left) = (String::new(), most.unwrap_or(usize::MAX));
            let mut missing = 0;
            for (column, cell) in row.iter().enumerate() {
                // Nothing is written after the last cell that is not empty.
                if cell.is_empty() {
                    missing += widths.get(column).map_or(0, |width| width + GAP);
                    continue;
                }
                line.push_str(&" ".repeat(missing.min(left)));
                left = left.saturating_sub(missing);
                let cell = width::cut_end(cell, left);
                let own = width::of(&cell);
                left = left.saturating_sub(own);
                missing = widths.get(column).map_or(0, |width| width.saturating_sub(own) + GAP);
                let cell = match coloured && self.states == Some(column) {
                    true => colour::states(&cell),
                    false => Cow::Borrowed(cell.as_str()),
                };
                line.push_str(&cell);
            }
            line
        };
        self.rows.iter().map(line).collect()
    }
}

fn distinct<T: Ord>(texts: &[T]) -> usize {
    texts.iter().collect::<BTreeSet<_>>().len()
}

/// Lines with their columns aligned, however wide they are. The last cell of a shorter line may be wider than its column.
pub(crate) fn plain(rows: &[Vec<String>]) -> String {
    let lines = Table::new(rows).lines(false, None);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Lines with their columns aligned, of which the first has names of stages; where these do not fit to the terminal, what
/// the names have in common goes, and else the cells of a row are below each other.
pub(crate) fn beside(rows: &[Vec<String>]) -> String {
    beside_to(rows, screen::of_output().map(|size| size.width))
}

fn beside_to(rows: &[Vec<String>], width: Option<usize>) -> String {
    let fits = |rows: &[Vec<String>]| width.is_none_or(|width| Table::new(rows).width() <= width);
    if fits(rows) {
        return plain(rows);
    }
    if let Some((names, others)) = rows.split_first() {
        let whole: Vec<&str> = names.iter().map(String::as_str).collect();
        let most = whole.iter().map(|name| width::of(name)).max().unwrap_or(0);
        let shorter = (LEAST..most).rev().map(|most| width::names(&whole, most));
        let rows = shorter.map(|names| [&[names], others].concat()).find(|rows| fits(rows));
        if let Some(rows) = rows.filter(|rows| distinct(&rows[0]) == distinct(names)) {
            return plain(&rows);
        }
    }
    let lines = rows.iter().flat_map(|row| {
        let (name, values) = row
            .split_first()
            .map_or(("", row.as_slice()), |(name, values)| (name.as_str(), values));
        let values = values.iter().map(|value| format!("  {}\n", visible::line(value)));
        Some(format!("{}\n", visible::line(name)))
            .filter(|_| !name.is_empty())
            .into_iter()
            .chain(values)
    });
    lines.collect()
}

/// Indented lines with their columns aligned. Columns that do not fit to the terminal follow below, as often as needed, each
/// time after the first `repeated` columns, by which rows are told apart. The first row is the heading.
pub(crate) fn folded(rows: &[Vec<String>], repeated: usize) -> String {
    folded_to(rows, repeated, screen::of_output().map(|size| size.width))
}

fn folded_to(rows: &[Vec<String>], repeated: usize, width: Option<usize>) -> String {
    const INDENT: usize = 2;
    let widths = Table::new(rows).widths();
    let (first, others) = widths.split_at(repeated.min(widths.len()));
    let (mut blocks, mut used) =
        (vec![Range::default()], INDENT + first.iter().map(|own| own + GAP).sum::<usize>());
    let start = used;
    for (column, own) in others.iter().enumerate() {
        let block = blocks.last().filter(|block| !block.is_empty());
        if block.is_some() && width.is_some_and(|width| used + own > width) {
            blocks.push(column..column);
            used = start;
        }
        used += own + GAP;
        if let Some(block) = blocks.last_mut() {
            block.end = column + 1;
        }
    }
    let block = |block: Range<usize>| {
        let rows = rows.iter().map(|row| {
            let (first, others) = row.split_at(repeated.min(row.len()));
            first.iter().chain(others.get(block.clone()).unwrap_or_default()).cloned().collect()
        });
        let lines = plain(&rows.collect::<Vec<_>>());
        let lines =
            lines.lines().map(|line| format!("{:INDENT$}{line}", "").trim_end().to_owned() + "\n");
        lines.collect::<String>()
    };
    blocks.into_iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> Table {
        let rows = rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect());
        Table::new(&rows.collect::<Vec<_>>())
    }

    fn shown(table: Table, width: usize) -> String {
        table.fit(Some(width)).lines(false, None).join("\n")
    }

    const ROWS: &[&[&str]] = &[
        &["stage", "state", "size"],
        &["train@init=simclr,rate=0.5", "fresh", "4.5 MB"],
        &["train@init=simclr,rate=0.9", "waiting", "12 B"],
        &["evaluate", "3: 2 fresh, 1 waiting; never ran"],
    ];

    #[test]
    fn names_become_shorter_and_numbers_stay() {
        let wide = "stage                       state    size\n\
                    train@init=simclr,rate=0.5  fresh    4.5 MB\n\
                    train@init=simclr,rate=0.9  waiting  12 B";
        assert_eq!(shown(table(&ROWS[..3]), 80), wide);
        let counts = shown(table(ROWS), 49);
        assert!(
            counts.ends_with("\nevaluate                    3: 2 fresh, 1 waiting"),
            "{counts}"
        );
        assert!(shown(table(ROWS), 80).ends_with("; never ran"));
        let narrow = "stage             state    size\n\
                      train@…,rate=0.5  fresh    4.5 MB\n\
                      train@…,rate=0.9  waiting  12 B";
        assert_eq!(shown(table(&ROWS[..3]), 34), narrow);
        assert_eq!(shown(table(&ROWS[..3]), 33), narrow);
        assert!(
            shown(table(&ROWS[..3]), 1)
                .lines()
                .skip(1)
                .all(|line| line.contains(" B") || line.contains(" MB"))
        );
    }

    #[test]
    fn names_stay_apart_at_every_width() {
        let rows: Vec<Vec<String>> = (0..9)
            .map(|number: u8| {
                let name = format!("score@rate=0.{},seed={}", 2 * (number / 3) + 1, number % 3);
                vec![name, "fresh".to_owned(), "a long metric 0.123, and another 0.5".to_owned()]
            })
            .collect();
        for width in 1..90 {
            let table = Table::new(&rows).ends_in_words().fit(Some(width));
            let names: Vec<_> = table.rows.iter().map(|row| &row[0]).collect();
            assert_eq!(distinct(&names), 9, "{width}: {names:?}");
        }
    }

    #[test]
    fn columns_that_are_optional_go_first() {
        let rows: &[&[&str]] = &[&["train", "train", "fresh"], &["all", "evaluate", "3: 1 fresh"]];
        let narrow = |width| shown(table(rows).states(2).optional([1]), width);
        assert_eq!(narrow(27), "train  train     fresh\nall    evaluate  3: 1 fresh");
        assert_eq!(narrow(26), "train  fresh\nall    3: 1 fresh");
        let rows: &[&[&str]] =
            &[&["train", "kind", "fresh", "now", "4 B"], &["all", "kind", "dirty", "never"]];
        let narrow = |width| shown(table(rows).states(2).optional([1, 4, 3]), width);
        assert_eq!(narrow(24), "train  fresh  now  4 B\nall    dirty  never");
        assert_eq!(narrow(20), "train  fresh  now\nall    dirty  never");
        assert_eq!(narrow(14), "train  fresh\nall    dirty");
    }

    #[test]
    fn words_at_the_end_are_cut() {
        let rows: &[&[&str]] = &[&["noisy", "dirty", "rate: 0.8 -> 0.9, and everything else"]];
        assert_eq!(shown(table(rows).ends_in_words(), 30), "noisy  dirty  rate: 0.8 -> 0.…");
        assert_eq!(shown(table(rows).ends_in_words(), 40), "noisy  dirty  rate: 0.8 -> 0.9, …");
        assert_eq!(shown(table(rows), 30), "noisy  dirty  rate: 0.8 -> 0.9, and everything else");
    }

    #[test]
    fn a_page_is_never_wider_than_it_is() {
        for width in 0..60 {
            for line in table(ROWS).states(1).for_page(width) {
                assert!(width::of(&visible::without_colours(&line)) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn states_have_colours_and_columns_stay_aligned() {
        let plain = table(ROWS).states(1).lines(false, None);
        let coloured = table(ROWS).states(1).lines(true, None);
        assert!(coloured.iter().skip(1).all(|line| line.contains("\u{1b}[")), "{coloured:?}");
        let stripped = coloured.iter().map(|line| visible::without_colours(line));
        assert_eq!(stripped.collect::<Vec<_>>(), plain);
    }

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        assert_eq!(plain(&[row(&["a", "bcd", "x"]), row(&["efg", "h"])]), "a    bcd  x\nefg  h\n");
        let rows = [row(&["a", "bcd", "x"]), row(&["efg", "more than that"])];
        assert_eq!(plain(&rows), "a    bcd  x\nefg  more than that\n");
    }

    #[test]
    fn what_does_not_fit_beside_each_other_is_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        let rows = [row(&["", "a@b=1,c=2", "a@b=1,c=3"]), row(&["loss", "a long", "b"])];
        let whole = "      a@b=1,c=2  a@b=1,c=3\nloss  a long     b\n";
        assert_eq!(beside_to(&rows, Some(26)), whole);
        let shorter = "      a@…,c=2  a@…,c=3\nloss  a long   b\n";
        assert_eq!(beside_to(&rows, Some(25)), shorter);
        let below = "  a@b=1,c=2\n  a@b=1,c=3\nloss\n  a long\n  b\n";
        assert_eq!(beside_to(&rows, Some(10)), below);
    }

    #[test]
    fn columns_that_do_not_fit_follow_below() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        let rows =
            [row(&["rate", "accuracy", "loss", "key"]), row(&["0.5", "0.71234", "1.2", "abcdef"])];
        let whole = "  rate  accuracy  loss  key\n  0.5   0.71234   1.2   abcdef\n";
        assert_eq!(folded_to(&rows, 1, None), whole);
        assert_eq!(folded_to(&rows, 1, Some(30)), whole);
        let two = "  rate  accuracy  loss\n  0.5   0.71234   1.2\n\n  rate  key\n  0.5   abcdef\n";
        assert_eq!(folded_to(&rows, 1, Some(29)), two);
        assert_eq!(folded_to(&rows, 1, Some(22)), two);
        assert_eq!(folded_to(&rows, 1, Some(1)).matches("rate").count(), 3);
        assert_eq!(folded_to(&rows, 0, Some(14)).matches('\n').count(), 3 * 2 + 2);
        assert_eq!(folded_to(&rows, 9, Some(1)), whole);
        assert_eq!(folded_to(&[], 1, Some(1)), "");
    }
}
