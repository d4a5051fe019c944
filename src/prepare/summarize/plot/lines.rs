//! Lines with interval bands, over an axis of numbers.

use super::canvas::{Anchor, TEXT, text_width};
use super::chart::{Chart, Mark, Series};
use super::frame::{Frame, Sample, WIDTH};
use super::scale::{Scale, Ticks};
use super::style;

/// From this ratio of the largest to the smallest value on, their logarithm is shown.
const LOGARITHMIC_FROM: f64 = 50.0;

/// Between the ends of the horizontal axis and the data.
const ROOM: f64 = 20.0;

/// The picture. `values` are those of the horizontal axis, ascending.
pub(super) fn draw(chart: &Chart, axis: &str, values: &[(f64, String)]) -> String {
    let ticks = Ticks::around(chart.numbers());
    let mut frame = Frame::new(chart, &ticks, WIDTH, 1);
    let horizontal = horizontal(values, frame.left + ROOM, frame.right - ROOM);
    let places: Vec<f64> = values.iter().map(|(value, _)| horizontal.place(*value)).collect();
    label_values(&mut frame, values, &places);
    frame.name_horizontal(axis);
    for (index, series) in chart.series.iter().enumerate() {
        for part in unbroken(series) {
            band(&mut frame, index, &part, &places);
        }
    }
    for (index, series) in chart.series.iter().enumerate() {
        draw_series(&mut frame, index, series, &places, values);
    }
    frame.finish(chart, Sample::Line)
}

fn horizontal(values: &[(f64, String)], left: f64, right: f64) -> Scale {
    let (low, high) = (values[0].0, values[values.len() - 1].0);
    if low > 0.0 && high / low >= LOGARITHMIC_FROM {
        Scale::logarithmic((low, high), left, right)
    } else {
        Scale::linear((low, high), left, right)
    }
}

/// A mark at each value, and its text where there is room.
fn label_values(frame: &mut Frame, values: &[(f64, String)], places: &[f64]) {
    let mut free_from = f64::NEG_INFINITY;
    for ((_, text), &x) in values.iter().zip(places) {
        let half = text_width(text, TEXT) / 2.0;
        frame.canvas.axis_line((x, frame.bottom), (x, frame.bottom + 5.0));
        if x - half > free_from {
            frame.canvas.text((x, frame.bottom + 20.0), Anchor::Middle, TEXT, text);
            free_from = x + half + 6.0;
        }
    }
}

/// The parts of a series between marks without a mean. Where a point does not exist, the line goes on.
fn unbroken(series: &Series) -> Vec<Vec<&Mark>> {
    let parts = series.marks.split(|mark| mark.mean.is_none());
    parts.filter(|part| !part.is_empty()).map(|part| part.iter().collect()).collect()
}

fn band(frame: &mut Frame, series: usize, part: &[&Mark], places: &[f64]) {
    for run in part.split(|mark| mark.interval.is_none()) {
        let ends: Vec<_> =
            run.iter().filter_map(|mark| Some((places[mark.place], mark.interval?))).collect();
        let vertical = frame.vertical;
        match ends.as_slice() {
            [] => {}
            // A band needs two values: a line shows the interval of one.
            [(x, (low, high))] => {
                let line = [(*x, vertical.place(*low)), (*x, vertical.place(*high))];
                frame.canvas.line(series, &line, 1.2, "none");
            }
            _ => {
                let upper = ends.iter().map(|(x, (_, high))| (*x, vertical.place(*high)));
                let lower = ends.iter().rev().map(|(x, (low, _))| (*x, vertical.place(*low)));
                frame.canvas.band(series, &upper.chain(lower).collect::<Vec<_>>());
            }
        }
    }
}

fn draw_series(
    frame: &mut Frame,
    index: usize,
    series: &Series,
    places: &[f64],
    values: &[(f64, String)],
) {
    let vertical = frame.vertical;
    for part in unbroken(series) {
        let line =
            part.iter().filter_map(|mark| Some((places[mark.place], vertical.place(mark.mean?))));
        let line: Vec<_> = line.collect();
        if line.len() > 1 {
            frame.canvas.line(index, &line, 2.0, style::dashes(index));
        }
    }
    for mark in &series.marks {
        let x = places[mark.place];
        let words = match series.name.as_str() {
            "" => format!("{}: {}", values[mark.place].1, mark.words),
            name => format!("{name}, {}: {}", values[mark.place].1, mark.words),
        };
        match mark.mean {
            Some(mean) => frame.canvas.marker(index, (x, vertical.place(mean)), &words),
            None => frame.canvas.cross(index, (x, frame.bottom - 8.0), &words),
        }
        if let Some(reference) = mark.reference {
            frame.canvas.hollow_marker(index, index, (x, vertical.place(reference)), &words);
        }
    }
}
