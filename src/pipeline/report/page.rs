//! The page: one HTML file that needs nothing else, and that does not load anything.
//!
//! The data is one JSON block, and only the scripts beside this file read it; they write texts as texts. A policy in the page lets nothing
//! be loaded and no other script run.

use pipeline_stages::url::blanked;
use serde_json::Value;

use super::data::Report;
use crate::visible;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 4] = [
    include_str!("elements.js"),
    include_str!("charts.js"),
    include_str!("sections.js"),
    include_str!("page.js"),
];

/// The page of a report. `graph` is its picture, with links to stages; `made` is the time, in seconds since 1970.
pub(crate) fn page(report: &Report, graph: &str, made: u64) -> String {
    let data = serde_json::to_value(report).map(shown).unwrap_or_default();
    let data = within_script(&data.to_string());
    let scripts = SCRIPTS.concat();
    // The same page for the same data. It keeps out what gets into the page without knowing the page as a whole.
    let nonce = blake3::hash(data.as_bytes()).to_hex();
    let mut page = String::with_capacity(data.len() + scripts.len() + graph.len() + 20_000);
    for (index, part) in TEMPLATE.split("%%").enumerate() {
        if index % 2 == 0 {
            page.push_str(part);
            continue;
        }
        match part {
            "title" => page.push_str(&escaped(&report.experiment)),
            "nonce" => page.push_str(&nonce[..32]),
            "made" => page.push_str(&made.to_string()),
            "style" => page.push_str(STYLE),
            "graph" => page.push_str(graph),
            "data" => page.push_str(&data),
            "scripts" => page.push_str(&scripts),
            _ => {}
        }
    }
    page
}

/// The value with every text as people may see it: without passwords in URLs, and with what hides or reorders letters escaped.
fn shown(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let text = blanked(&text);
            Value::String(visible::text(&text).into_owned())
        }
        Value::Array(values) => values.into_iter().map(shown).collect(),
        Value::Object(entries) => {
            let entries = entries.into_iter();
            Value::Object(
                entries
                    .map(|(name, value)| (visible::line(&name).into_owned(), shown(value)))
                    .collect(),
            )
        }
        other => other,
    }
}

/// JSON that cannot end the script that it is in.
fn within_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The text without any meaning in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_ends_the_script_or_shows_a_password() {
        let value = shown(
            json!({ "log": "</script><script>alert(1)</script>", "url": "https://me:secret@host/x", "a\u{202e}": "\u{1b}[1m" }),
        );
        let text = within_script(&value.to_string());
        assert!(!text.contains('<') && !text.contains('&') && !text.contains("secret"), "{text}");
        let again: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(again["log"], "</script><script>alert(1)</script>");
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn the_template_has_what_is_put_into_it() {
        let marks: Vec<&str> = TEMPLATE.split("%%").skip(1).step_by(2).collect();
        for mark in ["title", "nonce", "made", "style", "graph", "data", "scripts"] {
            assert!(marks.contains(&mark), "{mark}");
        }
        for text in SCRIPTS.iter().chain(&[STYLE]) {
            assert!(!text.contains("</"), "nothing ends its element early");
            assert!(!text.contains("innerHTML"), "texts are written as texts");
        }
    }
}
