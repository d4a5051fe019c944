//! What a page shows of an artifact and of a log: the files of known names, each of bounded size.
//!
//! By name, not by kind: a program of the user that writes `curves.csv` has curves, too.

use std::fs;
use std::path::Path;

use pipeline_stages::formats::NoiseReport;
use serde::Serialize;

use super::csv::{Counts, Numbers, rounded};
use super::pictures::{self, DataImages, WrongLabel};
use super::stage::StageReport;
use crate::cache::Cache;
use crate::regular_file::read_end;
use crate::summaries::markdown::{self, Section};
use crate::{summaries, visible};

/// A larger file is left out.
const LARGEST: u64 = 8 << 20;
/// The most plots of a summary.
const MOST_PLOTS: usize = 24;

/// How much of what is large still has room on the page.
#[derive(Debug)]
pub(super) struct Room {
    /// Rows of a table of curves.
    curve_rows: usize,
    /// Bytes of a log.
    log: u64,
    /// Numbers of matrices, together.
    matrix: usize,
    /// Bytes of tables and plots of summaries, together.
    summaries: usize,
    /// Bytes of images, together.
    images: usize,
    /// The data set that was opened last: many sets of labels are of one.
    data: DataImages,
}

impl Room {
    /// The room for this many stages: some 4 MB in all.
    pub(super) fn for_stages(count: usize) -> Self {
        let count = count.max(1);
        Self {
            curve_rows: (20_000 / count).clamp(30, 500),
            log: (500_000 / count as u64).clamp(400, 6000),
            matrix: 250_000,
            summaries: 2_000_000,
            images: 1_000_000,
            data: DataImages::default(),
        }
    }

    fn takes_matrix(&mut self, numbers: usize) -> bool {
        let left = self.matrix.checked_sub(numbers);
        self.matrix = left.unwrap_or(self.matrix);
        left.is_some()
    }
}

/// What is shown of an artifact and of a log.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Contents {
    /// `curves.csv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    curves: Option<Numbers>,
    /// `evaluations.csv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluations: Option<Numbers>,
    /// `confusion.csv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    confusion: Option<Counts>,
    /// `reliability.csv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reliability: Option<Numbers>,
    /// `noise.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseReport>,
    /// Samples whose label is wrong, with their images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong_labels: Vec<WrongLabel>,
    /// `views.png`, as a `data:` URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<String>,
    /// `table.md` of a summary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tables: Vec<Section>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plots: Vec<Plot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogTail>,
    /// What is not shown, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// A picture, as SVG.
#[derive(Debug, Serialize)]
struct Plot {
    name: String,
    svg: String,
}

/// The end of a log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LogTail {
    text: String,
    /// Bytes before it.
    left_out: u64,
}

impl Contents {
    /// Reads what is known of the last run of a stage.
    pub(super) fn read(cache: &Cache, stage: &StageReport, room: &mut Room) -> Self {
        let mut contents = Self::default();
        let last = stage.last_run.as_ref();
        // A stage that failed has a log under its current key; one whose key changed, under its last.
        let keys = stage.key.into_iter().chain(last.map(|run| run.key));
        let mut logs = keys.map(|key| cache.layout().log(&key));
        contents.log = logs.find_map(|path| LogTail::read(&path, room.log));
        if let Some(run) = last.filter(|run| cache.has_artifact(&run.artifact)) {
            let folder = cache.artifact(&run.artifact);
            contents.read_artifact(&folder, stage.kind, room);
            let data = run.inputs.get("data").filter(|data| cache.has_artifact(data));
            if let Some(data) = data.filter(|_| contents.noise.is_some()) {
                contents.read_wrong_labels(&folder, &cache.artifact(data), room);
            }
        }
        contents
    }

    /// Adds what is not shown, and why.
    pub(super) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn read_artifact(&mut self, folder: &Path, kind: &str, room: &mut Room) {
        let numbers = |text: &str| Numbers::read(text, room.curve_rows);
        self.curves = self.table(folder, "curves.csv", numbers);
        self.evaluations = self.table(folder, "evaluations.csv", numbers);
        self.reliability = self.table(folder, "reliability.csv", |text| {
            let wanted = ["bin", "samples", "confidence", "accuracy"];
            numbers(text).filter(|table| table.columns == wanted)
        });
        let confusion = self.table(folder, "confusion.csv", Counts::read);
        self.confusion =
            self.within(room, "confusion.csv", confusion, |counts| counts.rows.len().pow(2));
        let noise = self.table(folder, "noise.json", noise);
        self.noise = self.within(room, "noise.json", noise, |noise| 2 * noise.classes.len().pow(2));
        if let Some(views) = self.bytes(folder, "views.png").as_deref().and_then(pictures::views) {
            self.views = self.image(room, "views.png", views);
        }
        if summaries::is_summary(kind) {
            self.read_summary(folder, room);
        }
    }

    /// An image, if there is room for it.
    fn image(&mut self, room: &mut Room, name: &str, url: String) -> Option<String> {
        match room.images.checked_sub(url.len()) {
            Some(left) => {
                room.images = left;
                Some(url)
            }
            None => {
                let note =
                    format!("{name} is not shown: the page would be too large; name fewer stages");
                self.notes.push(note);
                None
            }
        }
    }

