//! Colours, markers and dashes.

use std::fmt::Write as _;

/// The colours of series: without a style sheet and in light, and in dark. After Okabe and Ito (2008), who chose theirs for all kinds of colour
/// blindness; adapted so that each can be read on white and on a dark ground.
const COLOURS: [(&str, &str); 7] = [
    ("#0072b2", "#5aaee8"),
    ("#d55e00", "#f4894a"),
    ("#009e73", "#2fc79c"),
    ("#b5578d", "#e093c0"),
    ("#b87f00", "#e9b544"),
    ("#3d97c8", "#8fd0f5"),
    ("#6e7781", "#a9b1ba"),
];

/// The dashes of lines; the first is none.
const DASHES: [&str; 5] = ["none", "7 3", "2 3", "9 3 2 3", "14 4"];

/// Texts and axes: without a style sheet, in light, in dark.
const INK: (&str, &str, &str) = ("#6a737d", "#24292f", "#d0d7de");

/// Lines behind the data.
const GRID: (&str, &str, &str) = ("#8b949e", "#8b949e", "#8b949e");

/// The colour of texts without a style sheet.
pub(super) fn ink() -> &'static str {
    INK.0
}

/// The colour of lines behind the data.
pub(super) fn grid() -> &'static str {
    GRID.0
}

/// The number of a series' colour.
pub(super) fn colour_index(series: usize) -> usize {
    series % COLOURS.len()
}

/// The colour of a series without a style sheet.
pub(super) fn colour(series: usize) -> &'static str {
    COLOURS[colour_index(series)].0
}

/// The dashes of a series: when the colours begin again, they do not.
pub(super) fn dashes(series: usize) -> &'static str {
    DASHES[(series + series / COLOURS.len()) % DASHES.len()]
}

/// What the style sheet of a picture has: the colours that follow the reader's preference.
pub(super) fn sheet() -> String {
    let mut sheet = String::new();
    for (scheme, ink, dark) in [("light", INK.1, false), ("dark", INK.2, true)] {
        let _ = write!(
            sheet,
            "@media (prefers-color-scheme: {scheme}) {{ .ink {{ fill: {ink} }} .axis {{ stroke: {ink} }}"
        );
        if dark {
            sheet.push_str(" .bar { fill-opacity: 0.6 }");
            for (index, (_, dark)) in COLOURS.iter().enumerate() {
                let _ =
                    write!(sheet, " .f{index} {{ fill: {dark} }} .s{index} {{ stroke: {dark} }}");
            }
        }
        sheet.push_str(" }\n");
    }
    sheet
}

/// The outline of a marker around a place, as the data of an SVG path.
pub(super) fn marker(series: usize, x: f64, y: f64, radius: f64) -> String {
    let polygon = |corners: &[(f64, f64)]| {
        let corners = corners.iter().map(|(right, down)| (x + right * radius, y + down * radius));
        let corners: Vec<_> = corners.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        format!("M{}Z", corners.join("L"))
    };
    match colour_index(series) {
        0 => {
            let (left, width) = (x - radius, 2.0 * radius);
            format!(
                "M{left:.1} {y:.1}a{radius:.1} {radius:.1} 0 1 0 {width:.1} 0a{radius:.1} {radius:.1} 0 1 0 -{width:.1} 0Z"
            )
        }
        1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        2 => polygon(&[(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)]),
        3 => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
        4 => polygon(&[(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)]),
        5 => polygon(&[
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
            (-1.2, -0.4),
            (-0.4, -0.4),
        ]),
        _ => polygon(&[(0.0, -1.2), (1.14, -0.37), (0.7, 0.97), (-0.7, 0.97), (-1.14, -0.37)]),
    }
}
