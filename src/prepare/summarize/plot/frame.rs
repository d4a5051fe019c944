//! What is around the data: title, axes and legend.

use super::canvas::{Anchor, Canvas, TEXT, text_width};
use super::chart::Chart;
use super::scale::{Scale, Ticks};
use super::style;

/// The places of the picture that the data has.
pub(super) struct Frame {
    pub canvas: Canvas,
    pub left: f64,
    pub right: f64,
    pub bottom: f64,
    /// From values to heights.
    pub vertical: Scale,
    /// Where the legend begins.
    below: f64,
}

/// How the legend shows a series.
#[derive(Clone, Copy)]
pub(super) enum Sample {
    Line,
    Bar,
}

/// The usual size, in pixels.
pub(super) const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
/// The height of a line of texts.
const LINE: f64 = 19.0;
/// Between the entries of the legend.
const GAP: f64 = 20.0;
/// The part of a legend's entry before its text.
const SAMPLE: f64 = 34.0;

impl Frame {
    /// Title, vertical axis and grid. The horizontal axis has `label_lines` lines of labels, and a name.
    pub(super) fn new(chart: &Chart, ticks: &Ticks, width: f64, label_lines: usize) -> Self {
        let widest = ticks.ticks.iter().map(|(_, text)| text_width(text, TEXT)).fold(0.0, f64::max);
        let (left, right) = (widest + 44.0, width - 16.0);
        let (top, bottom) = (44.0, 44.0 + HEIGHT);
        let below = bottom + 14.0 + LINE * (label_lines as f64 + 1.0);
        let height = below + LINE * legend_lines(chart, left, right).len() as f64 + 8.0;
        let mut canvas = Canvas::new(&chart.title, width, height);
        canvas.bold_text((left, 24.0), Anchor::Start, 15.0, &chart.title);
        let vertical = Scale::linear(ticks.range, bottom, top);
        for (value, text) in &ticks.ticks {
            let y = vertical.place(*value);
            canvas.grid_line((left, y), (right, y));
            canvas.text((left - 8.0, y + 4.5), Anchor::End, TEXT, text);
        }
        canvas.upright_text((16.0, f64::midpoint(top, bottom)), &chart.vertical);
        canvas.axis_line((left, bottom), (right, bottom));
        Self { canvas, left, right, bottom, vertical, below }
    }

    /// The name of the horizontal axis, under this many lines of labels.
    pub(super) fn name_horizontal(&mut self, name: &str) {
        let middle = f64::midpoint(self.left, self.right);
        self.canvas.text((middle, self.below - 10.0), Anchor::Middle, TEXT, name);
    }

    /// The legend, and the finished picture.
    pub(super) fn finish(mut self, chart: &Chart, sample: Sample) -> String {
        for (line, entries) in legend_lines(chart, self.left, self.right).into_iter().enumerate() {
            let y = self.below + LINE * (line as f64 + 1.0) - 4.0;
            for (x, entry) in entries {
                self.entry(chart, sample, (self.left + x, y), &entry);
            }
        }
        self.canvas.finish()
    }

    fn entry(&mut self, chart: &Chart, sample: Sample, (x, y): (f64, f64), entry: &Entry) {
        let canvas = &mut self.canvas;
        let (middle, centre) = (x + SAMPLE / 2.0 - 3.0, y - 4.5);
        let grey = 6;
        match (entry, sample) {
            (Entry::Axes, _) => {
                return canvas.text((x, y), Anchor::Start, TEXT, &format!("{}:", chart.legend));
            }
            (Entry::CleanLabels, _) => {
                return canvas.text((x, y), Anchor::Start, TEXT, &entry.text(chart));
            }
            (Entry::Series(series), Sample::Line) => {
                let line = [(x, centre), (x + SAMPLE - 6.0, centre)];
                canvas.line(*series, &line, 2.0, style::dashes(*series));
                canvas.marker(*series, (middle, centre), "");
            }
            (Entry::Series(series), Sample::Bar) => {
                canvas.bar(*series, (x + 10.0, x + SAMPLE - 8.0), (centre - 6.0, centre + 6.0), "");
            }
            (Entry::Interval, Sample::Line) => {
                let (left, right, top, bottom) = (x, x + SAMPLE - 6.0, centre - 6.0, centre + 6.0);
                canvas.band(grey, &[(left, top), (right, top), (right, bottom), (left, bottom)]);
                canvas.band(grey, &[(left, top), (right, top), (right, bottom), (left, bottom)]);
            }
            (Entry::Interval, Sample::Bar) => {
                canvas.whisker(middle, (centre + 6.0, centre - 6.0), 4.0)
            }
            (Entry::Published, Sample::Line) => canvas.hollow_marker(grey, 0, (middle, centre), ""),
            (Entry::Published, Sample::Bar) => {
                canvas.reference_line((x + 4.0, x + SAMPLE - 6.0), centre, "");
            }
            (Entry::Gap, _) => canvas.cross(grey, (middle, centre), ""),
        }
        canvas.text((x + SAMPLE, y), Anchor::Start, TEXT, &entry.text(chart));
    }
}

/// What the legend explains.
enum Entry {
    Axes,
    Series(usize),
    Interval,
    Published,
    Gap,
    CleanLabels,
}

impl Entry {
    fn text(&self, chart: &Chart) -> String {
        match self {
            Self::Axes => String::new(),
            Self::Series(series) => chart.series[*series].entry(),
            Self::Interval => "95 % interval".to_owned(),
            Self::Published => "published".to_owned(),
            Self::Gap => "failed, or not a finite number".to_owned(),
            Self::CleanLabels => {
                "† learned from labels known to be right, or chosen by them".to_owned()
            }
        }
    }

    fn width(&self, chart: &Chart) -> f64 {
        match self {
            Self::Axes => text_width(&chart.legend, TEXT),
            Self::CleanLabels => text_width(&self.text(chart), TEXT),
            _ => SAMPLE + text_width(&self.text(chart), TEXT),
        }
    }
}

/// The entries of the legend in lines, each with its place from the left.
fn legend_lines(chart: &Chart, left: f64, right: f64) -> Vec<Vec<(f64, Entry)>> {
    let mut entries = Vec::new();
    if chart.series.len() > 1 {
        entries.extend((!chart.legend.is_empty()).then_some(Entry::Axes));
        entries.extend((0..chart.series.len()).map(Entry::Series));
    }
    entries.extend(chart.has_intervals().then_some(Entry::Interval));
    entries.extend(chart.has_references().then_some(Entry::Published));
    entries.extend(chart.has_gaps().then_some(Entry::Gap));
    entries.extend(chart.uses_clean_labels.then_some(Entry::CleanLabels));
    let mut lines: Vec<Vec<(f64, Entry)>> = Vec::new();
    let mut x = f64::INFINITY;
    for entry in entries {
        let width = entry.width(chart);
        if x + width > right - left {
            lines.push(Vec::new());
            x = 0.0;
        }
        lines.last_mut().expect("there is a line").push((x, entry));
        x += width + GAP;
    }
    lines
}
