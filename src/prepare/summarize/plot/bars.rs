//! Bars with interval whiskers, in groups over labels.

use super::canvas::{Anchor, TEXT, text_width};
use super::chart::{Chart, Horizontal, Mark};
use super::frame::{Frame, Sample, WIDTH};
use super::scale::Ticks;

/// The widest and the narrowest bar, in pixels.
const BAR: (f64, f64) = (46.0, 12.0);

/// Between the bars of a group.
const BETWEEN: f64 = 3.0;

/// Between groups.
const GAP: f64 = 22.0;

/// The room of the vertical axis beside the bars.
const AXIS: f64 = 100.0;

/// The picture. It is wider than others where there are many bars.
pub(super) fn draw(chart: &Chart) -> String {
    let Horizontal::Categories { axes, labels } = &chart.horizontal else { return String::new() };
    let ticks = Ticks::around(chart.numbers().chain([0.0]));
    let count = labels.len().max(1) as f64;
    let per_group = chart.series.len().max(1) as f64;
    let widest_label =
        labels.iter().flatten().map(|line| text_width(line, TEXT) + 12.0).fold(0.0, f64::max);
    let least = (per_group * (BAR.1 + BETWEEN) + GAP).max(widest_label);
    let width = WIDTH.max(AXIS + count * least);
    let lines = labels.iter().map(Vec::len).max().unwrap_or(1);
    let mut frame = Frame::new(chart, &ticks, width, lines);
    let step = (frame.right - frame.left) / count;
    let bar = ((step - GAP) / per_group - BETWEEN).clamp(BAR.1, BAR.0);
    for (place, label) in labels.iter().enumerate() {
        let middle = frame.left + step * (place as f64 + 0.5);
        for (line, text) in label.iter().enumerate() {
            let y = frame.bottom + 20.0 + 19.0 * line as f64;
            frame.canvas.text((middle, y), Anchor::Middle, TEXT, text);
        }
    }
    frame.name_horizontal(axes);
    let zero = frame.vertical.place(0.0);
    for (index, series) in chart.series.iter().enumerate() {
        for mark in &series.marks {
            let middle = frame.left + step * (mark.place as f64 + 0.5);
            let left = middle + (bar + BETWEEN) * (index as f64 - per_group / 2.0) + BETWEEN / 2.0;
            let label = labels[mark.place].join(", ");
            let words = match series.name.as_str() {
                "" => format!("{label}: {}", mark.words),
                name => format!("{name}, {label}: {}", mark.words),
            };
            draw_bar(&mut frame, index, mark, (left, left + bar), &words);
        }
    }
    frame.canvas.axis_line((frame.left, zero), (frame.right, zero));
    frame.finish(chart, Sample::Bar)
}

fn draw_bar(frame: &mut Frame, series: usize, mark: &Mark, (left, right): (f64, f64), words: &str) {
    let vertical = frame.vertical;
    let middle = f64::midpoint(left, right);
    let zero = vertical.place(0.0);
    match mark.mean {
        Some(mean) => frame.canvas.bar(series, (left, right), (zero, vertical.place(mean)), words),
        None => frame.canvas.cross(series, (middle, zero - 8.0), words),
    }
    if let Some((low, high)) = mark.interval {
        let ends = (vertical.place(low), vertical.place(high));
        frame.canvas.whisker(middle, ends, ((right - left) / 4.0).min(6.0));
    }
    if let Some(reference) = mark.reference {
        frame.canvas.reference_line((left - 2.0, right + 2.0), vertical.place(reference), words);
    }
}
