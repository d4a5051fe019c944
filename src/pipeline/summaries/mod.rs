//! The tables of stages of the kind `summarize`, on a terminal.

pub(crate) mod markdown;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pipeline_stages::Kind as _;
use pipeline_stages::kinds::Summarize;

use crate::cache::Cache;
use crate::digest::Digest;
use crate::stage_name::StageName;
use crate::{table, visible};
use markdown::{Cell, Section};

/// The most rows that are shown of all tables together, unless all are asked for.
pub(crate) const MOST_ROWS: usize = 30;

/// A larger `table.md` is not read, in bytes.
const LARGEST: u64 = 4_000_000;

/// Behind the best value of a column.
const BEST: &str = " *";

/// Tables, each below its title.
#[derive(Debug, Default)]
pub(crate) struct Tables<'a> {
    blocks: Vec<String>,
    /// The stages of which rows were left out, by their names in the manifest.
    pub(crate) shortened: BTreeSet<&'a str>,
}

impl<'a> Tables<'a> {
    /// Those of these stages and their artifacts, of at most `most` rows together. An artifact that cannot be read does not have any.
    pub(crate) fn read(
        cache: &Cache,
        stages: impl IntoIterator<Item = (&'a StageName, Digest)>,
        most: usize,
    ) -> Self {
        let (mut tables, mut left) = (Self::default(), most);
        for (name, digest) in stages {
            for section in sections(&cache.artifact(&digest)) {
                let shown = section.rows.len().min(left);
                left -= shown;
                if shown > 0 {
                    tables.blocks.push(block(name, &section, shown));
                }
                if shown < section.rows.len() {
                    tables.shortened.insert(name.template());
                }
            }
        }
        tables
    }

    /// An empty line between two of them.
    pub(crate) fn into_text(self) -> String {
        self.blocks.join("\n")
    }
}

/// Whether stages of this kind have such tables.
pub(crate) fn is_summary(kind: &str) -> bool {
    kind == Summarize::NAME
}

fn sections(artifact: &Path) -> Vec<Section> {
    let path = artifact.join("table.md");
    let is_small =
        fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    let text = if is_small { fs::read_to_string(&path).ok() } else { None };
    text.map_or(Vec::new(), |text| markdown::sections(&text))
}

fn block(name: &StageName, section: &Section, most: usize) -> String {
    let cell = |Cell { text, best }: &Cell| format!("{text}{}", if *best { BEST } else { "" });
    let shown = section.rows.get(..most).unwrap_or(&section.rows);
    let mut rows = vec![section.header.clone()];
    rows.extend(shown.iter().map(|row| row.iter().map(cell).collect()));
    let names = section.numbers.iter().take_while(|is_number| !**is_number).count();
    let has_best = shown.iter().flatten().any(|cell| cell.best);
    let mut notes: Vec<&str> = section.notes.iter().map(String::as_str).collect();
    notes.extend(has_best.then_some("* marks the best."));
    let title = visible::line(&section.title);
    format!(
        "{name}: {title}\n{}  {}\n",
        table::folded(&rows, names),
        visible::line(&notes.join(" "))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::FieldHasher;

    #[test]
    fn of_all_tables_together_only_some_rows_are_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a new cache");
        let artifact = |name: &str, text: &str| {
            let digest = FieldHasher::new(name).finish();
            let path = cache.artifact(&digest);
            fs::create_dir_all(&path).expect("writable");
            fs::write(path.join("table.md"), text).expect("writable");
            (name.parse::<StageName>().expect("a name"), digest)
        };
        let first = "## loss\n\n| rate | value |\n| ---- | ----: |\n| 1 | **2** ± 1 |\n| 2 | 3 |\n\nn = 3\n";
        let stages = [artifact("one@x=1", first), artifact("two", &first.replace("loss", "b"))];
        let gone = ("three".parse().expect("a name"), FieldHasher::new("three").finish());
        let read = |most| {
            let stages = stages.iter().chain([&gone]).map(|(name, digest)| (name, *digest));
            Tables::read(&cache, stages, most)
        };
        let note = "  n = 3 * marks the best.\n";
        let whole = format!("one@x=1: loss\n  rate  value\n  1     2 ± 1 *\n  2     3\n{note}");
        let other = "two: b\n  rate  value\n  1     2 ± 1 *\n  2     3\n";
        let all = read(usize::MAX);
        assert_eq!(all.shortened, BTreeSet::new());
        assert_eq!(all.into_text(), format!("{whole}\n{other}{note}"));
        let some = read(3);
        assert_eq!(some.shortened, BTreeSet::from(["two"]));
        assert_eq!(
            some.into_text(),
            format!("{whole}\n{}{note}", other.replace("  2     3\n", ""))
        );
        assert_eq!(read(0).shortened, BTreeSet::from(["one", "two"]));
    }
}
