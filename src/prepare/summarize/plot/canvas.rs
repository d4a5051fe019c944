//! Elements of an SVG picture.

use svg::Node as _;
use svg::node::Text;
use svg::node::element::Element;

use super::super::format::one_line;
use super::style;

/// A picture.
pub(super) struct Canvas {
    root: Element,
}

/// Where a text is in relation to its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The size of texts, in pixels.
pub(super) const TEXT: f64 = 13.0;

impl Canvas {
    pub(super) fn new(title: &str, width: f64, height: f64) -> Self {
        let mut root = element(
            "svg",
            &[
                ("xmlns", "http://www.w3.org/2000/svg".to_owned()),
                ("viewBox", format!("0 0 {width:.0} {height:.0}")),
                ("width", format!("{width:.0}")),
                ("height", format!("{height:.0}")),
                ("role", "img".to_owned()),
                (
                    "font-family",
                    "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif".to_owned(),
                ),
                ("font-size", TEXT.to_string()),
            ],
        );
        root.append(with_text("title", &[], title));
        root.append(with_text("style", &[], &style::sheet()));
        Self { root }
    }

    /// The picture as text.
    pub(super) fn finish(self) -> String {
        format!("{}\n", self.root)
    }

    /// A text; `size` in pixels.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: f64, text: &str) {
        let attributes = text_attributes(x, y, anchor, size);
        self.root.append(with_text("text", &attributes, text));
    }

    pub(super) fn bold_text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: f64, text: &str) {
        let mut attributes = text_attributes(x, y, anchor, size);
        attributes.push(("font-weight", "bold".to_owned()));
        self.root.append(with_text("text", &attributes, text));
    }

    /// A text that is read from bottom to top.
    pub(super) fn upright_text(&mut self, (x, y): (f64, f64), text: &str) {
        let mut attributes = text_attributes(x, y, Anchor::Middle, TEXT);
        attributes.push(("transform", format!("rotate(-90 {x:.1} {y:.1})")));
        self.root.append(with_text("text", &attributes, text));
    }

    pub(super) fn grid_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let mut attributes = line_attributes(from, to);
        attributes
            .extend([("stroke", style::grid().to_owned()), ("stroke-opacity", "0.35".to_owned())]);
        self.root.append(element("line", &attributes));
    }

    pub(super) fn axis_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let mut attributes = line_attributes(from, to);
        attributes.extend([("stroke", style::ink().to_owned()), ("class", "axis".to_owned())]);
        self.root.append(element("line", &attributes));
    }

    /// A line of a series through places. `dashed` in its dashes.
    pub(super) fn line(&mut self, series: usize, places: &[(f64, f64)], width: f64, dashes: &str) {
        let mut attributes = stroke(series, width);
        attributes.push(("d", path(places)));
        if dashes != "none" {
            attributes.push(("stroke-dasharray", dashes.to_owned()));
        }
        self.root.append(element("path", &attributes));
    }

    /// An area of a series through which everything behind it can be seen.
    pub(super) fn band(&mut self, series: usize, corners: &[(f64, f64)]) {
        let mut attributes = fill(series);
        attributes.extend([("d", path(corners) + "Z"), ("fill-opacity", "0.15".to_owned())]);
        self.root.append(element("path", &attributes));
    }

    /// A marker of a series, with words for who points at it.
    pub(super) fn marker(&mut self, series: usize, (x, y): (f64, f64), words: &str) {
        let mut attributes = fill(series);
        attributes.push(("d", style::marker(series, x, y, 4.0)));
        self.titled("path", &attributes, words);
    }

    /// A hollow marker with the shape of a series, in the colour of one.
    pub(super) fn hollow_marker(
        &mut self,
        colour: usize,
        shape: usize,
        (x, y): (f64, f64),
        words: &str,
    ) {
        let mut attributes = stroke(colour, 1.5);
        attributes.push(("d", style::marker(shape, x, y, 5.5)));
        self.titled("path", &attributes, words);
    }

    /// A cross: there should be a value, but there is none.
    pub(super) fn cross(&mut self, series: usize, (x, y): (f64, f64), words: &str) {
        let mut attributes = stroke(series, 2.0);
        let size = 4.0;
        let (left, right, top, bottom) = (x - size, x + size, y - size, y + size);
        attributes.push((
            "d",
            format!("M{left:.1} {top:.1}L{right:.1} {bottom:.1}M{left:.1} {bottom:.1}L{right:.1} {top:.1}"),
        ));
        self.titled("path", &attributes, words);
    }

    /// A bar of a series between two heights.
    pub(super) fn bar(
        &mut self,
        series: usize,
        (left, right): (f64, f64),
        (one, other): (f64, f64),
        words: &str,
    ) {
        let mut attributes = fill(series);
        let class = format!("bar f{}", style::colour_index(series));
        attributes.retain(|(name, _)| *name != "class");
        attributes.extend([
            ("class", class),
            // The whiskers must be seen on the bars.
            ("fill-opacity", "0.8".to_owned()),
            ("x", format!("{left:.1}")),
            ("y", format!("{:.1}", one.min(other))),
            ("width", format!("{:.1}", right - left)),
            ("height", format!("{:.1}", (one - other).abs())),
        ]);
        self.titled("rect", &attributes, words);
    }

    /// The whisker of a bar: over the ink, so that it can be seen on the bar and above it.
    pub(super) fn whisker(&mut self, x: f64, (low, high): (f64, f64), half_width: f64) {
        let (left, right) = (x - half_width, x + half_width);
        let data = format!(
            "M{left:.1} {low:.1}L{right:.1} {low:.1}M{x:.1} {low:.1}L{x:.1} {high:.1}M{left:.1} {high:.1}L{right:.1} {high:.1}"
        );
        self.root.append(element(
            "path",
            &[
                ("d", data),
                ("fill", "none".to_owned()),
                ("stroke", style::ink().to_owned()),
                ("stroke-width", "1.3".to_owned()),
                ("class", "axis".to_owned()),
            ],
        ));
    }

    /// A dashed line over a bar, for a published value.
    pub(super) fn reference_line(&mut self, (left, right): (f64, f64), y: f64, words: &str) {
        let mut attributes = line_attributes((left, y), (right, y));
        attributes.extend([
            ("stroke", style::ink().to_owned()),
            ("stroke-width", "2".to_owned()),
            ("stroke-dasharray", "4 2".to_owned()),
            ("class", "axis".to_owned()),
        ]);
        self.titled("line", &attributes, words);
    }

    fn titled(&mut self, name: &str, attributes: &[(&str, String)], words: &str) {
        let mut element = element(name, attributes);
        if !words.is_empty() {
            element.append(with_text("title", &[], words));
        }
        self.root.append(element);
    }
}