    fn read_wrong_labels(&mut self, labels: &Path, data: &Path, room: &mut Room) {
        let wrong = match room.data.wrong_labels(labels, data) {
            Ok(wrong) => wrong,
            Err(error) => return self.note(&format!("wrong labels are not shown: {error:#}")),
        };
        let bytes = wrong.iter().map(|label| label.image.len()).sum();
        match room.images.checked_sub(bytes) {
            Some(left) => {
                room.images = left;
                self.wrong_labels = wrong;
            }
            None => self.note(
                "images with wrong labels are not shown: the page would be too large; name fewer stages",
            ),
        }
    }

    /// A file of an artifact, if it has it.
    fn table<T>(
        &mut self,
        folder: &Path,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(folder, name)?;
        let table = read(&text);
        if table.is_none() {
            self.notes.push(format!("{name} is not a table that can be shown"));
        }
        table
    }

    fn within<T>(
        &mut self,
        room: &mut Room,
        name: &str,
        table: Option<T>,
        size: impl Fn(&T) -> usize,
    ) -> Option<T> {
        let table = table?;
        if room.takes_matrix(size(&table)) {
            return Some(table);
        }
        self.notes
            .push(format!("{name} is not shown: the page would be too large; name fewer stages"));
        None
    }

    fn text(&mut self, folder: &Path, name: &str) -> Option<String> {
        let bytes = self.bytes(folder, name)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bytes(&mut self, folder: &Path, name: &str) -> Option<Vec<u8>> {
        let path = folder.join(name);
        // Not through a link: a program may have written it.
        let found = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
        if found.len() > LARGEST {
            self.notes.push(format!("{name} is not shown: it is too large"));
            return None;
        }
        match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.notes.push(format!("{name} cannot be read: {error}"));
                None
            }
        }
    }

    fn read_summary(&mut self, folder: &Path, room: &mut Room) {
        if let Some(text) = self.text(folder, "table.md") {
            match room.summaries.checked_sub(text.len()) {
                Some(left) => {
                    room.summaries = left;
                    self.tables = markdown::sections(&text);
                }
                None => {
                    self.notes
                        .push("table.md is not shown: the page would be too large".to_owned());
                }
            }
        }
        let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with("plot") && name.ends_with(".svg"));
        names.sort();
        for name in names {
            let Some(svg) = self.text(folder, &name) else { continue };
            match room.summaries.checked_sub(svg.len()).filter(|_| self.plots.len() < MOST_PLOTS) {
                Some(left) => {
                    room.summaries = left;
                    self.plots.push(Plot { name, svg });
                }
                None => {
                    self.notes.push(format!("{name} is not shown: the page would be too large"))
                }
            }
        }
    }
}

/// The noise of a `noise.json` whose matrices have the right size.
fn noise(text: &str) -> Option<NoiseReport> {
    let mut noise: NoiseReport = serde_json::from_str(text).ok()?;
    let count = noise.classes.len();
    let is_square = |matrix: &Vec<Vec<f64>>| {
        matrix.len() == count && matrix.iter().all(|row| row.len() == count)
    };
    if !is_square(&noise.realised_matrix) || !noise.requested_matrix.iter().all(is_square) {
        return None;
    }
    let matrices = noise.requested_matrix.iter_mut().chain([&mut noise.realised_matrix]);
    for value in matrices.flatten().flatten() {
        *value = rounded(*value).unwrap_or(0.0);
    }
    Some(noise)
}

impl LogTail {
    /// The last whole lines of a file. `None` if it is missing or empty.
    fn read(path: &Path, most: u64) -> Option<Self> {
        let (mut bytes, mut left_out) = read_end(path, most).ok()?;
        if left_out > 0
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
        {
            left_out += end as u64 + 1;
            bytes.drain(..=end);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(|line| visible::without_colours(line.trim_end_matches('\r')));
        let text = lines.collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then_some(Self { text, left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_whole_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        assert!(LogTail::read(&path, 10).is_none());
        fs::write(&path, "first line\nsecond\n\u{1b}[31mred\u{1b}[0m\n").expect("writable");
        let tail = LogTail::read(&path, 100).expect("a log");
        assert_eq!((tail.text.as_str(), tail.left_out), ("first line\nsecond\nred", 0));
        let tail = LogTail::read(&path, 15).expect("a log");
        assert_eq!((tail.text.as_str(), tail.left_out), ("red", 18));
    }

    #[test]
    fn matrices_have_room_until_there_is_none() {
        let mut room = Room::for_stages(1);
        assert!(
            room.takes_matrix(200_000) && !room.takes_matrix(100_000) && room.takes_matrix(50_000)
        );
    }

    #[test]
    fn a_damaged_file_is_a_note() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("noise.json"), "{").expect("writable");
        fs::write(folder.path().join("confusion.csv"), "x").expect("writable");
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("curves.csv"))
            .expect("a link");
        let mut contents = Contents::default();
        contents.read_artifact(folder.path(), "command", &mut Room::for_stages(1));
        assert_eq!(contents.notes.len(), 2, "{:?}", contents.notes);
        assert!(contents.curves.is_none(), "links are not followed");
    }
}
