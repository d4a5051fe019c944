//! A drawing as SVG: for a file of its own, or for a page that contains it.
//!
//! Colours follow `prefers-color-scheme`, and the ground is transparent. States differ in colour and in symbol. Text is text.

use std::fmt::Write as _;

use super::layout::{Layout, Place};
use super::nodes::{Drawing, Node};
use crate::state_words::ShownState;

const STYLE: &str = include_str!("graph.css");

/// The width of nodes: as their texts need it, within these bounds.
const NARROWEST: f64 = 148.0;
const WIDEST: f64 = 260.0;
/// The width of a letter, about: of names, and of the texts below.
const NAME_LETTER: f64 = 8.6;
const TEXT_LETTER: f64 = 6.4;
/// From the left side of a node to its texts.
const INDENT: f64 = 30.0;

/// Whether nodes are links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    None,
    /// To `#stage=NAME`, which the page that contains the picture understands.
    WithinPage,
}

/// The picture, with a title for those who cannot see it.
pub(crate) fn svg(drawing: &Drawing<'_>, title: &str, links: Links) -> String {
    let sizes: Vec<(f64, f64)> = drawing.nodes.iter().map(size).collect();
    let (pairs, ports) = edges(drawing);
    let layout = Layout::of(&sizes, &pairs);
    let Layout { width, height, .. } = layout;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pipeline-graph\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"{}\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', sans-serif\">\n",
        if links == Links::None { "img" } else { "group" }
    );
    let _ = writeln!(text, "<title>{}</title>\n<style>\n{STYLE}</style>", escaped(title));
    text.push_str("<defs><marker id=\"pipeline-arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerUnits=\"userSpaceOnUse\" markerWidth=\"9\" markerHeight=\"9\" orient=\"auto-start-reverse\"><path class=\"head\" d=\"M0 0.8L8 4L0 7.2Z\"/></marker></defs>\n");
    for (((from, to), ports), route) in pairs.iter().zip(&ports).zip(&layout.routes) {
        let path = match route.is_empty() {
            true => own_loop(layout.corners[*from], sizes[*from]),
            false => curve(route),
        };
        let (from, to) = (drawing.nodes[*from].name, drawing.nodes[*to].name);
        let words = format!("{from} → {to} ({})", ports.join(", "));
        let _ = writeln!(
            text,
            "<path class=\"edge\" data-from=\"{}\" data-to=\"{}\" d=\"{path}\" marker-end=\"url(#pipeline-arrow)\"><title>{}</title></path>",
            escaped(from),
            escaped(to),
            escaped(&words)
        );
    }
    for ((node, corner), size) in drawing.nodes.iter().zip(&layout.corners).zip(&sizes) {
        draw(&mut text, node, *corner, *size, links);
    }
    text.push_str("</svg>\n");
    text
}

/// The edges between nodes, each once, with their ports.
fn edges<'p>(drawing: &Drawing<'p>) -> (Vec<(usize, usize)>, Vec<Vec<&'p str>>) {
    let mut places = std::collections::HashMap::new();
    let (mut pairs, mut ports): (Vec<_>, Vec<Vec<&str>>) = (Vec::new(), Vec::new());
    for &(from, to, port) in &drawing.edges {
        let place = *places.entry((from, to)).or_insert(pairs.len());
        match ports.get_mut(place) {
            Some(ports) => ports.push(port),
            None => {
                pairs.push((from, to));
                ports.push(vec![port]);
            }
        }
    }
    (pairs, ports)
}

fn size(node: &Node<'_>) -> (f64, f64) {
    let letters = |text: &str| text.chars().count() as f64;
    let counts = node.counts.as_deref().map_or(0.0, letters);
    let texts =
        (letters(node.name) * NAME_LETTER).max(letters(node.kind).max(counts) * TEXT_LETTER);
    let width = (texts + INDENT + 14.0).clamp(NARROWEST, WIDEST);
    (width.round(), if node.counts.is_some() { 72.0 } else { 50.0 })
}

fn draw(
    text: &mut String,
    node: &Node<'_>,
    (x, y): Place,
    (width, height): (f64, f64),
    links: Links,
) {
    let state = node.state.name();
    let name = escaped(node.name);
    let words = match &node.counts {
        Some(counts) => format!("{}, {}: {counts}", node.name, node.kind),
        None => format!("{}, {}: {state}", node.name, node.kind),
    };
    if links == Links::WithinPage {
        let _ = write!(text, "<a href=\"#stage={name}\" aria-label=\"{}\">", escaped(&words));
    }
    let _ = write!(
        text,
        "<g class=\"node {state}\" data-stage=\"{name}\"><title>{}</title>",
        escaped(&words)
    );
    if node.counts.is_some() {
        // As a stack of cards.
        let _ = write!(
            text,
            "<rect class=\"behind\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>",
            x + 4.0,
            y + 4.0
        );
    }
    let _ = write!(
        text,
        "<rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>"
    );
    let _ = write!(
        text,
        "<text class=\"symbol\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        x + 11.0,
        y + 21.5,
        node.state.symbol()
    );
    let left = x + INDENT;
    let room = width - INDENT - 10.0;
    let _ = write!(
        text,
        "<text class=\"name\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
        y + 21.0,
        escaped(&cut(node.name, room / NAME_LETTER))
    );
    let _ = write!(
        text,
        "<text class=\"kind\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
        y + 38.0,
        escaped(&cut(node.kind, room / TEXT_LETTER))
    );
    if let Some(counts) = &node.counts {
        let _ = write!(
            text,
            "<text class=\"counts\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
            y + 54.0,
            escaped(&cut(counts, room / TEXT_LETTER))
        );
        bar(text, node, (left, y + height - 11.0), room);
    }
    text.push_str("</g>");
    text.push_str(if links == Links::WithinPage { "</a>\n" } else { "\n" });
}