/// About how wide a text is, in pixels.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.53
}

fn path(places: &[(f64, f64)]) -> String {
    let places: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    format!("M{}", places.join("L"))
}

fn stroke(series: usize, width: f64) -> Vec<(&'static str, String)> {
    vec![
        ("fill", "none".to_owned()),
        ("stroke", style::colour(series).to_owned()),
        ("stroke-width", width.to_string()),
        ("stroke-linejoin", "round".to_owned()),
        ("class", format!("s{}", style::colour_index(series))),
    ]
}

fn fill(series: usize) -> Vec<(&'static str, String)> {
    vec![
        ("fill", style::colour(series).to_owned()),
        ("class", format!("f{}", style::colour_index(series))),
    ]
}

fn line_attributes((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Vec<(&'static str, String)> {
    let number = |value: f64| format!("{value:.1}");
    vec![("x1", number(x1)), ("y1", number(y1)), ("x2", number(x2)), ("y2", number(y2))]
}

fn text_attributes(x: f64, y: f64, anchor: Anchor, size: f64) -> Vec<(&'static str, String)> {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let mut attributes = vec![
        ("x", format!("{x:.1}")),
        ("y", format!("{y:.1}")),
        ("text-anchor", anchor.to_owned()),
        ("fill", style::ink().to_owned()),
        ("class", "ink".to_owned()),
    ];
    if (size - TEXT).abs() > 0.01 {
        attributes.push(("font-size", size.to_string()));
    }
    attributes
}

fn element(name: &str, attributes: &[(&str, String)]) -> Element {
    let mut element = Element::new(name);
    for (attribute, value) in attributes {
        element.assign(*attribute, value.as_str());
    }
    element
}

fn with_text(name: &str, attributes: &[(&str, String)], text: &str) -> Element {
    let mut element = element(name, attributes);
    element.append(Text::new(one_line(text)));
    element
}