/// The share of instances in each state.
fn bar(text: &mut String, node: &Node<'_>, (x, y): Place, width: f64) {
    let all = node.states.len().max(1) as f64;
    let mut left = x;
    for wanted in ShownState::ALL {
        let count = node.states.iter().filter(|state| **state == wanted).count();
        if count == 0 {
            continue;
        }
        let part = width * count as f64 / all;
        let _ = write!(
            text,
            "<rect class=\"part {}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{part:.1}\" height=\"4\"/>",
            wanted.name()
        );
        left += part;
    }
}

/// Through the places of a route: bends between layers, straight through them.
fn curve(route: &[Place]) -> String {
    let mut path = String::new();
    for (index, pair) in route.windows(2).enumerate() {
        let &[(x1, y1), (x2, y2)] = pair else { continue };
        if index == 0 {
            let _ = write!(path, "M{x1:.1} {y1:.1}");
        }
        match index % 2 {
            0 => {
                let middle = f64::midpoint(y1, y2);
                let _ = write!(path, "C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {y2:.1}");
            }
            _ => {
                let _ = write!(path, "L{x2:.1} {y2:.1}");
            }
        }
    }
    path
}

/// From a node to itself: instances that read others of their stage.
fn own_loop((x, y): Place, (width, height): (f64, f64)) -> String {
    let (right, low, high) = (x + width, y + height * 0.65, y + height * 0.35);
    format!(
        "M{right:.1} {low:.1}C{:.1} {low:.1} {:.1} {high:.1} {right:.1} {high:.1}",
        right + 20.0,
        right + 20.0
    )
}

/// The text, or its start if it has more than this many letters.
fn cut(text: &str, letters: f64) -> String {
    let most = letters.floor().max(1.0) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The text without any meaning in XML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::drawing::Drawing;
    use crate::facts::CacheFacts;
    use crate::manifest;
    use crate::plan::Plan;

    const SWEEP: &str = r#"
        [experiment]
        name = "sweep"
        [matrix]
        rate = [0.2, 0.5, 0.9]
        [stages.data]
        kind = "command"
        run = ["a"]
        [stages.train]
        kind = "command"
        run = ["b", "${rate}"]
        inputs = { data = "data" }
        [stages.all]
        kind = "command"
        run = ["c"]
        inputs = { scores = "train@*", data = "data" }
    "#;

    fn picture(text: &str, most: usize, links: Links) -> String {
        let (manifest, graph) =
            manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest");
        let names: Vec<_> = graph.order().cloned().collect();
        let folder = tempfile::tempdir().expect("a folder");
        let cache = crate::cache::Cache::open(&folder.path().join("cache")).expect("a cache");
        let facts = CacheFacts::look(&cache, &manifest, &names);
        let plan = Plan::of(&manifest, &graph, &names, &facts);
        svg(&Drawing::of(&manifest, &plan, most, ShownState::planned), "sweep", links)
    }

    #[test]
    fn many_instances_are_one_node_with_counts() {
        let svg = picture(SWEEP, 1, Links::None);
        assert_eq!(svg.matches("<g class=\"node").count(), 3, "{svg}");
        assert_eq!(svg.matches("<path class=\"edge\"").count(), 3, "{svg}");
        assert!(svg.contains(">3: 3 waiting</text>"), "{svg}");
        assert!(svg.contains("<title>train → all (scores)</title>"), "{svg}");
        assert!(!svg.contains("<a "), "{svg}");
        assert_eq!(svg, picture(SWEEP, 1, Links::None));
        let all = picture(SWEEP, usize::MAX, Links::WithinPage);
        assert_eq!(all.matches("<g class=\"node").count(), 5);
        assert!(all.contains("<a href=\"#stage=train@rate=0.2\""), "{all}");
    }

    #[test]
    fn texts_have_no_meaning_and_are_cut() {
        assert_eq!(escaped("<a b=\"c\">&\u{1b}"), "&lt;a b=&quot;c&quot;&gt;&amp; ");
        assert_eq!(cut("abcdef", 4.9), "abc…");
        assert_eq!(cut("abcd", 4.0), "abcd");
    }
}
